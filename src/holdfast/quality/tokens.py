"""Faults of tokenised rows of a language model: what is masked, trained, cut or lost, whoever made
them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdfast.core.records import Finding, Severity
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.chats.marked import decoded, marked_text
from holdfast.quality.token_rows import Marks, Mask, TokenRow, marks_of, turns_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rows of which this share has the same greatest length are packed or cut into blocks, unless they
# are chats that begin alike.
PACKED, SAME_BEGINNING = 0.8, 0.95
# The first tokens of an answer, after the mark that opens it: a line break or two are not trained.
FIRST_TOKENS = 4
# Findings that another one explains.
CONSEQUENCES = {
    "labels_shifted": ("end_masked", "end_missing", "answers_untrained", "labels_differ"),
    "labels_differ": ("end_masked", "end_missing"),
    "foreign_template": ("end_missing",),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """All rows with the tokenizer's marks and the places of their turns."""

    rows: Sequence[TokenRow]
    marks: Marks
    turns: Sequence[Sequence[tuple[int, int, str]]]
    texts: Sequence[str]
    longest: int
    packed: bool

    def is_cut(self, index: int) -> bool:
        """Whether a row has the greatest length, and may be cut there."""
        return int(self.rows[index].read.sum()) == self.longest


def _nothing_trained(all_rows: _Rows) -> Iterator[int]:
    return (i for i, row in enumerate(all_rows.rows) if not row.trained.any())


def _padding_trained(all_rows: _Rows) -> Iterator[int]:
    pad, ends = all_rows.marks.pad, all_rows.marks.ends
    for i, row in enumerate(all_rows.rows):
        is_pad = ~row.read if pad is None or pad in ends else ~row.read | (row.ids == pad)
        if (row.trained & is_pad).any():
            yield i


def _outside(all_rows: _Rows) -> Iterator[int]:
    size = all_rows.marks.size
    for i, row in enumerate(all_rows.rows):
        labels = row.labels[row.trained]
        if (row.ids >= size).any() or (labels < 0).any() or (labels >= size).any():
            yield i


def _unknown(all_rows: _Rows) -> Iterator[int]:
    unknown, ends = all_rows.marks.unknown, all_rows.marks.ends
    if unknown is None or unknown in (*ends, all_rows.marks.start, all_rows.marks.pad):
        return
    for i, row in enumerate(all_rows.rows):
        if row.read.any() and (row.ids[row.read] == unknown).mean() > 0.02:
            yield i


def _shifted(row: TokenRow) -> bool:
    trained = np.flatnonzero(row.trained[:-1])
    if not len(trained):
        return False
    next_, same = (
        row.labels[trained] == row.ids[trained + 1],
        row.labels[trained] == row.ids[trained],
    )
    return bool(next_.mean() > 0.9 and same.mean() < 0.5)


def _labels_shifted(all_rows: _Rows) -> Iterator[int]:
    return (i for i, row in enumerate(all_rows.rows) if _shifted(row))


def _labels_differ(all_rows: _Rows) -> Iterator[int]:
    for i, row in enumerate(all_rows.rows):
        trained = row.trained & row.read
        if trained.any() and not _shifted(row) and (row.labels != row.ids)[trained].mean() > 0.05:
            yield i


def _double_start(all_rows: _Rows) -> Iterator[int]:
    start = all_rows.marks.start
    for i, row in enumerate(all_rows.rows):
        first = row.ids[row.read][:2]
        if start is not None and len(first) == 2 and (first == start).all():
            yield i


def _foreign_template(all_rows: _Rows) -> Iterator[int]:
    for i, text in enumerate(all_rows.texts):
        if any(mark in text for mark in all_rows.marks.foreign):
            yield i


def _prompt_trained(all_rows: _Rows) -> Iterator[int]:
    for i, (row, turns) in enumerate(zip(all_rows.rows, all_rows.turns, strict=True)):
        ends = [end for _, end, role in turns if role == "user" and end < len(row.ids)]
        if any(row.trained[end] for end in ends):
            yield i


