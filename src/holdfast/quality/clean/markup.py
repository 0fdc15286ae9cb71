"""Remove leftover HTML from texts: tags are deleted, entities become their characters.

Only names of HTML elements count as tags: ``<vector>`` of a program and ``<file_photo>`` of a chat
stay. Markdown is removed on request.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from html.entities import html5

from holdfast.quality.clean.treatment import TextTreatment, add_treatment

BLOCKS = (
    "address|article|aside|blockquote|body|br|center|dd|div|dl|dt|fieldset|figure|footer|form|h1|h2|"
    "h3|h4|h5|h6|head|header|hr|html|li|main|nav|ol|p|pre|section|table|tbody|td|tfoot|th|thead|"
    "title|tr|ul"
)
INLINE = (
    "a|abbr|b|big|button|code|em|font|i|iframe|ins|kbd|label|q|s|samp|select|small|span|strike|"
    "strong|sub|sup|textarea|tt|u"
)
# Words in angle brackets, unless they have attributes.
EMPTY = "img|input|link|meta|option"
_INSIDE = r"(?:\s(?:[^<>\"']|\"[^\"<>]*\"|'[^'<>]*')*)?"
TAG = re.compile(
    rf"</?(?:({BLOCKS})|{INLINE}|(?:{EMPTY})(?=\s+\w))(?![\w:-]){_INSIDE}\s*/?>", re.IGNORECASE
)
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_OPENS = re.compile(r"<(script|style)\b[^<>]*>|<!--", re.IGNORECASE)
_CLOSES = {
    name: re.compile(end, re.IGNORECASE)
    for name, end in (("script", r"</script\s*>"), ("style", r"</style\s*>"), ("", "-->"))
}
_MARKDOWN = (
    (re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s\"[^\"\n]*\")?\)"), r"\1"),
    (re.compile(r"^ {0,3}#{1,6}[ \t]+", re.MULTILINE), ""),
    (re.compile(r"(\*\*|__)(?=\S)([^\n]*?\S)\1"), r"\2"),
    (re.compile(r"^ {0,3}(?:```|~~~)[^\n]*\n?", re.MULTILINE), ""),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
)
_MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Markup:
    """``markdown``: whether to remove Markdown links, headings, bold, fences and code marks too."""

    markdown: bool = False


def entities(text: str) -> list[str]:
    """The valid HTML entities of a text."""
    matches: list[str] = ENTITY.findall(text)
    return [one for one in matches if one[1] == "#" or one[1:] in html5]


def strip_markup(text: str, settings: Markup | None = None) -> str:
    """The text as a browser shows it, with a line per block. It repeats until nothing changes,
    because text that was escaped twice is HTML again.

    >>> strip_markup("Fish &amp; <b>chips</b><br/>now")
    'Fish & chips\\nnow'
    """
    original = text
    for _ in range(_MAX_ROUNDS):
        before = text
        text = _without_hidden(text)
        text = TAG.sub(lambda tag: "\n" if tag[1] else "", text)
        text = ENTITY.sub(_character, text)
        for pattern, by in _MARKDOWN if settings is not None and settings.markdown else ():
            text = pattern.sub(by, text)
        if text == before:
            break
    # A block at the beginning or end leaves a line break there.
    return text if text == original else text.strip("\n")


def _without_hidden(text: str) -> str:
    """The text with a space for each comment, script and style sheet. An unclosed one stays, and
    its end is searched for only once: a single pattern would search again for each opening."""
    parts, at, start = [], 0, 0
    unclosed: set[str] = set()
    while (opening := _OPENS.search(text, start)) is not None:
        name = (opening[1] or "").lower()
        closing = None if name in unclosed else _CLOSES[name].search(text, opening.end())
        start = opening.end()
        if closing is None:
            unclosed.add(name)
            continue
        parts.append(text[at : opening.start()])
        at = start = closing.end()
    return " ".join([*parts, text[at:]])


def _character(entity: re.Match[str]) -> str:
    name = entity[0]
    return html.unescape(name) if name[1] == "#" or name[1:] in html5 else name


add_treatment(
    TextTreatment(
        "markup",
        Markup,
        strip_markup,
        pattern=r"[<&#*_`\[]",
        because="contained HTML",
        order=30,
        fixes=("markup",),
    )
)
