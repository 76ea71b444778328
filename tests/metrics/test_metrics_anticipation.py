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
    edit_at_z,
    future_window,
    in_ranked,
    in_top_k,
    long_term_scores,
    marginalise,
    mean_over_classes,
    moc,
    moc_counts,
    rank_pairs,
    subset_recall,
    tail_actions,
    top_k_accuracy,
)

EXACT = {"rel": 0, "abs": 1e-9}


@pytest.fixture
def case(request):
    return reference.require(request.param)


def digits(text):
    return np.array([int(digit) for digit in text])


def number(value):
    """JSON null stands for NaN."""
    return np.nan if value is None else value


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("case", reference.golden_cases("future_prediction", "gt"), indirect=True)
def test_official_counters_and_moc_are_reproduced(case):
    truth = [np.array(labels) for labels in case["gt"]]
    num_labels = case["num_classes"]
    for alpha, by_beta in case["result"].items():
        futures = [np.array(labels, dtype=int) for labels in case["future_prediction"][alpha]]
        betas = tuple(map(float, by_beta))
        cells = long_term_scores(
            {float(alpha): futures}, truth, num_labels, horizon_ratios=betas, missing="skip"
        )
        assert len(cells) == len(betas) > 0
        for cell, (beta, official) in zip(cells, by_beta.items(), strict=True):
            assert (cell.observed_ratio, cell.horizon_ratio) == (float(alpha), float(beta))
            assert cell.correct.tolist() == official["correct"]
            assert (cell.total - cell.correct).tolist() == official["incorrect"]
            assert np.count_nonzero(cell.total) == official["classes_counted"]
            assert cell.moc == pytest.approx(100 * number(official["MoC"]), nan_ok=True, **EXACT)
            for labels, future, (start, end) in zip(
                truth, futures, official["frames_evaluated"], strict=True
            ):
                first, last = future_window(len(labels), float(alpha), float(beta))
                assert [first, min(last, first + len(future))] == [start, end]


