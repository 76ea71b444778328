"""Architectures of transformers obey: masks, places, tuning, recomputation; or are refused."""

import copy

import pytest
import torch

from actioncast.layers.action_tuning import ActionTuning
from actioncast.trunks import FrozenTrunk, TrunkConfig
from actioncast.trunks.probing import require_obedience
from actioncast.trunks.sources import Source

transformers = pytest.importorskip("transformers")
COMMON = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 2}
DECODERS = {
    "llama": GROUPED,
    "qwen2": {"num_key_value_heads": 1},
    "qwen3": GROUPED,
    "gemma": GROUPED,
    "gemma2": GROUPED | WINDOWS,
    "gemma3_text": GROUPED | WINDOWS,
    "mistral": GROUPED | {"sliding_window": 2},
    "smollm3": {"num_key_value_heads": 1},
    "phi": {},
    "phi3": {"num_key_value_heads": 1, "sliding_window": 2},
    "olmo2": {},
    "gpt2": {},
    "gpt_neox": {},
}
ENCODERS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "mpnet": {"pad_token_id": 1},
    "modernbert": {"local_attention": 2, "cls_token_id": 1, "sep_token_id": 2},
}
KINDS = DECODERS | ENCODERS
TOKENS = 7


def model(kind, **sizes):
    """Weights large enough that every part of a layer matters."""
    about = {**COMMON, **KINDS.get(kind, {}), **sizes}
    torch.manual_seed(0)
    made = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **about))
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.get_encoder() if made.config.is_encoder_decoder else made


def trunk(kind, *, sizes=None, **options):
    config = TrunkConfig(name=kind, **options)
    made = model(kind, **(sizes or {})).to(getattr(torch, config.dtype))
    return FrozenTrunk(config, Source(model=made, tokenizer=None, name=kind))


def tune(given, *, identity):
    """Layers of tuning, and how often each was passed."""
    torch.manual_seed(4)
    layers = [ActionTuning(given.width, dropout=0.0) for _ in range(given.num_layers)]
    passed = [0] * len(layers)
    for i, layer in enumerate(layers):
        if not identity:
            torch.nn.init.normal_(layer.up, std=0.5)

        def count(*_, i=i):
            passed[i] += 1

        layer.register_forward_hook(count)
    given.tune(layers)
    return layers, passed


def tokens(seed=1):
    return torch.randn(2, TOKENS, 16, generator=torch.Generator().manual_seed(seed))


def lengths(*valid):
    return torch.arange(TOKENS) < torch.tensor(valid)[:, None]


