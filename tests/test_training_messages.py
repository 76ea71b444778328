"""What training says before it begins: of text that is not there, data that lack something."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folders
from actioncast.__main__ import main
from actioncast.batches import CutVideos, Item, Variation
from actioncast.data import open_dataset
from actioncast.models.baselines import NGramConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.recipes import RECIPES
from actioncast.runs import train_run
from actioncast.text_encoders import text_encoder
from actioncast.training import Machine, TrainConfig, require_text, too_short

huggingface_hub = pytest.importorskip("huggingface_hub")

TINY = MMAntConfig(
    feature_dim=folders.WIDTH,
    hidden_dim=8,
    num_queries=4,
    num_heads=2,
    num_encoder_layers=1,
    max_positions=80,
    encoder="hash:8",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folders.write_folder(tmp_path / "kitchen", splits=2)


def said(config: TrainConfig) -> str:
    with pytest.raises(ValueError, match=r"must go with|text=") as error:
        require_text(config)
    return str(error.value)


# Text that a model reads


def test_a_model_of_captions_asks_for_them_before_it_is_built(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["--model.text", "captions", "--level", "", "--out", str(tmp_path), *folders.SMALL]
    assert main(["train", "mm-ant", "--data", str(data), *words]) == 2
    told = capsys.readouterr().err
    assert "mm-ant with text='captions' reads captions, got none; say --captions FOLDER" in told
    assert "text_dim" not in told


def test_a_model_of_given_labels_asks_who_names_them():
    given = folders.recipe(model=replace(TINY, text="given"))
    assert "got nobody who names them; say --labels-from with truth" in said(given)
    require_text(replace(given, labels_from="truth"))
    # Labels that are the input may be read beside it.
    require_text(replace(given, input="labels"))


@pytest.mark.parametrize("text", ["learned", "none", "given"])
def test_captions_that_would_not_be_read_say_how_they_are(text: Any):
    config = folders.recipe(
        model=replace(TINY, text=text),
        captions="vlm",
        labels_from="truth" if text == "given" else "",
    )
    assert said(config).endswith("leave them out, or say --model.text captions.")


@pytest.mark.parametrize("text", ["learned", "none", "captions"])
def test_labels_that_would_not_be_read_say_how_they_are(text: Any):
    config = folders.recipe(
        model=replace(TINY, text=text),
        labels_from="truth",
        captions="vlm" if text == "captions" else "",
    )
    assert said(config).endswith("leave it out, or say --model.text given.")


def test_what_would_not_be_read_is_refused_before_it_is_looked_for(data: Path, tmp_path: Path):
    for value in ("captions", "labels_from"):
        config = replace(folders.recipe(model=TINY), **{value: str(tmp_path / "gone")})
        with pytest.raises(ValueError, match=r"must go with .* or say --model\.text"):
            train_run("tiny", config, tmp_path / "run", data=data)


def test_a_model_without_that_choice_is_told_of_none(data: Path, tmp_path: Path):
    config = folders.recipe(labels_from="truth")
    require_text(config)
    with pytest.raises(
        ValueError, match=r"got futr, which reads none as configured; leave it out\.$"
    ):
        train_run("tiny", config, tmp_path / "run", data=data)


# Data


def test_a_recipe_without_its_hierarchy_says_how_to_do_without(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["train", "mm-ant", "--data", str(data), "--out", str(tmp_path)]) == 2
    assert 'say --hierarchy FILE, or --level "" to do without' in capsys.readouterr().err


def test_without_features_the_recipe_from_labels_is_named(tmp_path: Path):
    path = folders.write_folder(tmp_path / "kitchen", features=False, splits=2)
    config = replace(RECIPES["mm-ant-50salads"][1], dataset="", level="")
    machine = Machine(accelerator="cpu", quiet=True)

    def trained(recipe: str) -> None:
        train_run(recipe, config, tmp_path / "run", data=path, machine=machine)

    with pytest.raises(ValueError, match="small form from labels, mm-ant-50salads-labels"):
        trained("mm-ant-50salads")
    with pytest.raises(ValueError, match=r"or train from its labels \(--input labels\)"):
        trained("mm-ant")


def short_folder(path: Path) -> Path:
    """Five videos of which v1 has 4 frames and v2 has 3; v0 tests."""
    folders.write_folder(path, num_videos=5)
    for name, num_frames in (("v1", 4), ("v2", 3)):
        (path / "groundTruth" / f"{name}.txt").write_text("pour\n" * num_frames)
        np.save(
            path / "features" / f"{name}.npy",
            np.zeros((num_frames, folders.WIDTH), "float32"),
        )
    (path / "splits").mkdir()
    for part, names in (("train", range(1, 5)), ("test", (0,))):
        lines = "".join(f"v{i}.txt\n" for i in names)
        (path / "splits" / f"{part}.split1.bundle").write_text(lines)
    return path


def test_videos_too_short_for_a_share_are_said_once(tmp_path: Path):
    path = short_folder(tmp_path / "kitchen")
    told: list[str] = []
    config = folders.recipe(observed_ratios=(0.2, 0.3, 0.5, 1.0), epochs=1, stride=2)
    machine = Machine(accelerator="cpu", quiet=True)
    train_run("tiny", config, tmp_path / "run", data=path, machine=machine, say=told.extend)
    # A fifth of 4 frames and 0.3 of 3 are less than one; 0.3 of 4 is one.
    short = [line for line in told if "so short" in line]
    assert short == [
        "2 of 4 training videos are so short that the shares 0.2, 0.3 leave no frame to see "
        "(v1, v2): there the first frame is shown."
    ]


def test_of_a_video_too_short_the_first_frame_is_shown(tmp_path: Path):
    dataset = open_dataset("", short_folder(tmp_path / "kitchen"))
    video = dataset.videos["v2"]
    cut = CutVideos([video], folders.RECIPE.protocol(), 2, 4, Variation())[Item(0, 0.2)]
    assert len(cut.features) == 1
    assert (cut.first, cut.question.observed) == (0, 1)
    config = folders.recipe(observed_ratios=(0.2,))
    assert too_short(config, [video, dataset.videos["v3"]]) == (
        "1 of 2 training videos is so short that the share 0.2 leaves no frame to see (v2): there "
        "the first frame is shown."
    )
    assert not too_short(config, [dataset.videos["v3"]])
    # A model that counts is shown whole videos.
    assert not too_short(replace(config, model=NGramConfig(context=1)), [video])


# Text encoders


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that nobody reaches, with what it was asked for."""
    pytest.importorskip("transformers")
    asked: list[str] = []

    def unreachable(name: str, file: str) -> bool:
        asked.append(f"{name}/{file}")
        raise OSError("The hub is away. Read https://huggingface.co/docs/and/so/on.")

    monkeypatch.setattr(huggingface_hub, "file_exists", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    return asked


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("minlm", "minilm"),
        ("MiniLM", "minilm"),
        ("all-MiniLM-L6-v2", "minilm"),
        ("hash512", "hash:512"),
        ("vektors:mine.npz", "vectors:FILE"),
    ],
)
def test_a_misspelt_encoder_is_told_the_nearest_name(hub: list[str], name: str, near: str):
    with pytest.raises(FileNotFoundError, match=rf"; did you mean {near}\? Otherwise give minilm"):
        text_encoder(name)
    assert len(hub) == (":" not in name)


