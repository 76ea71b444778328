"""Every size and choice of CLAM."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from actioncast.layers.cross_memory import Positions
from actioncast.timeline import Taxonomy

if TYPE_CHECKING:
    from actioncast.models.clam import CLAM


@dataclass(frozen=True, slots=True, kw_only=True)
class ClamConfig:
    """The published sizes for EPIC-KITCHENS-100: 106,857,198 parameters with its taxonomy."""

    feature_dim: int = 1024
    """width of a frame's features; another than hidden_dim is projected"""
    hidden_dim: int = 1024
    """width of tokens, memory and predictor (D)"""
    processor: Literal["mamba", "gru", "lstm"] = "mamba"
    """what makes tokens of frames; the others are those that Table B.10 compares"""
    num_layers: int = 4
    """of the processor"""
    state_dim: int = 16
    """entries of the state of every channel of a Mamba block"""
    expand: int = 2
    """channels of a Mamba block over hidden_dim"""
    taps: int = 4
    """of its convolution over time"""
    act_tokens: int = 4
    """latest tokens that the predictor reads (K)"""
    act_choice: Literal["last", "uniform"] = "last"
    """the latest ones, or as many spread over all that was seen, which no stream can keep"""
    memory_queries: int = 10
    """tokens that are read from the memory (M); 0 goes without a memory"""
    memory_layers: int = 1
    """layers of the memory, each with a state of its own"""
    memory_reads: Literal["frames", "tokens"] = "frames"
    """what is written into the memory: what the processor is given, or what it makes of it"""
    num_heads: int = 8
    """of every attention, and matrices of a memory's state (H)"""
    key_ratio: float = 0.5
    """width of the memory's keys over hidden_dim"""
    gate_rank: int = 16
    """between the two layers of the memory's gate"""
    gate_temperature: float = 16.0
    """what the log of a gate is divided by; 1 is the plain sigmoid, which forgets within a step"""
    gate_order: Literal["recurrent", "reversed"] = "recurrent"
    """the recurrence of the paper, or what the released code computes"""
    positions: Positions = "separate"
    """where learned positions enter: into what is compared, or as the released code adds them"""
    token_embeddings: bool = True
    """tell the predictor which tokens are memory and which are recent (p_mem, p_act)"""
    predictor_layers: int = 4
    """of the predictor"""
    predictor_dim: int = 4096
    """width within its feed-forward networks"""
    ahead: tuple[float, ...] = (1.0,)
    """seconds after a step that the predictor's queries name, one each (N)"""
    num_coming: int = 0
    """with 1 or more, its queries name so many next actions in order instead, as on Ego4D"""
    asks_at: Literal["end", "starts"] = "end"
    """where a training window asks for what comes: at its end, or wherever an action follows that
    its targets know of, which gives as many answers to learn from as actions start within it"""
    background_output: bool = True
    """one more output of every classifier, the first, for a background that no label names and no
    loss counts; released checkpoints have it"""
    dropout: float = 0.1
    """on features, within attention and predictor"""
    head_dropout: float = 0.2
    """before the classifiers"""
    past_weight: float = 1.0
    """of the loss on what was seen; 0 learns what comes alone"""
    label_smoothing: float = 0.1
    """share of the target that is spread over all classes"""
    mixup: float = 0.8
    """both parameters of the Beta that training rows are mixed by; 0 mixes none"""
    equalise_below: float = 1.76e-3
    """share of training actions below which an action is rare, for the equalised loss; 0 is none"""
    equalise: float = 0.95
    """probability that a rare action is left out where it is no target"""

    def __post_init__(self) -> None:
        for name in (
            *("feature_dim", "hidden_dim", "num_layers", "state_dim", "expand", "taps"),
            *("act_tokens", "memory_layers", "num_heads", "gate_rank"),
            *("predictor_layers", "predictor_dim"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.memory_queries, self.num_coming) < 0:
            raise ValueError(
                "memory_queries and num_coming must be 0 or more, got "
                f"{self.memory_queries} and {self.num_coming}."
            )
        keys = round(self.hidden_dim * self.key_ratio)
        if self.hidden_dim % self.num_heads or keys < 1 or keys % self.num_heads:
            raise ValueError(
                "hidden_dim and its share key_ratio must be multiples of num_heads, got "
                f"{self.hidden_dim}, {keys} and {self.num_heads}."
            )
        if not self.gate_temperature > 0:
            raise ValueError(f"gate_temperature must be positive, got {self.gate_temperature}.")
        if not self.ahead or list(self.ahead) != sorted({a for a in self.ahead if a > 0}):
            raise ValueError(
                f"ahead must be increasing seconds above 0, one or more, got {self.ahead}."
            )
        for name in ("dropout", "head_dropout", "label_smoothing", "equalise_below"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be within [0, 1), got {getattr(self, name)}.")
        if self.mixup < 0 or self.past_weight < 0 or not 0 <= self.equalise <= 1:
            raise ValueError(
                "mixup and past_weight must be 0 or more and equalise within [0, 1], got "
                f"{self.mixup}, {self.past_weight} and {self.equalise}."
            )

    def build(self, taxonomy: Taxonomy) -> "CLAM":
        """Build the model for these labels."""
        from actioncast.models.clam import CLAM  # noqa: PLC0415  (the model reads its config)

        return CLAM(self, taxonomy)
