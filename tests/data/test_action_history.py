import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.action_history import NUM_TIMES, ActionHistory, HistoryConfig
from actioncast.data.clips import ActionClip
from actioncast.protocols.next_action import NextAction
from epic_folders import clip, clip_dataset, real_epic_kitchens

# Seconds on a grid: equal starts and ends at the boundary itself do happen.
TENTHS = st.integers(0, 300).map(lambda n: n / 10)


@st.composite
def videos(draw: st.DrawFn) -> tuple[ActionClip, ...]:
    """Overlapping actions of one video, in any order."""
    count = draw(st.integers(1, 12))
    return tuple(
        clip(
            f"P01_01_{i}",
            start := draw(TENTHS),
            start + draw(st.integers(1, 80)) / 10,
            draw(st.integers(0, 2)),
            draw(st.integers(0, 1)),
        )
        for i in range(count)
    )


def test_a_finished_and_an_unfinished_action_by_hand():
    asked = clip("P01_01_9", 10.0, 12.0)
    past = [clip("P01_01_0", 2.0, 5.0, 2, 1), clip("P01_01_1", 6.0, 11.0, 1, 0)]
    history = ActionHistory(clip_dataset([*past, asked]), anticipation_time=1.0)
    assert history.until(asked) == 9.0
    observed = history.observed(asked)
    assert observed.verbs.tolist() == [2, 1]
    assert observed.nouns.tolist() == [1, 0]
    assert observed.actions.tolist() == [5, 2]
    assert observed.since_start.tolist() == [7.0, 3.0]
    assert observed.since_end.tolist() == [4.0, 0.0]
    assert observed.going_on.tolist() == [False, True]
    tokens = history.read(asked)
    assert history.width == 3 + 2 + NUM_TIMES == tokens.shape[1]
    expected = [
        [0, 0, 1, 0, 1, np.log(8), np.log(5), np.log(4), 0, 15 / 16],
        [0, 1, 0, 1, 0, np.log(4), 0, np.log(4), 1, 1],
    ]
    assert tokens == pytest.approx(np.array(expected), abs=1e-6)
    assert history.labels(asked).tolist() == [5, 2]


@pytest.mark.parametrize(
    ("start", "stop", "known", "going_on"),
    [
        (8.9, 8.95, True, False),
        (8.9, 9.0, True, True),  # whether it ends at the boundary cannot be seen before it
        (8.9, 30.0, True, True),
        (9.0, 9.5, False, None),
        (9.5, 9.9, False, None),
        (10.0, 12.0, False, None),
    ],
)
def test_known_is_what_started_before_the_boundary(
    start: float, stop: float, known: bool, going_on: bool | None
):
    asked = clip("P01_01_9", 10.0, 12.0)
    history = ActionHistory(clip_dataset([clip("P01_01_0", start, stop), asked]))
    observed = history.observed(asked)
    assert len(observed) == known
    if known:
        assert observed.going_on.tolist() == [going_on]


def test_the_latest_actions_are_told_and_the_gap_hides_more():
    clips = [clip(f"P01_01_{i}", float(i), i + 0.5, i % 3) for i in range(8)]
    dataset = clip_dataset(clips)
    asked = clips[7]
    assert ActionHistory(dataset).observed(asked).verbs.tolist() == [0, 1, 2, 0, 1, 2]
    two = HistoryConfig(max_actions=2)
    assert ActionHistory(dataset, config=two).observed(asked).verbs.tolist() == [1, 2]
    gap = HistoryConfig(max_actions=2, gap=3.0)
    observed = ActionHistory(dataset, config=gap).observed(asked)
    assert observed.verbs.tolist() == [1, 2]
    assert observed.since_start.tolist() == [2.0, 1.0]


def test_an_early_clip_has_no_token_and_its_width_is_right():
    asked = clip("P01_01_0", 0.5, 2.0)
    history = ActionHistory(clip_dataset([asked]))
    assert history.read(asked).shape == (0, history.width)
    assert history.labels(asked).shape == (0,)


def test_other_videos_have_no_say():
    asked = clip("P01_01_9", 10.0, 12.0)
    other = clip("P01_02_0", 2.0, 5.0, video="P01_02")
    assert len(ActionHistory(clip_dataset([other, asked])).observed(asked)) == 0