@torch.no_grad()
def through(given, vectors, valid=None, positions=None):
    return given(vectors, lengths(TOKENS, TOKENS) if valid is None else valid, positions)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_late_token_reaches_the_first_state_where_it_may(kind, dtype):
    """On the CPU short types go through the other of the two kernels."""
    changed = tokens()
    changed[:, -1] = tokens(2)[:, -1]
    for attention in ("bidirectional", "causal"):
        given = trunk(kind, attention=attention, dtype=dtype)
        moved = (through(given, tokens()) - through(given, changed)).abs()
        assert (moved[:, 0].max() > 1e-3) == (attention == "bidirectional")
        assert attention == "bidirectional" or moved[:, :-1].max() <= 1e-6
        assert moved[:, -1].max() > 1e-3


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, attention):
    given = trunk(kind, attention=attention)
    spoilt = tokens()
    spoilt[0, 4:] = 100.0
    padded = through(given, spoilt, lengths(4, TOKENS))
    alone = given(tokens()[:1, :4], lengths(4)[:, :4])
    assert torch.allclose(padded[0, :4], alone[0], atol=1e-5)
    assert torch.allclose(padded[1], through(given, tokens())[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tuning_is_passed_once_a_layer_and_is_the_copys_own_in_a_copy(kind):
    given = trunk(kind)
    plain = through(given, tokens())
    layers, passed = tune(given, identity=True)
    assert torch.equal(through(given, tokens()), plain)
    assert passed == [1, 1]
    for layer in layers:
        before = through(given, tokens())
        torch.nn.init.normal_(layer.up, std=0.5)
        assert (through(given, tokens()) - before).abs().max() > 1e-3
    tuned = through(given, tokens())
    other = copy.deepcopy(given)
    for layer in layers:
        torch.nn.init.zeros_(layer.up)
    assert torch.equal(through(given, tokens()), plain)
    assert torch.equal(through(other, tokens()), tuned)


@pytest.mark.parametrize("kind", KINDS)
def test_places_are_those_that_are_given(kind):
    given = trunk(kind, positions="step")
    places = torch.arange(TOKENS).expand(2, -1)
    counted = through(given, tokens())
    assert torch.allclose(through(given, tokens(), positions=places), counted, atol=1e-6)
    assert not torch.allclose(through(given, tokens(), positions=places // 2), counted, atol=1e-3)
    require_obedience(given, given._attentions)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mpnet"])
def test_computing_layers_a_second_time_changes_no_gradient(kind):
    found = []
    for twice in (False, True):
        given = trunk(kind, gradient_checkpointing=twice).train()
        layers, passed = tune(given, identity=False)
        vectors = tokens().requires_grad_()
        given(vectors, lengths(4, TOKENS)).square().sum().backward()
        assert passed == [1 + twice] * 2
        found.append([vectors.grad, *(p.grad for layer in layers for p in layer.parameters())])
    assert all(gradient.abs().sum() > 0 for gradient in found[0])
    for once, again in zip(*found, strict=True):
        assert torch.allclose(once, again, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize(
    ("kind", "window"),
    [
        ("gemma2", "sliding_window"),
        ("gemma3_text", "sliding_window"),
        ("mistral", "sliding_window"),
        ("phi3", "sliding_window"),
        ("modernbert", "local_attention"),
    ],
)
def test_windows_of_attention_give_way_to_our_mask(kind, window, attention):
    narrow = trunk(kind, attention=attention, sizes={window: 2})
    wide = trunk(kind, attention=attention, sizes={window: 30})
    assert torch.equal(through(narrow, tokens()), through(wide, tokens()))


@pytest.mark.parametrize("kind", KINDS)
def test_longer_than_its_places_is_refused(kind):
    given = trunk(kind)
    whole = 32 - (2 if kind in ("roberta", "xlm-roberta", "mpnet") else 0)
    assert given.max_tokens == whole
    there = torch.ones(1, whole + 1, dtype=torch.bool)
    vectors = torch.randn(1, whole + 1, 16)
    assert given(vectors[:, 1:], there[:, 1:]).isfinite().all()
    with pytest.raises(ValueError, match=f"has {whole} positions, got a sequence of {whole + 1}"):
        given(vectors, there)


T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
MPT = {"d_model": 16, "n_heads": 2, "n_layers": 2}
NEO = {"attention_types": [[["global", "local"], 1]], "window_size": 2}


@pytest.mark.parametrize(
    ("kind", "sizes", "options", "said"),
    [
        ("gpt_neo", NEO, {}, "lets no token look at a later one, got attention bidirectional"),
        ("mpt", MPT, {"positions": "step"}, "counts tokens by itself, got positions step"),
        ("t5", T5, {"positions": "step"}, "counts tokens by itself, got positions step"),
        ("albert", {"embedding_size": 16}, {}, "must pass each of its layers once, .* 2 times"),
        ("deberta-v2", {}, {}, "cannot be fed vectors with a mask of its own"),
        ("bloom", {}, {}, "cannot be fed vectors with a mask of its own"),
    ],
)
def test_what_does_not_obey_is_refused(kind, sizes, options, said):
    given = trunk(kind, sizes=sizes, **options)
    with pytest.raises(ValueError, match=said):
        require_obedience(given, given._attentions)


@pytest.mark.parametrize(
    ("kind", "sizes", "options"),
    [("gpt_neo", NEO, {"attention": "causal"}), ("mpt", MPT, {}), ("t5", T5, {})],
)
def test_what_obeys_as_it_is_asked_is_taken(kind, sizes, options):
    given = trunk(kind, sizes=sizes, **options)
    require_obedience(given, given._attentions)
    _, passed = tune(given, identity=True)
    through(given, tokens())
    assert passed == [1, 1]


def looks_back_alone(trunk, valid):
    return MASK(trunk, valid) + torch.full((TOKENS, TOKENS), -1e9).triu(1)[:4, :4]


def looks_everywhere(trunk, valid):
    return torch.zeros_like(MASK(trunk, valid))


MASK = FrozenTrunk._mask


@pytest.mark.parametrize(
    ("attention", "mask", "said"),
    [
        ("bidirectional", looks_back_alone, "lets no token look at a later one"),
        ("bidirectional", looks_everywhere, "lets tokens look at padding"),
        ("causal", looks_everywhere, "lets tokens look at later ones"),
    ],
)
def test_a_mask_that_is_passed_over_is_found_out(attention, mask, said, monkeypatch):
    given = trunk("llama", attention=attention)
    require_obedience(given, given._attentions)
    monkeypatch.setattr(FrozenTrunk, "_mask", mask)
    with pytest.raises(ValueError, match=said):
        require_obedience(given, given._attentions)


def test_numbers_that_are_not_finite_are_told():
    given = trunk("llama", dtype="float16")
    given.model.norm.weight.fill_(6e4)
    with pytest.raises(ValueError, match="must be finite, got others in float16"):
        require_obedience(given, given._attentions)


def test_layers_without_attention_are_refused():
    with pytest.raises(ValueError, match=r"layers with attention each.*got MambaModel"):
        trunk("mamba")
