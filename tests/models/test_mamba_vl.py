import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from actioncast.layers.ssm import Discretisation
from actioncast.models.mamba_vl import MambaVL, MambaVLConfig
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target, Tokens

VERBS, NOUNS = 5, 6
PAIRS = tuple(p for i, p in enumerate(itertools.product(range(VERBS), range(NOUNS))) if i % 4)
"""Not every verb goes with every noun."""
TAXONOMY = Taxonomy(
    {
        "verb": LabelSpace(tuple(f"verb {i}" for i in range(VERBS))),
        "noun": LabelSpace(tuple(f"noun {i}" for i in range(NOUNS))),
        "action": LabelSpace(tuple(f"action {i}" for i in range(len(PAIRS)))),
    },
    "action",
    PAIRS,
)
WIDTH = 12
SMALL = MambaVLConfig(
    feature_dim=WIDTH, modalities=(("questions", WIDTH),), hidden_dim=24, state_dim=4
)


def model_of(**values: Any) -> MambaVL:
    torch.manual_seed(0)
    return replace(SMALL, **values).build(TAXONOMY)


def hidden_in_a_sequence(
    labels: Tensor, codes: Tensor, length: int, generator: torch.Generator
) -> Tokens:
    """Noise, and at a random place of each row the code of its label; rows of unlike length."""
    values = 0.3 * torch.randn(len(labels), length, WIDTH, generator=generator)
    lengths = torch.randint(3, length + 1, (len(labels),), generator=generator)
    places = (torch.rand(len(labels), generator=generator) * lengths).long()
    values[torch.arange(len(labels)), places] += codes[labels]
    return Tokens(values=values, valid=torch.arange(length) < lengths[:, None])


