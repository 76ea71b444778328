"""Question files are read whole and right, or refused with what is wrong."""

import json

import pytest
from epic_classes import small_checker

from actioncast.questions import (
    LeakChecker,
    QuestionFile,
    QuestionMode,
    QuestionPair,
    read_questions,
    write_questions,
)
from actioncast.questions.question_files import not_a_pair
from actioncast.timeline import LabelSpace, Taxonomy

GOOD = {"verb": "What is done?", "noun": "With what?"}


def written(folder, questions, **more):
    path = folder / "questions.json"
    path.write_text(json.dumps({"format": 1, "source": "us", "questions": questions} | more))
    return path


def test_what_is_written_is_read(tmp_path):
    pairs = {f"c{i}": QuestionPair(verb=f"Why {i}?", noun="Ça, <MASK>?") for i in range(3)}
    file = QuestionFile(source="a model", mode=QuestionMode.PREDICTED, questions=pairs)
    write_questions(tmp_path / "sub" / "q.json", file)
    assert read_questions(tmp_path / "sub" / "q.json", pairs) == file


def test_the_published_layout_without_a_mode_counts_as_oracle(tmp_path):
    file = read_questions(written(tmp_path, {"a": GOOD}), ["a"])
    assert (file.mode, file.source) == (QuestionMode.ORACLE, "us")
    assert file.questions["a"] == QuestionPair(verb="What is done?", noun="With what?")


def test_missing_and_extra_clips_are_counted_and_ten_listed(tmp_path):
    path = written(tmp_path, {f"x{i}": GOOD for i in range(12)} | {"a": GOOD})
    with pytest.raises(ValueError, match="all and no others") as error:
        read_questions(path, ["a", *(f"m{i:02}" for i in range(25))])
    text = str(error.value)
    assert "25 are missing: m00, m01, m02, m03, m04, m05, m06, m07, m08, m09, ..." in text
    assert "12 are of no clip: x0, " in text
    assert "m10" not in text
    assert "x10" not in text
    assert "of 26 clips" in text


def test_two_missing_clips_are_listed_without_dots(tmp_path):
    with pytest.raises(ValueError, match=r"2 are missing: b, c\. Was it"):
        read_questions(written(tmp_path, {"a": GOOD}), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ({"verb": "", "noun": "With what?"}, "verb: empty"),
        ({"verb": "Why?", "noun": "  "}, "noun: empty"),
        ({"verb": "Why?", "noun": "?!"}, "noun: empty"),
        ({"verb": 3, "noun": "With what?"}, "verb: a number"),
        ({"verb": "Why?", "noun": ["a"]}, "noun: a list"),
        ({"verb": "Why?"}, "noun: nothing"),
        ({"verb": "Why?", "noun": "What?", "answer": "cut"}, "also answer"),
        ("Why?", "a string"),
        (None, "nothing"),
    ],
)
def test_what_is_no_pair_of_questions_is_named(tmp_path, pair, said):
    with pytest.raises(ValueError, match=rf"got clip_7 \({said}\)"):
        read_questions(written(tmp_path, {"a": GOOD, "clip_7": pair}), ["a", "clip_7"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ('{"format": 1, ', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "got a list"),
        ('{"format": 1, "source": "us"}', "must be an object"),
        ('{"format": 2, "source": "us", "questions": {}}', "format must be 1, got 2"),
        ('{"format": 1, "questions": {}}', "source must say"),
        ('{"format": 1, "source": "us", "mode": "none", "questions": {}}', "mode must be one of"),
        ('{"format": 1, "source": "us", "questions": {"a": 1, "a": 2}}', "'a' must stand once"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, said):
    path = tmp_path / "q.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_questions(path, [])


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "q.json").write_bytes(b'{"format": "\xff\xfe"}')
    with pytest.raises(ValueError, match="is no JSON"):
        read_questions(tmp_path / "q.json", [])


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no question file"):
        read_questions(tmp_path / "q.json", [])


def test_a_leak_is_refused_with_clip_and_word_or_masked(tmp_path):
    path = written(
        tmp_path,
        {
            "good": GOOD,
            "bad": {"verb": "What is taken with the knife?", "noun": "Which blades, taken?"},
        },
    )
    answers = {"good": (0, 0), "bad": (0, 0)}
    with pytest.raises(ValueError, match="must not name its own answer") as error:
        read_questions(path, answers, checker=small_checker(), answers=answers)
    assert "got bad (verb question, 'taken'), bad (noun question, 'blades');" in str(error.value)
    file = read_questions(path, answers, checker=small_checker(), answers=answers, mask=True)
    assert file.questions["bad"] == QuestionPair(
        verb="What is <MASK> with the <MASK>?", noun="Which <MASK>, <MASK>?"
    )


def test_the_other_half_is_always_masked(tmp_path):
    path = written(tmp_path, {"a": {"verb": "What about the knives?", "noun": "What is fetched?"}})
    file = read_questions(path, ["a"], checker=small_checker(), answers={"a": (0, 0)})
    assert file.questions["a"] == QuestionPair(
        verb="What about the <MASK>?", noun="What is <MASK>?"
    )


def test_without_answers_nothing_is_touched(tmp_path):
    """Masks by the annotation would tell in which predicted questions it stands."""
    pair = {"verb": "Is it taken?", "noun": "A knife?"}
    file = read_questions(
        written(tmp_path, {"a": pair}, mode="predicted"), ["a"], checker=small_checker(), answers={}
    )
    assert file.questions["a"] == QuestionPair(**pair)


def test_no_questions_make_no_file(tmp_path):
    file = QuestionFile(
        source="us", mode=QuestionMode.NONE, questions={"a": QuestionPair(verb="A", noun="B")}
    )
    with pytest.raises(ValueError, match="must hold questions"):
        write_questions(tmp_path / "q.json", file)
    assert not (tmp_path / "q.json").exists()


def test_an_answer_between_signs_that_nobody_sees_is_found(tmp_path):
    taxonomy = Taxonomy(
        {"verb": LabelSpace(("wash",)), "noun": LabelSpace(("pan",)), "action": LabelSpace(("a",))},
        pairs=((0, 0),),
    )
    for hidden in ("w\u200bash", "\uff57\uff41\uff53\uff48", "wa\u00adsh"):
        content = {"verb": f"Does one {hidden} it?", "noun": "What is it?"}
        text = json.dumps({"format": 1, "source": "x", "questions": {"c": content}})
        (tmp_path / "q.json").write_text(text)
        with pytest.raises(ValueError, match="must not name its own answer"):
            read_questions(
                tmp_path / "q.json", ["c"], checker=LeakChecker(taxonomy), answers={"c": (0, 0)}
            )


def test_half_a_character_is_no_question():
    assert "half of a character" in not_a_pair({"verb": "What \ud800?", "noun": "What?"})
