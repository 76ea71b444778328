"""LLaMA as Meta gives it out loads from its own files, whole or cut over devices."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from actioncast.models.actionllm import OFFICIAL, ActionLLM
from actioncast.models.actionllm_official import from_official
from actioncast.timeline import Taxonomy
from actioncast.trunks import TrunkConfig, load_trunk
from actioncast.trunks.sources import load_source
from goldens import golden_cases

pytest.importorskip("transformers")
PARAMS = {"dim": 16, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-6, "vocab_size": -1}


def weights(params=PARAMS, words=24, inner=32):
    generator = torch.Generator().manual_seed(2)
    dim, drawn = params["dim"], lambda *shape: torch.randn(*shape, generator=generator) * 0.2
    found = {
        "tok_embeddings.weight": drawn(words, dim),
        "output.weight": drawn(words, dim),
        "norm.weight": 1 + drawn(dim),
        "rope.freqs": drawn(2),
    }
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        found |= {f"{at}attention.w{one}.weight": drawn(dim, dim) for one in "qkvo"}
        found |= {f"{at}feed_forward.w{one}.weight": drawn(inner, dim) for one in "13"}
        found[f"{at}feed_forward.w2.weight"] = drawn(dim, inner)
        found |= {f"{at}{one}_norm.weight": 1 + drawn(dim) for one in ("attention", "ffn")}
    return found


def write(folder, params, tensors, cuts=1, words_cut_by_rows=False):
    """The files of a model that was trained on `cuts` devices."""
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))
    for i in range(cuts):
        part = {}
        for name, value in tensors.items():
            by_columns = name.endswith(("attention.wo.weight", "feed_forward.w2.weight"))
            by_columns |= name == "tok_embeddings.weight" and not words_cut_by_rows
            whole = value.ndim < 2
            # A clone: what shares memory would be written whole.
            part[name] = (value if whole else value.chunk(cuts, int(by_columns))[i]).clone()
        torch.save(part, folder / f"consolidated.{i:02d}.pth")
    return folder


def states(trunk):
    tokens = torch.randn(2, 6, trunk.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return trunk(tokens, torch.ones(2, 6, dtype=torch.bool))


def load(folder, **options):
    return load_trunk(TrunkConfig(name=str(folder), **options))


@pytest.mark.parametrize("cuts", [1, 2])
@pytest.mark.parametrize("case", golden_cases("actionllm"))
def test_the_released_code_and_a_folder_of_its_trunk_agree(case, cuts, tmp_path, monkeypatch):
    tensors = load_file(case / "weights.safetensors")
    golden = load_file(case / "io.safetensors")
    sizes = json.loads((case / "config.json").read_text())["hyper_parameters"]
    own = ("attention", "feed_forward", "attention_norm", "ffn_norm")
    kept = {
        name: value
        for name, value in tensors.items()
        if name in ("tok_embeddings.weight", "norm.weight", "output.weight")
        or (name.startswith("layers.") and name.split(".")[2] in own)
    }
    folder = write(tmp_path / "llama", {**sizes, "vocab_size": -1}, kept, cuts)

    trunk = load(folder)
    assert trunk.num_layers == sizes["n_layers"]
    config = replace(
        OFFICIAL,
        trunk=trunk.config,
        feature_dim=sizes["feature_dim"],
        adapter_dim=sizes["hidden_proj"],
        num_queries=sizes["n_query"],
        interaction_dim=sizes["multi_hidden_proj"],
        interaction_heads=sizes["n_heads"],
        interaction_multiple=sizes["multiple_of"],
        tuning_dim=sizes["adapter_dim"],
        tuning_groups=sizes["adapter_groups"],
        norm_eps=sizes["norm_eps"],
    )
    labels = [f"label{i}" for i in range(sizes["num_class"])]
    # The labels' vectors are given, and the golden trunk has no words for them.
    monkeypatch.setattr(ActionLLM, "_label_vectors", lambda _: torch.zeros(1, sizes["dim"]))
    model = ActionLLM(config, Taxonomy.of(labels), trunk)
    model.load_state_dict(from_official(tensors), strict=False)
    seen = {}
    trunk.register_forward_hook(lambda *given: seen.update(final=given[-1]))
    for i, layer in enumerate(trunk.model.layers):
        for part, module in (("attention", layer.self_attn), ("feed_forward", layer.mlp)):
            key = f"layer{i}.{part}"
            module.register_forward_hook(lambda *given, key=key: seen.update({key: given[-1]}))
    with torch.no_grad():
        there = torch.ones(golden["visual"].shape[:2], dtype=torch.bool)
        model.eval()(golden["visual"], golden["text"], there)
    assert torch.allclose(seen.pop("final"), golden["b2.inter.final_norm"], atol=1e-5)
    assert len(seen) == 2 * sizes["n_layers"]
    for key, found in seen.items():
        first = found[0] if isinstance(found, tuple) else found
        assert torch.allclose(first, golden[f"b2.inter.{key}"], atol=1e-5), key


@pytest.mark.parametrize("cuts", [2, 4])
@pytest.mark.parametrize("by_rows", [False, True])
def test_a_model_cut_over_devices_is_the_model(cuts, by_rows, tmp_path):
    whole = load(write(tmp_path / "whole", PARAMS, weights()))
    parts = load(write(tmp_path / "parts", PARAMS, weights(), cuts, by_rows))
    assert torch.equal(whole.fingerprint, parts.fingerprint)
    assert torch.equal(states(whole), states(parts))
    table = parts.model.get_input_embeddings().weight
    assert torch.equal(table, weights()["tok_embeddings.weight"])


def test_fewer_layers_shorter_numbers_and_random_weights_of_its_shapes(tmp_path):
    folder = write(tmp_path / "llama", PARAMS, weights())
    trunk = load(folder, num_layers=1, dtype="float16")
    assert trunk.num_layers == 1
    assert {p.dtype for p in trunk.model.parameters()} == {torch.float16}
    random = load(folder, weights="random")
    known = load(folder)
    assert random.model.state_dict().keys() == known.model.state_dict().keys()
    assert not any(
        torch.equal(value, known.model.state_dict()[name])
        for name, value in random.model.state_dict().items()
        if value.ndim > 1
    )
    assert torch.equal(random.fingerprint, load(folder, weights="random").fingerprint)


def test_places_turn_as_the_file_says(tmp_path):
    plain = load(write(tmp_path / "plain", PARAMS, weights()))
    slow = load(write(tmp_path / "slow", {**PARAMS, "rope_theta": 500000.0}, weights()))
    assert not torch.allclose(states(plain), states(slow), atol=1e-4)


def test_without_a_tokenizer_it_loads_and_reads_no_text(tmp_path):
    trunk = load(write(tmp_path / "llama", PARAMS, weights()))
    with pytest.raises(ValueError, match=r"must have a tokenizer .*tokenizer\.model"):
        trunk.embed_texts(["take cup"])


def test_words_are_those_of_sentencepiece(tmp_path):
    package = pytest.importorskip("sentencepiece")
    texts = tmp_path / "texts"
    texts.write_text("take cup\npour milk\nstir milk\ntake spoon\n" * 20)
    folder = write(tmp_path / "llama", PARAMS, weights(words=40))
    package.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=24,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    trunk = load(folder)
    ids = package.SentencePieceProcessor(str(folder / "tokenizer.model")).encode("pour milk")
    table = trunk.model.get_input_embeddings().weight
    assert torch.allclose(trunk.embed_texts(["pour milk"])[0], table[ids].mean(0))
    (folder / "tokenizer.model").write_bytes(b"words of another kind")
    with pytest.raises(ValueError, match="must be a model of sentencepiece"):
        load(folder)


def test_a_tokenizer_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    folder = write(tmp_path / "llama", PARAMS, weights())
    (folder / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match="pip install sentencepiece"):
        load(folder)


def test_a_tokenizer_gives_pieces_without_marks(tmp_path, monkeypatch):
    class Processor:
        def __init__(self, model_file):
            assert model_file.endswith("tokenizer.model")

        def encode(self, text, add_bos):
            return [1] * add_bos + [len(word) for word in text.split()]

    folder = write(tmp_path / "llama", PARAMS, weights())
    (folder / "tokenizer.model").write_bytes(b"")
    modules = sys.modules
    monkeypatch.setitem(modules, "sentencepiece", SimpleNamespace(SentencePieceProcessor=Processor))
    trunk = load(folder)
    table = weights()["tok_embeddings.weight"]
    assert torch.allclose(trunk.embed_texts(["take it"])[0], (table[4] + table[2]) / 2)


@pytest.mark.parametrize(("lost", "cuts"), [(1, 2), (0, 2), (3, 4), (0, 1)])
def test_a_missing_file_of_weights_is_named(lost, cuts, tmp_path):
    folder = write(tmp_path / "llama", PARAMS, weights(), cuts)
    (folder / f"consolidated.{lost:02d}.pth").unlink()
    with pytest.raises(FileNotFoundError, match=rf"in {cuts} file.*lacks consolidated\.0{lost}\."):
        load(folder)


def test_a_file_too_many_is_refused(tmp_path):
    folder = write(tmp_path / "llama", PARAMS, weights())
    content = (folder / "consolidated.00.pth").read_bytes()
    (folder / "consolidated.01.pth").write_bytes(content)
    with pytest.raises(ValueError, match="in 1 file, as their shapes say, got 2"):
        load(folder)


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_broken_files_and_files_with_code_are_refused(tmp_path, capsys):
    folder = write(tmp_path / "llama", PARAMS, weights())
    file = folder / "consolidated.00.pth"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"consolidated\.00\.pth must hold the weights of LLaMA"):
        load(folder)
    torch.save({**weights(), "more": Code()}, file)
    with pytest.raises(ValueError, match="holds code"):
        load(folder)
    assert "this ran" not in capsys.readouterr().out
    torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(ValueError, match="of another model"):
        load(folder)


def test_sizes_that_do_not_fit_the_weights_are_refused(tmp_path):
    more = {**PARAMS, "n_layers": 3}
    with pytest.raises(ValueError, match=r"that its params\.json describes"):
        load(write(tmp_path / "more", more, weights()))
    with pytest.raises(ValueError, match="num_layers must be at most 2"):
        load(write(tmp_path / "less", PARAMS, weights()), num_layers=3)
    bare = {"dim": 16, "n_layers": 2, "n_heads": 4}
    with pytest.raises(ValueError, match="does not say norm_eps"):
        load(write(tmp_path / "bare", bare, weights()))
    scaled = {**PARAMS, "use_scaled_rope": True}
    with pytest.raises(ValueError, match=r"LLaMA 3\.1"):
        load(write(tmp_path / "scaled", scaled, weights()))
    broken = write(tmp_path / "broken", PARAMS, weights())
    (broken / "params.json").write_text("[1")
    with pytest.raises(ValueError, match="must be JSON"):
        load(broken)


def test_fewer_bits_are_not_for_metas_files(tmp_path):
    folder = write(tmp_path / "llama", PARAMS, weights())
    with pytest.raises(ValueError, match="in the format of transformers"):
        load_source(TrunkConfig(name=str(folder), quantisation="4bit"))
