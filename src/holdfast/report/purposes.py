"""The intended use and limits of a model, for its card and the report: one entry for each pipeline
of Transformers or problem of text classification."""

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
    """``use`` is a sentence with placeholders: THINGS for the rows, DATA for the source, COUNT for
    the number of classes, NAMES for their names. ``limits`` are sentences. ``example`` is code
    after the import of ``pipeline``, with FOLDER for the model, HOW for arguments and CUT for
    truncation; empty for generative models."""

    use: str
    limits: tuple[str, ...]
    example: str = TEXTS
    things: str = "texts"


SORTED = (
    "Every input gets one of these classes, even if it belongs to none of them.",
    "Confidence is the predicted probability of the predicted class. The calibration error above "
    "says how reliable it is.",
)
CLASSES = Purpose("Classify THINGS like those of DATA into COUNT classesNAMES.", SORTED)
WRITING = Purpose(
    "Generate THINGS like those of DATA.",
    (
        "It may generate false statements and repeat training data: read the texts in the report.",
        "Overlap with the references says little about factual accuracy.",
    ),
    "",
)
PURPOSES = {
    "text2text-generation": WRITING,
    "text-generation": WRITING,
    "regression": Purpose(
        "Predict a number for THINGS like those of DATA.",
        ("Its predictions come without a confidence. The errors above are averages.",),
    ),
    "multi_label_classification": Purpose(
        "Predict which labels apply to THINGS like those of DATANAMES.",
        (
            "It never predicts a label that is not in this list. A label is predicted from a "
            "probability of 0.5.",
        ),
    ),
    "token-classification": Purpose(
        "Tag the words of THINGS like those of DATANAMES.",
        (
            "It never finds an entity type that is not in this list.",
            "Words beyond the model's maximum length are not read and get the tag O.",
        ),
        'tag = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")\n'
        'tag("Anna lives in Oslo .")',
    ),
    "image-classification": Purpose(
        CLASSES.use,
        SORTED,
        'classify = pipeline("image-classification", model="FOLDER")\nclassify("image.png")',
        "images",
    ),
}


def purpose_of(result: Mapping[str, object]) -> Purpose:
    """The purpose by the problem in ``result.json``, else by the task."""
    # The problem is more specific: text classification has three.
    problem, task = (str(result.get(name) or "") for name in ("problem", "task"))
    return PURPOSES.get(problem) or PURPOSES.get(pipeline_name(task)) or CLASSES
