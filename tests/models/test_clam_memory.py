"""A cue seen 22 s ago decides what comes, one before it does not: what a memory must forget."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from actioncast.layers.cross_memory import CrossLinearAttention, Written
from actioncast.models.clam import CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Target

CUES, OTHERS, WIDTH, TIME, RATE = 8, 8, 24, 128, 4.0
FIRST, SECOND = (0, 16), (20, 40)
"""Steps between which the cues lie; the second ends 22 s before the end of the 32 s seen."""
TAXONOMY = Taxonomy.of([f"cue {i}" for i in range(CUES)] + [f"other {i}" for i in range(OTHERS)])


def streams(count: int, drawn: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy features of streams, the action at each step, and the one to come.

    Two of eight cues, a second each, lie in the first ten; actions of other names, 2 s each and
    drawn at random, fill the rest. The second cue comes again 1 s after the end.
    """
    looks = torch.randn(CUES + OTHERS, WIDTH, generator=torch.Generator().manual_seed(0))
    shape = (count, TIME // 8)
    labels = torch.randint(CUES, CUES + OTHERS, shape, generator=drawn).repeat_interleave(8, 1)
    cue = torch.randint(CUES, (count,), generator=drawn)
    other = (cue + torch.randint(1, CUES, (count,), generator=drawn)) % CUES
    for shown, (begin, end) in ((other, FIRST), (cue, SECOND)):
        start = torch.randint(begin, end - 3, (count, 1), generator=drawn)
        labels.scatter_(1, start + torch.arange(4), shown[:, None].expand(-1, 4))
    features = looks[labels] + 0.5 * torch.randn(count, TIME, WIDTH, generator=drawn)
    return features, labels, cue


def observed(features: Tensor) -> Observation:
    valid = torch.ones(features.shape[:2], dtype=torch.bool)
    horizon = torch.zeros(len(features), dtype=torch.long)
    return Observation(
        features=features, valid=valid, rate=RATE, horizon=horizon, anticipation_time=1.0
    )


def trained(memory_queries: int, steps: int = 400) -> CLAM:
    torch.manual_seed(0)
    model = ClamConfig(
        feature_dim=WIDTH,
        hidden_dim=32,
        num_layers=2,
        state_dim=8,
        num_heads=4,
        gate_rank=8,
        # Half of what is written is left after 32 s, before anything is learned.
        gate_temperature=128.0,
        memory_queries=memory_queries,
        predictor_layers=1,
        predictor_dim=64,
        background_output=False,
        dropout=0.0,
        head_dropout=0.0,
        mixup=0.0,
        label_smoothing=0.0,
        equalise_below=0.0,
    ).build(TAXONOMY)
    drawn = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(steps):
        features, labels, cue = streams(32, drawn)
        losses = model.losses(
            observed(features), Target(frames={"action": labels}, next={"action": cue})
        )
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 30) * (1 - step / steps)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: CLAM) -> float:
    """Share of unseen streams whose next action is the most likely one, in percent."""
    features, _, cue = streams(500, torch.Generator().manual_seed(99))
    said = [one.next for one in model.predict(observed(features))]
    found = torch.stack([probs["action"] for probs in said if probs is not None]).argmax(1)
    return 100 * (found == cue).float().mean().item()


@pytest.mark.slow
def test_the_last_cue_decides_with_a_memory_that_forgets_and_not_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned, without = accuracy(trained(10)), accuracy(trained(0))
    writes = CrossLinearAttention.write

    def write(self: CrossLinearAttention, x: Tensor) -> Written:
        written = writes(self, x)
        return replace(written, log_gate=torch.zeros_like(written.log_gate))

    monkeypatch.setattr(CrossLinearAttention, "write", write)
    adding = accuracy(trained(10))
    print(f"gates {learned:.1f} %, all open {adding:.1f} %, no memory {without:.1f} %")
    assert learned > 60
    # A sum of all that was seen knows both cues and not their order: one in two.
    assert 40 < adding < 56
    assert learned > adding + 10
    # One in eight by chance; the processor alone learns no more in as many steps.
    assert without == pytest.approx(12.5, abs=8)
