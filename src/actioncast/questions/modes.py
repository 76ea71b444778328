"""Where the questions of a run come from, which its passport must say."""

from enum import StrEnum


class QuestionMode(StrEnum):
    """Whose actions the questions are about."""

    ORACLE = "oracle"
    PREDICTED = "predicted"
    GENERIC = "generic"
    NONE = "none"

    @property
    def is_oracle(self) -> bool:
        """Whether the questions know the answer, so that a score with them is no recognition."""
        return self is QuestionMode.ORACLE

    @property
    def sentence(self) -> str:
        """What a passport says of it."""
        return SENTENCES[self]


SENTENCES = {
    QuestionMode.ORACLE: (
        "questions made from each sample's own annotation: they hint at the answer, which a camera "
        "alone does not give"
    ),
    QuestionMode.PREDICTED: (
        "questions made from actions that were recognised or observed before, without the sample's "
        "own annotation"
    ),
    QuestionMode.GENERIC: "the same two questions for every sample: they hint at nothing",
    QuestionMode.NONE: "no questions",
}
"""By mode."""
