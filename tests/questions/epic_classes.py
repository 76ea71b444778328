"""The classes of EPIC-KITCHENS-100, their synonyms, and a small taxonomy of our own."""

from functools import cache

import pytest

from actioncast.data.epic_kitchens import class_categories, class_synonyms, open_epic_kitchens
from actioncast.questions import LeakChecker, QuestionBank
from actioncast.timeline import LabelSpace, Taxonomy
from real_data import ROOT

SMALL = Taxonomy(
    {
        "verb": LabelSpace(("take", "turn-on", "cut", "pick-up")),
        "noun": LabelSpace(("knife", "board:chopping", "pan", "tap", "water")),
    },
    "verb",
)
SYNONYMS = {
    "verb": {0: ("get", "take-from", "pull-off", "fetch"), 2: ("slice", "chop-up")},
    "noun": {0: ("blade", "knife:bread", "side:plate"), 2: ("iron:cast", "wok", "t")},
}


@cache
def small_checker() -> LeakChecker:
    return LeakChecker(SMALL, SYNONYMS)


@cache
def _epic() -> tuple[Taxonomy, QuestionBank]:
    taxonomy = open_epic_kitchens(ROOT / "epic100").taxonomy
    checker = LeakChecker(taxonomy, class_synonyms(ROOT / "epic100"))
    return taxonomy, QuestionBank(taxonomy, checker, class_categories(ROOT / "epic100"))


def epic() -> tuple[Taxonomy, QuestionBank]:
    """Without the annotation the calling test skips."""
    if not (ROOT / "epic100").is_dir():
        pytest.skip(f"no data set {ROOT / 'epic100'}; set ACTIONCAST_DATA")
    return _epic()
