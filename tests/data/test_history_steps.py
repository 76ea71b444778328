import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.action_history import HistoryConfig
from actioncast.data.clip_samples import (
    ClipSamples,
    LabelledSource,
    SteppedSource,
    collate_clips,
)
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.history_steps import HistorySteps
from actioncast.types import IGNORE
from epic_folders import clip, clip_dataset, real_epic_kitchens

HALVES = HistoryConfig(rate=2.0, span=3.0)
FIRST = clip("P01_01_0", 0.5, 1.5, 0, 0)
OVERLAPPING = clip("P01_01_1", 1.0, 2.0, 2, 1)
THIRD = clip("P01_01_2", 2.5, 3.5, 1, 0)
ASKED = clip("P01_01_3", 4.0, 5.0, 1, 1)
VIDEO = (FIRST, OVERLAPPING, THIRD, ASKED)
NONE = IGNORE


def stream(
    clips: Sequence[ActionClip] = VIDEO, config: HistoryConfig = HALVES, ahead: float = 1.0
) -> HistorySteps:
    return HistorySteps(clip_dataset(clips), ahead, config)


def test_a_video_of_three_actions_by_hand() -> None:
    """Steps of half a second up to 3.0 s; every action starts or stops at the end of one."""
    steps = stream()
    assert steps.until(ASKED) == 3.0
    #  columns: take, put, wash | tap, pan | nothing
    expected = [
        [0, 0, 0, 0, 0, 1],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 1, 1, 1, 0],
        [0, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 1, 0, 1, 0, 0],
    ]
    assert steps.read(ASKED).tolist() == expected
    assert steps.width == 6
    assert steps.labels(ASKED).tolist() == [NONE, 0, 5, 5, NONE, 2]


def test_what_trains_by_hand() -> None:
    """The third action starts at 2.5 s: up to 1.5 s may be seen before it, where step 2 ends."""
    found = stream().steps(ASKED)
    assert found.frames["verb"].tolist() == [NONE, 0, 2, 2, NONE, 1]
    assert found.frames["noun"].tolist() == [NONE, 0, 1, 1, NONE, 0]
    assert found.frames["action"].tolist() == [NONE, 0, 5, 5, NONE, 2]
    assert found.starts["verb"].tolist() == [NONE, NONE, 1, NONE, NONE, 1]
    assert found.starts["noun"].tolist() == [NONE, NONE, 0, NONE, NONE, 1]
    assert found.starts["action"].tolist() == [NONE, NONE, 2, NONE, NONE, 3]


@pytest.mark.parametrize(
    ("start", "step"), [(2.49, 1), (2.5, 2), (2.99, 2), (3.0, 3), (1.49, None), (1.5, 0), (3.99, 4)]
)
def test_a_start_stands_at_the_last_step_over_by_then(start: float, step: int | None) -> None:
    other = clip("P01_01_1", start, 20.0, 2, 1)
    expected = [5 if i == step else NONE for i in range(5)] + [3]
    assert stream((other, ASKED)).steps(ASKED).starts["action"].tolist() == expected


def test_of_several_starts_the_earliest_then_the_lowest_id_counts() -> None:
    later, sooner = clip("P01_01_0", 2.8, 9.0, 0, 1), clip("P01_01_1", 2.6, 9.0, 2, 0)
    equal = clip("P01_01_2", 2.6, 9.0, 1, 0)
    assert stream((later, sooner, equal, ASKED)).steps(ASKED).starts["action"][2] == 4
    # At the last step it is the clip's own, though another starts with it.
    twin = clip("P01_01_1", 4.0, 4.5, 0, 0)
    found = stream((twin, ASKED))
    assert found.steps(ASKED).starts["action"][-1] == ASKED.action
    assert found.steps(twin).starts["action"][-1] == twin.action


def test_of_actions_that_start_at_once_the_last_id_names_the_step() -> None:
    one, two = clip("P01_01_0", 1.0, 2.0, 0, 0), clip("P01_01_1", 1.0, 3.0, 2, 1)
    assert stream((two, one, ASKED)).labels(ASKED).tolist() == [NONE, NONE, 5, 5, 5, 5]


def test_a_gap_hides_more_and_moves_the_starts() -> None:
    steps = stream(config=replace(HALVES, gap=0.5))
    assert steps.until(ASKED) == 2.5
    assert steps.labels(ASKED).tolist() == [NONE, 0, 5, 5, NONE]
    # Up to 1.0 s may be seen before the third: step 1 ends there.
    assert steps.steps(ASKED).starts["action"].tolist() == [NONE, 2, NONE, NONE, 3]


