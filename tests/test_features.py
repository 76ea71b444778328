import math
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actioncast.features import (
    FeatureArray,
    FeatureFile,
    FeatureSource,
    LabelFeatures,
    WarpedFeatures,
    common_layout,
    frame_tolerance,
    read_header,
    time_axis,
)
from layout_folders import features

FILE = Path("v.npy")


def saved(folder: Path, array: np.ndarray, axis: int = 0, num_frames: int = 0) -> FeatureFile:
    path = folder / "v.npy"
    np.save(path, array if axis == 0 else np.ascontiguousarray(array.T))
    return FeatureFile(path, num_frames or len(array), axis, array.shape[1])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", ">f4"])
def test_every_type_and_order_reads_as_float32(tmp_path: Path, dtype: str, axis: int):
    source = saved(tmp_path, features(30, dtype=dtype), axis)
    assert isinstance(source, FeatureSource)
    read = source.read(4, 20, 3)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, features(30)[4:20:3])


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 7), st.integers(20, 30))
def test_reading_is_slicing_with_the_last_vector_held(
    tmp_path_factory, start: int, end: int, stride: int, num_frames: int
):
    folder = tmp_path_factory.getbasetemp() / "held"
    folder.mkdir(exist_ok=True)
    source = saved(folder, features(25), num_frames=num_frames)
    whole = features(25)[np.minimum(np.arange(num_frames), 24)]
    np.testing.assert_array_equal(source.read(start, end, stride), whole[start:end:stride])


def test_features_beyond_the_labels_are_cut(tmp_path: Path):
    source = saved(tmp_path, features(30), num_frames=26)
    assert len(source.read(0, 30)) == 26


@pytest.mark.parametrize("axis", [0, 1])
def test_frames_after_the_last_one_asked_for_are_never_looked_at(tmp_path: Path, axis: int):
    array = features(30)
    array[20:] = np.nan
    source = saved(tmp_path, array, axis)
    assert np.isfinite(source.read(0, 20)).all()
    assert np.isfinite(source.read(0, 20, 7)).all()
    with pytest.raises(ValueError, match="at frame 20"):
        source.read(0, 21)


def test_a_read_copies_no_more_than_it_returns(tmp_path: Path):
    source = saved(tmp_path, np.zeros((20_000, 100), np.float32))
    source.read(0, 10)
    tracemalloc.start()
    source.read(0, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 200 * 100 * 4  # the whole array takes 8 MB


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_number_that_is_none_is_named_with_its_frame(tmp_path: Path, value: float, axis: int):
    array = features(30)
    array[13, 2] = value
    source = saved(tmp_path, array, axis)
    sentence = r"v.npy must hold finite numbers, got NaN or infinity at frame 13; extract"
    with pytest.raises(ValueError, match=sentence):
        source.read(1, 30, 4)
    assert np.isfinite(source.read(0, 30, 4)).all()


# Headers


def test_a_header_is_read_without_the_data(tmp_path: Path):
    np.save(tmp_path / "v.npy", features(30, dtype="uint8"))
    header = read_header(tmp_path / "v.npy")
    assert (header.shape, header.dtype) == ((30, 5), "uint8")


def test_later_versions_of_the_format_are_read(tmp_path: Path):
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "v.npy").open("wb") as file:
            np.lib.format.write_array(file, features(30), version=version)
        assert read_header(tmp_path / "v.npy").shape == (30, 5)


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was loaded')",))


