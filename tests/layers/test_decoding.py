import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actioncast.layers.decoding import (
    NO_QUERY,
    before_end,
    duration_shares,
    hold_frames,
    lay_out,
    named_frames,
)
from goldens import golden_file

K = 4
END = K


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(golden_file("metrics/lta_decode.json").read_text())["cases"]


def decode(
    labels: list[int],
    durations: list[float],
    horizon: int,
    end: int = END,
    **options: Any,
) -> list[int]:
    """The label of every frame; the end where no query names it."""
    options = {"fill": "last_query", "end_first": "last_query"} | options
    queries = lay_out(
        torch.tensor(labels), torch.tensor(durations), horizon, end=end, **options
    ).tolist()
    return [end if query == NO_QUERY else labels[query] for query in queries]


def official(case: dict[str, Any], **options: Any) -> list[tuple[list[int], list[int] | None]]:
    """Our frames and the recorded ones, for every video that the official code finished."""
    stride = case["sample_rate"] if options.pop("strided", False) else 1
    pairs = []
    for video, frames in zip(case["videos"], case["official"]["decoded_future"], strict=False):
        length = len(video["gt"][::stride])
        labels, durations = video["query_labels"], video["raw_durations"]
        ours = decode(labels, durations, int(0.5 * length), case["NONE"], **options)
        pairs.append((ours, frames))
    return pairs


def test_clean_videos_are_decoded_as_by_the_official_code(golden: dict[str, Any]) -> None:
    pairs = [pair for case in golden["futr_clean"] for pair in official(case)]
    assert pairs
    for ours, frames in pairs:
        assert ours == frames


def test_a_tie_moves_a_border_by_one_frame_at_most(golden: dict[str, Any]) -> None:
    pairs = [pair for case in golden["futr_rounding_ties"] for pair in official(case)]
    assert pairs
    for ours, frames in pairs:
        assert frames is not None
        assert len(ours) == len(frames)
        # Only a moved border changes a frame, and by one frame a query these cannot touch.
        changed = [i for i, (a, b) in enumerate(zip(ours, frames, strict=True)) if a != b]
        for i in changed:
            assert ours[i] in frames[max(i - 1, 0) : i + 2]


def test_actionllm_is_decoded_by_the_same_function(golden: dict[str, Any]) -> None:
    options = {"fill": "last_query", "end_first": "nothing", "strided": True}
    pairs = [pair for case in golden["actionllm"] for pair in official(case, **options)]
    assert any(frames is None for _, frames in pairs)
    for ours, frames in pairs:
        assert set(ours) == {5} if frames is None else ours == frames


def test_where_the_official_code_forgets_to_reset_the_end_all_queries_count(
    golden: dict[str, Any],
) -> None:
    videos = [
        (video["query_labels"], video["raw_durations"], int(0.5 * video["length"]), case["NONE"])
        for case in golden["futr_buggy"]
        for video in case["videos"]
        if case["NONE"] not in video["query_labels"]
    ]
    assert videos
    for labels, durations, horizon, end in videos:
        weights = [math.exp(raw) for raw in durations]
        lengths = [math.floor(0.5 + horizon * weight / sum(weights)) for weight in weights]
        by_hand = [a for a, n in zip(labels[:-1], lengths, strict=False) for _ in range(n)]
        by_hand += [labels[-1]] * (horizon - len(by_hand))
        assert decode(labels, durations, horizon, end) == by_hand[:horizon]


def test_buggy_videos_that_have_an_end_are_decoded_as_by_the_official_code(
    golden: dict[str, Any],
) -> None:
    pairs = [
        pair
        for case in golden["futr_buggy"]
        for video, pair in zip(case["videos"], official(case), strict=False)
        if case["NONE"] in video["query_labels"]
    ]
    assert pairs
    for ours, frames in pairs:
        assert ours == frames


def moc(truths: list[list[int]], futures: list[list[int]], alpha: float) -> list[float]:
    """Mean over classes of the spec, section 5, for beta .1 .2 .3 .5."""
    means = []
    for beta in (0.1, 0.2, 0.3, 0.5):
        hits, seen = [0] * (K + 1), [0] * (K + 1)
        for truth, future in zip(truths, futures, strict=True):
            start, end = int(alpha * len(truth)), int((alpha + beta) * len(truth))
            for actual, named in zip(truth[start:end], future, strict=False):
                seen[actual] += 1
                hits[actual] += actual == named
        shares = [hit / count for hit, count in zip(hits, seen, strict=True) if count]
        means.append(sum(shares) / len(shares))
    return means


