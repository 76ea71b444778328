"""The options of every verb of the command line, each with its sentence of help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from actioncast.clip_config import ClipTrainConfig
from actioncast.cost_subjects import Asked
from actioncast.protocols import HorizonSource
from actioncast.runs import ALL
from actioncast.training import Machine, TrainConfig

RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe on every split of its data set; any of its values can be overridden."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    data: Path | None = None
    """folder of the data set, or the folder that holds it"""
    rate: float | None = None
    """frames per second of labels and features, where the data does not say"""
    split: tuple[str, ...] = (ALL,)
    """splits to train"""
    out: Path = RUNS
    """where runs are kept"""
    name: str = ""
    """folder of the run in there; absent, the recipe's name"""
    resume: bool = False
    """go on with a run that was stopped, or add splits to a run (--split)"""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    json: bool = False
    """print where the checkpoints are as JSON"""


@dataclass(frozen=True, kw_only=True)
class TrainClips:
    """Train a recipe of short actions; any of its values can be overridden."""

    config: Annotated[ClipTrainConfig, tyro.conf.arg(name="")]
    data: Path | None = None
    """folder of the data set, or the folder that holds it"""
    out: Path = RUNS
    """where runs are kept"""
    name: str = ""
    """folder of the run in there; absent, the recipe's name"""
    resume: bool = False
    """go on with a run that was stopped"""
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    json: bool = False
    """print where the checkpoints are as JSON"""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score runs on the test videos of their splits; several runs make one table."""

    run: tyro.conf.Positional[tuple[Path, ...]] = ()
    """run folders; absent, the run trained last"""
    data: Path | None = None
    """where the data lies, if not where it lay in training"""
    labels_from: str = ""
    """of runs that read labels beside features: who names them (truth, a run, a folder of label
    files), if not who did in training, or where that lies instead"""
    captions: str = ""
    """of runs that read captions: the folder of them, if not that of the training, or where that
    lies instead"""
    trunk: str = ""
    """where the frozen model of the run lies, if not where it lay in training"""
    split: str = ""
    """the one split to score; names that of a checkpoint that does not say it. Of short actions:
    validation, or held_out for the training clips that selected the checkpoint"""
    task: Literal["all", "long_term", "segmentation", "online"] = "all"
    """what to score: all is every task that the run was trained for"""
    horizon: HorizonSource | None = None
    """who says how many frames to anticipate; absent, as in training"""
    multiple: float | None = None
    """horizon over observed frames, for observed_multiple; absent, as in training"""
    seconds: float | None = None
    """horizon for seconds; absent, as in training"""
    observed_ratios: tuple[float, ...] = (0.2, 0.3)
    """shares of the video seen"""
    horizon_ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """lengths of the scored windows as shares of the video"""
    rounded_observation: bool = False
    """show round(alpha * steps) steps as the released ActFusion test does, for true_length; up to
    stride - 1 frames beyond the boundary are seen"""
    legacy_last_segment: bool = False
    """end the last segment one frame early, as older evaluators do"""
    ahead: tuple[float, ...] = ()
    """of models of streams: seconds after each step at which the action is asked for; absent, those
    that the model was built for"""
    alignment: Literal["target", "shifted_by_one"] = "target"
    """of models of streams: which label an answer about a moment is compared with; shifted_by_one
    reproduces numbers of MiniROAD, which are easier"""
    way: Literal["at_once", "streamed"] = "at_once"
    """of models of streams: videos in one call, or step by step, which measures a step's time"""
    num_samples: int = 0
    """futures to draw"""
    combine: Literal["most_likely", "mean_of_samples", "best_of_samples"] = "most_likely"
    """which future is scored"""
    device: str = "cpu"
    """where the model runs"""
    out: Path | None = None
    """folder of the result files; absent, results/ in the run's folder"""
    submission: Path | None = None
    """also write the answers of one run on EPIC-KITCHENS-100 as its challenge reads them"""
    supervision: tuple[int, int, int] = (-1, -1, -1)
    """what the submission declares: levels of pre-training, labels and data, 0 to 5, -1 for none"""
    plot: tuple[Path, ...] = ()
    """also draw timelines: .png, .svg or .html"""
    videos: tuple[str, ...] = ()
    """which test videos to draw; absent, the first"""
    runs: Path = RUNS
    """where runs are kept"""
    json: bool = False
    """print the results as JSON"""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Forecast from a feature file, a label file, or a video of a data set."""

    run: tyro.conf.Positional[Path]
    """run or checkpoint folder"""
    input: tyro.conf.Positional[str]
    """a .npy file of features, a .txt file of labels, or the name of a video in the data set"""
    data: Path | None = None
    """the data set that holds the video"""
    labels_from: str = ""
    """of runs that read labels beside features: who names them (truth, a run, a folder of label
    files), if not who did in training, or where that lies instead"""
    captions: str = ""
    """of runs that read captions: the folder of them, if not that of the training, or where that
    lies instead"""
    trunk: str = ""
    """where the frozen model of the run lies, if not where it lay in training"""
    split: str = ""
    """which split's checkpoint; absent, for a test video the one that did not train on it"""
    now: float = 0.0
    """seconds seen; 0 sees the whole input (of a data set's video, the first 30 %)"""
    horizon: float = 0.0
    """seconds to anticipate; 0 looks as far ahead as was seen, or to half of a known video"""
    rate: float = 0.0
    """frames per second of the input; 0 is the rate of the training data"""
    beside: tuple[Path, ...] = ()
    """other runs, drawn below"""
    truth: Path | None = None
    """a label file, drawn above"""
    num_samples: int = 0
    """futures to draw besides, a row each in pictures and a list in JSON"""
    out: tuple[Path, ...] = ()
    """files to write: .png, .svg, .html, .csv, .json, .vtt, .eaf"""
    device: str = "cpu"
    """where the model runs"""
    json: bool = False
    """print the timeline as JSON"""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Print results side by side; refuses what was not measured the same way."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """result files, as `evaluate` and `bench` write them"""
    across: tuple[str, ...] = ()
    """fields of the passport that may differ, because the table is about them"""
    json: bool = False
    """print JSON"""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Turn an official checkpoint into ours."""

    method: tyro.conf.Positional[Literal["futr", "actfusion", "diffact", "clam"]]
    """whose checkpoint"""
    checkpoint: tyro.conf.Positional[Path]
    """the file"""
    data: Path | None = None
    """of clam: folder of EPIC-KITCHENS-100, or the one that holds it, which names its classes"""
    mapping: Path | None = None
    """mapping.txt with the names of its labels; absent, they are called action_0, action_1, ..."""
    out: Path = RUNS / "converted"
    """folder to write"""
    dataset: str = ""
    """data set it was trained on; actfusion and diffact need it: 50salads, breakfast or gtea"""
    split: str = ""
    """split it was trained on"""
    stride: int | None = None
    """every how many frames it reads one; absent, as released for the data set (futr without one:
    3)"""
    rate: float | None = None
    """frames per second of its data; absent, those of the data set (futr without one: 15)"""
    num_heads: int | None = None
    """attention heads of futr or clam, which a checkpoint does not tell; absent, 8"""
    act_tokens: int | None = None
    """recent tokens of clam (K), which a checkpoint does not tell; absent, 4"""
    gate_temperature: float | None = None
    """what the log of clam's gates is divided by; absent, 16"""
    ahead: tuple[float, ...] = ()
    """seconds that the queries of clam name, one each; absent, 1 of a single query, and of several
    the next actions in order"""
    paper: bool = False
    """clam as the paper has it, which streams, in place of what the released code computes"""
    condition_layers: tuple[int, ...] = ()
    """encoder layers, counted from 0, that condition the denoiser of actfusion or diffact; absent,
    as released for the data set"""
    scale: float | None = None
    """of the diffusion of actfusion or diffact; absent, as released for the data set"""
    trust: bool = False
    """unpickle whatever the file holds; it can run any code"""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say what a run, a checkpoint, a recipe or a result file is; alone, list what there is."""

    what: tyro.conf.Positional[tuple[str, ...]] = ()
    """a folder, a recipe's name or a result file; of folders and recipes several, with --cost"""
    cost: bool = False
    """parameters, operations, tokens, time and memory of one answer about one video, a row each; of
    a recipe of MambaVL: parameters and operations of one clip, part by part"""
    asked: Annotated[Asked, tyro.conf.arg(name="")] = field(default_factory=Asked)
    backbone: str = ""
    """for --cost: a backbone that a recipe of MambaVL does not name, such as untrained:vit-base"""
    json: bool = False
    """print JSON"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Train and score models from true labels on real data, beside the published rows."""

    what: tyro.conf.Positional[Literal["labels", "readme"]]
    """labels runs the benchmark; readme writes its tables into the README"""
    data: Path | None = None
    """folder that holds breakfast/ and 50salads/; absent, $ACTIONCAST_DATA or data/"""
    datasets: tuple[str, ...] = ("breakfast", "50salads")
    """which of them"""
    models: tuple[str, ...] = ("repeat-last-action", "n-gram", "nearest-neighbour", "semi-markov")
    """recipes; futr stands for the recipe of FUTR from labels"""
    horizons: tuple[HorizonSource, ...] = tuple(HorizonSource)
    """who says how many frames to anticipate"""
    splits: tuple[str, ...] = (ALL,)
    """splits to score"""
    seed: int = 0
    """of every model"""
    out: Path = Path("results") / "labels"
    """where result files are written"""
    runs: Path = RUNS / "bench"
    """where the trained models are kept"""
    readme: Path = Path("README.md")
    """file whose tables are made anew"""
    workers: int = 2
    """models trained and scored at once"""
    retrain: bool = False
    """train learned models anew for each horizon source, instead of swapping the horizon alone"""
    json: bool = False
    """print the results as JSON"""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The main job on an embedded data set: train, score, and forecast one video."""

    out: Path = Path("demo")
    """where pictures and the run are written"""
