"""Where observed labels come from, and that none of them tells of what was not seen."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import folders
from actioncast import recognised
from actioncast.__main__ import main
from actioncast.data import Dataset, LabelInput, Video, open_dataset
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig, observed_whole
from actioncast.models.base import Anticipator, Losses
from actioncast.models.baselines import NGramConfig
from actioncast.models.frame_classifier import FrameClassifierConfig
from actioncast.models.futr import FUTRConfig
from actioncast.passport import read_result
from actioncast.recognised import (
    FileLabels,
    Naming,
    RecognisedLabels,
    Recogniser,
    label_giver,
    run_name,
    without_split,
)
from actioncast.runs import load_run
from actioncast.timeline import Taxonomy, Timeline
from actioncast.training import TrainConfig
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of(folders.NAMES)
PLAIN = InferenceConfig()


class Stub(Anticipator):
    """Names steps by what their feature vectors, one-hot, say; counts how often it is asked."""

    tasks = frozenset({Task.SEGMENTATION})

    def __init__(self) -> None:
        super().__init__()
        self.taxonomy, self.asked = TAXONOMY, 0

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def named(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def predict(self, x: Observation) -> list[Prediction]:
        self.asked += 1
        return [
            Prediction(
                taxonomy=TAXONOMY,
                rate=one.rate,
                observed=one.frames_observed(0),
                past=self.named(one.features[0]),
            )
            for one in x
        ]


class Reader(Stub):
    """Names each step by its own vector."""

    causal = True


class Hindsight(Stub):
    """Names every step by the last one it has seen."""

    def named(self, features: torch.Tensor) -> torch.Tensor:
        return features[-1:].expand_as(features)


class Silent(Stub):
    """Names no action at the second step."""

    def named(self, features: torch.Tensor) -> torch.Tensor:
        return features * (torch.arange(len(features)) != 1)[:, None]


def video(labels: list[int], name: str = "v") -> Video:
    """A video whose vectors are its labels, one-hot."""
    frames = np.array(labels)
    vectors = F.one_hot(torch.tensor(labels), len(folders.NAMES)).float().numpy()
    return Video(
        id=name,
        timeline=Timeline.from_frames(frames, 5.0, TAXONOMY.labels),
        rate=5.0,
        num_frames=len(frames),
        features=FeatureArray(vectors),
    )


def told(model: Anticipator, one: Video, config: InferenceConfig = PLAIN) -> RecognisedLabels:
    return RecognisedLabels(Recogniser(model, config), one)


# A recogniser sees what the model sees


def test_a_recogniser_that_looks_ahead_is_shown_nothing_beyond_what_was_seen():
    source = told(Hindsight(), video([0, 0, 1, 2, 3, 3]))
    assert source.read(6).tolist() == [3] * 6
    assert [source.read(n).tolist() for n in (1, 3, 4)] == [[0], [1] * 3, [2] * 4]
    assert source.read(0).tolist() == []
    assert not source.causal


def real(name: str) -> Anticipator:
    torch.manual_seed(0)
    config: Any = {
        "futr": FUTRConfig(
            feature_dim=4, hidden_dim=8, num_queries=3, num_heads=2, max_positions=60
        ),
        "frame-classifier": FrameClassifierConfig(feature_dim=4, hidden_dim=8),
    }[name]
    return config.build(TAXONOMY).eval()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.integers(1, 29), st.sampled_from([1, 3]))
def test_no_later_frame_changes_what_is_said_of_an_earlier_one(seed: int, cut: int, stride: int):
    """Whatever the recogniser and however it is run, and whatever it was asked before."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=30).tolist()
    later = [*labels[:cut], *rng.integers(4, size=30 - cut).tolist()]
    ways = [
        InferenceConfig(stride=stride),
        InferenceConfig(stride=stride, anchor="end"),
        InferenceConfig(stride=stride, offsets=True, postprocess="median", postprocess_size=3),
    ]
    for model in (Hindsight(), Reader(), real("futr"), real("frame-classifier")):
        for way in ways:
            one, other = told(model, video(labels), way), told(model, video(later), way)
            one.read(30)
            assert one.read(cut).tolist() == other.read(cut).tolist()


