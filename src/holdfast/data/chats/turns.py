"""One chat as turns: read from a file, rendered as text, and parsed back from rendered text.

A turn is ``{"role": system | user | assistant | tool, "content": text}``; turns are in order. An
answer with ``"weight": 0`` is context: the loss leaves it out.
A template is Jinja, as ``tokenizer.apply_chat_template`` takes it: the tokenizer's own, one that
the recipe states, or a named one. Rendered text is parsed back because tokenizing it as plain text
would double its start token and train on the prompts as well as on the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.data.cells import read_json_cell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Turn(TypedDict):
    """One message of a chat."""

    role: str
    content: str
    weight: NotRequired[int]


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

# Parts of a turn other than its text, as chat services and trainers write them; and keys that say
# whether the loss counts a turn (0, 1, false, true).
UNREAD = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "train")
# Columns with the tools that a chat may call.
TOOLS = ("tools", "functions")

NO_CHAT = "no_chat"
ROLE_ORDER = "roles_out_of_order"
NO_ANSWER = "no_answer"
NO_TRAINED_ANSWER = "no_trained_answer"
EMPTY_ANSWER = "empty_answer"
NO_PROMPT = "empty_prompt"
UNANSWERED = "unanswered_turn"

FAULTS = {
    NO_CHAT: "without a list of turns, each with a role and a content",
    ROLE_ORDER: "with roles out of order (one system turn may come first, then user and assistant "
    "alternate)",
    NO_ANSWER: "without an assistant message",
    NO_TRAINED_ANSWER: "in which every assistant message has weight 0",
    EMPTY_ANSWER: "with an empty answer",
    NO_PROMPT: "with an empty prompt",
}


def read_turns(value: object) -> list[Turn] | None:
    """The turns of a cell: a list, or its JSON, of objects with ``role`` and ``content`` (or
    ``from`` and ``value``), or an object that contains such a list; ``None`` otherwise."""
    items = _items(value)
    turns = None if items is None else [_turn(item) for item in items]
    if turns is None or any(turn is None for turn in turns):
        return None
    return [turn for turn in turns if turn]


def unread_part(value: object) -> str | None:
    """The name of the first part of a chat, as ``read_turns`` takes it, that is neither a role nor
    text but affects what a model should learn; ``None`` if there is none. Training without that
    part would train on a different chat."""
    for item in _items(value) or ():
        fields = item if isinstance(item, dict) else {}
        unread = [name for name in UNREAD if fields.get(name) not in (None, "", [], {})]
        unread += [name for name in WEIGHTS if fields.get(name) not in (None, 0, 1)]
        if unread:
            return unread[0]
    return None


def unreadable_turn(value: object) -> str | None:
    """What ``read_turns`` cannot read of a chat's first unreadable turn: its role, or a part
    without text; ``None`` where it has none."""
    for item in _items(value) or ():
        if not isinstance(item, dict) or _turn(item) is not None:
            continue
        role = item.get("role", item.get("from"))
        if str(role).strip().lower() not in ROLES:
            known = ", ".join(dict.fromkeys(ROLES.values()))
            return f"the role {role!r} is unknown (known: {known}, and common aliases)"
        parts = item.get("content", item.get("value", item.get("text")))
        kinds = [
            part.get("type")
            for part in (parts if isinstance(parts, list) else ())
            if isinstance(part, dict) and not isinstance(part.get("text"), str)
        ]
        return f"a part of type {kinds[0]!r} has no text" if kinds else "the content is not text"
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
        # A list of parts, as chat services write it; a part without text makes the turn unusable.
        content = "".join(texts) if len(texts) == len(content) else []
    known = ROLES.get(str(role).strip().lower())
    if known is None or not isinstance(content, (str, type(None))):
        return None
    turn: Turn = {"role": known, "content": content or ""}
    # A column of structs has a null where a turn has no such key.
    if known == "assistant" and any(item.get(name) == 0 for name in WEIGHTS):
        turn["weight"] = 0
    return turn


def is_trained(turn: Turn) -> bool:
    """Whether the turn is an answer that the loss counts."""
    return turn["role"] == "assistant" and turn.get("weight") != 0


def clean_turns(turns: Sequence[Turn] | None) -> tuple[list[Turn], str | None, bool]:
    """The usable turns, what is wrong with them (a key of ``FAULTS``), and whether turns after the
    last answer that the loss counts were removed.

    An empty system turn is removed too.
    """
    if not turns:
        return [], NO_CHAT, False
    usable = [t for t in turns if t["role"] != "system" or t["content"].strip()]
    last = max((i for i, t in enumerate(usable) if is_trained(t)), default=-1)
    if last < 0:
        fault = NO_TRAINED_ANSWER if any(t["role"] == "assistant" for t in usable) else NO_ANSWER
        return usable, fault if roles_in_order(usable) else ROLE_ORDER, False
    is_cut = last + 1 < len(usable)
    if not roles_in_order(usable):
        return usable, ROLE_ORDER, is_cut
    usable = usable[: last + 1]
    if any(t["role"] == "assistant" and not t["content"].strip() for t in usable):
        return usable, EMPTY_ANSWER, is_cut
    if any(t["role"] == "user" and not t["content"].strip() for t in usable):
        return usable, NO_PROMPT, is_cut
    return usable, None, is_cut


def roles_in_order(turns: Sequence[Turn]) -> bool:
    """Whether at most one system turn comes first and user and assistant then alternate. A tool
    turn may only come between two turns of the assistant."""
    previous = "start"
    allowed = {
        "start": ("system", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user", "tool"),
        "tool": ("assistant", "tool"),
    }
    for turn in turns:
        if turn["role"] not in allowed[previous]:
            return False
        previous = turn["role"]
    return True


def prompt_turns(turns: Sequence[Turn]) -> list[Turn]:
    """The turns before the last answer; all of them where the last turn is not an answer."""
    return list(turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns)


def prompt_text(turns: Sequence[Turn]) -> str:
    """The text in which duplicates are searched for: all turns but answers and system turns."""
    return "\n".join(t["content"] for t in turns if t["role"] not in ("assistant", "system"))


DECISION_NAME = "chat template"
SETTING = "data.template"

_HEAD = "{% for message in messages %}"
NAMED_TEMPLATES = {
    "plain": "{{ bos_token or '' }}"
    + _HEAD
    + "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\n' + message['content'] + (eos_token or '') + '\n\n' }}"
    "{% else %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
    "chatml": _HEAD
    + "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama2": "{% set said = namespace(system='') %}"
    + _HEAD
    + "{% if message['role'] == 'system' %}"
    "{% set said.system = '<<SYS>>\n' + message['content'] + '\n<</SYS>>\n\n' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + ' ' + (eos_token or '') }}"
    "{% else %}{{ (bos_token or '') + '[INST] ' + said.system + message['content'] + ' [/INST]' }}"
    "{% set said.system = '' %}{% endif %}{% endfor %}",
    "llama3": "{{ bos_token or '' }}"
    + _HEAD
    + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "gemma": "{{ bos_token or '' }}"
    + _HEAD
    + "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "zephyr": _HEAD
    + "{{ '<|' + message['role'] + '|>\n' + message['content'] + (eos_token or '') + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
}


def is_template(given: str | None) -> bool:
    """Whether ``data.template`` states a chat template, rather than a text made of columns."""
    return given is not None and (given in NAMED_TEMPLATES or "{%" in given or "messages" in given)


def choose_template(
    tokenizer: PreTrainedTokenizerBase, form: str, stated: str | None
) -> tuple[str, Decision]:
    """The Jinja template for rows of this form, with the reason.

    In order: the one that the recipe states; the tokenizer's own; for rendered rows, the same
    template again; for instructions and prompts the named template ``plain``.

    Raises
    ------
    RecipeError : the rows hold messages, and neither the recipe nor the tokenizer has a template.
    """
    if stated is not None and is_template(stated):
        shown = stated if stated in NAMED_TEMPLATES else "your own template"
        return NAMED_TEMPLATES.get(stated, stated), Decision(
            DECISION_NAME, shown, f"set in the recipe: {SETTING}"
        )
    tokenizer_template = tokenizer.chat_template
    # Some tokenizers have several templates by name.
    if isinstance(tokenizer_template, dict):
        tokenizer_template = tokenizer_template.get("default")
    if tokenizer_template:
        return tokenizer_template, Decision(
            DECISION_NAME, "the tokenizer's own", "the model was trained with it"
        )
    if form in NAMED_TEMPLATES:
        because = "the rows are written in it, and the tokenizer has no template"
        return NAMED_TEMPLATES[form], Decision(DECISION_NAME, form, because)
    if form == "messages":
        rule = "is required: the rows hold messages, and the tokenizer has no chat template"
        remedy = f"Set one: --set {SETTING}=chatml. {_named_templates()}"
        raise RecipeError(SETTING, rule, stated, remedy)
    because = (
        "the tokenizer has no chat template, and each row holds one instruction and one answer "
        "(### Instruction: … ### Response: …)"
    )
    return NAMED_TEMPLATES["plain"], Decision(DECISION_NAME, "plain", because)


def check_template_name(given: str | None) -> None:
    """Refuse a single word that is not the name of a template."""
    if given and given not in NAMED_TEMPLATES and "{" not in given:
        rule = "is not a known template"
        raise RecipeError(SETTING, rule, given, f"{suggest_name(given, list(NAMED_TEMPLATES))}")


def _named_templates() -> str:
    return f"Known names: {', '.join(NAMED_TEMPLATES)}; or write a Jinja template."


SAMPLE = 200
SHARE = 0.9

_ENDS = re.compile(r"</s>|<s>|\[INST\]")
_SYSTEM = re.compile(r"\A\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
_BLOCKS = {
    "chatml": re.compile(
        r"<\|im_start\|>\s*(\w+)[ \t]*\n(.*?)(?:<\|im_end\|>|(?=<\|im_start\|>)|\Z)", re.DOTALL
    ),
    "llama3": re.compile(
        r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>(.*?)"
        r"(?:<\|eot_id\|>|<\|eom_id\|>|<\|end_of_text\|>|(?=<\|start_header_id\|>)|\Z)",
        re.DOTALL,
    ),
    "gemma": re.compile(
        r"<start_of_turn>\s*(\w+)[ \t]*\n(.*?)(?:<end_of_turn>|(?=<start_of_turn>)|\Z)", re.DOTALL
    ),
    "zephyr": re.compile(
        r"<\|(system|user|assistant)\|>[ \t]*\n(.*?)"
        r"(?:</s>|<\|end\|>|<\|endoftext\|>|(?=<\|(?:system|user|assistant)\|>)|\Z)",
        re.DOTALL,
    ),
}
TEMPLATE_MARKS = {
    "llama2": "[INST]",
    "chatml": "<|im_start|>",
    "llama3": "<|start_header_id|>",
    "gemma": "<start_of_turn>",
    "zephyr": "<|assistant|>",
}


def detect_template(texts: Sequence[str]) -> str | None:
    """The template (a key of ``TEMPLATE_MARKS``) that at least nine in ten of these texts use."""
    sample = [text for text in texts[:SAMPLE] if text and text.strip()]
    for name, mark in TEMPLATE_MARKS.items():
        if sample and sum(mark in text for text in sample) >= SHARE * len(sample):
            return name
    return None


def parse_rendered(text: str, template: str) -> list[Turn] | None:
    """The turns of a text in this template; ``None`` where it holds none of its turns.

    White space around each turn belongs to the template and is removed.
    """
    return _llama2(text) if template == "llama2" else _blocks(text, _BLOCKS[template])


def _llama2(text: str) -> list[Turn] | None:
    turns: list[Turn] = []
    for index, (question, answer) in enumerate(_exchanges(text)):
        system = _SYSTEM.match(question) if index == 0 else None
        if system:
            turns.append({"role": "system", "content": system.group(1).strip()})
            question = question[system.end() :]
        turns.append({"role": "user", "content": question.strip()})
        if answer:
            turns.append({"role": "assistant", "content": answer})
    return turns or None


def _exchanges(text: str) -> Iterator[tuple[str, str]]:
    """The texts between ``[INST]`` and ``[/INST]``, and after them. It searches marker by marker:
    one pattern for both would search to the end of the text again from every unclosed marker."""
    at = text.find("[INST]")
    while at >= 0 and (closed := text.find("[/INST]", at + 6)) >= 0:
        end = _ENDS.search(text, closed + 7)
        stop = end.start() if end else len(text)
        yield text[at + 6 : closed], text[closed + 7 : stop].strip()
        at = text.find("[INST]", stop)


def _blocks(text: str, pattern: re.Pattern[str]) -> list[Turn] | None:
    turns: list[Turn] = []
    for role, content in pattern.findall(text):
        # An unknown role: the markers do not belong to this template.
        known = ROLES.get(role.lower())
        if known is None:
            return None
        turns.append({"role": known, "content": content.strip()})
    return turns or None
