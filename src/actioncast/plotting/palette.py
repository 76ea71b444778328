"""Colours of actions: one for each label, paler where less probable, and a readable ink on it."""

from actioncast.timeline import LabelSpace

# Chosen one after the other in OKLab, each the farthest from those before it, from white, from
# black and from the grey below, as seen with and without deuteranopia.
PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f"),
    *("#7e0360", "#245c07", "#fea8f6", "#2838a1", "#4ffab5", "#8593fd", "#7c41ae", "#af2f02"),
    *("#704c57", "#b43875", "#4fce74", "#d07ee9", "#e5aea9", "#9fbdfc", "#a5e6e2", "#15a0ce"),
    *("#19607b", "#527446", "#af972c", "#6e68da", "#279289", "#59317c", "#04dacb", "#e78290"),
    *("#755002", "#aad388", "#cb6701", "#827f00", "#a25cc8", "#1c65c8", "#941b3b", "#745d8e"),
    *("#c7a1d2", "#2b5042", "#adee72", "#2b8a31", "#819374", "#2288e8", "#485094", "#c6916f"),
)
GREY = "#c4c8cd"
BACKGROUND_NAMES = frozenset({"background", "bg", "sil", "none", "action_start", "action_end"})
"""Names, in lower case, that are grey although their label space does not call them background."""
FAINTEST = 0.35
"""Opacity of an action of probability 0: it must still be seen."""


def colours(labels: LabelSpace) -> tuple[str, ...]:
    """The colour of every label; background is grey, and after 48 labels colours come again."""
    grey = {name for name in labels.names if name.lower() in BACKGROUND_NAMES} | labels.background
    return tuple(
        GREY if name in grey else PALETTE[i % len(PALETTE)] for i, name in enumerate(labels.names)
    )


def opacity(score: float) -> float:
    """How opaque an action of this probability is."""
    return FAINTEST + (1 - FAINTEST) * min(1.0, max(0.0, score))


def blend(colour: str, opacity: float, ground: str = "#ffffff") -> str:
    """The opaque colour that looks like this one on the ground."""
    mixed = (
        round(a * opacity + b * (1 - opacity))
        for a, b in zip(_channels(colour), _channels(ground), strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def ink_on(ground: str) -> str:
    """Black or white, whichever reads better on the colour (WCAG contrast)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in _channels(ground))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.2 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
