"""The list of tasks, and what other packages need to know of one without importing its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of a task before its code is imported.

    ``folder`` is its place in ``tasks/``. It ``reads`` texts or images. What it ``answers`` is a
    label (or several, or a number) for each row, a tag for each token, or a generated text.
    ``pipeline`` is what Transformers and the hub call such a model: it decides which class loads
    it. ``rows`` is the form of rows from which the task is inferred; ``None`` for a task that must
    be named. ``labelled_texts``: all of ``tasks/classes`` applies to it. Its rows can be mixed from
    sources, have extra feature columns and be cross-fitted, and its probes and canaries are those
    of labelled texts.
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
    """What Transformers calls a model of the task; the task's own name if it is unknown here."""
    return TASKS[task].pipeline if task in TASKS else task
