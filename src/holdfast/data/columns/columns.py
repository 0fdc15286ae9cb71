"""Choose the text column and the label column: as given, or inferred with a reason.

The name decides first (ignoring case and spaces), then what the values look like. Where two columns
are equally likely (``profile.py``), an error asks the user. Groups are never inferred, since a
wrong one would silently change the split.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.data.columns.profile import (
    LABEL_NAMES,
    Profile,
    column_key,
    columns_by_key,
    describe_values,
    is_one_to_one,
    profile_columns,
    rival_labels,
    split_names,
    split_pairs,
    twins,
)
from holdfast.data.columns.roles import (
    LABEL,
    TEXT,
    check_column,
    check_named,
    columns_of_template,
    could_be_text,
    guess_column,
    join_template,
    pair_reason,
    refuse_two_roles,
    usual_pair,
)
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw
from holdfast.data.table import Columns

PAIRS = split_pairs(
    """
    premise:hypothesis sentence1:sentence2 sentence_1:sentence_2 question1:question2 text1:text2
    text_1:text_2 text_a:text_b sentence_a:sentence_b question:answer question:sentence
    question:context question:passage query:document query:passage claim:evidence headline:body
    """
)
GROUPS = split_names(
    """
    group group_id user user_id userid author author_id patient patient_id subject_id speaker
    speaker_id customer_id session_id conversation_id dialog_id thread_id doc_id document_id
    article_id source_id product_id package
    """
)


def choose_columns(raw: Raw, options: RowOptions) -> Columns:
    """The columns as they were named, else inferred; decisions and findings are logged.

    Where no label is needed, a label column that is missing or ambiguous is left out.
    """
    text, group = tuple(options.text or ()), options.group
    check_named(raw, options)
    profiles = profile_columns(raw)
    template = options.template
    if template is not None:
        texts = columns_of_template(raw, template, text)
        for name in texts:
            check_column(raw, name)
    else:
        named = {options.label, group}
        texts = text or _find_texts(raw, {n: p for n, p in profiles.items() if n not in named})
        template = join_template(texts, 3, "three or more text columns are joined")
    free = {name: p for name, p in profiles.items() if name not in {*texts, group}}
    with record_decisions() as log:
        label = _choose_label(raw, free, options)
    notify(*log)
    refuse_two_roles((*texts, label), "--text and --label")
    if group in texts:
        rule = "is named both as text and as group"
        raise RecipeError(f"column {group!r}", rule, None, "Choose different columns.")
    # While the label column is ambiguous, no candidate for it is suggested as a group.
    if group is None and not any(isinstance(one, Finding) for one in log):
        _report_possible_groups({n: p for n, p in free.items() if n != label})
    return Columns(texts, label, group, template)


def _find_texts(raw: Raw, free: dict[str, Profile]) -> tuple[str, ...]:
    name_of_key = columns_by_key(free)
    pair = usual_pair(PAIRS, free, free)
    # A column named text is the text, whatever other columns there are.
    if pair is not None and "text" not in name_of_key:
        names = (name_of_key[pair[0]], name_of_key[pair[1]])
        notify(Decision("text columns", " and ".join(names), pair_reason(pair)))
        return names
    name, because = _find_text(raw, free, name_of_key)
    notify(Decision("text column", name, because + _twins_note(free, name, "text")))
    return (name,)


def _find_text(raw: Raw, free: dict[str, Profile], name_of_key: dict[str, str]) -> tuple[str, str]:
    if "text" in name_of_key:
        return name_of_key["text"], "the column has this name"
    guessed = guess_column(TEXT, free)
    if guessed.name is not None:
        return guessed.name, guessed.because
    several = [name for name in guessed.among if could_be_text(free[name])]
    if len(several) > 1:
        ranked = sorted(several, key=lambda name: -free[name].words)
        first, second = free[ranked[0]].words, free[ranked[1]].words
        # An error costs the user one line; a wrong guess costs a run.
        if first < 3 * second:
            raise _undecided_error(raw, "text", ranked, "has several columns of texts")
        because = (
            f"its texts are the longest: {first:.0f} words on average, against {second:.0f} in "
            f"{ranked[1]!r}"
        )
        return ranked[0], because
    raise _undecided_error(raw, "text", guessed.among, "has several columns that could be the text")


def _choose_label(raw: Raw, free: dict[str, Profile], options: RowOptions) -> str | None:
    if options.label is not None:
        if options.label in raw.names:
            return options.label
        notify(Decision("label column", "none", f"no column is named {options.label!r}"))
        return None
    if not options.need_label and len(free) == 1 and not any(p.repeats for p in free.values()):
        # It is not named as a label, and values that all differ are not classes.
        free = {name: p for name, p in free.items() if column_key(name) in LABEL.usual}
    try:
        name, because = _find_label(raw, free)
    except DataError as error:
        if options.need_label:
            raise
        if any(p.repeats for p in free.values()):
            because = f"{error.rule}: {error.value}"
            notify(Finding("no_label", "error", 1.0, 0, (), because, error.remedy))
        return None
    notify(Decision("label column", name, because))
    return name


def _find_label(raw: Raw, free: dict[str, Profile]) -> tuple[str, str]:
    name_of_key = columns_by_key(free)
    if "label" in name_of_key:
        _refuse_rivals(raw, free, name_of_key["label"], settled=True)
        because = "the column has this name" + _twins_note(free, name_of_key["label"], "label")
        return name_of_key["label"], because
    guessed = guess_column(LABEL, free)
    if guessed.name is not None and column_key(guessed.name) in LABEL.usual:
        _refuse_rivals(raw, free, guessed.name, column_key(guessed.name) in LABEL_NAMES)
        return guessed.name, guessed.because + _twins_note(free, guessed.name, "label")
    if guessed.name is not None:
        return guessed.name, guessed.because
    if len(free) == 1:
        return next(iter(free)), "it is the only other column"
    if not free:
        rule = "has no column that could be the label"
        remedy = "Add a column with the class of each text, or choose the columns: --text, --label."
        raise DataError(raw.source, rule, ", ".join(raw.names), remedy)
    repeating = [name for name in guessed.among if free[name].repeats] or list(free)
    likeliest = sorted(repeating, key=lambda name: free[name].label_rank)
    raise _undecided_error(raw, "label", likeliest, "has several columns that could be the label")


def _refuse_rivals(raw: Raw, free: dict[str, Profile], name: str, settled: bool) -> None:
    """Refuse an inferred label that another column contradicts: a rival, unless the label's name
    is unambiguous (``settled``), or a twin with other values."""
    others = [] if settled else rival_labels(raw, free, name)
    others = others or [
        other
        for other in twins(free, name)
        if free[other].filled and not is_one_to_one(raw, name, other)
    ]
    if others:
        among = " or ".join(f"--label {shlex.quote(one)}" for one in (name, *others))
        rule = "has several columns that could be the label"
        remedy = f"Choose the column to predict: {among}."
        raise DataError(raw.source, rule, describe_values(raw, (name, *others)), remedy)


def _twins_note(free: dict[str, Profile], name: str, role: str) -> str:
    """A note on the twins that were not chosen."""
    others = twins(free, name)
    if not others:
        return ""
    shown = ", ".join(f"{other!r} ({free[other].filled} filled)" for other in others)
    return (
        f"; {shown} has the same name but for case, spaces or punctuation, and {name!r} "
        f"({free[name].filled} filled) was chosen (--{role} COLUMN chooses another)"
    )


def _undecided_error(raw: Raw, role: str, names: Sequence[str], rule: str) -> DataError:
    if not names:
        return DataError(
            raw.source,
            f"has no column of plain values that could be the {role}",
            ", ".join(raw.names) or None,
            "Write one text and one label per row, not lists, objects or bytes.",
        )
    if role == "label":
        return DataError(
            raw.source,
            rule,
            describe_values(raw, names),
            f"Choose the column to predict, for example --label {shlex.quote(names[0])}.",
        )
    pair = " ".join(f"--text {shlex.quote(name)}" for name in names[:2])
    extra = f" (for pairs of texts: {pair})" if len(names) > 1 else ""
    example = f"--{role} {shlex.quote(names[0])}"
    return DataError(
        raw.source, rule, ", ".join(names), f"Choose one, for example {example}{extra}."
    )


def _report_possible_groups(free: dict[str, Profile]) -> None:
    for name, p in free.items():
        # Too few or too many distinct values to form groups.
        if column_key(name) in GROUPS and 1 < p.distinct < 0.9 * p.filled:
            notify(
                Finding(
                    "possible_group",
                    "info",
                    1 - p.distinct / p.filled,
                    p.filled - p.distinct,
                    (),
                    f"the column {name!r} repeats its values ({p.distinct} in {p.filled} rows "
                    "sampled): rows with the same value may be in different splits",
                    f"If rows with the same value are related, add --group {name}.",
                )
            )
