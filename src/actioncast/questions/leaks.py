"""What gives an answer away: its name, its synonyms, and all their inflections.

What counts as the answer, for a class and for each of its synonyms:

- A single word counts in all its forms: take, takes, taking, took, taken; knife, knives.
- Of a class whose name has several parts, the first part counts alone too: the board of
  `board:chopping`, the turn of `turn-on`. The others do not: the coffee of `maker:coffee` is
  another thing.
- Of a synonym of several parts only the whole counts, for its first part is often another thing
  or action: the side of `side:plate`, the remove of `remove-on`.
- Nouns of several parts are found in the order of the list (head first), with the head last and
  reversed, with or without of, the and the like between: wooden spoon, cast iron, piece of plastic.
- Verbs of several parts may have up to three words between: pick up, picking it up.
- Single letters count for nothing.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actioncast.questions.inflection import noun_forms, verb_forms
from actioncast.timeline import Taxonomy

MASK = "<MASK>"
FILLERS = frozenset(("of", "the", "a", "an", "for", "with", "in", "from"))
"""What may stand between the parts of a noun."""
GAP = 3
"""Words that may stand between a verb and its particle."""
TOKEN = re.compile(r"<MASK>|[^\W_]+(?:['\u2019](?!s\b)[^\W_]+)*", re.IGNORECASE)
"""A word; don't is one, knife's is the word knife, stir-fry and stir_fry are two."""
BREAK = re.compile(r"[.?!;:]")
"""Where a phrase ends."""
Head = Literal["verb", "noun"]
Synonyms = Mapping[str, Mapping[int, Sequence[str]]]
"""By head and label: `take-from` of the verb take, `spoon:wooden` of the noun spoon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPair:
    """Two questions about one action."""

    verb: str
    """The question whose answer is the verb."""
    noun: str
    """The question whose answer is the noun."""

    def masked(self, checker: "LeakChecker", verb: int, noun: int) -> "QuestionPair":
        """The pair in which neither question names the answer of the other."""
        return QuestionPair(
            verb=checker.mask(self.verb, "noun", noun), noun=checker.mask(self.noun, "verb", verb)
        )

    def without_answers(self, checker: "LeakChecker", verb: int, noun: int) -> "QuestionPair":
        """The pair in which neither question names its own answer."""
        return QuestionPair(
            verb=checker.mask(self.verb, "verb", verb), noun=checker.mask(self.noun, "noun", noun)
        )


def plain(text: str) -> str:
    """A text without signs that nobody sees and with letters as they are typed.

    Between invisible signs, or in letters of full width, an answer would pass for another word.
    """
    shown = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in shown if unicodedata.category(sign) != "Cf").strip()


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a text: lower-cased, and where it stands."""

    word: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Found:
    """A place that names an answer: one span, or two where other words stand in between."""

    spans: tuple[tuple[int, int], ...]

    def text(self, of: str) -> str:
        """The words, as they stand there."""
        return of[self.spans[0][0] : self.spans[-1][1]]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Several words in order, each in any of its forms."""

    parts: tuple[frozenset[str], ...]
    fillers: frozenset[str] | None
    """What may stand in between; anything, where None."""

    def at(self, text: str, tokens: Sequence[Token], first: int) -> Found | None:
        """The phrase, if it starts at this token."""
        if tokens[first].word not in self.parts[0]:
            return None
        places = [first]
        for part in self.parts[1:]:
            between, i = 0, places[-1] + 1
            while i < len(tokens) and not BREAK.search(text, tokens[i - 1].stop, tokens[i].start):
                if tokens[i].word in part:
                    places.append(i)
                    break
                between += 1
                allowed = self.fillers is None or tokens[i].word in self.fillers
                if between > GAP or not allowed:
                    return None
                i += 1
            else:
                return None
        if self.fillers is not None or places[-1] - places[0] + 1 == len(places):
            return Found(((tokens[places[0]].start, tokens[places[-1]].stop),))
        return Found(tuple((tokens[i].start, tokens[i].stop) for i in places))


@dataclass(slots=True)
class Answer:
    """All that names one class."""

    words: set[str] = field(default_factory=set)
    phrases: dict[str, list[Phrase]] = field(default_factory=dict)
    """By every form of their first word; the longest first."""

    def add(self, phrase: Phrase) -> None:
        """Count a phrase too."""
        for form in phrase.parts[0]:
            known = self.phrases.setdefault(form, [])
            known.append(phrase)
            known.sort(key=lambda p: -len(p.parts))


