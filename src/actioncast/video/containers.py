"""A video file opened with PyAV (the extra `video`): its stream, its frames, what it announces."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
else:
    # PyAV need not be installed, and is imported when a file is opened.
    InputContainer = VideoFrame = VideoStream = Any

logger = logging.getLogger(__name__)


def import_av() -> ModuleType:
    """PyAV.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import av  # noqa: PLC0415
    except ImportError:
        raise ImportError(
            "reading video files needs PyAV; pip install 'actioncast[video]'."
        ) from None
    return av


def open_stream(path: Path, threads: int) -> VideoStream:
    """Open a file and choose its first stream of moving pictures.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not open, or holds no such stream.
    """
    av = import_av()
    if not path.is_file():
        raise FileNotFoundError(f"no video file {path}.")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} must be a video, got a file that does not open ({error.strerror}); it is "
            "truncated or no video: copy or convert it again."
        ) from None
    cover = av.stream.Disposition.attached_pic
    moving = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not moving:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        container.close()
        raise ValueError(f"{path} must hold a video stream, got {kinds} alone.")
    stream: VideoStream = moving[0]
    stream.thread_type = "AUTO"
    stream.thread_count = threads
    return stream


def container_of(stream: VideoStream) -> InputContainer:
    """The open file of a stream."""
    container: Any = stream.container
    return container


def frame_rate(path: Path, stream: VideoStream) -> float:
    """Frames per second, the mean where they vary.

    Raises:
        ValueError: The file does not say.
    """
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate:
        raise ValueError(f"{path} must say its frame rate, got none; convert it again.")
    return float(rate)


def decoded(path: Path, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames as they are shown, until the file ends or breaks off; broken packets are left out."""
    av = import_av()
    packets = container_of(stream).demux(stream)
    warned = False
    while True:
        packet = None
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.FFmpegError as error:
            if not warned:
                logger.warning("%s is broken in places (%s).", path, error.strerror)
            warned = True
            # Where reading broke off, the decoder still holds what it has read.
            frames = [] if packet is not None else _held(stream)
        yield from frames


def announced_duration(stream: VideoStream, first: int | None) -> float | None:
    """Seconds as the header says, if it does; Matroska counts them from 0.

    Args:
        stream: Of the file.
        first: Timestamp of the first frame.
    """
    base, container = stream.time_base, container_of(stream)
    if stream.duration and base is not None:
        return float(stream.duration * base)
    start = 0.0 if first is None or base is None else float(first * base)
    if tag := stream.metadata.get("DURATION"):
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start
    if container.duration:
        return float(container.duration / import_av().time_base) - start
    return None


def _held(stream: VideoStream) -> list[VideoFrame]:
    try:
        return stream.decode(None)
    except import_av().FFmpegError:
        return []
