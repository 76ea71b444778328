"""Frames of a video file by time, with PyAV (the extra `video`): exact, whatever the container.

Time is seconds since the first frame, so that frame n of a steady video is shown at n / rate, as
annotations by frame number have it. A frame is shown until the next one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, UInt8

from actioncast.video.containers import (
    announced_duration,
    container_of,
    decoded,
    frame_rate,
    import_av,
    open_stream,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
else:
    VideoFrame = VideoStream = Any

SLACK = 0.5
"""Seconds after a video's end for which its last frame is still given: annotations run over."""
SAME_TIME = 1e-6
"""Seconds by which two times differ through rounding alone."""
STEPS_BACK = (0.0, 2.0, 20.0)
"""Seconds before the wanted time at which a key frame is looked for, one after the other."""
WORTH_SEEKING = 1.0
"""Seconds ahead from which a jump to a key frame is considered."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A decoded frame and the time from which it is shown."""

    time: float
    frame: VideoFrame


class VideoFile:
    """An open video: where a frame is asked for by its time, the one shown then is given.

    It seeks to the key frame before a time and decodes from there; for times that grow, no packet
    is read twice. Missing timestamps, and those that do not grow, are taken for one frame after
    the frame before. Rotation is undone; pixels that are not square stay so.

    Args:
        path: Anything that FFmpeg reads.
        threads: Threads that decode; 0 takes as many as there are cores.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no video, or no frame of it can be decoded.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = Path(path)
        self._threads = threads
        self._first: int | None = None
        self._shown: _Shown
        self._next: _Shown | None
        self._following: Iterator[_Shown]
        self._open()
        first = self._shown.frame
        self._stored = first.height, first.width
        self._quarters = round(first.rotation / 90) % 4
        self.height, self.width = self._stored[:: -1 if self._quarters % 2 else 1]
        self._announced = announced_duration(self._stream, self._first)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last, as the file announces it.

        A truncated file announces more than it holds; one that announces nothing is read through.
        """
        if self._announced is None:
            self._announced = self._measured_duration()
        return self._announced

    def frames_at(
        self, times: Float64[np.ndarray, " frame"] | Sequence[float]
    ) -> UInt8[np.ndarray, "frame height width channel"]:
        """The frame shown at each time, RGB: the last one that starts at that time or before.

        Args:
            times: Seconds since the first frame, in any order; sorted ones read no packet twice.

        Raises:
            ValueError: A time is negative, or after the end by more than `SLACK`, or the file is
                truncated before it.
        """
        wanted = np.asarray(times, dtype=np.float64)
        sound = np.isfinite(wanted) & (wanted >= 0)
        if not sound.all():
            wrong = wanted[~sound][0]
            raise ValueError(f"times must be seconds from 0 on, got {wrong} for {self.path}.")
        images = np.empty((len(wanted), self.height, self.width, 3), dtype=np.uint8)
        before = None
        for i in np.argsort(wanted, kind="stable"):
            self._advance(float(wanted[i]))
            if before is not None and self._shown is before[0]:
                images[i] = images[before[1]]
            else:
                images[i] = self._image(self._shown.frame)
            before = self._shown, i
        return images

    def frames(self) -> Iterator[tuple[float, UInt8[np.ndarray, "height width channel"]]]:
        """Every frame with its time, from the first on."""
        self._restart()
        yield self._shown.time, self._image(self._shown.frame)
        while self._step():
            yield self._shown.time, self._image(self._shown.frame)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, time: float) -> None:
        """Make `_shown` the frame of a time."""
        if time < self._shown.time - SAME_TIME or self._key_frame_between(time):
            self._seek(time)
        while self._next is not None and self._next.time <= time + SAME_TIME:
            self._step()
        base = self._stream.time_base
        held = float(self._shown.frame.duration * base) if base is not None else 0.0
        end = self._shown.time + max(held, 1 / self.rate)
        if self._next is None and time > end + SLACK:
            if self._announced is not None and end + SLACK < min(time, self._announced):
                raise ValueError(
                    f"{self.path} is truncated: it announces {self._announced:.2f} s and its last "
                    f"frame ends at {end:.2f} s, got the time {time:.2f} s; copy the file again."
                )
            raise ValueError(
                f"times must be within the video, got {time:.2f} s for {self.path}, which ends at "
                f"{end:.2f} s; check its annotation."
            )

    def _step(self) -> bool:
        """Show the next frame; False at the end, where the last one stays."""
        if self._next is None:
            return False
        self._shown, self._next = self._next, next(self._following, None)
        return True

    def _key_frame_between(self, time: float) -> bool:
        """Whether the container knows a key frame after what is decoded and before a time."""
        decoded = self._shown if self._next is None else self._next
        if time < decoded.time + WORTH_SEEKING or self._first is None:
            return False
        entries = self._stream.index_entries
        i = entries.search_timestamp(self._stamp(time), any_frame=False, backward=True)
        return i >= 0 and entries[i].timestamp > self._stamp(decoded.time)

    def _seek(self, time: float) -> None:
        """Show a frame at or before a time, from which decoding onwards is sound."""
        # Timestamps after a jump are to be trusted where the container has an index, or writes
        # them beside every picture.
        has_index = len(self._stream.index_entries) > 1 or "mpegts" in self._container.format.name
        if self._first is None or not has_index:
            self._restart()
            return
        for back in STEPS_BACK:
            if time - back <= 0:
                break
            try:
                self._container.seek(self._stamp(time - back), stream=self._stream)
            except import_av().FFmpegError:
                break
            following = self._timed(self._from_key_frame())
            found = next(following, None)
            # Pictures that lean on the group before the key frame are shown before it, broken.
            if found is not None and found.time <= time + SAME_TIME:
                self._shown, self._following = found, following
                self._next = next(following, None)
                return
        self._restart()

    def _restart(self) -> None:
        self._container.close()
        self._open()

    def _open(self) -> None:
        """Open the file and show its first frame."""
        self._stream = open_stream(self.path, self._threads)
        self._container = container_of(self._stream)
        self.rate = frame_rate(self.path, self._stream)
        self._following = self._timed(decoded(self.path, self._stream), at_start=True)
        first = next(self._following, None)
        if first is None:
            raise ValueError(
                f"{self.path} must hold a frame that can be decoded, got none; it is truncated or "
                "broken: copy it again."
            )
        self._shown = first
        self._next = next(self._following, None)

    def _from_key_frame(self) -> Iterator[VideoFrame]:
        """Frames after a jump, from the first that stands alone and says when it is shown."""
        frames = decoded(self.path, self._stream)
        for frame in frames:
            if frame.key_frame and frame.pts is not None:
                yield frame
                break
        yield from frames

    def _timed(self, frames: Iterator[VideoFrame], at_start: bool = False) -> Iterator[_Shown]:
        """Give every frame its time."""
        base = self._stream.time_base
        time = -1 / self.rate if at_start else None
        for frame in frames:
            counted = None if time is None else time + 1 / self.rate
            if frame.pts is None or base is None:
                assert counted is not None
                time = counted
            else:
                if self._first is None:
                    assert counted is not None
                    self._first = frame.pts - round(counted / base)
                stamped = (frame.pts - self._first) * base.numerator / base.denominator
                time = stamped if counted is None or time is None or stamped > time else counted
            yield _Shown(max(time, 0.0), frame)

    def _stamp(self, time: float) -> int:
        """A time on the container's clock."""
        assert self._first is not None
        assert self._stream.time_base is not None
        return self._first + int(time / self._stream.time_base)

    def _image(self, frame: VideoFrame) -> UInt8[np.ndarray, "height width channel"]:
        height, width = self._stored
        image = frame.to_ndarray(format="rgb24", height=height, width=width)
        return np.rot90(image, self._quarters)

    def _measured_duration(self) -> float:
        time = 0.0
        with VideoFile(self.path, self._threads) as again:
            while again._step():
                time = again._shown.time
        return time + 1 / self.rate
