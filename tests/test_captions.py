"""Captions are read from files of any form, and never told before what they tell of was seen."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import folders
from actioncast import captions, models
from actioncast.__main__ import main
from actioncast.batches import Variation, started, varied
from actioncast.caption_files import find_captions, read_captions
from actioncast.captions import CaptionFolder, Captioning, caption_folder, fitted
from actioncast.data import Dataset, Split, Video
from actioncast.data.caption_track import CLOSE, CaptionTrack
from actioncast.data.collate import cut
from actioncast.features import FeatureArray, LabelFeatures, frame_tolerance
from actioncast.models.base import Anticipator, Losses
from actioncast.models.frame_classifier import FrameClassifierConfig
from actioncast.passport import read_result
from actioncast.protocols import Question
from actioncast.runs import load_run, train_run
from actioncast.text_encoders import HashTextEncoder, sentence_vectors
from actioncast.timeline import Taxonomy, Timeline
from actioncast.training import TrainConfig
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of(folders.NAMES)


def video(num_frames: int, rate: float = 5.0, name: str = "v") -> Video:
    """A video whose vectors are the numbers of its frames, and whose labels change often."""
    frames = np.arange(num_frames) // 7 % len(folders.NAMES)
    return Video(
        id=name,
        timeline=Timeline.from_frames(frames, rate, TAXONOMY.labels),
        rate=rate,
        num_frames=num_frames,
        features=FeatureArray(np.arange(num_frames, dtype=np.float32)[:, None]),
    )


def captioned(one: Video, spans: list[tuple[float, float]]) -> Video:
    """With captions whose vectors are their start and their end in seconds."""
    times = np.array(spans, np.float64).reshape(-1, 2)
    track = CaptionTrack.of_seconds(times, times[:, 0], times[:, 1], one.rate, one.num_frames)
    return replace(one, captions=track)


def told(one: Video, observed: int, stride: int = 1) -> list[tuple[float, float]]:
    """Start and end of the captions that a model is told."""
    sample = cut(one, Question(observed=observed), stride, len(folders.NAMES))
    assert sample.captions is not None
    return [(round(float(a), 5), round(float(b), 5)) for a, b in sample.captions]


# When a caption is told


def test_a_caption_is_told_when_its_last_frame_has_been_seen():
    one = captioned(video(20), [(0.0, 1.0), (0.4, 2.0), (2.0, 2.1), (3.0, 4.0)])
    assert [told(one, n) for n in (0, 4, 5, 9)] == [[], [], [(0, 1)], [(0, 1)]]
    assert told(one, 10) == [(0, 1), (0.4, 2)]
    assert len(told(one, 11)) == 3  # the frame that 2.0 to 2.1 s lie in
    assert [len(told(one, n)) for n in (19, 20)] == [3, 4]


def test_captions_come_in_the_order_in_which_they_end():
    one = captioned(video(20), [(0.0, 4.0), (2.0, 3.0), (1.0, 3.0), (0.0, 1.0)])
    assert told(one, 20) == [(0, 1), (1, 3), (2, 3), (0, 4)]


def test_a_caption_that_ends_a_little_late_ends_with_the_video_and_no_other_does():
    late = frame_tolerance(20) / 5
    one = captioned(video(20), [(3.0, 4.0 + late), (3.0, 4.4 + late), (4.0, 4.2)])
    assert told(one, 19) == []
    assert told(one, 20) == [(3.0, 4.0 + late)]


def test_a_time_that_rounding_has_moved_meets_the_edge_of_its_frame():
    """0.1 + 0.2 s at 10 frames a second are 3 frames and not the 4 that floats make of them."""
    one = captioned(video(20, 10.0), [(0.1, 0.1 + 0.2), (0.0, np.float32(1.2))])
    assert [len(told(one, n)) for n in (2, 3, 11, 12)] == [0, 1, 1, 2]


SPANS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 2000)).map(
        lambda pair: (pair[0] / 100, (pair[0] + pair[1]) / 100)
    ),
    max_size=8,
)
RATES = st.sampled_from([1.0, 5.0, 15.0, 29.97])


@given(SPANS, RATES, st.integers(1, 300), st.integers(0, 300), st.integers(1, 7))
@settings(deadline=None, max_examples=150)
def test_exactly_what_has_been_seen_whole_is_told(
    spans: list[tuple[float, float]], rate: float, num_frames: int, observed: int, stride: int
):
    observed = min(observed, num_frames)
    one = captioned(video(num_frames, rate), spans)
    # Frames seen, to a thousandth; when all are, those that labels may lack too.
    seen = observed + CLOSE
    end_of_it = seen + (frame_tolerance(num_frames) if observed == num_frames else 0)
    whole = [span for span in spans if span[1] * rate <= end_of_it]
    # A caption lies within a frame or more: one of less takes that in which it starts.
    whole = [span for span in whole if math.floor(span[0] * rate + CLOSE) + 1 <= observed]
    assert sorted(told(one, observed, stride)) == sorted(whole)


@given(
    SPANS,
    st.integers(1, 120),
    st.sampled_from(["varied", "started", "resampled", "varied and started"]),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=200)
def test_a_video_shown_otherwise_tells_nothing_of_the_frames_to_come(
    spans: list[tuple[float, float]], num_frames: int, way: str, seed: int
):
    """Its vectors are the numbers of the frames as filmed, and so say what has been shown."""
    one = filmed = captioned(video(num_frames), spans)
    first = seed % num_frames
    if "varied" in way:
        one = varied(one, Variation(warp=0.7), seed)
    if "started" in way:
        one = started(one, min(first, one.num_frames - 1))
    if way == "resampled":
        one = one.resampled(1 + seed % 9)
    assert one.features is not None
    assert one.captions is not None
    assert filmed.captions is not None
    frames = one.features.read(0, one.num_frames)[:, 0].astype(int).tolist()
    begins = frames[0] if "started" in way else 0
    for observed in range(one.num_frames + 1):
        said = one.captions.told(observed).tolist()
        # What is told of the video as filmed, of all frames up to the last of those shown.
        whole = filmed.captions.told(frames[observed - 1] + 1 if observed else 0).tolist()
        whole = [span for span in whole if math.floor(span[0] * filmed.rate + CLOSE) >= begins]
        if way == "varied and started":
            # A start that the pace has left out counts as the frame before.
            assert all(span in whole for span in said)
        else:
            assert said == whole


def test_a_caption_waits_for_a_frame_that_shows_its_last_or_a_later_one():
    """Of every fourth frame, 0, 4 and 8 do not show frame 9."""
    one = captioned(video(40), [(0.2, 0.6), (1.6, 1.8), (1.6, 2.0), (7.6, 8.0)]).resampled(4)
    assert [len(told(one, n)) for n in (1, 2, 3, 4, 9, 10)] == [0, 1, 2, 3, 3, 3]
    assert told(one, 3) == [(0.2, 0.6), (1.6, 1.8)]  # the last frame of one is 2, of the other 8


def test_a_caption_of_the_end_is_told_where_its_last_frame_is_left():
    late = frame_tolerance(37) / 5
    for num_frames, count in ((37, 1), (38, 0)):
        one = captioned(video(num_frames), [(6.0, num_frames / 5 + late)]).resampled(4)
        assert [len(told(one, n)) for n in (9, 10)] == [0, count]


INDICES = st.lists(st.integers(0, 40), max_size=30).map(sorted)


@given(SPANS, INDICES, INDICES, st.integers(0, 30))
@settings(deadline=None, max_examples=200)
def test_no_grid_of_frames_tells_more_than_the_frames_it_shows(
    spans: list[tuple[float, float]], index: list[int], again: list[int], observed: int
):
    """Nor does a grid of a grid; of a single one, all that is told of these and began on it."""
    times = np.array(spans, np.float64).reshape(-1, 2)
    raw = CaptionTrack.of_seconds(times, times[:, 0], times[:, 1], 5.0, 41)
    shown = np.array(index, int)
    twice = np.array([i for i in again if i < len(index)], int)
    for grid, track, single in (
        (shown, raw.shown_at(shown), True),
        (shown[twice], raw.shown_at(shown).shown_at(twice), False),
    ):
        n = min(observed, len(grid))
        filmed = int(grid[n - 1]) + 1 if n else 0
        begun = raw.starts >= (grid[0] if len(grid) else math.inf)
        whole = raw.vectors[begun & (raw.ends <= filmed)].tolist()
        said = track.told(n).tolist()
        assert said == whole if single else all(one in whole for one in said)


def test_what_began_before_the_first_frame_that_is_left_is_not_told():
    one = started(captioned(video(20), [(0.0, 2.0), (1.0, 2.0), (1.2, 3.0)]), 5)
    assert [told(one, n) for n in (4, 5)] == [[], [(1, 2)]]
    assert told(one, 10) == [(1, 2), (1.2, 3)]


def test_labels_are_not_exchanged_under_captions_that_tell_of_them():
    frames = np.repeat([0, 1], 5)
    one = replace(
        captioned(video(10), [(0.0, 1.0)]),
        timeline=Timeline.from_frames(frames, 5.0, TAXONOMY.labels),
        features=LabelFeatures(frames, len(folders.NAMES)),
        observed_labels=frames,
    )
    with pytest.raises(ValueError, match="relabel must go without captions"):
        varied(one, Variation(relabel=0.5), 0)
    with pytest.raises(ValueError, match="relabel must go without captions"):
        TrainConfig(input="labels", relabel=0.1, captions="there")


def test_captions_stay_with_another_level_of_labels():
    both = Taxonomy(
        {"activity": TAXONOMY.labels, "action": TAXONOMY.labels},
        "action",
        levels=("activity", "action"),
    )
    one = replace(captioned(video(10), [(0.0, 1.0)]), levels={"activity": np.zeros(10, int)})
    dataset = Dataset(name="d", taxonomy=both, rate=5.0, videos={"v": one}, splits={})
    assert told(dataset.at_level("coarse").videos["v"], 10) == [(0, 1)]


@pytest.mark.parametrize(
    ("starts", "ends", "sentence"),
    [
        ([0, 3], [1, 2], "before their end"),
        ([0, 2], [1, 2], "before their end"),
        ([0, 0], [2, 1], "sorted by their end"),
    ],
)
def test_a_track_out_of_order_is_refused(starts: list[int], ends: list[int], sentence: str):
    vectors = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=sentence):
        CaptionTrack(vectors=vectors, starts=np.array(starts), ends=np.array(ends))


# Files

TEXTS = ("peels a cucumber, slowly", 'says "done"; stops')
TIMES = ((0.0, 1.5), (1.5, 2.25))
VTT = """WEBVTT