def halves(count: int, seed: int) -> tuple[Observation, Target]:
    """The noun stands in what is seen alone, the verb in what is asked alone."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.eye(WIDTH) * 4
    actions = torch.randint(len(PAIRS), (count,), generator=generator)
    verbs, nouns = torch.tensor(PAIRS)[actions].unbind(1)
    video = hidden_in_a_sequence(nouns, codes, 9, generator)
    text = hidden_in_a_sequence(verbs, codes.flip(0), 7, generator)
    return observe(video, {"questions": text}), Target(
        frames={}, next={"verb": verbs, "noun": nouns, "action": actions}
    )


def observe(video: Tokens, modalities: dict[str, Tokens]) -> Observation:
    return Observation(
        features=video.values,
        valid=video.valid,
        rate=1.0,
        horizon=torch.zeros(len(video.values), dtype=torch.long),
        modalities=modalities,
    )


def text_alone(x: Observation) -> Observation:
    """The questions in the place of what is seen."""
    return observe(x.modalities["questions"], {})


def learn(
    model: MambaVL, shown: Callable[[Observation], Observation] = lambda x: x, steps: int = 150
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    torch.manual_seed(1)
    for step in range(steps):
        x, y = halves(64, step)
        optimizer.zero_grad()
        torch.stack(list(model.losses(shown(x), y).values())).sum().backward()
        optimizer.step()
    model.eval()


@torch.inference_mode()
def accuracy(model: MambaVL, x: Observation, y: Target) -> dict[str, float]:
    found = model.predict(x)
    return {
        head: sum(
            int(p.next[head].argmax()) == int(label)  # type: ignore[index]
            for p, label in zip(found, labels, strict=True)
        )
        / len(found)
        for head, labels in y.next.items()
    }


@pytest.mark.parametrize("fusion", ["mamba", "s6"])
def test_halves_of_the_answer_in_two_modalities_are_put_together(fusion: str) -> None:
    """Verb only in the text, noun only in the video: no modality alone can do both."""
    x, y = halves(400, 10_000)
    model = model_of(fusion=fusion)
    learn(model)
    together = accuracy(model, x, y)
    assert min(together.values()) > 0.95, together

    blind = model_of(fusion=fusion, modalities=())
    learn(blind)
    seen = accuracy(blind, x, y)
    assert seen["noun"] > 0.95
    assert seen["verb"] < 0.45, seen

    told = model_of(fusion=fusion, modalities=())
    learn(told, text_alone)
    asked = accuracy(told, text_alone(x), y)
    assert asked["verb"] > 0.95, asked
    assert asked["noun"] < 0.45, asked


def test_a_model_that_went_without_a_modality_now_and_then_does_without_it() -> None:
    x, y = halves(400, 10_000)
    model = model_of(drop_modality=0.5)
    learn(model)
    unseen = accuracy(model, replace(x, valid=torch.zeros_like(x.valid)), y)
    assert unseen["verb"] > 0.9, unseen
    assert unseen["noun"] < 0.45, unseen


@pytest.mark.parametrize("heads", ["pairs", "action", "joint"])
def test_heads_answer_all_three_and_probabilities_agree(heads: str) -> None:
    model = model_of(heads=heads).eval()
    x, _ = halves(8, 3)
    scores = model(x)
    verbs, nouns = torch.tensor(PAIRS).unbind(1)
    expected = {
        "pairs": {"verb", "noun"},
        "action": {"action"},
        "joint": {"verb", "noun", "action"},
    }
    assert set(scores) == expected[heads]
    for i, prediction in enumerate(model.predict(x)):
        assert prediction.next is not None
        for head, probs in prediction.next.items():
            assert probs.shape == (len(TAXONOMY.heads[head]),)
            torch.testing.assert_close(probs.sum(), torch.ones(()))
        if heads == "pairs":
            verb, noun = (scores[h][i].softmax(-1) for h in ("verb", "noun"))
            products = verb[verbs] * noun[nouns]
            torch.testing.assert_close(prediction.next["action"], products / products.sum())
        if heads == "action":
            for head, of in (("verb", verbs), ("noun", nouns)):
                for label, prob in enumerate(prediction.next[head]):
                    torch.testing.assert_close(prob, prediction.next["action"][of == label].sum())


def test_a_joint_score_is_that_of_verb_and_noun_and_pair() -> None:
    model = model_of(heads="joint").eval()
    x, _ = halves(4, 3)
    scores = model(x)
    with torch.no_grad():
        model.heads["action"].weight.zero_()
        model.heads["action"].bias.zero_()
    verbs, nouns = torch.tensor(PAIRS).unbind(1)
    without = model(x)["action"]
    torch.testing.assert_close(without, scores["verb"][:, verbs] + scores["noun"][:, nouns])


def test_balance_divides_by_a_power_of_the_share_of_a_class_and_leaves_the_loss() -> None:
    plain, balanced = model_of().eval(), model_of(balance=0.7).eval()
    x, y = halves(30, 5)
    balanced.count_labels(y.next)
    for head, loss in plain.losses(x, y).items():
        assert torch.equal(loss, balanced.losses(x, y)[head])
    for one, two in zip(plain.predict(x), balanced.predict(x), strict=True):
        assert one.next is not None
        assert two.next is not None
        for head in ("verb", "noun"):
            counts = torch.bincount(y.next[head], minlength=len(TAXONOMY.heads[head])) + 1
            expected = one.next[head] / (counts / counts.sum()) ** 0.7
            torch.testing.assert_close(two.next[head], expected / expected.sum())
        verbs, nouns = torch.tensor(PAIRS).unbind(1)
        products = two.next["verb"][verbs] * two.next["noun"][nouns]
        torch.testing.assert_close(two.next["action"], products / products.sum())


def test_a_tied_head_scores_by_the_vectors_that_actions_come_in_with() -> None:
    model = model_of(tied=True, normalise=True).eval()
    x, _ = halves(4, 3)
    scores = model(x)
    fused = model.fusion(model._modalities(x))
    assert model.again is not None
    # Columns of the first projection: verbs, then nouns, as a history's tokens have them.
    vectors = model.fusion.projections[0][0].weight
    for head, columns in (("verb", slice(0, VERBS)), ("noun", slice(VERBS, VERBS + NOUNS))):
        expected = model.heads[head](fused) + model.again(fused) @ vectors[:, columns]
        torch.testing.assert_close(scores[head], expected)
    assert (model_of(normalise=True).eval()(x)["noun"] - scores["noun"]).abs().max() > 1e-3


def test_tied_heads_need_a_history_of_actions() -> None:
    with pytest.raises(ValueError, match="11 wide and more, got heads=pairs and feature_dim 10"):
        model_of(tied=True, feature_dim=10)
    with pytest.raises(ValueError, match="got heads=action"):
        model_of(tied=True, heads="action")


def test_smoothing_spreads_a_tenth_over_all_classes() -> None:
    model = model_of().eval()
    x, y = halves(9, 5)
    log_probs = model(x)["verb"].log_softmax(-1)
    picked = log_probs[torch.arange(9), y.next["verb"]]
    expected = -(0.9 * picked + 0.1 * log_probs.mean(-1)).mean()
    torch.testing.assert_close(model.losses(x, y)["verb"], expected)


def test_rows_without_a_label_count_for_none() -> None:
    model = model_of().eval()
    x, y = halves(6, 5)
    some = {head: labels.clone() for head, labels in y.next.items()}
    some["verb"][2:] = IGNORE
    losses = model.losses(x, replace(y, next=some))
    seen = Tokens(values=x.features, valid=x.valid)
    questions = {"questions": first_rows(x.modalities["questions"], 2)}
    full = model.losses(
        observe(first_rows(seen, 2), questions),
        replace(y, next={head: labels[:2] for head, labels in y.next.items()}),
    )
    torch.testing.assert_close(losses["verb"], full["verb"])
    none = dict(some, verb=torch.full_like(some["verb"], IGNORE))
    assert model.losses(x, replace(y, next=none))["verb"] == 0


def first_rows(tokens: Tokens, count: int) -> Tokens:
    return Tokens(values=tokens.values[:count], valid=tokens.valid[:count])


def test_a_modality_that_a_batch_lacks_is_one_without_tokens() -> None:
    model = model_of().eval()
    x, _ = halves(3, 4)
    questions = x.modalities["questions"]
    empty = replace(questions, valid=torch.zeros_like(questions.valid))
    without, silent = (
        model(replace(x, modalities={})),
        model(replace(x, modalities={"questions": empty})),
    )
    for head in without:
        torch.testing.assert_close(without[head], silent[head])


def test_a_dropped_modality_is_never_the_last() -> None:
    model = model_of(drop_modality=0.9).train()
    x, _ = halves(200, 4)
    given = [Tokens(values=x.features, valid=x.valid), x.modalities["questions"]]
    left = torch.stack([tokens.valid.any(1) for tokens in model._dropped(given)], 1)
    assert left.any(1).all()
    assert 0.2 < float(left.float().mean()) < 0.95
    assert not left.all()


def test_the_two_discretisations_are_two_models() -> None:
    x, _ = halves(3, 4)
    found = []
    for form in Discretisation:
        model = model_of(discretisation=form).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("dt_proj.bias"):
                    # Steps as long as training makes them; the first ones are tiny.
                    parameter.fill_(1.0)
                if name.endswith(".D"):
                    parameter.zero_()
            found.append(model.fusion(model._modalities(x)))
    assert (found[0] - found[1]).abs().max() > 0.1 * found[0].abs().max()


def test_the_heads_have_as_many_parameters_as_published_widths_give() -> None:
    heads = {"verb": 97, "noun": 300}
    spaces = {h: LabelSpace(tuple(f"{h} {i}" for i in range(n))) for h, n in heads.items()}
    model = MambaVLConfig(modalities=()).build(Taxonomy(spaces, "verb"))
    assert sum(p.numel() for p in model.heads.parameters()) == 305_293


@pytest.mark.parametrize(
    ("fusion", "count"), [("mamba", 1), ("s6", 1), ("mlp", 0), ("transformer", 0)]
)
def test_state_spaces_alone_learn_fast(fusion: str, count: int) -> None:
    """Blocks and scans with their A, not the projections before them; nothing of other fusions."""
    model = model_of(fusion=fusion)
    fast = {id(parameter) for parameter in model.fast_parameters()}
    named = {n for n, p in model.named_parameters() if id(p) in fast}
    assert all(".blocks." in n or ".scans." in n or n == "fusion.A_log" for n in named)
    assert bool(named) == bool(count)
    assert ("fusion.A_log" in named) == bool(count)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, got 0"),
        ({"fusion": "transformer", "hidden_dim": 10}, "multiple of num_heads, got 10 and 4"),
        ({"dropout": 1.0}, r"dropout must be within \[0, 1\), got 1.0"),
        ({"modalities": (("a", 3), ("a", 4))}, "names of their own, got a, a"),
        ({"fusion": "mlp", "shared": False}, "choice of fusion mamba alone, got mlp"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **values)


def test_actions_that_are_no_pairs_have_no_joint_head() -> None:
    with pytest.raises(ValueError, match="heads=joint needs actions that are pairs"):
        replace(SMALL, heads="joint").build(Taxonomy.of(["stir", "cut"]))
