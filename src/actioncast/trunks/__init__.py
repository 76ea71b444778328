"""Frozen language models: where they come from, and how tokens go through them."""

from actioncast.trunks.config import TrunkAttention, TrunkConfig, TrunkPositions
from actioncast.trunks.frozen import FrozenTrunk, load_trunk

__all__ = ["FrozenTrunk", "TrunkAttention", "TrunkConfig", "TrunkPositions", "load_trunk"]
