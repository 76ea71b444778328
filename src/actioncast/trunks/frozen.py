"""A frozen language model that vectors go through, whatever its architecture."""

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from actioncast.trunks.config import TrunkConfig
from actioncast.trunks.probing import require_obedience
from actioncast.trunks.sources import Source, load_source

ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
"""What the libraries' models call the attention of a layer."""
INNER_ATTENTIONS = ("self", "attn")
"""What they call the part of it that reads queries, keys and values, where the other part is a
residual sum (BERT and its kin)."""
SAMPLED = 64
"""Numbers of each weight that a fingerprint looks at."""


class FrozenTrunk(nn.Module):
    """Layers of a language model that never learn, and its table of words.

    The weights are in no state dict: a checkpoint holds a fingerprint of them, and whoever loads it
    brings the trunk. Dropout stays off, in training too.

    Args:
        config: How the model is run.
        source: The model, and its tokenizer if it has one.
    """

    fingerprint: UInt8[Tensor, " byte"]

    def __init__(self, config: TrunkConfig, source: Source) -> None:
        super().__init__()
        self.config = config
        self.name, self.revision = source.name, source.revision
        self.model: nn.Module = source.model.eval().requires_grad_(False)
        self._tokenizer = source.tokenizer
        self._attentions = _attentions(self.model, source.name)
        sizes: Any = source.model.config
        self.width = int(sizes.hidden_size)
        self.num_layers = len(self._attentions)
        self.max_tokens: int | None = getattr(sizes, "max_position_embeddings", None)
        self._first_position = _first_position(self.model)
        self._told_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        if self.max_tokens is not None:
            self.max_tokens -= self._first_position
            if self.rotates:
                self.max_tokens = max(self.max_tokens, config.max_positions)
        if config.gradient_checkpointing:
            model: Any = source.model
            # Its name since transformers 5.
            older: Any = getattr(model, "gradient_checkpointing_enable", None)
            enable: Any = getattr(model, "activation_checkpointing_enable", older)
            enable({"use_reentrant": False})
        self.register_buffer("fingerprint", _fingerprint(self.model), persistent=False)

    def train(self, mode: bool = True) -> "FrozenTrunk":
        """Keep dropout off; recomputation in the backward pass goes by the mode."""
        super().train(mode)
        self.model.eval()
        if mode and self.config.gradient_checkpointing:
            for part in self.model.modules():
                if hasattr(part, "gradient_checkpointing"):
                    part.training = True
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed within it."""
        return getattr(torch, self.config.dtype)

    @property
    def rotates(self) -> bool:
        """Whether places are rotations, of which there are as many as one likes, and no table."""
        return any("rotary" in name for name, _ in self.model.named_modules())

    def tune(self, layers: Sequence[nn.Module]) -> None:
        """Let each vector pass a layer of its own before each attention of the trunk.

        Args:
            layers: One for each layer of the trunk, `(batch, token, width)` in and out; the
                residual path does not pass them.
        """
        assert len(layers) == self.num_layers, "one layer of tuning for each of the trunk's"
        for attention, layer in zip(self._attentions, layers, strict=True):
            attention.register_forward_pre_hook(_Tuned(layer), with_kwargs=True)

    def forward(
        self,
        tokens: Float[Tensor, "batch token width"],
        valid: Bool[Tensor, "batch token"],
        positions: Int[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch token width"]:
        """The last hidden states, after the trunk's own last norm, as float32.

        Args:
            tokens: Vectors in the space of the trunk's words.
            valid: False for padding, which must stand last.
            positions: Place of each token, from 0; absent, they are counted in order.

        Raises:
            ValueError: There are more positions than the trunk has.
        """
        self._require_room(tokens.shape[1] if positions is None else int(positions.max()) + 1)
        self._choose_kernel(tokens.device)
        given: dict[str, Any] = {"attention_mask": self._mask(valid)}
        if positions is None and self._told_positions:
            # Some models would count them off the mask.
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        if positions is not None:
            given["position_ids"] = positions + self._first_position
        if "use_cache" in vars(getattr(self.model, "config", self)):
            given["use_cache"] = False
        found = self.model(inputs_embeds=tokens.to(self.dtype), **given)
        states: Tensor = found.last_hidden_state
        return states.float()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """The mean of each text's token embeddings, as float32 (paper, Eq. 12).

        Raises:
            ValueError: The trunk has no tokenizer, or a text has no token.
        """
        if self._tokenizer is None:
            raise ValueError(
                f"the trunk {self.name} must have a tokenizer to read labels as text, got none; "
                "put tokenizer.json (or tokenizer.model) into its folder."
            )
        table: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        device = table.weight.device
        rows: list[Tensor] = []
        for text in texts:
            ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if not ids:
                raise ValueError(
                    f"every label must have a token in the vocabulary of {self.name}, got "
                    f"{text!r}, which has none; name the label otherwise."
                )
            if max(ids) >= table.num_embeddings:
                raise ValueError(
                    f"the tokenizer of {self.name} must fit its table of {table.num_embeddings} "
                    f"words, got token {max(ids)} for {text!r}; it belongs to another model."
                )
            rows.append(table(torch.tensor(ids, device=device)).float().mean(0))
        return torch.stack(rows)

    def _require_room(self, needed: int) -> None:
        if self.max_tokens is not None and needed > self.max_tokens:
            raise ValueError(
                f"the trunk {self.name} has {self.max_tokens} positions, got a sequence of "
                f"{needed}; use a larger stride, or --model.trunk.positions step."
            )

    def _mask(self, valid: Bool[Tensor, "batch token"]) -> Float[Tensor, "batch 1 token token"]:
        """What is added to scores: 0 where a token may look, the least number elsewhere.

        It stands for a model's own: windows of attention, as Gemma and Mistral have them, give way.
        """
        seen = valid[:, None, None, :].expand(-1, 1, valid.shape[1], -1)
        if self.config.attention == "causal":
            seen = seen.tril()
        nothing = torch.zeros(seen.shape, dtype=self.dtype, device=valid.device)
        return nothing.masked_fill(~seen, torch.finfo(self.dtype).min)

    def _choose_kernel(self, device: torch.device) -> None:
        """On CPUs the fused kernel is slow in the backward pass of short types."""
        model: Any = self.model
        plain = device.type == "cpu" and self.config.dtype != "float32"
        wanted = "eager" if plain or not getattr(model, "_supports_sdpa", False) else "sdpa"
        # Some models chose theirs when they were built.
        if model.config._attn_implementation != wanted and model._can_set_attn_implementation():
            model.set_attn_implementation(wanted)


class _Tuned:
    """A hook that tunes what attention reads; an object, so that a copied model has its own."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(
        self,
        attention: nn.Module,  # noqa: ARG002
        given: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if given:
            return (self.layer(given[0]), *given[1:]), named
        return given, {**named, "hidden_states": self.layer(named["hidden_states"])}