NOTE made with a model

1
00:00.000 --> 00:01.500
peels a <i>cucumber</i>,
slowly

00:00:01.500 --> 00:00:02.250 line:0
says "done"; stops
"""
CSV = 'start,end,text\n0,1.5,"peels a cucumber, slowly"\n1.5,2.25,"says ""done""; stops"\n'
SPREAD = 'text;start;end\npeels a cucumber, slowly;0,0;1,5\n\n"says ""done""; stops";1,5;2,25\n'
JSON = json.dumps(
    [
        {"start": a, "end": b, "text": text, "model": "any"}
        for (a, b), text in zip(TIMES, TEXTS, strict=True)
    ]
)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".vtt", VTT),
        (".vtt", VTT.replace("\n", "\r\n")),
        (".csv", CSV),
        (".csv", "\ufeff" + CSV),
        (".csv", SPREAD),
        (".json", JSON),
    ],
)
def test_texts_are_the_same_in_every_format(tmp_path: Path, suffix: str, content: str):
    path = tmp_path / f"P03.cam01{suffix}"
    path.write_bytes(content.encode())
    found = find_captions(tmp_path, "P03.cam01")
    assert found == path
    file = read_captions(path)
    assert file.texts == TEXTS
    assert list(zip(file.start, file.end, strict=True)) == list(TIMES)
    assert file.vectors is None


def test_vectors_made_elsewhere_are_read_with_their_times(tmp_path: Path):
    vectors = np.arange(6, dtype=np.float16).reshape(2, 3)
    start, end = np.array(TIMES, np.float32).T
    np.savez(tmp_path / "a.npz", vectors=vectors, start=start, end=end)
    np.save(tmp_path / "b.npy", vectors)
    (tmp_path / "b.csv").write_text("start,end\n0,1.5\n1.5,2.25\n")
    for name, suffix in (("a", ".npz"), ("b", ".npy")):
        path = find_captions(tmp_path, name)
        assert path == tmp_path / f"{name}{suffix}"
        file = read_captions(path)
        assert file.vectors is not None
        assert file.vectors.tolist() == vectors.tolist()
        assert list(zip(file.start, file.end, strict=True)) == list(TIMES)
        assert file.texts == ()


def test_two_files_of_one_video_are_refused_and_none_is_none(tmp_path: Path):
    (tmp_path / "v.vtt").write_text(VTT)
    (tmp_path / "v.json").write_text(JSON)
    assert find_captions(tmp_path, "w") is None
    with pytest.raises(ValueError, match=r"one file of captions for v, got v\.vtt, v\.json"):
        find_captions(tmp_path, "v")


@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        (".vtt", "00:00.000 --> 00:01.000\nno head\n", "line 1: must be WEBVTT"),
        (".vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\nx\n", r"line 3: .* end after it starts"),
        (".csv", "start,end\n0,1\n", "line 1: the header must name start, end, text"),
        (".csv", "start,end,text\n0,1,a, b\n", "line 2: a row must have 3 cells"),
        (".csv", "start,end,text\n0,1,a\nx,1,b\n", "line 3: times must be numbers, got 'x'"),
        (".csv", "start,end,text\n-1,1,a\n", "line 2: a caption must start at 0 s or later"),
        (".csv", "start,end,text\n1,1,a\n", "line 2: a caption must start"),
        (".csv", "start,end,text\nnan,1,a\n", "line 2: a caption must start"),
        (".csv", "start,end,text\n0,inf,a\n", "line 2: a caption must start"),
        (".csv", "start,end,text\n0,1, \n", "line 2: a caption must say something"),
        (".csv", 'start,end,text\n0,1,"a" b\n', "line 2: must be CSV"),
        (".json", "{", "must be JSON"),
        (".json", "{}", "must be a list of captions"),
        (".json", "[3]", "caption 1: must have start, end and text, got one 3"),
        (".json", '[{"start": 0, "end": 1}]', "caption 1: .* got one without text"),
        (".json", '[{"start": "0", "end": 1, "text": "a"}]', "times must be numbers, got '0'"),
        (".json", '[{"start": 0, "end": true, "text": "a"}]', "times must be numbers, got True"),
        (".json", '[{"start": 0, "end": 1, "text": 3}]', "text must be a string, got 3"),
        (".csv", b"start,end,text\n0,1,\xff\n", "must be UTF-8 text, got byte 0xff"),
        (".npz", b"PK\x03\x04 cut short", "must hold the arrays vectors, start and end"),
        (".npy", b"no array", "must have the times of its vectors beside it, got no v.csv"),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    tmp_path: Path, suffix: str, content: str | bytes, sentence: str
):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=sentence) as raised:
        read_captions(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"vectors": np.zeros((1, 2))}, "it lacks end, start"),
        ({"vectors": np.zeros((2, 2)), "start": [0.0], "end": [1.0]}, r"shapes \(2, 2\), \(1,\)"),
        ({"vectors": np.zeros(2), "start": [0.0], "end": [1.0]}, r"got shapes \(2,\)"),
        ({"vectors": [["a"]], "start": [0.0], "end": [1.0]}, "must hold numbers"),
        ({"vectors": [[np.nan]], "start": [0.0], "end": [1.0]}, "finite in float32"),
        ({"vectors": [[1e39]], "start": [0.0], "end": [1.0]}, "finite in float32"),
        ({"vectors": [[1.0]], "start": [2.0], "end": [1.0]}, "caption 1: a caption must start"),
    ],
)
def test_vectors_that_do_not_fit_their_times_are_refused(
    tmp_path: Path, arrays: dict[str, Any], sentence: str
):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        read_captions(tmp_path / "v.npz")


def test_an_array_beside_its_times_must_open_and_fit_them(tmp_path: Path):
    (tmp_path / "v.csv").write_text("start,end\n0,1\n")
    np.save(tmp_path / "v.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"shapes \(2, 3\), \(1,\) and \(1,\)"):
        read_captions(tmp_path / "v.npy")
    (tmp_path / "v.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"v\.npy must be a NumPy \.npy file"):
        read_captions(tmp_path / "v.npy")


# Folders


def dataset(*names: str) -> Dataset:
    return Dataset(
        name="kitchen",
        taxonomy=TAXONOMY,
        rate=5.0,
        videos={name: video(20, name=name) for name in names},
        splits={"1": Split(train=names[:1], test=names[1:2])},
    )


def write(folder: Path, texts: Mapping[str, str], end: float = 1.5) -> Path:
    """A file of one caption for every video."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        said = [{"start": 0, "end": end, "text": text}] if text else []
        (folder / f"{name}.json").write_text(json.dumps(said))
    return folder


