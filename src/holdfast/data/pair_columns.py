"""Which column is the source and which the target: as given, or worked out with a reason.

A known pair of names decides first; then a known name of either; then, of two columns of texts,
the longer is the source. Where that leaves two answers, the user is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision
from holdfast.data.columns import check_column
from holdfast.data.profile import Profile, profile
from holdfast.data.raw import Raw
from holdfast.data.table import Columns
from holdfast.data.template import template_columns

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
SOURCES = (
    "source",
    "src",
    "input",
    "input_text",
    "dialogue",
    "dialog",
    "conversation",
    "article",
    "document",
    "question",
    "text",
    "prompt",
    "instruction",
    "content",
    "body",
    "context",
)
TARGETS = (
    "target",
    "tgt",
    "output",
    "target_text",
    "summary",
    "highlights",
    "answer",
    "abstract",
    "completion",
    "response",
    "translation",
    "headline",
    "title",
    "sql",
    "pandas",
    "code",
    "label",
)


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
    texts = _given(raw, text, template)
    if texts is None:
        source = _source(raw, free, target, decisions)
        texts = (source,)
    found = target or _target(raw, free, texts, need_target, decisions)
    _refuse_twice(texts, found, group)
    if len(texts) > 1 and template is None:
        template = "\n".join("{" + _braced(name) + "}" for name in texts)
        because = "several source columns are joined by line breaks"
        decisions.append(Decision("data.template", repr(template), because))
    return Columns(texts, found, group, template), tuple(decisions)


def _given(raw: Raw, text: Sequence[str] | None, template: str | None) -> tuple[str, ...] | None:
    if template is None:
        return tuple(text) if text else None
    # Lists and objects are read as JSON, which a template may hold.
    names = template_columns(template, raw.names)
    if text and set(text) != set(names):
        raise RecipeError(
            "data.template",
            f"and data.text name different columns: {', '.join(text)}",
            template,
            "Give the template alone: it names its columns.",
        )
    return names


def _source(
    raw: Raw, free: dict[str, Profile], target: str | None, decisions: list[Decision]
) -> str:
    lower = {name.lower(): name for name in free if name != target}
    for first, second in PAIRS:
        known = target is None or second == target.lower()
        if first in lower and known and (target is not None or second in lower):
            because = f"{first} and {second} are a usual pair of names"
            return _decided("source column", lower[first], because, decisions)
    named = [lower[name] for name in SOURCES if name in lower]
    if len(named) == 1:
        return _decided(
            "source column", named[0], "it alone has a usual name of sources", decisions
        )
    wordy = [name for name in named or lower.values() if free[name].wordy]
    if len(wordy) == 1:
        return _decided("source column", wordy[0], "it alone holds texts", decisions)
    if len(wordy) == 2 and not named:
        longer, shorter = sorted(wordy, key=lambda name: -free[name].words)
        if free[longer].words >= 1.5 * free[shorter].words:
            because = f"its texts are longer than those of {shorter}"
            return _decided("source column", longer, because, decisions)
    raise _ask(raw, "text", wordy or named or list(lower.values()))


def _target(
    raw: Raw, free: dict[str, Profile], texts: Sequence[str], need: bool, decisions: list[Decision]
) -> str | None:
    lower = {name.lower(): name for name in free if name not in texts}
    for first, second in PAIRS:
        if first in {name.lower() for name in texts} and second in lower:
            because = f"{first} and {second} are a usual pair of names"
            return _decided("target column", lower[second], because, decisions)
    named = [lower[name] for name in TARGETS if name in lower]
    if len(named) == 1:
        return _decided(
            "target column", named[0], "it alone has a usual name of targets", decisions
        )
    wordy = [name for name in named or lower.values() if free[name].wordy]
    if len(wordy) == 1:
        return _decided("target column", wordy[0], "it alone is left that holds texts", decisions)
    if not need:
        return None
    raise _ask(raw, "label", wordy or named or list(lower.values()))


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


def _refuse_twice(texts: Sequence[str], target: str | None, group: str | None) -> None:
    names = [*texts, *filter(None, (target, group))]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"column {name!r}",
                "is asked to be two things at once",
                None,
                "Choose different columns with --text, --label and --group.",
            )


def _braced(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")
