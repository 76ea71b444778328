"""From what queries say, one action and one duration each, to one answer a frame.

Long-term anticipators tell the future as a few queries in order. Each names an action and a raw
duration (the logarithm of an unnormalised one); the first query that names the *end* closes the
list. Here the list is laid over the frames of a horizon.
"""

from typing import Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Fill = Literal["last_action", "last_query"]
"""Who takes the frames that rounding leaves over: the last action before the end, or, as released
code has it, the last query of all, which usually names the end and so no action."""

EndFirst = Literal["first_action", "last_query", "nothing"]
"""Who takes the whole horizon when the very first query names the end: its own most likely action,
the last query (released FUTR), or nobody (released ActionLLM)."""

NO_QUERY = -1
"""Where a frame is named by no query; also the index of a row of zeros put last."""


def before_end(labels: Int[Tensor, "*sample query"], end: int) -> Bool[Tensor, "*sample query"]:
    """Which queries come before the first that names the end; all, if none does."""
    return (labels == end).cumsum(-1) == 0


def duration_shares(
    durations: Float[Tensor, "*sample query"], counted: Bool[Tensor, "*sample query"]
) -> Float[Tensor, "*sample query"]:
    """Exponentials of raw durations, divided by their sum over the counted queries; else 0."""
    if not durations.shape[-1]:
        return durations.float()
    # Finite, not -inf: a row in which nothing counts must not become NaN.
    raw = durations.float().masked_fill(~counted, torch.finfo(torch.float32).min)
    # Shifted only where exp would leave float32: the released code does not shift, and the last bit
    # decides a tie in rounding.
    longest = raw.detach().amax(-1, keepdim=True)
    shift = longest - longest.clamp(-20.0, 80.0)
    return F.normalize((raw - shift).exp() * counted, p=1.0, dim=-1)


def lay_out(
    labels: Int[Tensor, "*sample query"],
    durations: Float[Tensor, "*sample query"],
    horizon: int,
    *,
    end: int,
    fill: Fill,
    end_first: EndFirst,
    end_takes_time: bool = False,
) -> Int[Tensor, "*sample horizon"]:
    """Find the query that names each frame of the horizon; `NO_QUERY` where none does.

    Every query before the end takes its share of the horizon, rounded half up in float32, and the
    next one starts where it stops. What would run over the horizon is cut.

    Args:
        labels: the label that each query names.
        durations: raw durations.
        horizon: frames to lay the queries over.
        end: the label that closes the list.
        fill: who takes the frames that rounding leaves over.
        end_first: who takes all frames when nothing comes before the end.
        end_takes_time: whether the query that names the end has a share as well; no action is
            named in the frames of that share.
    """
    names_end = labels == end
    actions = before_end(labels, end)
    timed = actions
    if end_takes_time:
        timed = actions | (names_end & (names_end.cumsum(-1) == 1))
    lengths = (0.5 + horizon * duration_shares(durations, timed)).floor().long()

    num_actions, final = actions.sum(-1, keepdim=True), labels.shape[-1] - 1
    filler = num_actions - 1 if fill == "last_action" else torch.full_like(num_actions, final)
    alone = final if end_first == "last_query" else 0
    residue = (horizon - lengths.sum(-1, keepdim=True)).clamp(min=0)
    filled = lengths.scatter_add(-1, torch.where(num_actions > 0, filler, alone), residue)

    frames = torch.arange(horizon, device=labels.device).expand(*labels.shape[:-1], horizon)
    queries = torch.searchsorted(filled.cumsum(-1), frames.contiguous(), right=True)

    silent = names_end
    if end_first == "first_action":
        silent = torch.cat([torch.zeros_like(names_end[..., :1]), names_end[..., 1:]], -1)
    return queries.masked_fill(silent.gather(-1, queries), NO_QUERY)


def hold_frames(
    probs: Float[Tensor, "time label"], stride: int, num_frames: int, first: int = 0
) -> Float[Tensor, "frame label"]:
    """Repeat every step for `stride` frames; the last is held as long as frames are left.

    Args:
        probs: an answer for each step.
        stride: frames between steps.
        num_frames: frames to fill.
        first: the frame of the first step, which frames before it share.
    """
    return probs[held_steps(len(probs), stride, num_frames, first).to(probs.device)]


def held_steps(
    num_steps: int, stride: int, num_frames: int, first: int = 0
) -> Int[Tensor, " frame"]:
    """The step that answers for each frame, held as `hold_frames` says."""
    if stride < 1:
        raise ValueError(f"stride must be at least 1 frame, got {stride}.")
    if num_frames and not num_steps:
        raise ValueError(f"holding {num_frames} frames needs at least one step, got none.")
    steps = (torch.arange(num_frames) - first).div(stride, rounding_mode="floor")
    return steps.clamp(min=0, max=max(num_steps - 1, 0))


def named_frames(
    probs: Float[Tensor, "query label"], queries: Int[Tensor, " horizon"]
) -> Float[Tensor, "horizon label"]:
    """The probabilities of the query that names each frame; zeros where none does."""
    nothing = repeat(probs.new_zeros(()), "-> 1 label", label=probs.shape[1])
    return torch.cat([probs, nothing])[queries]
