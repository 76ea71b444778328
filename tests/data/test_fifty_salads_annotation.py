"""Raw stamps on public frames, by hand and on all videos where they are at hand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from actioncast.data import Dataset, open_dataset
from actioncast.data.fifty_salads_annotation import (
    ENDS,
    PHASES,
    TICK,
    Step,
    align,
    painted,
    read_steps,
)
from actioncast.timeline import run_lengths
from real_data import ROOT, real_dataset

ACTIONS = ("cut_tomato", "add_oil", "mix_dressing", *ENDS)
CONVERSIONS = {
    "mid": {"cut_tomato": "cut_tomato", "add_oil": "add_oil", "mix_dressing": "mix_dressing"},
    "abstract": {"cut_tomato": "cut", "add_oil": "add", "mix_dressing": "mix"},
    "eval": {"cut_tomato": "cut", "add_oil": "null", "mix_dressing": "mix_dressing"},
}
STEPS = [
    (100, 119, "cut_tomato_prep"),
    (110, 115, "cut_tomato_core"),
    (120, 130, "add_oil_core"),
    (134, 139, "mix_dressing_core"),
    (100, 115, PHASES[0]),
    (118, 139, PHASES[1]),
]
"""Ticks, first and last. Sixty frames: action_start 0-9, cut_tomato 10-29, add_oil 30-41 (two ticks
dropped), mix_dressing 42-47, action_end 48-59."""


def write(path: Path, steps: list[tuple[int, int, str]] | None = None) -> Path:
    """A tiny 50 Salads of two videos."""
    raw = path / "activityAnnotations"
    for folder in (path / "groundTruth", path / "splits", raw / "sequences", raw / "conversions"):
        folder.mkdir(parents=True)
    lines = [f"{i} {name}\n" for i, name in enumerate(ACTIONS)]
    (path / "mapping.txt").write_text("".join(lines))
    (path / "dataset.json").write_text('{"name": "50salads"}')
    counts = (
        (ENDS[0], 10),
        ("cut_tomato", 20),
        ("add_oil", 12),
        ("mix_dressing", 6),
        (ENDS[1], 12),
    )
    frames = [name for name, count in counts for _ in range(count)]
    for video in ("01-1", "01-2"):
        (path / "groundTruth" / f"rgb-{video}.txt").write_text("\n".join(frames) + "\n")
        write_steps(path, STEPS if steps is None else steps, video)
    for part, video in (("train", "01-1"), ("test", "01-2")):
        (path / "splits" / f"{part}.split1.bundle").write_text(f"rgb-{video}.txt\n")
    for level, above in CONVERSIONS.items():
        rows = [
            f"{action}_{part} {name}\n"
            for action, name in above.items()
            for part in ("core", "post", "prep")
        ]
        (raw / "conversions" / f"low_to_{level}.txt").write_text("".join(rows))
    return path


def write_steps(path: Path, steps: list[tuple[int, int, str]], video: str = "01-1") -> Path:
    file = path / "activityAnnotations" / "sequences" / f"{video}-activityAnnotation.txt"
    rows = [f"{round(a * TICK)} {round(b * TICK)} {name}\n" for a, b, name in steps]
    file.write_text("".join(rows))
    return file


def runs(dataset: Dataset, head: str) -> list[tuple[str, int, int]]:
    names = dataset.taxonomy.heads[head].names
    frames = dataset.videos["rgb-01-1"].frames_of(head)
    return [(names[label], first, end) for label, first, end in run_lengths(frames)]


def test_a_step_lasts_until_the_next_one_starts():
    steps = [Step(0, 9, "a"), Step(2, 3, "b"), Step(6, 8, "a")]
    assert painted(steps, "ab").tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert painted([Step(2, 3, "b")], "ab").tolist() == [-1, -1, 1, 1]


def test_of_two_that_start_together_the_later_by_name_wins(tmp_path: Path):
    path = write(tmp_path / "s")
    file = write_steps(path, [(0, 4, "b"), (0, 4, "a")])
    assert painted(read_steps(file), "ab").tolist() == [1] * 5


def test_ticks_without_a_frame_are_spread_over_their_action():
    ticks = np.array([-1, 0, 0, 0, 0, 1, 1, 1])
    frames = np.array([8, 8, 8, 0, 0, 1, 1, 1, 9])
    found = align(ticks, frames, (8, 9))
    assert found.first == 3
    assert found.dropped == (2, 0)
    assert found.ticks.tolist() == [1, 3, 5, 6, 7]


def test_other_actions_are_not_laid_on_one_another():
    frames = np.array([8, 0, 0, 1, 9])
    with pytest.raises(ValueError, match="the 2 actions of the public labels"):
        align(np.array([0, 0, 0]), frames, (8, 9))
    with pytest.raises(ValueError, match="got 1 too few"):
        align(np.array([0, 1]), frames, (8, 9))


def test_steps_stand_below_the_public_labels(tmp_path: Path):
    path = write(tmp_path / "s")
    plain = open_dataset("", path)
    dataset = open_dataset("", path, level="low", hierarchy="low")
    assert dataset.taxonomy.levels == ("mid", "low")
    assert dataset.taxonomy.level == "fine"
    assert len(dataset.taxonomy.finest) == 11
    assert runs(dataset, "low") == [
        ("action_start", 0, 10),
        ("cut_tomato_prep", 10, 20),
        ("cut_tomato_core", 20, 30),
        ("add_oil_core", 30, 42),
        ("mix_dressing_core", 42, 48),
        ("action_end", 48, 60),
    ]
    mid = open_dataset("", path, level="mid", hierarchy="low")
    assert mid.taxonomy.labels == plain.taxonomy.labels
    for name, video in plain.videos.items():
        assert mid.videos[name].timeline == video.timeline
    assert plain.fingerprint() in dataset.fingerprints()


def test_phases_are_as_annotated_and_pauses_belong_to_what_was_before(tmp_path: Path):
    dataset = open_dataset("", write(tmp_path / "s"), level="fine", hierarchy="high")
    assert runs(dataset, "high") == [
        ("action_start", 0, 10),
        (PHASES[0], 10, 28),
        (PHASES[1], 28, 48),
        ("action_end", 48, 60),
    ]
    assert not dataset.taxonomy.parents


@pytest.mark.parametrize(
    ("level", "names", "parents"),
    [
        ("abstract", ("add", "cut", "mix", "null", *ENDS), (1, 0, 2, 4, 5)),
        ("eval", ("cut", "mix_dressing", "null", *ENDS), (0, 2, 1, 3, 4)),
    ],
)
def test_conversions_are_levels_by_label(
    tmp_path: Path, level: str, names: tuple[str, ...], parents: tuple[int, ...]
):
    dataset = open_dataset("", write(tmp_path / "s"), level="coarse", hierarchy=level)
    assert dataset.taxonomy.labels.names == names
    assert dataset.taxonomy.parents == {level: parents}


def test_an_action_whose_steps_become_two_names_is_refused(tmp_path: Path):
    path = write(tmp_path / "s")
    file = path / "activityAnnotations" / "conversions" / "low_to_eval.txt"
    file.write_text(file.read_text().replace("add_oil_post null", "add_oil_post mix_dressing"))
    with pytest.raises(ValueError, match="all steps of add_oil must become one name"):
        open_dataset("", path, level="coarse", hierarchy="eval")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "must hold steps, got an empty file"),
        ("1 2\n", "line 1: must be 'first last name'"),
        ("1.5 2 add_oil_core\n", "must be 'first last name'"),
        ("90000 20 add_oil_core\n", "must end after it starts"),
        ("0 16669 add_oil_core\n", "of a tick off"),
        ("0 33338 stir_core\n", "must name steps of low_to_mid.txt or phases, got 'stir_core'"),
        ("0 33338 add_oil_core\n", "rgb-01-1: the raw annotation must have the 3 actions"),
    ],
)
def test_broken_stamps_are_named(tmp_path: Path, text: str, wrong: str):
    path = write(tmp_path / "s")
    write_steps(path, []).write_text(text)
    with pytest.raises(ValueError, match=wrong):
        open_dataset("", path, level="low", hierarchy="low")


def test_a_missing_file_is_named(tmp_path: Path):
    path = write(tmp_path / "s")
    write_steps(path, []).unlink()
    with pytest.raises(FileNotFoundError, match=r"01-1-activityAnnotation.txt does not exist"):
        open_dataset("", path, level="low", hierarchy="low")
    (path / "activityAnnotations" / "conversions" / "low_to_mid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"low_to_mid.txt does not exist"):
        open_dataset("", path, level="low", hierarchy="low")


def test_the_real_stamps_give_the_public_labels_back():
    """What the module says was found, counted again."""
    dataset = real_dataset("50salads")
    raw = ROOT / "50salads" / "activityAnnotations"
    rows = (raw / "conversions" / "low_to_mid.txt").read_text().split()
    action: Mapping[str, str] = dict(zip(rows[::2], rows[1::2], strict=True))
    steps, labels = tuple(action), dataset.taxonomy.labels
    parents = np.array([labels.index(name) for name in action.values()])
    dropped, actions, inner, alike, spread = [], 0, 0, 0, 0
    for video in dataset.videos.values():
        own = read_steps(raw / "sequences" / f"{video.id[-4:]}-activityAnnotation.txt")
        low = painted([step for step in own if step.name in action], steps)
        mid = np.where(low >= 0, parents[low], -1)
        found = align(mid, video.frames(), (labels.index(ENDS[0]), labels.index(ENDS[1])))
        public = video.frames()[found.first : found.first + len(found.ticks)]
        assert (mid[found.ticks] == public).all()
        by_one_offset = found.ticks[0] + np.arange(len(public))
        alike += int((mid[np.minimum(by_one_offset, len(mid) - 1)] == public).sum())
        inner += len(public)
        actions += len(found.dropped)
        lengths = [end - first for _, first, end in run_lengths(public)]
        spread += sum(n for n, gone in zip(lengths, found.dropped, strict=True) if gone)
        dropped.append(sum(found.dropped))
    assert actions == 899
    assert (dropped.count(0), max(dropped), sum(dropped)) == (23, 87, 468)
    assert alike / inner == pytest.approx(0.9879, abs=5e-5)
    assert spread / inner == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize(
    ("level", "hierarchy", "labels", "finest"),
    [
        ("mid", "low", 19, 53),
        ("high", "high", 5, 19),
        ("abstract", "abstract", 8, 19),
        ("eval", "eval", 12, 19),
    ],
)
def test_the_real_raw_levels_open(level: str, hierarchy: str, labels: int, finest: int):
    fine = real_dataset("50salads")
    dataset = open_dataset("50salads", ROOT / "50salads", level=level, hierarchy=hierarchy)
    assert (len(dataset.taxonomy.labels), len(dataset.taxonomy.finest)) == (labels, finest)
    same = [
        np.array_equal(video.frames(), dataset.videos[name].frames_of("mid"))
        for name, video in fine.videos.items()
    ]
    assert all(same) == (hierarchy == "low")


def test_annotated_phases_are_almost_those_of_the_actions():
    real_dataset("50salads")
    high, phase = (
        open_dataset("50salads", ROOT / "50salads", level="coarse", hierarchy=name)
        for name in ("high", "phase")
    )
    assert high.taxonomy.labels.names == phase.taxonomy.labels.names
    same = [high.videos[v].frames() == phase.videos[v].frames() for v in high.videos]
    assert np.concatenate(same).mean() == pytest.approx(0.998, abs=5e-4)
