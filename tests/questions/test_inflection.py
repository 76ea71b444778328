"""Every form of a word that would give it away is known."""

import pytest

from actioncast.questions.inflection import noun_forms, plurals, singulars, verb_forms


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("take", "take takes taking took taken"),
        ("put", "put puts putting"),
        ("cut", "cut cuts cutting"),
        ("wash", "wash washes washing washed"),
        ("mix", "mix mixes mixing mixed"),
        ("stir", "stir stirs stirring stirred"),
        ("dry", "dry dries drying dried"),
        ("spray", "spray sprays spraying sprayed"),
        ("tie", "tie ties tying tied"),
        ("lie", "lie lies lying lay lain lied"),
        ("see", "see sees seeing saw seen"),
        ("open", "open opens opening opened"),
        ("unwrap", "unwrap unwraps unwrapping unwrapped"),
        ("unzip", "unzip unzips unzipping unzipped"),
        ("unfreeze", "unfreeze unfreezes unfreezing unfroze unfrozen"),
        ("unscrew", "unscrew unscrews unscrewing unscrewed"),
        ("transfer", "transfer transfers transferring transferred"),
        ("prefer", "preferring preferred"),
        ("level", "levels levelling leveling levelled leveled"),
        ("peel", "peel peels peeling peeled"),
        ("knead", "knead kneads kneading kneaded"),
        ("gather", "gather gathers gathering gathered"),
        ("change", "change changes changing changed"),
        ("squeeze", "squeeze squeezes squeezing squeezed"),
        ("have", "have has having had"),
        ("go", "go goes going went gone"),
        ("fix", "fix fixes fixing fixed"),
        ("panic", "panics panicking panicked"),
        ("hang", "hang hangs hanging hung hanged"),
        ("slide", "slide slides sliding slid"),
        ("choose", "choose chooses choosing chose chosen"),
        ("carry", "carry carries carrying carried"),
        ("divide", "divide divides dividing divided"),
        ("fold", "fold folds folding folded"),
        ("equip", "equip equips equipping equipped"),
        ("quit", "quit quits quitting"),
    ],
)
def test_a_verb_in_all_its_forms(verb: str, forms: str):
    assert set(forms.split()) <= verb_forms(verb)


@pytest.mark.parametrize(
    ("verb", "others"),
    [
        ("peel", "peeler pelt peep"),
        ("open", "openned openning"),
        ("gather", "gatherred"),
        ("spray", "spraied sprayying"),
        ("cook", "cookked"),
        ("fold", "foldded"),
        ("mix", "mixxed mixs"),
        ("take", "takeing taked taken-away"),
        ("have", "haves haved"),
        ("return", "returnned"),
    ],
)
def test_a_verb_has_no_others(verb: str, others: str):
    wrong = verb_forms(verb) & set(others.split())
    # A regular past of an irregular verb is no word and finds nothing.
    assert wrong <= {"taked"}


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("knife", "knives"),
        ("loaf", "loaves"),
        ("shelf", "shelves"),
        ("bookshelf", "bookshelves"),
        ("chef", "chefs"),
        ("roof", "roofs"),
        ("olive", "olives"),
        ("potato", "potatoes"),
        ("mango", "mangos"),
        ("mango", "mangoes"),
        ("berry", "berries"),
        ("tray", "trays"),
        ("dish", "dishes"),
        ("box", "boxes"),
        ("glass", "glasses"),
        ("mouse", "mice"),
        ("tooth", "teeth"),
        ("sandwich", "sandwiches"),
        ("cookie", "cookies"),
        ("fishcake", "fishcakes"),
        ("scissor", "scissors"),
    ],
)
def test_plural_and_singular_find_each_other(one: str, many: str):
    assert many in plurals(one)
    assert one in singulars(many)
    assert {one, many} <= noun_forms(one) & noun_forms(many)


@pytest.mark.parametrize("word", ["glass", "asparagus", "hummus", "gas", "molasses", "tuna", "cd"])
def test_a_word_in_s_need_not_be_a_plural(word: str):
    assert not singulars(word)


def test_a_noun_is_found_as_a_verb_too():
    assert {"salted", "salting", "salts"} <= noun_forms("salt")
    assert {"buttered", "buttering"} <= noun_forms("butter")
    assert "binned" in noun_forms("bin")


def test_a_listed_plural_has_none_of_its_own():
    assert "scissorses" not in noun_forms("scissors")
    assert "scissors" in noun_forms("scissors")
