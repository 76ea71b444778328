import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics_reference as reference
from actioncast.metrics import edit, edit_score, f1, f1_counts, mof, segmentation_scores

EXACT = {"rel": 0, "abs": 1e-9}

runs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=12)


@st.composite
def frames(draw, num_frames=None):
    labels = np.concatenate([np.repeat(label, length) for label, length in draw(runs)])
    return labels if num_frames is None else np.resize(labels, num_frames)


@st.composite
def pairs(draw):
    truth = draw(frames())
    return draw(frames(num_frames=len(truth))), truth


video_sets = st.lists(pairs(), min_size=1, max_size=6).map(
    lambda videos: tuple(zip(*videos, strict=True))
)
overlap_values = st.floats(0.01, 1.0)


def letters(text):
    return np.array([ord(letter) for letter in text])


def unzipped(pair):
    return [labels.tolist() for labels in pair]


def as_ids(videos, *names):
    """Arrays of ids for lists of label names, and the id that "background" has."""
    ids = {"background": 0}
    arrays = [
        [np.array([ids.setdefault(label, len(ids)) for label in video[name]]) for video in videos]
        for name in names
    ]
    return (*arrays, frozenset({0}))


@pytest.mark.parametrize("case", reference.golden_cases("videos", "current"), indirect=True)
@pytest.mark.parametrize("convention", ["current", "legacy"])
def test_official_scores_are_reproduced(case, convention):
    predicted, truth, background = as_ids(case["videos"], "pred", "gt")
    official = case[convention]
    keys = [key for key in official if key.startswith("F1@")]
    assert keys
    scores = segmentation_scores(
        predicted,
        truth,
        background=background,
        overlaps=tuple(int(key[3:]) / 100 for key in keys),
        legacy_last_segment=convention == "legacy",
    )
    assert scores.mof == pytest.approx(official["acc"], **EXACT)
    assert scores.edit == pytest.approx(official["edit"], **EXACT)
    assert scores.f1 == pytest.approx([official[key] for key in keys], **EXACT)
    assert scores.avg == pytest.approx(official["avg"], **EXACT)
    for index, video in enumerate(case["videos"]):
        assert scores.video_edit[index] == pytest.approx(video[convention]["edit"], **EXACT)
        for column, key in enumerate(keys):
            assert [
                scores.counts.true_positives[index, column],
                scores.counts.false_positives[index, column],
                scores.counts.false_negatives[index, column],
            ] == video[convention][f"tp_fp_fn{key[2:]}"]


@pytest.mark.parametrize(
    "case", reference.golden_cases("degenerate_pairs", is_required=False), indirect=True
)
@pytest.mark.parametrize("convention", ["current", "legacy"])
def test_degenerate_pairs_are_official_or_defined(case, convention):
    for pair in case["degenerate_pairs"]["pairs"]:
        (predicted,), (truth,), background = as_ids([pair], "pred", "gt")
        official = pair[convention]
        edits = edit_score(predicted, truth, background)
        has_no_segment = {name: set(pair[name]) == {"background"} for name in ("pred", "gt")}
        for key in (key for key in (*official,) if "@" in key):
            counts = f1_counts(
                [predicted],
                [truth],
                background=background,
                overlaps=(int(key.split("@")[1]) / 100,),
                legacy_last_segment=convention == "legacy",
            )
            if key.startswith("tp_fp_fn"):
                found = counts.true_positives, counts.false_positives, counts.false_negatives
                assert [int(count[0, 0]) for count in found] == official[key]
            if all(has_no_segment.values()):
                assert counts.f1 == (100.0,)
            elif any(has_no_segment.values()):
                assert counts.f1 == (0.0,)
        if all(has_no_segment.values()):
            assert edits == 100.0
        else:
            assert edits == pytest.approx(official["edit"], **EXACT)