def test_worked_example_of_moc():
    truth = [digits("0000111222"), digits("1122220000")]
    predicted = [digits("0001110222"), digits("1122000000")]
    (cell,) = long_term_scores(
        {0.2: [labels[2:] for labels in predicted]}, truth, 3, horizon_ratios=(0.5,)
    )
    assert cell.correct.tolist() == [2, 2, 2]
    assert (cell.total - cell.correct).tolist() == [1, 1, 2]
    assert cell.moc == pytest.approx(100 * (2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert cell.moc == pytest.approx(61.1111111111)


@pytest.mark.parametrize(("num_frames", "end"), [(90, 62), (170, 118), (180, 125), (100, 70)])
def test_windows_end_where_float_products_end(num_frames, end):
    assert future_window(num_frames, 0.2, 0.5) == (num_frames // 5, end)
    (cell,) = long_term_scores(
        {0.2: [np.zeros(num_frames, dtype=int)]},
        [np.zeros(num_frames, dtype=int)],
        1,
        horizon_ratios=(0.5,),
    )
    assert cell.total.tolist() == [end - num_frames // 5]


def test_only_this_cell_departs_from_exact_arithmetic_289_times():
    exact = {0.1: 3, 0.2: 4, 0.3: 5, 0.5: 7}
    departures = {
        beta: sum(future_window(n, 0.2, beta)[1] != tenths * n // 10 for n in range(1, 20001))
        for beta, tenths in exact.items()
    }
    assert departures == {0.1: 0, 0.2: 0, 0.3: 0, 0.5: 289}


def test_frames_that_a_prediction_lacks_are_wrong_or_skipped():
    truth, future = [digits("0011111111")], {0.2: [digits("11")]}
    wrong, skipped = (
        long_term_scores(future, truth, 2, horizon_ratios=(0.1, 0.5), missing=missing)
        for missing in ("wrong", "skip")
    )
    assert [cell.total.tolist() for cell in wrong] == [[0, 1], [0, 5]]
    assert [cell.correct.tolist() for cell in wrong] == [[0, 1], [0, 2]]
    assert [cell.total.tolist() for cell in skipped] == [[0, 1], [0, 2]]
    assert [cell.moc for cell in skipped] == [100.0, 100.0]


def test_missing_frames_are_wrong_by_default():
    nothing = {0.3: [np.zeros(0, dtype=int)]}
    cells = long_term_scores(nothing, [digits("0000000000")], 1)
    assert [cell.moc for cell in cells] == [0.0] * 4
    assert [cell.total.tolist() for cell in cells] == [[1], [2], [3], [5]]


def test_horizons_come_in_the_order_asked_for():
    truth = [digits("0011100110")]
    cells = long_term_scores({0.2: [truth[0][2:]]}, truth, 2, horizon_ratios=(0.5, 0.1, 0.3, 0.1))
    assert [cell.horizon_ratio for cell in cells] == [0.5, 0.1, 0.3, 0.1]
    assert [int(cell.total.sum()) for cell in cells] == [5, 1, 3, 1]


def test_no_frame_at_all_has_no_moc():
    (cell,) = long_term_scores({0.2: [digits("1")]}, [digits("1")], 2, horizon_ratios=(0.1,))
    assert np.isnan(cell.moc)


def test_moc_counts_of_one_window():
    correct, total = moc_counts(np.array([0, -1, 9, 1]), digits("0011"), 3)
    assert correct.tolist() == [1, 1, 0]
    assert total.tolist() == [2, 2, 0]
    assert moc(correct, total) == 50.0


@st.composite
def futures(draw, num_labels=4):
    """Videos from one frame on, and futures too short, too long, empty, outside the vocabulary."""
    truth, predicted = [], []
    for _ in range(draw(st.integers(1, 5))):
        num_frames = draw(st.integers(1, 60))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        segments = rng.integers(0, num_labels, 6)
        truth.append(segments[np.sort(rng.integers(0, 6, num_frames))])
        predicted.append(rng.integers(-1, num_labels + 1, draw(st.integers(0, 70))))
    return predicted, truth


@settings(max_examples=150, deadline=None)
@given(futures(), st.sampled_from(["wrong", "skip"]), st.floats(0.05, 0.5))
def test_long_term_scores_equal_the_literal_definition(videos, missing, odd_ratio):
    predicted, truth = videos
    lists = [labels.tolist() for labels in predicted], [labels.tolist() for labels in truth]
    ratios = (0.1, 0.2, odd_ratio, 0.3, 0.5)
    asked = dict.fromkeys((0.2, 0.3, odd_ratio), predicted)
    cells = long_term_scores(asked, truth, 4, horizon_ratios=ratios, missing=missing)
    for cell, (alpha, beta) in zip(cells, ((a, b) for a in asked for b in ratios), strict=True):
        correct, total = reference.moc_counts(*lists, 4, alpha, beta, missing=missing)
        assert cell.correct.tolist() == correct
        assert cell.total.tolist() == total
        assert cell.moc == pytest.approx(reference.moc(correct, total), nan_ok=True, **EXACT)


@settings(max_examples=50, deadline=None)
@given(futures(), st.randoms(use_true_random=False), st.permutations(range(4)))
def test_moc_ignores_the_order_of_videos_and_the_names_of_labels(videos, random, names):
    predicted, truth = videos
    order = random.sample(range(len(truth)), len(truth))
    names = np.array([*names, 4, -1])
    before = long_term_scores({0.3: predicted}, truth, 4)
    after = long_term_scores(
        {0.3: [names[predicted[v]] for v in order]}, [names[truth[v]] for v in order], 4
    )
    for first, second in zip(before, after, strict=True):
        assert first.moc == pytest.approx(second.moc, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(futures(), st.integers(0, 3))
def test_truth_scores_100_and_a_constant_one_class_of_all(videos, label):
    _, truth = videos
    perfect = {0.2: [labels[int(0.2 * len(labels)) :] for labels in truth]}
    constant = {0.2: [np.full(len(labels), label) for labels in truth]}
    for right, same in zip(
        long_term_scores(perfect, truth, 4), long_term_scores(constant, truth, 4), strict=True
    ):
        num_present = np.count_nonzero(right.total)
        if num_present:
            assert right.moc == 100.0
            expected = 100.0 / num_present if same.total[label] else 0.0
            assert same.moc == pytest.approx(expected)


def test_wrong_long_term_input_is_refused_in_a_sentence():
    video = digits("0011")
    with pytest.raises(ValueError, match=r"predicted\[0.2\] must hold the 2 videos .* got 1"):
        long_term_scores({0.2: [video]}, [video, video], 2)
    with pytest.raises(ValueError, match="at least one video"):
        long_term_scores({0.2: []}, [], 2)
    with pytest.raises(ValueError, match=r"sum to at most 1, got 0\.6 and 0\.5"):
        long_term_scores({0.6: [video]}, [video], 2)
    with pytest.raises(ValueError, match="must be positive"):
        long_term_scores({0.2: [video]}, [video], 2, horizon_ratios=(0.0,))
    with pytest.raises(ValueError, match=r"true labels must lie in 0 to 0, got 0 to 1"):
        long_term_scores({0.2: [video]}, [digits("0001111000")], 1)
    with pytest.raises(ValueError, match="got 4 and 3"):
        inspect.unwrap(moc_counts)(video, video[:3], 2)
    with pytest.raises(ValueError, match=r"predicted labels \(item 0\) must be integers"):
        inspect.unwrap(long_term_scores)({0.2: [np.array([np.nan])]}, [video], 2)
    with pytest.raises(ValueError, match="missing must be 'wrong' or 'skip', got 'ignore'"):
        inspect.unwrap(long_term_scores)({0.2: [video]}, [video], 2, missing="ignore")


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
