"""Characters that nobody sees: controls, byte-order marks, zero-width spaces, soft hyphens.

A model's tokenizer cuts words at them, or makes unknown tokens of them. What carries a meaning
stays: tab and line breaks, the joiners of Persian and of emoji, marks of direction in texts that
are written from right to left, and zero-width spaces in scripts that part words by them.
"""

from __future__ import annotations

import re

from holdfast.quality.clean.treatment import NoSettings, RowTreatment, add

# Between lines, and between words; the others stand inside them.
_LINES = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_WORDS = re.compile("[\x1c-\x1f]")
_GONE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\u00ad\u2060\ufeff\ufff9-\ufffb]")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]")
_ZERO_WIDTH = "\u200b"
# Thai, Lao, Tibetan, Burmese and Khmer are written without spaces.
_WITHOUT_SPACES = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aaf]")
SEEN = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{200b}\x{200e}\x{200f}\x{2028}-\x{202e}"
    r"\x{2060}\x{2066}-\x{2069}\x{feff}\x{fff9}-\x{fffb}]"
)


def visible(text: str, settings: NoSettings | None = None) -> str:
    """The text without what cannot be seen and means nothing.

    >>> visible("in\\u00advis\\u200bible\\ufeff")
    'invisible'
    """
    text = _GONE.sub("", _WORDS.sub(" ", _LINES.sub("\n", text)))
    if not _RIGHT_TO_LEFT.search(text):
        text = _DIRECTIONS.sub("", text)
    if _ZERO_WIDTH in text and not _WITHOUT_SPACES.search(text):
        text = text.replace(_ZERO_WIDTH, "")
    return text


add(
    RowTreatment(
        "control",
        NoSettings,
        visible,
        seen=SEEN,
        because="held characters that cannot be seen",
        order=20,
        answers=True,
        default=True,
        fixes=("control_characters",),
    )
)