EXAMPLES = [
    ("aaaabbbccc", "aaabbabccc", "", (80, 60), (75, 75, 50), (75, 75, 50)),
    ("aaaaaaaabb", "aaaaaabbbb", "", (80, 100), (100, 100, 50), (100, 100, 100)),
    ("aaaaaaaaab", "aaaaaaaaab", "", (100, 100), (50, 50, 50), (100, 100, 100)),
    ("..xxx.yy", ".xxxx..y", ".", (75, 100), (50, 50, 50), (100, 100, 100)),
    ("..xxx.yy", ".xxxx..y", "", (75, 100), (75, 75, 75), (100, 100, 100)),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_examples(example):
    truth, predicted, background, mof_and_edit, legacy, correct = example
    options = {"background": frozenset(map(ord, background))}
    videos = [letters(predicted)], [letters(truth)]
    scores = segmentation_scores(*videos, **options)
    assert (scores.mof, scores.edit) == pytest.approx(mof_and_edit)
    assert scores.f1 == pytest.approx(correct)
    assert f1(*videos, legacy_last_segment=True, **options) == pytest.approx(legacy)


def test_a_second_best_free_segment_is_never_tried():
    # Both predicted a overlap the first true a most; the second a stays unclaimed.
    truth, predicted = letters("aaaaaaaabaa"), letters("aaacaaaaaab")
    counts = f1_counts([predicted], [truth], overlaps=(0.1,))
    assert counts.true_positives.tolist() == [[1]]
    assert counts.false_positives.tolist() == [[3]]
    assert counts.false_negatives.tolist() == [[2]]


def test_the_first_of_equal_overlaps_is_claimed():
    # The long a shares a quarter with both true a; the short a has claimed the first of them.
    truth, predicted = letters("aaaabbaaaa"), letters("acaaaaaabb")
    counts = f1_counts([predicted], [truth], overlaps=(0.25,))
    assert counts.true_positives.tolist() == [[1]]


def test_equal_overlap_with_the_threshold_is_a_match():
    assert f1([letters("aabb")], [letters("aaab")], overlaps=(0.5, 0.51)) == (100.0, 50.0)


def test_counts_are_summed_before_f1_and_edit_is_averaged():
    truth = [letters("ab"), letters("a" * 9 + "b" * 9)]
    predicted = [letters("ba"), truth[1]]
    scores = segmentation_scores(predicted, truth)
    assert scores.mof == pytest.approx(90.0)
    assert scores.edit == pytest.approx(50.0)
    assert scores.f1 == pytest.approx((50.0, 50.0, 50.0))
    assert scores.video_mof.tolist() == [0.0, 100.0]
    assert scores.counts.video_f1[:, 0].tolist() == [0.0, 100.0]
    assert scores.avg == pytest.approx((90 + 50 + 150) / 5)


def test_the_same_label_across_two_videos_is_two_segments():
    counts = f1_counts([letters("aa"), letters("aa")], [letters("aa"), letters("aa")])
    assert counts.true_positives.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_empty_videos_have_no_segments():
    empty = np.zeros(0, dtype=int)
    assert edit_score(empty, empty) == 100.0
    assert f1([empty], [empty]) == (100.0, 100.0, 100.0)
    mixed = [empty, letters("ab"), empty], [empty, letters("aa"), empty]
    assert edit(*mixed) == pytest.approx((100 + 50 + 100) / 3)
    assert f1(*mixed) == pytest.approx((200 / 3, 200 / 3, 200 / 3))
    assert mof(*mixed) == 50.0


@settings(max_examples=150, deadline=None)
@given(video_sets, st.frozensets(st.integers(0, 3), max_size=2), st.booleans(), overlap_values)
def test_equal_to_the_literal_definition(videos, background, legacy, overlap):
    predicted, truth = videos
    overlaps = (overlap, 0.1, 0.25, 0.5)
    scores = segmentation_scores(
        predicted, truth, background=background, overlaps=overlaps, legacy_last_segment=legacy
    )
    lists = unzipped(predicted), unzipped(truth)
    assert scores.mof == pytest.approx(reference.mof(*lists), **EXACT)
    assert scores.edit == pytest.approx(reference.edit(*lists, background), **EXACT)
    for column, value in enumerate(overlaps):
        expected = reference.f1(*lists, value, background, legacy)
        assert scores.f1[column] == pytest.approx(expected, **EXACT)
        for index, (labels, true_labels) in enumerate(zip(*lists, strict=True)):
            tp, fp, fn = reference.f1_counts(labels, true_labels, value, background, legacy)
            assert scores.counts.true_positives[index, column] == tp
            assert scores.counts.false_positives[index, column] == fp
            assert scores.counts.false_negatives[index, column] == fn
    assert mof(predicted, truth) == scores.mof
    assert edit(predicted, truth, background=background) == scores.edit


def test_many_videos_of_very_different_lengths_equal_the_literal_definition():
    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 4, n) for n in rng.integers(1, 40, 600)]
    predicted = [rng.integers(0, 4, len(labels)) for labels in truth]
    expected = reference.edit(unzipped(predicted), unzipped(truth), {1})
    assert edit(predicted, truth, background={1}) == pytest.approx(expected, **EXACT)


