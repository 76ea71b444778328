"""A run on short actions in, a result with its passport out."""

from actioncast.clip_coming import ComingByHead, score_coming
from actioncast.clip_evaluation import JOINT, SUBSETS, ScoresByHead, score_clips
from actioncast.clip_runs import HELD_OUT, LoadedClips
from actioncast.clip_training import clip_batches
from actioncast.inference import coming_actions, next_actions
from actioncast.passport import Passport, Result
from actioncast.progress import Progress, silent
from actioncast.training import commit

SELECTIONS = {
    "validation": "best on training participants held out",
    "last": "last epoch",
    "test": "best on the test split, the validation part itself, which flatters",
}
"""How a checkpoint was chosen, as the passport says it."""
COUNTED = "none: counted on all training clips"
METRICS = {
    "next_action": (
        "class-mean recall@5, over the classes of each subset; actions ranked among the pairs of "
        "training and validation; every clip counts"
    ),
    "recognition": (
        "top-1 accuracy; the action is the most probable of the pairs of training and validation; "
        "every clip counts"
    ),
    "coming_actions": (
        "edit distance of the next actions over their number, in percent, lower is better: "
        "Levenshtein's, as Ego4D's released code counts, and beside it with swaps as one; verbs, "
        "nouns and pairs choose their best candidate apart; a pair is the verb and the noun named"
    ),
}


def clip_probabilities(
    loaded: LoadedClips, device: str = "cpu", progress: Progress = silent, batch_size: int = 256
) -> ScoresByHead:
    """What the model says of every clip, by head."""
    ahead = loaded.config.protocol().anticipation_time
    batches = clip_batches(loaded.clips, loaded.sources, ahead, batch_size=batch_size)
    return next_actions(loaded.checkpoint.model, batches, device, progress)


def coming_probabilities(
    loaded: LoadedClips, device: str = "cpu", progress: Progress = silent, batch_size: int = 256
) -> ComingByHead:
    """What the model says of the actions that come after every clip, by head."""
    batches = clip_batches(loaded.clips, loaded.sources, 0.0, batch_size=batch_size)
    return coming_actions(loaded.checkpoint.model, batches, device, progress)


def coming_result(loaded: LoadedClips, answers: ComingByHead, note: str = "") -> Result:
    """The result of a run on coming actions: all examples, which have no subsets."""
    config, sequences = loaded.config, loaded.sources.sequences
    assert sequences is not None, "only a run on coming actions has their answers"
    truth = sequences.truth(loaded.clips)
    found = score_coming(answers, truth, config.candidates, config.seed)
    passport = passport_of_clips(loaded, note)
    return Result(passport=passport, total=found, splits={SUBSETS[0]: found})


def clip_result(loaded: LoadedClips, scores: ScoresByHead, note: str = "") -> Result:
    """The result of a run: all clips in `total`, the subsets in `splits`."""
    task = loaded.config.task
    assert task != "coming_actions", "coming_result scores those"
    found = score_clips(scores, loaded.clips, loaded.dataset, task)
    return Result(
        passport=passport_of_clips(loaded, note),
        total=found[SUBSETS[0]],
        splits=found,
    )


def passport_of_clips(loaded: LoadedClips, note: str = "") -> Passport:
    """The passport of an evaluation on short actions."""
    run, config = loaded.checkpoint.run, loaded.config
    protocol = config.protocol()
    counts = not list(loaded.checkpoint.model.parameters())
    # Without frames it does not matter how many are read.
    seen = "" if config.input == "history" else protocol.sentence()
    drawn = f"best of {config.candidates} drawn, seed {config.seed}"
    selection = COUNTED if counts else SELECTIONS[config.selection]
    if loaded.part == HELD_OUT:
        note = " ".join(filter(None, (note, "Scored on the clips that selected the checkpoint.")))
    return Passport(
        dataset=loaded.dataset.name,
        fingerprint=loaded.dataset.fingerprint(),
        splits=(loaded.part,),
        num_videos=len({clip.video for clip in loaded.clips}),
        num_clips=len(loaded.clips),
        task=protocol.name + (" with oracle questions" if config.questions.is_oracle else ""),
        anticipation_time=protocol.anticipation_time,
        clip=seen,
        questions=loaded.sources.questions,
        input=loaded.sources.input,
        features_causal=loaded.sources.causal,
        metric=METRICS[config.task],
        combined="most likely" if config.candidates == 1 else drawn,
        selection=selection,
        model=loaded.checkpoint.name,
        recipe=str(run.get("recipe", "")),
        seeds=(config.seed,),
        version=str(run.get("version", "")),
        commit=str(run.get("commit", "")) or commit(),
        note=note,
    )


__all__ = [
    "JOINT",
    "clip_probabilities",
    "clip_result",
    "coming_probabilities",
    "coming_result",
    "passport_of_clips",
]