@pytest.mark.parametrize("name", ["roberta-base", "me/minlm"])
def test_other_names_are_not_guessed_at(hub: list[str], name: str):
    with pytest.raises(FileNotFoundError) as error:
        text_encoder(name)
    assert str(error.value) == (
        f"no text encoder can be loaded from {name} (the hub did not give it: The hub is away); "
        "give minilm, hash:512, vectors:FILE, a folder with config.json, tokenizer.json and "
        "model.safetensors, or the name of a model on the hub."
    )
    assert hub == [f"{name}/config.json"]


@pytest.mark.usefixtures("hub")
def test_a_name_that_the_hub_does_not_know_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda *_: False)
    with pytest.raises(FileNotFoundError, match=r"the hub has no config\.json of that name"):
        text_encoder("nobody/nothing")


@pytest.mark.usefixtures("hub")
def test_a_long_reason_ends_between_words_and_the_hub_is_unheard(monkeypatch: pytest.MonkeyPatch):
    heard: list[int] = []

    def tells(*_: str) -> bool:
        heard.append(huggingface_hub.utils.logging.get_verbosity())
        raise OSError("words " * 100)

    before = huggingface_hub.utils.logging.get_verbosity()
    monkeypatch.setattr(huggingface_hub, "file_exists", tells)
    with pytest.raises(FileNotFoundError, match=r"words words \.\.\.\);"):
        text_encoder("nobody/nothing")
    assert heard == [huggingface_hub.utils.logging.ERROR]
    assert huggingface_hub.utils.logging.get_verbosity() == before