def test_an_object_array_is_refused_and_never_unpickled(tmp_path: Path):
    path = tmp_path / "v.npy"
    np.save(path, np.array([[Trap(), Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"v.npy must hold one of float16, .*, got object; convert"
    ):
        read_header(path)
    with pytest.raises(ValueError, match="Python objects"):
        FeatureFile(path, 1, 0, 2).read(0, 1)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((2, 3, 4), np.float32), r"got shape \(2, 3, 4\); write one such array"),
        (np.zeros(9, np.float32), r"got shape \(9,\)"),
        (np.zeros((), np.float32), r"got shape \(\)"),
        (np.zeros((0, 5), np.float32), r"got shape \(0, 5\)"),
        (np.zeros((3, 4), np.int64), r"must hold one of .*, got int64; convert it with array"),
        (np.zeros((3, 4), np.complex64), "got complex64"),
        (np.zeros((3, 4), "U5"), "got str160"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, sentence: str):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(ValueError, match=sentence):
        read_header(tmp_path / "v.npy")


def test_a_truncated_file_is_told_by_its_size(tmp_path: Path):
    path = tmp_path / "v.npy"
    np.save(path, features(30))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    sentence = f"v.npy is truncated: {len(content)} bytes announced, {len(content) - 1} found; copy"
    with pytest.raises(ValueError, match=sentence):
        read_header(path)


def test_a_header_that_announces_more_than_memory_can_address_is_truncated(tmp_path: Path):
    path = tmp_path / "v.npy"
    with path.open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (2**62, 2**10)}
        np.lib.format.write_array_header_1_0(file, about)
    with pytest.raises(ValueError, match="is truncated"):
        read_header(path)


def test_negative_sizes_are_refused(tmp_path: Path):
    path = tmp_path / "v.npy"
    with path.open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (-3, -4)}
        np.lib.format.write_array_header_1_0(file, about)
    with pytest.raises(ValueError, match=r"got shape \(-3, -4\)"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not an array, but a text file"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "v.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"v.npy must be a NumPy .npy file, .* numpy.save"):
        read_header(path)


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 128))
def test_no_bytes_crash_the_reader(tmp_path_factory, noise: bytes, at: int):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    np.save(path, features(30))
    content = bytearray(path.read_bytes())
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    with suppress(ValueError):
        assert len(read_header(path).shape) == 2


# Which axis is time


@pytest.mark.parametrize(
    ("shape", "num_frames", "axis"),
    [
        ((100, 5), 100, 0),
        ((5, 100), 100, 1),
        ((104, 5), 100, 0),
        ((5, 96), 100, 1),
        ((2048, 2050), 2050, 1),
        ((2050, 2048), 2050, 0),
    ],
)
def test_the_axis_near_the_number_of_labels_is_time(shape, num_frames: int, axis: int):
    assert time_axis(FILE, shape, num_frames) == axis


def test_a_known_width_settles_arrays_that_are_nearly_square():
    assert time_axis(FILE, (64, 66), 64, num_features=66) == 0
    assert time_axis(FILE, (64, 66), 64, num_features=64) == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_the_order_of_the_other_files_settles_square_arrays(axis: int):
    assert time_axis(FILE, (64, 64), 64, 64, axis) == axis
    assert time_axis(FILE, (64, 64), 63, None, axis) == axis


def test_a_lone_square_array_is_refused():
    with pytest.raises(ValueError, match=r"v.npy must tell time .* \(64, 64\) .* add a video"):
        time_axis(FILE, (64, 64), 64, 64)


def test_a_wrong_width_is_named():
    sentence = r"must hold vectors of width 5 .* got width 6 \(shape \(100, 6\), 100 labelled"
    with pytest.raises(ValueError, match=sentence):
        time_axis(FILE, (100, 6), 100, num_features=5)


def test_a_wrong_length_is_named():
    sentence = r"v.npy must have one axis of about 100 steps, .* got shape \(50, 5\); extract"
    with pytest.raises(ValueError, match=sentence):
        time_axis(FILE, (50, 5), 100)


def test_features_may_differ_by_a_few_frames():
    assert [frame_tolerance(n) for n in (1, 4, 10, 100, 400, 10_000)] == [0, 2, 5, 8, 8, 200]
    assert time_axis(FILE, (108, 5), 100) == 0
    with pytest.raises(ValueError, match="about 100 steps"):
        time_axis(FILE, (109, 5), 100)


def test_the_layout_is_that_of_most_files():
    shapes = [(5, 100), (5, 80), (90, 7), (64, 64)]
    assert common_layout(shapes, [100, 80, 90, 64]) == (5, 1)
    assert common_layout([(64, 64)], [64]) == (None, None)
    assert common_layout([], []) == (None, None)


# Features that are not files