def read(folder: Path, data: Dataset, split: str = "1") -> tuple[Dataset, Captioning]:
    return CaptionFolder(folder, "hash:4").given(data, split)


def test_videos_of_a_split_get_the_vectors_of_their_texts(tmp_path: Path):
    data = dataset("a", "b", "c")
    shown, captioning = read(write(tmp_path / "vlm", {"a": "cut bread", "b": ""}), data)
    found = [shown.videos[name].captions for name in "abc"]
    assert found[0] is not None
    assert found[1] is not None
    assert found[2] is None
    (states,) = HashTextEncoder(4).encode(["cut bread"])
    np.testing.assert_allclose(found[0].vectors, [states.mean(0)])
    assert found[0].ends.tolist() == [8]
    assert found[1].vectors.shape == (0, 4)
    assert (captioning.folder, captioning.encoder, captioning.width) == ("vlm", "hash:4", 4)
    assert shown.fingerprint() == data.fingerprint()


def test_videos_without_a_file_are_counted_and_named(tmp_path: Path):
    names = tuple("abcdefgh")
    data = replace(dataset(*names), splits={"1": Split(train=names[:4], test=names[4:])})
    with pytest.raises(FileNotFoundError, match=r"of 6 of 8 videos \(b, c, d, f, g and 1 more\)"):
        read(write(tmp_path, {"a": "x", "e": "y"}), data)