@pytest.mark.parametrize(
    ("start", "count"), [(0.2, 0), (1.0, 0), (1.01, 1), (1.5, 1), (1.6, 2), (3.8, 6), (9.0, 6)]
)
def test_early_clips_have_the_steps_that_there_are(start: float, count: int) -> None:
    asked = replace(ASKED, start=start, stop=start + 1)
    steps = stream((asked,))
    assert steps.read(asked).shape == (count, 6)
    assert steps.labels(asked).shape == steps.steps(asked).starts["verb"].shape == (count,)


def test_the_first_step_may_begin_before_the_video() -> None:
    """At 3.8 s steps end at 0.3, 0.8, ..., 2.8 s: the first shows 0.3 s of the video."""
    asked = replace(ASKED, start=3.8)
    early = clip("P01_01_0", 0.25, 0.3, 2, 0)
    assert stream((early, asked)).labels(asked).tolist() == [4] + [NONE] * 5


def test_answers_of_another_part_train_nothing() -> None:
    """A validation clip of the same video may be seen, and is no target."""
    dataset = clip_dataset(VIDEO)
    split = replace(dataset, clips={"train": (FIRST, OVERLAPPING, ASKED), "validation": (THIRD,)})
    steps = HistorySteps(split, 1.0, HALVES)
    found = steps.steps(ASKED)
    assert found.starts["action"].tolist() == [NONE] * 5 + [3]
    assert found.frames["action"].tolist() == [NONE, 0, 5, 5, NONE, NONE]
    assert (steps.read(ASKED) == stream().read(ASKED)).all()
    assert steps.steps(THIRD).starts["action"].tolist() == [NONE, NONE, 2]
    with pytest.raises(ValueError, match="stands in no part"):
        steps.steps(clip("P01_01_8", 4.0, 5.0))


# Against the definition, in whole ticks of a twentieth of a second