def _turns_lost(all_rows: _Rows) -> Iterator[int]:
    for i, turns in enumerate(all_rows.turns):
        pairs = list(itertools.pairwise(turns))
        repeated = any(one[2] == other[2] for one, other in pairs)
        # A template that opens an answer as it closes the question has an empty one.
        empty = any(one[2] == "assistant" and other[0] <= one[1] for one, other in pairs)
        unanswered = turns and turns[-1][2] == "user" and not all_rows.is_cut(i)
        if turns and (repeated or empty or turns[0][2] == "assistant" or unanswered):
            yield i


def _answers_untrained(all_rows: _Rows) -> Iterator[int]:
    for i, (row, turns) in enumerate(zip(all_rows.rows, all_rows.turns, strict=True)):
        stops = [*(at for at, _, _ in turns[1:]), len(row.ids)]
        learned = [
            bool(row.trained[end : min(end + FIRST_TOKENS, stop)].any())
            for (_, end, role), stop in zip(turns, stops, strict=False)
            if role == "assistant" and end < stop
        ]
        if any(learned) and not all(learned):
            yield i


def _answers_cut(all_rows: _Rows) -> Iterator[int]:
    if all_rows.packed:
        return
    for i, row in enumerate(all_rows.rows):
        places = np.flatnonzero(row.read)
        if not len(places) or not all_rows.is_cut(i):
            continue
        last = places[-1]
        if row.trained[last] and int(row.ids[last]) not in all_rows.marks.ends:
            yield i


def _end_places(row: TokenRow, marks: Marks) -> Mask:
    return np.isin(row.ids, list(marks.ends))


def _end_masked(all_rows: _Rows) -> Iterator[int]:
    """An end token right after what is trained, and itself not trained."""
    if all_rows.packed:
        return
    for i, row in enumerate(all_rows.rows):
        ends, trained = _end_places(row, all_rows.marks), row.trained
        after = np.flatnonzero(trained[:-1] & ~trained[1:]) + 1
        if len(after) and ends[after].any() and not (ends & trained & row.read).any():
            yield i


def _end_missing(all_rows: _Rows) -> Iterator[int]:
    """Nothing trained is an end token, and none follows."""
    if all_rows.packed:
        return
    masked = set(_end_masked(all_rows))
    for i, row in enumerate(all_rows.rows):
        trained = row.trained & row.read
        if not trained.any() or i in masked or all_rows.is_cut(i):
            continue
        if not (_end_places(row, all_rows.marks) & trained).any():
            yield i


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """A check: the rows with the fault, from which ``share`` of all rows on it is a finding, and
    the words."""

    name: str
    find: Callable[[_Rows], Iterator[int]]
    share: float
    severity: Severity
    because: str
    remedy: str


