"""Detect the form of rows when no task is given: chats, pairs of texts, plain text, tagged words,
or texts with a class.

Only the first part of the source is examined. Rows that could be texts with a class are treated as
such; the other forms need a column name that suggests them, or a file without a column of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.core.errors import DataError
from holdfast.core.wording import count_phrase
from holdfast.data.cells import read_json_cell
from holdfast.data.chats.columns import ANSWERS, INSTRUCTION, MESSAGES
from holdfast.data.chats.turns import SAMPLE, detect_template
from holdfast.data.columns.profile import Profile, column_key, present_values, profile_columns
from holdfast.data.columns.roles import LABEL
from holdfast.data.pairs import CERTAIN_PAIRS, PAIRS
from holdfast.data.raw import Raw
from holdfast.data.tags.sentences import tagged_shape

Form = Literal["chat", "instruction", "prompt", "text", "pair", "tags", "classes"]

PROMPTS = (("prompt", "completion"), ("prompt", "response"))
# Columns of preference data: the preferred and the rejected answer; and what both answer.
PREFERENCES = ("chosen", "rejected")
# Those of answers that were judged one by one, as for KTO.
JUDGED = ("prompt", "completion", "label")
PROMPT_NAMES = ("prompt", "question", "instruction", "input")
ID_NAMES = ("id", "idx", "index", "uid", "uuid", "guid", "row", "url", "unnamed: 0", "")
FREE_WORDS = 3.0
FREE_SHARE = 0.9
VARIED = 0.3
LONGER = 1.5


@dataclass(frozen=True, slots=True)
class RowsShape:
    """The ``form`` of the rows and the reason; ``text`` and ``target`` are its columns where the
    form has them."""

    form: Form
    because: str
    text: tuple[str, ...] = ()
    target: str | None = None


def detect_shape(
    raw: Raw, *, text: Sequence[str] | None = None, label: str | None = None
) -> RowsShape:
    """The form of these rows; ``text`` and ``label`` are the columns that a user named.

    In doubt it is ``classes``: an error that asks for a column costs less than a wrong guess.
    Raises ``DataError`` for preferences and judged answers where no column is named: they are not
    classes, and it is unclear which answers to learn from.
    """
    if (because := tagged_shape(raw, text, label)) is not None:
        return RowsShape("tags", because)
    profiles = profile_columns(raw)
    if label is not None:
        return _shape_with_label(profiles, tuple(text or ()), label)
    if text is not None:
        return _shape_without_label(raw, profiles, tuple(text))
    lower = {name.lower(): name for name in raw.names}
    if lower.keys() >= set(PREFERENCES):
        preferred = lower[PREFERENCES[0]]
        prompt = next((lower[name] for name in PROMPT_NAMES if name in lower), None)
        learn = (
            f"--text {prompt} --label {preferred}" if prompt else f"--set data.messages={preferred}"
        )
        raise DataError(
            raw.source,
            "holds preferences: pairs of a chosen and a rejected answer",
            ", ".join(raw.names),
            "Holdfast fine-tunes on answers, not on preferences. To train on the chosen answers, "
            f"use --task causal-lm {learn}. To monitor a preference trainer (DPO), use "
            "holdfast.Guard.",
        )
    if lower.keys() >= set(JUDGED) and profiles[lower["label"]].distinct <= 2:
        raise DataError(
            raw.source,
            "has unpaired preference data: prompts, completions, and labels of which are good",
            ", ".join(raw.names),
            "Holdfast fine-tunes on answers, not on preferences. Keep the rows with good answers, "
            "and use --task causal-lm --text prompt --label completion. If the label is a class to "
            "predict, use --text completion --label label.",
        )
    for shape in (
        _chat(raw, profiles),
        _instruction(raw),
        _pair(raw, profiles),
        _plain_text(raw, profiles),
    ):
        if shape is not None:
            return shape
    return RowsShape("classes", _classes_reason(profiles))


def holds_free_text(column: Profile) -> bool:
    """Whether a column holds texts that nearly all differ, so that no value is a class."""
    return column.words >= FREE_WORDS and column.distinct >= FREE_SHARE * column.filled


def _shape_with_label(
    profiles: Mapping[str, Profile], text: tuple[str, ...], label: str
) -> RowsShape:
    """A column that the user names as the label holds classes, or is a text to generate."""
    column = profiles.get(label)
    if column is None or not column.filled or column.numeric:
        return RowsShape("classes", f"the column {label!r} is named as the label")
    text_names = [name.lower() for name in (text or profiles)]
    is_known_pair = any((name, label.lower()) in CERTAIN_PAIRS for name in text_names)
    if not holds_free_text(column) and not (is_known_pair and column.wordy):
        return RowsShape("classes", f"the column {label!r} holds labels: {_describe(column)}")
    form: Form = "instruction" if text and text[0].lower() in INSTRUCTION else "pair"
    return RowsShape(form, f"the column {label!r} holds texts: {_describe(column)}", text, label)


def _shape_without_label(
    raw: Raw, profiles: Mapping[str, Profile], text: tuple[str, ...]
) -> RowsShape:
    """The user named only texts: plain text where no column could be a class."""
    if len(text) == 1:
        shape = _pair(raw, profiles) or _chat(raw, profiles) or _plain_text(raw, profiles)
        if shape is not None and shape.text == text:
            return shape
    return RowsShape("classes", _classes_reason(profiles))


def _chat(raw: Raw, profiles: Mapping[str, Profile]) -> RowsShape | None:
    for name in raw.names:
        if name.lower() in MESSAGES and _holds_turns(raw, name) and not _class_names(profiles):
            return RowsShape("chat", f"the column {name!r} holds chats: lists of turns", (name,))
    return None


def _holds_turns(raw: Raw, name: str) -> bool:
    first = present_values(raw.table[name]).slice(0, 1).to_pylist()
    try:
        turns = read_json_cell(first[0]) if first else None
    except ValueError:
        return False
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, dict) and {"role", "from"} & set(turn) for turn in turns)
    )


def _instruction(raw: Raw) -> RowsShape | None:
    """An instruction or a prompt with its answer. Another column may hold task types, but none may
    have a label's name."""
    lower = {name.lower(): name for name in raw.names}
    if {"label", "labels", "class"} & set(lower):
        return None
    instruction = next((lower[name] for name in INSTRUCTION if name in lower), None)
    answer = next((lower[name] for name in ANSWERS if name in lower), None)
    if instruction is not None and answer is not None:
        because = f"{instruction!r} and {answer!r} are usual names of an instruction and its answer"
        return RowsShape("instruction", because, (instruction,), answer)
    for first, second in PROMPTS:
        if first in lower and second in lower:
            because = f"{first!r} and {second!r} are usual names of a prompt and its answer"
            return RowsShape("prompt", because, (lower[first],), lower[second])
    return None