def test_the_whole_video_would_have_told_of_the_future():
    """The test above can fail: cutting what is said of a whole video is another thing."""
    source = told(Hindsight(), video([0, 0, 1, 2, 3, 3]))
    assert source.read(6)[:3].tolist() != source.read(3).tolist()


def test_a_causal_recogniser_is_run_once_and_one_that_looks_ahead_once_a_share():
    labels = [0, 0, 1, 2, 3, 3]
    once, each = Reader(), Hindsight()
    for model in (once, each):
        source = told(model, video(labels))
        for observed in (2, 4, 2, 6, 4):
            source.read(observed)
    assert (once.asked, each.asked) == (1, 3)
    assert told(once, video(labels)).read(4).tolist() == labels[:4]


@pytest.mark.parametrize(
    "config",
    [
        InferenceConfig(stride=2, anchor="end"),
        InferenceConfig(stride=2, offsets=True),
        InferenceConfig(postprocess="mode", postprocess_size=3),
    ],
)
def test_a_causal_model_run_with_a_look_ahead_is_none(config: InferenceConfig):
    assert not told(Reader(), video([0, 1]), config).causal
    assert told(Reader(), video([0, 1]), InferenceConfig(stride=2)).causal
    assert told(Reader(), video([0, 1]), InferenceConfig(anchor="end")).causal


def test_a_stride_is_held_until_its_next_step():
    source = told(Reader(), video([0, 1, 2, 3, 0, 1]), InferenceConfig(stride=2))
    assert source.read(5).tolist() == [0, 0, 2, 2, 0]


def test_videos_that_share_a_recogniser_do_not_share_labels():
    recogniser = Recogniser(Reader(), PLAIN)
    sources = [RecognisedLabels(recogniser, video([i] * 3, f"v{i}")) for i in range(3)]
    assert [source.read(3).tolist() for source in sources] == [[0] * 3, [1] * 3, [2] * 3]


def test_of_many_shares_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recognised, "MOST_FRAMES", 5)
    model = Hindsight()
    source = told(model, video([0, 1, 2, 3]))
    for observed in (2, 3, 3, 4, 3):
        assert source.read(observed).tolist() == [observed - 1] * observed
    assert model.asked == 4  # 3 was forgotten when 4 came


def test_a_frame_that_nobody_names_is_refused():
    with pytest.raises(ValueError, match="Silent leaves frame 1 of v without a label"):
        told(Silent(), video([0, 1, 2])).read(3)


def test_a_model_that_answers_every_step_takes_no_labels_that_look_ahead():
    one = video([0, 1, 2])
    kept = replace(one, observed_labels=told(Reader(), one))
    assert observed_whole([kept], Reader(), 1).labels is not None
    ahead = replace(one, observed_labels=told(Hindsight(), one))
    with pytest.raises(ValueError, match="from the past alone, got for v those of a recogniser"):
        observed_whole([ahead], Reader(), 1)


# The truth, and files


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(path=folders.write_folder(tmp_path / "kitchen", splits=2))


def test_nobody_names_anything_unless_asked():
    assert label_giver("", LabelInput()) is None


@pytest.mark.parametrize("spoilt", [LabelInput(), LabelInput(wrong_frames=0.3, wrong_run=4)])
def test_the_truth_is_spoilt_as_where_it_is_the_input(dataset: Dataset, spoilt: LabelInput):
    giver = label_giver("truth", spoilt)
    assert giver is not None
    given, said = giver.given(dataset, "1", {"any"})
    assert said == Naming(said=str(spoilt))
    for name, one in dataset.with_label_input(spoilt).videos.items():
        np.testing.assert_array_equal(given.videos[name].observed_labels, one.observed_labels)
        assert given.videos[name].features is dataset.videos[name].features
    assert given.fingerprint() == dataset.fingerprint()


