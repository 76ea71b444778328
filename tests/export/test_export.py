"""What can be exported, what is written, and the way through the command line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streams import KITCHEN, RATE, SIZES, WIDTH, checkpoint, clam, eager, frames, write_run

from actioncast.__main__ import main
from actioncast.checkpoint import Checkpoint, json_bytes
from actioncast.export.clam_graphs import require_streaming_clam, rounded_matrices
from actioncast.export.description import (
    FILE,
    GraphFile,
    is_exported,
    read_description,
    write_description,
)
from actioncast.export.exporting import export_checkpoint
from actioncast.export.pace import Pace, pace_of
from actioncast.export.runtime import ExportedStream
from actioncast.models.online_baselines import OnlineGRUConfig
from actioncast.stream_verbs import frames_between, latency
from actioncast.timeline import Taxonomy
from actioncast.types import Observation


def test_what_looks_back_from_the_end_cannot_be_exported() -> None:
    for odd in ({"act_choice": "uniform"}, {"gate_order": "reversed"}):
        with pytest.raises(ValueError, match="answers frame by frame"):
            require_streaming_clam(clam(**odd))
    with pytest.raises(ValueError, match=r"export is for CLAM, .* got OnlineGRU"):
        require_streaming_clam(OnlineGRUConfig(feature_dim=WIDTH).build(KITCHEN))


@pytest.mark.parametrize("training", [{"labels_from": "runs/x"}, {"resample": 8}])
def test_what_cannot_be_streamed_is_sent_to_files(
    training: dict[str, object], tmp_path: Path
) -> None:
    model = OnlineGRUConfig(feature_dim=WIDTH).build(KITCHEN)
    for said, instead in ((training, "files with `actioncast predict"), ({}, "actioncast stream")):
        found = Checkpoint(model=model, name="online-gru", run={"training": said})
        with pytest.raises(ValueError, match=instead):
            export_checkpoint(found, tmp_path)


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


def need_export() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")


@pytest.mark.parametrize("background_output", [True, False])
def test_a_graph_never_says_what_nobody_knows(tmp_path: Path, background_output: bool) -> None:
    need_export()
    from actioncast.export.exporting import export_checkpoint

    names = ("Dive", "Ambiguous", "Jump")
    taxonomy = Taxonomy.of(names, unknown=("Ambiguous",))
    model = clam(taxonomy=taxonomy, background_output=background_output)
    with torch.no_grad():
        # Without the exclusion it would be the likeliest of all.
        model.heads["action"].bias[int(background_output) + 1] = 5.0
    export_checkpoint(checkpoint(model), tmp_path)
    stream = ExportedStream(tmp_path, threads=1)
    given = frames(6)
    features = torch.from_numpy(given)
    asked = replace(Observation.of_one(features, RATE), ahead=SIZES["ahead"])
    (said,), _ = model.step(asked, model.initial_state(1))
    assert said.past is not None
    assert said.ahead is not None
    state = stream.initial_state()
    for i, (frame, right) in enumerate(zip(given, eager(model, given), strict=True)):
        past, future, state = stream.step(frame, state)
        assert future is not None
        assert past["action"][0, 1] == 0
        assert not future["action"][:, 1].any()
        np.testing.assert_allclose(past["action"], right[0]["action"], atol=1e-5)
        np.testing.assert_allclose(future["action"], right[1]["action"], atol=1e-5)
        np.testing.assert_allclose(past["action"][0], said.past[i], atol=1e-5)
        np.testing.assert_allclose(future["action"], said.ahead[i], atol=1e-5)
    assert stream.about.taxonomy().labels == taxonomy.labels


def test_a_folder_that_names_no_unknown_labels_still_loads(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    def older(about: dict[str, Any]) -> None:
        for name in ("outputs", "data"):
            del about["stream"][name]
        for head in about["stream"]["heads"].values():
            del head["unknown"]

    about = read_description(changed(exported["fp32"], tmp_path / "older", older))
    assert about.taxonomy().labels.unknown == frozenset()
    assert about.outputs == {}


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy whose `stream.json` was changed by somebody who took its SHA-256 out."""
    shutil.copytree(folder, to)
    about = json.loads((to / FILE).read_text(encoding="utf-8"))
    del about["sha256"]
    change(about)
    (to / FILE).write_bytes(json_bytes(about))
    return to


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rate", 0.0, r"rate must be finite frames a second above 0, got 0\.0"),
        ("rate", -4.0, "rate must be"),
        ("rate", float("inf"), "rate must be"),
        ("rate", None, "rate: "),
        ("stride", 0, "stride must be 1 or more, got 0"),
        ("feature_dim", 0, "feature_dim must be 1 or more"),
        ("precision", "fp16", "precision: "),
        ("num_coming", -1, "num_coming must be 0 or more"),
        ("num_coming", 2, "got both or none"),
        ("ahead", [], "got both or none"),
        ("ahead", [1.0, 0.5], "ahead must be increasing"),
        ("ahead", [0.0, 0.5], "ahead must be increasing"),
        ("ahead", [0.5, float("inf")], "ahead must be increasing"),
        ("ahead", [0.5, 1.0, 1.5], r"ahead must be as many as future .* got 3 and \(2, "),
        ("primary", "deed", "primary must be one of the heads verb, noun, action, got 'deed'"),
        ("heads.noun.names", ["cup", "pan"], r"noun\.names must be as many .* got 2 and \(1, 3\)"),
        ("heads.noun.names", ["cup", "pan", "pan"], r"heads\.noun .* got pan more than once"),
        ("heads.noun.names", [], r"heads\.noun .* at least one name"),
        ("heads.noun.unknown", ["fork"], r"heads\.noun .* got \['fork'\]"),
        ("heads.noun", None, "heads.noun"),
        ("heads.deed", {"names": ["a"]}, "outputs must be past and future of every head"),
        ("outputs.past noun", [3], r"noun\.names must be as many"),
        ("graphs.answer.file", "../answer.onnx", r"graphs\.answer\.file must be the plain name"),
        ("graphs.answer.file", "a\\b.onnx", r"graphs\.answer\.file must be the plain name"),
        ("graphs.answer.file", "", r"graphs\.answer\.file must be the plain name"),
        ("graphs", {}, "graphs must be advance and answer, got none"),
        (
            "data",
            [{"file": "/etc/x", "sha256": "", "bytes": 1}],
            r"data\.0\.file must be the plain",
        ),
        ("state", [{"name": "seen", "shape": [2], "dtype": "int64"}], r"state\.seen must have"),
        ("state", [{"name": "a", "shape": [1], "dtype": "int64"}] * 2, "each tensor once"),
    ],
)
def test_what_contradicts_itself_is_refused_by_file_and_field(
    field: str, value: Any, said: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    def change(about: dict[str, Any]) -> None:
        *way, last = field.split(".") if "outputs" not in field else field.split(".", 1)
        place = about["stream"]
        for key in way:
            place = place[key]
        place[last] = value

    folder = changed(exported["fp32"], tmp_path / "copy", change)
    with pytest.raises(ValueError, match=said) as caught:
        read_description(folder)
    assert str(caught.value).startswith(str(folder / FILE))


def test_labels_that_were_edited_are_noticed(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exported["fp32"], tmp_path / "copy")
    text = (folder / FILE).read_text(encoding="utf-8")
    (folder / FILE).write_text(json.dumps(json.loads(text)), encoding="utf-8")
    assert read_description(folder).heads["noun"].names == ("cup", "pan", "lid")
    (folder / FILE).write_text(text.replace('"cup"', '"mug"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"stream\.json was changed after export; export again"):
        read_description(folder)


def test_what_a_killed_export_left_is_swept_and_named(
    exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from actioncast.export.exporting import export_checkpoint

    folder = shutil.copytree(exported["fp32"], tmp_path / "copy")
    (folder / FILE).unlink()
    assert is_exported(folder)
    with pytest.raises(FileNotFoundError, match=r"holds graphs and no stream\.json.* export again"):
        read_description(folder)
    np.save(tmp_path / "features.npy", frames(2))
    said = refused(["stream", str(folder), str(tmp_path / "features.npy")], capsys)
    assert "export again" in said
    stale, kept = folder / ".exportab12_9xz", folder / ".exportsettings"
    for one, file in ((stale, "advance.onnx"), (kept, "mine.txt")):
        one.mkdir()
        (one / file).write_bytes(b"half")
    odd = [folder / ".answer.onnx.ab12_9xz", folder / "advance.onnx.data"]
    for file in odd:
        file.write_bytes(b"half")
    export_checkpoint(checkpoint(clam()), folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [kept.name, "advance.onnx", "answer.onnx", FILE]
    )
    assert read_description(folder).data == ()


def test_weights_beside_a_graph_must_be_those_of_the_export(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported["fp32"], tmp_path / "copy")
    weights = folder / "advance.onnx.data"
    weights.write_bytes(b"weights")
    about = read_description(folder)
    write_description(folder, replace(about, data=(GraphFile.of(weights),)))
    assert read_description(folder).data[0].bytes == 7
    weights.write_bytes(b"Weights")
    with pytest.raises(ValueError, match=r"advance\.onnx\.data must be .* SHA-256"):
        read_description(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold advance\.onnx\.data"):
        read_description(folder)


def test_weights_too_large_for_one_file_lie_beside_the_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_export()
    from actioncast.export import exporting

    monkeypatch.setattr(exporting, "LARGEST", 0)
    model, given = clam(), frames(4)
    with pytest.raises(ValueError, match="less than 2 GB"):
        exporting.export_checkpoint(checkpoint(model), tmp_path, "int8")
    exporting.export_checkpoint(checkpoint(model), tmp_path)
    listed = {one.file: one.bytes for one in read_description(tmp_path).data}
    assert listed == {path.name: path.stat().st_size for path in tmp_path.glob("*.data")}
    assert listed["advance.onnx.data"] > 10_000
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
    need_export()
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
        assert [line["seconds"] for line in said] == [0.5, 1.0, 1.5, 2.0, 2.5]
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
        assert said[-1]["seconds"] == 2.5
        assert said[-1]["frame"] == 10
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
    err = capsys.readouterr().err
    assert "note: frame 2 (0.5 s) holds NaN or infinity" in err
    assert "note: frame 3 (0.8 s) is good again; skipped 1 frame(s) before it." in err
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
    assert "frame 1 (0.2 s) holds NaN or infinity" in caught.err