@given(videos(), st.data())
def test_nothing_at_or_after_the_boundary_changes_what_is_told(
    clips: tuple[ActionClip, ...], data: st.DataObject
):
    """The future is taken away, its labels are exchanged, and what goes on ends otherwise."""
    asked = clips[0]
    boundary = asked.start - 1.0
    seen = [one for one in clips if one.start < boundary]
    future = [one for one in clips if one.start >= boundary]
    shuffled = data.draw(st.permutations(future))
    changed = [
        replace(one, verb=other.verb, noun=other.noun, action=other.action, stop=one.stop + 3)
        for one, other in zip(future, shuffled, strict=True)
    ]
    longer = [
        replace(one, stop=one.stop + data.draw(st.floats(0, 50))) if one.stop >= boundary else one
        for one in seen
    ]
    config = HistoryConfig(max_actions=4)
    told = ActionHistory(clip_dataset(clips), config=config).read(asked)
    for others in (seen, [*changed, *seen], [*longer, *data.draw(st.permutations(changed))]):
        # Its own labels and its own end may not be known either.
        spoilt = replace(asked, verb=2, noun=1, action=5, stop=asked.stop + 9)
        video = clip_dataset([one for one in others if one.id != asked.id] + [spoilt])
        assert (ActionHistory(video, config=config).read(spoilt) == told).all()


@given(videos())
def test_what_is_told_does_change_with_the_past(clips: tuple[ActionClip, ...]):
    asked = replace(clips[0], id="asked", start=60.0, stop=61.0)
    earlier = clip_dataset([*clips, asked])
    dropped = clip_dataset([*clips[1:], asked])
    assert len(ActionHistory(earlier).read(asked)) == len(clips)
    assert len(ActionHistory(dropped).read(asked)) == len(clips) - 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"max_actions": 0}, "max_actions must be"), ({"gap": -0.1}, "gap must be 0 seconds or more")],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        HistoryConfig(**wrong)  # type: ignore[arg-type]


def test_a_negative_anticipation_time_is_refused():
    with pytest.raises(ValueError, match="anticipation_time must be"):
        ActionHistory(clip_dataset([clip("P01_01_0", 1.0, 2.0)]), anticipation_time=-0.1)


def test_a_clip_of_an_unknown_video_is_refused():
    history = ActionHistory(clip_dataset([clip("P01_01_0", 1.0, 2.0)]))
    with pytest.raises(ValueError, match="of video P09_01, of which kitchen has no actions"):
        history.read(clip("P09_01_0", 1.0, 2.0, video="P09_01"))


# The published annotation


def test_the_30_early_segments_are_told_nothing():
    dataset = real_epic_kitchens()
    history = ActionHistory(dataset)
    early = [clip for clip in dataset.part("validation") if clip.start - 1 < 1 / 30]
    assert len(early) == 30
    assert all(len(history.read(clip)) == 0 for clip in early)


def test_published_histories_are_as_many_as_counted():
    dataset = real_epic_kitchens()
    history = ActionHistory(dataset)
    lengths = [len(history.observed(clip)) for clip in dataset.part("validation")]
    assert (lengths.count(0), lengths.count(16), len(lengths)) == (155, 7_594, 9_668)
    assert history.width == 97 + 300 + NUM_TIMES


def test_all_published_histories_are_read_in_seconds():
    dataset = real_epic_kitchens()
    begin = time.process_time()
    history = ActionHistory(dataset)
    for part in dataset.clips:
        for one in dataset.part(part):
            history.read(one)
    assert time.process_time() - begin < 30


def test_an_action_that_starts_at_the_boundary_is_not_told_whatever_floats_say() -> None:
    """4.9 - 1.0 as floats is a little after 3.9."""
    assert 4.9 - 1.0 > 3.9
    asked = clip("P01_01_9", 4.9, 6.0)
    early, at_once = clip("P01_01_1", 3.8, 5.0), clip("P01_01_2", 3.9, 5.0, verb=1)
    history = ActionHistory(clip_dataset([early, at_once, asked]))
    assert history.observed(asked).verbs.tolist() == [early.verb]
    assert NextAction().until(4.9, 6.0) == 3.9
