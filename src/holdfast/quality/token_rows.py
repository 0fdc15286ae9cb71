"""Tokenised rows of a language model, and what a tokenizer marks in them.

A row is its token ids, its labels (−100 where no loss is computed) and which of its tokens the
model reads. What opens and closes a turn is read off the tokenizer's chat template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.machine import resource_bounds
from holdfast.core.records import Ints
from holdfast.core.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = npt.NDArray[np.bool_]
MASKED = -100
# Marks of the usual chat templates, which a model knows only if its own template has them.
TEMPLATE_MARKS = (
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "[INST]",
    "<|user|>",
    "<|assistant|>",
    "<|eot_id|>",
    "<|im_end|>",
    "### Instruction:",
    "### Response:",
)
# A template is untrusted code.
LONGEST_S, MOST_MEMORY = 5.0, 500_000_000


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """One row: ``ids`` [n], ``labels`` [n], and which tokens are ``read`` [n] (not padding)."""

    number: int
    ids: Ints
    labels: Ints
    read: Mask

    @property
    def trained(self) -> Mask:
        return np.asarray(self.labels != MASKED)


@dataclass(frozen=True, slots=True)
class Marks:
    """What a tokenizer marks: the ``start`` and ``pad`` tokens, every token that ``ends`` an answer
    or a text, the ``unknown`` one, the ``size`` of its vocabulary; how the turns of ``user`` and
    ``assistant`` open, as token ids, each in one or more forms; ``foreign`` template marks, which
    its template does not have."""

    start: int | None
    pad: int | None
    ends: frozenset[int]
    unknown: int | None
    size: int
    user: tuple[tuple[int, ...], ...] = ()
    assistant: tuple[tuple[int, ...], ...] = ()
    foreign: tuple[str, ...] = ()


def token_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> list[TokenRow]:
    """Rows of ``input_ids`` with ``labels`` (without them every token is trained, as in
    pretraining) and ``attention_mask`` (without it the padding tokens at both ends are not
    read)."""
    found = []
    for number, row in enumerate(rows):
        ids = np.asarray(row["input_ids"], dtype=np.int64).ravel()
        given, mask = row.get("labels"), row.get("attention_mask")
        if mask is not None:
            read = np.asarray(mask).ravel() > 0
        else:
            read = _unpadded(ids, tokenizer.pad_token_id)
        if given is None:
            labels = np.where(read, ids, MASKED)
        else:
            labels = np.asarray(given, dtype=np.int64).ravel()
            if mask is None and tokenizer.pad_token_id == tokenizer.eos_token_id:
                # What is trained is an end, not padding.
                read |= labels != MASKED
        found.append(TokenRow(number, ids, labels, read))
    return found


def spread(rows: Sequence[TokenRow], most: int) -> Sequence[TokenRow]:
    """At most ``most`` of the rows, drawn with a fixed seed, in their order."""
    if len(rows) <= most:
        return rows
    drawn = generator(0, "tokens").choice(len(rows), most, replace=False)
    return [rows[at] for at in sorted(drawn.tolist())]


def _unpadded(ids: Ints, pad: int | None) -> Mask:
    """Which tokens are not in a run of padding at either end; where padding is the end token, the
    first of the run at the end is that end."""
    read = np.ones(len(ids), dtype=bool)
    others = np.flatnonzero(ids != pad)
    if pad is None or not len(others):
        return read
    read[: others[0]] = False
    read[others[-1] + 2 :] = False
    return read


def marks_of(tokenizer: PreTrainedTokenizerBase) -> Marks:
    """What the tokenizer marks, by its special tokens and its chat template."""
    ends = {tokenizer.eos_token_id} - {None}
    opening = _openings(tokenizer)
    template = str(tokenizer.chat_template or "")
    foreign = tuple(mark for mark in TEMPLATE_MARKS if template and mark not in template)
    if opening is not None:
        ends |= set(_ids(tokenizer, opening.closing)[:1])
    return Marks(
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
        frozenset(int(one) for one in ends if one is not None),
        tokenizer.unk_token_id,
        len(tokenizer),
        _forms(tokenizer, opening.user) if opening else (),
        _forms(tokenizer, opening.assistant) if opening else (),
        # In zephyr's template the roles are filled in.
        tuple(mark for mark in foreign if not (opening and mark in opening.text)),
    )


@dataclass(frozen=True, slots=True)
class _Openings:
    """The texts that open a turn of the user and of the assistant, the one that closes an answer,
    and the whole rendered ``text``."""

    user: str
    assistant: str
    closing: str
    text: str


QUESTION, ANSWER, SECOND_QUESTION, SECOND_ANSWER = "Qa1q", "Za2z", "Qb3q", "Zb4z"


def _openings(tokenizer: PreTrainedTokenizerBase) -> _Openings | None:
    """How the chat template opens and closes turns; ``None`` where it has none, or one that does
    not keep the turns apart."""
    if not tokenizer.chat_template:
        return None
    contents = (QUESTION, ANSWER, SECOND_QUESTION, SECOND_ANSWER)
    roles = ("user", "assistant") * 2
    turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
    try:
        with resource_bounds(LONGEST_S, MOST_MEMORY):
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
            question = str(tokenizer.apply_chat_template(turns[:1], tokenize=False))
            opened = str(
                tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
            )
    # A template raises errors of its own.
    except Exception:
        return None
    places = [text.find(one) for one in contents]
    if -1 in places or places != sorted(places):
        return None
    after_answer = text[places[1] + len(ANSWER) : places[2]]
    before_answer = text[places[2] + len(SECOND_QUESTION) : places[3]]
    closing = text[places[3] + len(SECOND_ANSWER) :]
    # Some close with a line break more at the end.
    if not after_answer.startswith(closing):
        closing = closing.strip()
    user = after_answer.removeprefix(closing).strip()
    assistant = opened.removeprefix(question).strip() if opened.startswith(question) else ""
    return _Openings(user, assistant or before_answer.strip(), closing.strip(), text)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _forms(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[tuple[int, ...], ...]:
    """The ids of an opening as it may stand in a row: at the beginning, after a space, after a line
    break."""
    if not text:
        return ()
    alone = tuple(_ids(tokenizer, text))
    found = {alone}
    for before in (" ", "\n", "\n\n"):
        ids, lead = tuple(_ids(tokenizer, before + text)), tuple(_ids(tokenizer, before))
        found.add(ids[len(lead) :] if ids[: len(lead)] == lead else ids)
    return tuple(sorted(found, key=len))


def _places(ids: Ints, forms: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """Where one of the forms stands: its first place → the place after it."""
    found: dict[int, int] = {}
    for form in forms:
        if not form or len(form) > len(ids):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(ids, len(form))
        for at in np.flatnonzero((windows == np.asarray(form)).all(axis=1)).tolist():
            found[at] = at + len(form)
    return found


def turns_in(row: TokenRow, marks: Marks) -> list[tuple[int, int, str]]:
    """The openings in a row, in order: place, place after it, role."""
    found = [
        (at, end, role)
        for role, forms in (("user", marks.user), ("assistant", marks.assistant))
        for at, end in _places(row.ids, forms).items()
    ]
    return sorted(found)
