"""What a language model is told, in two stages: describe the action, then ask for its halves.

The stages are those of MambaVL, section 4.1; the wording is our own, for the published one is a
picture.
"""

import json
from collections.abc import Sequence

from actioncast.questions.leaks import Head

VERSION = 1
"""Changes with the wording: questions of two wordings do not go into one file."""
Message = dict[str, str]
"""`role` and `content`, as chat endpoints take them."""

_DESCRIBE = """\
You describe what a person does in a kitchen, seen by a camera on their head. From a note of a few \
words you write two sentences in plain English: what the hands do, with what, how it looks, and \
what it is probably for. Stay with what the note says or what is almost certain from it. Add no \
names, no feelings and no story. Answer with the two sentences alone."""
_ASK = """\
You write riddles for a guessing game about short kitchen videos. Somebody will see the video and \
your two questions and must guess one verb and one noun. The first question asks for the verb: it \
hints at what the action is for, or at what changes through it. The second asks for the noun: it \
hints at what the object is for, what it looks like, or where it is found.
Rules:
- One sentence each, at most 25 words, ending with a question mark.
- The verb, its other forms and its synonyms must not stand in the verb question.
- The noun, its other forms and its synonyms must not stand in the noun question.
- Each question can be answered with a single word.
Answer with JSON alone, without a code fence: {"verb": "...", "noun": "..."}"""


def describe(narration: str, verb: str, noun: str) -> list[Message]:
    """Ask for a description of an action.

    Args:
        narration: What was said of it; empty, verb and noun stand for it.
        verb: Its class, as one says it.
        noun: Its class, as one says it.
    """
    note = narration.strip() or f"{verb} {noun}"
    return [
        {"role": "system", "content": _DESCRIBE},
        {"role": "user", "content": f"Note: {note}"},
    ]


def ask(verb: str, noun: str, description: str) -> list[Message]:
    """Ask for two questions about a described action."""
    facts = json.dumps(
        {"verb": verb, "noun": noun, "description": description.strip()}, ensure_ascii=False
    )
    return [{"role": "system", "content": _ASK}, {"role": "user", "content": facts}]


def ask_again(
    messages: Sequence[Message], answer: str, wrong: str, leaks: Sequence[tuple[Head, str]] = ()
) -> list[Message]:
    """Ask once more, saying what was wrong with the answer."""
    said = [f"the {head} question must not contain {word!r}" for head, word in leaks]
    complaint = "; ".join([wrong, *said] if wrong else said)
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"Not yet: {complaint}. Answer with corrected JSON alone."},
    ]
