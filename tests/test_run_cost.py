import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import folders
from actioncast import answer_cost, cost_subjects, inventory, recipe_trunks
from actioncast.__main__ import main
from actioncast.answer_cost import measure_answer, num_weights, observation, peak_bytes
from actioncast.checkpoint import save_checkpoint
from actioncast.cost_subjects import Asked
from actioncast.data import Dataset, Video, open_dataset
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.base import Anticipator, Losses
from actioncast.models.baselines import NGramConfig
from actioncast.protocols import Question
from actioncast.recipe_trunks import recipe_on_trunk
from actioncast.recipes import RECIPES
from actioncast.run_cost import run_cost
from actioncast.timeline import Taxonomy, Timeline
from actioncast.training import Machine, TrainConfig, build, describe, prepare, train_split
from actioncast.trunks import finding
from actioncast.trunks.config import TrunkConfig
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of("abcd")
RUNNING = InferenceConfig()
WIDTH = 6


@pytest.fixture(autouse=True)
def few_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cost, "MOST_REPETITIONS", 3)


class Through(Anticipator):
    """Sends what it sees through a module, then names `a`."""

    tasks = frozenset({Task.LONG_TERM})

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.taxonomy = TAXONOMY
        self.parts = nn.ModuleList(parts)

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def run(self, features: Tensor) -> None:
        for part in self.parts:
            part(features)

    def predict(self, x: Observation) -> list[Prediction]:
        self.run(x.features)
        certain = F.one_hot(torch.zeros(int(x.horizon[0]), dtype=torch.long), 4).float()
        past = torch.full((x.features.shape[1], 4), 0.25)
        return [
            Prediction(
                taxonomy=TAXONOMY,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=past,
                future=certain,
            )
            for i in range(len(x))
        ]


def video(num_frames: int = 100) -> Video:
    frames = np.arange(num_frames) * 4 // num_frames
    return Video(
        id="v",
        timeline=Timeline.from_frames(frames, 10.0, TAXONOMY.labels),
        rate=10.0,
        num_frames=num_frames,
        features=FeatureArray(np.ones((num_frames, WIDTH), np.float32)),
    )


def cost(model: Anticipator, running: InferenceConfig = RUNNING) -> answer_cost.AnswerCost:
    """One answer of a model that sees 20 frames and is asked for 30."""
    return measure_answer(model, video(), Question(observed=20, horizon=30), running)


# Operations


def test_products_within_and_beside_modules_count() -> None:
    """Ten steps: a layer of 6 x 5, and a product with a matrix of 6 x 7 that is no module's."""

    class Beside(Through):
        def run(self, features: Tensor) -> None:
            super().run(features)
            features @ torch.ones(WIDTH, 7)

    found = cost(Beside(nn.Linear(WIDTH, 5)), InferenceConfig(stride=2))
    assert found.flops == 2 * 10 * 6 * 5 + 2 * 10 * 6 * 7
    assert found.multiply_adds == found.flops / 2
    assert found.sequence_length == 10


