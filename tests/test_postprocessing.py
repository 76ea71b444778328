import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from actioncast.postprocessing import (
    averaged,
    majority,
    median_filtered,
    postprocessed,
    purged,
    restored,
)
from actioncast.types import UNLABELLED, most_likely
from goldens import ROOT, golden_file

CONFIG = "actfusion/postprocess/config.json"


def spelt(spelling: str) -> np.ndarray:
    return np.array(["abcdef".find(letter) for letter in spelling], int)


def moved(spelling: str, source: np.ndarray) -> str:
    return "".join(spelling[i] for i in source)


def sure(spelling: str) -> torch.Tensor:
    """Certainty of each letter; a dot names no action."""
    labels = torch.from_numpy(spelt(spelling))
    return torch.eye(6)[labels.clamp(min=0)] * (labels >= 0)[:, None]


def golden_cases() -> list[str]:
    where = ROOT / CONFIG
    return list(json.loads(where.read_text())["cases"]) if where.is_file() else ["absent"]


@pytest.mark.parametrize("case", golden_cases())
def test_labels_are_those_of_the_released_code(case: str):
    """What `answers` does with the answers of all offsets, from probabilities to labels."""
    file: Path = golden_file(CONFIG)
    about: dict[str, Any] = json.loads(file.read_text())["cases"][case]
    tensors = load_file(file.with_name("io.safetensors"))
    kind, size = about["postprocess"]["type"] or "none", about["postprocess"]["value"] or 0
    lengths = about["lengths_per_offset"]
    offsets = [p.T[:n] for p, n in zip(tensors[f"{case}.probs"], lengths, strict=True)]
    steps = averaged(offsets)
    if kind == "median":
        steps = median_filtered(steps, size)
    frames = restored(steps, about["sample_rate"], about["full_len"])
    frames = postprocessed(frames, kind, size)
    assert most_likely(frames).tolist() == tensors[f"{case}.labels_out"].tolist()


# Averages


def test_the_mean_reaches_as_far_as_the_shortest():
    first, second = torch.rand(4, 6), torch.rand(3, 6)
    torch.testing.assert_close(averaged([first, second]), (first[:3] + second) / 2)


def test_an_answer_that_names_nothing_has_no_say():
    mean = averaged([sure("a.."), sure("ab."), sure("bb.")])
    expected = torch.tensor([[2 / 3, 1 / 3], [0, 1], [0, 0]])
    torch.testing.assert_close(mean[:, :2], expected)


# Medians


def by_hand(values: np.ndarray, size: int) -> np.ndarray:
    """Sort every window of one label; the sequence is mirrored as often as a window needs."""
    there_and_back = np.concatenate([values, values[::-1]])
    return np.array(
        [
            sorted(there_and_back[(t + j) % len(there_and_back)] for j in window)[size // 2]
            for window in [range(-(size // 2), size - size // 2)]
            for t in range(len(values))
        ]
    )


@settings(deadline=None)
@given(st.integers(1, 25), st.integers(1, 31), st.integers(0, 2**31))
def test_rows_of_medians_sum_to_one_again(num_steps: int, size: int, seed: int):
    probs = torch.rand(num_steps, 4, generator=torch.Generator().manual_seed(seed))
    medians = np.stack([by_hand(column, size) for column in probs.numpy().T], 1)
    expected = medians / medians.sum(1, keepdims=True)
    np.testing.assert_allclose(median_filtered(probs, size).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 15, 30, 90])
def test_windows_are_those_of_scipy(size: int):
    ndimage = pytest.importorskip("scipy.ndimage")
    values = np.random.default_rng(size).random(40)
    np.testing.assert_array_equal(by_hand(values, size), ndimage.median_filter(values, size))


def test_an_even_window_reaches_back_and_takes_the_upper_middle():
    """Windows of 4 over 1 2 3 4 5: 2 1 1 2, 1 1 2 3, 1 2 3 4, 2 3 4 5, 3 4 5 5 (mirrored)."""
    probs = torch.tensor([[1.0, 2, 3, 4, 5]]).T / 10
    rest = torch.zeros(5, 1)
    filtered = median_filtered(torch.cat([probs, rest + 1], 1), 4)
    shares = filtered[:, 0] / filtered[:, 1]
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2, 0.3, 0.4, 0.5]))


