from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_sources import QuestionTokens, sources
from actioncast.data.action_history import ActionHistory, HistoryConfig
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.epic_kitchens import class_synonyms, open_epic_kitchens
from actioncast.data.history_steps import HistorySteps
from actioncast.questions import (
    LeakChecker,
    QuestionBank,
    QuestionFile,
    QuestionMode,
    QuestionPair,
    write_questions,
)
from actioncast.text_encoders import HashTextEncoder
from clip_folders import write_kitchen

PLAIN = ClipTrainConfig(text_encoder="hash:8")
GENERIC = QuestionMode.GENERIC


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    return write_kitchen(tmp_path / "epic100")


def asked(mode: QuestionMode, at: Path, **values: Any) -> tuple[QuestionTokens, ClipDataset]:
    dataset = open_epic_kitchens(at)
    found = sources(replace(PLAIN, questions=mode, **values), dataset, at)
    (questions,) = found.others
    assert isinstance(questions, QuestionTokens)
    return questions, dataset


def same_but_for_its_own_label(clip: ActionClip) -> ActionClip:
    return replace(clip, verb=(clip.verb + 1) % 3, noun=(clip.noun + 1) % 2)


def test_history_is_the_first_and_questions_are_beside(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    alone = sources(PLAIN, dataset, kitchen)
    assert (alone.first.name, alone.others, alone.questions) == ("history", (), "")
    assert alone.causal == "yes"
    both = sources(replace(PLAIN, questions=GENERIC), dataset, kitchen)
    assert [source.name for source in both.every] == ["history", "questions"]
    assert both.questions.startswith("generic: the same two questions")
    assert both.questions.endswith("read by hash:8, one after the other")


def test_oracle_questions_are_about_the_clip_and_predicted_ones_about_what_went_before(
    kitchen: Path,
) -> None:
    for mode, own in ((QuestionMode.ORACLE, True), (QuestionMode.PREDICTED, False)):
        questions, dataset = asked(mode, kitchen)
        for video in ("P01_02", "P05_01"):
            clips = [c for c in dataset.part("validation") if c.video == video]
            changed = tuple(
                same_but_for_its_own_label(c) if c is clips[-1] else c
                for c in dataset.part("validation")
            )
            other = replace(dataset, clips={**dataset.clips, "validation": changed})
            again = QuestionTokens(
                replace(PLAIN, questions=mode), other, kitchen, ("train", "validation")
            )
            last = clips[-1].id
            assert (questions.pairs[last] == again.pairs[last]) is not own
        assert questions.sentence.startswith(mode.value)


def test_predicted_questions_tell_the_last_action_and_nothing_of_an_empty_past(
    kitchen: Path,
) -> None:
    questions, dataset = asked(QuestionMode.PREDICTED, kitchen)
    generic = QuestionBank(dataset.taxonomy).generic()
    clips = [c for c in dataset.part("validation") if c.video == "P01_02"]
    assert questions.pairs[clips[0].id] == generic
    # Actions start 2 s apart and 1 s is hidden: the one before is known.
    wanted = QuestionBank(dataset.taxonomy, seed=0)
    ways = [
        wanted.pair(before.verb, before.noun, str(way)) for before in [clips[3]] for way in range(8)
    ]
    found = questions.pairs[clips[4].id]
    assert found.verb in {pair.verb for pair in ways}
    assert found != generic


def test_generic_questions_are_those_of_everybody(kitchen: Path) -> None:
    questions, _ = asked(GENERIC, kitchen)
    assert len(set(questions.pairs.values())) == 1


def test_both_questions_stand_in_one_row(kitchen: Path) -> None:
    apart, dataset = asked(QuestionMode.ORACLE, kitchen)
    clip = dataset.part("train")[0]
    pair, encoder = apart.pairs[clip.id], HashTextEncoder(8)
    np.testing.assert_array_equal(
        apart.read(clip), np.concatenate(encoder.encode([pair.verb, pair.noun]))
    )
    together, _ = asked(QuestionMode.ORACLE, kitchen, questions_together=True)
    np.testing.assert_array_equal(
        together.read(clip), encoder.encode([f"{pair.verb} {pair.noun}"])[0]
    )
    assert together.sentence.endswith("as one text")


def test_a_seed_asks_otherwise_and_says_so(kitchen: Path) -> None:
    one, _ = asked(QuestionMode.ORACLE, kitchen)
    two, _ = asked(QuestionMode.ORACLE, kitchen, question_seed=1)
    assert one.pairs != two.pairs
    assert "templates, seed 1" in two.sentence


def test_every_text_is_encoded_once(kitchen: Path) -> None:
    class Counting(HashTextEncoder):
        def encode(self, texts: Any) -> Any:
            seen.extend(texts)
            return super().encode(texts)

    seen: list[str] = []
    config = replace(PLAIN, questions=QuestionMode.ORACLE)
    dataset = open_epic_kitchens(kitchen)
    questions = QuestionTokens(config, dataset, kitchen, ("train",), Counting(8))
    for clip in dataset.part("train"):
        questions.read(clip)
    assert len(seen) == len(set(seen))
    with pytest.raises(ValueError, match="made for other parts"):
        questions.read(dataset.part("validation")[0])


def test_questions_come_from_a_file_for_each_part(kitchen: Path, tmp_path: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    bank = QuestionBank(dataset.taxonomy)
    for part in ("train", "validation"):
        pairs = {clip.id: bank.generic() for clip in dataset.part(part)}
        file = QuestionFile(source="Ann", mode=QuestionMode.PREDICTED, questions=pairs, ahead=1.0)
        write_questions(tmp_path / f"{part}.json", file)
    named = str(tmp_path / "{part}.json")
    questions, _ = asked(QuestionMode.PREDICTED, kitchen, question_file=named)
    assert "made by Ann" in questions.sentence
    with pytest.raises(ValueError, match="holds predicted questions, got --questions oracle"):
        asked(QuestionMode.ORACLE, kitchen, question_file=named)
    with pytest.raises(ValueError, match=r"question_file must hold \{part\}"):
        asked(QuestionMode.PREDICTED, kitchen, question_file=str(tmp_path / "train.json"))


@pytest.mark.parametrize("ahead", [None, 0.0, 0.99])
def test_predicted_questions_must_not_come_from_what_is_not_shown(
    ahead: float | None, kitchen: Path, tmp_path: Path
) -> None:
    dataset = open_epic_kitchens(kitchen)
    bank = QuestionBank(dataset.taxonomy)
    for part in ("train", "validation"):
        pairs = {clip.id: bank.generic() for clip in dataset.part(part)}
        file = QuestionFile(source="Ann", mode=QuestionMode.PREDICTED, questions=pairs, ahead=ahead)
        write_questions(tmp_path / f"{part}.json", file)
    with pytest.raises(ValueError, match="must come from what was observed 1 s before"):
        asked(QuestionMode.PREDICTED, kitchen, question_file=str(tmp_path / "{part}.json"))


def test_features_are_read_at_the_protocols_times(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    folder = kitchen / "features"
    folder.mkdir()
    for video in {c.video for part in dataset.clips.values() for c in part}:
        # The feature of a step is its number; 4 steps a second.
        np.save(folder / f"{video}.npy", np.arange(120.0, dtype=np.float32)[:, None] * [1, 1, 1])
    config = replace(PLAIN, input="features", feature_rate=4.0, num_frames=4, span=2.0)
    unknown = replace(dataset, videos={})
    with pytest.raises(ValueError, match="does not say how long"):
        sources(config, unknown, kitchen)
    lengths = {c.video: info_of(30.0) for part in dataset.clips.values() for c in part}
    found = sources(config, replace(dataset, videos=lengths), kitchen)
    assert (found.first.width, found.rate, found.causal) == (3, 2.0, "unknown")
    clip = dataset.part("train")[5]
    # Starts at 10.5 s: seen is 7.5 to 9.5 s, read at 7.75, 8.25, 8.75 and 9.25 s.
    assert found.first.read(clip)[:, 0].tolist() == [31, 33, 35, 37]


def test_a_stream_of_steps_says_what_it_tells(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    config = replace(PLAIN, history=HistoryConfig(rate=4.0, span=8.0), supervise="steps")
    found = sources(config, dataset, kitchen)
    assert isinstance(found.first, HistorySteps)
    assert found.input == "annotated past actions at 4 steps a second over 8 s"
    assert (found.rate, found.causal) == (4.0, "yes")
    gap = replace(config, history=HistoryConfig(rate=4.0, span=8.0, gap=1.5))
    found = sources(gap, dataset, kitchen)
    assert found.input.endswith("over 8 s, 1.5 s before that")
    clip = dataset.part("train")[5]
    # Starts at 10.5 s: told is up to 8 s.
    assert found.first.read(clip).shape == (32, 3 + 2 + 1)


def test_every_step_of_feature_files_is_read(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    folder = kitchen / "features"
    folder.mkdir()
    videos = {c.video for part in dataset.clips.values() for c in part}
    for video in videos:
        np.save(folder / f"{video}.npy", np.arange(120.0, dtype=np.float32)[:, None] * [1, 1, 1])
    dataset = replace(dataset, videos={video: info_of(30.0) for video in videos})
    config = replace(
        PLAIN,
        input="features",
        feature_rate=4.0,
        num_frames=8,
        span=2.0,
        every_step=True,
        supervise="steps",
    )
    found = sources(config, dataset, kitchen)
    clip = dataset.part("train")[5]
    # Starts at 10.5 s: the step at 9.5 s may not be seen.
    assert found.first.read(clip)[:, 0].tolist() == list(range(30, 38))
    assert found.rate == 4.0
    # 1.5 s after the video's start there is half as much.
    assert len(found.first.read(dataset.part("train")[1])) == 6
    with pytest.raises(ValueError, match=r"every step is read of \.npy files"):
        sources(replace(config, features=Path("frames.lmdb")), dataset, kitchen)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"supervise": "steps"}, "supervise steps must go with anticipation from steps in time"),
        ({"supervise": "steps", "input": "features"}, "say --history.rate 4"),
        ({"every_step": True}, "every_step reads feature files"),
        ({"every_step": True, "input": "features"}, "with every_step, 64, got 16"),
        ({"clip_share": 0.0}, "clip_share must be a share"),
        ({"clip_share": 1.5}, "clip_share must be a share"),
    ],
)
def test_steps_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **values)


