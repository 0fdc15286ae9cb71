"""Which column is the text, which the label: as given, or worked out with a reason.

The name decides first (whatever its case and spaces), then what the values look like; where two
columns are as likely (``headers.py``), the user is asked. Groups are never worked out, as a wrong
one would silently change the division.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.data.headers import (
    SETTLED,
    by_key,
    column_key,
    rivals,
    says_the_same,
    told_values,
    twins,
)
from holdfast.data.profile import Profile, profile
from holdfast.data.raw import Raw
from holdfast.data.table import Columns
from holdfast.data.template import template_columns

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
TEXTS = (
    "text",
    "texts",
    "sentence",
    "review",
    "review_text",
    "reviewtext",
    "content",
    "comment",
    "comment_text",
    "message",
    "tweet",
    "utterance",
    "document",
    "body",
    "description",
    "abstract",
    "article",
    "post",
    "question",
    "query",
    "title",
    "headline",
    "summary",
    "synopsis",
)
LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "intent",
    "topic",
    "polarity",
    "stance",
    "emotion",
    "genre",
    "section",
    "tag",
    "y",
    "rating",
    "stars",
    "coarse_label",
    "label_text",
    "gold_label",
    "is_duplicate",
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
        texts = _template_texts(raw, text, template)
    elif text:
        texts = tuple(text)
    else:
        texts, decisions = _find_texts(raw, profiles, taken)
    template = template or _joined(texts, decisions)
    found = _label(raw, profiles, label, {*texts, group}, need_label, decisions)
    _refuse_twice(texts, found, group)
    columns = Columns(texts, found, group, template)
    return columns, tuple(decisions), _possible_groups(profiles, columns)


def check_column(raw: Raw, name: str) -> None:
    """Refuse a column that is not there, or whose cells are not plain values."""
    if name not in raw.names:
        raise DataError(raw.source, f"has no column {name!r}", None, nearest(name, raw.names))
    if "nested" in raw.kinds.get(name, set()):
        raise DataError(
            f"{raw.source}, column {name!r}",
            "holds lists, objects or bytes, not plain values",
            None,
            "Write one plain value a cell, or choose another column.",
        )


def _template_texts(raw: Raw, text: Sequence[str] | None, template: str) -> tuple[str, ...]:
    names = template_columns(template, raw.names)
    for name in names:
        check_column(raw, name)
    if text and set(text) != set(names):
        raise RecipeError(
            "data.template",
            f"and data.text name different columns: {', '.join(text)}",
            template,
            "Give the template alone: it names its columns.",
        )
    return names


def _find_texts(
    raw: Raw, profiles: dict[str, Profile], taken: set[str | None]
) -> tuple[tuple[str, ...], list[Decision]]:
    free = {name: p for name, p in profiles.items() if name not in taken}
    lower = by_key(free)
    for first, second in PAIRS:
        if first in lower and second in lower and "text" not in lower:
            because = f"{first} and {second} are a usual pair of names"
            pair = (lower[first], lower[second])
            return pair, [Decision("text columns", " and ".join(pair), because)]
    name, because = _find_text(raw, free, lower)
    return (name,), [Decision("text column", name, because + _beside(free, name, "text"))]


def _find_text(raw: Raw, free: dict[str, Profile], lower: dict[str, str]) -> tuple[str, str]:
    if "text" in lower:
        return lower["text"], "a column has this name"
    named = [lower[name] for name in TEXTS if name in lower and not free[lower[name]].numeric]
    if len(named) == 1:
        return named[0], "it alone has a usual name of texts"
    wordy = named or [name for name, p in free.items() if p.wordy]
    if len(wordy) > 1:
        return _longest(raw, free, wordy)
    if wordy:
        return wordy[0], f"it alone holds texts ({free[wordy[0]].words:.0f} words on average)"
    plain = [name for name, p in free.items() if column_key(name) not in LABELS]
    if len(plain) == 1:
        return plain[0], "no other column could be the text"
    words = [name for name in plain if not free[name].numeric and not free[name].repeats]
    if len(words) == 1:
        return words[0], "it alone holds words that mostly differ"
    raise _ask(raw, "text", words or plain or list(free), "it cannot be told which is the text")


def _longest(raw: Raw, free: dict[str, Profile], names: list[str]) -> tuple[str, str]:
    ranked = sorted(names, key=lambda name: -free[name].words)
    first, second = free[ranked[0]].words, free[ranked[1]].words
    if first < 3 * second:
        raise _ask(raw, "text", ranked, "several columns hold texts")
    because = (
        f"its texts are the longest: {first:.0f} words on average, {ranked[1]} has {second:.0f}"
    )
    return ranked[0], because


def _joined(texts: tuple[str, ...], decisions: list[Decision]) -> str | None:
    if len(texts) < 3:
        return None
    template = "\n".join("{" + name.replace("{", "{{").replace("}", "}}") + "}" for name in texts)
    decisions.append(Decision("data.template", repr(template), "three texts or more are joined"))
    return template


def _label(
    raw: Raw,
    profiles: dict[str, Profile],
    label: str | None,
    taken: set[str | None],
    need_label: bool,
    decisions: list[Decision],
) -> str | None:
    if label is not None:
        if label in raw.names:
            return label
        decisions.append(Decision("label column", "none", f"there is no column {label!r}"))
        return None
    free = {name: p for name, p in profiles.items() if name not in taken}
    try:
        name, because = _find_label(raw, free)
    except DataError:
        if need_label:
            raise
        return None
    decisions.append(Decision("label column", name, because))
    return name


def _find_label(raw: Raw, free: dict[str, Profile]) -> tuple[str, str]:
    lower = by_key(free)
    if "label" in lower:
        name, because = lower["label"], "a column has this name"
        _ask_of_twins(raw, free, name)
        return name, because + _beside(free, name, "label")
    named = [lower[name] for name in LABELS if name in lower]
    if len(named) == 1:
        name, because = named[0], "it alone has a usual name of labels"
        if column_key(name) not in SETTLED:
            _ask_of_rivals(raw, name, rivals(raw, free, name))
        _ask_of_twins(raw, free, name)
        return name, because + _beside(free, name, "label")
    repeating = [name for name in named or free if free[name].repeats]
    if len(repeating) == 1:
        distinct = free[repeating[0]].distinct
        return repeating[0], f"it alone holds few values that repeat ({distinct})"
    if len(free) == 1:
        return next(iter(free)), "it is the only other column"
    if not free:
        raise DataError(
            raw.source,
            "has no column that could be the label",
            ", ".join(raw.names),
            "Add a column with the class of each text, or choose the columns: --text, --label.",
        )
    raise _ask(raw, "label", repeating or list(free), "it cannot be told which is the label")


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


def _refuse_twice(texts: tuple[str, ...], label: str | None, group: str | None) -> None:
    used = [*texts, *filter(None, (label,))]
    for name in used:
        if used.count(name) > 1:
            raise RecipeError(
                f"column {name!r}",
                "is asked to be two things at once",
                None,
                "Choose different columns with --text and --label.",
            )
    if group in texts:
        raise RecipeError(f"column {group!r}", "is both text and group", None, "Choose another.")


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
        if name not in used and column_key(name) in GROUPS and 1 < p.distinct < 0.9 * p.filled
    )
