"""What a model is for, in the words of its card and of the report: one entry a
pipeline of Transformers, or a problem of text classification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.core.tasks import pipeline_name

TEXTS = (
    'classify = pipeline("text-classification", model="FOLDER"HOW)\n'
    'classify(["A text to classify."]CUT)'
)


@dataclass(frozen=True, slots=True)
class Purpose:
    """``use`` is a sentence, in which THINGS are the rows, DATA where they came from, COUNT how
    many classes there are and NAMES which; ``limits`` are sentences. ``example`` are lines of plain
    Transformers behind an import of ``pipeline``, with the FOLDER of the model, HOW its outputs
    are read and where texts are CUT; empty where a text is written."""

    use: str
    limits: tuple[str, ...]
    example: str = TEXTS
    things: str = "texts"


SORTED = (
    "Every one is put into one of these classes, also one that belongs to none.",
    "Its confidence is the model's own. The calibration error above says how far it can be "
    "trusted.",
)
CLASSES = Purpose("Sorting THINGS like those of DATA into COUNT classesNAMES.", SORTED)
WRITING = Purpose(
    "Writing THINGS like those of DATA.",
    (
        "It may write what is false, and repeat what it learned: look at the texts in the report.",
        "The overlap with references says little about truth.",
    ),
    "",
)
PURPOSES = {
    "text2text-generation": WRITING,
    "text-generation": WRITING,
    "regression": Purpose(
        "Giving a number to THINGS like those of DATA.",
        ("Its numbers say nothing of how sure it is; the errors above do, on average.",),
    ),
    "multi_label_classification": Purpose(
        "Saying which labels hold for THINGS like those of DATANAMES.",
        (
            "A label that is not among these is never given. A label holds from a probability of "
            "0.5.",
        ),
    ),
    "token-classification": Purpose(
        "Tagging the words of THINGS like those of DATANAMES.",
        (
            "A type of entity that is not among these is never found.",
            "A word beyond the model's length gets the tag O without being read.",
        ),
        'tag = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")\n'
        'tag("Anna lives in Oslo .")',
    ),
    "image-classification": Purpose(
        CLASSES.use,
        SORTED,
        'classify = pipeline("image-classification", model="FOLDER")\nclassify("picture.png")',
        "pictures",
    ),
}


def purpose_of(result: Mapping[str, object]) -> Purpose:
    """By the problem in ``result.json`` where it names one, else by its task."""
    # A problem says more than its task: text classification has three.
    problem, task = (str(result.get(name) or "") for name in ("problem", "task"))
    return PURPOSES.get(problem) or PURPOSES.get(pipeline_name(task)) or CLASSES