V1 = [0] * 6 + [1] * 4 + [2] * 5 + [3] * 5
V2 = [1] * 8 + [2] * 17 + [3] * 5
LOG = [math.log(n) for n in range(1, 10)]


def ln(*numbers: int) -> list[float]:
    return [LOG[number - 1] for number in numbers]


def test_two_videos_by_hand() -> None:
    first = decode([0, 1, END, 2], ln(3, 4, 1, 1), 10)
    second = decode([1, 2, 3, END], ln(1, 2, 4, 1), 15)
    assert first == [0] * 4 + [1] * 6
    assert second == [1] * 2 + [2] * 4 + [3] * 9
    scores = moc([V1, V2], [first, second], 0.2)
    assert scores == pytest.approx([1, 5 / 6, (1 + 2 / 3 + 4 / 7) / 3, (1 + 2 / 3 + 4 / 17) / 3])
    scores = moc([V1, V2], [first, second], 0.3)
    assert scores == pytest.approx([0.1667, 0.3333, 0.1818, 0.0667], abs=5e-5)


def test_actionllm_on_every_second_frame_by_hand() -> None:
    nothing_first = {"end_first": "nothing"}
    first = decode([0, 1, END, 2], ln(3, 4, 1, 1), 5, **nothing_first)
    second = decode([1, 2, 3, END], ln(1, 2, 4, 1), 7, **nothing_first)
    scores = moc([V1[::2], V2[::2]], [first, second], 0.2)
    assert scores == pytest.approx([1, 0.8333, 0.7778, 0.6389], abs=5e-5)
    assert decode([END, 1, 2, 3], [0.0] * 4, 10, **nothing_first) == [END] * 10


def test_rounding_residue_belongs_to_whom_fill_names() -> None:
    labels, durations = [0, 1, 2, END], [0.0] * 4
    released = decode(labels, durations, 10)
    assert released == [0] * 3 + [1] * 3 + [2] * 3 + [END]
    assert moc([V1], [released], 0.2) == pytest.approx([1, 0.75, 0.875, 0.8333], abs=5e-5)
    corrected = decode(labels, durations, 10, fill="last_action")
    assert corrected == [0] * 3 + [1] * 3 + [2] * 4


def test_the_end_first_has_three_named_rules() -> None:
    labels = [END, 1, 2, 3]

    def queries(end_first: str, labels: list[int] = labels) -> list[int]:
        fill = "last_query" if end_first == "last_query" else "last_action"
        raw = torch.zeros(4)
        rows = torch.tensor(labels)
        return lay_out(rows, raw, 3, end=END, fill=fill, end_first=end_first).tolist()

    assert queries("last_query") == [3, 3, 3]
    assert queries("last_query", [END, 1, 2, END]) == [NO_QUERY] * 3
    assert queries("first_action") == [0, 0, 0]
    assert queries("nothing") == [NO_QUERY] * 3


@pytest.mark.parametrize("fill", ["last_action", "last_query"])
@pytest.mark.parametrize("end_first", ["first_action", "last_query", "nothing"])
def test_the_two_choices_are_independent(fill: str, end_first: str) -> None:
    options = {"end": END, "fill": fill, "end_first": end_first}
    first = lay_out(torch.tensor([END, 1, 2]), torch.zeros(3), 2, **options).tolist()
    assert first == [{"first_action": 0, "last_query": 2, "nothing": NO_QUERY}[end_first]] * 2
    ties = lay_out(torch.tensor([0, 1, 2, END]), torch.zeros(4), 10, **options).tolist()
    assert ties[9] == {"last_action": 2, "last_query": NO_QUERY}[fill]


def test_without_an_end_all_queries_count() -> None:
    frames = decode([0, 1, 2, 3], [0.0] * 4, 8, fill="last_action")
    assert frames == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_end_that_takes_time_leaves_its_frames_unnamed() -> None:
    options = {"fill": "last_action", "end_first": "nothing", "end_takes_time": True}
    assert decode([0, 1, END, 2], ln(1, 2, 2, 9), 10, **options) == ([0] * 2 + [1] * 4 + [END] * 4)
    # The residue is the last action's, and the end comes a frame later.
    assert decode([0, 1, END, 2], [0.0] * 4, 10, **options) == [0] * 3 + [1] * 4 + [END] * 3
    # Two halves of three frames round to two each; the end is what is cut.
    assert decode([0, END], [0.0] * 2, 3, **options) == [0, 0, END]
    assert decode([END, 1, 2, 3], [0.0] * 4, 5, **options) == [END] * 5
    assert decode([0, 1, 2, 3], [0.0] * 4, 4, **options) == [0, 1, 2, 3]