def test_each_text_is_encoded_once_for_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []

    def counted(encoder: Any, texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        return sentence_vectors(encoder, texts)

    monkeypatch.setattr(captions, "sentence_vectors", counted)
    both = Split(train=("a", "b"), test=("c",))
    data = replace(dataset("a", "b", "c"), splits={"1": both, "2": both})
    reader = CaptionFolder(write(tmp_path, {"a": "x", "b": "x", "c": "y"}), "hash:4")
    first, again = (reader.given(data, split)[1] for split in "12")
    assert asked == [["x", "y"]]
    assert first == again


def test_what_is_encoded_is_kept_where_the_model_says(tmp_path: Path):
    @dataclass
    class Model:
        encoder: str = "hash:4"
        text_cache: str = str(tmp_path / "cache")

    reader = caption_folder(str(write(tmp_path / "vlm", {"a": "x", "b": "y"})), Model())
    assert reader is not None
    reader.given(dataset("a", "b"), "1")
    assert list((tmp_path / "cache").glob("hash_4-*/*.npz"))


def test_a_folder_may_have_captions_for_each_split(tmp_path: Path):
    write(tmp_path, {"a": "x", "b": "y"})
    write(tmp_path / "split1", {"a": "other", "b": "y"})
    data = dataset("a", "b")
    plain, own = (read(tmp_path, data, split)[0].videos["a"].captions for split in ("", "1"))
    assert plain is not None
    assert own is not None
    assert not np.array_equal(plain.vectors, own.vectors)


def test_vectors_need_no_encoder_and_stand_beside_texts_of_their_width(tmp_path: Path):
    np.savez(tmp_path / "a.npz", vectors=np.ones((1, 4)), start=[0.0], end=[1.0])
    np.savez(tmp_path / "b.npz", vectors=np.zeros((0, 4)), start=[], end=[])
    data = dataset("a", "b")
    _, captioning = CaptionFolder(tmp_path, "no/such encoder").given(data, "1")
    assert (captioning.encoder, captioning.width) == ("", 4)
    assert captioning.said.endswith(f"{captioning.fingerprint} as vectors")
    (tmp_path / "b.npz").unlink()
    write(tmp_path, {"b": "cut"})
    assert read(tmp_path, data)[1].encoder == "hash:4"
    with pytest.raises(ValueError, match=r"one width, got 4 of .*a\.npz and 8 of .*b\.json"):
        CaptionFolder(tmp_path, "hash:8").given(data, "1")


def test_times_that_are_no_seconds_are_found_out(tmp_path: Path):
    folder = write(tmp_path, {"a": "x", "b": "y"})
    (folder / "b.json").write_text('[{"start": 4000, "end": 8000, "text": "x"}]')
    with pytest.raises(ValueError, match=r"b, which lasts 4 s, got all of them from 4000 s on"):
        read(folder, dataset("a", "b"))


def test_a_fingerprint_is_of_what_is_said_and_not_of_where_or_how(tmp_path: Path):
    texts = {"a": "cut bread", "b": "wash"}
    data = dataset("a", "b", "c")
    marks = [read(write(tmp_path / "one", {**texts, "c": "any"}), data)[1].fingerprint]
    subtitles = tmp_path / "two"
    subtitles.mkdir()
    for name, text in texts.items():
        (subtitles / f"{name}.csv").write_text(f"start,end,text\n0,1.5,{text}\n")
    marks.append(read(subtitles, data)[1].fingerprint)
    assert len(set(marks)) == 1
    marks.append(read(write(tmp_path / "3", {**texts, "b": "Wash"}), data)[1].fingerprint)
    marks.append(read(write(tmp_path / "4", texts, end=1.6), data)[1].fingerprint)
    marks.append(read(write(tmp_path / "5", {**texts, "b": ""}), data)[1].fingerprint)
    np.savez(tmp_path / "5" / "b.npz", vectors=np.ones((1, 4)), start=[0.0], end=[1.5])
    (tmp_path / "5" / "b.json").unlink()
    marks.append(read(tmp_path / "5", data)[1].fingerprint)
    assert len(set(marks)) == 5


def test_no_folder_no_captions_and_no_reader_are_told_apart(tmp_path: Path):
    model = FrameClassifierConfig()
    assert caption_folder("", model) is None
    with pytest.raises(FileNotFoundError, match=r"looked for in .*gone.*say --captions PATH"):
        caption_folder(str(tmp_path / "gone"), model)
    with pytest.raises(ValueError, match=r"<video>\.vtt, <video>\.csv.*which holds none"):
        caption_folder(str(tmp_path), model)
    write(tmp_path, {"a": "x"})
    with pytest.raises(ValueError, match="a model that has a text encoder"):
        caption_folder(str(tmp_path), model)


def test_the_width_of_the_text_follows_the_captions():
    read_ = Captioning(folder="vlm", fingerprint="0" * 8, encoder="", width=4)
    assert fitted(ReaderConfig(), read_).text_dim == 4
    assert fitted(ReaderConfig(text_dim=4), read_).text_dim == 4
    assert fitted(FrameClassifierConfig(), read_) == FrameClassifierConfig()
    with pytest.raises(ValueError, match=r"reads captions of width 8 .* vlm have width 4"):
        fitted(ReaderConfig(text_dim=8), read_)


# Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderConfig(FrameClassifierConfig):
    """A model that names each step from its features and the mean of the captions told."""

    encoder: str = "hash:4"
    text_dim: int = 0
    reads: bool = True

    def build(self, taxonomy: Taxonomy) -> Any:
        return Reader(self, taxonomy)


class Reader(Anticipator):
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.SEGMENTATION})

    def __init__(self, config: ReaderConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config, self.taxonomy = config, taxonomy
        self.reads_captions = config.reads
        width = config.feature_dim + config.text_dim
        self.classifier = nn.Linear(width, len(taxonomy.labels))

    def forward(self, x: Observation) -> torch.Tensor:
        tokens = x.modalities["captions"]
        counts = tokens.valid.sum(1, keepdim=True).clamp(min=1)
        heard = (tokens.values * tokens.valid[..., None]).sum(1) / counts
        beside = heard[:, None].expand(-1, x.features.shape[1], -1)
        return self.classifier(torch.cat([x.features, beside], -1))

    def losses(self, x: Observation, y: Target) -> Losses:
        logits, labels = self(x), y.frames[self.taxonomy.primary]
        return {"past": nn.functional.cross_entropy(logits.transpose(1, 2), labels)}

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        logits = self(x)
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=logits[i, valid].softmax(-1),
            )
            for i, valid in enumerate(x.valid)
        ]


