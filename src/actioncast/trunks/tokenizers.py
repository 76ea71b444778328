"""What turns a label into the numbers of a trunk's words, where no file of transformers does."""

import importlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

SENTENCEPIECE = "pip install sentencepiece"


@runtime_checkable
class Tokenizer(Protocol):
    """What a trunk asks of its tokenizer; those of transformers answer it too."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        """A mapping whose `input_ids` are rows of the table of words."""


class ByteTokenizer:
    """A token for each byte of a text: no file, no vocabulary."""

    def __call__(self, text: str, *, add_special_tokens: bool = False) -> dict[str, list[int]]:  # noqa: ARG002
        """The bytes, without any special token."""
        return {"input_ids": list(text.encode())}


class SentencePieceTokenizer:
    """The tokenizer of LLaMA 1 and 2 as Meta gives it out.

    Args:
        path: `tokenizer.model`.

    Raises:
        ImportError: sentencepiece is not installed.
        ValueError: The file holds no model of sentencepiece.
    """

    def __init__(self, path: Path) -> None:
        try:
            package = importlib.import_module("sentencepiece")
        except ImportError:
            raise ImportError(
                f"{path} is read by sentencepiece, which is not installed: {SENTENCEPIECE}."
            ) from None
        try:
            self._processor: Any = package.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError, TypeError):
            raise ValueError(
                f"{path} must be a model of sentencepiece, as LLaMA 1 and 2 have it, got another "
                "file; copy it again, or take the trunk in the format of transformers."
            ) from None

    def __call__(self, text: str, *, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """The pieces of a text, after the mark of a beginning if that is asked for."""
        return {"input_ids": self._processor.encode(text, add_bos=add_special_tokens)}