def test_a_row_without_a_median_stays_as_it_was():
    """Each label is certain for one step in three, so that every median is 0."""
    probs = sure("abcabc")
    assert torch.equal(median_filtered(probs, 3)[1:-1], probs[1:-1])
    assert median_filtered(sure("......"), 3).eq(0).all()
    assert median_filtered(sure(""), 3).shape == (0, 6)


# Purges


@pytest.mark.parametrize(
    ("before", "size", "after"),
    [
        ("aaaaabbbccccc", 3, "aaaaaaccccccc"),  # of three frames one goes back and two go on
        ("aaaaabbccccc", 3, "aaaaaacccccc"),
        ("aaaaabbccccc", 1, "aaaaabbccccc"),
        ("abbbbb", 1, "bbbbbb"),
        ("aaaaabb", 1, "aaaaaab"),  # the last segment ends a frame early, and so keeps one
        ("aaaaabbb", 1, "aaaaabbb"),
        ("aaaaab", 1, "aaaaab"),
        ("aaaaabbccddddd", 2, "aaaaaacbdddddd"),  # what is taken is what stood there before
        ("ab", 5, "bb"),
        ("aaa", 5, "aaa"),
        ("", 5, ""),
    ],
)
def test_short_segments_go_to_their_neighbours(before: str, size: int, after: str):
    assert moved(before, purged(spelt(before), size)) == after


def test_probabilities_move_as_labels_do():
    frames = 0.9 * sure("aaaaabbccccc") + 0.1 * torch.rand(12, 6)
    found = postprocessed(frames, "purge", 2)
    assert torch.equal(found, frames[[0, 1, 2, 3, 4, 4, 7, 7, 8, 9, 10, 11]])
    assert most_likely(found).tolist() == spelt("aaaaaacccccc").tolist()


def test_frames_without_a_name_are_a_segment_too():
    found = most_likely(postprocessed(sure("aaaa..bbbb"), "purge", 2))
    assert found.tolist() == spelt("aaaaabbbbb").tolist()
    assert most_likely(postprocessed(sure("aa......bb"), "purge", 2))[4] == UNLABELLED


# Majorities


def test_the_most_frequent_label_of_a_window_wins():
    assert moved("aaabaaacccbc", majority(spelt("aaabaaacccbc"), 3)) == "aaaaaaaccccc"
    tie = majority(spelt("bbaabb"), 4)  # bbbb(mirrored) bbba ... two of each: the lower
    assert moved("bbaabb", tie) == "bbaaab"
    assert majority(spelt(""), 3).shape == (0,)


@settings(deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), st.integers(1, 40))
def test_a_frame_takes_the_nearest_bearer_of_the_majority(labels: list[int], size: int):
    frames = np.array(labels)
    source = majority(frames, size)
    mirrored = np.concatenate([frames, frames[::-1]])
    for t, chosen in enumerate(source):
        places = range(t - size // 2, t + size - size // 2)
        window = [int(mirrored[i % len(mirrored)]) for i in places]
        best = min(set(window), key=lambda label: (-window.count(label), label))
        bearers = np.flatnonzero(frames == best)
        assert chosen == min(bearers, key=lambda i: (abs(i - t), i))


# Frames


def test_a_step_stands_amid_its_stride():
    """Sheet section 11, item 8: nine frames of the first, eight, and seven of the last."""
    found = most_likely(restored(sure("abc"), 8, 24))
    assert found.tolist() == [0] * 9 + [1] * 8 + [2] * 7


def test_ends_are_held_and_a_stride_of_one_changes_nothing():
    probs = torch.rand(5, 6)
    assert torch.equal(restored(probs, 1, 5), probs)
    assert torch.equal(restored(probs, 3, 40)[15:], probs[-1].expand(25, 6))
    assert restored(probs[:0], 3, 0).shape == (0, 6)
    with pytest.raises(ValueError, match="needs at least one step"):
        restored(probs[:0], 3, 2)


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_frame_takes_the_nearest_step(stride: int, num_steps: int):
    num_frames = num_steps * stride + stride // 2
    ramp = torch.arange(num_steps)[:, None].float()
    for frame, found in enumerate(restored(ramp, stride, num_frames)[:, 0].tolist()):
        away = [abs(stride // 2 + n * stride - frame) for n in range(num_steps)]
        assert found == away.index(min(away))
