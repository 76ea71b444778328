import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.protocols.next_action import ClipWindow, NextAction, Recognition, evenly

SECONDS = st.floats(0, 10_000, allow_nan=False)
LENGTHS = st.floats(0.05, 300, allow_nan=False)


def test_four_frames_are_the_middles_of_four_parts_of_two_seconds():
    protocol = NextAction(anticipation_time=1.0, span=2.0, num_frames=4)
    window = protocol.window(10.0, 12.0)
    assert window == ClipWindow(start=7.0, end=9.0, times=(7.25, 7.75, 8.25, 8.75))
    assert not window.empty


def test_the_default_sees_64_frames_at_30_per_second_and_reads_16():
    window = NextAction().window(100.0, 101.0)
    assert window.end == 99.0
    assert window.end - window.start == pytest.approx(64 / 30)
    assert len(window.times) == 16
    assert np.diff(window.times) == pytest.approx(4 / 30)


def test_the_start_of_the_video_cuts_the_window():
    window = NextAction(span=2.0, num_frames=2).window(2.0, 3.0)
    assert window == ClipWindow(start=0.0, end=1.0, times=(0.25, 0.75))


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_an_action_too_early_leaves_nothing_to_see(start: float):
    window = NextAction().window(start, start + 2)
    assert window.empty
    assert window.times == ()


@given(SECONDS, LENGTHS, st.floats(0.01, 20), st.floats(0.01, 60), st.integers(1, 64))
def test_no_time_is_at_or_after_the_boundary(
    start: float, length: float, tau: float, span: float, num_frames: int
):
    protocol = NextAction(anticipation_time=tau, span=span, num_frames=num_frames)
    window = protocol.window(start, start + length)
    boundary = protocol.until(start, start + length)
    assert abs(boundary - (start - tau)) <= 5.1e-7
    assert all(0 <= time < boundary for time in window.times)
    assert all(time >= boundary - span for time in window.times)
    assert list(window.times) == sorted(window.times)
    assert len(window.times) == (num_frames if boundary > 0 else 0)


@given(SECONDS, LENGTHS, LENGTHS)
def test_the_action_asked_for_has_no_say_in_what_is_seen(start: float, one: float, other: float):
    assert NextAction().window(start, start + one) == NextAction().window(start, start + other)


def test_a_window_of_one_rounding_step_keeps_its_end_out():
    end = np.nextafter(1.0, 2.0)
    assert evenly(1.0, end, 3) == (1.0, 1.0, 1.0)


# InAViT's indexing (sheet of MambaVL, section 5.2)

INAVIT = NextAction(clip="inside_action")


@pytest.mark.parametrize(
    ("length", "furthest"), [(0.8, 0.02), (1.5, 0.02), (3.1, 0.93), (8.0, 5.8)]
)
def test_inavit_frames_lie_as_far_into_the_action_as_the_sheet_says(length: float, furthest: float):
    start = 100.0
    draws = [*np.linspace(0, 1, 2000, endpoint=False).tolist(), 1 - 1e-9]
    times = [INAVIT.window(start, start + length, rate=60, draw=draw).times for draw in draws]
    offsets = np.array(times) - start
    assert offsets.min() >= 0
    # The sheet prints 8 s with one digit, the others with two.
    assert round(float(offsets.max()), 1 if length == 8 else 2) == furthest


def test_inavit_first_frame_of_a_short_action_by_hand():
    """48 frames hold no clip of 128: begin 0 and end -2, counted from 1, clamped at 0."""
    window = NextAction(clip="inside_action", num_frames=3).window(10.0, 10.8, rate=60.0)
    assert window.times == pytest.approx((10.0, 10.0, 10 + 1 / 60))


def test_frames_inside_the_action_show_in_name_sentence_and_flag():
    assert "inside the action" in INAVIT.name
    assert "inside the action" in INAVIT.sentence()
    assert INAVIT.leaks
    assert not NextAction().leaks
    assert "inside" not in NextAction().name + NextAction().sentence()
    assert NextAction().sentence() == (
        "16 frames of the 2.133 s that end 1 s before the action starts; none at or after that "
        "moment."
    )


@given(SECONDS, LENGTHS, st.floats(0, 1, exclude_max=True))
def test_inavit_never_shows_anything_before_the_action(start: float, length: float, draw: float):
    window = INAVIT.window(start, start + length, draw=draw)
    assert all(start <= time < start + length + 1 / 60 for time in window.times)


# Recognition


def test_recognition_sees_the_clip_itself():
    window = Recognition(num_frames=2).window(4.0, 8.0)
    assert window == ClipWindow(start=4.0, end=8.0, times=(5.0, 7.0))
    assert Recognition().until(4.0, 8.0) == 8.0
    assert Recognition().anticipation_time == 0
    assert "itself" in Recognition().sentence()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"anticipation_time": 0.0}, "take Recognition"),
        ({"anticipation_time": float("nan")}, "anticipation_time must be"),
        ({"span": 0.0}, "span must be"),
        ({"num_frames": 0}, "num_frames must be"),
    ],
)
def test_impossible_protocols_are_refused(wrong: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        NextAction(**wrong)  # type: ignore[arg-type]


def test_a_draw_outside_its_share_is_refused():
    with pytest.raises(ValueError, match="draw must be"):
        INAVIT.window(0.0, 1.0, draw=1.0)
