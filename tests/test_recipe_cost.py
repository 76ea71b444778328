import json

import pytest

from actioncast.__main__ import main
from actioncast.clip_recipes import CLIP_RECIPES
from actioncast.recipe_cost import cost_of
from actioncast.recipes import RECIPES


def test_the_fusion_is_what_the_paper_adds() -> None:
    """Table 4: about 9 million parameters for MambaVL, 8.5 GFLOPs for the transformer 12 x 12."""
    own = cost_of(CLIP_RECIPES["mambavl-ek100-recognition"][1])
    assert own.parts["fusion mamba"].parameters == 8_698_368
    assert sum(c.parameters for n, c in own.parts.items() if n.startswith("head")) == 305_293
    other = cost_of(CLIP_RECIPES["mambavl-ek100-recognition-transformer-12x12"][1])
    assert 8.0e9 < other.parts["fusion transformer"].flops < 8.6e9
    assert own.total.parameters == 8_698_368 + 305_293


def test_operations_of_the_fusion_are_those_of_its_matrices() -> None:
    """By hand: projection, input, B C and step, output, convolution and scan, of each token."""
    own = cost_of(CLIP_RECIPES["mambavl-ek100-recognition"][1]).parts["fusion mamba"]
    products = 768 * 768 + 768 * 3072 + 1536 * 80 + 48 * 1536 + 1536 * 768
    token = 2 * products + 2 * 1536 * 4 + 1536 * (9 * 16 + 4)
    assert own.flops == (16 + 32) * token


def test_a_backbone_is_measured_without_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    words = ["info", "mambavl-ek100-recognition", "--cost", "--backbone", "untrained:vit-tiny"]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["cost"]
    assert facts["total"]["parameters"] == sum(
        part["parameters"] for name, part in facts.items() if name != "total"
    )
    assert facts["backbone untrained:vit-tiny"]["trained"] == 0
    assert main(words) == 0
    assert "GMAC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["info", "futr-breakfast", "--cost", "--backbone", "x"],
            "--backbone must go with a recipe of MambaVL",
        ),
        (["info", "pair-n-gram-ek100", "--cost"], "got one of another model"),
        (["info", "--cost"], "got 'nothing'"),
        (["info", "--backbone", "x"], "--backbone must go with --cost"),
        (["info", "mambavl-ek100-recognition", "--cost", "--backbone", "custom:a"], "custom"),
    ],
)
def test_what_has_no_cost_is_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_recipes_of_clips_and_of_videos_have_names_of_their_own() -> None:
    assert not set(RECIPES) & set(CLIP_RECIPES)