class Attending(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(1, -1, 2, 3).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


ATTENTION = 2 * 2 * 20 * 20 * WIDTH
"""Scores and their mixture, of all heads together."""


@pytest.mark.parametrize(
    ("part", "operations"),
    [
        (Attending(), ATTENTION),
        (
            nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True),
            2 * 20 * (4 * 36 + 2 * 6 * 16) + ATTENTION,
        ),
        (nn.LSTM(WIDTH, 5, batch_first=True), 2 * 20 * 4 * (6 * 5 + 5 * 5)),
        (nn.GRU(WIDTH, 5, batch_first=True), 2 * 20 * 3 * (6 * 5 + 5 * 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_pytorch_fuses_count_as_what_they_are_made_of(
    part: nn.Module, operations: int
) -> None:
    assert cost(Through(part)).flops == operations


def test_what_a_module_says_of_itself_counts() -> None:
    class Scanning(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(1)

        def own_flops(self, inputs: tuple[Tensor, ...], outputs: Tensor) -> int:  # noqa: ARG002
            return 1000 * outputs.shape[1]

    assert cost(Through(Scanning(), nn.Linear(WIDTH, 1))).flops == 20_000 + 2 * 20 * 6


def test_a_weight_handed_to_a_module_can_be_counted() -> None:
    """The counter follows gradients of what a module is given, and there are none."""

    class Handed(Through):
        def __init__(self) -> None:
            super().__init__(nn.Linear(WIDTH, 2))
            self.given = nn.Parameter(torch.ones(3, WIDTH))

        def run(self, features: Tensor) -> None:  # noqa: ARG002
            super().run(self.given)

    model = Handed()
    assert cost(model).flops == 2 * 3 * 6 * 2
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_all_offsets_of_a_stride_count() -> None:
    plain = cost(Through(nn.Linear(WIDTH, 5)), InferenceConfig(stride=4))
    every = cost(Through(nn.Linear(WIDTH, 5)), InferenceConfig(stride=4, offsets=True))
    assert (plain.offsets, every.offsets) == (1, 4)
    assert every.flops == 4 * plain.flops
    assert every.sequence_length == plain.sequence_length == 5


def test_a_model_that_is_told_the_length_is_asked_for_all_of_the_rest() -> None:
    model = Through()
    question = Question(observed=20, horizon=30, video_length=100)
    assert int(observation(model, video(), question, RUNNING).horizon[0]) == 30
    model.answers_told_length = True
    assert int(observation(model, video(), question, RUNNING).horizon[0]) == 80


def test_measuring_leaves_the_random_state() -> None:
    class Drawing(Through):
        def run(self, features: Tensor) -> None:
            torch.rand_like(features)

    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    cost(Drawing())
    assert torch.equal(torch.rand(2), wanted)


def test_a_model_says_how_many_tokens_it_reads() -> None:
    class WithQueries(Through):
        def sequence_length(self, x: Observation) -> int:
            return 2 * x.features.shape[1] + 20

    assert cost(WithQueries()).sequence_length == 60


# Weights, memory, time


def test_frozen_weights_stand_apart() -> None:
    shared = nn.Linear(WIDTH, 2)
    found = cost(Through(shared, shared, nn.Linear(WIDTH, 3).requires_grad_(False)))
    assert (found.learnable, found.frozen) == (14, 21)
    assert found.weight_bytes == 4 * 35


def test_packed_weights_count_as_what_they_stand_for() -> None:
    """Two of 4 bits lie in a byte; bitsandbytes keeps the shape of the matrix beside them."""
    packed: Any = nn.Parameter(torch.zeros(60, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("State", (), {"shape": torch.Size([10, 12])})()
    model = nn.Linear(2, 2, bias=False)
    model.register_parameter("packed", packed)
    assert num_weights(model) == (4, 120)


def test_weights_on_no_device_are_counted() -> None:
    assert num_weights(nn.Linear(4096, 4096, bias=False, device="meta")) == (4096**2, 0)


def test_the_peak_is_what_is_held_at_once() -> None:
    def one_after_another() -> None:
        for size in (1000, 3000, 2000):
            torch.empty(size, dtype=torch.float64)

    def together() -> None:
        kept = [torch.empty(size, dtype=torch.float64) for size in (1000, 3000)]
        kept.append(torch.empty(2000, dtype=torch.float64))

    assert peak_bytes(one_after_another, "cpu") == 8 * 3000
    assert peak_bytes(together, "cpu") == 8 * 6000


@pytest.mark.gpu
def test_the_peak_on_a_gpu_is_what_the_gpu_holds() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    before = torch.empty(1000, device="cuda")
    # Memory of a GPU is given out in blocks of 512 bytes.
    assert peak_bytes(lambda: torch.empty(1000, device="cuda").sum().item(), "cuda") in range(
        4096, 6144
    )
    assert len(before) == 1000


def test_the_peak_leaves_out_weights_and_what_is_seen() -> None:
    class Large(Through):
        def run(self, features: Tensor) -> None:  # noqa: ARG002
            torch.empty(250_000)

    plain, large = cost(Through()), cost(Large(nn.Embedding(10_000, 8)))
    assert plain.peak_bytes is not None
    assert plain.peak_bytes < 10_000
    assert large.peak_bytes == 1_000_000


def test_a_slow_model_is_timed_as_often_as_can_be_afforded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cost(Through()).repetitions == 3
    monkeypatch.setattr(answer_cost, "BUDGET", 0.0)
    slow = cost(Through())
    assert slow.repetitions == 1
    assert slow.seconds == slow.seconds_p95 > 0


# Runs, recipes and the command line


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set `own`, and runs on it that took no training."""
    path = tmp_path_factory.mktemp("cost")
    data = folders.write_folder(path / "own", splits=2)
    dataset = open_dataset("", data)
    write_run(path / "runs" / "futr", dataset, data)
    counted = folders.recipe(model=NGramConfig(), input="labels")
    config, shown = prepare(counted, dataset)
    train_split(config, shown, "1", path / "runs" / "n-gram" / "split1", Machine(), data=data)
    return path


def write_run(
    folder: Path, dataset: Dataset, data: Path, recipe: TrainConfig = folders.RECIPE
) -> None:
    config, shown = prepare(recipe, dataset)
    for split in dataset.splits:
        about = describe(config, shown, split, "", data, [])
        model = build(config, shown)
        save_checkpoint(folder / f"split{split}" / "best", "futr", model, config.model, about)


def said(words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["info", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_several_make_one_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = root / "runs"
    words = [runs / "futr", runs / "n-gram" / "split1" / "best", "futr-demo", "--cost"]
    code, out, err = said([*words, "--data", root / "own"], capsys)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:5]}
    assert list(rows) == ["futr", "best", "futr-demo"]
    assert rows["best"][:4] == ["-", "-", "-", "-"]
    assert "a product and its sum are two (GFLOP) or one (GMAC)" in out
    assert f"{torch.get_num_threads()} thread(s)" in out
    # One condition, for all of them.
    assert sum("asked for" in line for line in out.splitlines()) == 1


def test_the_numbers_and_what_was_asked_as_json(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = root / "runs" / "futr"
    code, out, _ = said([run, "--cost", "--json", "--observed-ratio", "0.5"], capsys)
    found = json.loads(out)
    row = found["rows"]["futr"]
    dataset = open_dataset("", root / "own")
    lengths = sorted(dataset.videos[name].num_frames for name in dataset.split("1").test)
    # Of three test videos the one between the other two.
    assert len(lengths) == 3
    assert code == 0
    assert row["condition"] == {
        "dataset": "own",
        "video": row["condition"]["video"],
        "num_frames": lengths[1],
        "rate": 5.0,
        "observed": int(0.5 * lengths[1]),
        "horizon": int(0.3 * lengths[1]),
        "stride": 1,
        "feature_dim": WIDTH,
        "width_assumed": False,
        "random_features": False,
    }
    assert found["asked"]["observed_ratio"] == 0.5
    assert row["trained"]
    assert row["cost"]["sequence_length"] == int(0.5 * lengths[1])
    assert row["cost"]["learnable"] == sum(
        p.numel() for p in build(*prepare(folders.RECIPE, dataset)).parameters()
    )
    assert row["cost"]["torch"] == torch.__version__
    assert row["cost"]["device"] == "cpu"


def test_a_video_can_be_named(root: Path) -> None:
    video = open_dataset("", root / "own").videos["v0"]
    found = run_cost(str(root / "runs" / "futr"), Asked(video="v0")).condition
    assert (found.video, found.num_frames) == ("v0", video.num_frames)


def test_a_trained_model_needs_no_data_for_a_video_that_is_made_up(root: Path) -> None:
    for name in ("futr", "n-gram"):
        folder = root / "runs" / name
        found = run_cost(str(folder), Asked(frames=60, rate=2.0)).condition
        assert (found.video, found.observed, found.horizon) == ("made up", 12, 18)
        assert found.rate == 2.0


def test_a_recipe_needs_no_data_where_the_labels_of_its_data_set_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    found = run_cost("futr-breakfast", Asked(frames=900))
    assert not found.trained
    assert found.condition.random_features
    assert (found.condition.rate, found.condition.feature_dim) == (15.0, 2048)
    assert found.cost.sequence_length == 900 // 5 // 3
    labels = run_cost("futr-breakfast-labels", Asked(frames=900)).condition
    assert (labels.feature_dim, labels.random_features) == (48, False)


def test_the_width_is_that_of_the_data_where_they_are_and_said_where_it_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    monkeypatch.chdir(root)
    sentence = "features are assumed to be 2,048 wide"
    known = run_cost("futr-demo", Asked(frames=60, data=root / "own"))
    assert (known.condition.feature_dim, known.condition.width_assumed) == (WIDTH, False)
    assert known.condition.random_features
    code, out, _ = said(["futr-demo", "--cost", "--frames", "60", "--data", "own"], capsys)
    assert code == 0
    assert sentence not in out
    words = ["futr-breakfast", "futr-breakfast-labels", "runs/futr", "--cost", "--frames", "300"]
    code, out, err = said([*words, "--rate", "15"], capsys)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if sentence in line]
    assert line.endswith(": futr-breakfast")


def actionllm(trunk: str, **values: Any) -> TrainConfig:
    """A recipe of ActionLLM on a trunk of width 32."""
    small: dict[str, Any] = {"interaction_dim": 8, "interaction_heads": 2, "adapter_dim": 4}
    model = ActionLLMConfig(trunk=TrunkConfig(name=trunk), num_queries=3, **small | values)
    return TrainConfig(model=model, dataset="breakfast", resample=6)


@pytest.mark.parametrize("modalities", ["both", "vision", "text"])
@pytest.mark.parametrize("queries", ["ones", "normal"])
def test_shapes_alone_count_as_much_as_weights(
    modalities: str, queries: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    name = "untrained:llama-tiny"
    config = actionllm(name, modalities=modalities, queries=queries)
    monkeypatch.setattr(recipe_trunks, "RECIPES", {"futr-breakfast": ("", config)})
    true = run_cost("futr-breakfast", Asked(frames=900)).cost
    monkeypatch.setattr(cost_subjects, "WEIGHTLESS", {name})
    found = run_cost("futr-breakfast", Asked(frames=900)).cost
    for what in ("learnable", "frozen", "flops", "sequence_length", "weight_bytes"):
        assert getattr(found, what) == getattr(true, what) > 0, what
    assert (found.device, found.repetitions) == ("meta", 0)
    assert found.seconds is found.seconds_p95 is found.peak_bytes is None


def test_llama_is_counted_without_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Table III: 624 tokens and 17.38 M of FUTR; 655,424 of ActionLLM's 4.21 M have no use."""
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    recipes = ("futr-50salads", "llmaction-50salads", "actionllm-50salads")
    words = [*recipes, "--cost", "--trunk", "untrained:llama-7b", "--frames", 12080, "--rate", 30]
    code, out, err = said(words, capsys)
    assert (code, err) == (0, "")
    futr, llmaction, ours = (line.split() for line in out.splitlines()[2:5])
    assert futr[1:4] == ["17.38", "M", "-"]
    assert ours[1:5] == ["3.79", "M", "6.61", "B"]
    assert (ours[7], llmaction[7]) == ("624", "322")
    assert ours[8:11] == llmaction[8:11] == ["-"] * 3
    assert f"nothing was computed: {recipes[1]}, {recipes[2]}" in out
    (assumed,) = [line for line in out.splitlines() if "are assumed to be 2,048 wide" in line]
    assert assumed.endswith(f": {', '.join(recipes)}")


def test_a_trunk_that_is_not_there_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inventory, "run_cost", lambda *_: pytest.fail("it was measured"))
    monkeypatch.setattr(finding, "_download", lambda *_: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    for trunk in ("nobody/has-such-a-model", "/no/such/folder"):
        config = actionllm(trunk)
        monkeypatch.setattr(recipe_trunks, "RECIPES", {"actionllm-breakfast": ("", config)})
        code, out, err = said(["futr-breakfast", "actionllm-breakfast", "--cost"], capsys)
        assert (code, out) == (2, "")
        assert f"the trunk {trunk}, which is not on this disk. Say --trunk" in err


def test_a_trunk_in_place_of_the_recipes_own_has_all_of_its_layers() -> None:
    model: Any = recipe_on_trunk("actionllm-cad120", "untrained:llama-tiny").model
    assert (model.trunk.name, model.trunk.num_layers) == ("untrained:llama-tiny", 0)
    assert recipe_on_trunk("actionllm-cad120", "") == RECIPES["actionllm-cad120"][1]
    assert recipe_on_trunk("futr-cad120", "minilm") == RECIPES["futr-cad120"][1]


def test_whoever_named_the_actions_of_a_run_may_have_moved(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Label files, here those of the data itself."""
    data, run = root / "own", tmp_path / "run"
    gone, there = tmp_path / "gone", tmp_path / "there"
    shutil.copytree(data / "groundTruth", there)
    recipe = replace(folders.RECIPE, labels_from=str(gone))
    write_run(run, open_dataset("", data), data, recipe)
    code, _, err = said([run, "--cost"], capsys)
    assert code == 2
    assert "--labels-from" in err
    code, out, err = said([run, "--cost", "--labels-from", there], capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[2].startswith("run ")
    code, _, err = said([root / "runs" / "futr", "--cost", "--labels-from", there], capsys)
    assert code == 2
    assert "--labels-from must go with a run that was trained with it" in err


def test_data_without_features_lend_their_labels_and_their_lengths(tmp_path: Path) -> None:
    data = folders.write_folder(tmp_path / "own", features=False, splits=2)
    found = run_cost("futr-demo", Asked(data=data)).condition
    assert found.random_features
    assert found.dataset == "own"
    assert found.num_frames in {v.num_frames for v in open_dataset("", data).videos.values()}


@pytest.mark.parametrize(
    ("recipe", "learns"),
    [("actfusion-gtea", True), ("clam", True), ("online-gru", True), ("semi-markov", False)],
)
def test_models_of_every_kind_give_a_row(recipe: str, learns: bool, root: Path) -> None:
    """Of many steps, of streams, and that count."""
    found = run_cost(recipe, Asked(data=root / "own"))
    assert (found.cost.learnable > 0) == (found.cost.flops > 0) == learns
    assert found.cost.seconds > 0
    assert found.cost.peak_bytes
    assert (found.condition.horizon > 0) == (recipe in ("actfusion-gtea", "semi-markov"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["runs/none", "--cost"], "runs/none is no folder of a run or a checkpoint"),
        (["futr-breakfst", "--cost"], "did you mean futr-breakfast"),
        (["futr-breakfast", "--cost"], "Or say --frames N"),
        (["futr", "--cost", "--frames", "90"], "takes its labels from there"),
        (["n-gram", "--cost", "--frames", "90", "--data", "own"], "counts training videos"),
        (["runs/futr", "--cost", "--video", "v9"], "own has no video 'v9'"),
        (["runs/futr", "--cost", "--frames", "9", "--video", "v0"], "say one of them"),
        (["runs/futr", "--cost", "--frames", "4"], "must leave a frame to see"),
        (["runs/futr", "--cost", "--rate", "3"], "--rate must go with --frames or a recipe"),
        (["runs/futr", "--cost", "--observed-ratio", "0.8"], "fit into the video together"),
        (["runs/futr", "--cost", "--data", "elsewhere"], "or --frames N, which makes up a video"),
        (["runs/futr", "--cost", "--device", "meta"], "must be one that computes"),
        (["runs/futr", "--cost", "--device", "abacus"], "got 'abacus'"),
        (["runs/futr", "--cost", "--backbone", "x"], "--backbone must go with a recipe of MambaVL"),
        (["runs/futr", "mambavl-ek100-recognition", "--cost"], "give it alone"),
        (["mambavl-ek100-recognition", "--cost", "--frames", "9"], "measured on one clip"),
        (["runs/futr", "--cost", "--trunk", "minilm"], "--trunk must go with a recipe that stands"),
        (["runs/futr", "--frames", "9"], "must go with --cost"),
        (["runs/futr", "runs/n-gram"], "with --cost it puts several into one table"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_says_what_to_do(
    words: list[str],
    expected: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    monkeypatch.chdir(root)
    code, out, err = said(words, capsys)
    assert (code, out) == (2, "")
    assert expected in err


def test_a_run_on_short_actions_is_sent_to_its_recipe(root: Path, tmp_path: Path) -> None:
    dataset = open_dataset("", root / "own")
    config, shown = prepare(folders.RECIPE, dataset)
    about = describe(config, shown, "1", "", root / "own", []) | {"kind": "clips"}
    save_checkpoint(tmp_path / "run", "futr", build(config, shown), config.model, about)
    with pytest.raises(ValueError, match=r"a run on short actions.*is for whole videos"):
        run_cost(str(tmp_path / "run"), Asked())


def test_a_run_says_how_many_of_its_weights_are_frozen(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = root / "runs" / "futr"
    _, out, _ = said([run], capsys)
    assert "frozen" not in out
    monkeypatch.setattr(inventory, "num_weights", lambda _: (30, 1200))
    _, out, _ = said([run], capsys)
    assert "futr, 1,230 parameters (1,200 frozen), 4 labels" in out