def _pair(raw: Raw, profiles: Mapping[str, Profile]) -> RowsShape | None:
    """A source and its target, by their names; or the only two columns of texts."""
    lower = {name.lower(): name for name in profiles}
    for first, second in PAIRS:
        if first not in lower or second not in lower:
            continue
        source, target = profiles[lower[first]], profiles[lower[second]]
        # The reader of pairs refuses a target that is always empty.
        varied = target.distinct >= VARIED * target.filled and not target.numeric
        others = [n for n in _class_like(profiles) if n not in (source.name, target.name)]
        label_named = [n for n in others if column_key(n) in LABEL.usual and profiles[n].repeats]
        is_certain = (first, second) in CERTAIN_PAIRS and varied and not label_named
        if is_certain or (holds_free_text(target) and not others):
            because = (
                f"{source.name!r} and {target.name!r} are a usual pair of names, and "
                f"{target.name!r} holds texts: {_describe(target)}"
            )
            return RowsShape("pair", because, (source.name,), target.name)
    return _two_texts(raw, profiles)


def _two_texts(raw: Raw, profiles: Mapping[str, Profile]) -> RowsShape | None:
    free = sorted((p for p in profiles.values() if holds_free_text(p)), key=lambda p: -p.words)
    rest = [name for name in raw.names if name not in {p.name for p in free}]
    if len(free) != 2 or any(name.lower() not in ID_NAMES for name in rest):
        return None
    longer, shorter = free
    if longer.words < LONGER * shorter.words:
        return None
    because = (
        f"it has two columns of texts that nearly all differ, and {longer.name!r} is the longer"
    )
    return RowsShape("pair", because, (longer.name,), shorter.name)


def _plain_text(raw: Raw, profiles: Mapping[str, Profile]) -> RowsShape | None:
    """One column of texts and none that could be its class; or rendered chats."""
    wordy = [name for name, column in profiles.items() if column.wordy]
    if len(wordy) != 1:
        return None
    name = wordy[0]
    cells = [cell or "" for cell in raw.table[name].slice(0, SAMPLE).to_pylist()]
    template = detect_template(cells)
    if template is not None and not _class_names(profiles):
        return RowsShape(
            "text", f"the column {name!r} holds chats in the template {template}", (name,)
        )
    if any(other.lower() not in ID_NAMES for other in raw.names if other != name):
        return None
    return RowsShape("text", f"the column of texts {name!r} has no label column", (name,))


def _class_like(profiles: Mapping[str, Profile]) -> list[str]:
    """Columns that could hold classes: by their name or by repeated values."""
    return [name for name, p in profiles.items() if column_key(name) in LABEL.usual or p.repeats]


def _class_names(profiles: Mapping[str, Profile]) -> list[str]:
    """Columns with a usual name for labels that do not hold texts."""
    return [
        name
        for name, p in profiles.items()
        if column_key(name) in LABEL.usual and not holds_free_text(p)
    ]


def _classes_reason(profiles: Mapping[str, Profile]) -> str:
    likely = [*_class_names(profiles), *_class_like(profiles)]
    if likely:
        return f"the column {likely[0]!r} could hold classes: {_describe(profiles[likely[0]])}"
    return "the columns suggest no other task"


def _describe(column: Profile) -> str:
    return (
        f"{column.distinct} distinct values in {column.filled} rows examined, "
        f"{count_phrase(round(column.words), 'word')} on average"
    )
