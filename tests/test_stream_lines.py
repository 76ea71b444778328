"""Features from standard input: what a line may be, and answers as frames come."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actioncast.__main__ import main
from actioncast.checkpoint import save_checkpoint
from actioncast.export.state_file import read_state
from actioncast.models.clam_config import ClamConfig
from actioncast.stream_lines import FeatureLines, numbers_of
from actioncast.timeline import Taxonomy

WIDTH = 3
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=6))
def test_every_way_to_write_a_frame_gives_the_same_numbers(values: list[float]) -> None:
    words = [repr(value) for value in values]
    for text in (json.dumps(values), " ".join(words), ",".join(words), "\t".join(words) + " \r\n"):
        assert numbers_of(text.encode()).tolist() == values


@pytest.mark.parametrize(
    "line",
    ["soon", "1 two 3", "[1, 2", "[1, [2]]", '["1"]', "[true]", "[null]", '{"a": 1}', "[" * 9999],
)
def test_what_is_no_frame_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=repr(line[:3])[1:-1].replace("[", r"\[")):
        numbers_of(line.encode())
    with pytest.raises(ValueError, match="'"):
        numbers_of(b"\xff\xfe1")


def frames_of(text: bytes, *, skip: bool = False) -> tuple[list[list[float]], list[str]]:
    notes: list[str] = []
    lines = FeatureLines(
        io.BytesIO(text).readline, WIDTH, "skip" if skip else "refuse", notes.append
    )
    return [frame.tolist() for frame in lines], notes


def test_empty_lines_are_no_frames_and_the_last_needs_no_end() -> None:
    found, _ = frames_of(b"1 2 3\n\n  \n[4, 5, 6]\n7,8,9")
    assert found == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_a_broken_line_is_named_by_its_number() -> None:
    with pytest.raises(ValueError, match=r"line 3 must be 3 numbers, got 2; .* --bad-frames skip"):
        frames_of(b"1 2 3\n\n4 5\n7 8 9\n")
    with pytest.raises(ValueError, match="line 2 must be 3 numbers, got 'four'"):
        frames_of(b"1 2 3\nfour\n")
    with pytest.raises(ValueError, match="give its path"):
        frames_of(b"\x93NUMPY\x01\x00\n", skip=True)


def test_a_skipped_line_keeps_its_place() -> None:
    found, notes = frames_of(b"1 2 3\n4 5\n6\n7 8 9\n1\n", skip=True)
    assert (found[0], found[3]) == ([1, 2, 3], [7, 8, 9])
    assert np.isnan([found[1], found[2], found[4]]).all()
    # One note for each row of broken lines.
    more = "it and such lines after it stand for frames of NaN."
    assert notes == [f"line {n} must be 3 numbers, got {k}; {more}" for n, k in ((2, 2), (5, 1))]


def test_a_number_beyond_float32_is_infinite_and_no_crash() -> None:
    assert np.isinf(numbers_of(b"[1e39, 1, 2]"))[0]
    with pytest.raises(ValueError, match="1000"):
        numbers_of(b"[1" + b"0" * 400 + b"]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAM of three features, four frames a second, of which it reads every second one."""
    torch.manual_seed(0)
    config = ClamConfig(
        feature_dim=WIDTH,
        hidden_dim=8,
        num_layers=1,
        state_dim=2,
        num_heads=2,
        memory_queries=2,
        gate_rank=2,
        predictor_layers=1,
        predictor_dim=8,
    )
    folder = tmp_path_factory.mktemp("run")
    model = config.build(Taxonomy.of(("stir", "cut")))
    save_checkpoint(folder, "clam", model, config, {"rate": 4.0, "training": {"stride": 2}})
    return folder


