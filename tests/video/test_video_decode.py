from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from video_files import REAL, number_of, real_videos, write_video

av = pytest.importorskip("av")

from actioncast.video.decode import SLACK, VideoFile  # noqa: E402

STEADY = [40 * i for i in range(120)]
B_FRAMES = {"g": "24", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
OPEN_GROUPS = B_FRAMES | {"x264-params": "open-gop=1:keyint=24:scenecut=0"}


def numbers_at(path: Path, times) -> list[int]:
    with VideoFile(path) as video:
        return [number_of(image) for image in video.frames_at(times)]


def shown(stamps: list[int], times) -> list[int]:
    """The last frame that starts at each time or before."""
    return [
        int(np.searchsorted(np.array(stamps), 1000 * t + 1e-3, side="right")) - 1 for t in times
    ]


def test_real_clips_are_there():
    real_videos()
    assert len(REAL) == 35


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_frames_of_real_clips_are_those_of_decoding_everything(path: Path):
    rng = np.random.default_rng(0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps = [p.pts for p in container.demux(stream) if p.pts is not None]
        starts = np.sort([float((s - min(stamps)) * stream.time_base) for s in stamps])
    with VideoFile(path) as video:
        end = video.duration
        times = np.concatenate([rng.uniform(0, end, 6), starts[[0, 1, -1]], [end - 1e-3]])
        got = video.frames_at(times)
        again = video.frames_at(np.sort(times))
    assert end == pytest.approx(starts[-1] + starts[1] - starts[0], abs=0.06)
    assert np.array_equal(got[np.argsort(times, kind="stable")], again)
    wanted = np.searchsorted(starts, times + 1e-6, side="right") - 1
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            for j in np.flatnonzero(wanted == i):
                assert np.array_equal(got[j], frame.to_ndarray(format="rgb24"))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b_frames.mp4", "libx264", B_FRAMES),
        ("b_frames.mkv", "libx264", B_FRAMES),
        ("open_groups.mp4", "libx264", OPEN_GROUPS),
        ("open_groups.mkv", "libx264", OPEN_GROUPS),
        ("open_groups.ts", "libx264", OPEN_GROUPS),
        ("open_groups_of_mpeg2.ts", "mpeg2video", {"g": "24", "bf": "2", "b": "4000000"}),
        ("open_groups_of_mpeg2.mkv", "mpeg2video", {"g": "24", "bf": "2", "b": "4000000"}),
        ("groups_of_mpeg4.ts", "mpeg4", {"g": "24", "bf": "2"}),
        ("refreshed_by_columns.ts", "libx264", {"g": "24", "x264-params": "intra-refresh=1"}),
        ("refreshed_by_columns.mkv", "libx264", {"g": "24", "x264-params": "intra-refresh=1"}),
        ("all_key.avi", "mpeg4", {"g": "1"}),
        ("groups.avi", "mpeg4", {"g": "12"}),
        ("no_timestamps.h264", "libx264", B_FRAMES),
        ("one_group.mp4", "libx264", {"g": "1000", "bf": "2"}),
        ("lossless.mkv", "ffv1", {}),
    ],
)
def test_every_frame_is_found_by_its_time(tmp_path, name, codec, options):
    path = write_video(tmp_path / name, STEADY, codec=codec, options=options)
    with VideoFile(path) as video:
        assert video.rate == pytest.approx(25)
        assert video.duration == pytest.approx(4.8, abs=0.05)
        backwards = np.arange(120)[::-1] / 25 + 0.02
        assert [number_of(image) for image in video.frames_at(np.arange(120) / 25)] == [*range(120)]
        one_by_one = [number_of(video.frames_at([time])[0]) for time in backwards]
        assert one_by_one == [*range(120)][::-1]
        assert [number_of(image) for _, image in video.frames()] == [*range(120)]


def test_gif_frames_build_upon_one_another(tmp_path):
    path = write_video(tmp_path / "a.gif", [100 * i for i in range(30)], codec="gif", rate=10)
    assert numbers_at(path, [2.95, 0.0, 1.55, 1.5, 1.49]) == [29, 0, 15, 15, 14]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_frame_is_shown_until_the_next_at_a_rate_that_varies(tmp_path, suffix):
    stamps = np.cumsum([0, *np.random.default_rng(1).integers(10, 900, 99)]).tolist()
    path = write_video(tmp_path / f"a{suffix}", stamps, options=B_FRAMES)
    times = np.random.default_rng(2).uniform(0, stamps[-1] / 1000, 60)
    assert numbers_at(path, times) == shown(stamps, times)


