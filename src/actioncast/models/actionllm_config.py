"""Sizes and options of ActionLLM, and the presets of what was released."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from actioncast.layers.cross_modality import Interaction, StreamPositions
from actioncast.layers.decoding import Fill
from actioncast.timeline import Taxonomy
from actioncast.trunks.config import TrunkConfig

if TYPE_CHECKING:
    from actioncast.models.actionllm import ActionLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionLLMConfig:
    """Sizes and options of ActionLLM; the defaults are those of 50 Salads, on MiniLM."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    """The frozen language model."""
    feature_dim: int = 2048
    """Width of a feature vector."""
    modalities: Literal["both", "vision", "text"] = "both"
    """What is read: labels as text and features, features alone (LLMAction), or text alone."""
    adapter_dim: int = 128
    """Width between the two layers that bring features to the width of the trunk."""
    num_queries: int = 20
    """Most future actions that can be told, the end included."""
    queries: Literal["ones", "zeros", "normal"] = "ones"
    """The constant that all queries are, before the adapter; normal ones differ from each other."""
    interaction: Interaction = "both"
    """What text, vision and queries look at before the trunk: themselves and each other, only
    themselves, only each other, or nothing (CMIB, -S, -C, -N)."""
    interaction_dim: int = 128
    """Width of a token in that block."""
    interaction_heads: int = 32
    """Its attention heads: those of LLaMA-7B, where the paper does not say."""
    interaction_multiple: int = 256
    """Of which the inner width of its feed-forward layers is a multiple."""
    interaction_positions: StreamPositions = "tokens"
    """What a token knows of its place there; `batch` is the released code's mistake."""
    interaction_fusion: Literal["mean", "sum"] = "mean"
    """Whether what is gathered from the streams is averaged, as released, or summed (Eq. 4-6)."""
    residual_positions: bool = True
    """Whether the block's residual path carries the places, as released, or not (Eq. 8)."""
    norm_eps: float = 1e-6
    """Of the block's norms."""
    tuning_dim: int = 4
    """Hidden units of the bottleneck before each attention of the trunk; 0 leaves them out."""
    tuning_groups: int = 2
    """Stretches of the features that share none of these units."""
    dropout: float = 0.1
    """Probability of dropping an activation in training, outside the trunk."""
    train_heads: bool = True
    """Whether the heads that name actions learn; the released ones are random and stay so."""
    unused_parameters: bool = False
    """Whether to carry the parameters of the released code that nothing uses."""
    label_text: Literal["words", "name"] = "words"
    """How a label is read: `pour_milk` as the words `pour milk`, or as it stands."""
    text_noise: float = 0.0
    """Probability that the text of an observed step is that of an action drawn from all, in
    training; without effect where no text is read."""
    fill: Fill = "last_action"
    """Who takes the frames that rounding leaves over: an action before the end, or the last query,
    as the released code has it; there, an end that comes first names nothing at all."""
    end_takes_time: bool = False
    """Whether the end has a share of the horizon, in which no action is named."""
    duration_loss: Literal["per_video", "sum", "per_segment"] = "per_video"
    """What the squared errors of the shares are divided by: videos, nothing (as released, where a
    batch is one video), or segments, as FUTR has it."""
    past_text_weight: float = 1.0
    """Weight of the loss of the observed actions, from the text."""
    past_visual_weight: float = 1.0
    """Weight of the loss of the observed actions, from the features."""
    future_weight: float = 1.0
    """Weight of the loss of the future actions."""
    duration_weight: float = 1.0
    """Weight of the loss of their durations."""
    seed: int = 0
    """Of sampled futures and of normal queries."""

    def __post_init__(self) -> None:
        for name in (
            "feature_dim",
            "adapter_dim",
            "num_queries",
            "interaction_dim",
            "interaction_heads",
            "interaction_multiple",
            "tuning_groups",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.interaction != "none" and self.interaction_dim % self.interaction_heads:
            raise ValueError(
                "interaction_dim must be a multiple of interaction_heads, got "
                f"{self.interaction_dim} and {self.interaction_heads}."
            )
        if self.tuning_dim < 0 or self.tuning_dim % self.tuning_groups:
            raise ValueError(
                "tuning_dim must be 0 or a multiple of tuning_groups, got "
                f"{self.tuning_dim} and {self.tuning_groups}."
            )
        for name in ("dropout", "text_noise"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if not self.norm_eps > 0:
            raise ValueError(f"norm_eps must be positive, got {self.norm_eps}.")
        if self.end_takes_time and self.fill == "last_query":
            raise ValueError(
                "end_takes_time must come with fill='last_action', got fill='last_query', under "
                "which the last query overwrites the end."
            )
        for name in ("past_text_weight", "past_visual_weight", "future_weight", "duration_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")

    @property
    def streams(self) -> tuple[str, ...]:
        """What goes through the trunk, in order."""
        read = {"both": ("text", "visual"), "vision": ("visual",), "text": ("text",)}
        return (*read[self.modalities], "queries")

    def build(self, taxonomy: Taxonomy) -> "ActionLLM":
        """Load the trunk and build the model for these labels."""
        from actioncast.models.actionllm import ActionLLM  # noqa: PLC0415

        return ActionLLM(self, taxonomy)


OFFICIAL = ActionLLMConfig(
    trunk=TrunkConfig(name="huggyllama/llama-7b", max_positions=4540, dtype="float16"),
    interaction_positions="batch",
    train_heads=False,
    unused_parameters=True,
    label_text="name",
    fill="last_query",
    duration_loss="sum",
)
"""As released for 50 Salads: every eighth frame, LLaMA-7B."""
