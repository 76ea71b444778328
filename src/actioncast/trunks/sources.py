"""Trunks with their weights: of transformers, of Meta, or without any knowledge."""

import importlib
import importlib.util
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from actioncast.trunks.config import TrunkConfig
from actioncast.trunks.finding import EXTRA, Found, find_trunk, missing_weights
from actioncast.trunks.meta_llama import is_meta, load_meta
from actioncast.trunks.tokenizers import ByteTokenizer, Tokenizer
from actioncast.trunks.untrained import UNTRAINED, untrained_sizes

VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.txt", "vocab.json"),
)
"""Files of which a tokenizer has at least one; without any, transformers would make one up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A language model that was found, with its weights."""

    model: Any
    """of transformers, without a head"""
    tokenizer: Tokenizer | None
    name: str
    revision: str = ""
    """commit on the hub that was loaded; empty where the model is not of the hub"""


def load_source(config: TrunkConfig) -> Source:
    """Find a trunk and read its weights; code that comes with a model is never run.

    Of a model with several parts the language part is taken, of encoder and decoder the encoder.
    Nothing drops out.

    Raises:
        ImportError: transformers, or what a quantised trunk needs, are not installed.
        FileNotFoundError: There is no such trunk, or files of it are missing.
        ValueError: What was found is broken, or is no language model.
    """
    transformers = _transformers()
    with _unheard(transformers):
        if config.name.startswith(UNTRAINED):
            sizes = _as_asked(untrained_sizes(config.name, transformers), config)
            model = _random(sizes, config, transformers)
            return Source(model=_bare(model, config), tokenizer=ByteTokenizer(), name=config.name)
        found = find_trunk(config)
        if is_meta(found.folder):
            return _of_meta(found, config, transformers)
        return _of_folder(found, config, transformers)


def _of_meta(found: Found, config: TrunkConfig, transformers: Any) -> Source:
    if config.quantisation != "none":
        raise ValueError(
            f"weights of fewer bits must come in the format of transformers, got Meta's in "
            f"{found.folder}; leave quantisation out, or take the trunk in the other format."
        )
    dtype = getattr(torch, config.dtype)
    meta = load_meta(found.folder, transformers, dtype, config.num_layers)
    model = meta.model
    if config.weights == "random":
        model = _random(model.config, config, transformers)
    return Source(model=_bare(model, config), tokenizer=meta.tokenizer, name=config.name)


def _of_folder(found: Found, config: TrunkConfig, transformers: Any) -> Source:
    folder = found.folder
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder} must hold config.json and model.safetensors, or params.json and "
            "consolidated.00.pth as Meta gives LLaMA out, got neither; give the folder of a model."
        )
    sizes = _sizes(folder, config, transformers)
    tokenizer = _tokenizer(folder, transformers)
    if config.weights == "random":
        model = _random(_of_words(sizes), config, transformers)
    else:
        model = _pretrained(folder, sizes, config, transformers)
    return Source(
        model=_bare(model, config),
        tokenizer=tokenizer,
        name=config.name,
        revision=found.revision,
    )


def _sizes(folder: Path, config: TrunkConfig, transformers: Any) -> Any:
    """What config.json says, with as many layers as are asked for."""
    try:
        sizes = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} must describe a model that transformers "
            f"{transformers.__version__} know without code of others, got one that they do not "
            f"open ({_short(error)})."
        ) from None
    words = _of_words(sizes)
    if not getattr(words, "vocab_size", None):
        raise ValueError(
            f"a trunk must be a language model, got {config.name}, whose config.json is of a "
            f"{sizes.model_type}; take LLaMA, Qwen, Gemma, BERT or their like."
        )
    _as_asked(words, config)
    if sizes is not words:
        _still(sizes)
    return sizes


def _of_words(sizes: Any) -> Any:
    """The config of the language part."""
    return sizes if sizes.is_encoder_decoder else sizes.get_text_config()


def _as_asked(sizes: Any, config: TrunkConfig) -> Any:
    """The first layers only, and no dropout; changes the config that it is given."""
    there, wanted = sizes.num_hidden_layers, config.num_layers
    if wanted > there:
        raise ValueError(
            f"num_layers must be at most {there}, the layers of {config.name}, got {wanted}."
        )
    if wanted:
        for name, value in vars(sizes).items():
            if isinstance(value, list) and len(value) == there:
                # What each layer is: with a window, with positions ...
                setattr(sizes, name, value[:wanted])
        sizes.num_hidden_layers = wanted
    return _still(sizes)


