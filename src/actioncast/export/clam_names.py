"""How inputs and outputs of CLAM's graphs are called: a kind, then a tensor's or a head's name."""

FRAME = "frame"
"""`[1, feature]`, an input of `advance`."""
STATE = "state "
"""A tensor of the state, an input of both graphs."""
AFTER = "after "
"""The same tensor after the frame, an output of `advance`."""
PAST = "past "
"""Probabilities `[1, label]` of what is under way, an output of `advance`."""
FUTURE = "future "
"""Probabilities `[query, label]` of what comes, an output of `answer`."""


def is_answered_from(name: str) -> bool:
    """Whether an answer rests on a tensor of the state: on all but the processor's own."""
    return not name.startswith("processor")
