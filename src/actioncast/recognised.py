"""Who names the observed actions beside the features: the truth, files, or a run that segments.

A run is asked as it would be while the video runs: it is shown the frames seen and no more, since a
recogniser that looks ahead would carry the future into what it says of the past. Of split k its
checkpoint of split k answers, for that of another split has trained on videos tested here.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from actioncast.checkpoint import Checkpoint, load_checkpoint
from actioncast.data import Dataset, LabelInput, Video
from actioncast.data.frame_labels import read_frame_labels
from actioncast.inference import InferenceConfig, answers, as_trained
from actioncast.models.base import Anticipator
from actioncast.protocols import Question
from actioncast.timeline import UNLABELLED
from actioncast.types import Task, most_likely

TRUTH = "truth"
"""The annotation as the source of observed labels."""
MOST_FRAMES = 50_000_000
"""Frames whose labels a recogniser keeps: 100 MB."""

Labels = Int[np.ndarray, " time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Whose labels the observed ones of a split are."""

    said: str
    """What they are, in words that hold wherever their source lies."""
    by: str = ""
    """What the run or the folder of files is called here; empty for the truth."""
    fingerprint: str = ""
    """Eight hexadecimal digits that change with the weights of the run, or with any label of the
    files; empty for the truth."""


@runtime_checkable
class LabelGiver(Protocol):
    """Adds observed labels to a dataset."""

    source: str
    """What `labels_from` says of it, from wherever it is read."""

    def given(
        self, dataset: Dataset, split: str, fingerprints: Collection[str] = ()
    ) -> tuple[Dataset, Naming]:
        """The dataset with the labels that its videos have in a split, and whose they are.

        Args:
            dataset: Without observed labels.
            split: Its name; empty where a video of nobody's split is asked about.
            fingerprints: Of the data that a run may have trained on; none for a video of one's
                own, which has no annotation.

        Raises:
            ValueError, FileNotFoundError: The source does not fit the data.
        """


def label_giver(source: str, spoilt: LabelInput, device: str = "cpu") -> LabelGiver | None:
    """Whom `labels_from` names; nobody, if it is empty.

    Args:
        source: `truth`, the folder of a run, or a folder of label files.
        spoilt: How the truth is spoilt.
        device: Where the model of a run is run.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds neither a run nor label files.
    """
    if not source:
        return None
    if source == TRUTH:
        return TrueLabels(spoilt)
    folder = Path(source).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the observed labels were looked for in {folder} and are not there; say --labels-from "
            f"PATH with the run that names them, a folder of label files, or {TRUTH}."
        )
    if _trained_splits(folder):
        return RunLabels(folder, device)
    if next(folder.glob("*.txt"), None) or next(folder.glob("split*/*.txt"), None):
        return FileLabels(folder)
    raise ValueError(
        f"--labels-from must be {TRUTH}, a run with a checkpoint, or a folder of label files "
        f"<video>.txt, got {folder}, which holds neither."
    )


@dataclass(slots=True)
class TrueLabels:
    """The annotation, spoilt or not."""

    spoilt: LabelInput
    source: str = TRUTH

    def given(
        self,
        dataset: Dataset,
        split: str,  # noqa: ARG002
        fingerprints: Collection[str] = (),
    ) -> tuple[Dataset, Naming]:
        """See `LabelGiver`."""
        if not fingerprints:
            raise ValueError(
                "true labels of what was seen must come from an annotation, got a file of one's "
                "own without; say --labels-from with a run or a folder of label files."
            )
        return dataset.with_true_labels(self.spoilt), Naming(said=str(self.spoilt))