@st.composite
def videos(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Start, stop, verb and noun of some actions, in ticks."""
    count = draw(st.integers(1, 10))
    return [
        (
            start := draw(st.integers(0, 200)),
            start + draw(st.integers(1, 60)),
            draw(st.integers(0, 2)),
            draw(st.integers(0, 1)),
        )
        for _ in range(count)
    ]


@given(videos(), st.sampled_from([1, 2, 4, 5, 10]), st.integers(1, 6), st.integers(0, 2))
def test_every_step_is_as_defined(
    rows: list[tuple[int, int, int, int]], rate: int, span: int, gap: int
) -> None:
    clips = [clip(f"P01_01_{i:02}", a / 20, b / 20, v, n) for i, (a, b, v, n) in enumerate(rows)]
    asked = clips[0]
    steps = stream(clips, HistoryConfig(rate=rate, span=span, gap=gap / 4))
    ticks = 20 // rate
    until = rows[0][0] - 20 - 5 * gap
    num_steps = max(0, min(span * rate, -(-until // ticks)))
    tokens, labels, found = steps.read(asked), steps.labels(asked), steps.steps(asked)
    assert len(tokens) == len(labels) == num_steps
    for j in range(num_steps):
        end = until - (num_steps - 1 - j) * ticks
        shown = [i for i, (a, b, *_) in enumerate(rows) if a < end and b > end - ticks]
        row = np.zeros(6)
        for i in shown:
            row[[rows[i][2], 3 + rows[i][3]]] = 1
        row[5] = not shown
        assert tokens[j].tolist() == row.tolist()
        last = max(shown, key=lambda i: (rows[i][0], i), default=None)
        assert labels[j] == (IGNORE if last is None else clips[last].action)
        starting = [i for i, (a, *_) in enumerate(rows) if end <= a - 20 - 5 * gap < end + ticks]
        first = min(starting, key=lambda i: (rows[i][0], i), default=None)
        own = asked.action if j == num_steps - 1 else None
        expected = IGNORE if first is None else clips[first].action
        assert found.starts["action"][j] == (expected if own is None else own)
    assert (found.frames["action"] == labels).all()


# Batches


def test_batches_carry_what_trains_in_targets_alone() -> None:
    steps = stream()
    assert isinstance(steps, LabelledSource)
    assert isinstance(steps, SteppedSource)
    samples = ClipSamples([THIRD, ASKED], [steps], supervise=True)
    x, y = collate_clips([samples[0], samples[1]], anticipation_time=1.0, rate=2.0)
    assert x.valid.tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    assert x.labels is not None
    assert x.labels.tolist() == [[NONE, 0, 5, NONE, NONE, NONE], [NONE, 0, 5, 5, NONE, 2]]
    assert y.frames["action"].tolist() == x.labels.tolist()
    assert y.starts["verb"].tolist() == [
        [NONE, NONE, 1] + [NONE] * 3,
        [NONE, NONE, 1, NONE, NONE, 1],
    ]
    assert y.starts["verb"].dtype == torch.long
    assert y.next["action"].tolist() == [2, 3]
    plain = ClipSamples([THIRD, ASKED], [steps])
    _, y = collate_clips([plain[0], plain[1]], anticipation_time=1.0, rate=2.0)
    assert not y.frames
    assert not y.starts


def test_a_batch_without_a_step_has_one_that_nothing_trains() -> None:
    early = replace(ASKED, start=0.5)
    samples = ClipSamples([early], [stream((early,))], supervise=True)
    x, y = collate_clips([samples[0]], anticipation_time=1.0, rate=2.0)
    assert not x.valid.any()
    assert y.starts["noun"].tolist() == y.frames["noun"].tolist() == [[IGNORE]]


def test_rates_that_give_no_step_are_refused() -> None:
    with pytest.raises(ValueError, match="rate of a history of steps must be above 0"):
        stream(config=HistoryConfig())
    with pytest.raises(ValueError, match="span times rate must be 1 to"):
        HistoryConfig(rate=0.1, span=1.0)
    for wrong in ({"rate": -1.0}, {"rate": float("nan")}, {"span": 0.0}):
        with pytest.raises(ValueError, match="rate must be within 0 and 1000"):
            HistoryConfig(**wrong)  # type: ignore[arg-type]


# The published annotation


def some_of_validation() -> tuple[ClipDataset, list[ActionClip]]:
    dataset = real_epic_kitchens()
    return dataset, list(dataset.part("validation")[::397])


def test_nothing_at_or_after_the_boundary_shows_in_published_videos() -> None:
    """The future is taken away or its labels are exchanged, and what goes on ends otherwise."""
    dataset, clips = some_of_validation()
    by_video = dataset.by_video()
    steps, rng = HistorySteps(dataset), np.random.default_rng(0)
    unfinished = 0
    for asked in clips:
        told, until = steps.read(asked), steps.until(asked)
        video = by_video[asked.video]
        past = [one for one in video if one.start < until]
        future = [one for one in video if one.start >= until and one.id != asked.id]
        unfinished += sum(one.stop >= until for one in past)
        longer = [
            replace(c, stop=c.stop + rng.exponential(20)) if c.stop >= until else c for c in past
        ]
        exchanged = [
            replace(a, start=max(until, a.start - 3), verb=b.verb, noun=b.noun, action=b.action)
            for a, b in zip(future, rng.permutation(np.array(future, object)), strict=True)
        ]
        for others in (past, [*longer, *exchanged]):
            spoilt = replace(asked, verb=0, noun=0, action=0, stop=asked.stop + 9)
            changed = replace(dataset, clips={"validation": (*others, spoilt)})
            assert (HistorySteps(changed).read(spoilt) == told).all()
            assert (HistorySteps(changed).labels(spoilt) == steps.labels(asked)).all()
    assert unfinished > 10


def test_published_clips_are_read_as_a_stream_in_well_under_a_millisecond() -> None:
    dataset, clips = some_of_validation()
    steps = HistorySteps(dataset)
    for one in clips:
        found = steps.steps(one)
        assert all(len(rows) == steps.num_steps(one) for rows in found.starts.values())
        if steps.num_steps(one):
            assert [found.starts[head][-1] for head in ("verb", "noun")] == [one.verb, one.noun]
    lengths = [steps.num_steps(one) for one in dataset.part("validation")]
    assert max(lengths) == 128
    assert lengths.count(0) == sum(one.start <= 1.0 for one in dataset.part("validation"))
    begin = time.process_time()
    for one in clips * 20:
        steps.read(one)
        steps.steps(one)
    assert (time.process_time() - begin) / (20 * len(clips)) < 1e-3
