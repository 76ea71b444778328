"""Exported graphs give the numbers of the model, and what enters a state is checked."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streams import ACT_TOKENS, KITCHEN, WIDTH, clam, eager, frames

from actioncast.export.description import FILE, read_description, write_description
from actioncast.export.runtime import ExportedStream, Step
from actioncast.streaming import StreamConfig  # noqa: F401  (the hook must see the package first)

NEAR = 1e-5
FRAMES = 50


def run(stream: ExportedStream, given: np.ndarray) -> list[Step]:
    state, found = stream.initial_state(), []
    for frame in given:
        found.append(stream.step(frame, state))
        state = found[-1].state
    return found


def furthest(step: Step, expected: tuple[dict, dict, object]) -> float:
    past, future, _ = expected
    assert step.future is not None
    return max(
        float(np.abs(given[head] - right[head]).max())
        for given, right in ((step.past, past), (step.future, future))
        for head in KITCHEN.heads
    )


@pytest.fixture
def fp32(exported: dict[str, Path]) -> ExportedStream:
    return ExportedStream(exported["fp32"], threads=1)


def test_every_step_gives_the_numbers_of_the_model_from_the_first_frame_on(
    fp32: ExportedStream,
) -> None:
    given = frames(FRAMES)
    steps, expected = run(fp32, given), eager(clam(), given)
    assert FRAMES > ACT_TOKENS
    for step, right in zip(steps, expected, strict=True):
        assert furthest(step, right) < NEAR
        assert step.future is not None
        assert step.future["action"].shape == (2, 4)
        assert step.past["noun"].shape == (1, 3)
        for name, tensor in right[2].tensors().items():
            np.testing.assert_allclose(step.state.tensors[name], tensor.numpy(), atol=NEAR)
    assert steps[-1].state.frames == FRAMES


def test_without_an_answer_the_state_moves_all_the_same(fp32: ExportedStream) -> None:
    state = fp32.initial_state()
    for frame in frames(5):
        past, future, state = fp32.step(frame, state, answer=False)
        assert future is None
    last = run(fp32, frames(5))[-1]
    np.testing.assert_array_equal(fp32.answer(state)["action"], last.future["action"])
    np.testing.assert_array_equal(past["action"], last.past["action"])


def test_a_step_leaves_the_state_before_it_as_it_was(fp32: ExportedStream) -> None:
    one, two = frames(2)
    before = fp32.step(one, fp32.initial_state()).state
    first, second = fp32.step(two, before), fp32.step(two, before)
    np.testing.assert_array_equal(first.future["verb"], second.future["verb"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_stream_goes_on_from_a_saved_state(
    precision: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    given = frames(12)
    stream = ExportedStream(exported[precision], threads=1, engine="onnxruntime")
    steps = run(stream, given)
    stream.save_state(steps[6].state, tmp_path / "state")
    other = ExportedStream(exported[precision], threads=1, engine="onnxruntime")
    state = other.restored(tmp_path / "state")
    assert state.frames == 7
    np.testing.assert_array_equal(state.past["action"], steps[6].past["action"])
    for i in range(7, 12):
        step = other.step(given[i], state)
        state = step.state
        np.testing.assert_array_equal(step.future["action"], steps[i].future["action"])


def test_8_bits_are_near_and_far_smaller_matrices(exported: dict[str, Path]) -> None:
    onnx = pytest.importorskip("onnx")
    given = frames(FRAMES)
    steps = run(ExportedStream(exported["int8"], threads=1, engine="onnxruntime"), given)
    gaps = [furthest(*pair) for pair in zip(steps, eager(clam(), given), strict=True)]
    assert NEAR < max(gaps) < 0.02
    kinds = {
        tensor.name: tensor.data_type
        for part in ("advance", "answer")
        for tensor in onnx.load(exported["int8"] / f"{part}.onnx").graph.initializer
    }
    # Two products of the step size and two of each block's ends; two of each predictor layer.
    assert sum(kind == onnx.TensorProto.INT8 for kind in kinds.values()) == 2 * 4 + 2 * 2


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_the_fast_modes_run_and_are_near(
    precision: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="openvino of the extra `export` is not installed")
    folder = exported["int8"]
    if precision == "bfloat16":
        # The graphs of bfloat16 are those of float32: the engine multiplies otherwise.
        folder = shutil.copytree(exported["fp32"], tmp_path / "bfloat16")
        write_description(folder, replace(read_description(folder), precision="bfloat16"))
    stream = ExportedStream(folder, threads=1)
    assert stream.engine == "openvino"
    given = frames(FRAMES)
    for step, right in zip(run(stream, given), eager(clam(), given), strict=True):
        assert furthest(step, right) < 0.05


def test_no_more_than_one_mean_of_the_rounding_error_is_left(exported: dict[str, Path]) -> None:
    """Over the frames that it was fitted on, rounding moves the mean answer by next to nothing."""
    given = frames(64, seed=9)
    steps = run(ExportedStream(exported["int8"], threads=1, engine="onnxruntime"), given)
    right = eager(clam(), given)
    gaps = np.array(
        [s.future["action"] - r[1]["action"] for s, r in zip(steps, right, strict=True)]
    )
    assert np.abs(gaps.mean(0)).max() < 0.5 * np.abs(gaps).max()


# Bad input


def test_a_frame_of_another_width_is_refused(fp32: ExportedStream) -> None:
    with pytest.raises(ValueError, match=r"must have 6 features, .* frame 0 has 7"):
        fp32.step(np.zeros(WIDTH + 1, np.float32), fp32.initial_state())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_frame_is_named_and_refused(bad: float, fp32: ExportedStream) -> None:
    state = run(fp32, frames(3))[-1].state
    frame = frames(1)[0]
    frame[2] = bad
    with pytest.raises(ValueError, match="frame 3 holds NaN or infinity"):
        fp32.step(frame, state)


def test_a_skipped_frame_leaves_state_and_answer(exported: dict[str, Path]) -> None:
    stream = ExportedStream(exported["fp32"], threads=1, bad_frames="skip")
    before = run(stream, frames(3))[-1]
    step = stream.step(np.full(WIDTH, np.nan, np.float32), before.state)
    assert step.state.frames == 4
    assert step.past is before.state.past
    assert step.state.tensors is before.state.tensors
    np.testing.assert_array_equal(step.future["action"], before.future["action"])
    first = stream.step(np.full(WIDTH, np.nan, np.float32), stream.initial_state())
    assert not first.past["action"].any()


def test_the_state_of_another_model_is_refused(fp32: ExportedStream, tmp_path: Path) -> None:
    state = fp32.initial_state()
    with pytest.raises(ValueError, match=r"one of this model .* got one of elsewhere"):
        fp32.step(frames(1)[0], replace(state, model="elsewhere"))
    short = {**state.tensors, "tokens": state.tensors["tokens"][:, 1:]}
    with pytest.raises(ValueError, match="it differs in tokens"):
        fp32.step(frames(1)[0], replace(state, tensors=short))
    (tmp_path / "state").write_bytes(b"not a state")
    with pytest.raises(ValueError, match="must be a state that"):
        fp32.restored(tmp_path / "state")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        fp32.restored(tmp_path / "nowhere")


def test_a_folder_that_was_changed_is_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exported["fp32"], tmp_path / "copy")
    graph = folder / "answer.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ValueError, match="SHA-256"):
        read_description(folder)
    graph.unlink()
    with pytest.raises(FileNotFoundError, match=r"answer\.onnx"):
        read_description(folder)
    (folder / FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="must be the JSON"):
        read_description(folder)
    with pytest.raises(FileNotFoundError, match="actioncast export"):
        read_description(tmp_path)


def test_an_engine_that_cannot_is_refused(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from actioncast.export.runtime import engine_of

    with pytest.raises(ValueError, match="openvino for bfloat16"):
        engine_of("bfloat16", "onnxruntime")
    with pytest.raises(ValueError, match="threads must be 0 or more"):
        ExportedStream(exported["fp32"], threads=-1)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ValueError, match=r"pip install 'actioncast\[export\]'"):
        ExportedStream(exported["int8"])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_streams_of_two_threads_are_streams_alone(
    precision: str, exported: dict[str, Path]
) -> None:
    if precision == "int8":
        pytest.importorskip("openvino", reason="openvino of the extra `export` is not installed")
    stream = ExportedStream(exported[precision], threads=1)
    given = [frames(150, seed=seed) for seed in (3, 4)]
    alone = [run(stream, one) for one in given]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda one: run(stream, one), given))
    for mine, yours in zip(alone, together, strict=True):
        for step, other in zip(mine, yours, strict=True):
            assert all(np.array_equal(step.past[h], other.past[h]) for h in step.past)