def answers(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[dict], str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code = main(["stream", *words, "--json"])
    caught = capsys.readouterr()
    said = [json.loads(line) for line in caught.out.splitlines()]
    return code, [{k: v for k, v in one.items() if k != "ms"} for one in said], caught.err


def written(frames: np.ndarray) -> str:
    return "".join(json.dumps(row.tolist()) + "\n" for row in frames)


@pytest.mark.parametrize("more", [[], ["--every", "4"], ["--every", "1s", "--limit", "6"]])
def test_standard_input_gives_what_a_file_gives(
    more: list[str],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames = np.random.default_rng(0).standard_normal((11, WIDTH)).astype(np.float32)
    frames[4] = np.nan
    np.save(tmp_path / "a.npy", frames)
    words = [*more, "--bad-frames", "skip"]
    file = answers([str(run), str(tmp_path / "a.npy"), *words], "", monkeypatch, capsys)
    live = answers([str(run), "-", *words], written(frames), monkeypatch, capsys)
    assert file[:2] == live[:2]
    assert len(live[1]) == {0: 6, 2: 3, 4: 2}[len(more)]
    for said in (file[2], live[2]):
        assert "note: frame 4 (1.0 s) holds NaN or infinity; it is skipped" in said
        assert "answers, one every" in said


def test_a_broken_line_ends_the_stream_or_is_skipped(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "1 2 3\n1 2 3\nno frame\n1 2 3\n"
    code, said, err = answers([str(run), "-"], text, monkeypatch, capsys)
    assert (code, len(said)) == (2, 1)
    assert "line 3 must be 3 numbers, got 'no frame'" in err
    words = [str(run), "-", "--bad-frames", "skip"]
    code, said, err = answers(words, text, monkeypatch, capsys)
    assert (code, [one["seconds"] for one in said]) == (0, [0.5, 1.0])
    assert said[0]["now"] == said[1]["now"]
    assert "note: line 3 must be" in err
    code, said, err = answers(words, "", monkeypatch, capsys)
    assert (code, said) == (0, [])
    assert "standard input held no frame" in err


def test_an_exported_stream_reads_standard_input_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")
    assert main(["export", str(run), "--out", str(tmp_path / "graphs")]) == 0
    capsys.readouterr()
    text = written(np.random.default_rng(1).standard_normal((7, WIDTH)))
    found = [
        answers([str(source), "-", "--every", "4"], text, monkeypatch, capsys)[1]
        for source in (run, tmp_path / "graphs")
    ]
    for ours, theirs in zip(*found, strict=True):
        assert ours["seconds"] == theirs["seconds"]
        assert ours["frame"] == theirs["frame"]
        assert ours["now"][0]["label"] == theirs["now"][0]["label"]
        assert ours["now"][0]["probability"] == pytest.approx(
            theirs["now"][0]["probability"], abs=2e-4
        )
    assert [one["seconds"] for one in found[0]] == [1.0, 1.75]


def test_an_answer_stands_before_the_next_frame_comes(run: Path) -> None:
    """A frame is written only after the answer to the one before was read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "actioncast", "stream", str(run), "-", "--every", "2", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for count in (1, 2, 3):
        process.stdin.write("1 2 3\n4 5 6\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["seconds"] == count * 0.5
    _, err = process.communicate("", timeout=60)
    assert process.returncode == 0
    assert "3 answers, one every 2 frames: median" in err


def test_waiting_for_frames_is_no_latency() -> None:
    text = io.BytesIO(b"1 2 3\n4 5 6\n")

    def late() -> bytes:
        time.sleep(0.02)
        return text.readline()

    lines = FeatureLines(late, WIDTH, "refuse", lambda _: None)
    started, passed = lines.clock(), time.perf_counter()
    assert len(list(lines)) == 2
    passed, taken = time.perf_counter() - passed, lines.clock() - started
    assert passed >= 0.06
    assert taken <= passed - 0.06 + 1e-6


def test_sigterm_leaves_the_state_after_the_last_frame(run: Path, tmp_path: Path) -> None:
    state = tmp_path / "kept"
    process = subprocess.Popen(
        [sys.executable, "-m", "actioncast", "stream", str(run), "-", "--state", str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("1 2 3\n4 5 6\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"kept the state after 2 frames (0.5 s) in {state}; go on with the frames after" in err
    assert read_state(state).frames == 2