@dataclass(slots=True)
class FileLabels:
    """Files `<video>.txt` with the name of one label a frame, in `split<k>/` where that exists."""

    folder: Path
    source: str = field(init=False)
    _read: dict[Path, Labels] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.source = str(self.folder)

    def given(
        self,
        dataset: Dataset,
        split: str,
        fingerprints: Collection[str] = (),  # noqa: ARG002
    ) -> tuple[Dataset, Naming]:
        """See `LabelGiver`."""
        own = self.folder / f"split{split}"
        folder = own if own.is_dir() else self.folder
        parts = dataset.splits.get(split)
        names = list(dataset.videos) if parts is None else [*parts.train, *parts.test]
        labelled = {
            name: replace(video, observed_labels=self._labels(folder, dataset, video))
            for name in names
            for video in [dataset.videos[name]]
        }
        named = Naming(
            said="labels of files, which may look ahead",
            by=self.folder.name,
            fingerprint=self._fingerprint(folder, [video.id for video in labelled.values()]),
        )
        return replace(dataset, videos={**dataset.videos, **labelled}), named

    def _fingerprint(self, folder: Path, ids: Collection[str]) -> str:
        digest = hashlib.sha256()
        for name in sorted(ids):
            digest.update(f"{name}\n".encode())
            digest.update(self._read[folder / f"{name}.txt"].astype(np.int32).tobytes())
        return digest.hexdigest()[:8]

    def _labels(self, folder: Path, dataset: Dataset, video: Video) -> Labels:
        path = folder / f"{video.id}.txt"
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; --labels-from needs a file with one label a frame for "
                f"every video, {video.num_frames} for {video.id}."
            )
        if path not in self._read:
            self._read[path] = read_frame_labels(path, dataset.taxonomy.finest)
        if (found := len(self._read[path])) != video.num_frames:
            raise ValueError(
                f"{path} must name one label for each of the {video.num_frames} frames of "
                f"{video.id}, got {found}; repeat or leave out labels until the rates agree."
            )
        return self._read[path]


@dataclass(slots=True)
class RunLabels:
    """A run that names the frames seen."""

    folder: Path
    """Of the run, of one split of it, or of a checkpoint."""
    device: str = "cpu"
    source: str = field(init=False)

    def __post_init__(self) -> None:
        self.source = str(self.folder)

    def given(
        self, dataset: Dataset, split: str, fingerprints: Collection[str] = ()
    ) -> tuple[Dataset, Naming]:
        """See `LabelGiver`."""
        at = self._checkpoint(split)
        checkpoint = load_checkpoint(at, self.device)
        self._require(checkpoint, dataset, split, fingerprints)
        training = checkpoint.run["training"]
        shown = dataset
        if training["input"] == "labels":
            shown = dataset.with_label_input(LabelInput(**training["labels"]))
        recogniser = Recogniser(
            checkpoint.model, as_trained(training, checkpoint.model, device=self.device)
        )
        videos = {
            name: replace(video, observed_labels=RecognisedLabels(recogniser, shown.videos[name]))
            for name, video in dataset.videos.items()
        }
        with (at / "model.safetensors").open("rb") as weights:
            fingerprint = hashlib.file_digest(weights, "sha256").hexdigest()[:8]
        named = Naming(
            said=f"labels named by {checkpoint.name}",
            by=run_name(self.folder),
            fingerprint=fingerprint,
        )
        return replace(dataset, videos=videos), named

    def _checkpoint(self, split: str) -> Path:
        found = _trained_splits(self.folder)
        if split in found:
            return found[split]
        # A folder that is a checkpoint says itself what it was trained on.
        if "" in found or not split:
            return next(iter(found.values()))
        raise FileNotFoundError(
            f"{self.folder} has no checkpoint of split {split}, whose videos it would have to name "
            f"(it has {', '.join(found)}); train it on this split too: --split {split}."
        )

    def _require(
        self, checkpoint: Checkpoint, dataset: Dataset, split: str, fingerprints: Collection[str]
    ) -> None:
        """Raise a ValueError where a checkpoint cannot name these videos, or must not."""
        run, model = checkpoint.run, checkpoint.model
        if run.get("kind", "") or Task.SEGMENTATION not in model.tasks:
            raise ValueError(
                f"--labels-from must be a run that names every frame seen (segmentation), got "
                f"{self.folder}, a {checkpoint.name}; take one of frame-classifier or actfusion."
            )
        if run["training"].get("labels_from"):
            raise ValueError(
                f"--labels-from must be a run that reads features alone, got {self.folder}, which "
                "reads labels that another one named; give that one."
            )
        if (every := int(run["training"].get("resample", 1))) > 1:
            raise ValueError(
                f"--labels-from must be a run on all frames, got {self.folder}, trained on one of "
                f"{every} alone (--resample {every}); train it with --stride {every} in its place."
            )
        if split and (own := str(run.get("split", ""))) != split:
            raise ValueError(
                f"{self.folder} was trained on split {own or '(not said)'}, so that videos tested "
                f"on split {split} may have trained it; give its run on split {split}."
            )
        trained = str(run.get("fingerprint", ""))
        known = trained in fingerprints if trained else run.get("dataset") == dataset.name
        if fingerprints and not known:
            raise ValueError(
                f"{self.folder} was trained on other data ({run.get('dataset')}, "
                f"{trained or 'not said'}) than are used here ({dataset.name}, "
                f"{', '.join(sorted(fingerprints))}), so that videos tested here may have trained "
                "it; train it on these data."
            )
        if model.taxonomy.labels.names != dataset.taxonomy.finest.names:
            raise ValueError(
                f"{self.folder} names {len(model.taxonomy.labels)} labels, which are not the "
                f"{len(dataset.taxonomy.finest)} of {dataset.name} in the same order; give a run "
                "on the same labels."
            )
        if run["training"]["input"] == "labels":
            if not fingerprints:
                raise ValueError(
                    f"{self.folder} reads true labels, got a file of one's own without annotation; "
                    "say --labels-from with a run that reads features."
                )
            return
        width = getattr(getattr(model, "config", None), "feature_dim", None)
        if width is not None and width != dataset.num_features:
            raise ValueError(
                f"{self.folder} reads features of width {width}, those of {dataset.name} have "
                f"width {dataset.num_features}; give a run on the same features."
            )


