"""Captions beside the features: what somebody wrote about each video, read from a folder of files.

A model that sees the video wrote them, elsewhere and beforehand, so they are input as features are.
A text is encoded once; a caption is told no earlier than when all that it is about has been seen
(`data/caption_track.py`). Whether its author saw later frames nobody can tell from the files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from actioncast.caption_files import SUFFIXES, CaptionFile, find_captions, read_captions
from actioncast.data import Dataset, Video
from actioncast.data.caption_track import CaptionTrack
from actioncast.text_encoders import TextEncoder, sentence_vectors, text_encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioning:
    """Which captions the videos of a split have."""

    folder: str
    """What the folder is called here."""
    fingerprint: str
    """Eight hexadecimal digits that change with any caption of the split's videos."""
    encoder: str
    """Name of what made vectors of the texts; empty where the files hold vectors."""
    width: int
    """Of the vectors."""

    @property
    def said(self) -> str:
        """What they are, in words that hold wherever their folder lies."""
        return f"captions of files, which may look ahead, {self.fingerprint} {self.read}"

    @property
    def read(self) -> str:
        """Who made vectors of them."""
        return f"read by {self.encoder}" if self.encoder else "as vectors"


class CaptionFolder:
    """A file of captions for every video, in `split<k>/` where that exists.

    Args:
        folder: Holds `<video>` with one of `SUFFIXES`.
        encoder: Name of the encoder of texts; it is made when the first text is read.
        cache: Where what was encoded is kept; absent, nowhere.
        device: Where an encoder with weights runs.
    """

    def __init__(
        self, folder: Path, encoder: str, cache: Path | None = None, device: str = "cpu"
    ) -> None:
        self.folder, self.source = folder, str(folder)
        self._name, self._cache, self._device = encoder, cache, device
        self._encoder: TextEncoder | None = None
        self._files: dict[Path, CaptionFile] = {}
        self._known: dict[str, Float32[np.ndarray, " feature"]] = {}

    def given(self, dataset: Dataset, split: str) -> tuple[Dataset, Captioning]:
        """The dataset with the captions that its videos have in a split, and which they are.

        Args:
            dataset: On its own grid, not resampled.
            split: Its name; empty where a video of nobody's split is asked about.

        Raises:
            FileNotFoundError: Videos have no file; the message names them.
            ValueError: A file is broken, or vectors differ in width.
        """
        own = self.folder / f"split{split}"
        folder = own if own.is_dir() else self.folder
        parts = dataset.splits.get(split)
        names = list(dataset.videos) if parts is None else [*parts.train, *parts.test]
        videos = {name: dataset.videos[name] for name in dict.fromkeys(names)}
        paths = _paths(folder, list(videos.values()))
        for path in paths.values():
            if path not in self._files:
                self._files[path] = read_captions(path)
        self._encode([text for path in paths.values() for text in self._files[path].texts])
        tracks = {
            name: self._track(paths[video.id], self._files[paths[video.id]], video)
            for name, video in videos.items()
        }
        widths = {track.vectors.shape[1]: paths[videos[name].id] for name, track in tracks.items()}
        if len(widths) > 1:
            said = " and ".join(f"{width} of {path}" for width, path in widths.items())
            raise ValueError(
                f"captions must have vectors of one width, got {said}; give all of them as texts, "
                "or all as vectors of one model."
            )
        captioned = {name: replace(video, captions=tracks[name]) for name, video in videos.items()}
        texts = any(self._files[path].vectors is None for path in paths.values())
        captioning = Captioning(
            folder=self.folder.name,
            fingerprint=self._fingerprint(paths),
            encoder=self._reader().name if texts else "",
            width=next(iter(widths)),
        )
        return replace(dataset, videos={**dataset.videos, **captioned}), captioning

    def _reader(self) -> TextEncoder:
        if self._encoder is None:
            self._encoder = text_encoder(self._name, self._cache, self._device)
        return self._encoder

    def _encode(self, texts: Sequence[str]) -> None:
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            vectors = sentence_vectors(self._reader(), missing)
            self._known |= dict(zip(missing, vectors, strict=True))

    def _track(self, path: Path, file: CaptionFile, video: Video) -> CaptionTrack:
        length = video.num_frames / video.rate
        if len(file.start) and file.start.min() >= length:
            raise ValueError(
                f"{path} must hold captions of {video.id}, which lasts {length:g} s, got all of "
                f"them from {file.start.min():g} s on; write times in seconds from its start."
            )
        vectors = file.vectors
        if vectors is None:
            rows = [self._known[text] for text in file.texts]
            blank = np.zeros((0, self._reader().width), np.float32)
            vectors = np.stack(rows) if rows else blank
        return CaptionTrack.of_seconds(vectors, file.start, file.end, video.rate, video.num_frames)

    def _fingerprint(self, paths: dict[str, Path]) -> str:
        digest = hashlib.sha256()
        for name in sorted(paths):
            file = self._files[paths[name]]
            digest.update(f"{name}\n{len(file.start)}\n".encode())
            digest.update(file.start.astype("<f8").tobytes())
            digest.update(file.end.astype("<f8").tobytes())
            digest.update("\n".join(file.texts).encode())
            if file.vectors is not None:
                digest.update(file.vectors.astype("<f4").tobytes())
        return digest.hexdigest()[:8]


def caption_folder(source: str, model: object, device: str = "cpu") -> CaptionFolder | None:
    """The captions that a run reads; none, if no folder is said.

    Args:
        source: The folder.
        model: Config of the model that reads them: its `encoder` makes vectors of texts, and a
            folder `text_cache`, where it has one, keeps them.
        device: Where an encoder with weights runs.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no captions, or the model reads none.
    """
    if not source:
        return None
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the captions were looked for in {folder} and are not there; say --captions PATH with "
            "the folder that holds a file for every video."
        )
    own = [folder, *folder.glob("split*/")]
    if not any(path.suffix in SUFFIXES for one in own for path in one.iterdir()):
        raise ValueError(
            f"--captions must be a folder of files <video>{', <video>'.join(SUFFIXES)}, got "
            f"{folder}, which holds none."
        )
    encoder = str(getattr(model, "encoder", ""))
    if not encoder:
        raise ValueError(
            "--captions must go with a model that has a text encoder (model.encoder), got "
            f"{type(model).__name__} without; leave it out."
        )
    cache = str(getattr(model, "text_cache", ""))
    return CaptionFolder(folder, encoder, Path(cache) if cache else None, device)


def fitted(model: Any, captioning: Captioning) -> Any:
    """The config of a model that reads captions of this width: its `text_dim` follows them.

    Raises:
        ValueError: It says another width.
    """
    said = getattr(model, "text_dim", captioning.width)
    if said not in (0, captioning.width):
        raise ValueError(
            f"the model reads captions of width {said} (text_dim), those of {captioning.folder} "
            f"have width {captioning.width}; give captions of the encoder or model that it was "
            "made for."
        )
    return model if said else replace(model, text_dim=captioning.width)


def _paths(folder: Path, videos: Sequence[Video]) -> dict[str, Path]:
    """The file of every video, by its id.

    Raises:
        FileNotFoundError: Videos have none.
    """
    found = {video.id: find_captions(folder, video.id) for video in videos}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise FileNotFoundError(
            f"{folder} has no captions of {len(absent)} of {len(found)} videos "
            f"({', '.join(absent[:5])}{more}); --captions needs for each a file "
            f"{absent[0]}{', '.join(SUFFIXES)}. One without a caption is allowed."
        )
    return {name: path for name, path in found.items() if path is not None}