@settings(max_examples=50, deadline=None)
@given(st.lists(frames(), min_size=1, max_size=4))
def test_truth_scores_100(videos):
    scores = segmentation_scores(videos, videos)
    assert (scores.mof, scores.edit, *scores.f1, scores.avg) == (100.0,) * 6


@settings(max_examples=50, deadline=None)
@given(video_sets, st.permutations(range(4)))
def test_names_of_labels_do_not_matter(videos, names):
    renamed = [[np.array(names)[labels] * 1000 - 7 for labels in part] for part in videos]
    before, after = segmentation_scores(*videos), segmentation_scores(*renamed)
    assert (before.mof, before.edit, before.f1) == (after.mof, after.edit, after.f1)


@settings(max_examples=50, deadline=None)
@given(runs, runs, st.integers(2, 5))
def test_edit_ignores_durations(predicted, truth, factor):
    # Two lists of runs of one total length, once as they are and once with each run longer.
    def spread(some_runs, scale):
        return np.concatenate([np.repeat(label, length * scale) for label, length in some_runs])

    def padded(labels, num_frames):
        return np.append(labels, np.repeat(labels[-1], num_frames - len(labels)))

    scores = []
    for scale in (1, factor):
        first, second = spread(predicted, scale), spread(truth, 1)
        longest = max(len(first), len(second)) + scale
        scores.append(edit_score(padded(first, longest), padded(second, longest)))
    assert scores[0] == scores[1]


@settings(max_examples=50, deadline=None)
@given(video_sets, st.lists(overlap_values, min_size=2, max_size=5))
def test_f1_never_rises_with_the_overlap(videos, overlaps):
    scores = f1(*videos, overlaps=tuple(sorted(overlaps)))
    assert list(scores) == sorted(scores, reverse=True)


@settings(max_examples=50, deadline=None)
@given(video_sets, st.randoms(use_true_random=False))
def test_order_of_videos_does_not_matter(videos, random):
    order = random.sample(range(len(videos[0])), len(videos[0]))
    before = segmentation_scores(*videos)
    after = segmentation_scores(*[[part[index] for index in order] for part in videos])
    assert after.mof == before.mof
    assert after.f1 == before.f1
    assert after.edit == pytest.approx(before.edit)


def test_mof_ignores_the_order_of_frames_and_edit_does_not():
    truth, predicted = letters("aaabbb"), letters("aaabba")
    order = [0, 3, 1, 4, 2, 5]
    assert mof([predicted[order]], [truth[order]]) == mof([predicted], [truth])
    assert edit_score(predicted[order], truth[order]) != edit_score(predicted, truth)


@pytest.mark.parametrize("score", [segmentation_scores, mof, edit, f1, f1_counts])
def test_wrong_input_is_refused_in_a_sentence(score):
    whole, half = np.zeros(4, dtype=int), np.zeros(2, dtype=int)
    with pytest.raises(ValueError, match=r"video 1 .* got 2 and 4: bring"):
        score([whole, half], [whole, whole])
    with pytest.raises(ValueError, match="same videos, at least one, got 1 and 2"):
        score([whole], [whole, whole])
    with pytest.raises(ValueError, match="got 0 and 0"):
        score([], [])


@pytest.mark.parametrize("score", [segmentation_scores, mof, edit, f1_counts])
def test_labels_that_are_no_integers_are_refused_without_a_type_checker(score):
    unchecked, half = inspect.unwrap(score), np.zeros(2, dtype=int)
    with pytest.raises(ValueError, match=r"predicted .* integers .* got float64"):
        unchecked([np.array([0, np.nan])], [half])
    with pytest.raises(ValueError, match=r"true .* integers .* got <U1"):
        unchecked([half], [np.array(["a", "b"])])


def test_frames_and_overlaps_are_required():
    empty = np.zeros(0, dtype=int)
    with pytest.raises(ValueError, match="at least one frame, got none in video 1"):
        segmentation_scores([letters("a"), empty], [letters("a"), empty])
    with pytest.raises(ValueError, match="at least one frame"):
        mof([empty], [empty])
    for overlaps in ((), (0.0,), (0.5, 10.0)):
        with pytest.raises(ValueError, match=r"overlaps must lie in \(0, 1\], got"):
            f1([letters("a")], [letters("a")], overlaps=overlaps)
