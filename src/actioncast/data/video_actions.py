"""The annotated actions of a video as arrays, in the order in which they start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from actioncast.data.clips import ActionClip, ClipDataset


@dataclass(frozen=True, slots=True)
class VideoActions:
    """Annotated actions of a video by start, then id: their ends have no say in the order."""

    start: Float64[np.ndarray, " action"]
    stop: Float64[np.ndarray, " action"]
    verbs: Int64[np.ndarray, " action"]
    nouns: Int64[np.ndarray, " action"]
    actions: Int64[np.ndarray, " action"]
    latest: Float64[np.ndarray, " action"]
    """When the last of an action and those before it ends."""

    @classmethod
    def of(cls, clips: Iterable[ActionClip]) -> "VideoActions":
        """The actions of some clips of one video."""
        ordered = sorted(clips, key=lambda clip: (clip.start, clip.id))
        stop = np.array([clip.stop for clip in ordered], np.float64)
        return cls(
            np.array([clip.start for clip in ordered], np.float64),
            stop,
            np.array([clip.verb for clip in ordered], np.int64),
            np.array([clip.noun for clip in ordered], np.int64),
            np.array([clip.action for clip in ordered], np.int64),
            np.maximum.accumulate(stop),
        )

    def within(self, begin: float, end: float) -> slice:
        """Those that start before `end`, without the first ones, all over by `begin`."""
        return slice(
            int(np.searchsorted(self.latest, begin, side="right")),
            int(np.searchsorted(self.start, end, side="left")),
        )

    def starting(self, begin: float, end: float) -> slice:
        """Those that start within `[begin, end]`."""
        return slice(
            int(np.searchsorted(self.start, begin, side="left")),
            int(np.searchsorted(self.start, end, side="right")),
        )


def actions_by_video(dataset: ClipDataset) -> dict[str, VideoActions]:
    """The actions of each video, of whatever part."""
    return {video: VideoActions.of(clips) for video, clips in dataset.by_video().items()}


def actions_of(clip: ActionClip, videos: Mapping[str, VideoActions], name: str) -> VideoActions:
    """Those of the video of a clip.

    Args:
        clip: The clip.
        videos: By name.
        name: What the data set is called.

    Raises:
        ValueError: The data set has none.
    """
    try:
        return videos[clip.video]
    except KeyError:
        raise ValueError(
            f"clip {clip.id} is of video {clip.video}, of which {name} has no actions; take the "
            "history of the data set that the clip is from."
        ) from None


class PartActions:
    """The actions of a clip's video that belong to the clip's own part of the data set.

    What trains a model comes from here: the answers of a validation clip must not be learned, not
    even where its video has training clips besides.
    """

    def __init__(self, dataset: ClipDataset) -> None:
        self.name = dataset.name
        self._part = {clip.id: part for part in dataset.clips for clip in dataset.part(part)}
        self._videos = {
            (part, video): VideoActions.of(clips)
            for part in dataset.clips
            for video, clips in dataset.by_video((part,)).items()
        }

    def beside(self, clip: ActionClip) -> VideoActions:
        """The actions of the clip's video and part, itself among them.

        Raises:
            ValueError: The clip is in no part.
        """
        found = self._videos.get((self._part.get(clip.id, ""), clip.video))
        if found is None:
            raise ValueError(
                f"clip {clip.id} must be one of {self.name} to be learned from, got one that "
                "stands in no part of it."
            )
        return found