def files(dataset: Dataset, folder: Path, label: int = 0) -> Path:
    """Label files that say one thing of every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in dataset.videos.items():
        (folder / f"{name}.txt").write_text(f"{folders.NAMES[label]}\n" * one.num_frames)
    return folder


def test_files_name_a_label_a_frame_each_split_its_own_where_there_are_such(
    dataset: Dataset, tmp_path: Path
):
    folder = files(dataset, tmp_path / "told", 1)
    files(dataset, folder / "split2", 3)
    giver = label_giver(str(folder), LabelInput())
    assert giver is not None
    for split, label in (("1", 1), ("2", 3)):
        given, said = giver.given(dataset, split, {"any"})
        assert (said.said, said.by) == ("labels of files, which may look ahead", "told")
        for one in given.videos.values():
            assert one.labels_seen(5).tolist() == [label] * 5


def test_files_are_known_by_the_labels_in_them_and_not_by_their_folder(
    dataset: Dataset, tmp_path: Path
):
    def fingerprint(folder: Path) -> str:
        return FileLabels(folder).given(dataset, "1", {"any"})[1].fingerprint

    one, copied = files(dataset, tmp_path / "a" / "told"), files(dataset, tmp_path / "copied")
    other = files(dataset, tmp_path / "b" / "told")
    lines = (other / "v3.txt").read_text().splitlines()
    (other / "v3.txt").write_text("\n".join([*lines[:-1], folders.NAMES[1]]) + "\n")
    assert re.fullmatch("[0-9a-f]{8}", fingerprint(one))
    assert fingerprint(one) == fingerprint(copied)
    assert fingerprint(one) != fingerprint(other)


def drop(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


def misspell(path: Path) -> None:
    path.write_text(path.read_text().replace("pour", "poor", 1))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (drop, r"v2\.txt does not exist; .*one label a frame for every video, \d+ for v2"),
        (shorten, r"v2\.txt must name one label for each of the (\d+) frames of v2, got \d+"),
        (misspell, r"v2\.txt, line 1: unknown label 'poor'; mapping\.txt must list"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    dataset: Dataset, tmp_path: Path, act: Callable[[Path], None], words: str
):
    folder = files(dataset, tmp_path / "told")
    act(folder / "v2.txt")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        FileLabels(folder).given(dataset, "1", {"any"})


def test_of_files_only_those_of_the_split_are_needed(dataset: Dataset, tmp_path: Path):
    few = replace(dataset, splits={"1": replace(dataset.splits["1"], train=("v1",))})
    folder = files(dataset, tmp_path / "told")
    (folder / "v3.txt").unlink()
    given, _ = FileLabels(folder).given(few, "1", {"any"})
    assert given.videos["v3"].labels_seen(3) is None
    assert given.videos["v1"].labels_seen(3) is not None


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"looked for in .*gone.*say --labels-from PATH"):
        label_giver(str(tmp_path / "gone"), LabelInput())
    with pytest.raises(ValueError, match=r"a run with a checkpoint, or a folder of label files"):
        label_giver(str(tmp_path), LabelInput())


def test_where_labels_are_the_input_nobody_else_names_them():
    with pytest.raises(ValueError, match="labels_from must be empty where labels are the input"):
        TrainConfig(input="labels", labels_from="truth")
    with pytest.raises(ValueError, match="labels say how the truth is spoilt"):
        TrainConfig(labels_from="runs/x", labels=LabelInput(wrong_share=0.1))
    assert TrainConfig(labels_from="truth", labels=LabelInput(wrong_share=0.1)).labels_from


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/runs/fc", "fc"),
        ("/a/runs/fc/split2", "fc/split2"),
        ("/a/runs/fc/split2/best", "fc/split2"),
        ("/a/runs/split", "runs/split"),
    ],
)
def test_a_run_is_called_by_its_folder(path: str, name: str):
    assert run_name(Path(path)) == name


@pytest.mark.parametrize(
    ("source", "run_of_it"),
    [
        ("/a/fc", "/a/fc"),
        ("/a/fc/split2", "/a/fc"),
        ("/a/fc/split2/best", "/a/fc"),
        ("/a/fc/split2/last", "/a/fc/split2/last"),
        ("truth", "truth"),
        ("", ""),
    ],
)
def test_the_splits_of_a_run_are_one_source(source: str, run_of_it: str):
    assert without_split(source) == run_of_it


# Runs, from the command line


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


QUICK = ("--accelerator", "cpu", "--quiet")
TINY = ("--model.hidden-dim", "8", "--epochs", "2", *QUICK)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser, two models that read what it says, and one that reads the truth.

    No test changes it.
    """
    path = tmp_path_factory.mktemp("home")
    data = folders.write_folder(path / "kitchen", splits=2)
    words = ("--data", data, "--out", path / "runs")
    assert run("train", "frame-classifier", *TINY, *words) == 0
    reads = ("--input", "features", "--labels-from")
    told = path / "runs" / "frame-classifier"
    assert run("train", "n-gram", *reads, told, *words) == 0
    # Nothing of a language model but that it reads labels beside features.
    small = ("--trunk", "untrained:llama-tiny", "--model.interaction-heads", "4", "--epochs", "1")
    small = (*small, "--stride", "4", *reads[2:], told, "--split", "1")
    assert run("train", "actionllm", *small, *words) == 0
    assert run("train", "n-gram", *reads, "truth", *words, "--name", "n-gram-truth") == 0
    assert run("train", "futr", *folders.SMALL, *words, "--name", "alone", "--split", "1") == 0
    return path


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of the runs that may be changed; who reads names the recogniser beside it."""
    copied = tmp_path / "own"
    shutil.copytree(home / "runs", copied)
    for config in [*copied.rglob("config.json"), *copied.rglob("training.json")]:
        text = config.read_text().replace(str(home / "runs"), str(copied))
        config.write_text(text)
    return copied


def edited(config: Path, act: Callable[[dict[str, Any]], object]) -> None:
    about = json.loads(config.read_text())
    act(about)
    config.write_text(json.dumps(about))


def fingerprint(run_of_it: Path, split: str) -> str:
    """Computed here by itself: the first digits of the weights' hash."""
    weights = run_of_it / f"split{split}" / "best" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:8]


