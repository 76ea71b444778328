"""Vectors of texts that were made elsewhere: a file in the place of a text encoder.

So a large vision-language model need not run here: it is asked once, on another machine, for the
vector of every label name or caption.
"""

import hashlib
import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors

UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError),
)
"""What NumPy raises at files that are not what they are called."""
VECTORS = "vectors"
"""What the name of an encoder that is a file starts with, before a colon."""

States = Float32[np.ndarray, "token feature"]


class VectorFileEncoder:
    """Vectors of texts that were made elsewhere, read from a file; other texts it does not know.

    A text is looked for as it stands, then with blanks for its underscores, then with underscores
    for its blanks, and last without regard to case, underscores and blanks, where the first in the
    order of the alphabet is taken.
    """

    def __init__(self, path: Path) -> None:
        """Read all of a file.

        Args:
            path: A `.safetensors` or `.npz` file that holds an array for every text, called as the
                text: its vector, or the states of its tokens, one a row.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds something else.
        """
        self.path = path.expanduser().resolve()
        self._known = _vectors(self.path)
        self.width = next(iter(self._known.values())).shape[1]
        self._alike: dict[str, str] = {}
        digest = hashlib.sha256()
        for text in sorted(self._known):
            states = self._known[text]
            self._alike.setdefault(_plain(text), text)
            digest.update(json.dumps([text, states.shape]).encode())
            digest.update(states.astype("<f4").tobytes())
        self.name = f"{VECTORS}:{self.path.name}:{digest.hexdigest()[:10]}"

    def encode(self, texts: Sequence[str]) -> list[States]:
        """The states of every text.

        Raises:
            ValueError: The file does not hold them; the message names the texts.
        """
        keys = {text: self._key(text) for text in dict.fromkeys(texts)}
        absent = [text for text, key in keys.items() if key is None]
        if absent:
            close = get_close_matches(absent[0], self._known, 3) or sorted(self._known)[:3]
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            raise ValueError(
                f"{self.path} must hold vectors of every text, got none of "
                f"{', '.join(map(repr, absent[:3]))}{more} (it has {len(self._known)} texts, such "
                f"as {', '.join(map(repr, close))}); add those that its maker gives, or take an "
                "encoder that reads any text, minilm or hash:64."
            )
        return [self._known[keys[text] or ""] for text in texts]

    def _key(self, text: str) -> str | None:
        for written in (text, text.replace("_", " "), text.replace(" ", "_")):
            if written in self._known:
                return written
        return self._alike.get(_plain(text))


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def _vectors(path: Path) -> dict[str, States]:
    """The states of every text in a file.

    Raises:
        FileNotFoundError, ValueError: See `VectorFileEncoder`.
    """
    read = FORMATS.get(path.suffix.lower())
    if read is None:
        raise ValueError(
            f"a file of vectors must end with {' or '.join(FORMATS)}, got {path}; write one array "
            "for each text, called as the text."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file of vectors {path}; say vectors:FILE with a file that ends with "
            f"{' or '.join(FORMATS)}."
        )
    try:
        arrays = read(path)
    except (*UNREADABLE, SafetensorError) as error:
        raise ValueError(
            f"{path} must be a file of arrays, got one that does not open "
            f"({' '.join(str(error).split())[:200]}); write it again."
        ) from None
    found: dict[str, States] = {}
    for text, array in arrays.items():
        if array.ndim not in (1, 2) or not array.size or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{path} must hold a vector of numbers, or one a token, for {text!r}, got shape "
                f"{array.shape} of {array.dtype.name}; write (feature,) or (token, feature)."
            )
        states = np.array(np.atleast_2d(array), np.float32)
        if not np.isfinite(states).all():
            raise ValueError(f"{path} must hold finite numbers, got others for {text!r}; mend it.")
        states.flags.writeable = False
        found[text] = states
    widths = {states.shape[1]: text for text, states in found.items()}
    if len(widths) != 1:
        said = ", ".join(f"{width} of {text!r}" for width, text in sorted(widths.items()))
        raise ValueError(
            f"{path} must hold vectors of one width, got {said or 'no vector at all'}; write those "
            "of one model alone."
        )
    return found


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    # NumPy knows no bfloat16.
    return {
        text: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        for text, tensor in read_tensors(path.read_bytes()).items()
    }


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise ValueError("a single array")
    with loaded as file:
        return dict(file.items())


FORMATS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
"""Readers of files of vectors, by suffix."""