def parts(name: str) -> tuple[str, ...]:
    """The words of a class name: board, chopping of `board:chopping`."""
    return tuple(token.word for token in _tokens(name))


def spoken(head: Head, name: str) -> str:
    """A class name as one says it: turn on, chopping board."""
    words = parts(name)
    return " ".join(words[1:] + words[:1] if head == "noun" and ":" in name else words)


def _tokens(text: str) -> list[Token]:
    return [Token(m.group().lower(), m.start(), m.end()) for m in TOKEN.finditer(text)]


def _answer(head: Head, name: str, synonyms: Iterable[str]) -> Answer:
    found = Answer()
    forms = verb_forms if head == "verb" else noun_forms
    for term, is_name in [(name, True), *((synonym, False) for synonym in synonyms)]:
        words = parts(term)
        if words and (is_name or len(words) == 1) and len(words[0]) > 1:
            found.words |= forms(words[0])
        if len(words) < 2:
            continue
        if head == "verb":
            particles = tuple(frozenset({word}) for word in words[1:])
            found.add(Phrase((verb_forms(words[0]), *particles), None))
        else:
            for order in {words, words[1:] + words[:1], words[::-1]}:
                found.add(Phrase(tuple(noun_forms(word) for word in order), FILLERS))
    return found


class LeakChecker:
    """Finds and masks what names a verb or a noun of a taxonomy."""

    def __init__(self, taxonomy: Taxonomy, synonyms: Synonyms | None = None) -> None:
        """Read the names of the heads verb and noun.

        Args:
            taxonomy: Whose classes are the answers.
            synonyms: What else each class is called; absent, the names alone count.

        Raises:
            ValueError: A head is absent, or a synonym is of no class.
        """
        self.names: dict[Head, tuple[str, ...]] = {}
        self._answers: dict[Head, list[Answer]] = {}
        heads: tuple[Head, ...] = ("verb", "noun")
        for head in heads:
            if head not in taxonomy.heads:
                raise ValueError(
                    f"questions need a taxonomy with the heads verb and noun, got "
                    f"{', '.join(taxonomy.heads)}."
                )
            names = taxonomy.heads[head].names
            listed = (synonyms or {}).get(head, {})
            if unknown := [label for label in listed if not 0 <= label < len(names)]:
                raise ValueError(
                    f"synonyms must be of a {head} of 0..{len(names) - 1}, got {unknown[0]}; read "
                    "them from the class file of the same release."
                )
            self.names[head] = names
            self._answers[head] = [
                _answer(head, name, listed.get(i, ())) for i, name in enumerate(names)
            ]

    def find(self, text: str, head: Head, label: int) -> list[Found]:
        """Every place of a text that names the answer, from left to right, none twice."""
        answer = self._answers[head][label]
        tokens = _tokens(text)
        found: list[Found] = []
        done = 0
        for i, token in enumerate(tokens):
            if token.start < done or token.word == MASK.lower():
                continue
            hit = next(
                (
                    hit
                    for phrase in answer.phrases.get(token.word, ())
                    if (hit := phrase.at(text, tokens, i)) is not None
                ),
                None,
            )
            if hit is None and token.word in answer.words:
                hit = Found(((token.start, token.stop),))
            if hit is not None:
                found.append(hit)
                # What stands between a verb and its particle may name it once more.
                done = hit.spans[0][1]
        return found

    def leaks(self, pair: QuestionPair, verb: int, noun: int) -> list[tuple[Head, str]]:
        """Where a question names its own answer: which question, and the words."""
        verbs: list[tuple[Head, str]] = [
            ("verb", hit.text(pair.verb)) for hit in self.find(pair.verb, "verb", verb)
        ]
        nouns: list[tuple[Head, str]] = [
            ("noun", hit.text(pair.noun)) for hit in self.find(pair.noun, "noun", noun)
        ]
        return [*verbs, *nouns]

    def mask(self, text: str, head: Head, label: int) -> str:
        """The text with `<MASK>` for all that names the answer."""
        spans = sorted({span for hit in self.find(text, head, label) for span in hit.spans})
        for start, stop in reversed(spans):
            text = f"{text[:start]}{MASK}{text[stop:]}"
        return text
