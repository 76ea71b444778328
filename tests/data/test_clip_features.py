import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.clip_features import (
    ClipFeatures,
    RulstmFeatures,
    open_clip_features,
    step_indices,
)
from actioncast.data.clips import ClipDataset
from actioncast.features import FeatureFile
from actioncast.protocols.next_action import NextAction, Recognition
from epic_folders import clip, clip_dataset

FOUR = NextAction(span=2.0, num_frames=4)
ASKED = clip("P01_01_9", 10.0, 12.0)


def steps(num_frames: int, width: int = 3) -> np.ndarray:
    """Step number times 10, plus the column."""
    return (np.arange(num_frames)[:, None] * 10 + np.arange(width)).astype("float32")


@pytest.fixture
def dataset() -> ClipDataset:
    return clip_dataset([ASKED], duration=20.0)


def test_the_steps_at_the_frame_times_are_read(tmp_path: Path, dataset: ClipDataset):
    """Times 7.25, 7.75, 8.25 and 8.75 at 4 steps a second."""
    np.save(tmp_path / "P01_01.npy", steps(80))
    source = open_clip_features(tmp_path, dataset, FOUR, 4.0)
    assert (source.width, source.name) == (3, "features")
    assert source.read(ASKED)[:, 0].tolist() == [290, 310, 330, 350]


def test_both_orders_of_axes_are_read_alike(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(80).T)
    source = open_clip_features(tmp_path, dataset, FOUR, 4.0)
    assert source.read(ASKED)[:, 0].tolist() == [290, 310, 330, 350]
    told = open_clip_features(tmp_path, dataset, FOUR, 4.0, axis=1)
    assert (told.read(ASKED) == source.read(ASKED)).all()


def test_a_slow_rate_reads_a_step_twice(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(20))
    source = open_clip_features(tmp_path, dataset, FOUR, 1.0)
    assert source.read(ASKED)[:, 0].tolist() == [70, 70, 80, 80]


def test_an_early_clip_reads_nothing(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(80))
    source = open_clip_features(tmp_path, dataset, FOUR, 4.0)
    assert source.read(clip("P01_01_0", 0.9, 2.0)).shape == (0, 3)


def test_beyond_the_last_step_it_is_held(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(80))
    source = open_clip_features(tmp_path, dataset, Recognition(num_frames=2), 4.0)
    assert source.read(clip("P01_01_8", 19.0, 23.0))[:, 0].tolist() == [790, 790]


@given(st.floats(0, 500), st.floats(0.1, 20), st.sampled_from([1.0, 4.0, 24.0, 29.97, 30.0, 59.94]))
def test_no_step_stands_for_a_moment_at_or_after_the_boundary(
    start: float, tau: float, rate: float
):
    read = step_indices(NextAction(anticipation_time=tau), clip("c", start, start + 1), rate)
    assert (read >= 0).all()
    assert (read / rate < start - tau).all()
    assert len(read) == (16 if start > tau else 0)


@pytest.mark.parametrize("step", [5, 10, 17, 20, 23])
def test_a_time_a_rounding_before_a_step_does_not_read_it(step: int):
    """At 24 steps a second the last float before step 5 times 24 is rounded to 5."""
    end = step / 24.0
    start = np.nextafter(end, 0)
    assert int(start * 24.0) == step
    assert step_indices(Recognition(), clip("c", start, end), 24.0).tolist() == [step - 1] * 16


@given(st.integers(0, 2**32 - 1))
def test_features_at_or_after_the_boundary_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int
):
    path = tmp_path_factory.getbasetemp() / f"spoilt_{seed}.npy"
    values = steps(80)
    values[36:] = np.random.default_rng(seed).normal(size=values[36:].shape)
    np.save(path, values)
    source = ClipFeatures({"P01_01": FeatureFile(path, 80, 0, 3)}, NextAction(), 4.0)
    assert (source.read(ASKED) < 360).all()
    assert (source.read(ASKED)[:, 0] % 10 == 0).all()
    path.unlink()