def test_labels_are_one_hot():
    frames = np.array([0, 2, 2, 1])
    source = LabelFeatures(frames, 3)
    assert source.num_features == 3
    np.testing.assert_array_equal(source.read(0, 4), np.eye(3)[[0, 2, 2, 1]])
    np.testing.assert_array_equal(source.read(1, 4, 2), np.eye(3)[[2, 1]])


def test_spoilt_labels_are_the_same_for_the_same_seed():
    frames = np.repeat([0, 1, 2, 1, 0, 2], 20)
    spoilt = [LabelFeatures(frames, 3, 0.5, 4.0, seed).frames for seed in (1, 1, 2)]
    np.testing.assert_array_equal(spoilt[0], spoilt[1])
    assert (spoilt[0] != spoilt[2]).any()
    assert len(spoilt[0]) == len(frames)


def test_every_wrong_segment_has_another_label():
    frames = np.repeat([0, 1, 2, 1, 0, 2], 20)
    assert (LabelFeatures(frames, 3, wrong_share=1.0).frames != frames).all()
    assert (LabelFeatures(np.zeros(9, int), 1, wrong_share=1.0).frames == 0).all()


def test_blur_moves_boundaries_alone():
    frames = np.repeat([0, 1, 2, 0], 50)
    spoilt = LabelFeatures(frames, 3, blur=3.0, seed=4).frames
    assert spoilt[np.flatnonzero(np.diff(spoilt))].tolist() == [0, 1, 2]
    assert 0 < (spoilt != frames).sum() < 60


@pytest.mark.parametrize("wrong_share", [-0.1, 1.1])
def test_impossible_shares_are_refused(wrong_share: float):
    with pytest.raises(ValueError, match=r"wrong_share must be within \[0, 1\], got"):
        LabelFeatures(np.zeros(3, int), 2, wrong_share)


def test_a_negative_blur_is_refused():
    with pytest.raises(ValueError, match="blur must be 0 frames or more, got -1"):
        LabelFeatures(np.zeros(3, int), 2, blur=-1)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4))
def test_warped_features_are_those_of_the_frames_shown(start: int, end: int, stride: int):
    index = np.array([0, 0, 1, 3, 3, 4, 7, 8, 8, 8])
    source = WarpedFeatures(FeatureArray(features(9)), index)
    assert source.num_features == 5
    wanted = features(9)[index][start:end:stride]
    np.testing.assert_array_equal(source.read(start, end, stride), wanted)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_a_share_of_frames_is_mistaken_in_runs(share: float) -> None:
    frames = np.repeat(np.arange(200) % 7, 100)
    spoilt = LabelFeatures(frames, 7, seed=3, wrong_frames=share, wrong_run=20.0).frames
    wrong = spoilt != frames
    assert wrong.mean() == pytest.approx(share, abs=0.05)
    starts = np.flatnonzero(np.diff(wrong.astype(int)) == 1)
    assert wrong.sum() / len(starts) == pytest.approx(20.0, rel=0.25)
    again = LabelFeatures(frames, 7, seed=3, wrong_frames=share, wrong_run=20.0).frames
    assert np.array_equal(spoilt, again)
    other = LabelFeatures(frames, 7, seed=4, wrong_frames=share, wrong_run=20.0).frames
    assert not np.array_equal(spoilt, other)


def test_no_later_frame_has_a_say_in_what_is_mistaken() -> None:
    frames = np.repeat(np.arange(50) % 5, 40)
    whole = LabelFeatures(frames, 5, seed=1, wrong_frames=0.3, wrong_run=15.0).frames
    for end in (1, 37, 900):
        cut = LabelFeatures(frames[:end], 5, seed=1, wrong_frames=0.3, wrong_run=15.0).frames
        assert np.array_equal(cut, whole[:end])


@pytest.mark.parametrize(("share", "run"), [(-0.1, 5.0), (1.0, 5.0), (0.2, 0.5), (0.2, math.nan)])
def test_impossible_mistakes_are_refused(share: float, run: float) -> None:
    with pytest.raises(ValueError, match="wrong_frames must be"):
        LabelFeatures(np.zeros(3, int), 2, wrong_frames=share, wrong_run=run)
