"""Trunks without knowledge: the same every time, and shapes alone where nothing is computed."""

import subprocess
import sys

import pytest
import torch

from actioncast.trunks import TrunkConfig, load_trunk
from actioncast.trunks.untrained import KINDS, UNTRAINED

pytest.importorskip("transformers")
TINY = [UNTRAINED + kind for kind in KINDS if kind.endswith("tiny")]


def states(config: TrunkConfig) -> torch.Tensor:
    trunk = load_trunk(config)
    tokens = torch.randn(1, 5, trunk.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return trunk(tokens, torch.ones(1, 5, dtype=torch.bool))


@pytest.mark.parametrize("name", TINY)
def test_one_seed_gives_one_trunk_and_leaves_the_random_state(name):
    torch.manual_seed(5)
    first = load_trunk(TrunkConfig(name=name))
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    second = load_trunk(TrunkConfig(name=name))
    other = load_trunk(TrunkConfig(name=name, seed=1))
    assert torch.equal(first.fingerprint, second.fingerprint)
    assert not torch.equal(first.fingerprint, other.fingerprint)
    assert first.revision == ""


@pytest.mark.parametrize("name", TINY)
def test_a_text_is_the_mean_of_its_bytes(name):
    trunk = load_trunk(TrunkConfig(name=name))
    table = trunk.model.get_input_embeddings().weight
    vectors = trunk.embed_texts(["ab", "é"])
    assert torch.allclose(vectors[0], (table[97] + table[98]) / 2)
    assert torch.allclose(vectors[1], (table[0xC3] + table[0xA9]) / 2)


@pytest.mark.parametrize("name", TINY)
def test_fewer_layers_and_other_types(name):
    config = TrunkConfig(name=name, num_layers=1, dtype="bfloat16")
    trunk = load_trunk(config)
    assert trunk.num_layers == 1
    assert {p.dtype for p in trunk.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in trunk.parameters())
    short, long = states(config), states(TrunkConfig(name=name, num_layers=1))
    assert short.dtype == torch.float32
    assert torch.allclose(short, long, atol=0.1)
    assert not torch.equal(short, long)


def test_llama_7b_is_shapes_alone_on_the_meta_device():
    with torch.device("meta"):
        trunk = load_trunk(TrunkConfig(name="untrained:llama-7b", dtype="float16"))
    assert (trunk.width, trunk.num_layers) == (4096, 32)
    # 32 layers of 4 * 4096^2 + 3 * 4096 * 11008 + 2 * 4096, a table of 32000 words, a last norm.
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    parameters = list(trunk.parameters())
    assert sum(p.numel() for p in parameters) == 32 * layer + 32000 * 4096 + 4096
    assert {p.device.type for p in parameters} == {"meta"}


def test_more_layers_than_there_are_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"num_layers must be at most 2, .*got 3"):
        load_trunk(TrunkConfig(name="untrained:bert-tiny", num_layers=3))
    with pytest.raises(ValueError, match=r"must be one of untrained:llama-tiny, .*'untrained:gpt'"):
        load_trunk(TrunkConfig(name="untrained:gpt"))


def test_importing_trunks_does_not_import_transformers():
    code = "import sys, actioncast.trunks; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
