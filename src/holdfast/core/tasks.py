"""The tasks: a line each, and what other packages ask of one without importing its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of a task before its code is imported; nothing else is asked by its name.

    ``folder`` is its place in ``tasks/``. It ``reads`` texts or pictures. What it ``answers`` is a
    label (or several, or a number) for each row, a tag for each token, or a text that a model
    generates. ``pipeline`` is what Transformers and the hub call such a model: it says which plain
    class loads it. ``rows`` is the form of rows from which the task is worked out where nobody
    names it; ``None`` for one that must be named. ``labelled_texts`` says that all of
    ``tasks/classes`` is true of it: its rows can be mixed from sources, have columns beside the
    text and be cross-fitted, and its probes and canaries are those of texts with a label.
    """

    folder: str
    reads: Literal["text", "pictures"]
    answers: Literal["label", "tags", "text"]
    pipeline: str
    rows: Literal["classes", "tags", "pair", "text", "pictures"] | None = None
    labelled_texts: bool = False


TASKS = {
    "text-classification": TaskFacts(
        "classes", "text", "label", "text-classification", "classes", labelled_texts=True
    ),
    "token-classification": TaskFacts("tags", "text", "tags", "token-classification", "tags"),
    "seq2seq": TaskFacts("seq2seq", "text", "text", "text2text-generation", "pair"),
    "causal-lm": TaskFacts("lm", "text", "text", "text-generation", "text"),
    "image-classification": TaskFacts(
        "images", "pictures", "label", "image-classification", "pictures"
    ),
}
CLASSIFICATION_TASKS = tuple(name for name, one in TASKS.items() if one.answers == "label")
TAGGING_TASKS = tuple(name for name, one in TASKS.items() if one.answers == "tags")
GENERATIVE_TASKS = tuple(name for name, one in TASKS.items() if one.answers == "text")
IMAGE_TASKS = tuple(name for name, one in TASKS.items() if one.reads == "pictures")
# Texts whose words may be changed: tags belong to words as they stand.
TEXT_TASKS = tuple(name for name in TASKS if name not in (*TAGGING_TASKS, *IMAGE_TASKS))
LABELLED_TEXT_TASKS = tuple(name for name, one in TASKS.items() if one.labelled_texts)
DECODER_TASKS = tuple(name for name, one in TASKS.items() if one.pipeline == "text-generation")
ENCODER_DECODER_TASKS = tuple(
    name for name, one in TASKS.items() if one.pipeline == "text2text-generation"
)


def pipeline_name(task: str) -> str:
    """What Transformers calls a model of the task; its own name where it is not known here."""
    return TASKS[task].pipeline if task in TASKS else task