def both(run_of_it: Path) -> str:
    said = " ".join(fingerprint(run_of_it, split) for split in "12")
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def score(reader: Path, out: Path, *words: str | Path) -> Path:
    """The result file of a run."""
    assert run("evaluate", reader, "--out", out, *words) == 0
    [found] = out.glob("*.json")
    return found


def test_each_split_is_named_by_the_checkpoint_that_did_not_train_on_its_test_videos(home: Path):
    recognisers = {one.split: one for one in load_run(home / "runs" / "frame-classifier")}
    apart = []
    for one in load_run(home / "runs" / "n-gram"):
        assert one.labels is not None
        assert (one.labels.said, one.labels.by) == (
            "labels named by frame-classifier",
            "frame-classifier",
        )
        assert one.checkpoint.run["labels_fingerprint"] == one.labels.fingerprint
        assert one.labels_in_training == ""
        its, other = (recognisers[split] for split in (one.split, "12".replace(one.split, "")))
        for name in one.dataset.split(one.split).test:
            observed = one.dataset.videos[name].num_frames // 2
            said = [
                told(who.checkpoint.model, who.dataset.videos[name]).read(observed).tolist()
                for who in (its, other)
            ]
            assert one.dataset.videos[name].labels_seen(observed).tolist() == said[0]
            apart.append(said[0] != said[1])
    assert any(apart), "two checkpoints that agree would prove nothing"


def test_a_run_that_reads_labels_is_scored_and_its_passport_says_whose_they_were(
    home: Path, own: Path
):
    seen: dict[str, str] = {}
    for name in ("n-gram", "actionllm", "n-gram-truth", "alone"):
        assert run("evaluate", own / name, "--task", "long_term") == 0
        result = read_result(own / name / "results" / "long_term-true_length.json")
        seen[name] = (result.passport.input, result.passport.labels)
    said, there = "labels named by frame-classifier", own / "frame-classifier"
    assert seen == {
        "n-gram": (f"{said} {both(there)}", "frame-classifier"),
        "actionllm": (
            f"features, 6 wide, and {said} {fingerprint(there, '1')}",
            "frame-classifier",
        ),
        "n-gram-truth": ("true labels", ""),
        "alone": ("features, 6 wide", ""),
    }
    assert not (home / "runs" / "n-gram" / "results").exists()


