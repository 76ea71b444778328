from typing import Any

import pytest
import torch
from torch.nn import functional as F

from actioncast.layers.action_tuning import ActionTuning


def awake(width: int = 8, hidden: int = 4, groups: int = 2, **options: Any) -> ActionTuning:
    torch.manual_seed(0)
    made = ActionTuning(width, hidden, groups, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize(
    ("width", "hidden", "groups"), [(8, 4, 2), (8, 2, 2), (6, 6, 3), (5, 3, 1), (8, 8, 4)]
)
def test_it_computes_its_closed_form(width: int, hidden: int, groups: int) -> None:
    """With a loop over groups, and as the convolution of the released code."""
    made = awake(width, hidden, groups)
    z = torch.randn(2, 5, width)
    units = z @ made.down.weight.T + made.down.bias
    stretch, each = width // groups, hidden // groups
    parts = [
        units[..., g * each : (g + 1) * each] @ made.up[g * stretch : (g + 1) * stretch].T
        for g in range(groups)
    ]
    wanted = z + torch.cat(parts, -1) + made.up_bias
    torch.testing.assert_close(made(z), wanted)
    channels = units.transpose(1, 2)
    convolved = F.conv1d(channels, made.up[..., None], made.up_bias, groups=groups)
    torch.testing.assert_close(made(z), z + convolved.transpose(1, 2))


def test_it_begins_as_the_identity_in_training_too() -> None:
    torch.manual_seed(0)
    made = ActionTuning(8).train()
    z = torch.randn(2, 3, 8)
    assert torch.equal(made(z), z)
    bound = (6 / (8 + 4)) ** 0.5
    assert 0.5 * bound < made.down.weight.abs().max() <= bound
    assert not made.down.bias.any()


def test_the_first_step_moves_what_leads_out_the_second_what_leads_in() -> None:
    torch.manual_seed(0)
    made = ActionTuning(8, dropout=0.0)
    z, wanted = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    reached = []
    for _ in range(2):
        optimizer.zero_grad()
        F.mse_loss(made(z), wanted).backward()
        reached.append({n for n, p in made.named_parameters() if p.grad.any()})
        optimizer.step()
    assert reached == [{"up", "up_bias"}, {"up", "up_bias", "down.weight", "down.bias"}]


def test_hidden_units_drop_out_in_training_alone() -> None:
    made = awake(dropout=0.5)
    z = torch.randn(1, 400, 8)
    assert torch.equal(made(z), made(z))
    made.train()
    raised = made(z) - z - made.up_bias
    # Of the first stretch both units are dropped in a quarter of the tokens.
    silent = (raised[..., :4].abs() < 1e-5).all(-1).float().mean()
    assert float(silent) == pytest.approx(0.25, abs=0.07)
    whole = (made.eval()(z) - z - made.up_bias).mean()
    assert (raised.mean() - whole).abs().item() < 0.3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_computes_in_the_type_of_the_trunk_and_learns_in_its_own(dtype: torch.dtype) -> None:
    made = awake()
    z = torch.randn(2, 3, 8)
    short = made(z.to(dtype))
    assert short.dtype == dtype
    torch.testing.assert_close(short.float(), made(z), atol=0.15, rtol=0.05)
    short.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in made.parameters())


def test_unused_parameters_count_and_do_nothing() -> None:
    plain, carrying = awake(), awake(unused_parameters=True)
    carrying.load_state_dict({**carrying.state_dict(), **plain.state_dict()})
    z = torch.randn(2, 3, 8)
    assert torch.equal(plain(z), carrying(z))
    count, more = (sum(p.numel() for p in m.parameters()) for m in (plain, carrying))
    assert count == 8 * 4 + 4 + 8 * 2 + 8
    assert more - count == (8 * 2 + 8) + (8 * 2 + 2)
    carrying(z).sum().backward()
    dead = {n for n, p in carrying.named_parameters() if p.grad is None}
    assert dead == {"unused_up", "unused_up_bias", "unused_router.weight", "unused_router.bias"}