def test_missing_files_are_counted(tmp_path: Path, dataset: ClipDataset):
    with pytest.raises(FileNotFoundError, match=r"P01_01\.npy does not exist \(1 of 1 videos"):
        open_clip_features(tmp_path, dataset, FOUR, 4.0)


def test_a_file_of_another_length_is_named(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(50))
    with pytest.raises(ValueError, match=r"one axis of about 80 steps.*say with --feature-rate"):
        open_clip_features(tmp_path, dataset, FOUR, 4.0)


def test_without_lengths_the_axis_must_be_said(tmp_path: Path, dataset: ClipDataset):
    np.save(tmp_path / "P01_01.npy", steps(80))
    dataset.videos.clear()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="say which axis"):
        open_clip_features(tmp_path, dataset, FOUR, 4.0)
    assert open_clip_features(tmp_path, dataset, FOUR, 4.0, axis=0).width == 3


def test_widths_that_differ_and_impossible_rates_are_refused(tmp_path: Path):
    files = {"a": FeatureFile(tmp_path, 5, 0, 3), "b": FeatureFile(tmp_path, 5, 0, 4)}
    with pytest.raises(ValueError, match=r"of one width, got \[3, 4\]"):
        ClipFeatures(files, FOUR, 4.0)
    with pytest.raises(ValueError, match="rate must be"):
        ClipFeatures({"a": files["a"]}, FOUR, 0.0)
    with pytest.raises(ValueError, match="video P01_01, which has no features"):
        ClipFeatures({"a": files["a"]}, FOUR, 4.0).read(ASKED)


# RULSTM's LMDB, by a stand-in with the calls that are made


class Store:
    """An LMDB environment, its transactions and its cursor in one."""

    def __init__(self, content: dict[bytes, bytes]) -> None:
        self.content = content

    def begin(self) -> "Store":
        return self

    cursor = begin

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def first(self) -> bool:
        return bool(self.content)

    def value(self) -> bytes:
        return next(iter(self.content.values()))

    def get(self, key: bytes) -> bytes | None:
        return self.content.get(key)


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    content = {
        f"P01_01_frame_{n:010d}.jpg".encode(): np.array([n, -n], "<f4").tobytes()
        for n in range(1, 400)
    }
    module = SimpleNamespace(open=lambda *_, **__: Store(content))
    monkeypatch.setitem(sys.modules, "lmdb", module)  # type: ignore[arg-type]
    return content


@pytest.mark.usefixtures("frames")
def test_lmdb_frames_are_read_by_their_numbers(tmp_path: Path):
    source = RulstmFeatures(tmp_path, FOUR)
    assert source.width == 2
    # Times 7.25, 7.75, 8.25 and 8.75 at 30 per second.
    assert source.read(ASKED).tolist() == [[n, -n] for n in (217, 232, 247, 262)]
    first = clip("P01_01_1", 1.02, 2.0)
    assert source.read(first).tolist() == [[1, -1]] * 4
    assert source.read(clip("P01_01_0", 0.5, 2.0)).shape == (0, 2)


def test_a_missing_frame_is_named(tmp_path: Path, frames: dict[bytes, bytes]):
    del frames[b"P01_01_frame_0000000232.jpg"]
    with pytest.raises(
        ValueError, match=r"8 bytes under P01_01_frame_0000000232\.jpg, got nothing"
    ):
        RulstmFeatures(tmp_path, FOUR).read(ASKED)
    frames[b"P01_01_frame_0000000232.jpg"] = b"1234"
    with pytest.raises(ValueError, match="got 4 bytes"):
        RulstmFeatures(tmp_path, FOUR).read(ASKED)


def test_an_empty_or_absent_lmdb_is_refused(tmp_path: Path, frames: dict[bytes, bytes]):
    with pytest.raises(FileNotFoundError, match="the LMDB"):
        RulstmFeatures(tmp_path / "nowhere", FOUR)
    frames.clear()
    with pytest.raises(ValueError, match="at least one frame"):
        RulstmFeatures(tmp_path, FOUR)


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)  # type: ignore[arg-type]
    with pytest.raises(ModuleNotFoundError, match="pip install lmdb"):
        RulstmFeatures(tmp_path, FOUR)
