"""m&m-Ant by its options: who is described how, company and padding, what is learned and refused.

Labels stand at three levels of which the middle one is predicted, so that no two of them agree by
accident.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.checkpoint import load_checkpoint, save_checkpoint
from actioncast.layers.gated_objective import consistency_share
from actioncast.layers.temporal_consistency import temporal_consistency
from actioncast.models import mm_ant
from actioncast.models.futr import FUTRConfig
from actioncast.models.mm_ant import Answers, MMAnt, MMAntConfig, described_head
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import IGNORE, Observation, Target, Tokens

WIDTH, TEXT, QUERIES = 6, 8, 8
PARENTS = {"phase": (0, 0, 0, 1, 1, 1, 1), "activity": (0, 1, 1, 2, 2, 3, 4)}
TAXONOMY = Taxonomy(
    {
        "phase": LabelSpace(("prepare", "serve")),
        "activity": LabelSpace(("peel", "cut", "cook", "plate", "clean")),
        "action": LabelSpace(tuple(f"step_{i}" for i in range(7))),
    },
    "activity",
    levels=("phase", "activity", "action"),
    parents=PARENTS,
)
END = len(TAXONOMY.labels)
TINY = MMAntConfig(
    feature_dim=WIDTH,
    hidden_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    feedforward_factor=2,
    max_positions=24,
    encoder=f"hash:{TEXT}",
)
NEAR = {"atol": 2e-6, "rtol": 0.0}

TEXTS = ("learned", "given", "captions", "none")
VECTORS = ("names", "table", "states")
FUSIONS = ("concatenation", "decoder")
MODES = ("learned", "pooled_text", "pooled_answers", "text")
OTHERS: dict[str, tuple[Any, ...]] = {
    "described": ("fine", "coarse", "predicted"),
    "text_positions": ("sinusoid", "shared", "none"),
    "generator": ("layer", "attention"),
    "generator_reads": ("tokens", "segmentation"),
    "generator_hears_actions": (True, False),
    "token_positions": ("none", "sinusoid"),
    "past_names_end": (False, True),
    "text_scale": ("unit", "as_is"),
    "num_anticipation_layers": (1, 2),
    "end_takes_time": (False, True),
}
"""Options that go with all others, each with its values."""


def fits(text: str, vectors: str, fusion: str, mode: str) -> bool:
    """Whether these four belong together."""
    if vectors == "states" and text in ("given", "captions"):
        return False
    if mode in ("pooled_answers", "text") and fusion == "concatenation":
        return False
    return not (text != "none" and mode == "learned" and fusion == "decoder")


def ways() -> Iterator[dict[str, Any]]:
    """Every way to describe and to ask once, and all other options in turn beside them."""
    drawn = np.random.default_rng(0)
    turns = {name: cycle(drawn.permutation(len(values))) for name, values in OTHERS.items()}
    for text, vectors, fusion, mode in product(TEXTS, VECTORS, FUSIONS, MODES):
        # Without names to embed the vectors are nobody's, without a text the queries are learned.
        idle = (text in ("captions", "none") and vectors != "names") or (
            text == "none" and mode != "learned"
        )
        if not idle and fits(text, vectors, fusion, mode):
            options = {name: OTHERS[name][next(turn)] for name, turn in turns.items()}
            yield options | {
                "text": text,
                "text_vectors": vectors,
                "fusion": fusion,
                "query_mode": mode,
            }
    # Each value of the others once with the defaults.
    for name, values in OTHERS.items():
        yield from ({name: value} for value in values[1:])


WAYS = [*ways()]
each_way = pytest.mark.parametrize(
    "options", WAYS, ids=["-".join(str(v) for v in way.values()) for way in WAYS]
)


def tiny(*, taxonomy: Taxonomy = TAXONOMY, seed: int = 0, **options: Any) -> MMAnt:
    torch.manual_seed(seed)
    if options.get("text") == "captions":
        options = {"text_dim": TEXT, **options}
    model = replace(TINY, **options).build(taxonomy).eval()
    with torch.no_grad():
        # Initially far smaller than all else: nothing would show that they were wrong.
        model.positions.normal_(std=0.3)
    return model


def observation(
    lengths: tuple[int, ...] = (9, 5, 7), counts: tuple[int, ...] = (4, 1, 2), **fields: Any
) -> Observation:
    """Seen, named by somebody but for two steps, and described by captions."""
    drawn = torch.Generator().manual_seed(1)
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    finest = torch.randint(7, valid.shape, generator=drawn)
    finest[0, 2] = finest[-1, 0] = IGNORE
    captions = torch.randn(len(lengths), max(counts), TEXT, generator=drawn)
    said = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    features = torch.randn(*valid.shape, WIDTH, generator=drawn)
    known: dict[str, Any] = {
        "features": features * valid[..., None],
        "valid": valid,
        "rate": 15.0,
        "horizon": torch.tensor((20, 13, 17)[: len(lengths)]),
        "finest": finest.masked_fill(~valid, IGNORE),
        "labels": above("activity", finest).masked_fill(~valid, IGNORE),
        "modalities": {"captions": Tokens(values=captions * said[..., None], valid=said)},
    }
    return Observation(**known | fields)


def above(level: str, finest: Tensor) -> Tensor:
    named = torch.tensor(PARENTS[level])[finest.clamp(min=0)]
    return named.masked_fill(finest == IGNORE, IGNORE)


def target(**fields: Any) -> Target:
    """Truth of `observation()`, in runs; nobody knows the last step of the first two videos."""
    rows = ([0, 0, 3, 3, 3, 6, 6, 1, IGNORE], [5, 5, 5, 2, IGNORE], [4, 4, 1, 1, 1, 1, 1])
    finest = torch.full((3, 9), IGNORE)
    for i, row in enumerate(rows):
        finest[i, : len(row)] = torch.tensor(row)
    nan = math.nan
    known: dict[str, Any] = {
        "frames": {
            "action": finest,
            "activity": above("activity", finest),
            "phase": above("phase", finest),
        },
        "next": {},
        "future": torch.tensor([[1, 2, END, IGNORE], [4, END, IGNORE, IGNORE], [1, 0, 3, END]]),
        "durations": torch.tensor(
            [[0.25, 0.75, nan, nan], [1.0, nan, nan, nan], [0.5, 0.2, 0.3, nan]]
        ),
    }
    return Target(**(known | fields))


def told(model: MMAnt, x: Observation) -> Answers:
    with torch.no_grad():
        return model(x.features, x.valid, model._said(x))


def rows(answers: Answers, i: int, valid: Tensor) -> dict[str, Tensor]:
    """What was said of one video, without its padding."""
    queries = answers.queries[i]
    found = {
        "past": answers.past[i, valid],
        "future": answers.future[i, queries],
        "durations": answers.durations[i, queries],
    }
    if answers.described is not None:
        found["described"] = answers.described[i, valid]
    return found


def near(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], **NEAR, msg=lambda s, n=name: f"{n}: {s}")


def picked(x: Observation, order: list[int]) -> Observation:
    """Some of the videos, in this order, with the padding that they had."""
    tokens = x.modalities["captions"]
    return replace(
        x,
        **{name: getattr(x, name)[order] for name in ("features", "valid", "horizon", "labels")},
        finest=x.finest[order],
        modalities={"captions": Tokens(values=tokens.values[order], valid=tokens.valid[order])},
    )


# Company and padding, in every way to describe and to ask


@each_way
def test_an_answer_is_its_own_videos(options: dict[str, Any]) -> None:
    model, x = tiny(**options), observation()
    together = told(model, x)
    for i, alone in enumerate(x):
        near(rows(together, i, x.valid[i]), rows(told(model, alone), 0, alone.valid[0]))
    order = [2, 0, 1]
    turned = told(model, picked(x, order))
    for place, i in enumerate(order):
        near(rows(turned, place, x.valid[i]), rows(together, i, x.valid[i]))


@each_way
def test_what_is_not_valid_has_no_say(options: dict[str, Any]) -> None:
    """Padding, holes within what is seen, and captions that are none."""
    x = observation(counts=(4, 3, 2))
    valid, said = x.valid.clone(), x.modalities["captions"]
    valid[0, 3] = valid[2, 0] = valid[1, 4] = False
    heard = said.valid.clone()
    heard[0, 1] = heard[1, 0] = False
    x = replace(x, valid=valid, modalities={"captions": replace(said, valid=heard)})
    loud = Tokens(values=torch.where(heard[..., None], said.values, 1e3), valid=heard)
    other = replace(
        x,
        features=torch.where(valid[..., None], x.features, torch.tensor(1e3)),
        labels=torch.where(valid, x.labels, 3),
        finest=torch.where(valid, x.finest, 6),
        modalities={"captions": loud},
    )
    model = tiny(**options)
    ours, theirs = told(model, x), told(model, other)
    for i in range(len(x)):
        near(rows(ours, i, valid[i]), rows(theirs, i, valid[i]))
    # And what is valid has one.
    moved = told(model, replace(x, features=x.features + 0.5))
    assert not torch.allclose(moved.past[valid], ours.past[valid], atol=1e-3)


@each_way
def test_eight_queries_answer_unless_every_text_token_is_one(options: dict[str, Any]) -> None:
    model, x = tiny(**options), observation()
    found = told(model, x)
    config = model.config
    wanted = [QUERIES] * 3
    if config.text != "none" and config.query_mode == "text":
        counts = {"captions": [4, 1, 2], "given": (x.finest != IGNORE).sum(1).tolist()}
        wanted = counts.get(config.text, [9, 5, 7])
    assert found.queries.sum(1).tolist() == wanted
    assert found.future.shape[2] == END + 1
    assert found.past.shape[2] == END + config.past_names_end
    for prediction, horizon, steps in zip(model.predict(x), (20, 13, 17), (9, 5, 7), strict=True):
        assert prediction.past is not None
        assert prediction.past.shape == (steps, END)
        assert prediction.future is not None
        assert prediction.future.shape == (horizon, END)
        head = described_head(config, TAXONOMY)
        speaks = config.text == "learned" and head != "activity"
        assert list(prediction.levels) == ([head] if speaks else [])
        for probs in (prediction.past, *prediction.levels.values()):
            torch.testing.assert_close(probs.sum(-1), torch.ones(steps))


@each_way
def test_gradients_reach_every_parameter_and_are_finite(options: dict[str, Any]) -> None:
    model = tiny(**options).train()
    torch.manual_seed(3)
    sum(model.losses(observation(), target()).values()).backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # Shares do not change when all raw durations grow alike.
    assert still <= {"duration_head.bias"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("text", "vectors"), [*product(TEXTS, VECTORS)])
def test_options_that_exclude_each_other_are_refused_with_a_sentence(
    text: str, vectors: str
) -> None:
    for fusion, mode in product(FUSIONS, MODES):
        options = {"text": text, "text_vectors": vectors, "fusion": fusion, "query_mode": mode}
        if fits(text, vectors, fusion, mode):
            replace(TINY, **options)
            continue
        with pytest.raises(ValueError, match=r"(must|asks).*, got .*take ") as error:
            replace(TINY, **options)
        assert str(error.value).endswith(".")


# Text that is there, and that is not


def without(x: Observation, row: int) -> Observation:
    """The same with nothing said of one video."""
    said = x.modalities["captions"]
    heard, finest = said.valid.clone(), x.finest.clone()
    heard[row], finest[row] = False, IGNORE
    return replace(x, finest=finest, modalities={"captions": replace(said, valid=heard)})


@pytest.mark.parametrize("text", ["captions", "given"])
def test_with_text_dropped_it_is_the_unimodal_model(text: str) -> None:
    model, alone = tiny(text=text), tiny(text="none", seed=1)
    missing = alone.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys
    assert set(missing.unexpected_keys) <= {"project.weight", "project.bias", "label_vectors"}
    x = observation()
    silent = told(model, without(x, 1))
    near(rows(silent, 1, x.valid[1]), rows(told(alone, x), 1, x.valid[1]))
    spoken = told(model, x)
    assert not torch.allclose(spoken.future[1], silent.future[1], atol=1e-3)
    assert spoken.past.equal(silent.past)
    near(rows(silent, 0, x.valid[0]), rows(spoken, 0, x.valid[0]))


def test_text_that_nobody_says_at_all_is_like_text_of_no_token() -> None:
    model, x = tiny(text="captions"), observation()
    silent = without(without(without(x, 0), 1), 2)
    with torch.no_grad():
        nobody = model(x.features, x.valid, None)
    for i in range(3):
        near(rows(told(model, silent), i, x.valid[i]), rows(nobody, i, x.valid[i]))


@pytest.mark.parametrize("mode", ["pooled_text", "pooled_answers", "text"])
@pytest.mark.parametrize("text", ["captions", "given"])
def test_a_decoder_that_nobody_tells_anything_stays_finite(text: str, mode: str) -> None:
    model, x = tiny(text=text, fusion="decoder", query_mode=mode), without(observation(), 1)
    found = told(model, x)
    assert found.queries[1].sum() == (0 if mode == "text" else QUERIES)
    model.train()
    terms = model.losses(x, target())
    sum(terms.values()).backward()
    for value in (found.past, found.future, found.durations, *terms.values()):
        assert value.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if mode == "text":
        # Nobody asks, so nothing is answered, and no answer is counted as wrong.
        [_, silent, _] = model.eval().predict(x)
        assert silent.future is not None
        assert not silent.future.any()


def test_only_the_released_generator_changes_an_answer_with_its_company() -> None:
    x = observation((7, 7, 7))
    for scope in ("video", "batch"):
        model = tiny(generator="attention", generator_scope=scope)
        both, alone = told(model, x), told(model, picked(x, [1]))
        moved = (both.described[1] - alone.described[0]).abs().max()
        assert (moved > 1e-2) == (scope == "batch")
        torch.testing.assert_close(both.past[1], alone.past[0], **NEAR)
        # Its evaluation shows one video at a time.
        together = model.predict(x)
        for one, prediction in zip(x, together, strict=True):
            [single] = model.predict(one)
            torch.testing.assert_close(single.future, prediction.future, **NEAR)
            torch.testing.assert_close(single.levels["action"], prediction.levels["action"], **NEAR)


def test_a_batch_in_which_nobody_has_been_told_anything_can_be_learned_from() -> None:
    model = tiny(text="captions", fusion="decoder", query_mode="text")
    x = observation(counts=(0, 0, 0))
    terms = model.train().losses(x, target())
    sum(terms.values()).backward()
    assert (terms["future"], terms["duration"]) == (0, 0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_generator_sees_the_other_steps_of_its_video() -> None:
    model, x = tiny(), observation((7,), (2,))
    features = x.features.clone()
    features[0, 6] += 1.0
    moved = told(model, replace(x, features=features)).described - told(model, x).described
    assert (moved.abs().amax(-1) > 1e-5).all()


def test_a_generator_knows_the_places_of_steps() -> None:
    """Without places its states of two steps that change places would change places too."""
    model, x = tiny(generator_hears_actions=False), observation((7,), (2,))
    assert model.generator is not None
    tokens = torch.randn(1, 7, model.config.hidden_dim)
    swapped = tokens[:, [1, 0, *range(2, 7)]]
    with torch.no_grad():
        states = [
            model.generator(one, told(model, x).past, x.valid)[0] for one in (tokens, swapped)
        ]
    assert (states[1][:, [1, 0]] - states[0][:, :2]).abs().max() > 1e-3


def test_the_answers_read_a_segmentation_stream_that_knows_its_places() -> None:
    """Of what is read last (`k = v = V + P`) the places alone can tell steps apart here."""
    model, x = tiny(text="none"), observation((7,), (2,))
    seen: list[Tensor] = []
    model.alignment[0].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    placed = told(model, x)
    with torch.no_grad():
        memory = F.relu(model.embed(x.features))
        for layer in model.encoder:
            memory = layer(memory, model.positions[:7], None)
    torch.testing.assert_close(seen[0], memory + model.positions[:7], **NEAR)
    assert placed.future.isfinite().all()


# Labels that are given


@pytest.mark.parametrize("vectors", ["names", "table"])
@pytest.mark.parametrize("level", ["fine", "coarse", "predicted"])
def test_given_labels_are_read_at_the_level_described(level: str, vectors: str) -> None:
    head = {"fine": "action", "coarse": "phase", "predicted": "activity"}[level]
    model, x = tiny(text="given", described=level, text_vectors=vectors), observation()
    labels = x.finest if level == "fine" else above(head, x.finest)
    size = len(TAXONOMY.heads[head])
    assert described_head(model.config, TAXONOMY) == model.described_head == head
    one_hot = F.one_hot(labels.clamp(min=0), size).float()
    with torch.no_grad():
        wanted = model(x.features, x.valid, Tokens(values=one_hot, valid=labels != IGNORE))
    assert told(model, x).future.equal(wanted.future)
    assert model.reads_labels
    assert not model.reads_captions


@pytest.mark.parametrize("primary", ["action", "activity", "phase"])
@pytest.mark.parametrize("level", ["fine", "coarse", "predicted"])
def test_whatever_level_is_predicted_each_can_be_given(primary: str, level: str) -> None:
    """Observations have labels of the primary level, and beside them finest ones if they differ."""
    labels = replace(TAXONOMY, primary=primary)
    x = observation()
    own = x.finest if primary == "action" else above(primary, x.finest)
    x = replace(x, labels=own, finest=None if primary == "action" else x.finest)
    model = tiny(taxonomy=labels, text="given", described=level)
    said = model._said(x)
    truth = observation().finest
    head = model.described_head
    wanted = truth if head == "action" else above(head, truth)
    assert said is not None
    assert said.valid.equal(wanted != IGNORE)
    assert said.values.argmax(-1)[said.valid].equal(wanted[said.valid])


def test_labels_that_do_not_follow_are_not_made_up() -> None:
    """Labels of the middle level say nothing of the uppermost, nor of the finest."""
    x = replace(observation(), finest=None)
    for level in ("fine", "coarse"):
        with pytest.raises(ValueError, match=r"at the level '\w+' from whoever names it, got no"):
            tiny(text="given", described=level).predict(x)
    alone = replace(TAXONOMY, parents={})
    with pytest.raises(ValueError, match="level 'phase' from whoever names it, got no such labels"):
        tiny(taxonomy=alone, text="given", described="coarse").predict(observation())


def test_without_a_hierarchy_the_one_level_is_described() -> None:
    flat = Taxonomy.of("abcde")
    for level in ("fine", "coarse", "predicted"):
        model = tiny(taxonomy=flat, described=level)
        assert model.described_head == "action"
        assert not model.predict(observation())[0].levels


# Vectors of the text


def test_a_description_is_the_expected_vector_of_the_names() -> None:
    """Sheet, section 3.3: sum_k p_k e_k, projected."""
    model, x = tiny(text_positions="none"), observation()
    seen: list[Tensor] = []
    assert model.project is not None
    model.project.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    found = told(model, x)
    names = [f"step {i}" for i in range(7)]
    encoder = mm_ant.text_encoder(TINY.encoder)
    vectors = torch.tensor(np.stack([states.mean(0) for states in encoder.encode(names)]))
    unit = F.normalize(vectors, dim=-1) * math.sqrt(TEXT)
    torch.testing.assert_close(model.label_vectors, unit)
    [probs] = [found.described.softmax(-1)]
    torch.testing.assert_close(seen[0], probs @ unit, atol=1e-5, rtol=0)
    plain = tiny(text_scale="as_is")
    torch.testing.assert_close(plain.label_vectors, vectors)


def test_captions_are_scaled_like_names() -> None:
    x = observation()
    said = x.modalities["captions"]
    loud = replace(x, modalities={"captions": replace(said, values=7 * said.values)})
    same = tiny(text="captions")
    torch.testing.assert_close(told(same, x).future, told(same, loud).future, **NEAR)
    as_is = tiny(text="captions", text_scale="as_is")
    assert not torch.allclose(told(as_is, x).future, told(as_is, loud).future, atol=1e-3)


def test_texts_know_their_places_unless_they_do_not() -> None:
    x = observation((9,), (4,))
    said = x.modalities["captions"]
    turned = replace(x, modalities={"captions": replace(said, values=said.values.flip(1))})
    for places in ("sinusoid", "shared", "none"):
        model = tiny(text="captions", text_positions=places)
        same = torch.allclose(told(model, x).future, told(model, turned).future, atol=1e-5)
        assert same == (places == "none")


def test_steps_share_the_positions_of_what_is_seen() -> None:
    """Of steps, not of captions, which have none."""
    for text in ("learned", "given", "captions"):
        model, x = (
            tiny(text=text, text_positions="shared", fusion="decoder", query_mode="text"),
            (observation((9,), (4,))),
        )
        asked: list[Tensor] = []
        model.decoder[0].register_forward_pre_hook(
            lambda _module, given, found=asked: found.append(given[1])
        )
        told(model, x)
        with torch.no_grad():
            model.positions += 1.0
        told(model, x)
        moved = (asked[1] - asked[0]).abs().max()
        assert (moved > 0.1) == (text != "captions")


# What is shared with FUTR


def test_without_text_a_decoder_makes_it_futr() -> None:
    sizes = {
        "feature_dim": WIDTH,
        "hidden_dim": 16,
        "num_heads": 2,
        "num_encoder_layers": 2,
        "feedforward_factor": 2,
        "max_positions": 24,
    }
    torch.manual_seed(0)
    futr = FUTRConfig(**sizes, num_decoder_layers=2).build(TAXONOMY).eval()
    config = MMAntConfig(**sizes, num_anticipation_layers=2, text="none", fusion="decoder")
    ours = config.build(TAXONOMY).eval()
    ours.load_state_dict(futr.state_dict())
    x, y = observation(num_samples=3), target()
    found = told(ours, x)
    wanted = futr(x.features, x.valid)
    for mine, theirs in zip((found.past, found.future, found.durations), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
    terms, wanted_terms = ours.losses(x, y), futr.losses(x, y)
    assert terms.keys() == wanted_terms.keys()
    for name, term in wanted_terms.items():
        torch.testing.assert_close(terms[name], term, atol=1e-6, rtol=0)
    for one, other in zip(ours.predict(x), futr.predict(x), strict=True):
        torch.testing.assert_close(one.future, other.future, atol=1e-6, rtol=0)
        assert one.samples.equal(other.samples)


# Losses


def values(model: MMAnt, x: Observation | None = None, y: Target | None = None) -> dict[str, float]:
    terms = model.losses(x or observation(), y or target())
    return {name: term.item() for name, term in terms.items()}


def test_terms_are_added_and_each_is_what_it_says() -> None:
    model, x, y = tiny(), observation(), target()
    found, terms = told(model, x), values(model)
    assert list(terms) == ["past", "future", "duration", "text", "intra", "inter"]
    for name, logits, head in (
        ("past", found.past, "activity"),
        ("text", found.described, "action"),
    ):
        entropy = F.cross_entropy(logits.flatten(0, 1), y.frames[head].flatten())
        assert terms[name] == pytest.approx(entropy.item(), abs=1e-6)
    actions = F.pad(y.future, (0, QUERIES - 4), value=IGNORE)
    entropy = F.cross_entropy(found.future.flatten(0, 1), actions.flatten())
    assert terms["future"] == pytest.approx(entropy.item(), abs=1e-6)
    wrong = [
        (found.durations[i, : len(shares)].softmax(0) - torch.tensor(shares)).square()
        for i, shares in enumerate(([0.25, 0.75], [1.0], [0.5, 0.2, 0.3]))
    ]
    assert terms["duration"] == pytest.approx(torch.cat(wrong).mean().item(), abs=1e-6)
    intra, inter = temporal_consistency(found.states, y.frames["action"])
    assert terms["intra"] == pytest.approx(intra.item(), abs=1e-6)
    assert terms["inter"] == pytest.approx(inter.item(), abs=1e-6)


WEIGHTS = ("past", "future", "duration", "text", "intra", "inter")


@pytest.mark.parametrize("objective", ["sum", "gated"])
@pytest.mark.parametrize("part", WEIGHTS)
def test_a_weight_scales_its_own_term(part: str, objective: str) -> None:
    plain = tiny(objective=objective)
    scaled = tiny(objective=objective, **{f"{part}_weight": 3.0})
    for model in (plain, scaled):
        model.begin_epoch(10)
    wanted = {n: v * (3 if n == part else 1) for n, v in values(plain).items()}
    assert wanted[part] > 0
    assert values(scaled) == pytest.approx(wanted, rel=1e-6)


def test_without_consistency_its_terms_are_gone() -> None:
    model = tiny(intra_weight=0.0, inter_weight=0.0)
    assert list(values(model)) == ["past", "future", "duration", "text"]
    with_both = values(tiny())
    assert values(model) == {name: with_both[name] for name in values(model)}
    assert list(values(tiny(text="none"))) == ["past", "future", "duration"]


@pytest.mark.parametrize("level", ["fine", "coarse", "predicted"])
def test_the_generator_learns_the_level_that_it_speaks(level: str) -> None:
    model, y = tiny(described=level), target()
    head = model.described_head
    spoilt = {
        name: torch.where(labels == IGNORE, labels, 1 - labels.clamp(max=1))
        for name, labels in y.frames.items()
    }
    plain = values(model)["text"]
    for name in y.frames:
        other = values(model, y=replace(y, frames={**y.frames, name: spoilt[name]}))["text"]
        assert (abs(other - plain) > 1e-3) == (name == head)


def test_consistency_may_be_of_logits() -> None:
    model, y = tiny(consistency_of="logits"), target()
    terms = values(model)
    intra, inter = temporal_consistency(told(model, observation()).described, y.frames["action"])
    assert terms["intra"] == pytest.approx(intra.item(), abs=1e-6)
    assert terms["inter"] == pytest.approx(inter.item(), abs=1e-6)


def turned(y: Target, order: list[int]) -> Target:
    return replace(
        y,
        frames={head: labels[order] for head, labels in y.frames.items()},
        future=y.future[order],
        durations=y.durations[order],
    )


def test_only_the_released_consistency_depends_on_the_order_of_a_batch() -> None:
    order = [1, 2, 0]
    for by in ("video", "last_video"):
        model = tiny(consistency_shared_by=by)
        one = values(model)["inter"]
        other = values(model, picked(observation(), order), turned(target(), order))["inter"]
        assert (abs(one - other) > 1e-4) == (by == "last_video")


def test_the_order_of_a_batch_changes_no_loss() -> None:
    order = [1, 2, 0]
    for objective in ("sum", "gated"):
        model = tiny(objective=objective, change_weight=10.0)
        model.begin_epoch(7)
        other = values(model, picked(observation(), order), turned(target(), order))
        assert other == pytest.approx(values(model), rel=1e-5)


@pytest.mark.parametrize("epoch", [0, 15, 30, 45, 60, 99])
def test_the_gate_and_the_epoch_mix_what_is_learned(epoch: int) -> None:
    """Sheet, section 4, with frames named wrongly for the most part."""
    plain, gated = tiny(), tiny(objective="gated")
    gated.begin_epoch(epoch)
    found, y, valid = told(plain, observation()), target(), observation().valid
    known = valid & (y.frames["action"] != IGNORE)
    right = (found.past.argmax(-1) == y.frames["activity"]) & (
        found.described.argmax(-1) == y.frames["action"]
    )
    gate = torch.where(right, 1.0, 5.0)[known].mean().item()
    assert 1 < gate <= 5
    share = {0: 0.0, 15: 0.5, 30: 1.0, 45: 0.5}.get(epoch, 0.0)
    assert share == consistency_share(epoch)
    by = dict.fromkeys(("past", "future", "duration"), 1 / gate)
    by |= {"text": (1 - 1 / gate) * (1 - share)}
    by |= dict.fromkeys(("intra", "inter"), (1 - 1 / gate) * share)
    wanted = {name: by[name] * term for name, term in values(plain).items()}
    assert values(gated) == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def said_right(model: MMAnt, x: Observation) -> Target:
    """A truth by which the model names everything rightly that it sees."""
    found = told(model, x)
    frames = {"activity": found.past.argmax(-1), "action": found.described.argmax(-1)}
    return target(
        frames={head: labels.masked_fill(~x.valid, IGNORE) for head, labels in frames.items()}
    )


def test_with_everything_named_rightly_the_fine_terms_weigh_nothing() -> None:
    model, x = tiny(objective="gated"), observation()
    model.begin_epoch(10)
    y = said_right(model, x)
    terms = values(model, x, y)
    assert terms["text"] == terms["intra"] == terms["inter"] == 0
    plain = values(tiny(), x, y)
    assert plain["text"] > 0
    for name in ("past", "future", "duration"):
        assert terms[name] == pytest.approx(plain[name], rel=1e-6)


def test_with_everything_named_wrongly_the_fine_terms_weigh_four_fifths() -> None:
    model, x = tiny(objective="gated"), observation()
    y = said_right(model, x)
    coarse = y.frames["activity"]
    wrong = torch.where(coarse == IGNORE, coarse, (coarse + 1) % END)
    y = replace(y, frames={**y.frames, "activity": wrong})
    terms, plain = values(model, x, y), values(tiny(), x, y)
    assert terms["text"] == pytest.approx(0.8 * plain["text"], rel=1e-6)
    for name in ("past", "future", "duration"):
        assert terms[name] == pytest.approx(0.2 * plain[name], rel=1e-6)


def test_means_over_all_differ_by_the_share_of_padding_alone() -> None:
    labelled, everything = tiny(), tiny(averaged_over="all")
    some, every = values(labelled), values(everything)
    y = target()
    shares = {
        "past": (y.frames["activity"] != IGNORE).float().mean().item(),
        "text": (y.frames["action"] != IGNORE).float().mean().item(),
        "future": (y.future != IGNORE).sum().item() / (3 * QUERIES),
    }
    for name, term in some.items():
        assert every[name] == pytest.approx(shares.get(name, 1.0) * term, rel=1e-5)

    # One video without a step or a query to spare.
    x = observation((5,), (1,))
    full = Target(
        frames={"activity": torch.tensor([[0, 0, 1, 2, 3]]), "action": torch.arange(5)[None]},
        next={},
        future=torch.tensor([[0, 1, 2, 3, 4, 0, 1, END]]),
        durations=torch.full((1, 8), 1 / 8),
    )
    assert values(everything, x, full) == pytest.approx(values(labelled, x, full), rel=1e-6)


@pytest.mark.parametrize("averaged_over", ["labelled", "all"])
def test_a_future_that_begins_with_another_action_weighs_more(averaged_over: Any) -> None:
    """Last seen and named are 0, 1 and 1; the last step of the first two is unlabelled."""
    frames = target().frames["activity"].clone()
    frames[0, 8], frames[1, 4], frames[2, 6] = 1, 2, 0
    y = target(frames={**target().frames, "activity": frames})
    plain = tiny(averaged_over=averaged_over)
    found = told(plain, observation()).future
    actions = F.pad(y.future, (0, QUERIES - 4), value=IGNORE)
    entropy = F.cross_entropy(found.mT, actions, ignore_index=IGNORE, reduction="none").sum(1)
    # First to come are 1, 4 and 1.
    weights = torch.tensor([1.0, 10.0, 10.0])
    rows_ = 3 * QUERIES if averaged_over == "all" else int((actions != IGNORE).sum())
    weighed = tiny(averaged_over=averaged_over, change_weight=10.0)
    wanted = ((entropy * weights).sum() / rows_).item()
    assert values(weighed, y=y)["future"] == pytest.approx(wanted, rel=1e-5)
    assert values(plain, y=y)["future"] == pytest.approx(entropy.sum().item() / rows_, rel=1e-5)


@pytest.mark.parametrize("averaged_over", ["labelled", "all"])
def test_a_focal_error_forgets_what_is_known(averaged_over: Any) -> None:
    model, y = tiny(text_error="focal", averaged_over=averaged_over), target()
    labels = y.frames["action"]
    said = told(model, observation()).described.log_softmax(-1)
    own = said.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    errors = (-((1 - own.exp()) ** 2) * own).masked_fill(labels == IGNORE, 0.0)
    count = labels.numel() if averaged_over == "all" else int((labels != IGNORE).sum())
    terms = values(model)
    assert terms["text"] == pytest.approx((errors.sum() / count).item(), rel=1e-5)
    plain = values(tiny(averaged_over=averaged_over))
    assert terms["past"] == plain["past"]
    assert terms["text"] < plain["text"]


@pytest.mark.parametrize("objective", ["sum", "gated"])
def test_in_its_first_epochs_only_what_is_seen_is_learned(objective: str) -> None:
    """The paper's first stage; what is not learned keeps a gradient of zero, for all processes."""
    model = tiny(segmentation_epochs=2, objective=objective)
    later = {"future_head", "duration_head", "queries", "fusion", "reading", "alignment", "project"}
    for epoch, learns in ((0, False), (1, False), (2, True)):
        model.begin_epoch(epoch)
        model.zero_grad()
        terms = model.losses(observation(), target())
        sum(terms.values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            if name == "duration_head.bias":
                continue
            answers = name.split(".")[0] in later
            assert bool(parameter.grad.any()) == (learns or not answers), (epoch, name)
        for name in ("future", "duration"):
            assert (terms[name] > 0) == learns


def padded(x: Observation, y: Target, steps: int) -> tuple[Observation, Target]:
    """The same with longer padding of every row."""
    room = (0, steps)
    longer = replace(
        x,
        features=F.pad(x.features, (0, 0, *room), value=3.0),
        valid=F.pad(x.valid, room),
        labels=F.pad(x.labels, room, value=IGNORE),
        finest=F.pad(x.finest, room, value=IGNORE),
    )
    frames = {head: F.pad(labels, room, value=IGNORE) for head, labels in y.frames.items()}
    future = F.pad(y.future, room, value=IGNORE)
    return longer, replace(
        y, frames=frames, future=future, durations=F.pad(y.durations, room, value=math.nan)
    )


@pytest.mark.parametrize("options", [{}, {"objective": "gated"}, {"text_error": "focal"}])
def test_padding_counts_in_no_loss(options: dict[str, Any]) -> None:
    model = tiny(**options, change_weight=10.0)
    model.begin_epoch(5)
    longer = values(model, *padded(observation(), target(), 4))
    assert longer == pytest.approx(values(model), rel=1e-5)


def test_steps_that_nobody_knows_say_nothing_about_how_wrong_frames_are() -> None:
    """Two steps of `target()` are seen and unlabelled."""
    model, x = tiny(objective="gated"), observation()
    model.begin_epoch(10)
    y = said_right(model, x)
    frames = {head: labels.clone() for head, labels in y.frames.items()}
    for labels in frames.values():
        labels[0, 8] = labels[2, 3] = IGNORE
    terms = values(model, x, replace(y, frames=frames))
    assert terms["text"] == terms["intra"] == 0


def test_without_a_future_what_is_seen_is_learned_and_the_other_way_round() -> None:
    model, x = tiny(), observation()
    nothing = torch.full((3, 4), IGNORE)
    for y in (
        target(future=None, durations=None),
        target(future=nothing, durations=nothing * math.nan),
    ):
        terms = values(model, x, y)
        assert terms["future"] == terms["duration"] == 0
        whole = values(model, x)
        assert {n: terms[n] for n in ("past", "text", "intra")} == {
            n: whole[n] for n in ("past", "text", "intra")
        }
    for options in ({}, {"text": "none"}, {"objective": "gated"}, {"described": "predicted"}):
        terms = values(tiny(**options), x, target(frames={}))
        assert terms["past"] == terms.get("text", 0.0) == terms.get("intra", 0.0) == 0
        assert terms["future"] > 0


def test_who_says_neither_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learns from the labels of head 'activity'.*got neither"):
        tiny().losses(observation(), target(frames={}, future=None))


def test_the_loss_falls() -> None:
    model, x, y = tiny(), observation(), target()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = sum(model.losses(x, y).values())
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.3 * history[0]


# What is saved


@pytest.mark.parametrize("text", ["learned", "given", "captions", "none"])
def test_a_checkpoint_needs_no_text_encoder(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(text=text)
    save_checkpoint(tmp_path, "mm-ant", model, model.config, {})

    def refuse(*_: Any) -> None:
        raise AssertionError("the encoder was asked")

    monkeypatch.setattr(mm_ant, "text_encoder", refuse)
    again = load_checkpoint(tmp_path).model
    for one, other in zip(model.predict(observation()), again.predict(observation()), strict=True):
        assert one.past.equal(other.past)
        assert one.future.equal(other.future)
    if text in ("learned", "given"):
        assert model.config.text_dim == TEXT
        with pytest.raises(AssertionError, match="the encoder was asked"):
            tiny(text=text)


# What is refused


def test_features_that_do_not_fit_are_refused() -> None:
    model, x = tiny(), observation()
    with pytest.raises(ValueError, match="features must be 6 wide, got 7; set feature_dim"):
        model.predict(replace(x, features=torch.zeros(3, 9, 7)))
    with pytest.raises(ValueError, match=r"at most 24 steps, got 25; use a larger stride.*max_pos"):
        model.predict(Observation.of_one(torch.zeros(25, WIDTH), 15.0))
    with pytest.raises(ValueError, match="at least one valid step"):
        model.predict(replace(x, valid=torch.zeros_like(x.valid)))


def test_text_that_is_not_there_is_asked_for() -> None:
    x = replace(observation(), labels=None, finest=None, modalities={})
    with pytest.raises(
        ValueError, match="reads captions of what is seen, got none; say --captions"
    ):
        tiny(text="captions").predict(x)
    with pytest.raises(ValueError, match=r"level 'action' from whoever names it.*--labels-from"):
        tiny(text="given").predict(x)
    tiny().predict(x)


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text_dim must be .* encoder hash:8, 8, or 0, got 5"):
        tiny(text_dim=5)
    for text in ("captions", "learned"):
        with pytest.raises(ValueError, match="text_dim must be the width of the text's vectors"):
            MMAnt(replace(TINY, text=text), TAXONOMY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 18, "num_heads": 4}, "multiple of num_heads, got 18 and 4"),
        ({"num_queries": 0}, "num_queries must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"intra_weight": -1.0}, "intra_weight must not be negative, got -1.0"),
        ({"text_dim": -1}, "text_dim must not be negative, got -1"),
        (
            {"consistency_end": 30},
            "consistency_end must come after consistency_peak, got 30 and 30",
        ),
        ({"end_takes_time": True, "fill": "last_query"}, "end_takes_time must come with"),
    ],
)
def test_an_impossible_config_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **options)


def test_a_generator_that_nothing_uses_learns_nothing() -> None:
    model = tiny(text="none", unused_parameters=True)
    assert isinstance(model.generator, nn.Module)
    sum(model.losses(observation(), target()).values()).backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused == {f"generator.{name}" for name, _ in model.generator.named_parameters()}