@pytest.fixture(autouse=True)
def known_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "caption-reader", ReaderConfig)  # type: ignore[arg-type]


RECIPE = TrainConfig(
    model=ReaderConfig(feature_dim=folders.WIDTH),
    observed_ratios=(0.5, 1.0),
    epochs=1,
    batch_size=4,
    warmup_epochs=0,
    selection="last",
    select_by="segmentation",
)


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with captions, and a run that reads them; no test changes it."""
    path = tmp_path_factory.mktemp("trained")
    data = folders.write_folder(path / "kitchen", splits=2)
    write(path / "vlm", {f"v{i}": f"somebody stirs pot {i}" for i in range(6)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "caption-reader", ReaderConfig)  # type: ignore[arg-type]
        config = replace(RECIPE, captions=str(path / "vlm"))
        train_run("mine", config, path / "runs" / "reader", data=data)
    return path


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    own = tmp_path / "own"
    shutil.copytree(trained, own)
    for config in [*own.rglob("config.json"), *own.rglob("training.json")]:
        config.write_text(config.read_text().replace(str(trained), str(own)))
    return own


def result(folder: Path, name: str = "segmentation") -> Any:
    return read_result(folder / "results" / f"{name}.json").passport


def test_a_run_remembers_its_captions_and_the_passport_says_them(home: Path):
    reader = home / "runs" / "reader"
    loaded = load_run(reader)
    marks = [one.captions.fingerprint for one in loaded if one.captions is not None]
    assert [one.checkpoint.run["captions_fingerprint"] for one in loaded] == marks
    assert loaded[0].training["captions"] == str(home / "vlm")
    assert loaded[0].checkpoint.model.config.text_dim == 4
    assert run("evaluate", reader) == 0
    passport = result(reader)
    # All videos are of both splits: their captions are the same.
    assert len(set(marks)) == 1
    assert passport.captions == f"vlm {marks[0]} read by hash:4"
    assert passport.input == (
        f"features, {folders.WIDTH} wide, and captions of files, which may look ahead, {marks[0]} "
        "read by hash:4"
    )
    assert passport.features_causal == "unknown"
    assert passport.changed == ()


def test_moved_captions_are_looked_for_and_can_be_said(home: Path, capsys: Any):
    reader = home / "runs" / "reader"
    features = home / "kitchen" / "features" / "v0.npy"
    assert run("evaluate", reader, "--out", home / "first") == 0
    (home / "vlm").rename(home / "moved")
    capsys.readouterr()
    for line in (("evaluate", reader), ("predict", reader, features)):
        assert run(*line) == 2
        said = capsys.readouterr().err
        assert f"looked for in {home / 'vlm'} and are not there" in said
        assert "say --captions PATH" in said
    assert run("evaluate", reader, "--captions", home / "moved") == 0
    moved = reader / "results" / "segmentation-captions-moved.json"
    assert read_result(moved).passport.captions.startswith("moved ")
    assert run("compare", home / "first" / "segmentation.json", moved) == 0


def test_other_captions_do_not_compare_and_say_those_of_the_training(home: Path, capsys: Any):
    reader = home / "runs" / "reader"
    write(home / "other", {f"v{i}": "nothing happens" for i in range(6)})
    trained = load_run(reader)[0].checkpoint.run["captions_fingerprint"]
    assert run("evaluate", reader) == 0
    assert run("evaluate", reader, "--captions", home / "other") == 0
    assert result(reader, "segmentation-captions-other").input.endswith(
        f"read by hash:4 (in training {trained})"
    )
    found = sorted((reader / "results").glob("*.json"))
    assert len(found) == 2
    capsys.readouterr()
    assert run("compare", *found) == 2
    assert "input: " in capsys.readouterr().err


def test_a_file_of_ones_own_is_forecast_with_captions_of_its_name(home: Path, capsys: Any):
    reader, own = home / "runs" / "reader", home / "new.npy"
    shutil.copy(home / "kitchen" / "features" / "v1.npy", own)
    assert run("predict", reader, own, "--split", "1") == 2
    assert "has no captions of 1 of 1 videos (new)" in capsys.readouterr().err
    (home / "here").mkdir()
    (home / "here" / "new.vtt").write_text(VTT)
    words = ("predict", reader, own, "--split", "1", "--captions", home / "here", "--json")
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out)["segments"]
    assert run("predict", reader, "v0", "--json") == 0


def test_captions_of_another_width_than_was_trained_are_refused(home: Path, capsys: Any):
    (home / "clip").mkdir()
    for i in range(6):
        file = home / "clip" / f"v{i}.npz"
        np.savez(file, vectors=np.ones((1, 5)), start=[0.0], end=[1.0])
    assert run("evaluate", home / "runs" / "reader", "--captions", home / "clip") == 2
    assert "reads captions of width 4 (text_dim), those of clip have width 5" in (
        capsys.readouterr().err
    )


def test_training_goes_on_with_the_same_folder_alone(home: Path):
    again = replace(RECIPE, captions=str(home / "vlm" / ".." / "vlm"))
    words: dict[str, Any] = {"data": home / "kitchen", "resume": True}
    train_run("mine", again, home / "runs" / "reader", **words)
    shutil.copytree(home / "vlm", home / "copied")
    with pytest.raises(ValueError, match=r"captions was .*vlm and is .*copied"):
        train_run(
            "mine", replace(again, captions=str(home / "copied")), home / "runs" / "reader", **words
        )


def test_training_does_not_go_on_with_captions_that_say_something_else(home: Path):
    write(home / "vlm", {f"v{i}": "nobody is here" for i in range(6)})
    again = replace(RECIPE, captions=str(home / "vlm"))
    words: dict[str, Any] = {"data": home / "kitchen", "resume": True}
    with pytest.raises(ValueError, match=r"the content of captions .* is now that of captions"):
        train_run("mine", again, home / "runs" / "reader", **words)


def test_a_model_that_reads_no_captions_is_not_given_any(home: Path, capsys: Any):
    words = ("--data", home / "kitchen", "--out", home / "runs", "--captions", home / "vlm")
    assert run("train", "futr", *folders.SMALL, *words) == 2
    assert "a model that has a text encoder (model.encoder), got FUTRConfig" in (
        capsys.readouterr().err
    )
    deaf = replace(RECIPE, captions=str(home / "vlm"), model=ReaderConfig(reads=False))
    with pytest.raises(ValueError, match="a model that reads them, got caption-reader"):
        train_run("mine", deaf, home / "runs" / "deaf", data=home / "kitchen")


def test_the_option_is_refused_of_runs_without_captions(home: Path, capsys: Any):
    words = ("--data", home / "kitchen", "--out", home / "runs", "--split", "1")
    assert run("train", "futr", *folders.SMALL, *words) == 0
    futr, features = home / "runs" / "futr", home / "kitchen" / "features" / "v0.npy"
    capsys.readouterr()
    for line in (("evaluate", futr), ("predict", futr, features)):
        assert run(*line, "--captions", home / "vlm") == 2
        assert "--captions must go with a run that was trained with it" in capsys.readouterr().err


def test_a_stream_has_no_captions(home: Path, capsys: Any):
    reader, features = home / "runs" / "reader", home / "kitchen" / "features" / "v0.npy"
    assert run("stream", reader, features, "--split", "1") == 2
    assert "reads captions of what was seen, but a stream has features alone" in (
        capsys.readouterr().err
    )


def test_a_model_that_answers_at_every_step_is_told_nothing_of_later_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Reader, "tasks", frozenset({Task.SEGMENTATION, Task.ONLINE}))
    config = replace(RECIPE, captions=str(home / "vlm"))
    with pytest.raises(ValueError, match="caption-reader, which answers at every step"):
        train_run("mine", config, home / "runs" / "online", data=home / "kitchen")
