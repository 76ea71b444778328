"""Files of one's own as videos without annotation, and label files at the level a run speaks."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from actioncast.data import Video
from actioncast.data.frame_labels import read_frame_labels
from actioncast.features import FeatureArray, FeatureFile, LabelFeatures, read_header
from actioncast.models.base import Anticipator
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

MOST_NAMES = 12
"""Labels that a message lists."""

Labels = Int[np.ndarray, " time"]


def own_video(path: Path, reads: str, model: Anticipator, rate: float) -> Video:
    """A file as a video that nothing scores; its timeline is a placeholder where none follows.

    Args:
        path: A `.txt` file with one label of the finest level a line, else a `.npy` file.
        reads: What the model was trained on: `labels` or `features`.
        model: Whose labels and width the video has.
        rate: Frames per second.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or the model reads another kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"the input {path} does not exist.")
    if path.suffix == ".txt":
        if reads != "labels":
            raise ValueError(
                f"this run reads features, got the label file {path}; give a .npy file, or a run "
                "trained with --input labels."
            )
        frames = read_finest(path, model.taxonomy)
        features = LabelFeatures(frames, len(model.taxonomy.finest))
        return _video(path, model.taxonomy, rate, features, frames)
    if reads == "labels":
        raise ValueError(
            f"this run reads labels, got the feature file {path}; give a .txt file with one label "
            "a frame, or a run trained on features."
        )
    shape = read_header(path).shape
    # A model that counts reads no features; whoever names its labels does.
    width = int(getattr(getattr(model, "config", None), "feature_dim", shape[1]))
    if width not in shape:
        raise ValueError(
            f"{path} must hold vectors of width {width}, as this run was trained on, got shape "
            f"{shape}."
        )
    axis = 0 if shape[1] == width else 1
    source = FeatureFile(path, shape[axis], axis, width)
    return _video(path, model.taxonomy, rate, FeatureArray(source.read(0, shape[axis])), None)


def _video(
    path: Path,
    taxonomy: Taxonomy,
    rate: float,
    features: LabelFeatures | FeatureArray,
    finest: Labels | None,
) -> Video:
    """With what `Dataset.at_level` tells a video of the level that its timeline speaks."""
    labels, parents = taxonomy.labels, taxonomy.parents.get(taxonomy.primary)
    num_frames = len(features.frames if isinstance(features, LabelFeatures) else features.array)
    blank = np.zeros(num_frames, dtype=int)
    video = Video(
        id=path.stem,
        timeline=Timeline.from_frames(blank, rate, labels),
        rate=rate,
        num_frames=num_frames,
        features=features,
        observed_labels=finest,
        above_finest=bool(taxonomy.levels) and taxonomy.primary != taxonomy.levels[-1],
        parents=None if parents is None else np.array(parents),
    )
    if (spoken := video.at_own_level(finest)) is None:
        return video
    return replace(video, timeline=Timeline.from_frames(spoken, rate, labels))


def read_finest(path: Path, taxonomy: Taxonomy) -> Labels:
    """One label a line, of the finest level: what a run on labels reads, whatever it names.

    Raises:
        ValueError: A name is none of that level; the message says file, line and level.
    """
    try:
        return read_frame_labels(path, taxonomy.finest)
    except ValueError as error:
        if not taxonomy.levels:
            raise
        head, names = taxonomy.levels[-1], _listed(taxonomy.finest)
        raise ValueError(
            f"{_found(error)}; this run reads labels of the finest level, {head}: {names}."
        ) from None


def read_truth(path: Path, taxonomy: Taxonomy) -> Labels:
    """One label a line, of the level that a run names, or of the finest where it follows from that.

    Raises:
        ValueError: The names are of another level, or of none; the message says what the run names.
    """
    try:
        return read_frame_labels(path, taxonomy.labels)
    except ValueError as error:
        if not taxonomy.levels:
            raise
        said = _found(error)
    head = taxonomy.primary
    if (parents := taxonomy.parents.get(head)) is not None:
        with suppress(ValueError):
            return np.array(parents)[read_frame_labels(path, taxonomy.finest)]
    also = "" if parents is None else f", or of {taxonomy.levels[-1]}, from which they follow"
    raise ValueError(
        f"{said}; this run names labels of the level {head}: {_listed(taxonomy.labels)}. Give a "
        f"file of these{also}."
    )


def _found(error: ValueError) -> str:
    """What is wrong in which line; the advice after it is for folders of data."""
    return str(error).rpartition(";")[0]


def _listed(labels: LabelSpace) -> str:
    return ", ".join(labels.names[:MOST_NAMES]) + ", ..." * (len(labels) > MOST_NAMES)
