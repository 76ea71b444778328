import numpy as np
import pytest
import torch

from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_sources import Sources
from actioncast.clip_training import ShuffledClips, clip_batches
from actioncast.clip_variation import VariedClips, exchange_nouns, varied_numbers
from actioncast.data.action_history import ActionHistory, HistoryConfig
from actioncast.data.clip_samples import ClipSample, ClipSamples
from actioncast.data.history_steps import HistorySteps
from actioncast.types import IGNORE
from epic_folders import clip, clip_dataset

CLIPS = [clip(f"P01_01_{i}", 3.0 * i, 3.0 * i + 1, verb=i % 3, noun=i % 2) for i in range(8)]
DATASET = clip_dataset(CLIPS)
HISTORY = ActionHistory(DATASET)
VERBS, NOUNS = 3, 2


def test_a_noun_is_called_by_anothers_name_wherever_it_stands() -> None:
    features = np.zeros((2, 3 + 4 + 1), np.float32)
    features[0, [1, 3 + 0, 7]] = 1, 1, 5
    features[1, [2, 3 + 3, 7]] = 1, 1, 6
    objects = np.zeros((1, 4 + 7), np.float32)
    objects[0, [2, 4]] = 1, 0.5
    words = np.ones((5, 2), np.float32)
    sample = ClipSample(
        features=features,
        labels=np.array([4, 9]),
        modalities={"objects": objects, "questions": words},
        next={"verb": 2, "noun": 3, "action": 11},
    )
    order = np.array([2, 0, 3, 1])
    found = exchange_nouns(sample, order, num_verbs=3)
    # Nouns 0, 3 and 2 are 2, 1 and 3; verbs, times and boxes stay.
    assert found.features[0].nonzero()[0].tolist() == [1, 3 + 2, 7]
    assert found.features[1].nonzero()[0].tolist() == [2, 3 + 1, 7]
    assert found.features[:, 7].tolist() == [5, 6]
    assert found.modalities["objects"][0].nonzero()[0].tolist() == [3, 4]
    assert found.modalities["questions"].shape == (0, 2)
    assert found.next == {"verb": 2, "noun": 1, "action": IGNORE}
    assert found.labels is None
    assert sample.features[0, 3] == 1, "what was given stays"


def test_a_number_beyond_the_clips_is_a_clip_and_its_exchange() -> None:
    varied = VariedClips(ClipSamples(CLIPS, [HISTORY]), DATASET.taxonomy)
    plain = varied[5]
    assert plain.next == {"verb": 2, "noun": 1, "action": 5}
    seen = set()
    for seed in range(1, 20):
        found = varied[5 + 8 * seed]
        again = varied[5 + 8 * seed]
        assert np.array_equal(found.features, again.features)
        # Of two nouns both stay or both change, in the past as in the answer.
        changed = found.next["noun"] != plain.next["noun"]
        seen.add(changed)
        nouns = slice(VERBS, VERBS + NOUNS)
        expected = plain.features[:, nouns][:, ::-1] if changed else plain.features[:, nouns]
        assert np.array_equal(found.features[:, nouns], expected)
        assert np.array_equal(found.features[:, :VERBS], plain.features[:, :VERBS])
    assert seen == {True, False}


def test_a_share_is_exchanged_and_the_order_stays() -> None:
    plain = ShuffledClips(1000, 10, seed=3)
    varied = ShuffledClips(1000, 10, seed=3, exchange=0.3)
    for epoch in (0, 1):
        one = [i for batch in plain.batches(epoch) for i in batch]
        two = [i for batch in varied.batches(epoch) for i in batch]
        assert [i % 1000 for i in two] == one
        assert 0.25 < np.mean([i >= 1000 for i in two]) < 0.35
        assert varied.batches(epoch) == varied.batches(epoch)
    assert varied_numbers([0, 1, 2], 3, 0.0, [0]) == [0, 1, 2]


def test_batches_of_training_hold_exchanged_clips() -> None:
    sampler = ShuffledClips(8, 8, seed=0, exchange=0.5)
    sources = Sources(first=HISTORY, input="", causal="yes")
    batches = clip_batches(CLIPS, sources, 1.0, sampler=sampler, varied=DATASET.taxonomy)
    ((x, y),) = list(batches)
    exchanged = y.next["action"] == IGNORE
    assert 0 < int(exchanged.sum()) < 8
    assert x.labels is None
    assert torch.equal(x.features[..., VERBS : VERBS + NOUNS].sum(-1) > 0, x.valid)


def test_steps_are_exchanged_as_the_clip_is() -> None:
    steps = HistorySteps(DATASET, 1.0, HistoryConfig(rate=1.0, span=8.0))
    plain = ClipSamples(CLIPS, [steps], supervise=True)[6]
    found = exchange_nouns(plain, np.array([1, 0]), VERBS)
    assert plain.steps is not None
    assert found.steps is not None
    for ours, theirs in (
        (found.steps.frames, plain.steps.frames),
        (found.steps.starts, plain.steps.starts),
    ):
        known = theirs["noun"] != IGNORE
        assert known.any()
        assert not known.all()
        assert (ours["noun"] == np.where(known, 1 - theirs["noun"], IGNORE)).all()
        assert (ours["verb"] == theirs["verb"]).all()
        assert (ours["action"] == IGNORE).all()
    nouns = slice(VERBS, VERBS + NOUNS)
    assert (found.features[:, nouns] == plain.features[:, nouns][:, ::-1]).all()
    assert (found.features[:, -1] == plain.features[:, -1]).all()


@pytest.mark.parametrize(
    ("share", "source"), [(1.0, "history"), (-0.1, "history"), (0.3, "features")]
)
def test_a_share_that_means_nothing_is_refused(share: float, source: str) -> None:
    with pytest.raises(ValueError, match=r"exchange must be a share within \[0, 1\)"):
        ClipTrainConfig(exchange=share, input=source)  # type: ignore[arg-type]
