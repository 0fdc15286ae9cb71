"""Which column is the text, which the label: as given, or worked out with a reason.

The name decides first (whatever its case and spaces), then what the values look like; where two
columns are as likely (``headers.py``), the user is asked. Groups are never worked out, as a wrong
one would silently change the division.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.data.columns.headers import (
    SETTLED,
    by_key,
    column_key,
    rivals,
    says_the_same,
    told_values,
    twins,
)
from holdfast.data.columns.profile import Profile, profile
from holdfast.data.columns.roles import (
    LABEL,
    TEXT,
    check_column,
    guess,
    reads_as_text,
    refuse_twice,
    templated,
    usual_pair,
)
from holdfast.data.columns.template import template_of
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "context"),
    ("question", "passage"),
    ("query", "document"),
    ("query", "passage"),
    ("claim", "evidence"),
    ("headline", "body"),
)
GROUPS = (
    "group",
    "group_id",
    "user",
    "user_id",
    "userid",
    "author",
    "author_id",
    "patient",
    "patient_id",
    "subject_id",
    "speaker",
    "speaker_id",
    "customer_id",
    "session_id",
    "conversation_id",
    "dialog_id",
    "thread_id",
    "doc_id",
    "document_id",
    "article_id",
    "source_id",
    "product_id",
    "package",
)


@dataclass(frozen=True, slots=True)
class NamedColumns:
    """The columns that somebody named; ``None`` is worked out. Two texts are a pair, three or more
    are joined."""

    text: Sequence[str] | None = None
    label: str | None = None
    group: str | None = None
    template: str | None = None


def choose_columns(
    raw: Raw,
    *,
    text: Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    template: str | None = None,
    need_label: bool = True,
) -> tuple[Columns, tuple[Decision, ...], tuple[Finding, ...]]:
    """The columns, what was decided without being asked, and what was noticed.

    With ``need_label=False`` a label column that is absent, or cannot be told, is left out.
    """
    for name in (*(text or ()), *(() if group is None else (group,))):
        check_column(raw, name)
    if label is not None and (need_label or label in raw.names):
        check_column(raw, label)
    profiles = profile(raw)
    taken = {label, group} - {None}
    decisions: list[Decision] = []
    if template is not None:
        texts = templated(raw, template, text)
        for name in texts:
            check_column(raw, name)
    elif text:
        texts = tuple(text)
    else:
        texts, decisions = _find_texts(raw, profiles, taken)
    template = template or _joined(texts, decisions)
    unsettled: list[Finding] = []
    found = _label(raw, profiles, label, {*texts, group}, need_label, decisions, unsettled)
    refuse_twice((*texts, found), "--text and --label")
    if group in texts:
        raise RecipeError(f"column {group!r}", "is both text and group", None, "Choose another.")
    columns = Columns(texts, found, group, template)
    # While it is open which column is the label, none of them is advised to be something else.
    groups = () if unsettled else _possible_groups(profiles, columns)
    return columns, tuple(decisions), (*unsettled, *groups)


def _find_texts(
    raw: Raw, profiles: dict[str, Profile], taken: set[str | None]
) -> tuple[tuple[str, ...], list[Decision]]:
    free = {name: p for name, p in profiles.items() if name not in taken}
    lower = by_key(free)
    pair = usual_pair(PAIRS, free, free)
    # A column called text settles it, whatever stands beside it.
    if pair is not None and "text" not in lower:
        names = (lower[pair[0]], lower[pair[1]])
        because = f"{pair[0]} and {pair[1]} are a usual pair of names"
        return names, [Decision("text columns", " and ".join(names), because)]
    name, because = _find_text(raw, free, lower)
    return (name,), [Decision("text column", name, because + _beside(free, name, "text"))]


def _find_text(raw: Raw, free: dict[str, Profile], lower: dict[str, str]) -> tuple[str, str]:
    if "text" in lower:
        return lower["text"], "a column has this name"
    found = guess(TEXT, free)
    if found.name is not None:
        return found.name, found.because
    several = [name for name in found.among if reads_as_text(free[name])]
    if len(several) > 1:
        ranked = sorted(several, key=lambda name: -free[name].words)
        first, second = free[ranked[0]].words, free[ranked[1]].words
        # To ask costs a line, a wrong guess a run.
        if first < 3 * second:
            raise _ask(raw, "text", ranked, "several columns hold texts")
        because = (
            f"its texts are the longest: {first:.0f} words on average, {ranked[1]} has {second:.0f}"
        )
        return ranked[0], because
    raise _ask(raw, "text", found.among, "it cannot be told which is the text")


def _joined(texts: tuple[str, ...], decisions: list[Decision]) -> str | None:
    if len(texts) < 3:
        return None
    template = template_of(texts)
    decisions.append(Decision("data.template", repr(template), "three texts or more are joined"))
    return template


def _label(
    raw: Raw,
    profiles: dict[str, Profile],
    label: str | None,
    taken: set[str | None],
    need_label: bool,
    decisions: list[Decision],
    unsettled: list[Finding],
) -> str | None:
    if label is not None:
        if label in raw.names:
            return label
        decisions.append(Decision("label column", "none", f"there is no column {label!r}"))
        return None
    free = {name: p for name, p in profiles.items() if name not in taken}
    if not need_label and len(free) == 1 and not any(p.repeats for p in free.values()):
        # It is not called a label, and a different value in each row tells no class.
        free = {name: p for name, p in free.items() if column_key(name) in LABEL.usual}
    try:
        name, because = _find_label(raw, free)
    except DataError as error:
        if need_label:
            raise
        if any(profiles[name].repeats for name in free):
            because = f"{error.rule}: {error.value}"
            unsettled.append(Finding("no_label", "error", 1.0, 0, (), because, error.remedy))
        return None
    decisions.append(Decision("label column", name, because))
    return name


def _find_label(raw: Raw, free: dict[str, Profile]) -> tuple[str, str]:
    lower = by_key(free)
    if "label" in lower:
        name, because = lower["label"], "a column has this name"
        _ask_of_twins(raw, free, name)
        return name, because + _beside(free, name, "label")
    found = guess(LABEL, free)
    if found.name is not None and column_key(found.name) in LABEL.usual:
        if column_key(found.name) not in SETTLED:
            _ask_of_rivals(raw, found.name, rivals(raw, free, found.name))
        _ask_of_twins(raw, free, found.name)
        return found.name, found.because + _beside(free, found.name, "label")
    if found.name is not None:
        return found.name, found.because
    if len(free) == 1:
        return next(iter(free)), "it is the only other column"
    if not free:
        raise DataError(
            raw.source,
            "has no column that could be the label",
            ", ".join(raw.names),
            "Add a column with the class of each text, or choose the columns: --text, --label.",
        )
    repeating = [name for name in found.among if free[name].repeats] or list(free)
    likeliest = sorted(repeating, key=lambda name: free[name].label_rank)
    raise _ask(raw, "label", likeliest, "it cannot be told which is the label")


def _ask_of_rivals(raw: Raw, name: str, others: Sequence[str]) -> None:
    """A guess at the label is safe where nothing else could be it."""
    if others:
        raise DataError(
            raw.source,
            "has several columns that could be the label",
            told_values(raw, (name, *others)),
            f"Say which is to be predicted: {' or '.join(_options(name, *others))}.",
        )


def _options(*names: str) -> list[str]:
    return [f"--label {shlex.quote(name)}" for name in names]


def _ask_of_twins(raw: Raw, free: dict[str, Profile], name: str) -> None:
    """Twins of the label that hold something else are no spelling of it."""
    _ask_of_rivals(
        raw,
        name,
        [
            other
            for other in twins(free, name)
            if free[other].filled and not says_the_same(raw, name, other)
        ],
    )


def _beside(free: dict[str, Profile], name: str, role: str) -> str:
    """What is said of the twins that were passed over."""
    others = twins(free, name)
    if not others:
        return ""
    shown = ", ".join(f"{other!r} ({free[other].filled} filled)" for other in others)
    return (
        f"; {shown} is named alike, and {name!r} ({free[name].filled} filled) was taken: "
        f"--{role} chooses"
    )


def _ask(raw: Raw, role: str, names: Sequence[str], rule: str) -> DataError:
    if not names:
        return DataError(
            raw.source,
            f"has no column of plain values that could be the {role}",
            ", ".join(raw.names) or None,
            "Write one text and one label a row; lists, objects and bytes are neither.",
        )
    if role == "label":
        return DataError(
            raw.source,
            rule,
            told_values(raw, names),
            f"Say which is to be predicted, e.g. {_options(names[0])[0]}.",
        )
    extra = " (several --text make a pair)" if len(names) > 1 else ""
    example = f"--{role} {shlex.quote(names[0])}"
    return DataError(raw.source, rule, ", ".join(names), f"Choose one, e.g. {example}{extra}.")


def _possible_groups(profiles: dict[str, Profile], columns: Columns) -> tuple[Finding, ...]:
    if columns.group is not None:
        return ()
    used = {*columns.text, columns.label}
    return tuple(
        Finding(
            "possible_group",
            "info",
            1 - p.distinct / p.filled,
            p.filled - p.distinct,
            (),
            f"the column {name!r} repeats its values ({p.distinct} in {p.filled} rows looked at): "
            "rows of one value may fall on both sides of the division",
            f"If rows that share it are related, add --group {name}.",
        )
        for name, p in profiles.items()
        # One value, or nearly one a row, groups nothing.
        if name not in used and column_key(name) in GROUPS and 1 < p.distinct < 0.9 * p.filled
    )