def test_results_with_labels_of_others_cannot_stand_side_by_side(own: Path, capsys: Any):
    for name in ("n-gram", "n-gram-truth"):
        assert run("evaluate", own / name) == 0
    found = [
        own / name / "results" / "long_term-true_length.json" for name in ("n-gram", "n-gram-truth")
    ]
    capsys.readouterr()
    assert run("compare", *found) == 2
    assert "input: " in capsys.readouterr().err
    assert run("compare", *found, "--across", "input", "features_causal") == 0


def test_a_recogniser_that_is_gone_is_looked_for_and_can_be_named_elsewhere(
    own: Path, home: Path, capsys: Any
):
    there = own / "frame-classifier"
    there.rename(own / "moved")
    assert run("evaluate", own / "n-gram") == 2
    said = capsys.readouterr().err
    assert str(there) in said
    assert "say --labels-from PATH" in said
    features = home / "kitchen" / "features" / "v0.npy"
    assert run("predict", own / "n-gram", features, "--split", "1") == 2
    assert str(there) in capsys.readouterr().err
    moved = ("--labels-from", own / "moved")
    assert run("evaluate", own / "n-gram", *moved) == 0
    assert run("predict", own / "n-gram", features, "--split", "1", *moved) == 0
    result = read_result(
        own / "n-gram" / "results" / "long_term-true_length-labels_from-moved.json"
    )
    said = f"labels named by frame-classifier {both(own / 'moved')}"
    assert (result.passport.input, result.passport.labels) == (said, "moved")


def test_a_copy_of_the_recogniser_compares_and_another_of_its_name_does_not(
    own: Path, home: Path, tmp_path: Path, capsys: Any
):
    """Who named the labels is known by its weights, and not by what its folder is called."""
    shutil.copytree(own / "frame-classifier", own / "copied")
    other = tmp_path / "other" / "frame-classifier"
    words = ("--data", home / "kitchen", "--out", other.parent, "--seed", "1")
    assert run("train", "frame-classifier", *TINY, *words) == 0
    first = score(own / "n-gram", tmp_path / "first")
    copied = score(own / "n-gram", tmp_path / "copied", "--labels-from", own / "copied")
    another = score(own / "n-gram", tmp_path / "another", "--labels-from", other)
    assert run("compare", first, copied) == 0
    capsys.readouterr()
    assert run("compare", first, another) == 2
    said = f"labels named by frame-classifier {both(other)} (in training by "
    assert said + f"{both(own / 'frame-classifier')})" in capsys.readouterr().err
    assert read_result(another).passport.labels == "frame-classifier"


def test_of_a_run_that_says_no_fingerprint_the_names_are_compared(own: Path):
    shutil.copytree(own / "frame-classifier", own / "copied")
    for config in (own / "n-gram").rglob("config.json"):
        edited(config, lambda about: about["run"].pop("labels_fingerprint"))
    assert [one.labels_in_training for one in load_run(own / "n-gram")] == ["", ""]
    for source in (str(own / "copied"), "truth"):
        moved = load_run(own / "n-gram", labels_from=source)
        assert [one.labels_in_training for one in moved] == ["frame-classifier"] * 2


def test_a_model_can_be_tested_on_other_labels_than_it_was_trained_on(own: Path):
    assert run("evaluate", own / "n-gram", "--labels-from", "truth") == 0
    result = read_result(
        own / "n-gram" / "results" / "long_term-true_length-labels_from-truth.json"
    )
    said = f"true labels (in training by {both(own / 'frame-classifier')})"
    assert result.passport.input == said
    there = own / "frame-classifier"
    others = load_run(own / "n-gram-truth", labels_from=str(there))
    assert [one.labels_in_training for one in others] == ["truth", "truth"]


def test_a_checkpoint_of_an_earlier_version_goes_on_working(own: Path):
    config = own / "alone" / "split1" / "best" / "config.json"
    edited(config, lambda about: about["run"]["training"].pop("labels_from"))
    assert run("evaluate", own / "alone") == 0


def wrong_split(about: dict[str, Any]) -> None:
    about["run"]["split"] = "2"


