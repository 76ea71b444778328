"""Questions about actions: templates, files, language models, and the check that none says all."""

from actioncast.questions.leaks import MASK, LeakChecker, QuestionPair, Synonyms
from actioncast.questions.modes import QuestionMode
from actioncast.questions.question_files import QuestionFile, read_questions, write_questions
from actioncast.questions.templates import QuestionBank

__all__ = [
    "MASK",
    "LeakChecker",
    "QuestionBank",
    "QuestionFile",
    "QuestionMode",
    "QuestionPair",
    "Synonyms",
    "read_questions",
    "write_questions",
]