class Recogniser:
    """A model that names the frames seen, and what it has said before.

    Args:
        model: Answers `Task.SEGMENTATION`.
        config: How it is run.
    """

    def __init__(self, model: Anticipator, config: InferenceConfig) -> None:
        self.model, self.config = model, config
        forward = config.stride == 1 or config.anchor == "start"
        whole = not config.offsets and config.postprocess == "none"
        self.causal = model.causal and forward and whole
        self._said: dict[tuple[str, int], Labels] = {}
        self._frames = 0

    def labels(self, video: Video, observed: int) -> Labels:
        """Labels of the frames `[0, observed)` of a video, of which no other is shown.

        Raises:
            ValueError: The model leaves a frame without a label.
        """
        if not observed:
            return np.zeros(0, int)
        # What a causal model says of a frame is the same whatever it is shown after it.
        shown = video.num_frames if self.causal else observed
        key = (video.id, shown)
        if key not in self._said:
            self._keep(key, self._named(video, shown))
        return self._said[key][:observed].astype(int)

    def _named(self, video: Video, shown: int) -> Labels:
        asked = [(video, Question(observed=shown))]
        ((_, answer),) = answers(self.model, asked, self.config)
        assert answer.prediction.past is not None, "who segments names the past"
        labels = most_likely(answer.prediction.past)
        if (labels == UNLABELLED).any():
            raise ValueError(
                f"{type(self.model).__name__} leaves frame {int((labels == UNLABELLED).argmax())} "
                f"of {video.id} without a label; take a recogniser that names every frame."
            )
        return labels

    def _keep(self, key: tuple[str, int], labels: Labels) -> None:
        self._said[key] = labels.astype(np.int16)
        self._frames += len(labels)
        # With shares drawn anew each epoch most of what was said is never asked again.
        while self._frames > MOST_FRAMES and len(self._said) > 1:
            self._frames -= len(self._said.pop(next(iter(self._said))))


@dataclass(frozen=True, slots=True)
class RecognisedLabels:
    """What a recogniser says of one video: a `LabelSource`."""

    recogniser: Recogniser
    video: Video
    """With what the recogniser reads."""

    @property
    def causal(self) -> bool:
        """See `LabelSource`."""
        return self.recogniser.causal

    def read(self, observed: int) -> Labels:
        """See `LabelSource`."""
        return self.recogniser.labels(self.video, observed)


def run_name(folder: Path) -> str:
    """The name of a run, with its split where the folder is that of a split or of a checkpoint."""
    parts = [part for part in folder.parts if part not in ("best", "last")]
    split = len(parts) > 1 and parts[-1].startswith("split")
    return "/".join(parts[-2:]) if split else parts[-1]


def without_split(source: str) -> str:
    """A source of labels without the split that it is said for: the same for all splits of a run.

    Args:
        source: As `labels_from` has it.
    """
    path = Path(source)
    path = path.parent if path.name == "best" else path
    return str(path.parent if path.name.startswith("split") else path) if source else ""


def _trained_splits(folder: Path) -> dict[str, Path]:
    """Selected checkpoints by split; a checkpoint itself, or the folder of a split, by none."""
    for own in (folder, folder / "best"):
        if (own / "config.json").exists():
            return {"": own}
    found = sorted(folder.glob("split*/best/config.json"))
    return {path.parent.parent.name.removeprefix("split"): path.parent for path in found}
