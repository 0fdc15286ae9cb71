"""Which column is the source and which the target: as given, or worked out with a reason.

A known pair of names decides first; then a known name of either; then, of two columns of texts,
the longer is the source. Where that leaves two answers, the user is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.columns.headers import by_key, column_key
from holdfast.data.columns.profile import Profile, profile
from holdfast.data.columns.roles import (
    SOURCE,
    TARGET,
    check_column,
    guess,
    refuse_twice,
    templated,
    usual_pair,
)
from holdfast.data.columns.template import template_of
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

PAIRS = (
    ("dialogue", "summary"),
    ("dialog", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("document", "summary"),
    ("text", "summary"),
    ("content", "summary"),
    ("conversation", "summary"),
    ("body", "summary"),
    ("article", "abstract"),
    ("document", "abstract"),
    ("text", "headline"),
    ("article", "title"),
    ("text", "title"),
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("input_text", "target_text"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("question", "sql"),
    ("question", "query"),
    ("instruction", "output"),
    ("en", "fr"),
    ("en", "de"),
    ("text", "target"),
    ("question", "pandas"),
    ("question", "code"),
)
# Pairs that are never a text and its class; the rest of ``PAIRS`` also occur beside a class.
SURE = {
    ("dialogue", "summary"),
    ("dialog", "summary"),
    ("conversation", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("article", "abstract"),
    ("document", "summary"),
    ("document", "abstract"),
    ("source", "target"),
    ("src", "tgt"),
    ("input_text", "target_text"),
    ("question", "sql"),
    ("question", "query"),
    ("question", "pandas"),
    ("question", "code"),
    ("en", "fr"),
    ("en", "de"),
}


def choose_pair(
    raw: Raw,
    *,
    text: Sequence[str] | None,
    target: str | None,
    group: str | None,
    template: str | None,
    need_target: bool,
) -> tuple[Columns, tuple[Decision, ...]]:
    """The columns and what was decided unasked. Several ``text`` columns without a template are
    joined by line breaks. With ``need_target=False`` an absent target column is left out."""
    for name in (*(text or ()), *(() if group is None else (group,))):
        check_column(raw, name)
    if target is not None and (need_target or target in raw.names):
        check_column(raw, target)
    elif target is not None:
        target = None
    decisions: list[Decision] = []
    free = {name: p for name, p in profile(raw).items() if name != group and not p.numeric}
    if template is not None:
        # Lists and objects are read as JSON, which a template may hold.
        texts = templated(raw, template, text)
    else:
        texts = tuple(text) if text else (_source(raw, free, target, decisions),)
    found = target or _target(raw, free, texts, need_target, decisions)
    refuse_twice((*texts, found, group), "--text, --label and --group")
    if len(texts) > 1 and template is None:
        template = template_of(texts)
        because = "several source columns are joined by line breaks"
        decisions.append(Decision("data.template", repr(template), because))
    return Columns(texts, found, group, template), tuple(decisions)


def _source(
    raw: Raw, free: dict[str, Profile], target: str | None, decisions: list[Decision]
) -> str:
    left = {name: column for name, column in free.items() if name != target}
    pair = usual_pair(PAIRS, left, left if target is None else (target,))
    if pair is not None:
        return _decided("source column", by_key(left)[pair[0]], _usual(pair), decisions)
    found = guess(SOURCE, left)
    if found.name is not None:
        return _decided("source column", found.name, found.because, decisions)
    usual = any(column_key(name) in SOURCE.usual for name in left)
    if len(found.among) == 2 and not usual and all(left[name].wordy for name in found.among):
        longer, shorter = sorted(found.among, key=lambda name: -left[name].words)
        if left[longer].words >= 1.5 * left[shorter].words:
            because = f"its texts are longer than those of {shorter}"
            return _decided("source column", longer, because, decisions)
    raise _ask(raw, "text", found.among)


def _target(
    raw: Raw, free: dict[str, Profile], texts: Sequence[str], need: bool, decisions: list[Decision]
) -> str | None:
    left = {name: column for name, column in free.items() if name not in texts}
    pair = usual_pair(PAIRS, texts, left)
    if pair is not None:
        return _decided("target column", by_key(left)[pair[1]], _usual(pair), decisions)
    found = guess(TARGET, left)
    if found.name is not None:
        return _decided("target column", found.name, found.because, decisions)
    if not need:
        return None
    raise _ask(raw, "label", found.among)


def _usual(pair: tuple[str, str]) -> str:
    return f"{pair[0]} and {pair[1]} are a usual pair of names"


def _decided(what: str, name: str, because: str, decisions: list[Decision]) -> str:
    decisions.append(Decision(what, name, because))
    return name


def _ask(raw: Raw, role: str, names: Sequence[str]) -> DataError:
    what = "source" if role == "text" else "target"
    if not names:
        return DataError(
            raw.source,
            f"has no column that could be the {what}",
            ", ".join(raw.names),
            "Choose the columns: --text SOURCE --label TARGET.",
        )
    return DataError(
        raw.source,
        f"it cannot be told which column is the {what}",
        ", ".join(names),
        f"Choose one, e.g. --{role} {names[0]}.",
    )
