"""From a video to frame labels: our inference against the released order of steps, written out.

Offsets one after another through the literal network, cut and averaged, filtered by scipy, placed
back on the video's frames (sheet sections 7.1 and 7.2).
"""

from typing import Any

import numpy as np
import pytest
import torch
from diffusion_reference import ReferenceDiffusion
from scipy.ndimage import median_filter

from actioncast.data import Video
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig, answers
from actioncast.models.diffusion_official import diffusion_from_official
from actioncast.protocols import LongTerm, Question
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.types import most_likely

NUM_LABELS, WIDTH, STRIDE, SIZE = 6, 12, 8, 5
LABELS = LabelSpace(tuple(f"a{i}" for i in range(NUM_LABELS)))


@pytest.fixture(scope="module")
def literal() -> ReferenceDiffusion:
    torch.manual_seed(0)
    model = ReferenceDiffusion(
        num_labels=NUM_LABELS,
        feature_dim=WIDTH,
        encoder_layers=4,
        encoder_dim=16,
        encoder_kernel=5,
        decoder_layers=3,
        decoder_dim=12,
        decoder_kernel=7,
        step_dim=32,
        condition_layers=(1, 2, 3),
        dropouts=(0.5, 0.5, 0.5, 0.1),
        scale=1.0,
        bias=True,
        mask_token=True,
    ).eval()
    with torch.no_grad():
        # Untrained heads say the same of every frame: then no step of the order could be told.
        model.decoder.conv_out.weight.mul_(30)
        for layer in (*model.encoder.encoder.layers, *model.decoder.module.layers):
            layer.att_linear_q.weight.mul_(4)
    return model


def ours(literal: ReferenceDiffusion) -> Any:
    config, weights = diffusion_from_official(
        "actfusion", literal.state_dict(), (1, 2, 3), literal.scale
    )
    model = config.build(Taxonomy({"action": LABELS})).eval()
    model.load_state_dict(weights)
    return model


def video(num_frames: int) -> Video:
    rng = np.random.default_rng(num_frames)
    segments = np.repeat(rng.integers(0, NUM_LABELS, 9), -(-num_frames // 9))[:num_frames]
    features = 2 * np.eye(WIDTH)[segments] + rng.normal(size=(num_frames, WIDTH))
    return Video(
        id="v",
        timeline=Timeline.from_frames(segments, 30.0, LABELS),
        rate=30.0,
        num_frames=num_frames,
        features=FeatureArray(features.astype(np.float32)),
    )


def released_order(answers_of_offsets: list[np.ndarray], num_frames: int) -> np.ndarray:
    """Labels of all frames of the video."""
    shortest = min(probs.shape[1] for probs in answers_of_offsets)
    mean = np.mean([probs[:, :shortest] for probs in answers_of_offsets], axis=0)
    filtered = np.stack([median_filter(row, size=SIZE) for row in mean])
    labels = (filtered / filtered.sum(0)).argmax(0)
    at = STRIDE // 2 + np.arange(shortest) * STRIDE
    frames = np.arange(num_frames)
    distance = np.abs(frames[:, None] - at[None])
    found: np.ndarray = labels[distance.argmin(1)]
    return found


def sampled(literal: ReferenceDiffusion, features: np.ndarray, total: int | None) -> np.ndarray:
    with torch.no_grad():
        seen = torch.from_numpy(np.ascontiguousarray(features.T))[None]
        found: np.ndarray = literal.sample(seen, total, eta=1.0, seed=0)[0].numpy()
    return found


RUNNING = InferenceConfig(stride=STRIDE, offsets=True, postprocess="median", postprocess_size=SIZE)


@pytest.mark.parametrize("num_frames", [403, 400, 614])
def test_segmentation_is_that_of_the_released_order(
    literal: ReferenceDiffusion, num_frames: int
) -> None:
    one = video(num_frames)
    assert one.features is not None
    raw = one.features.read(0, num_frames)
    expected = released_order(
        [sampled(literal, raw[offset::STRIDE], None) for offset in range(STRIDE)], num_frames
    )
    assert len(set(expected.tolist())) > 1
    ((_, answer),) = answers(ours(literal), [(one, Question(observed=num_frames))], RUNNING)
    assert answer.prediction.past is not None
    assert (most_likely(answer.prediction.past) == expected).all()


@pytest.mark.parametrize("ratio", [0.2, 0.3])
@pytest.mark.parametrize("num_frames", [403, 400, 614])
def test_anticipation_is_that_of_the_released_order(
    literal: ReferenceDiffusion, num_frames: int, ratio: float
) -> None:
    """With the length told and with the steps that the released test shows beyond the boundary."""
    one = video(num_frames)
    assert one.features is not None
    raw = one.features.read(0, num_frames)
    total = -(-num_frames // STRIDE)
    shown = round(total * ratio)
    expected = released_order(
        [sampled(literal, raw[o::STRIDE][:shown], total) for o in range(STRIDE)], num_frames
    )
    question = LongTerm(rounded_to_steps=True).question(num_frames, ratio, 30.0)
    ((_, answer),) = answers(ours(literal), [(one, question)], RUNNING)
    assert answer.prediction.future is not None
    found = most_likely(answer.prediction.future)
    window = expected[question.observed : question.observed + question.horizon]
    assert len(set(expected.tolist())) > 1
    assert (found == window).all()
