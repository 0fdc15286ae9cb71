"""Labels: what one of a task may be, and which of several for one row counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError
from holdfast.core.tasks import IMAGE_TASKS, TAGGING_TASKS, GENERATIVE_TASKS
from holdfast.data.labels.spelling import label_key
from holdfast.plugins.store.records import Feedback

Kind = Literal["class", "several", "number", "tags", "text"]
TASKS: Mapping[str, Kind] = {
    **dict.fromkeys(TAGGING_TASKS, "tags"),
    **dict.fromkeys(GENERATIVE_TASKS, "text"),
    **dict.fromkeys(IMAGE_TASKS, "class"),
}
# Characters of a class that is new, and of a text that is written.
LONGEST_CLASS, LONGEST_TEXT = 200, 1_000_000


@dataclass(frozen=True, slots=True)
class LabelRule:
    """The kind of a label, the classes (or tags) there are (``None``: not known), and whether a
    class that is ``new`` is recorded or refused: no model that is served can learn it by an update
    of its own, so somebody must have decided to collect it."""

    kind: Kind
    classes: tuple[str, ...] | None = None
    new: bool = False

    def check(self, label: Any, row: Mapping[str, Any] | None = None) -> Any:
        """The label as it is stored: a class by its own spelling, whatever case and space it came
        in. Raises ``DataError`` for one that the task does not have."""
        if self.kind == "class":
            return self._class(label)
        if self.kind == "several":
            if not isinstance(label, list):
                raise _wrong("is no list of classes", label, 'Give a list: ["a", "b"], or [].')
            return list(dict.fromkeys(self._class(one) for one in label))
        if self.kind == "tags":
            return self._tags(label, row)
        if self.kind == "number":
            plain = isinstance(label, (int, float)) and not isinstance(label, bool)
            if not plain or not math.isfinite(label):
                raise _wrong("is no number", label, "Give a finite number.")
            return label
        if not isinstance(label, str) or not label.strip() or len(label) > LONGEST_TEXT:
            raise _wrong("is no text", label, "Write what the model should have written.")
        return label

    def _class(self, label: Any) -> str:
        plain = isinstance(label, (str, int, float)) and not isinstance(label, bool)
        name = str(label).strip() if plain else ""
        if not name:
            raise _wrong("is no class", label, "Give the name of a class.")
        known = self.classes
        if known is None or name in known:
            return name
        alike = [one for one in known if label_key(one) == label_key(name)]
        if len(alike) == 1:
            return alike[0]
        if self.new and len(name) <= LONGEST_CLASS:
            return name
        raise _wrong("is no class of this model", label, suggest_name(name, known))

    def _tags(self, label: Any, row: Mapping[str, Any] | None) -> list[str]:
        if not isinstance(label, list) or not all(isinstance(one, str) and one for one in label):
            raise _wrong("is no list of tags", label, 'Give a tag for each token: ["O", …].')
        tokens: Any = (row or {}).get("tokens")
        listed = isinstance(tokens, Sequence) and not isinstance(tokens, str)
        if listed and len(tokens) != len(label):
            rule = f"has {len(label)} tags, and the row {len(tokens)} tokens"
            raise _wrong(rule, label, "Give a tag for each token.")
        for one in label:
            if self.classes is not None and one not in self.classes and not self.new:
                raise _wrong(
                    "holds a tag that is none of this model", one, suggest_name(one, self.classes)
                )
        return label


def rule_of(
    task: str, classes: Sequence[str] | None, label_kind: str | None = None, *, new: bool = False
) -> LabelRule:
    """The rule of a model's task; ``label_kind`` is that of its recipe, where it has one."""
    own = tuple(classes) if classes else None
    if task in TASKS:
        return LabelRule(TASKS[task], own, new)
    kinds: Mapping[str | None, Kind] = {"several": "several", "number": "number"}
    guessed: Kind = "class" if own or label_kind == "class" else "number"
    return LabelRule(kinds.get(label_kind, guessed), own, new)


def rule_of_answers(answers: Sequence[tuple[Any, Mapping[str, float] | None]]) -> LabelRule:
    """The rule as far as what was answered tells it: predictions, and their probabilities."""
    shown = [prediction for prediction, _ in answers if prediction is not None]
    classes = tuple(dict.fromkeys(name for _, given in answers for name in given or ()))
    if any(isinstance(one, list) for one in shown):
        if classes:
            return LabelRule("several", classes)
        tags = sorted({tag for one in shown if isinstance(one, list) for tag in one})
        return LabelRule("tags", tuple(tags))
    if classes:
        return LabelRule("class", classes)
    numbers = shown and all(isinstance(one, (int, float)) for one in shown)
    return LabelRule("number" if numbers else "text")


def _wrong(rule: str, value: Any, remedy: str) -> DataError:
    return DataError("label", rule, value, remedy)


@dataclass(frozen=True, slots=True)
class Settled:
    """One label a row, in the order in which rows were labelled first.

    ``replaced`` labels gave way: to a later one of the same person, to another person's later one,
    or a model's to a person's. In ``disagreed`` rows two people's last labels differ; ``several``
    rows had more than one person.
    """

    labels: tuple[Feedback, ...]
    replaced: int
    several: int
    disagreed: int


def settled(feedback: Iterable[Feedback]) -> Settled:
    """The label that counts for each row: the last one of a person; a model's only where no person
    gave one. A row that was once drawn evenly stays so, whoever labelled it before or after."""
    rows: dict[tuple[str, int], list[Feedback]] = {}
    total = 0
    for one in feedback:
        rows.setdefault((one.request, one.index), []).append(one)
        total += 1
    kept, several, disagreed = [], 0, 0
    for given in rows.values():
        people = [one for one in given if one.source != "model"]
        last = max(people or given, key=lambda one: (one.at, one.id or 0))
        own = {one.who: one for one in sorted(people, key=lambda one: (one.at, one.id or 0))}
        several += len(own) > 1
        disagreed += len({repr(one.label) for one in own.values()}) > 1
        if any(one.drawn == "uniform" for one in given):
            last = replace(last, drawn="uniform")
        kept.append(last)
    return Settled(tuple(kept), total - len(kept), several, disagreed)
