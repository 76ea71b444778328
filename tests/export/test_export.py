"""What can be exported, what is written, and the way through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from streams import KITCHEN, RATE, WIDTH, checkpoint, clam, eager, frames, write_run

from actioncast.__main__ import main
from actioncast.export.clam_graphs import require_streaming_clam, rounded_matrices
from actioncast.export.description import read_description
from actioncast.export.pace import Pace, pace_of
from actioncast.export.runtime import ExportedStream
from actioncast.models.online_baselines import OnlineGRUConfig
from actioncast.stream_verbs import frames_between, latency


def test_what_looks_back_from_the_end_cannot_be_exported() -> None:
    for odd in ({"act_choice": "uniform"}, {"gate_order": "reversed"}):
        with pytest.raises(ValueError, match="answers frame by frame"):
            require_streaming_clam(clam(**odd))
    with pytest.raises(ValueError, match=r"export is for CLAM, .* got OnlineGRU"):
        require_streaming_clam(OnlineGRUConfig(feature_dim=WIDTH).build(KITCHEN))


def test_classifiers_and_memory_are_never_rounded() -> None:
    model = clam()
    spared = [*model.heads.parameters(), *model.memory.parameters()]
    for matrix in rounded_matrices(model):
        assert all(matrix.data_ptr() != one.data_ptr() for one in spared)


def test_the_pace_is_that_of_the_training() -> None:
    assert pace_of({"rate": 15.0, "training": {"stride": 3}}) == Pace(rate=15.0, stride=3)
    clips = {"kind": "clips", "training": {"input": "features", "feature_rate": 4.0}}
    assert pace_of(clips) == Pace(rate=4.0, stride=1)
    past = {"kind": "clips", "training": {"input": "history", "history": {"rate": 2.0}}}
    assert pace_of(past) == Pace(rate=2.0, stride=1)
    with pytest.raises(ValueError, match="how many frames a second"):
        pace_of({"training": {}})


@pytest.mark.parametrize(
    ("every", "expected"), [("", 2), ("8", 8), ("1s", 10), ("0.4s", 4), ("2 S", 20)]
)
def test_the_time_between_answers_is_in_frames_or_seconds(every: str, expected: int) -> None:
    assert frames_between(every, Pace(rate=10.0, stride=2)) == expected


@pytest.mark.parametrize("every", ["0", "-2", "1.5", "soon", "nan", "1e400s", "0.01s"])
def test_no_time_between_answers_is_refused(every: str) -> None:
    with pytest.raises(ValueError, match="--every must be whole frames"):
        frames_between(every, Pace(rate=10.0, stride=1))


def test_half_a_stride_between_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="say --every 6"):
        frames_between("5", Pace(rate=10.0, stride=3))


def test_the_first_answer_counts_for_itself() -> None:
    said = latency([50.0, 1.0, 2.0, 3.0], 1)
    assert "median 2.00 ms" in said
    assert "first 50.00 ms" in said


def test_what_is_written_says_what_it_is(exported: dict[str, Path]) -> None:
    about = read_description(exported["int8"])
    model = clam()
    assert about.precision == "int8"
    assert about.calibration == "frames"
    assert about.fingerprint == model.fingerprint()
    assert about.num_floats == model.initial_state(1).num_floats
    assert about.taxonomy().heads.keys() == KITCHEN.heads.keys()
    assert (about.rate, about.stride, about.ahead) == (RATE, 1, (0.5, 1.0))


def test_weights_too_large_for_one_file_lie_beside_the_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")
    from actioncast.export import exporting

    monkeypatch.setattr(exporting, "LARGEST", 0)
    model, given = clam(), frames(4)
    with pytest.raises(ValueError, match="less than 2 GB"):
        exporting.export_checkpoint(checkpoint(model), tmp_path, "int8")
    exporting.export_checkpoint(checkpoint(model), tmp_path)
    assert (tmp_path / "advance.onnx.data").stat().st_size > 10_000
    stream = ExportedStream(tmp_path, threads=1)
    state = stream.initial_state()
    for frame in given:
        _, future, state = stream.step(frame, state)
    assert future is not None
    right = eager(model, given)[-1][1]["action"]
    np.testing.assert_allclose(future["action"], right, atol=1e-5)


def lines(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict], str]:
    caught = capsys.readouterr()
    return [json.loads(line) for line in caught.out.splitlines()], caught.err


def test_a_run_is_exported_and_streams_as_the_run_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")
    model, given = clam(), frames(10)
    run = write_run(tmp_path / "run", model)
    np.save(tmp_path / "features.npy", given)
    assert main(["export", str(run)]) == 0
    assert "actioncast stream" in capsys.readouterr().out
    exported = run / "exported" / "fp32"
    expected = eager(model, given)
    for source in (exported, run):
        words = ["stream", str(source), str(tmp_path / "features.npy"), "--json", "--top", "4"]
        assert main([*words, "--every", "2"]) == 0
        said, err = lines(capsys)
        assert [line["time"] for line in said] == [0.5, 1.0, 1.5, 2.0, 2.5]
        assert "5 answers, one every 2 frames: median" in err
        for line, (past, future, _) in zip(said, expected[1::2], strict=True):
            near = {one["label"]: one["probability"] for one in line["now"]}
            names = KITCHEN.labels.names
            right = dict(zip(names, past["action"][0].tolist(), strict=True))
            assert near == pytest.approx(right, abs=1e-4)
            assert [one["when"] for one in line["ahead"]] == ["in 0.5 s", "in 1 s"]
            best = names[int(future["action"][1].argmax())]
            assert line["ahead"][1]["actions"][0]["label"] == best
    # A state that the run wrote serves its export, and the other way round.
    state = str(tmp_path / "state")
    whole = ["--json", "--state", state]
    np.save(tmp_path / "a.npy", given[:6])
    np.save(tmp_path / "b.npy", given[6:])
    for first, second in ((run, exported), (exported, run)):
        Path(state).unlink(missing_ok=True)
        assert main(["stream", str(first), str(tmp_path / "a.npy"), *whole]) == 0
        capsys.readouterr()
        assert main(["stream", str(second), str(tmp_path / "b.npy"), *whole]) == 0
        said, _ = lines(capsys)
        assert said[-1]["time"] == 2.5
        best = float(expected[-1][1]["action"][1].max())
        assert said[-1]["ahead"][1]["actions"][0]["probability"] == pytest.approx(best, abs=1e-4)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_what_cannot_stream_is_refused_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", clam())
    features = tmp_path / "features.npy"
    np.save(features, frames(4))
    assert "do not exist" in refused(["stream", str(run), "nowhere.npy"], capsys)
    np.save(tmp_path / "turned.npy", frames(4).T)
    said = refused(["stream", str(run), str(tmp_path / "turned.npy")], capsys)
    assert "transpose them" in said
    bad = frames(4)
    bad[2, 0] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    assert "frame 2" in refused(["stream", str(run), str(tmp_path / "bad.npy")], capsys)
    words = ["stream", str(run), str(tmp_path / "bad.npy"), "--bad-frames", "skip"]
    assert main(words) == 0
    assert "note: skipped 1 frame(s) that hold NaN or infinity: 2." in capsys.readouterr().err
    assert "--threads" in refused(["stream", str(run), str(features), "--threads", "2"], capsys)
    assert "--limit" in refused(["stream", str(run), str(features), "--limit", "-1"], capsys)
    said = refused(["export", str(run), "--calibrate", str(features)], capsys)
    assert "calibration is for int8" in said


def test_options_of_runs_are_refused_for_an_exported_stream(
    exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "features.npy"
    np.save(features, frames(4))
    words = ["stream", str(exported["fp32"]), str(features)]
    assert "--device is for runs" in refused([*words, "--device", "meta"], capsys)
    bad = frames(4)
    bad[1] = np.inf
    np.save(features, bad)
    assert "frame 1 holds" in refused(words, capsys)
    assert main([*words, "--bad-frames", "skip"]) == 0
    caught = capsys.readouterr()
    assert len(caught.out.splitlines()) == 4
    assert "NaN or infinity: 1." in caught.err
