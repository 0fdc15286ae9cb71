"""One chat as turns: ``{"role": system | user | assistant | tool, "content": text}``, in order."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.data.cells import read_json_cell

Turn = dict[str, str]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
}

# What a turn may have beside its text, as chat services and trainers write it; and what a turn
# counts in the loss, with the value that says nothing.
UNREAD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
WEIGHTS = {"weight": 1, "train": True}
# Columns of the tools that a chat may call.
TOOLS = ("tools", "functions")

NO_CHAT = "no_chat"
ROLE_ORDER = "roles_out_of_order"
NO_ANSWER = "no_answer"
EMPTY_ANSWER = "empty_answer"
NO_PROMPT = "empty_prompt"
UNANSWERED = "unanswered_turn"

FAULTS = {
    NO_CHAT: "hold no list of turns, each with a role and a content",
    ROLE_ORDER: "have roles out of order (one system turn may come first, then user and assistant "
    "take turns)",
    NO_ANSWER: "hold no answer of an assistant",
    EMPTY_ANSWER: "have an empty answer",
    NO_PROMPT: "ask nothing: the prompt is empty",
}


def read_turns(value: object) -> list[Turn] | None:
    """The turns of a cell: a list, or its JSON, of objects with ``role`` and ``content`` (or
    ``from`` and ``value``), or an object that wraps such a list; ``None`` where it is none."""
    items = _items(value)
    turns = None if items is None else [_turn(item) for item in items]
    if turns is None or any(turn is None for turn in turns):
        return None
    return [turn for turn in turns if turn]


def unread_part(value: object) -> str | None:
    """What a chat, as ``read_turns`` takes it, holds beside the texts of its turns that a model is
    meant to learn, or not to: the name of the first such part. To drop it would train another chat
    than the one that was given."""
    for item in _items(value) or ():
        held = item if isinstance(item, dict) else {}
        said = [name for name in UNREAD if held.get(name) not in (None, "", [], {})]
        said += [name for name, usual in WEIGHTS.items() if held.get(name) not in (None, usual)]
        if said:
            return said[0]
    return None


def _items(value: object) -> list[object] | None:
    if isinstance(value, str):
        try:
            value = read_json_cell(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        value = value.get("messages", value.get("conversations"))
    return value if isinstance(value, list) and value else None


def _turn(item: object) -> Turn | None:
    if not isinstance(item, dict):
        return None
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value", item.get("text")))
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        texts = [part for part in parts if isinstance(part, str)]
        # A list of parts, as chat services write it; one that is no text leaves the turn unusable.
        content = "".join(texts) if len(texts) == len(content) else []
    known = ROLES.get(str(role).strip().lower())
    if known is None or not isinstance(content, (str, type(None))):
        return None
    return {"role": known, "content": content or ""}


def settle(turns: Sequence[Turn] | None) -> tuple[list[Turn], str | None, bool]:
    """The turns that can be learned from, what is wrong with them (a key of ``FAULTS``), and
    whether turns after the last answer were left out.

    An empty system turn is left out too.
    """
    if not turns:
        return [], NO_CHAT, False
    kept = [t for t in turns if t["role"] != "system" or t["content"].strip()]
    last = max((i for i, t in enumerate(kept) if t["role"] == "assistant"), default=-1)
    if last < 0:
        return kept, NO_ANSWER if in_order(kept) else ROLE_ORDER, False
    cut = last + 1 < len(kept)
    if not in_order(kept):
        return kept, ROLE_ORDER, cut
    kept = kept[: last + 1]
    if any(t["role"] == "assistant" and not t["content"].strip() for t in kept):
        return kept, EMPTY_ANSWER, cut
    if any(t["role"] == "user" and not t["content"].strip() for t in kept):
        return kept, NO_PROMPT, cut
    return kept, None, cut


def in_order(turns: Sequence[Turn]) -> bool:
    """At most one system turn, first; then user and assistant in turns; a tool speaks only
    between two turns of the assistant."""
    before = "start"
    allowed = {
        "start": ("system", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user", "tool"),
        "tool": ("assistant", "tool"),
    }
    for turn in turns:
        if turn["role"] not in allowed[before]:
            return False
        before = turn["role"]
    return True


def prompt_of(turns: Sequence[Turn]) -> list[Turn]:
    """The turns before the last answer; all of them where the last is no answer."""
    return list(turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns)


def asked(turns: Sequence[Turn]) -> str:
    """What was asked, in which copies of rows are looked for: all but answers and system turns."""
    return "\n".join(t["content"] for t in turns if t["role"] not in ("assistant", "system"))
