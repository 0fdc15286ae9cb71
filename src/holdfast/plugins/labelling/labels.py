"""Which labels are valid for a task, and which of several labels for one row counts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError
from holdfast.core.tasks import GENERATIVE_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.labels.spelling import label_key
from holdfast.plugins.store.records import Feedback

LabelType = Literal["class", "several", "number", "tags", "text"]
TYPE_BY_TASK: Mapping[str, LabelType] = {
    **dict.fromkeys(TAGGING_TASKS, "tags"),
    **dict.fromkeys(GENERATIVE_TASKS, "text"),
    **dict.fromkeys(IMAGE_TASKS, "class"),
}
# Maximum characters of a new class, and of a text.
MAX_CLASS_LENGTH, MAX_TEXT_LENGTH = 200, 1_000_000


@dataclass(frozen=True, slots=True)
class LabelRule:
    """The label type, the known classes or tags (``None``: unknown), whether a new class is
    recorded or refused (``allow_new``), and the ``column`` of the tokens that get tags (``None``:
    unknown).

    The served model cannot learn a new class by an update, so collecting it must be a decision.
    """

    label_type: LabelType
    classes: tuple[str, ...] | None = None
    allow_new: bool = False
    column: str | None = None

    def tokens(self, row: Mapping[str, Any]) -> list[str] | None:
        """The tokens of a row that get tags: a list, or the words of a text, as the service reads
        it. Without a known column, those of its first list, else of its first text."""
        cells = list(row.values())
        if self.column is not None and self.column in row:
            cells = [row[self.column]]
        for cell in cells:
            if isinstance(cell, (list, tuple)):
                return [str(one) for one in cell]
        return next((cell.split() for cell in cells if isinstance(cell, str)), None)

    def check(self, label: Any, row: Mapping[str, Any] | None = None) -> Any:
        """The label as it is stored: a class in its known spelling, whatever case and white space
        it came in. Raises ``DataError`` for an invalid label.
        """
        if self.label_type == "class":
            return self._class(label)
        if self.label_type == "several":
            if not isinstance(label, list):
                raise _label_error(
                    "is not a list of classes", label, 'Give a list: ["a", "b"], or [].'
                )
            return list(dict.fromkeys(self._class(one) for one in label))
        if self.label_type == "tags":
            return self._tags(label, row)
        if self.label_type == "number":
            is_number = isinstance(label, (int, float)) and not isinstance(label, bool)
            # A whole number may be too large for a float.
            if not is_number or not abs(label) <= sys.float_info.max:
                raise _label_error("is not a number", label, "Give a finite number.")
            return label
        if not isinstance(label, str) or not label.strip() or len(label) > MAX_TEXT_LENGTH:
            raise _label_error(
                "is not a text", label, "Write the text that the model should have generated."
            )
        return label

    def _class(self, label: Any) -> str:
        is_plain = isinstance(label, (str, int, float)) and not isinstance(label, bool)
        name = str(label).strip() if is_plain else ""
        if not name:
            raise _label_error("is not a class", label, "Give the name of a class.")
        classes = self.classes
        if classes is None or name in classes:
            return name
        alike = [one for one in classes if label_key(one) == label_key(name)]
        if len(alike) == 1:
            return alike[0]
        if self.allow_new and len(name) <= MAX_CLASS_LENGTH:
            return name
        raise _label_error("is not a class of this model", label, suggest_name(name, classes))

    def _tags(self, label: Any, row: Mapping[str, Any] | None) -> list[str]:
        if not isinstance(label, list) or not all(isinstance(one, str) and one for one in label):
            raise _label_error(
                "is not a list of tags", label, 'Give a tag for each token: ["O", …].'
            )
        tokens = self.tokens(row or {})
        if tokens is not None and len(tokens) != len(label):
            rule = f"has {len(label)} tags, and the row has {len(tokens)} tokens"
            raise _label_error(rule, label, "Give a tag for each token.")
        for one in label:
            if self.classes is not None and one not in self.classes and not self.allow_new:
                raise _label_error(
                    "contains a tag that this model does not have",
                    one,
                    suggest_name(one, self.classes),
                )
        return label


def label_rule(
    task: str,
    classes: Sequence[str] | None,
    recipe_label_type: str | None = None,
    *,
    allow_new: bool = False,
    column: str | None = None,
) -> LabelRule:
    """The rule of a model's task; ``recipe_label_type`` is that of its recipe, where it has one."""
    known_classes = tuple(classes) if classes else None
    if task in TYPE_BY_TASK:
        return LabelRule(TYPE_BY_TASK[task], known_classes, allow_new, column)
    types: Mapping[str | None, LabelType] = {"several": "several", "number": "number"}
    default: LabelType = "class" if known_classes or recipe_label_type == "class" else "number"
    return LabelRule(types.get(recipe_label_type, default), known_classes, allow_new, column)


def rule_from_predictions(
    predictions: Sequence[tuple[Any, Mapping[str, float] | None]],
) -> LabelRule:
    """The rule as far as predictions and their probabilities show it."""
    values = [prediction for prediction, _ in predictions if prediction is not None]
    classes = tuple(
        dict.fromkeys(name for _, probabilities in predictions for name in probabilities or ())
    )
    if any(isinstance(one, list) for one in values):
        if classes:
            return LabelRule("several", classes)
        tags = sorted({tag for one in values if isinstance(one, list) for tag in one})
        return LabelRule("tags", tuple(tags))
    if classes:
        return LabelRule("class", classes)
    numbers = values and all(isinstance(one, (int, float)) for one in values)
    return LabelRule("number" if numbers else "text")


def _label_error(rule: str, value: Any, remedy: str) -> DataError:
    return DataError("label", rule, value, remedy)


@dataclass(frozen=True, slots=True)
class ResolvedLabels:
    """One label a row, in the order in which rows were first labelled.

    ``replaced`` labels were superseded: by a later one of the same annotator, by another
    annotator's later one, or a model's by an annotator's. In ``disagreed`` rows the last labels of
    two annotators differ; ``several`` rows had more than one annotator.
    """

    labels: tuple[Feedback, ...]
    replaced: int
    several: int
    disagreed: int


def resolve_labels(feedback: Iterable[Feedback]) -> ResolvedLabels:
    """The label that counts for each row: the last one of an annotator; a model's only where no
    annotator gave one. A row that was once drawn uniformly stays so, whoever labelled it before or
    after."""
    rows: dict[tuple[str, int], list[Feedback]] = {}
    total = 0
    for one in feedback:
        rows.setdefault((one.request, one.index), []).append(one)
        total += 1
    resolved, several, disagreed = [], 0, 0
    for row_labels in rows.values():
        by_people = [one for one in row_labels if one.source != "model"]
        last = max(by_people or row_labels, key=lambda one: (one.at, one.id or 0))
        by_annotator = {
            one.who: one for one in sorted(by_people, key=lambda one: (one.at, one.id or 0))
        }
        several += len(by_annotator) > 1
        disagreed += len({repr(one.label) for one in by_annotator.values()}) > 1
        if any(one.drawn == "uniform" for one in row_labels):
            last = replace(last, drawn="uniform")
        resolved.append(last)
    return ResolvedLabels(tuple(resolved), total - len(resolved), several, disagreed)
