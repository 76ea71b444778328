import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics_reference as reference
from actioncast.metrics import (
    action_ids,
    edit_at_z,
)
from metrics_reference import digits, number

EXACT = {"rel": 0, "abs": 1e-9}


@pytest.mark.parametrize("case", reference.golden_cases("predictions", "Z"), indirect=True)
def test_official_edit_distances_are_reproduced(case):
    labels = {name: np.array(values) for name, values in case["labels"].items()}
    predicted = {name: np.array(values) for name, values in case["predictions"].items()}
    labels["action"] = action_ids(labels["verb"], labels["noun"])
    predicted["action"] = action_ids(predicted["verb"], predicted["noun"])
    for name, official in case["results"].items():
        distances = edit_at_z(predicted[name], labels[name])
        assert distances.at == pytest.approx(np.array(official["ED"]), **EXACT)
        assert distances.per_example == pytest.approx(
            np.array(official["per_example_at_Z"]), **EXACT
        )
        assert distances.aued == pytest.approx(
            number(official["AUED"]) if len(official["ED"]) > 1 else official["ED"][0], **EXACT
        )


def candidates(*texts):
    return np.stack([digits(text) for text in texts], axis=-1)[None]


def test_a_swap_is_two_edits_unless_asked():
    predicted, truth = candidates("1324", "2345"), digits("1234")[None]
    assert edit_at_z(predicted[..., :1], truth).at[-1] == 0.5
    assert edit_at_z(predicted[..., 1:], truth).at[-1] == 0.5
    assert edit_at_z(predicted, truth).at[-1] == 0.5
    assert edit_at_z(predicted, truth, distance="damerau").at[-1] == 0.25
    assert edit_at_z(predicted[..., 1:], truth, distance="damerau").at[-1] == 0.5


def test_area_under_the_distances():
    distances = edit_at_z(candidates("1324"), digits("1234")[None])
    assert distances.at == pytest.approx([0, 0.5, 2 / 3, 0.5])
    assert distances.aued == pytest.approx(0.47222, abs=5e-6)
    assert edit_at_z(candidates("1"), digits("2")[None]).aued == 1.0


def test_verbs_nouns_and_actions_choose_their_candidates_alone():
    verbs, nouns = np.array([[[112, 999]]]), np.array([[[999, 567]]])
    true_verb, true_noun = np.array([[112]]), np.array([[567]])
    assert edit_at_z(verbs, true_verb).at.tolist() == [0.0]
    assert edit_at_z(nouns, true_noun).at.tolist() == [0.0]
    actions, true_action = action_ids(verbs, nouns), action_ids(true_verb, true_noun)
    assert edit_at_z(actions, true_action).at.tolist() == [1.0]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 4))
def test_edit_distances_equal_the_literal_definition(seed, num_steps, num_candidates):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (5, num_steps))
    predicted = rng.integers(0, 3, (5, num_steps, num_candidates))
    for name, literal in (
        ("levenshtein", reference.levenshtein),
        ("damerau", reference.alignment_with_swaps),
    ):
        best = [
            [
                min(literal(row[:z, k].tolist(), true[:z].tolist()) for k in range(num_candidates))
                / z
                for z in range(1, num_steps + 1)
            ]
            for row, true in zip(predicted, truth, strict=True)
        ]
        distances = edit_at_z(predicted, truth, distance=name)
        assert distances.at == pytest.approx(np.mean(best, axis=0), **EXACT)
        assert distances.per_example.tolist() == [row[-1] for row in best]
        fewer = edit_at_z(predicted[..., :1], truth, distance=name)
        assert (distances.at <= fewer.at).all()
        assert (distances.at <= 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_distance_is_zero_only_between_equals(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 2, (2, 6, 4))
    for name in ("levenshtein", "damerau"):
        distances = edit_at_z(predicted[..., None], truth, distance=name)
        assert ((distances.per_example == 0) == (truth == predicted).all(axis=1)).all()


def test_wrong_candidates_are_refused_in_a_sentence():
    predicted, truth = candidates("123"), digits("12")[None]
    with pytest.raises(ValueError, match=r"got \(1, 3, 1\) and \(1, 2\): give every"):
        inspect.unwrap(edit_at_z)(predicted, truth)
    with pytest.raises(ValueError, match="distance must be"):
        inspect.unwrap(edit_at_z)(predicted[:, :2], truth, distance="hamming")