def info_of(duration: float) -> Any:
    from actioncast.data.clips import VideoInfo

    return VideoInfo(duration=duration, rate=30.0)


def test_objects_that_are_not_there_are_said(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    with pytest.raises(FileNotFoundError, match="objects of VISOR were looked for in"):
        sources(replace(PLAIN, objects=True), dataset, kitchen)


def test_predicted_questions_are_about_the_last_of_several_actions(kitchen: Path) -> None:
    """Of every clip whose last observed action differs from the first."""
    questions, dataset = asked(QuestionMode.PREDICTED, kitchen)
    history = ActionHistory(dataset)
    bank = QuestionBank(dataset.taxonomy, LeakChecker(dataset.taxonomy, class_synonyms(kitchen)))
    told = 0
    for clip in dataset.part("validation"):
        seen = history.observed(clip)
        if len(seen) < 2 or seen.actions[0] == seen.actions[-1]:
            continue
        told += 1
        last = [bank.pair(int(seen.verbs[-1]), int(seen.nouns[-1]), str(w)) for w in range(8)]
        assert questions.pairs[clip.id] in last
    assert told > 5


def test_files_of_predicted_questions_are_not_masked_by_the_annotation(
    kitchen: Path, tmp_path: Path
) -> None:
    """Masks would stand where a recogniser was right."""
    dataset = open_epic_kitchens(kitchen)
    for part in ("train", "validation"):
        pairs = {
            clip.id: QuestionPair(verb="Does one take the pan?", noun="Is a tap washed?")
            for clip in dataset.part(part)
        }
        file = QuestionFile(source="Ann", mode=QuestionMode.PREDICTED, questions=pairs, ahead=1.5)
        write_questions(tmp_path / f"{part}.json", file)
    named = str(tmp_path / "{part}.json")
    questions, _ = asked(QuestionMode.PREDICTED, kitchen, question_file=named)
    assert {(p.verb, p.noun) for p in questions.pairs.values()} == {
        ("Does one take the pan?", "Is a tap washed?")
    }
    gap = replace(PLAIN.history, gap=0.6)
    with pytest.raises(ValueError, match=r"observed 1\.6 s before a clip"):
        asked(QuestionMode.PREDICTED, kitchen, question_file=named, history=gap)


def test_a_shorter_history_asks_about_what_it_tells(kitchen: Path) -> None:
    """With 3 s hidden besides, the last action is an earlier one."""
    near, dataset = asked(QuestionMode.PREDICTED, kitchen)
    far, _ = asked(QuestionMode.PREDICTED, kitchen, history=replace(PLAIN.history, gap=3.0))
    assert sum(near.pairs[c.id] != far.pairs[c.id] for c in dataset.part("validation")) > 10


def test_clips_of_one_action_are_asked_about_in_several_ways(kitchen: Path) -> None:
    """A paraphrase is chosen by the clip, so that no question is a code for its action."""
    questions, dataset = asked(QuestionMode.ORACLE, kitchen)
    ways: dict[int, set[QuestionPair]] = {}
    for part in ("train", "validation"):
        for clip in dataset.part(part):
            ways.setdefault(clip.action, set()).add(questions.pairs[clip.id])
    assert max(map(len, ways.values())) > 2