def other_data(about: dict[str, Any]) -> None:
    about["run"]["fingerprint"] = "0123456789abcdef"


def other_converted(about: dict[str, Any]) -> None:
    about["run"] |= {"fingerprint": "", "dataset": "elsewhere"}


def of_clips(about: dict[str, Any]) -> None:
    about["run"]["kind"] = "clips"


def resampled(about: dict[str, Any]) -> None:
    about["run"]["training"]["resample"] = 4


def second_hand(about: dict[str, Any]) -> None:
    about["run"]["training"]["labels_from"] = "truth"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (wrong_split, "was trained on split 2, so that videos tested on split 1 may have trained"),
        (other_data, r"was trained on other data \(kitchen, 0123456789abcdef\) than are used here"),
        (other_converted, r"was trained on other data \(elsewhere, not said\)"),
        (of_clips, "must be a run that names every frame seen"),
        (resampled, "must be a run on all frames, got .*--stride 4 in its place"),
        (second_hand, "must be a run that reads features alone"),
    ],
)
def test_a_run_that_may_have_trained_on_tested_videos_is_refused(
    own: Path, home: Path, act: Callable[[dict[str, Any]], None], words: str, capsys: Any
):
    edited(own / "frame-classifier" / "split1" / "best" / "config.json", act)
    told_ = ("--input", "features", "--labels-from", own / "frame-classifier")
    data = ("--data", home / "kitchen", "--out", own, "--name", "next")
    for line in (("train", "n-gram", *told_, *data), ("evaluate", own / "n-gram")):
        assert run(*line) == 2
        assert re.search(words, capsys.readouterr().err)
    assert not (own / "next").exists(), "nothing was trained before it was refused"


def test_a_run_on_other_videos_is_refused(own: Path, tmp_path: Path, capsys: Any):
    """The same labels and widths; the second of the splits has been drawn otherwise."""
    data = folders.write_folder(tmp_path / "other", splits=2, seed=1)
    told_ = ("--input", "features", "--labels-from", own / "frame-classifier")
    assert run("train", "n-gram", *told_, "--data", data, "--out", own, "--name", "next") == 2
    assert "may have trained it; train it on these data" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_of_the_split_is_refused(own: Path, home: Path, capsys: Any):
    shutil.rmtree(own / "frame-classifier" / "split2")
    told_ = ("--input", "features", "--labels-from", own / "frame-classifier")
    data = ("--data", home / "kitchen", "--out", own, "--name", "next")
    assert run("train", "n-gram", *told_, *data) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint of split 2, whose videos it would have to name (it has 1)" in said
    assert run("train", "n-gram", *told_, *data, "--split", "1") == 0


def test_a_run_that_names_no_frames_is_refused(own: Path, home: Path, capsys: Any):
    told_ = ("--input", "features", "--labels-from", own / "n-gram-truth")
    data = ("--data", home / "kitchen", "--out", own, "--name", "next")
    assert run("train", "n-gram", *told_, *data) == 2
    assert "got " in (said := capsys.readouterr().err)
    assert "a n-gram; take one of frame-classifier or actfusion" in said


def test_features_of_another_width_are_refused(own: Path, tmp_path: Path, capsys: Any):
    data = folders.write_folder(tmp_path / "kitchen", splits=2)
    for file in (data / "features").iterdir():
        np.save(file, np.load(file)[:, :3])
    told_ = ("--input", "features", "--labels-from", own / "frame-classifier")
    assert run("train", "n-gram", *told_, "--data", data, "--out", own, "--name", "next") == 2
    assert "reads features of width 6, those of kitchen have width 3" in capsys.readouterr().err


def test_a_counting_model_needs_somebody_who_names_the_past(home: Path, capsys: Any):
    assert run("train", "n-gram", "--input", "features", "--data", home / "kitchen") == 2
    assert "say --input labels, or --labels-from with who names them" in capsys.readouterr().err


def test_the_option_is_refused_of_runs_that_read_no_labels(home: Path, capsys: Any):
    alone, kitchen = home / "runs" / "alone", home / "kitchen"
    features = kitchen / "features" / "v0.npy"
    for line in (("evaluate", alone), ("predict", alone, features)):
        assert run(*line, "--labels-from", "truth") == 2
        assert "must go with a run that was trained with it" in capsys.readouterr().err


