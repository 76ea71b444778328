"""English inflection: every form that a verb or a noun takes in a sentence.

Made for finding words, not for writing them: where spelling differs (levelled, leveled) or the
ending is unsure, all candidates are returned. A word that does not exist finds nothing.
"""

from collections.abc import Iterable
from functools import cache

from actioncast.questions.irregular_words import (
    COMPOUNDED,
    PLURALS,
    SINGULARS,
    STRESSED,
    VERBS,
)

VOWELS = frozenset("aeiou")
PREFIXES = ("un", "re", "over", "under", "out", "mis", "up", "pre", "de")
"""What may stand before an irregular verb: unfreeze, rewind, overhang."""


def _syllables(word: str) -> int:
    marks = "".join("v" if c in VOWELS or (c == "y" and i) else "c" for i, c in enumerate(word))
    return sum(1 for run in marks.split("c") if run)


def _doubles(word: str) -> bool:
    """Whether the last consonant doubles before -ed and -ing: stop, stopped."""
    plain = word.replace("qu", "qw")
    if len(plain) < 3 or plain[-1] in VOWELS or plain[-1] in "wxy":
        return False
    if plain[-2] not in VOWELS or plain[-3] in VOWELS:
        return False
    stem = next((plain[len(p) :] for p in PREFIXES if plain.startswith(p)), plain)
    return _syllables(plain) == 1 or _syllables(stem) == 1 or word in STRESSED


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in VOWELS:
        return f"{word[:-1]}ies"
    return f"{word}s"


def _stems(word: str) -> Iterable[tuple[str, str]]:
    """The spellings to which -ed and -ing are put."""
    if word.endswith("ie"):
        yield word, f"{word[:-2]}y"
    elif word.endswith(("ee", "oe", "ye", "nge")):
        yield word, word
        # Singe keeps its e, change does not: both are found.
        if word.endswith("nge"):
            yield word, word[:-1]
    elif word.endswith("e"):
        yield word, word[:-1]
    elif word.endswith("y") and word[-2:-1] not in VOWELS:
        yield f"{word[:-1]}ie", word
    elif word.endswith("c") and word[-2:-1] in VOWELS:
        yield f"{word}ke", f"{word}k"
    else:
        double = word + word[-1:]
        if not _doubles(word):
            yield f"{word}e", word
        if _doubles(word) or (word.endswith("l") and word[-2:-1] in VOWELS):
            yield f"{double}e", double
        elif word.endswith(("z", "s", "m")) and word[-2:-1] in VOWELS:
            # Quizzed, bussed, programmed; the plain spelling beside them does no harm.
            yield f"{double}e", double


def regular_verb_forms(word: str) -> frozenset[str]:
    """The word, with -s, with -ed and with -ing: peel, peels, peeled, peeling."""
    forms = {word, _with_s(word)}
    for past, present in _stems(word):
        forms |= {f"{past}d", f"{present}ing"}
    return frozenset(forms)


@cache
def verb_forms(word: str) -> frozenset[str]:
    """All forms of a verb of one word: take, takes, taking, took, taken."""
    forms = set(regular_verb_forms(word))
    for prefix in ("", *PREFIXES):
        base = word.removeprefix(prefix)
        if word.startswith(prefix) and base in VERBS:
            forms |= {prefix + form for form in VERBS[base]}
    if word == "have":
        forms -= {"haves", "haved"}
    return frozenset(forms)


def plurals(word: str) -> frozenset[str]:
    """The plurals of a noun in the singular; several where spelling is unsure."""
    for base, others in PLURALS.items():
        if word == base or (base in COMPOUNDED and word.endswith(base)):
            return frozenset(word.removesuffix(base) + form for form in others)
    forms = {_with_s(word)}
    if word.endswith("o"):
        forms.add(f"{word}s")
    if word.endswith(("sis", "xis")):
        forms.add(f"{word[:-2]}es")
    return frozenset(forms)


def singulars(word: str) -> frozenset[str]:
    """What a noun in the plural may be the plural of; empty where it looks like a singular."""
    for base, others in PLURALS.items():
        for form in others:
            if word == form or (base in COMPOUNDED and word.endswith(form)):
                return frozenset({word.removesuffix(form) + base})
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return frozenset()
    if word in SINGULARS:
        return frozenset()
    found = {word[:-1]}
    if word.endswith("ies"):
        found.add(f"{word[:-3]}y")
    elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        found.add(word[:-2])
    return frozenset(found)


@cache
def noun_forms(word: str) -> frozenset[str]:
    """A noun of one word in singular and plural, and as a regular verb: salt, salts, salted."""
    bases = singulars(word) or {word}
    forms = {form for base in bases for form in plurals(base) | regular_verb_forms(base)}
    return frozenset(forms | {word})
