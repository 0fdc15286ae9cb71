"""Choose the columns of the chat, of the prompt and the answer, or of plain text: as given, or
inferred from their names with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.chats.turns import is_template
from holdfast.data.columns.profile import profile_columns, split_pairs
from holdfast.data.columns.roles import check_present, template_columns, usual_names
from holdfast.data.options import RowOptions
from holdfast.data.pairs import CERTAIN_PAIRS, PAIRS
from holdfast.data.raw import Raw

MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat")
INSTRUCTION = ("instruction", "instructions", "task")
ANSWERS = ("output", "response", "completion", "answer", "answers", "target")
INPUTS = ("input", "inputs", "context")
PROMPTS = split_pairs(
    """
    prompt:completion prompt:response question:answer query:response question:response
    input:output source:target
    """
)
TEXTS = ("text", "content", "document", "body", "article", "passage", "story")


@dataclass(frozen=True, slots=True)
class ChatColumns:
    """``form`` is ``messages``, ``instruction``, ``prompt`` or ``text``; ``text`` the columns of
    the chat, of the prompt (instruction, then input) or of the text; ``answer`` the column of
    the answer; ``system`` that of a system turn; ``template`` one made of columns."""

    form: str
    text: tuple[str, ...]
    answer: str | None = None
    system: str | None = None
    template: str | None = None


def choose_chat_columns(raw: Raw, options: RowOptions) -> ChatColumns:
    """The columns; inferred ones are logged as decisions.

    Where no label is needed, a named answer column may be missing.
    Raises ``DataError`` where a named column is missing or no column can be chosen.
    """
    text, label, need_answer = options.text, options.label, options.need_label
    for name in (*(text or ()), *((label,) if label and need_answer else ())):
        check_present(raw, name)
    if label is not None and label not in raw.names:
        label = None
    if options.messages is not None:
        check_present(raw, options.messages)
        return ChatColumns("messages", (options.messages,))
    system = "system" if "system" in raw.names else None
    template = options.template
    if template is not None and not is_template(template):
        names = template_columns(template, raw.names)
        label = label or _first(raw, ANSWERS)
        form = "text" if label is None and need_answer else "prompt"
        return ChatColumns(form, names, label, template=template)
    if text:
        return _named_columns(raw, tuple(text), label, system, need_answer)
    columns, because = _usual_columns(raw, label, system, need_answer)
    shown = " + ".join(columns.text) + (f" → {columns.answer}" if columns.answer else "")
    notify(Decision(f"columns of the {columns.form}", shown, because))
    return columns


def _named_columns(
    raw: Raw, text: tuple[str, ...], label: str | None, system: str | None, need_answer: bool
) -> ChatColumns:
    if label is None and len(text) == 1:
        nested = "nested" in raw.column_types.get(text[0], set())
        if nested or text[0].lower() in MESSAGES:
            return ChatColumns("messages", text)
        if need_answer or text[0].lower() in TEXTS:
            return ChatColumns("text", text)
    if label is None and need_answer:
        rule = "has several text columns and no answer column"
        remedy = "Name the column of answers: --label COLUMN."
        raise DataError(raw.source, rule, ", ".join(text), remedy)
    instruction = text[0].lower() in INSTRUCTION
    return ChatColumns("instruction" if instruction else "prompt", text, label, system)


def _usual_columns(
    raw: Raw, label: str | None, system: str | None, need_answer: bool
) -> tuple[ChatColumns, str]:
    """Choose the columns by their names, and give the reason."""
    # A dialogue with a summary is a plain text and its target, not a chat.
    pair = next((one for one in PAIRS if one in CERTAIN_PAIRS and set(one) <= set(raw.names)), None)
    chat = _first(raw, MESSAGES)
    is_text_pair = (
        pair is not None and chat == pair[0] and "nested" not in raw.column_types.get(chat, set())
    )
    if chat is not None and label is None and not is_text_pair:
        return ChatColumns("messages", (chat,)), f"{chat!r} is a usual name for chats"
    instruction, answer = _first(raw, INSTRUCTION), label or _first(raw, ANSWERS)
    if instruction is not None and (answer is not None or not need_answer):
        extra = _first(raw, INPUTS)
        text = (instruction,) if extra in (None, answer) else (instruction, str(extra))
        because = "these are usual names for an instruction, its input and its answer"
        return ChatColumns("instruction", text, answer, system), because
    for prompt, completion in (*PROMPTS, *([pair] if pair else [])):
        if prompt in raw.names and (completion in raw.names or not need_answer):
            answer_column = completion if completion in raw.names else None
            return ChatColumns(
                "prompt", (prompt,), label or answer_column, system
            ), "these are a usual pair of names"
    named = _first(raw, TEXTS)
    if named is not None:
        return ChatColumns("text", (named,)), "this is a usual name for plain text"
    wordy = [name for name, column in profile_columns(raw).items() if column.wordy]
    if len(wordy) == 1:
        return ChatColumns("text", (wordy[0],)), "it is the only column of texts"
    raise DataError(
        raw.source,
        "has no columns that could be a chat, an instruction or a text",
        ", ".join(raw.names),
        "Name them: --set data.messages=COLUMN for chats; --text PROMPT --label ANSWER; or "
        "--text COLUMN for plain text.",
    )


def _first(raw: Raw, names: Sequence[str]) -> str | None:
    return next(iter(usual_names(raw.names, names)), None)
