"""Training: one LightningModule around any model, and what a run writes to disk."""

import gc
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

import torch
import tyro

from actioncast import __version__
from actioncast.batches import FARTHEST
from actioncast.checkpoint import json_bytes, save_checkpoint, to_json
from actioncast.data import Dataset, LabelInput, Video, inner_split
from actioncast.data.collate import Anchor
from actioncast.files import replace_file
from actioncast.inference import require_labels_of_the_past, require_postprocess
from actioncast.layers.moments import steps_ahead
from actioncast.models import MODELS, ModelConfig
from actioncast.models.base import Anticipator, CountingAnticipator, CountsFirst
from actioncast.models.futr import FUTRConfig
from actioncast.optimisation import Optimisation
from actioncast.postprocessing import Postprocess
from actioncast.protocols import HorizonSource, LongTerm
from actioncast.recognised import TRUTH, without_split
from actioncast.text_encoders import lasting_encoder
from actioncast.trunks.finding import lasting_name
from actioncast.types import Task

RESUME = "resume.ckpt"
"""The state after the last complete epoch, in the folder of a split's run."""
PLAN = "training.json"
"""What that run depends on, beside it."""
BESIDE = "beside"
"""What is read beside the data, in that file."""
ALIKE: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "labels_from": without_split,
        "captions": without_split,
        "model.trunk.name": lasting_name,
        "model.encoder": lasting_encoder,
    }
)
"""Values that may be said in several ways, with what makes one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Optimisation):
    """Everything that a training run depends on, besides the data."""

    model: Annotated[ModelConfig, tyro.conf.AvoidSubcommands] = field(default_factory=FUTRConfig)
    """the model and its sizes; feature_dim follows the data"""
    dataset: str = ""
    """folder name of the data set under the data root, where --data does not name one"""
    input: Literal["features", "labels"] = "features"
    """what the model sees: feature files, or labels one-hot"""
    labels: LabelInput = field(default_factory=LabelInput)
    """how true labels are spoilt, where they are the input or stand beside it"""
    labels_from: str = ""
    """who names the actions observed beside the features, for models that read both: truth, a run
    that segments (of each split its own checkpoint), a folder of files <video>.txt with one label a
    frame; nobody, if empty"""
    captions: str = ""
    """folder of captions, a file <video>.vtt, .csv, .json, .npz or .npy each, for models that read
    them; none, if empty"""
    level: str = ""
    """which level of the data's hierarchy is named and scored: coarse, fine, or its own name; the
    other levels stand beside it. Without a hierarchy, if empty"""
    hierarchy: str = ""
    """which hierarchy that is: a name (phase, activity) or a file; what the data bring, if empty"""
    resample: int = 1
    """every how many frames one is left of annotation, features and all that is scored, before
    anything is cut, as ActionLLM's released code has it"""
    stride: int = 1
    """every how many frames (of those left) the model reads one"""
    anchor: Anchor = "start"
    """which observed frame is always read: the first, as published, or the last"""
    offsets: bool = False
    """read a training video from a random offset of the stride each time it is shown, and average
    the answers from all offsets in inference"""
    postprocess: Postprocess = "none"
    """what inference does to its answer: a median over steps, or purge or mode over frames"""
    postprocess_size: int = 0
    """steps of the median's window, frames of the mode's, longest segment purged"""
    observed_ratios: tuple[float, ...] = (0.2, 0.3, 0.5)
    """shares of a training video seen, each once an epoch; 1 trains segmentation alone"""
    starts: int = 1
    """frames at which a training observation starts, from the first on: each is shown once an
    epoch, as long as the share says of the whole video"""
    ratio_jitter: float = 0.0
    """greatest change of a share, drawn anew each time a video is shown"""
    warp: float = 0.0
    """each segment of a training video, of the level that is predicted, is stretched by exp of a
    normal of this deviation, drawn anew each time it is shown; 0 shows videos as they are"""
    relabel: float = 0.0
    """share of a training video's segments whose label is drawn from all, in input and target
    alike, anew each time it is shown; for labels as input"""
    horizon_source: HorizonSource = HorizonSource.TRUE_LENGTH
    """who says how many frames to anticipate in training"""
    multiple: float = 4.0
    """horizon over observed frames, for observed_multiple"""
    seconds: float = 300.0
    """horizon for seconds"""
    select_by: Literal["long_term", "segmentation", "both", "online"] = "long_term"
    """the score that selects: mean MoC, or frame accuracy; both is the mean of mean MoC and of all
    scores of segmentation; online, of models of streams, that of the mAP of detection and of the
    mean mAP of all moments ahead"""

    def __post_init__(self) -> None:
        Optimisation.__post_init__(self)
        for name in ("resample", "stride", "starts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.observed_ratios or not all(0 < r <= 1 for r in self.observed_ratios):
            raise ValueError(
                f"observed_ratios must be shares within (0, 1], got {self.observed_ratios}."
            )
        if min(self.ratio_jitter, self.warp) < 0:
            raise ValueError(
                f"ratio_jitter and warp must be 0 or more, got {self.ratio_jitter} and {self.warp}."
            )
        require_postprocess(self.postprocess, self.postprocess_size, self.offsets, self.anchor)
        if self.hierarchy and not self.level:
            raise ValueError(
                f"hierarchy must come with a level of it, got {self.hierarchy!r} without; say "
                "--level coarse or --level fine."
            )
        if self.relabel and self.level:
            raise ValueError(
                "relabel must go with labels without a hierarchy, whose other levels would not "
                f"follow, got it with level {self.level!r}; leave one of them out."
            )
        if self.relabel and self.captions:
            raise ValueError(
                "relabel must go without captions, which would tell of the labels exchanged, got "
                f"captions {self.captions!r}; leave one of them out."
            )
        if self.labels_from and self.input == "labels":
            raise ValueError(
                f"labels_from must be empty where labels are the input, got {self.labels_from!r}: "
                "they are there already; leave it out, or say --input features."
            )
        if self.labels_from not in ("", TRUTH) and self.labels != LabelInput():
            raise ValueError(
                "labels say how the truth is spoilt, got them with labels_from "
                f"{self.labels_from!r}; leave them out, or say --labels-from {TRUTH}."
            )

    def protocol(self) -> LongTerm:
        """The protocol whose questions are trained."""
        return LongTerm(
            horizon_source=self.horizon_source, multiple=self.multiple, seconds=self.seconds
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where training runs.

    Precision changes what is learned a little; so do more devices, each of which takes batches of
    `batch_size`: n devices make steps of n batches at the same learning rate.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto is a GPU where there is one"""
    devices: int = 1
    """processes, one a device; torchrun says it itself"""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """how processes share the work: auto is DDP where there are several; fsdp keeps the weights of
    a frozen trunk in parts on the GPUs, for one that does not fit into one of them"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """of activations; weights stay float32"""
    num_workers: int = 0
    """processes that read data"""
    quiet: bool = False
    """print no progress"""

    def __post_init__(self) -> None:
        if self.devices < 1 or self.num_workers < 0:
            raise ValueError(
                "devices must be at least 1 and num_workers at least 0, got "
                f"{self.devices} and {self.num_workers}."
            )

    def require(self) -> None:
        """Raise a ValueError where this machine is not as asked."""
        found = max(torch.cuda.device_count(), int(torch.backends.mps.is_available()))
        if self.accelerator == "gpu" and not found:
            raise ValueError(
                "accelerator gpu needs a GPU that PyTorch can use, got none; say --accelerator cpu."
            )
        on_cpu = self.accelerator == "cpu" or not found
        if self.strategy == "fsdp" and (on_cpu or not torch.cuda.is_available()):
            raise ValueError(
                "strategy fsdp needs a GPU of CUDA that PyTorch can use, got none; say --strategy "
                "auto."
            )
        if self.precision == "fp16" and on_cpu:
            raise ValueError("precision fp16 needs a GPU, got a CPU; say --precision bf16 or fp32.")
        if not on_cpu and self.devices > found:
            raise ValueError(
                f"devices must be at most {found}, the GPUs that PyTorch can use, got "
                f"{self.devices}; say --accelerator cpu to train on the CPU."
            )


def require_text(config: TrainConfig) -> None:
    """Raise a ValueError where a model lacks the text that its config reads, or would not read it.

    Of models whose config says who describes what is seen; asked before any data are read.
    """
    text, name = str(getattr(config.model, "text", "")), model_name(config.model)
    if text == "captions" and not config.captions:
        raise ValueError(
            f"{name} with text='captions' reads captions, got none; say --captions FOLDER with a "
            "file for every video, or another --model.text."
        )
    if text == "given" and not config.labels_from and config.input != "labels":
        raise ValueError(
            f"{name} with text='given' reads the labels observed, got nobody who names them; say "
            f"--labels-from with {TRUTH}, a run that segments or a folder, or another --model.text."
        )
    if text not in ("", "captions") and config.captions:
        raise _unread_captions(config)
    if text not in ("", "given") and config.labels_from:
        raise _unread_labels(config)


def _unread_captions(config: TrainConfig) -> ValueError:
    return ValueError(
        f"captions must go with a model that reads them, got {model_name(config.model)}, which "
        f"as configured does not; leave them out{_or_text(config, 'captions')}."
    )


def _unread_labels(config: TrainConfig) -> ValueError:
    return ValueError(
        f"labels_from must go with a model that reads observed labels, got "
        f"{model_name(config.model)}, which reads none as configured; leave it out"
        f"{_or_text(config, 'given')}."
    )


def _or_text(config: TrainConfig, text: str) -> str:
    """How a model that can read a text is told to, where there is a choice."""
    return f", or say --model.text {text}" if hasattr(config.model, "text") else ""


def too_short(config: TrainConfig, videos: Sequence[Video]) -> str:
    """A sentence where observed shares leave no frame of training videos; else empty.

    Of such a video the first frame is shown (`batches.CutVideos`).

    Args:
        config: The recipe.
        videos: All that train, resampled.
    """
    # A model that counts is shown whole videos.
    if not hasattr(config.model, "feature_dim"):
        return ""
    protocol = config.protocol()
    empty = {
        ratio: [v.id for v in videos if not protocol.question(v.num_frames, ratio, v.rate).observed]
        for ratio in sorted(set(config.observed_ratios))
    }
    short = sorted({video for own in empty.values() for video in own})
    if not short:
        return ""
    shares = [f"{ratio:g}" for ratio, own in empty.items() if own]
    one, single = len(short) == 1, len(shares) == 1
    return (
        f"{len(short)} of {len(videos)} training videos {'is' if one else 'are'} so short that "
        f"the share{'' if single else 's'} {', '.join(shares)} leave{'s' if single else ''} no "
        f"frame to see ({', '.join(short[:5])}{', ...' if len(short) > 5 else ''}): there the "
        "first frame is shown."
    )


def prepare(config: TrainConfig, dataset: Dataset) -> tuple[TrainConfig, Dataset]:
    """Fit recipe and data to one another: label input, and the width of a feature vector.

    The folder of a trunk or of a text encoder is said by its whole path.

    Raises:
        ValueError: The data has no features, or a video is too long for the model.
    """
    if config.input == "labels":
        dataset = dataset.with_label_input(config.labels)
    elif not hasattr(config.model, "feature_dim") and not config.labels_from:
        raise ValueError(
            f"{model_name(config.model)} counts labels, got features as input; say --input labels, "
            "or --labels-from with who names them."
        )
    width = dataset.num_features
    model = config.model
    if hasattr(model, "feature_dim") and model.feature_dim != width:
        model = replace(cast(Any, model), feature_dim=width)
        config = replace(config, model=model)
    trunk = getattr(model, "trunk", None)
    if trunk is not None and (name := lasting_name(trunk.name)) != trunk.name:
        model = replace(cast(Any, model), trunk=replace(trunk, name=name))
        config = replace(config, model=model)
    encoder = str(getattr(model, "encoder", ""))
    if (name := lasting_encoder(encoder)) != encoder:
        model = replace(cast(Any, model), encoder=name)
        config = replace(config, model=model)
    _require_labels_of_the_level(config, dataset)
    steps = longest_observation(config, dataset.videos.values())
    if hasattr(model, "max_positions") and model.max_positions < steps:
        raise ValueError(
            f"the longest observation can have {steps} steps at stride {config.stride} and warp "
            f"{config.warp:g}, the model has {model.max_positions} positions; raise --stride or "
            "--model.max-positions."
        )
    _require_moments(config, dataset)
    if config.anchor == "end" and config.stride > 1 and not hasattr(model, "feature_dim"):
        raise ValueError(
            f"a model that counts reads steps from the first frame, got --anchor end with stride "
            f"{config.stride}; say --stride 1 or --anchor start."
        )
    return config, dataset


def _require_labels_of_the_level(config: TrainConfig, dataset: Dataset) -> None:
    """Raise a ValueError where a model that counts cannot be told the labels of its level."""
    taxonomy = dataset.taxonomy
    follows = taxonomy.labels == taxonomy.finest or taxonomy.primary in taxonomy.parents
    if not follows and not hasattr(config.model, "feature_dim"):
        raise ValueError(
            f"{model_name(config.model)} counts the labels observed, and those of level "
            f"{taxonomy.primary!r} do not follow from the labels of {dataset.name}: the same label "
            "stands below several; say --level fine, a hierarchy by label, or take a model that "
            "reads features."
        )


def longest_observation(config: TrainConfig, videos: Iterable[Video]) -> int:
    """Steps that an observation of these videos, on their own grid, can have in training."""
    share = min(max(config.observed_ratios) + config.ratio_jitter, 1)
    longest = max(int(share * -(-v.num_frames // config.resample)) for v in videos)
    return math.ceil(longest * math.exp(FARTHEST * config.warp) / config.stride)


def _require_steps(config: TrainConfig, dataset: Dataset, model: Anticipator) -> None:
    """Raise a ValueError where a built model turns out to hold fewer steps than are trained on."""
    most: int | None = getattr(model, "max_steps", None)
    data = dataset.made_from or dataset
    if most is None or (steps := longest_observation(config, data.videos.values())) <= most:
        return
    fits = "ask for fewer queries"
    if most:
        fits = f"say --stride {math.ceil(config.stride * steps / most)}"
    trunk = getattr(config.model, "trunk", None)
    if trunk is not None and trunk.positions != "step":
        fits += ", or --model.trunk.positions step"
    raise ValueError(
        f"the longest observation can have {steps} steps at stride {config.stride} and warp "
        f"{config.warp:g}, the model holds {most}; {fits}."
    )


def _require_scaled_losses(config: TrainConfig, machine: Machine) -> None:
    """Raise a ValueError where gradients would pass a trunk in float16 without being scaled."""
    trunk = getattr(config.model, "trunk", None)
    if trunk is not None and trunk.dtype == "float16" and machine.precision != "fp16":
        raise ValueError(
            "a trunk in float16 must train with --precision fp16 on a GPU, which scales losses "
            f"lest small gradients vanish, got --precision {machine.precision}; say so, or "
            "--model.trunk.dtype bfloat16."
        )


def _require_moments(config: TrainConfig, dataset: Dataset) -> None:
    """Raise a ValueError where a model of streams is asked about moments that data do not have."""
    ahead: tuple[float, ...] = getattr(config.model, "ahead", ())
    if not ahead:
        return
    steps_ahead(ahead, dataset.rate, config.resample * config.stride)
    longest = max(video.num_frames for video in dataset.videos.values()) / dataset.rate
    if ahead[-1] >= longest:
        raise ValueError(
            f"a moment ahead must lie within a video, of which the longest lasts {longest:g} s, "
            f"got {ahead[-1]:g} s; say --model.ahead with shorter ones."
        )


def build(config: TrainConfig, dataset: Dataset) -> Anticipator:
    """The untrained model of a seed; the caller's random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return config.model.build(dataset.taxonomy)


def train_split(
    config: TrainConfig,
    dataset: Dataset,
    split: str,
    folder: Path,
    machine: Machine,
    recipe: str = "",
    data: Path | None = None,
    labels_fingerprint: str = "",
    captions_fingerprint: str = "",
) -> Path:
    """Train on one split, leave `best/` and `last/` in a folder; goes on where a kill stopped it.

    A run that is finished is left as it is.

    Args:
        config: The recipe, after `prepare`.
        dataset: The data, after `prepare`, resampled as the recipe says.
        split: Name of the split.
        folder: Of this split's run.
        machine: Where it runs.
        recipe: Its name, for the passport.
        data: Where the data lies, so that `evaluate` finds it.
        labels_fingerprint: Of what names the actions observed, if anything does.
        captions_fingerprint: Of the captions of the split, if there are any.

    Returns:
        The folder of the selected checkpoint.

    Raises:
        ValueError: The folder holds a run with other values, or nothing can be held out.
    """
    parts = dataset.split(split)
    videos = dataset.select(parts.train)
    held: list[Video] = []
    if config.selection == "validation":
        videos, held = inner_split(videos, config.validation_share, config.seed)
    elif config.selection == "test":
        held = dataset.select(parts.test)
    model = build(config, dataset)
    _require_steps(config, dataset, model)
    _require_scaled_losses(config, machine)
    if config.labels_from and not model.reads_labels:
        raise _unread_labels(config)
    if config.captions:
        _require_caption_reader(config, model)
    if Task.ONLINE in model.tasks:
        require_labels_of_the_past(videos)
    told = {"labels_from": labels_fingerprint, "captions": captions_fingerprint}
    beside = ", ".join(f"{name} {content}" for name, content in told.items() if content)
    begin(folder, config, dataset.fingerprint(), beside)
    counts = isinstance(model, CountingAnticipator)
    # `last/` is the last thing that a training writes.
    if (folder / ("best" if counts else "last") / "config.json").exists():
        return folder / "best"
    run = describe(config, dataset, split, recipe, data, [v.id for v in held])
    if labels_fingerprint:
        run["labels_fingerprint"] = labels_fingerprint
    if captions_fingerprint:
        run["captions_fingerprint"] = captions_fingerprint
    name = model_name(config.model)
    if isinstance(model, CountingAnticipator):
        model.fit([video.counted() for video in dataset.select(parts.train)])
        save_checkpoint(folder / "best", name, model, config.model, run)
        return folder / "best"

    if isinstance(model, CountsFirst):
        model.count([video.counted() for video in videos])

    from actioncast.lightning_run import fit  # noqa: PLC0415  (lightning takes seconds to import)

    fit(model, name, config, videos, held, folder, machine, run)
    # The trainer and what it trained hold one another: the next split's model would stand beside.
    gc.collect()
    return folder / "best"


def _require_caption_reader(config: TrainConfig, model: Anticipator) -> None:
    """Raise a ValueError where captions are given to a model that does not read them, or must not.

    A model that answers at every step of a whole video would be told of later steps.
    """
    if not model.reads_captions:
        raise _unread_captions(config)
    if Task.ONLINE in model.tasks:
        raise ValueError(
            f"captions must go with a model that answers about a share of a video, got "
            f"{model_name(config.model)}, which answers at every step; leave them out."
        )


def begin(folder: Path, config: Optimisation, fingerprint: str, beside: str = "") -> None:
    """Write down what a run depends on, or check that it is what the run was begun with.

    Args:
        folder: Of the split.
        config: The values.
        fingerprint: Of the data.
        beside: Fingerprints of labels and captions that others made of them.

    Raises:
        ValueError: Names the values that differ.
    """
    if holds_training(folder) and (folder / PLAN).exists():
        require_same_values(folder, config, fingerprint, beside)
    elif is_first_process():
        plan = _plan(config, fingerprint) | {BESIDE: beside}
        replace_file(folder / PLAN, json_bytes(plan))


def _plan(config: Optimisation, fingerprint: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(json_bytes({**to_json(config), "data": fingerprint}))
    return plan


def require_same_values(
    folder: Path, config: Optimisation, fingerprint: str, beside: str = ""
) -> None:
    """Raise a ValueError, which names them, where a split was begun with other values.

    What stands beside the data is compared where both say it: that of other splits is not known.
    """
    file = folder / PLAN
    try:
        begun = dict(flat(json.loads(file.read_text())))
    except (ValueError, AttributeError):
        raise ValueError(f"{file} must be JSON as training writes it; take it away.") from None
    stood = begun.pop(BESIDE, "")
    asked = dict(flat(_plan(config, fingerprint)))
    # A run begun before a value existed was begun with its default.
    plain: Any = type(config)
    begun = {**dict(flat(to_json(plain(model=cast(Any, config).model)))), **begun}
    changed = [
        f"{name} was {begun.get(name, 'absent')} and is {asked.get(name, 'absent')}"
        for name in {**begun, **asked}
        if _same(name, begun.get(name)) != _same(name, asked.get(name))
    ]
    if stood and beside and stood != beside:
        changed.append(f"the content of {stood} is now that of {beside}")
    if changed:
        raise ValueError(
            f"{folder} was begun with other values ({', '.join(changed)}); go on with the same "
            "ones, or start a new run under another --name."
        )


def _same(name: str, value: Any) -> Any:
    return ALIKE[name](value) if name in ALIKE and isinstance(value, str) else value


def holds_training(folder: Path) -> bool:
    """Whether a split's folder holds a checkpoint, or a state to go on from."""
    return (folder / RESUME).exists() or (folder / "best" / "config.json").exists()


def is_first_process() -> bool:
    """Whether this is the process of a DDP run that writes and prints, or the only one."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of mappings within mappings, by its dotted name."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def describe(
    config: TrainConfig,
    dataset: Dataset,
    split: str,
    recipe: str,
    data: Path | None,
    held: list[str],
) -> dict[str, Any]:
    """What a checkpoint says of the run that made it."""
    return {
        **run_facts(config, dataset.name, dataset.fingerprint(), recipe, data),
        "rate": (dataset.made_from or dataset).rate,
        "split": split,
        "held_out": held if config.selection == "validation" else [],
    }


def run_facts(
    config: Optimisation, dataset: str, fingerprint: str, recipe: str, data: Path | None
) -> dict[str, Any]:
    """What every checkpoint says, whatever it was trained on."""
    return {
        "recipe": recipe,
        "training": training_facts(config),
        "dataset": dataset,
        "data": "" if data is None else str(data.resolve()),
        "fingerprint": fingerprint,
        "version": __version__,
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
    }


def training_facts(config: Optimisation) -> dict[str, Any]:
    """The training part of a config; the model's part stands in the checkpoint beside it."""
    return {key: value for key, value in to_json(config).items() if key != "model"}


def model_name(config: object) -> str:
    """The name of a config's class in `MODELS`."""
    return next(name for name, kind in MODELS.items() if type(config) is kind)


def commit() -> str:
    """The commit of the checkout this package runs from, `+` if it has uncommitted changes."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        dirty = _git(here, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
