"""Text that a known chat template has already written out, parsed back to turns.

Tokenising such text as it stands would double its start token and learn the questions by heart
with the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from holdfast.data.chats.turns import ROLES, Turn

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
