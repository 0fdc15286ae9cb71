"""Label leakage: the label written in the text, or predicted by another column."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Ints, Severity
from holdfast.core.wording import list_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.views import TableRows

_MAX_ROWS = 20_000
_LEAST_ROWS = 20
_MIN_IN_CLASS, _MAX_ELSEWHERE = 0.5, 0.02
_MIN_MARKED_SHARE = 0.95
_MAX_SHARE_OF_OTHERS = 0.002
_MIN_NAME_WORD_ROWS = 50
_SHOWN = 4
_BETWEEN = re.compile(r"[\W_]+")


@check(
    TableRows,
    cannot_see="A shortcut in only some rows of a class, or one that other classes share.",
    error_rate="Reports nothing on CR, MR, TREC and BANKING77, which have no such shortcut.",
    applies_to=has_classes,
)
def label_giveaway(rows: TableRows) -> CheckResult | None:
    """Reports texts that contain their label, in three forms. (1) A class name begins or ends at
    least half of the texts of its class and at most 2 % of the others. (2) *Every* class has its
    own first or last word, in 95 % of its texts. (3) Some word, token or symbol occurs in *every*
    text of a class and in at most one in 500 other texts.

    It reads up to 20,000 rows spread over the table, and only classes with 20 rows or more among
    them. A keyword that is only frequent does not count: it may be the topic of the class. A word
    of the class's name may be its topic too, so it must occur in all of at least 50 texts. The
    finding is a warning; it is an error if half of the rows, or all classes but one, are affected.
    Score: the share of the class's texts that have the shortcut; for form 3, of all texts.
    """
    table = rows.table
    # Spread over the table, as files are often sorted by class.
    step = max(1, len(table) // _MAX_ROWS)
    part = table.take(np.arange(0, len(table), step))
    labels, texts = part.column("label"), part.column("text")
    words = [_words(text) for text in texts]
    for end, place in ((0, "begins"), (-1, "ends")):
        leak = _class_name_leak(table, labels, words, end, place) or _class_word_leak(
            table, labels, words, end, place
        )
        if leak is not None:
            return leak
    return _leak_inside_texts(table, labels, texts)


def _words(text: str) -> list[str]:
    # fastText writes labels as __label__NAME
    return _BETWEEN.sub(" ", text.casefold().replace("__label__", " ")).split()


def _class_name_leak(
    table: Table, labels: np.ndarray, words: list[list[str]], end: int, place: str
) -> CheckResult | None:
    for index, name in enumerate(table.classes):
        name_words = _words(name)
        in_class = labels == index
        # A class named "a" or "1" opens texts by chance; a single Chinese character is a word.
        if in_class.sum() < _LEAST_ROWS or not name_words or (name.isascii() and len(name) < 2):
            continue
        span = slice(None, len(name_words)) if end == 0 else slice(-len(name_words), None)
        has = np.array([row[span] == name_words for row in words])
        share, elsewhere_share = (
            has[in_class].mean(),
            has[~in_class].mean() if (~in_class).any() else 0.0,
        )
        if share >= _MIN_IN_CLASS and elsewhere_share <= _MAX_ELSEWHERE:
            because = (
                f"{percent_phrase(share)} of the texts of class {name!r} {place[:-1]} "
                "with the class name"
            )
            return _leak_result(float(share), int(has[in_class].sum()), because)
    return None


def _class_word_leak(
    table: Table, labels: np.ndarray, words: list[list[str]], end: int, place: str
) -> CheckResult | None:
    present = [index for index in range(len(table.classes)) if (labels == index).any()]
    marks: dict[str, float] = {}
    hits = 0
    for index in present:
        in_class = [words[n] for n in np.flatnonzero(labels == index)]
        word, count = Counter(row[end] if row else "" for row in in_class).most_common(1)[0]
        share = count / len(in_class)
        # One class without such a word is enough to show that the words do not encode the label.
        if len(in_class) < _LEAST_ROWS or share < _MIN_MARKED_SHARE or not word or word in marks:
            return None
        marks[word] = share
        hits += count
    if len(marks) < 2:
        return None
    shown = ", ".join(map(repr, list(marks)[:4]))
    because = f"nearly every text {place} with a word that only its class uses there ({shown})"
    return _leak_result(min(marks.values()), hits, because)


def _leak_inside_texts(table: Table, labels: np.ndarray, texts: list[str]) -> CheckResult | None:
    rows = np.bincount(labels[labels >= 0], minlength=len(table.classes))
    marks_of_class = {
        c: marks
        for c, name in enumerate(table.classes)
        if _LEAST_ROWS <= rows[c] < rows.sum() and (marks := _marks_of(c, name, texts, labels))
    }
    if not marks_of_class:
        return None
    count = int(sum(rows[c] for c in marks_of_class))
    present = int((rows > 0).sum())
    serious = 2 * count >= rows.sum() or len(marks_of_class) >= present - 1
    sentences = [
        f"{' and '.join(map(repr, marks[:2]))} in all {rows[c]} of class {table.classes[c]!r}"
        for c, marks in marks_of_class.items()
    ]
    shown = list_phrase(sentences, _SHOWN, more="; and {} more classes")
    because = f"every text of a class contains a word or symbol that hardly any other has: {shown}"
    return _leak_result(count / int(rows.sum()), count, because, "error" if serious else "warn")


def _marks_of(index: int, name: str, texts: list[str], labels: np.ndarray) -> list[str]:
    """Words and symbols that occur in every text of a class and in hardly any other; the longest
    first."""
    first, *in_class = np.flatnonzero(labels == index).tolist()
    shared_tokens = _text_tokens(texts[first])
    for at in in_class:
        shared_tokens &= _text_tokens(texts[at])
        if not shared_tokens:
            return []
    others = np.flatnonzero((labels != index) & (labels >= 0))
    allowed = int(_MAX_SHARE_OF_OTHERS * len(others))
    allowance = dict.fromkeys(shared_tokens, allowed)
    if len(in_class) + 1 < _MIN_NAME_WORD_ROWS:
        name_words = set(_words(name))
        allowance = {
            thing: n for thing, n in allowance.items() if not name_words & set(_words(thing))
        }
    for at in others.tolist():
        if not allowance:
            break
        for thing in allowance.keys() & _text_tokens(texts[at]):
            allowance[thing] -= 1
            if allowance[thing] < 0:
                del allowance[thing]
    return sorted(allowance, key=lambda thing: (-len(thing), thing))


def _text_tokens(text: str) -> set[str]:
    """The words of a text, with and without case and punctuation, and its characters that are
    neither letters nor digits."""
    marks = {character for character in set(text) if not character.isalnum()}
    return {*_words(text), *text.split(), *marks}


def _leak_result(
    share: float, count: int, because: str, severity: Severity = "error"
) -> CheckResult:
    return result(
        (),
        because,
        "Remove it from the texts: new texts will not contain it.",
        score=share,
        severity=severity,
        count=count,
    )


LEAST_ROWS = 50
# Least share of the majority-class baseline's errors that the column must remove.
MIN_PREDICTED_SHARE = 0.8
SHOWN = 4
_LAST_PART = re.compile(r"[\\/][^\\/]*$")
_DIGITS = re.compile(r"\d+")


@check(
    TableRows,
    cannot_see="Columns that predict the class only in combination, and the order of the rows in "
    "the file.",
    error_rate="It also reports a second column of labels. It reported none of 40 columns of "
    "random values, numbers, ids and paths.",
    applies_to=has_classes,
)
def telling_columns(rows: TableRows) -> CheckResult | None:
    """Reports columns other than the text that predict the class without it: by their value, by
    the folder of a path, by the characters around the digits of an id, or by the neighbouring rows
    in the order of the column's numbers or dates. A row never predicts itself. Over 50 rows or
    more, the column must remove at least 80 % of the errors of the majority-class baseline. Score:
    that share.
    """
    labels = rows.labels
    labelled = np.flatnonzero(labels >= 0)
    if len(labelled) < LEAST_ROWS:
        return None
    y, names = labels[labelled], rows.other_columns.names
    majority_error = 1 - float(np.bincount(y).max()) / len(y)
    leaking: list[tuple[float, str, str, Ints]] = []
    for name in names:
        values = rows.other_columns[name]
        predictors = _column_predictors([values[at] for at in labelled.tolist()], y)
        best = max(predictors, key=lambda one: one[1].mean(), default=None)
        if best is None or majority_error <= 0:
            continue
        share = 1 - (1 - float(best[1].mean())) / majority_error
        if share >= MIN_PREDICTED_SHARE:
            leaking.append((share, name, best[0], labelled[best[1] == 1]))
    if not leaking:
        return None
    leaking.sort(key=lambda one: (-one[0], one[1]))
    at = np.unique(np.concatenate([one[3] for one in leaking]))
    shown = list_phrase([f"{name!r} by {how}" for _, name, how, _ in leaking], SHOWN)
    return result(
        rows.ids[at],
        f"a column other than the text predicts the class without it: {shown}",
        "Do not use it as a feature or in the text, unless it is available at prediction time.",
        score=min(1.0, leaking[0][0]),
        severity="info",
    )


def _column_predictors(values: Sequence[str | None], y: Ints) -> Iterator[tuple[str, np.ndarray]]:
    """Ways to predict the class from the column, and which rows each predicts correctly [n]."""
    values_ = [value or "" for value in values]
    if len(set(values_)) < 2:
        return
    yield "its value", _group_predicts(values_, y)
    folders = [_LAST_PART.sub("", value) for value in values_]
    if folders != values_:
        yield "the folder in it", _group_predicts(folders, y)
    masks = [_DIGITS.sub("0", value) for value in values_]
    if masks != values_ and len(set(masks)) > 1:
        yield "the characters around its digits", _group_predicts(masks, y)
    numbers = _numbers(values_)
    # The order is meaningful only if all values have the same number of numbers.
    alike = all(numbers) and len({len(each) for each in numbers}) == 1
    if alike and len(set(numbers)) > len(y) / 2:
        yield "its order", _order_predicts(numbers, y)


def _group_predicts(values: Sequence[str], y: Ints) -> np.ndarray:
    """1 if the row's class is the most frequent one among the other rows with its value, else 0."""
    value_index = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)[1]
    table = np.zeros((value_index.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(table, (value_index, y), 1)
    own_count = table[value_index, y] - 1
    others = table[value_index].copy()
    others[np.arange(len(y)), y] = 0
    return np.asarray((own_count > others.max(axis=1)).astype(float))


def _numbers(values: Sequence[str]) -> list[tuple[Any, ...]]:
    """What sorts the values: their number if each is one, else the digits in them (of a date)."""
    try:
        numbers = [(float(value),) for value in values]
        if np.isfinite(numbers).all():
            return numbers
    except ValueError:
        pass
    # Without ``int``, which refuses very long ones.
    runs = [[run.lstrip("0") for run in _DIGITS.findall(value)] for value in values]
    return [tuple((len(run), run) for run in each) for each in runs]


def _order_predicts(numbers: Sequence[tuple[Any, ...]], y: Ints) -> np.ndarray:
    """1 if both neighbours in the order (or the only one) are of the row's class, else 0."""
    order = sorted(range(len(y)), key=lambda at: (numbers[at], at))
    sorted_y = y[order]
    same = sorted_y[1:] == sorted_y[:-1]
    sorted_correct = np.ones(len(y), dtype=bool)
    sorted_correct[1:] &= same
    sorted_correct[:-1] &= same
    correct = np.empty(len(y))
    correct[order] = sorted_correct
    return correct
