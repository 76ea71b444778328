"""A recipe for every row of ActFusion's ablations: Tables 3 to 5, S1 to S4, Figs. 3 and 4."""

from dataclasses import replace

from actioncast.diffusion_recipes import ACTFUSION_50SALADS, Recipes, changed, without
from actioncast.layers.frame_masks import PAPER_50SALADS
from actioncast.training import TrainConfig


def ablations() -> Recipes:
    """A recipe for every row of the ablations, all on 50 Salads as the paper has them.

    Rows that are the full model are `actfusion-50salads`. The points of Figs. 3 and 4 stand in no
    text: the range is the text's, the points are ours; so is the weight of Table S4's loss. Fig. 4
    needs no training of its own; its recipes ask the same training for other steps of inference.
    """
    base = ACTFUSION_50SALADS
    silent = {"encoder_weight": 0.0, "encoder_smoothing_weight": 0.0}
    no_entropy = {"encoder_weight": 0.0, "decoder_weight": 0.0}
    no_smoothing = {"encoder_smoothing_weight": 0.0, "decoder_smoothing_weight": 0.0}
    rows: dict[str, tuple[str, TrainConfig]] = {
        "loss-to-come": (
            "Table 3 (1): no loss of the encoder, none on what was observed",
            changed(base, decoder_counts="hidden", **silent),
        ),
        "loss-denoiser": ("Table 3 (2): no loss of the encoder", changed(base, **silent)),
        "no-anticipative-mask": (
            "Table 4 (2): no anticipative mask",
            without(base, "anticipative"),
        ),
        "no-random-mask": ("Table 4 (3): no random mask", without(base, "random")),
        "no-boundary-mask": ("Table 4 (4): no boundary mask", without(base, "boundary")),
        "no-relation-mask": ("Table 4 (5): no relation mask", without(base, "relation")),
        "zero-token": ("Table 5 (1): zeros for hidden frames", changed(base, token="zero")),
        "token-in-denoiser": (
            "Table 5 (3): tokens for hidden frames in the denoiser",
            changed(base, token_in="denoiser"),
        ),
        "condition-features": (
            "Table S1: conditioned on masked features",
            changed(base, condition_layers=(), condition_features=True),
        ),
        "condition-predictions": (
            "Table S1: conditioned on the encoder's answer",
            changed(base, condition_layers=(), condition_predictions=True),
        ),
        "no-position": ("Table S2: no position bias", changed(base, positions="none")),
        "relative-embedding": (
            "Table S2: relative position embedding",
            changed(base, positions="embedding"),
        ),
        "absolute-embedding": (
            "Table S2: absolute position embedding",
            changed(base, positions="absolute"),
        ),
        "loss-boundary": (
            "Table S3: the boundary loss alone, as its marks are printed",
            changed(base, **no_entropy, **no_smoothing),
        ),
        "loss-boundary-smoothing": (
            "Table S3: boundary and smoothing loss, as its marks are printed",
            changed(base, **no_entropy),
        ),
        "loss-entropy": (
            "Table S3: cross entropy alone, as its scores suggest",
            changed(base, **no_smoothing, decoder_boundary_weight=0.0),
        ),
        "loss-entropy-smoothing": (
            "Table S3: cross entropy and smoothing, as its scores suggest",
            changed(base, decoder_boundary_weight=0.0),
        ),
        "reconstruction": (
            "Table S4: hidden features reconstructed",
            changed(base, reconstruction_weight=1.0),
        ),
    }
    for clips in (10, 50, 75, 100):
        masking = replace(PAPER_50SALADS, num_clips=(clips, clips))
        rows[f"{clips}-clips"] = (
            f"Fig. 3: the random mask hides {clips} clips",
            changed(base, masking=masking),
        )
    for steps in (1, 2, 5, 10, 50, 100):
        rows[f"{steps}-steps"] = (
            f"Fig. 4: {steps} steps of inference",
            changed(base, inference_steps=steps),
        )
    return {
        f"actfusion-50salads-{name}": (f"ActFusion, {sentence}", config)
        for name, (sentence, config) in rows.items()
    }


ABLATION_RECIPES: Recipes = ablations()
"""By name."""
