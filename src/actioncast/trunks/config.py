"""Which frozen language model a system stands on, and how it is run."""

from dataclasses import dataclass
from typing import Literal

TrunkAttention = Literal["bidirectional", "causal"]
"""Who may look at whom: every token at every other, or none at what comes after it."""

TrunkPositions = Literal["sequence", "step"]
"""What the trunk counts: each token by itself, or the steps, whose tokens share a position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkConfig:
    """A language model whose weights stay as they are."""

    name: str = "minilm"
    """`minilm`, `untrained:llama-tiny` and its like, a folder, or a name on the Hugging Face hub;
    a folder may hold LLaMA weights in Meta's own format"""
    revision: str = ""
    """commit, tag or branch on the hub; absent, the newest there is"""
    weights: Literal["pretrained", "random"] = "pretrained"
    """its own weights, or random ones in the same shapes, embeddings of words included: what the
    knowledge of language is worth"""
    seed: int = 0
    """of random weights"""
    num_layers: int = 0
    """how many of its layers are used, from the first; 0 uses all"""
    attention: TrunkAttention = "bidirectional"
    """who may look at whom, whatever the model was trained with"""
    positions: TrunkPositions = "sequence"
    """what is counted: each token, or steps, of which the text and what is seen of one share a
    place: a trunk then holds twice as long a video"""
    max_positions: int = 0
    """positions to go to where places are rotated and stand in no table, beyond those that the
    trunk was trained with; 0 keeps to these"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """of the trunk's weights and of all that is computed within it"""
    quantisation: Literal["none", "8bit", "4bit"] = "none"
    """weights in fewer bits, where bitsandbytes is installed"""
    gradient_checkpointing: bool = False
    """compute each layer a second time in the backward pass, and store only what enters it"""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError(
                "a trunk must have a name: minilm, untrained:llama-tiny, a folder or a name on the "
                "Hugging Face hub, got ''."
            )
        if self.name.startswith("untrained:") and self.quantisation != "none":
            raise ValueError(
                f"{self.name} has no weights to store in fewer bits, got quantisation "
                f"{self.quantisation}; leave it out."
            )
        if self.num_layers < 0:
            raise ValueError(
                f"num_layers must be 0 (all layers) or more, got {self.num_layers} for the trunk "
                f"{self.name}."
            )
        if self.max_positions < 0:
            raise ValueError(
                f"max_positions must be 0 (those of the trunk) or more, got {self.max_positions} "
                f"for the trunk {self.name}."
            )
        if self.quantisation != "none" and self.weights == "random":
            raise ValueError(
                "weights of fewer bits must be pretrained ones, got random weights with "
                f"quantisation {self.quantisation}; leave one of them out."
            )