CHECKS = (
    TokenCheck(
        "nothing_trained",
        _nothing_trained,
        0.0,
        "error",
        "every label is −100, so the model learns nothing from them",
        "Find out why the answer is masked: it may be cut off, or the template's answer mark may "
        "not be the one that the collator searches for.",
    ),
    TokenCheck(
        "padding_trained",
        _padding_trained,
        0.0,
        "error",
        "the loss covers padding",
        "Set the labels of padding to −100.",
    ),
    TokenCheck(
        "ids_outside_vocabulary",
        _outside,
        0.0,
        "error",
        "a token id or a label (other than −100) is not in the tokenizer's vocabulary",
        "Tokenise with this model's tokenizer.",
    ),
    TokenCheck(
        "unknown_tokens",
        _unknown,
        0.05,
        "warn",
        "more than 2 % of the tokens are the unknown token",
        "Tokenise with this model's tokenizer, or choose a model for this language.",
    ),
    TokenCheck(
        "labels_shifted",
        _labels_shifted,
        0.02,
        "error",
        "each label is already the next token, but the model shifts the labels itself: it would "
        "learn to predict the token after the next one",
        "Use labels equal to input_ids, with −100 where no loss is computed.",
    ),
    TokenCheck(
        "labels_differ",
        _labels_differ,
        0.02,
        "error",
        "labels differ from the token ids at the same places",
        "Use labels equal to input_ids, with −100 where no loss is computed.",
    ),
    TokenCheck(
        "double_start",
        _double_start,
        0.05,
        "warn",
        "two start tokens begin the row: the template and the tokenizer each add one",
        "Tokenise rendered chats with add_special_tokens=False.",
    ),
    TokenCheck(
        "foreign_template",
        _foreign_template,
        0.05,
        "warn",
        "there are marks of a chat template that is not this tokenizer's",
        "Render the chats with tokenizer.apply_chat_template.",
    ),
    TokenCheck(
        "prompt_trained",
        _prompt_trained,
        0.05,
        "warn",
        "the loss covers user turns, so the model also learns to generate user messages",
        "Set the labels of everything but the answers to −100 (TRL: assistant_only_loss, or "
        "completion_only_loss).",
    ),
    TokenCheck(
        "turns_lost",
        _turns_lost,
        0.05,
        "warn",
        "turns are missing: two of the same role follow one another, an answer has no question, or "
        "the last question has no answer",
        "Check how the turns are parsed, and at which length rows are truncated.",
    ),
    TokenCheck(
        "answers_untrained",
        _answers_untrained,
        0.05,
        "warn",
        "the loss covers only some of the answers",
        "Train all answers, unless only some of them are good.",
    ),
    TokenCheck(
        "answers_cut",
        _answers_cut,
        0.02,
        "warn",
        "the answer is truncated at the maximum length, without an end token",
        "Raise the maximum length, or leave such rows out.",
    ),
    TokenCheck(
        "end_masked",
        _end_masked,
        0.05,
        "error",
        "the end token after the answer has the label −100, so the model never learns to stop; "
        "often because the padding token is the end token, and a collator masks all padding",
        "Use another padding token, or mask padding by the attention mask.",
    ),
    TokenCheck(
        "end_missing",
        _end_missing,
        0.05,
        "warn",
        "no end token follows the trained text, so the model does not learn to stop",
        "End each answer with the tokenizer's end token, or with that of the chat template.",
    ),
)


def check_tokens(
    rows: Sequence[TokenRow], tokenizer: PreTrainedTokenizerBase
) -> tuple[Finding, ...]:
    """The faults of these rows, each with a decoded example; none for sound rows.

    A fault is a finding where the share of rows that have it
    exceeds the check's threshold, so that single odd rows are none.
    """
    if not rows:
        return ()
    marks = marks_of(tokenizer)
    lengths = np.array([int(row.read.sum()) for row in rows])
    longest = int(lengths.max())
    turns = [turns_in(row, marks) for row in rows]
    needs_texts = bool(marks.foreign)
    all_rows = _Rows(
        rows,
        marks,
        turns,
        [decoded(tokenizer, row.ids[row.read]) if needs_texts else "" for row in rows],
        longest,
        bool((lengths == longest).mean() >= PACKED) and not _are_chats(rows, turns),
    )
    found = {check.name: list(check.find(all_rows)) for check in CHECKS}
    shown = {
        check.name
        for check in CHECKS
        if found[check.name] and len(found[check.name]) / len(rows) > check.share
    }
    hidden = {name for one in shown for name in CONSEQUENCES.get(one, ())}
    return tuple(
        _finding(check, [rows[i] for i in found[check.name]], len(rows), tokenizer)
        for check in CHECKS
        if check.name in shown - hidden
    )


def _are_chats(rows: Sequence[TokenRow], turns: Sequence[Sequence[object]]) -> bool:
    """Whether rows are chats from their beginning, and no blocks cut out of them."""
    firsts = [int(row.ids[row.read][0]) for row in rows if row.read.any()]
    if not firsts or sum(map(bool, turns)) < len(rows) / 2:
        return False
    return max(map(firsts.count, set(firsts))) >= SAME_BEGINNING * len(rows)


def _finding(
    check: TokenCheck, faulty: Sequence[TokenRow], total: int, tokenizer: PreTrainedTokenizerBase
) -> Finding:
    share = len(faulty) / total
    example = faulty[len(faulty) // 2]
    because = (
        f"in {count_phrase(len(faulty), 'row')} of {total:,} ({percent_phrase(share, 1)}) "
        f"{check.because}. Row {example.number}: "
        f"{marked_text(tokenizer, example.ids, example.trained)}"
    )
    numbers = tuple(row.number for row in faulty)
    return Finding(check.name, check.severity, share, len(faulty), numbers, because, check.remedy)