def test_a_file_of_ones_own_is_named_by_the_recogniser_or_by_label_files(
    home: Path, tmp_path: Path, capsys: Any
):
    reader = home / "runs" / "n-gram"
    source = tmp_path / "new.npy"
    shutil.copy(home / "kitchen" / "features" / "v1.npy", source)
    words = ("predict", reader, source, "--split", "2", "--json")
    assert run(*words) == 0
    past = [s for s in json.loads(capsys.readouterr().out)["segments"] if s["part"] == "past"]
    (one,) = [one for one in load_run(home / "runs" / "frame-classifier") if one.split == "2"]
    frames = told(one.checkpoint.model, one.dataset.videos["v1"]).read(len(np.load(source)))
    changes = 1 + int((np.diff(frames) != 0).sum())
    assert next(s["label"] for s in past) == folders.NAMES[frames[0]]
    assert len(past) == changes
    assert run(*words, "--labels-from", "truth") == 2
    said = capsys.readouterr().err
    assert "must come from an annotation, got a file of one's own without" in said
    assert "say --labels-from with a run or a folder of label files" in said
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "new.txt").write_text("wash\n" * len(frames))
    assert run(*words, "--labels-from", tmp_path / "told") == 0
    past = [s for s in json.loads(capsys.readouterr().out)["segments"] if s["part"] == "past"]
    assert [s["label"] for s in past] == ["wash"]


def test_a_video_of_the_data_set_is_forecast_from_what_the_recogniser_says(home: Path, capsys: Any):
    assert run("predict", home / "runs" / "n-gram", "v0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["segments"]


def test_a_stream_of_features_names_nothing_seen(home: Path, capsys: Any):
    features = home / "kitchen" / "features" / "v0.npy"
    assert run("stream", home / "runs" / "actionllm", features) == 2
    said = capsys.readouterr().err
    assert "reads labels of what was seen beside features" in said
    assert "`actioncast predict`" in said


def test_training_goes_on_with_the_same_labels_wherever_it_is_started(
    own: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    """The path is kept whole: here it is said from within the folder of the runs."""
    monkeypatch.chdir(own)
    line = ("train", "n-gram", "--input", "features", "--data", home / "kitchen", "--out", own)
    assert run(*line, "--labels-from", "frame-classifier", "--resume") == 0
    assert run(*line, "--labels-from", "truth", "--resume") == 2
    assert "labels_from was " in capsys.readouterr().err


def test_the_splits_of_a_run_may_be_named_by_those_of_another_each_said_by_itself(
    own: Path, home: Path
):
    line = ("train", "n-gram", "--input", "features", "--data", home / "kitchen", "--out", own)
    for split in "12":
        there = own / "frame-classifier" / f"split{split}"
        words = ("--labels-from", there, "--split", split, "--name", "next", "--resume")
        assert run(*line, *words) == 0
    assert run(*line, "--labels-from", "truth", "--name", "next", "--resume") == 2


def test_counts_are_of_the_truth_whoever_names_what_is_seen(home: Path):
    """A counting model learns from whole annotations; the recogniser speaks when it is asked."""
    one, other = (load_run(home / "runs" / name)[0] for name in ("n-gram", "n-gram-truth"))
    ours, theirs = (x.checkpoint.model.state_dict() for x in (one, other))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert isinstance(one.checkpoint.model.config, NGramConfig)


@pytest.mark.parametrize("model", ["futr", "actionllm"])
def test_a_model_that_reads_no_labels_is_not_given_any(
    home: Path, tmp_path: Path, model: str, capsys: Any
):
    more = {
        "futr": folders.SMALL,
        "actionllm": ("--trunk", "untrained:llama-tiny", "--model.modalities", "vision"),
    }[model]
    words = (
        "--data",
        home / "kitchen",
        "--out",
        tmp_path,
        "--split",
        "1",
        "--labels-from",
        "truth",
    )
    assert run("train", model, *more, *words) == 2
    assert f"reads observed labels, got {model}, which reads" in capsys.readouterr().err