def load_trunk(config: TrunkConfig) -> FrozenTrunk:
    """The trunk of a config.

    Raises:
        ImportError: transformers, or what a quantised trunk needs, are not installed.
        FileNotFoundError: There is no such trunk.
        ValueError: What was found is no language model that vectors can go through.
    """
    trunk = FrozenTrunk(config, load_source(config))
    require_obedience(trunk, trunk._attentions)
    return trunk


def trunk_layers(model: nn.Module, name: str) -> list[nn.Module]:
    """The layers of a language model, in order.

    Raises:
        ValueError: It has none with attention each.
    """
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    for layers in sorted(stacks, key=len, reverse=True):
        if len(layers) and all(_attention(layer) is not None for layer in layers):
            return list(layers)
    raise ValueError(
        f"{name} must be a language model of layers with attention each, as LLaMA, Qwen, Gemma or "
        f"BERT, got {type(model).__name__}; take another trunk."
    )


def _attentions(model: nn.Module, name: str) -> list[nn.Module]:
    """The attention of every layer, in order."""
    found = (_attention(layer) for layer in trunk_layers(model, name))
    return [attention for attention in found if attention is not None]


def _attention(layer: nn.Module) -> nn.Module | None:
    parts = getattr(layer, "layer", None)
    if isinstance(parts, nn.ModuleList) and len(parts):
        # T5: a layer is a list of attention and feed-forward.
        return getattr(parts[0], "SelfAttention", None)
    for name in ATTENTIONS:
        if isinstance(attention := getattr(layer, name, None), nn.Module):
            inner = (getattr(attention, part, None) for part in INNER_ATTENTIONS)
            return next((part for part in inner if isinstance(part, nn.Module)), attention)
    return None


def _first_position(model: nn.Module) -> int:
    """The position of the first token: RoBERTa and its kin count from beyond the padding index."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


@torch.no_grad()
def _fingerprint(model: nn.Module) -> UInt8[Tensor, " byte"]:
    """Sixteen bytes that change with shapes and, but for luck, with any training of the weights."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(f"{key}{tuple(value.shape)}".encode())
        if value.device.type != "meta" and value.numel():
            flat = value.detach().reshape(-1)
            picked = torch.linspace(0, len(flat) - 1, min(SAMPLED, len(flat))).long()
            digest.update(flat[picked.to(flat.device)].float().cpu().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()[:16]), dtype=torch.uint8)
