"""A question that names its answer, in whatever form, is found; one that does not, is not."""

import pytest
from epic_classes import SMALL, SYNONYMS, small_checker
from hypothesis import given
from hypothesis import strategies as st

from actioncast.questions import MASK, LeakChecker, QuestionPair
from actioncast.questions.inflection import noun_forms, verb_forms
from actioncast.questions.leaks import spoken
from actioncast.timeline import LabelSpace, Taxonomy

WORDS = (
    *sorted(verb_forms("take") | noun_forms("knife") | {"pull", "off", "cast", "iron"}),
    *("bread", "of", "the", "<MASK>", ".", "company", "it"),
)
TAKE, TURN_ON, CUT, PICK_UP = range(4)
KNIFE, BOARD, PAN, TAP, WATER = range(5)


@pytest.mark.parametrize(
    ("text", "head", "label", "masked"),
    [
        ("What was taken?", "verb", TAKE, "What was <MASK>?"),
        ("Taking it, what then?", "verb", TAKE, "<MASK> it, what then?"),
        ("Who TOOK it?", "verb", TAKE, "Who <MASK> it?"),
        ("Who gets it, fetching more?", "verb", TAKE, "Who <MASK> it, <MASK> more?"),
        ("It is pulled quickly off.", "verb", TAKE, "It is <MASK> quickly <MASK>."),
        ("Turning the big tap on?", "verb", TURN_ON, "<MASK> the big tap <MASK>?"),
        ("Is it turned around?", "verb", TURN_ON, "Is it <MASK> around?"),
        ("It is picked up there.", "verb", PICK_UP, "It is <MASK> there."),
        ("Picking it up?", "verb", PICK_UP, "<MASK> it <MASK>?"),
        ("A pick-up", "verb", PICK_UP, "A <MASK>"),
        ("slicing_bread", "verb", CUT, "<MASK>_bread"),
        ("Two knives?", "noun", KNIFE, "Two <MASK>?"),
        ("The knife's edge", "noun", KNIFE, "The <MASK>'s edge"),
        ("Is it the 'knife'?", "noun", KNIFE, "Is it the '<MASK>'?"),
        ("bread knives", "noun", KNIFE, "<MASK>"),
        ("The knife for the bread is it.", "noun", KNIFE, "The <MASK> is it."),
        ("On the side of the plate", "noun", KNIFE, "On the <MASK>"),
        ("Two chopping boards", "noun", BOARD, "Two <MASK>"),
        ("A board for chopping", "noun", BOARD, "A <MASK>"),
        ("On board", "noun", BOARD, "On <MASK>"),
        ("Of cast iron?", "noun", PAN, "Of <MASK>?"),
        ("Watered down", "noun", WATER, "<MASK> down"),
    ],
)
def test_an_answer_is_found_and_masked(text, head, label, masked):
    assert small_checker().mask(text, head, label) == masked


@pytest.mark.parametrize(
    ("text", "head", "label"),
    [
        ("In company of a panda, a panel and Japan", "noun", PAN),
        ("Iron is cast. Is it hot?", "noun", PAN),
        ("Don't, can't, t", "noun", PAN),
        ("A side dish on a plate", "noun", KNIFE),
        ("For chopping vegetables", "noun", BOARD),
        ("Mistaken partake", "verb", TAKE),
        ("The skin is pulled. Off it comes.", "verb", TAKE),
        ("pull one two three four off", "verb", TAKE),
        ("It is chopped", "verb", CUT),
        ("On it goes", "verb", TURN_ON),
        ("Tapping teaches", "verb", TAKE),
        ("<MASK> and <mask>", "noun", PAN),
    ],
)
def test_what_only_looks_alike_is_left(text, head, label):
    assert small_checker().find(text, head, label) == []
    assert small_checker().mask(text, head, label) == text


def test_a_class_called_mask_does_not_find_masks():
    taxonomy = Taxonomy({"verb": LabelSpace(("take",)), "noun": LabelSpace(("mask",))}, "verb")
    checker = LeakChecker(taxonomy)
    assert checker.mask("The mask is <MASK>", "noun", 0) == "The <MASK> is <MASK>"
    assert len(checker.find("The mask is <MASK>", "noun", 0)) == 1


def test_each_question_must_be_silent_about_its_own_answer_alone():
    pair = QuestionPair(verb="Who takes the knife?", noun="What is taken, which blade?")
    checker = small_checker()
    assert checker.leaks(pair, TAKE, KNIFE) == [("verb", "takes"), ("noun", "blade")]
    assert pair.masked(checker, TAKE, KNIFE) == QuestionPair(
        verb="Who takes the <MASK>?", noun="What is <MASK>, which blade?"
    )
    assert pair.without_answers(checker, TAKE, KNIFE) == QuestionPair(
        verb="Who <MASK> the knife?", noun="What is taken, which <MASK>?"
    )


def test_a_name_is_said_as_one_speaks():
    assert spoken("verb", "turn-on") == "turn on"
    assert spoken("noun", "board:chopping") == "chopping board"
    assert spoken("noun", "machine:sous:vide") == "sous vide machine"
    assert spoken("noun", "ice cream") == "ice cream"


@given(
    st.lists(st.sampled_from(WORDS), max_size=12),
    st.sampled_from([("verb", TAKE), ("noun", KNIFE), ("noun", PAN)]),
)
def test_what_is_masked_holds_no_answer(words, answer):
    text = " ".join(words)
    checker = small_checker()
    masked = checker.mask(text, *answer)
    assert checker.find(masked, *answer) == []
    assert checker.mask(masked, *answer) == masked
    # "it" may stand between a verb and its particle, and stays.
    assert all(masked.split().count(w) == words.count(w) for w in ("company", "it"))
    assert (MASK in masked) or not checker.find(text, *answer)


def test_a_taxonomy_without_verbs_and_nouns_is_refused():
    with pytest.raises(ValueError, match="heads verb and noun, got action"):
        LeakChecker(Taxonomy.of(["take knife"]))


def test_synonyms_of_no_class_are_refused():
    with pytest.raises(ValueError, match=r"verb of 0\.\.3, got 7"):
        LeakChecker(SMALL, SYNONYMS | {"verb": {7: ("x",)}})
