"""Questions without a language model: a clue for every class, set into sentences.

The clues of the 97 verbs and 300 nouns of EPIC-KITCHENS-100 come with the package. Another
taxonomy is described by the categories of its classes, if it has any.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

from actioncast.questions.leaks import Head, LeakChecker, QuestionPair, spoken
from actioncast.timeline import Taxonomy

MENTION = "{other}"
"""Where a paraphrase names the other half of the action, before that is masked."""
VERB_FRAMES = (
    "What does the person do in order to {clue}?",
    "Which verb means to {clue}?",
    "What is done to the {other} when the intention is to {clue}?",
    "Which action with the {other} would {clue}?",
    "If somebody wants to {clue}, what happens to the {other}?",
    "What is the aim of the person: to {clue}. Which action is it?",
)
"""The clue is an infinitive."""
NOUN_FRAMES = (
    "What is {clue} called?",
    "Which thing is meant by this description: {clue}?",
    "What does the person interact with, if it is {clue}?",
    "What does somebody {other} here, when it is described as {clue}?",
    "The action is to {other} something: {clue}. What is it?",
    "Which object would one {other}, if it is {clue}?",
)
"""The clue is a noun with its article."""
GENERIC = QuestionPair(
    verb="What is the person doing?", noun="Which object is the person doing it with?"
)
"""The questions of everybody."""
UNKNOWN: Mapping[Head, tuple[str, ...]] = {
    "verb": (
        "What does the person do?",
        "Which action is it?",
        "What is done to the {other}?",
        "Which action with the {other} is meant?",
    ),
    "noun": (
        "What does the person interact with?",
        "Which thing is meant?",
        "What does somebody {other} here?",
        "Which object would one {other}?",
    ),
}
"""Of a class of which nothing is known."""
CATEGORY: Mapping[Head, tuple[str, ...]] = {
    "verb": (
        "Which action of the kind {clue} is it?",
        "What does the person do, if its kind is {clue}?",
        "What is done to the {other}, by an action of the kind {clue}?",
        "Which action with the {other} belongs to the kind {clue}?",
    ),
    "noun": (
        "Which thing of the kind {clue} is meant?",
        "What does the person interact with, if its kind is {clue}?",
        "What does somebody {other} here, of the kind {clue}?",
        "Which object would one {other}, if its kind is {clue}?",
    ),
}
"""Of a class of which the category is known alone."""
AFTER = (
    ("What will the person do next?", "Which object comes next?"),
    ("Which action follows?", "To which thing does the person turn?"),
    ("What is done after that?", "What does the person interact with after that?"),
    ("Which verb describes the next action?", "Which noun describes the next object?"),
)
"""What is asked once the observed actions are told."""


@cache
def clues(head: Head) -> Mapping[str, str]:
    """The clue of every class of EPIC-KITCHENS-100, by its name."""
    text = files("actioncast.questions").joinpath(f"clues_{head}.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t", 1) for line in text.splitlines())


def chosen(options: int, *about: object) -> int:
    """A number below `options` that depends on what it is about alone, the same everywhere."""
    digest = hashlib.sha256("\x1f".join(str(item) for item in about).encode()).digest()
    return int.from_bytes(digest[:8], "big") % options


class QuestionBank:
    """The template questions of a taxonomy."""

    def __init__(
        self,
        taxonomy: Taxonomy,
        checker: LeakChecker | None = None,
        categories: Mapping[str, Mapping[int, str]] | None = None,
        seed: int = 0,
    ) -> None:
        """Make the paraphrases of every class.

        Args:
            taxonomy: With the heads verb and noun.
            checker: Says what must be masked; absent, the names of the classes alone.
            categories: By head and label its broader kind, for classes without a clue.
            seed: Which paraphrase each action gets.

        Raises:
            ValueError: A head is absent.
        """
        self.checker = LeakChecker(taxonomy) if checker is None else checker
        self.seed = seed
        self._paraphrases: dict[Head, list[tuple[str, ...]]] = {}
        for head, names in self.checker.names.items():
            kinds = (categories or {}).get(head, {})
            self._paraphrases[head] = [
                _sentences(head, name, kinds.get(i, "")) for i, name in enumerate(names)
            ]

    def paraphrases(self, head: Head, label: int) -> tuple[str, ...]:
        """All questions whose answer is this class; `{other}` stands where some name the other."""
        return self._paraphrases[head][label]

    def pair(self, verb: int, noun: int, key: str = "") -> QuestionPair:
        """Two questions about an action, masked.

        The seed, the two classes and the key, such as the id of the clip, choose the paraphrases.
        """
        names = self.checker.names
        said: dict[Head, str] = {
            "verb": spoken("noun", names["noun"][noun]),
            "noun": spoken("verb", names["verb"][verb]),
        }
        labels: dict[Head, int] = {"verb": verb, "noun": noun}
        asked: dict[Head, str] = {}
        for head, label in labels.items():
            options = self._paraphrases[head][label]
            about = (self.seed, head, names["verb"][verb], names["noun"][noun], key)
            asked[head] = options[chosen(len(options), *about)].replace(MENTION, said[head])
        pair = QuestionPair(verb=asked["verb"], noun=asked["noun"])
        pair = pair.masked(self.checker, verb, noun)
        # The frames of a foreign taxonomy may name a class of it; those of EPIC-KITCHENS do not.
        return pair.without_answers(self.checker, verb, noun)

    def after(
        self, actions: Sequence[tuple[int, int]], key: str = "", last: int = 3
    ) -> QuestionPair:
        """Two questions about what comes next, which recount the last observed actions.

        Nothing is masked: the answer is not known to whoever asks. Without actions they are the
        generic ones.

        Args:
            actions: Verb and noun of every observed action, the latest last.
            key: Chooses the paraphrase, with the seed and the actions.
            last: How many of them are recounted.
        """
        if not actions or last < 1:
            return GENERIC
        told = [self._told(verb, noun) for verb, noun in actions[-last:]]
        verb, noun = AFTER[chosen(len(AFTER), self.seed, key, *told)]
        before = f"So far: {', then '.join(told)}."
        return QuestionPair(verb=f"{before} {verb}", noun=f"{before} {noun}")

    def generic(self) -> QuestionPair:
        """The questions of everybody, whatever they do."""
        return GENERIC

    def _told(self, verb: int, noun: int) -> str:
        names = self.checker.names
        return f"{spoken('verb', names['verb'][verb])} {spoken('noun', names['noun'][noun])}"


def _sentences(head: Head, name: str, category: str) -> tuple[str, ...]:
    clue = clues(head).get(name)
    frames: Iterable[str] = VERB_FRAMES if head == "verb" else NOUN_FRAMES
    if clue is None:
        clue, frames = (category, CATEGORY[head]) if category else ("", UNKNOWN[head])
    return tuple(frame.replace("{clue}", clue) for frame in frames)
