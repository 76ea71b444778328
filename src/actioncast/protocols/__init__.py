"""Every protocol, by name. To add one: write its file, add a line here."""

from collections.abc import Mapping

from actioncast.protocols.base import Question
from actioncast.protocols.long_term import HorizonSource, LongTerm
from actioncast.protocols.segmentation import Segmentation

PROTOCOLS: Mapping[str, type[Segmentation] | type[LongTerm]] = {
    "segmentation": Segmentation,
    "long_term": LongTerm,
}

__all__ = ["PROTOCOLS", "HorizonSource", "LongTerm", "Question", "Segmentation"]
