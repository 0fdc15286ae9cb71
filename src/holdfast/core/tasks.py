"""The tasks: a line each, and what other packages ask of one without importing its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Its ``folder`` in ``tasks/``, what it ``reads``, and what an answer is: a label (or several,
    or a number) for each row, a tag for each token, or a text that a model generates."""

    folder: str
    reads: Literal["text", "pictures"]
    answers: Literal["label", "tags", "text"]


TASKS = {
    "text-classification": TaskFacts("classes", "text", "label"),
    "token-classification": TaskFacts("tags", "text", "tags"),
    "seq2seq": TaskFacts("seq2seq", "text", "text"),
    "causal-lm": TaskFacts("lm", "text", "text"),
    "image-classification": TaskFacts("images", "pictures", "label"),
}
CLASSIFIERS = tuple(name for name, one in TASKS.items() if one.answers == "label")
TAGGERS = tuple(name for name, one in TASKS.items() if one.answers == "tags")
WRITERS = tuple(name for name, one in TASKS.items() if one.answers == "text")
OF_PICTURES = tuple(name for name, one in TASKS.items() if one.reads == "pictures")
