"""How turns become text, and text that was already rendered becomes turns again.

A template is Jinja, as ``tokenizer.apply_chat_template`` takes it: the tokenizer's own, one that
the recipe states, or a named one. To tokenise rendered text as it stands would double its start
token and learn the questions by heart with the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from holdfast.core.discovery import nearest
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.data.chats.turns import ROLES, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHAT = "chat template"
SETTING = "data.template"

_HEAD = "{% for message in messages %}"
NAMED = {
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
    return given is not None and (given in NAMED or "{%" in given or "messages" in given)


def choose_template(
    tokenizer: PreTrainedTokenizerBase, form: str, given: str | None
) -> tuple[str, Decision]:
    """The Jinja template for rows of this form, with the reason.

    In order: the one that the recipe states; the tokenizer's own; for rows that were already
    rendered, the same template again; for instructions and prompts the named ``plain`` one.

    Raises
    ------
    RecipeError : rows of messages, and neither a stated template nor one of the tokenizer.
    """
    if given is not None and is_template(given):
        shown = given if given in NAMED else "a template of yours"
        return NAMED.get(given, given), Decision(WHAT, shown, f"set by you: {SETTING}")
    own = tokenizer.chat_template
    # Some tokenizers have several templates by name.
    if isinstance(own, dict):
        own = own.get("default")
    if own:
        return own, Decision(WHAT, "the tokenizer's own", "the model was trained with it")
    if form in NAMED:
        because = "the rows are written in it, and the tokenizer has no template of its own"
        return NAMED[form], Decision(WHAT, form, because)
    if form == "messages":
        raise RecipeError(
            SETTING,
            "is needed: the rows hold messages, and the tokenizer has no chat template",
            given,
            f"State one: --set {SETTING}=chatml. {_named()}",
        )
    because = (
        "the tokenizer has no chat template, and the rows hold one instruction and one answer each "
        "(### Instruction: … ### Response: …)"
    )
    return NAMED["plain"], Decision(WHAT, "plain", because)


def check_given(given: str | None) -> None:
    """Refuse a single word that is no named template."""
    if given and given not in NAMED and "{" not in given:
        raise RecipeError(SETTING, "is no template", given, f"{nearest(given, list(NAMED))}")


def _named() -> str:
    return f"Named ones: {', '.join(NAMED)}; or write Jinja, as tokenizers have it."


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
MARKS = {
    "llama2": "[INST]",
    "chatml": "<|im_start|>",
    "llama3": "<|start_header_id|>",
    "gemma": "<start_of_turn>",
    "zephyr": "<|assistant|>",
}


def rendered_as(texts: Sequence[str]) -> str | None:
    """The template (a key of ``MARKS``) that nine in ten of these texts are written in."""
    sample = [text for text in texts[:SAMPLE] if text and text.strip()]
    for name, mark in MARKS.items():
        if sample and sum(mark in text for text in sample) >= SHARE * len(sample):
            return name
    return None


def parse_rendered(text: str, template: str) -> list[Turn] | None:
    """The turns of a text written in this template; ``None`` where it holds none of its turns.

    White space around each turn belongs to the template, and goes.
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
    """What stands between ``[INST]`` and ``[/INST]``, and after it. Mark by mark, since one pattern
    for both would search to the end of the text again from every mark that is not closed."""
    at = text.find("[INST]")
    while at >= 0 and (closed := text.find("[/INST]", at + 6)) >= 0:
        end = _ENDS.search(text, closed + 7)
        stop = end.start() if end else len(text)
        yield text[at + 6 : closed], text[closed + 7 : stop].strip()
        at = text.find("[INST]", stop)


def _blocks(text: str, pattern: re.Pattern[str]) -> list[Turn] | None:
    turns = []
    for role, content in pattern.findall(text):
        # A role that nobody knows: the marks belong to something else.
        known = ROLES.get(role.lower())
        if known is None:
            return None
        turns.append({"role": known, "content": content.strip()})
    return turns or None
