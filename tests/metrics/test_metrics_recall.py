import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics_reference as reference
from actioncast.metrics import (
    action_ids,
    action_probs_of_pairs,
    class_mean_recall,
    in_ranked,
    in_top_k,
    marginalise,
    mean_over_classes,
    rank_pairs,
    subset_recall,
    tail_actions,
    top_k_accuracy,
)
from metrics_reference import number

EXACT = {"rel": 0, "abs": 1e-9}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


class RecallCase:
    """One golden case as arrays."""

    def __init__(self, case):
        self.labels = {name: np.array(values) for name, values in case["labels"].items()}
        self.scores = {name: np.array(rows, dtype=float) for name, rows in case["scores"].items()}
        self.pairs = np.array(case["actions_verb_noun"])
        self.is_unseen = np.isin(case["participants"], case["unseen_participants"])
        tails = {"verb": case["tail_verbs"], "noun": case["tail_nouns"]}
        self.is_tail = {name: np.isin(self.labels[name], ids) for name, ids in tails.items()}
        self.is_tail["action"] = tail_actions(
            self.labels["verb"],
            self.labels["noun"],
            tail_verbs=frozenset(tails["verb"]),
            tail_nouns=frozenset(tails["noun"]),
        )

    def check(self, hits, official):
        for name, found in hits.items():
            recall = subset_recall(
                found, self.labels[name], is_unseen=self.is_unseen, is_tail=self.is_tail[name]
            )
            for subset in ("overall", "unseen", "tail"):
                expected = pytest.approx(number(official[subset][name]), nan_ok=True, **EXACT)
                assert getattr(recall, subset) == expected

    def hits(self, scores):
        return {name: in_top_k(rows, self.labels[name]) for name, rows in scores.items()}


recall_cases = pytest.mark.parametrize(
    "case", reference.golden_cases("rulstm", "scores"), indirect=True
)


@recall_cases
def test_official_recall_of_separate_heads(case):
    arrays = RecallCase(case)
    hits = arrays.hits(arrays.scores)
    arrays.check(hits, case["rulstm"]["separate_heads"])
    arrays.check(hits, case["c3"]["with_action_scores"])
    for name, scores in arrays.scores.items():
        labels, rulstm = arrays.labels[name], case["rulstm"]
        expected = pytest.approx(rulstm["MeanTopKRecallMeter"][name], **EXACT)
        assert class_mean_recall(scores, labels) == expected
        assert top_k_accuracy(scores, labels, 5) == pytest.approx(
            rulstm["top5_accuracy"][name], **EXACT
        )
        assert top_k_accuracy(scores, labels) == pytest.approx(
            rulstm["top1_accuracy"][name], **EXACT
        )
    assert case["subset_sizes"] == {
        "unseen": arrays.is_unseen.sum(),
        **{f"tail_{name}": is_tail.sum() for name, is_tail in arrays.is_tail.items()},
    }


@recall_cases
def test_official_recall_of_marginalised_actions(case):
    arrays = RecallCase(case)
    probs = softmax(arrays.scores["action"])
    scores = {
        name: marginalise(
            probs, arrays.pairs[:, column], arrays.scores[name].shape[1], absent="first_action"
        )
        for column, name in enumerate(("verb", "noun"))
    }
    hits = arrays.hits({**scores, "action": arrays.scores["action"]})
    arrays.check(hits, case["rulstm"]["marginalised_from_action"])


@recall_cases
def test_official_recall_of_actions_from_verbs_and_nouns(case):
    arrays = RecallCase(case)
    official = case["c3"]
    ranked = rank_pairs(arrays.scores["verb"], arrays.scores["noun"])
    first = official["action_from_verb_noun_top5_ids_first10"]
    assert ranked[: len(first), :5].tolist() == first
    labels = action_ids(arrays.labels["verb"], arrays.labels["noun"])
    hits = arrays.hits({name: arrays.scores[name] for name in ("verb", "noun")})
    hits["action"] = in_ranked(ranked, labels)
    arrays.labels["action"] = labels
    arrays.check(hits, official["action_from_verb_noun"])


@pytest.mark.parametrize(
    "case", reference.golden_cases("zero_rows", "cases", is_required=False), indirect=True
)
def test_official_recall_of_rows_of_zeros(case):
    official = case["zero_rows"]
    scores, labels = np.zeros(official["scores_shape"]), np.array(official["labels"])
    expected = pytest.approx(official["topk_recall"], **EXACT)
    assert class_mean_recall(scores, labels, ties="highest_id") == expected


def test_recall_is_not_accuracy():
    # Hits of the four samples at k = 1: yes, yes, no, no.
    scores = np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    labels = np.array([0, 0, 0, 1])
    assert class_mean_recall(scores, labels, 1) == pytest.approx(100 / 3)
    assert top_k_accuracy(scores, labels) == 50.0
    assert mean_over_classes(np.array([True, True, False, False]), labels) == pytest.approx(100 / 3)


def test_equal_scores_rank_by_ascending_id_unless_asked():
    scores, labels = np.zeros((4, 7)), np.array([0, 4, 5, 6])
    assert in_top_k(scores, labels).tolist() == [True, True, False, False]
    assert in_top_k(scores, labels, ties="highest_id").tolist() == [False, True, True, True]


