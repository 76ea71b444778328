from dataclasses import dataclass

import numpy as np
import pytest
import torch

from actioncast.data.action_history import ActionHistory
from actioncast.data.clip_samples import ClipSamples, LabelledSource, collate_clips
from actioncast.data.clips import ActionClip
from actioncast.types import IGNORE
from epic_folders import clip, clip_dataset, real_epic_kitchens


@dataclass(frozen=True)
class Counted:
    """As many tokens as the clip starts seconds into its video, each its number."""

    name: str
    width: int = 2

    def read(self, clip: ActionClip) -> np.ndarray:
        steps = np.arange(1, int(clip.start) + 1, dtype=np.float32)
        return np.repeat(steps[:, None], self.width, axis=1)


EARLY, LATE = clip("P01_01_0", 0.0, 1.0, 1, 1), clip("P01_01_1", 3.0, 4.0, 2, 0)


def batch(*clips: ActionClip, sources=(Counted("words"), Counted("things", 5))):
    samples = ClipSamples(clips, sources)
    return collate_clips([samples[i] for i in range(len(samples))], anticipation_time=1.0, rate=4.0)


def test_the_first_source_gives_features_and_the_others_modalities():
    sample = ClipSamples([LATE], [Counted("words"), Counted("things", 5)])[0]
    assert sample.features.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert sample.labels is None
    assert {name: tokens.shape for name, tokens in sample.modalities.items()} == {"things": (3, 5)}
    assert sample.next == {"verb": 2, "noun": 0, "action": 4}


def test_a_batch_is_padded_to_the_right():
    observation, target = batch(EARLY, LATE)
    assert observation.features[1].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert observation.features[0].tolist() == [[0, 0]] * 3
    assert observation.valid.tolist() == [[False] * 3, [True] * 3]
    things = observation.modalities["things"]
    assert things.values.shape == (2, 3, 5)
    assert things.valid.tolist() == observation.valid.tolist()
    assert observation.horizon.tolist() == [0, 0]
    assert (observation.anticipation_time, observation.rate) == (1.0, 4.0)
    assert observation.labels is None
    assert target.frames == {}
    assert {head: labels.tolist() for head, labels in target.next.items()} == {
        "verb": [1, 2],
        "noun": [1, 0],
        "action": [3, 4],
    }


def test_a_batch_without_any_token_has_one_padded_step_of_the_right_width():
    observation, target = batch(EARLY)
    assert observation.features.shape == (1, 1, 2)
    assert not observation.valid.any()
    assert observation.modalities["things"].values.shape == (1, 1, 5)
    assert target.next["action"].tolist() == [3]


def test_one_observation_of_a_batch_comes_without_padding():
    observation, _ = batch(EARLY, LATE)
    early, late = observation
    assert (early.features.shape[1], late.features.shape[1]) == (0, 3)
    assert late.modalities["things"].values.shape == (1, 3, 5)


def test_observed_actions_label_the_steps_of_a_history():
    asked = clip("P01_01_2", 8.0, 9.0)
    history = ActionHistory(clip_dataset([EARLY, LATE, asked]))
    assert isinstance(history, LabelledSource)
    assert not isinstance(Counted("words"), LabelledSource)
    observation, _ = batch(asked, LATE, EARLY, sources=[history])
    assert observation.labels is not None
    assert observation.labels.dtype == torch.long
    assert observation.labels.tolist() == [[3, 4], [3, IGNORE], [IGNORE, IGNORE]]
    assert observation.valid.tolist() == [[True, True], [True, False], [False, False]]


def test_every_published_validation_segment_is_asked_for():
    dataset = real_epic_kitchens()
    samples = ClipSamples(dataset.part("validation"), [ActionHistory(dataset)])
    assert len(samples) == 9_668
    early = [i for i, one in enumerate(samples.clips) if one.start - 1 < 1 / 30]
    observation, target = collate_clips(
        [samples[i] for i in early], anticipation_time=1.0, rate=1.0
    )
    assert observation.features.shape == (30, 1, 402)
    assert not observation.valid.any()
    assert target.next["action"].shape == (30,)


def test_sources_need_names_of_their_own():
    with pytest.raises(ValueError, match="got words more than once"):
        ClipSamples([EARLY], [Counted("words"), Counted("words")])
    with pytest.raises(ValueError, match="at least one source"):
        ClipSamples([EARLY], [])
