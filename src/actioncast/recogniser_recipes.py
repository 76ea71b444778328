"""Classifiers of single frames, whose runs name the observed actions for models that read them.

Each split trains on its training videos alone, so that a run names the tested ones unseen:
`actioncast train RECIPE --labels-from runs/frame-classifier-cad120`. Strides are ActionLLM's.
"""

from collections.abc import Mapping
from dataclasses import replace

from actioncast.models.frame_classifier import FrameClassifierConfig
from actioncast.training import TrainConfig

OWN = TrainConfig(
    model=FrameClassifierConfig(),
    observed_ratios=(1.0,),
    epochs=20,
    batch_size=8,
    warmup_epochs=1,
    schedule_by="step",
    # Every training video trains; a recogniser is not chosen by the videos that it names later.
    selection="last",
    select_by="segmentation",
)
RECOGNISER_RECIPES: Mapping[str, tuple[str, TrainConfig]] = {
    "frame-classifier": ("a classifier of single frames on your own folder", OWN),
    "frame-classifier-cad120": (
        "a classifier of single steps on CAD-120 with its skeleton and object features",
        # Dropout and epochs were chosen by holding out one training subject of split 1.
        replace(OWN, model=FrameClassifierConfig(dropout=0.7), dataset="cad120", epochs=30),
    ),
    "frame-classifier-breakfast": (
        "a classifier of single frames on Breakfast with I3D features, one in 6",
        replace(OWN, dataset="breakfast", stride=6),
    ),
    "frame-classifier-50salads": (
        "a classifier of single frames on 50 Salads with I3D features, one in 8",
        replace(OWN, dataset="50salads", stride=8, epochs=40, batch_size=4),
    ),
}