def test_subsets_have_their_own_classes():
    hits, labels = np.array([True, False, True, False]), np.array([0, 0, 1, 2])
    recall = subset_recall(
        hits, labels, is_unseen=labels == 1, is_tail=np.array([True, False, False, True])
    )
    assert recall.overall == pytest.approx(50.0)
    assert recall.unseen == pytest.approx(100.0)
    assert recall.tail == pytest.approx(50.0)
    nobody = np.zeros(4, dtype=bool)
    assert np.isnan(subset_recall(hits, labels, is_unseen=nobody, is_tail=nobody).unseen)


def test_an_action_is_in_the_tail_if_its_verb_or_noun_is():
    verbs, nouns = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    is_tail = tail_actions(verbs, nouns, tail_verbs={1}, tail_nouns={1})
    assert is_tail.tolist() == [False, True, True, True]


def test_probabilities_and_not_logits_are_marginalised():
    logits = np.array([[1.5, 1.5, 2.5]])
    probs = marginalise(softmax(logits), np.array([0, 0, 1]), 3)
    assert probs[0] == pytest.approx([0.4239, 0.5761, 0], abs=5e-5)
    assert marginalise(logits, np.array([0, 0, 1]), 3)[0] == pytest.approx([3.0, 2.5, 0])


def test_an_absent_verb_gets_nothing_or_the_first_action():
    probs, mapping = np.array([[0.2, 0.8]]), np.array([2, 0])
    assert marginalise(probs, mapping, 4)[0].tolist() == [0.8, 0, 0.2, 0]
    assert marginalise(probs, mapping, 4, absent="first_action")[0].tolist() == [0.8, 0.2, 0.2, 0.2]


def test_valid_pairs_score_the_product_of_their_heads():
    verbs, nouns = np.array([[0.75, 0.25]]), np.array([[0.5, 0.25, 0.25]])
    pairs = np.array([[0, 2], [1, 0]])
    assert action_probs_of_pairs(verbs, nouns, pairs).tolist() == [[0.1875, 0.125]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_pairs_are_ranked_as_if_all_were_multiplied(seed, num_ranked):
    rng = np.random.default_rng(seed)
    verbs, nouns = rng.normal(size=(3, 12)), rng.normal(size=(3, 9))
    ranked = rank_pairs(verbs, nouns, num_ranked)
    for row, ids in enumerate(ranked):
        total = verbs[row][:, None] + nouns[row]
        best_verbs, best_nouns = (np.argsort(-s[row])[:num_ranked] for s in (verbs, nouns))
        open_pairs = [(total[v, n], 1000 * v + n) for v in best_verbs for n in best_nouns]
        expected = [pair for _, pair in sorted(open_pairs, reverse=True)[:num_ranked]]
        assert ids.tolist() == expected


def test_best_verb_and_best_noun_are_not_the_best_action():
    # Verb and noun both rank fifth: their pair ranks far behind the fifth pair.
    verbs, nouns = -np.arange(9.0)[None], -np.arange(8.0)[None]
    verb, noun = np.array([4]), np.array([4])
    assert in_top_k(verbs, verb).all()
    assert in_top_k(nouns, noun).all()
    assert not in_ranked(rank_pairs(verbs, nouns), action_ids(verb, noun)).any()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(["lowest", "highest"]))
def test_recall_equals_the_literal_definition_with_ties(seed, k, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (12, 7)) / 3
    labels = rng.integers(0, 7, 12)
    expected = reference.class_mean_recall(scores.tolist(), labels.tolist(), k, ties)
    recall = class_mean_recall(scores, labels, k, ties=f"{ties}_id")
    assert recall == pytest.approx(expected, **EXACT)
    assert recall >= class_mean_recall(scores, labels, 1, ties=f"{ties}_id")
    balanced = np.arange(7).repeat(2)[:12]
    pairs = np.isin(balanced, np.arange(6))
    assert class_mean_recall(scores[pairs], balanced[pairs], k) == pytest.approx(
        top_k_accuracy(scores[pairs], balanced[pairs], k)
    )


def test_wrong_scores_are_refused_in_a_sentence():
    scores, labels = np.ones((2, 3)), np.array([0, 2])
    with pytest.raises(ValueError, match="scores must be finite"):
        class_mean_recall(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="true labels must lie in 0 to 2, got 0 to 3"):
        class_mean_recall(scores, np.array([0, 3]))
    with pytest.raises(ValueError, match="2 rows and 1 labels"):
        inspect.unwrap(in_top_k)(scores, labels[:1])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        in_top_k(scores, labels, 0)
    with pytest.raises(ValueError, match="ties must be"):
        inspect.unwrap(in_top_k)(scores, labels, ties="random")
    with pytest.raises(ValueError, match="mapping must lie in 0 to 1, got 0 to 2"):
        marginalise(scores, np.array([0, 1, 2]), 2)
    with pytest.raises(ValueError, match="nouns must lie in 0 to 999, got 5 to 1000"):
        action_ids(np.array([1, 1]), np.array([5, 1000]))
