"""What a recipe's model costs, part by part: parameters and operations of one clip (Table 4)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from actioncast.clip_config import ClipTrainConfig
from actioncast.cost import Cost, measure
from actioncast.models.mamba_vl import MambaVLConfig, build_fusion
from actioncast.types import Tokens
from actioncast.video.backbones import build_backbone

HEADS: Mapping[str, int] = {"verb": 97, "noun": 300, "action": 3806}
"""Classes of EPIC-KITCHENS-100."""
TOKENS: Mapping[str, int] = {"questions": 32, "objects": 16}
"""Tokens that a modality is measured with: two questions of 16 words."""


@dataclass(frozen=True, slots=True)
class CostTable:
    """The parts of a model and their sum."""

    parts: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        """All parts together."""
        total = Cost(parameters=0, trained=0, flops=0)
        for cost in self.parts.values():
            total = total + cost
        return total

    def lines(self) -> list[str]:
        """The table as text."""
        rows = {**self.parts, "total": self.total}
        width = max(map(len, rows))
        head = f"{'':{width}}  {'parameters':>13}  {'trained':>13}  {'GFLOP':>9}  {'GMAC':>9}"
        return [
            head,
            *[
                f"{name:{width}}  {c.parameters:>13,}  {c.trained:>13,}  {c.flops / 1e9:>9.3f}  "
                f"{c.multiply_adds / 1e9:>9.3f}"
                for name, c in rows.items()
            ],
        ]


def cost_of(config: object, backbone: str = "") -> CostTable:
    """Backbone, fusion and heads of a MambaVL recipe, for one clip.

    Args:
        config: The recipe.
        backbone: Name of a backbone that is not in the recipe, `untrained:vit-base` for example.

    Raises:
        ValueError: It is no recipe of MambaVL, or there is no such backbone.
    """
    model = getattr(config, "model", None)
    if not isinstance(config, ClipTrainConfig) or not isinstance(model, MambaVLConfig):
        raise ValueError(
            "--cost must go with a recipe of MambaVL, got one of another model; `actioncast info` "
            "lists them."
        )
    parts: dict[str, Cost] = {}
    tokens = config.history.max_actions if config.input == "history" else config.num_frames
    seen = model.backbone if model.backbone.name else config.backbone
    if backbone:
        seen = replace(seen, name=backbone, num_frames=config.num_frames)
    if seen.name:
        # Nothing is computed on meta, sizes are all that counts; weights of a file do not go there.
        with torch.device("meta" if seen.name.startswith("untrained:") else "cpu"):
            eyes = build_backbone(seen)
            size = eyes.framing.size
            frames = torch.zeros(1, seen.num_frames, 3, size, size)
            parts[f"backbone {Path(seen.name).name}"] = measure(eyes, frames)
        model = replace(model, feature_dim=eyes.width)
    given = [_tokens(tokens, model.feature_dim)]
    given += [_tokens(TOKENS.get(name, 16), width) for name, width in model.modalities]
    parts[f"fusion {model.fusion}"] = measure(build_fusion(model), given)
    fused = torch.zeros(1, model.hidden_dim)
    for head, count in HEADS.items():
        if model.heads == "joint" or (head == "action") == (model.heads == "action"):
            parts[f"head {head}"] = measure(torch.nn.Linear(model.hidden_dim, count), fused)
    return CostTable(parts)


def _tokens(count: int, width: int) -> Tokens:
    return Tokens(values=torch.zeros(1, count, width), valid=torch.ones(1, count, dtype=torch.bool))
