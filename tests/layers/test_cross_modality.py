"""The interaction block against its equations, written out (ActionLLM sheet, section 2.5)."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.cross_modality import CrossModalityBlock, gated_inner_dim, sinusoid

STREAMS = ("text", "visual", "queries")
WIDTH, HEADS, INNER = 6, 3, 10


def block(streams: tuple[str, ...] = STREAMS, **options: Any) -> CrossModalityBlock:
    torch.manual_seed(0)
    made = CrossModalityBlock(streams, WIDTH, HEADS, INNER, **options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def given_tokens(batch: int = 2, steps: int = 5) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the second video two steps are padding, one of them in the middle."""
    generator = torch.Generator().manual_seed(1)
    counts = {"text": steps, "visual": steps, "queries": 3}
    tokens = {
        s: torch.randn(batch, n, WIDTH, generator=generator, dtype=torch.float64)
        for s, n in counts.items()
    }
    valid = torch.ones(batch, steps, dtype=torch.bool)
    valid[1:, [2, 4]] = False
    known = dict.fromkeys(("text", "visual"), valid)
    return tokens, {**known, "queries": torch.ones(batch, 3, dtype=torch.bool)}


def place(position: int) -> Tensor:
    angles = [position / 10_000 ** (2 * (i // 2) / WIDTH) for i in range(WIDTH)]
    waves = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)]
    return torch.tensor(waves, dtype=torch.float64)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + 1e-6) * weight


def by_hand(made: CrossModalityBlock, tokens: Any, known: Any, row: int) -> dict[str, Tensor]:
    """One video, one token and one head after another."""
    places: dict[str, list[Tensor]] = {}
    for s in STREAMS:
        count, found = 0, []
        for there in known[s][row]:
            number = {"tokens": count, "batch": row}.get(made.positions)
            found.append(place(number) if number is not None else torch.zeros(WIDTH).double())
            count += bool(there)
        places[s] = found
    placed = {s: [t + p for t, p in zip(tokens[s][row], places[s], strict=True)] for s in STREAMS}
    asks: dict[str, Any] = {}
    for s in STREAMS:
        layer, scale = made.projections[s], made.attention_norms[s].weight
        whole = [layer.weight @ norm(t, scale) + layer.bias for t in placed[s]]
        asks[s] = [w.split(WIDTH) for w in whole]
    answer: dict[str, Tensor] = {}
    size = WIDTH // HEADS
    for s in STREAMS:
        sources = {
            "both": STREAMS,
            "self": (s,),
            "cross": tuple(other for other in STREAMS if other != s),
        }[made.interaction]
        rows = []
        for i, token in enumerate(tokens[s][row]):
            heard = torch.zeros(WIDTH, dtype=torch.float64)
            for source in sources:
                there = [j for j, t in enumerate(known[source][row]) if t]
                for head in range(HEADS):
                    part = slice(head * size, (head + 1) * size)
                    query = asks[s][i][0][part]
                    scores = torch.stack([query @ asks[source][j][1][part] for j in there])
                    shares = (scores / math.sqrt(size)).softmax(0)
                    values = torch.stack([asks[source][j][2][part] for j in there])
                    heard[part] += shares @ values
            if made.fusion == "mean":
                heard = heard / len(sources)
            out = made.outputs[s]
            base = placed[s][i] if made.residual_positions else token
            state = out.weight @ heard + out.bias + base
            z, layers = norm(state, made.norms[s].weight), made.feedforward[s]
            gate = F.silu(layers.gate.weight @ z) * (layers.expand.weight @ z)
            rows.append(layers.contract.weight @ gate + state)
        answer[s] = torch.stack(rows)
    return answer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interaction": "self"},
        {"interaction": "cross"},
        {"fusion": "sum"},
        {"interaction": "cross", "fusion": "sum"},
        {"residual_positions": False},
        {"positions": "batch"},
        {"positions": "none"},
    ],
)
def test_it_computes_its_equations(options: dict[str, Any]) -> None:
    made = block(**options)
    tokens, known = given_tokens()
    with torch.no_grad():
        found = made(tokens, known)
        for row in range(2):
            wanted = by_hand(made, tokens, known, row)
            for s in STREAMS:
                there = known[s][row]
                # Positions are computed in float32.
                torch.testing.assert_close(
                    found[s][row, there], wanted[s][there], atol=1e-5, rtol=0
                )


@pytest.mark.parametrize("interaction", ["both", "self", "cross"])
def test_padding_is_never_looked_at(interaction: Any) -> None:
    made = block(interaction=interaction)
    tokens, known = given_tokens()
    spoilt = {s: v.masked_fill(~known[s][..., None], 50.0) for s, v in tokens.items()}
    with torch.no_grad():
        found, other = made(tokens, known), made(spoilt, known)
    for s in STREAMS:
        assert torch.equal(found[s][known[s]], other[s][known[s]])


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.permutations(range(4)))
def test_an_order_of_the_batch_is_an_order_of_the_answers(batch: int, order: list[int]) -> None:
    made = block()
    tokens, known = given_tokens(4)
    rows = [i for i in order if i < batch]
    with torch.no_grad():
        whole = made(tokens, known)
        some = made({s: v[rows] for s, v in tokens.items()}, {s: v[rows] for s, v in known.items()})
    for s in STREAMS:
        there = known[s][rows]
        torch.testing.assert_close(some[s][there], whole[s][rows][there], atol=1e-9, rtol=0)


def test_dropout_acts_on_weights_and_on_what_is_said_in_training_alone() -> None:
    made = block(dropout=0.5)
    tokens, known = given_tokens()
    assert torch.equal(made(tokens, known)["text"], made(tokens, known)["text"])
    heard = list[Tensor]()
    made.outputs["text"].register_forward_hook(lambda *got: heard.append(got[2]))
    made.train()
    said = [made(tokens, known)["text"] for _ in range(2)]
    assert not torch.equal(*said)
    assert not torch.equal(*heard), "weights of attention must drop out"
    calm = block(dropout=0.0).train()
    assert torch.equal(calm(tokens, known)["text"], calm(tokens, known)["text"])


def test_two_streams_are_enough() -> None:
    made = block(("visual", "queries"))
    tokens, known = given_tokens()
    del tokens["text"], known["text"]
    assert made(tokens, known).keys() == tokens.keys()


def test_sinusoids_by_hand() -> None:
    """Wave lengths of 2 pi, and of 2 pi times 10,000 to the power of two thirds."""
    rows = sinusoid(torch.tensor([0, 1, 7]), WIDTH)
    assert rows[0].tolist() == [0, 1, 0, 1, 0, 1]
    torch.testing.assert_close(rows, torch.stack([place(p) for p in (0, 1, 7)]).float())
    assert rows[2, 4] == pytest.approx(math.sin(7 / 10_000 ** (2 / 3)), abs=1e-7)
    assert sinusoid(torch.tensor([[3]]), 5).shape == (1, 1, 5)


@pytest.mark.parametrize(
    ("width", "multiple", "inner"),
    [(64, 256, 256), (128, 256, 512), (256, 256, 768), (16, 16, 48), (4096, 256, 11_008)],
)
def test_inner_widths_are_those_of_llama(width: int, multiple: int, inner: int) -> None:
    assert gated_inner_dim(width, multiple) == inner
