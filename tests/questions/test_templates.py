"""Template questions: several for every class, the same every time, none with its answer."""

import pytest
from epic_classes import SMALL, epic

from actioncast.questions import MASK, LeakChecker, QuestionBank, QuestionMode
from actioncast.questions.leaks import parts
from actioncast.questions.templates import GENERIC, MENTION, VERB_FRAMES, clues
from actioncast.timeline import LabelSpace, Taxonomy

HEADS = ("verb", "noun")


@pytest.mark.parametrize("head", HEADS)
def test_every_class_of_epic_kitchens_has_its_own_clue(head):
    taxonomy, _ = epic()
    assert set(clues(head)) == set(taxonomy.heads[head].names)
    assert len(set(clues(head).values())) == len(clues(head)) == {"verb": 97, "noun": 300}[head]


@pytest.mark.parametrize("head", HEADS)
def test_no_paraphrase_of_any_class_names_its_answer(head):
    taxonomy, bank = epic()
    for label in range(len(taxonomy.heads[head])):
        asked = bank.paraphrases(head, label)
        assert len(set(asked)) == len(asked) >= 4
        for question in asked:
            said = question.replace(MENTION, MASK)
            assert bank.checker.find(said, head, label) == [], said


@pytest.mark.parametrize("head", HEADS)
def test_no_clue_holds_any_part_of_its_class(head):
    for name, clue in clues(head).items():
        # Particles are no part: whoever explains put may say down.
        own = parts(name) if head == "noun" else parts(name)[:1]
        assert not set(own) & set(parts(clue)), name


def test_the_check_of_paraphrases_can_fail():
    taxonomy, bank = epic()
    tap = taxonomy.heads["noun"].index("tap")
    assert bank.checker.find("What are the hot water taps?", "noun", tap)


def test_no_pair_of_classes_names_an_answer():
    """Every class in many pairs, both questions, own answer and the other's."""
    taxonomy, bank = epic()
    find = bank.checker.find
    mentions = asked = 0
    for verb in range(len(taxonomy.heads["verb"])):
        for noun in range(verb % 9, len(taxonomy.heads["noun"]), 9):
            asked += 1
            pair = bank.pair(verb, noun)
            mentions += MASK in pair.verb
            assert not find(pair.verb, "verb", verb)
            assert not find(pair.verb, "noun", noun)
            assert not find(pair.noun, "noun", noun)
            assert not find(pair.noun, "verb", verb)
    # Half of the six frames name the noun.
    assert 0.45 < mentions / asked < 0.6


def test_masks_stand_for_the_other_half_and_never_for_a_frame():
    taxonomy, bank = epic()
    for head, other in (("verb", "noun"), ("noun", "verb")):
        for frame in (*VERB_FRAMES, GENERIC.verb, GENERIC.noun):
            said = frame.replace("{clue}", "").replace(MENTION, "")
            for label in range(len(taxonomy.heads[other])):
                assert bank.checker.find(said, other, label) == []
        for label in range(len(taxonomy.heads[head])):
            assert bank.checker.find(getattr(GENERIC, head), head, label) == []


def test_questions_depend_on_seed_classes_and_key_alone():
    bank = QuestionBank(SMALL, seed=3)
    assert bank.pair(0, 1, "clip") == QuestionBank(SMALL, seed=3).pair(0, 1, "clip")
    assert len({bank.pair(0, 1, str(i)) for i in range(60)}) > 10
    assert len({QuestionBank(SMALL, seed=i).pair(0, 1) for i in range(60)}) > 10


def test_a_question_is_known_by_heart():
    pair = QuestionBank(SMALL, seed=0).pair(2, 3)
    assert pair.verb == (
        "What is done to the <MASK> when the intention is to part something with a sharp edge?"
    )
    assert pair.noun == (
        "What does somebody <MASK> here, when it is described as the fitting above the sink out of "
        "which a stream runs?"
    )


def test_a_foreign_taxonomy_is_asked_about_by_category_or_in_general():
    taxonomy = Taxonomy(
        {"verb": LabelSpace(("zig", "action")), "noun": LabelSpace(("zag", "bolt"))}, "verb"
    )
    bank = QuestionBank(
        taxonomy, LeakChecker(taxonomy), {"verb": {0: "motion"}, "noun": {0: "metal"}}
    )
    assert all("motion" in question for question in bank.paraphrases("verb", 0))
    assert len(bank.paraphrases("noun", 1)) >= 4
    for key in map(str, range(20)):
        pair = bank.pair(1, 0, key)
        assert "metal" in pair.noun
        # A frame that names a class of a foreign taxonomy is masked there.
        assert bank.checker.leaks(pair, 1, 0) == []


def test_what_was_seen_is_told_in_order_and_the_latest_alone():
    bank = QuestionBank(SMALL)
    pair = bank.after([(0, 2), (1, 3), (2, 1)], last=2)
    for question in (pair.verb, pair.noun):
        assert question.startswith("So far: turn on tap, then cut chopping board. ")
    assert bank.after([]) == bank.generic() == GENERIC


def test_only_oracle_questions_are_oracle():
    assert [mode.value for mode in QuestionMode if mode.is_oracle] == ["oracle"]
    assert len({mode.sentence for mode in QuestionMode}) == 4
