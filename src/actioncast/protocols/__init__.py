"""Every protocol, by name. To add one: write its file, add a line here."""

from collections.abc import Mapping

from actioncast.protocols.base import Question
from actioncast.protocols.long_term import HorizonSource, LongTerm
from actioncast.protocols.online import Online
from actioncast.protocols.segmentation import Segmentation

VideoProtocol = Segmentation | LongTerm | Online
"""Any protocol of whole videos."""

PROTOCOLS: Mapping[str, type[VideoProtocol]] = {
    "segmentation": Segmentation,
    "long_term": LongTerm,
    "online": Online,
}

__all__ = [
    "PROTOCOLS",
    "HorizonSource",
    "LongTerm",
    "Online",
    "Question",
    "Segmentation",
    "VideoProtocol",
]