def test_time_starts_at_the_first_frame(tmp_path):
    stamps = [700 + 40 * i for i in range(50)]
    path = write_video(tmp_path / "late.mkv", stamps)
    assert numbers_at(path, [0.0, 0.039, 0.04, 1.0]) == [0, 0, 1, 25]
    with VideoFile(path) as video:
        assert video.duration == pytest.approx(2.0, abs=0.041)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", STEADY, options=OPEN_GROUPS)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 4.8 + SLACK - 0.01), max_size=8))
def test_times_in_any_order_and_more_than_once(clip, times):
    assert numbers_at(clip, times) == [min(n, 119) for n in shown(STEADY, times)]


def test_no_times_give_no_frames(clip):
    with VideoFile(clip) as video:
        assert video.frames_at([]).shape == (0, 48, 64, 3)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_undone(tmp_path, degrees, turns):
    """The rotation that a file asks for is counter-clockwise, as is NumPy's."""
    options = {"qp": "0"}
    upright = write_video(tmp_path / "upright.mp4", [0, 40, 80], options=options)
    turned = write_video(tmp_path / "turned.mp4", [0, 40, 80], options=options, rotation=degrees)
    with VideoFile(upright) as first, VideoFile(turned) as second:
        assert (second.height, second.width) == ((48, 64), (64, 48))[turns % 2]
        wanted = np.rot90(first.frames_at([0.04])[0], turns)
        assert np.array_equal(second.frames_at([0.04])[0], wanted)


def test_a_phone_held_upright_is_seen_upright(tmp_path):
    """Its file asks to turn the picture clockwise: what is at the left comes to the top."""
    path = write_video(tmp_path / "a.mp4", [40 * i for i in range(130)], options={"qp": "0"})
    content = path.read_bytes()
    unit = (0x10000).to_bytes(4, "big", signed=True)
    zero, minus = bytes(4), (-0x10000).to_bytes(4, "big", signed=True)
    upright = unit + zero * 3 + unit + zero * 3
    header = content.index(b"tkhd")
    at = content.index(upright, header)
    clockwise = zero + unit + zero + minus + zero * 4
    path.write_bytes(content[:at] + clockwise + content[at + len(upright) :])
    with VideoFile(path) as video:
        assert (video.height, video.width) == (64, 48)
        image = video.frames_at([5.16])[0]
    # Frame 129 is 10000001 in stripes from the left: white, black, white from the top.
    assert image[2].min() > 200
    assert image[30].max() < 50
    assert image[-2].min() > 200


def test_what_was_cut_off_is_named(tmp_path):
    whole = write_video(tmp_path / "a.mkv", STEADY, options={"g": "10", "qp": "0"})
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with VideoFile(path) as video:
        assert number_of(video.frames_at([1.0])[0]) == 25
        with pytest.raises(ValueError, match=r"cut\.mkv is truncated: it announces 4\.8"):
            video.frames_at([1.0, 4.0])
        # It still reads what there is.
        assert number_of(video.frames_at([0.4])[0]) == 10


def test_a_film_without_its_table_of_contents_does_not_open(tmp_path):
    whole = write_video(tmp_path / "a.mp4", STEADY)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut\.mp4 must be a video, .* truncated or no video"):
        VideoFile(path)


def test_broken_packets_are_left_out(tmp_path):
    path = write_video(tmp_path / "a.avi", STEADY, codec="mpeg4", options={"g": "6"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with VideoFile(path) as video:
        last = number_of(video.frames_at([4.79])[0])
    assert last >= 100


def test_a_file_without_pictures_is_named(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match=r"a\.wav must hold a video stream, got audio alone"):
        VideoFile(path)


def test_no_file_and_no_video_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        VideoFile(tmp_path / "none.mp4")
    path = tmp_path / "a.mp4"
    path.write_text("no video")
    with pytest.raises(ValueError, match="must be a video"):
        VideoFile(path)


def test_times_outside_the_video_are_refused(clip):
    with VideoFile(clip) as video:
        assert number_of(video.frames_at([4.8 + SLACK - 0.01])[0]) == 119
        with pytest.raises(ValueError, match=r"got 5\.40 s .* which ends at 4\.80 s"):
            video.frames_at([5.4])
        with pytest.raises(ValueError, match="seconds from 0 on"):
            video.frames_at([-0.1])
        with pytest.raises(ValueError, match="seconds from 0 on"):
            video.frames_at([float("nan")])
        with pytest.raises(ValueError, match="seconds from 0 on"):
            video.frames_at([float("inf")])
