"""A stream that is cut anywhere and goes on from its state says what the whole stream says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import clam, frames, write_run

from actioncast.__main__ import main
from actioncast.export import sources as keeping
from actioncast.export.state_file import read_state, write_state

STRIDE, EVERY, LENGTH = 5, 10, 43
TRAINING = {"stride": STRIDE, "input": "features"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A CLAM that reads every fifth of ten frames a second, as a run and exported."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} of the extra `export` is not installed")
    home = tmp_path_factory.mktemp("kept")
    run = write_run(home / "run", clam(), rate=10.0, training=TRAINING)
    assert main(["export", str(run), "--out", str(home / "graphs")]) == 0
    return {"run": run, "export": home / "graphs"}


@pytest.fixture
def given() -> np.ndarray:
    made = frames(LENGTH)
    # Read and skipped, in the first run, in the second, or across the cut.
    made[[20, 25]] = np.nan
    return made


def said(
    capsys: pytest.CaptureFixture[str], source: Path, features: Path, *more: str, code: int = 0
) -> tuple[list[dict[str, Any]], str]:
    words = ["stream", str(source), str(features), "--json", "--top", "4", *more]
    capsys.readouterr()
    assert main(words) == code
    caught = capsys.readouterr()
    return [json.loads(line) for line in caught.out.splitlines()], caught.err


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def require_same(found: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    def rows(line: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
        named = [("now", line["now"]), *((one["when"], one["actions"]) for one in line["ahead"])]
        return [(w, {one["label"]: one["probability"] for one in row}) for w, row in named]

    assert [(one["frame"], one["seconds"]) for one in found] == [
        (one["frame"], one["seconds"]) for one in right
    ]
    for one, other in zip(found, right, strict=True):
        for (when, probs), (expected_when, expected) in zip(rows(one), rows(other), strict=True):
            assert when == expected_when
            assert probs == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("kind", ["run", "export"])
@pytest.mark.parametrize("cut", [1, *range(20, 31), LENGTH - 1])
def test_first_and_rest_say_what_the_whole_says(
    cut: int,
    kind: str,
    sources: dict[str, Path],
    given: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, file = sources[kind], tmp_path / "state"
    more = ["--every", str(EVERY), "--bad-frames", "skip"]
    whole, _ = said(capsys, source, saved(tmp_path / "whole.npy", given), *more)
    assert [one["frame"] for one in whole] == [10, 20, 30, 40, LENGTH]
    assert [one["seconds"] for one in whole] == [1.0, 2.0, 3.0, 4.0, 4.3]
    # Frames between the grid of the stride are never read.
    spoilt = given.copy()
    spoilt[np.arange(LENGTH) % STRIDE != 0] = np.nan
    kept = [*more, "--state", str(file)]
    first, _ = said(capsys, source, saved(tmp_path / "first.npy", spoilt[:cut]), *kept)
    assert read_state(file).frames == cut
    rest, err = said(capsys, source, saved(tmp_path / "rest.npy", spoilt[cut:]), *kept)
    assert f"going on after {cut} frames ({cut / 10:.1f} s); FEATURES must hold what comes" in err
    assert read_state(file).frames == LENGTH
    # What is off the grid of --every waits for the rest of a stream that is kept.
    require_same([*first, *rest], whole[:-1])


def test_a_run_and_its_export_go_on_from_each_other_off_the_grid(
    sources: dict[str, Path],
    given: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, _ = said(
        capsys, sources["run"], saved(tmp_path / "whole.npy", given), "--bad-frames", "skip"
    )
    for one, other in (("run", "export"), ("export", "run")):
        more = ["--bad-frames", "skip", "--state", str(tmp_path / one)]
        # The last frame read before the cut and the first one after it are bad.
        first, _ = said(capsys, sources[one], saved(tmp_path / "a.npy", given[:23]), *more)
        rest, _ = said(capsys, sources[other], saved(tmp_path / "b.npy", given[23:]), *more)
        require_same([*first, *rest], whole[:-1])


@pytest.mark.parametrize("kind", ["run", "export"])
def test_skip_seen_leaves_out_what_the_state_has_seen(
    kind: str,
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, file = saved(tmp_path / "whole.npy", frames(LENGTH)), tmp_path / "state"
    whole, _ = said(capsys, sources[kind], given)
    more = ["--state", str(file), "--skip-seen"]
    first, _ = said(capsys, sources[kind], given, *more, "--limit", "17")
    rest, err = said(capsys, sources[kind], given, *more)
    require_same([*first, *rest], whole[:-1])
    assert "going on after 17 frames (1.7 s), which are left out of FEATURES" in err
    nothing, err = said(capsys, sources[kind], given, *more)
    assert not nothing
    assert "holds 43 frames, all of them seen before" in err
    _, err = said(capsys, sources[kind], given, "--skip-seen", code=2)
    assert "--skip-seen needs --state" in err


@pytest.mark.parametrize("kind", ["run", "export"])
def test_a_refused_frame_leaves_the_state_before_it(
    kind: str,
    sources: dict[str, Path],
    given: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "state"
    bad = saved(tmp_path / "bad.npy", given)
    # The answer at 40 is far off: frames since the last answer are in the state as well.
    more = ["--state", str(file), "--every", "40"]
    none, err = said(capsys, sources[kind], bad, *more, code=2)
    assert not none
    assert "frame 20 holds NaN or infinity" in err
    assert "--bad-frames skip" in err
    assert f"kept the state after 20 frames (2.0 s) in {file}" in err
    assert read_state(file).frames == 20
    mended = saved(tmp_path / "mended.npy", np.nan_to_num(given))
    rest, _ = said(capsys, sources[kind], mended, *more, "--skip-seen")
    whole, _ = said(capsys, sources[kind], mended, "--every", "40")
    require_same(rest, whole[:1])


def test_the_state_is_written_on_the_way(
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[int | None] = []
    monkeypatch.setattr(keeping, "write_state", lambda _, kept: written.append(kept.frames))
    file = saved(tmp_path / "a.npy", frames(LENGTH))
    state = ["--state", str(tmp_path / "state")]
    said(capsys, sources["run"], file, *state, "--save-every", "1.5s")
    assert written == [15, 30, LENGTH]
    written.clear()
    said(capsys, sources["run"], file, *state, "--save-every", "0")
    assert written == [LENGTH]
    _, err = said(capsys, sources["run"], file, *state, "--save-every", "soon", code=2)
    assert "--save-every must be whole frames, as 8, or seconds" in err


def test_a_state_that_does_not_say_how_long_its_stream_is_stands_whole_strides_after_its_start(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state"
    more = ["--state", str(file)]
    said(capsys, sources["run"], saved(tmp_path / "a.npy", frames(20)), *more)
    kept = read_state(file)
    assert (kept.steps, kept.frames) == (4, 20)
    write_state(file, replace(kept, frames=None))
    assert read_state(file).frames is None
    rest, _ = said(capsys, sources["run"], saved(tmp_path / "b.npy", frames(6)), *more)
    assert [one["frame"] for one in rest] == [25]


@pytest.mark.parametrize("kind", ["run", "export"])
def test_nothing_is_said_before_the_first_good_frame(
    kind: str,
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = frames(30)
    made[:12] = np.nan
    features = saved(tmp_path / "bad.npy", made)
    lines, err = said(capsys, sources[kind], features, "--bad-frames", "skip")
    assert [bool(one["now"]) for one in lines] == [False] * 3 + [True] * 3
    assert [len(one["ahead"]) for one in lines] == [0] * 3 + [2] * 3
    assert err.count("NaN") == 1
    assert "frame 15 (1.5 s) is good again; skipped 3 frame(s) before it" in err


@pytest.mark.parametrize("kind", ["run", "export"])
def test_another_rate_than_that_of_training_is_refused(
    kind: str,
    sources: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = saved(tmp_path / "a.npy", frames(20))
    _, err = said(capsys, sources[kind], file, "--rate", "25", code=2)
    assert "--rate must be that of training, 10 frames a second" in err
    assert "got 25" in err
    lines, _ = said(capsys, sources[kind], file, "--rate", "10.05")
    assert lines[-1]["seconds"] == pytest.approx(20 / 10.05, abs=1e-4)


def test_what_is_given_in_the_wrong_place_is_named(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = saved(tmp_path / "a.npy", frames(7))
    for source in sources.values():
        _, err = said(capsys, source, some, "--state", str(tmp_path), code=2)
        assert f"--state must be a file, got the folder {tmp_path}" in err
        _, err = said(capsys, source, saved(tmp_path / "none.npy", frames(0)), code=2)
        assert "none.npy holds no frames" in err
        turned = saved(tmp_path / "turned.npy", frames(7).T)
        _, err = said(capsys, source, turned, "--limit", "2", code=2)
        assert "transpose them" in err
    _, err = said(capsys, sources["export"].parent, some, code=2)
    assert f"holds the exported streams graphs; say which: {sources['export']}." in err