def test_what_runs_over_the_horizon_is_cut() -> None:
    assert decode([0, 1, 2, 3], [0.0] * 4, 2) == [0, 1]


def test_huge_raw_durations_do_not_overflow() -> None:
    frames = decode([0, 1, END], [1000.0, 1000.0, 0.0], 4, fill="last_action")
    assert frames == [0, 0, 1, 1]
    shares = duration_shares(torch.tensor([-2000.0, -2000.0]), torch.tensor([True, True]))
    assert shares.tolist() == [0.5, 0.5]


def test_shares_of_half_precision_are_float32() -> None:
    shares = duration_shares(torch.ones(3, dtype=torch.bfloat16), torch.ones(3).bool())
    assert shares.dtype == torch.float32
    assert shares.tolist() == pytest.approx([1 / 3] * 3)


def test_shares_of_nothing_are_zero_and_have_a_gradient_of_zero() -> None:
    raw = torch.zeros(2, 3, requires_grad=True)
    counted = torch.tensor([[True, True, False], [False, False, False]])
    shares = duration_shares(raw, counted)
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    (shares * torch.arange(3)).sum().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert not raw.grad[1].any()


def test_only_the_first_end_ends() -> None:
    labels = torch.tensor([[0, END, 1, END], [0, 1, 2, 3], [END, 0, 0, 0]])
    assert before_end(labels, END).sum(1).tolist() == [1, 4, 0]


queries = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, END), min_size=n, max_size=n),
        st.lists(st.floats(-20, 20, width=32), min_size=n, max_size=n),
    )
)


@given(queries, st.integers(0, 400))
def test_the_corrected_rule_names_every_frame_in_order(
    spoken: tuple[list[int], list[float]], horizon: int
) -> None:
    labels, durations = spoken
    named = lay_out(
        torch.tensor(labels),
        torch.tensor(durations),
        horizon,
        end=END,
        fill="last_action",
        end_first="first_action",
    )
    assert len(named) == horizon
    assert (named >= 0).all()
    assert (named.diff() >= 0).all()
    num_actions = labels.index(END) if END in labels else len(labels)
    assert (named < max(num_actions, 1)).all()


@given(queries, st.integers(0, 400))
def test_every_length_is_within_rounding_of_its_share(
    spoken: tuple[list[int], list[float]], horizon: int
) -> None:
    labels, durations = [label % END for label in spoken[0]], torch.tensor(spoken[1])
    options = {"end": END, "fill": "last_action", "end_first": "first_action"}
    named = lay_out(torch.tensor(labels), durations, horizon, **options)
    lengths = torch.bincount(named, minlength=len(labels))
    wanted = horizon * durations.double().softmax(0)
    assert lengths.sum() == horizon
    # Only the tail is cut or stretched, by what rounding all queries adds up to.
    assert ((lengths - wanted).abs() <= 0.5 * len(labels) + 0.51).all()


@given(queries, st.integers(0, 100), st.sampled_from(["last_action", "last_query"]))
def test_a_batch_is_decoded_row_by_row(
    spoken: tuple[list[int], list[float]], horizon: int, fill: str
) -> None:
    labels, durations = torch.tensor(spoken[0]), torch.tensor(spoken[1])
    rows = torch.stack([labels, labels.flip(0)]), torch.stack([durations, durations.flip(0)])
    options = {"end": END, "fill": fill, "end_first": "last_query"}
    both = lay_out(*rows, horizon, **options)
    for i in range(2):
        assert both[i].equal(lay_out(rows[0][i], rows[1][i], horizon, **options))


def test_frames_carry_the_probabilities_of_their_query() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    frames = named_frames(probs, torch.tensor([0, 1, 1, NO_QUERY]))
    assert frames.equal(torch.stack([probs[0], probs[1], probs[1], torch.zeros(2)]))
    assert named_frames(probs, torch.zeros(0, dtype=torch.long)).shape == (0, 2)


def test_steps_are_held_for_a_stride() -> None:
    probs = torch.eye(3)
    assert hold_frames(probs, 2, 5).argmax(1).tolist() == [0, 0, 1, 1, 2]
    assert hold_frames(probs, 2, 8).argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert hold_frames(probs, 1, 3).equal(probs)
    assert hold_frames(probs, 4, 2).argmax(1).tolist() == [0, 0]
    assert hold_frames(probs[:0], 2, 0).shape == (0, 3)


def test_nothing_cannot_be_held() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        hold_frames(torch.zeros(0, 3), 2, 1)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        hold_frames(torch.eye(3), 0, 1)