def _still(sizes: Any) -> Any:
    """Without dropout.

    A layer that is computed a second time in the backward pass must be told that it trains, and
    some drop out by that word.
    """
    for name, value in vars(sizes).items():
        if isinstance(value, float) and ("drop" in name):
            setattr(sizes, name, 0.0)
    return sizes


def _pretrained(folder: Path, sizes: Any, config: TrunkConfig, transformers: Any) -> Any:
    if absent := missing_weights(folder):
        raise FileNotFoundError(
            f"{folder} must hold all weights of {config.name}, lacks {', '.join(absent[:3])}; "
            "fetch the model again."
        )
    try:
        model, told = transformers.AutoModel.from_pretrained(
            folder,
            config=sizes,
            dtype=getattr(torch, config.dtype),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **_in_fewer_bits(config, transformers),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{folder} must hold the weights of a {sizes.model_type} as its config.json says, got "
            f"files that do not open ({_short(error)}); fetch the model again."
        ) from None
    unused = ("pooler", "decoder.") if sizes.is_encoder_decoder else ("pooler",)
    if lost := sorted(key for key in told["missing_keys"] if not any(u in key for u in unused)):
        raise ValueError(
            f"{folder} must hold all weights of a {sizes.model_type}, lacks {', '.join(lost[:3])}: "
            "they would be random. Its config.json belongs to another model."
        )
    return model


def _in_fewer_bits(config: TrunkConfig, transformers: Any) -> dict[str, Any]:
    if config.quantisation == "none":
        return {}
    absent = [p for p in ("bitsandbytes", "accelerate") if importlib.util.find_spec(p) is None]
    if absent:
        raise ImportError(
            f"quantisation {config.quantisation} needs {' and '.join(absent)}: pip install "
            f"{' '.join(absent)}; or leave it at none."
        )
    if not torch.cuda.is_available():
        raise ValueError(
            f"quantisation {config.quantisation} needs a GPU that PyTorch can use, got none; "
            "leave it at none."
        )
    bits: dict[str, Any] = {"load_in_8bit": True}
    if config.quantisation == "4bit":
        bits = {"load_in_4bit": True, "bnb_4bit_compute_dtype": getattr(torch, config.dtype)}
    return {
        "quantization_config": transformers.BitsAndBytesConfig(**bits),
        "device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))},
    }


def _random(sizes: Any, config: TrunkConfig, transformers: Any) -> Any:
    """The same weights at each call; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        model = transformers.AutoModel.from_config(sizes, trust_remote_code=False)
    return model.to(getattr(torch, config.dtype))


def _bare(model: Any, config: TrunkConfig) -> Any:
    """The part that turns vectors of words into states.

    Raises:
        ValueError: It cannot be had, or not as the config asks for.
    """
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    for name in ("language_model", "text_model"):
        model = getattr(model, name, model)
    if getattr(model, "pooler", None) is not None:
        # It is random where a checkpoint has none, and no state of a token passes through it.
        model.pooler = None
    table = model.get_input_embeddings()
    width, wanted = getattr(table, "embedding_dim", None), model.config.hidden_size
    if width != wanted:
        raise ValueError(
            f"a trunk must have words as wide as its states, got {config.name} with words of "
            f"{width or 'no width'} and states of {wanted}; take another trunk."
        )
    if config.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ValueError(
            f"{type(model).__name__} of transformers cannot compute layers a second time, got "
            f"gradient_checkpointing for {config.name}; leave it out."
        )
    return model


def _tokenizer(folder: Path, transformers: Any) -> Tokenizer | None:
    if not any((folder / name).exists() for name in VOCABULARIES):
        return None
    try:
        found: Tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except ImportError as error:
        raise ImportError(
            f"the tokenizer in {folder} needs a package that is not installed ({_short(error)})."
        ) from None
    except Exception as error:
        # A broken file of words raises whatever its reader thinks of.
        raise ValueError(
            f"{folder} must hold a tokenizer that transformers open, got one that they do not "
            f"({_short(error)}); fetch it again."
        ) from None
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise ImportError(f"a trunk needs transformers: {EXTRA}.") from None


@contextmanager
def _unheard(transformers: Any) -> Iterator[None]:
    """Keep bars and reports of weights that are not needed out of the user's lines."""
    said = transformers.utils.logging
    before = said.get_verbosity()
    said.disable_progress_bar()
    said.set_verbosity_error()
    try:
        yield
    finally:
        said.set_verbosity(before)
