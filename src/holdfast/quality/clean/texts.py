"""Cleaning steps for texts: invisible characters, encoding damage, white space, look-alike letters,
personal data and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.data.texts.general import LOOK_ALIKE_PATTERN, TO_LATIN
from holdfast.quality.clean.treatment import NoSettings, TextTreatment, add_treatment
from holdfast.quality.personal import ANY_HINT, PERSONAL_TYPES, find_personal

# A tokenizer splits words at invisible characters or makes unknown tokens of them. Meaningful ones
# stay: tab and line breaks, the joiners of Persian and of emoji, direction marks in right-to-left
# texts, and zero-width spaces in scripts that separate words by them.
# The first two patterns separate lines and words; the others occur inside words.
_LINES = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_WORDS = re.compile("[\x1c-\x1f]")
_REMOVED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x9f\u00ad\u2060\ufeff\ufff9-\ufffb]")
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]")
_ZERO_WIDTH = "\u200b"
# Thai, Lao, Tibetan, Burmese and Khmer are written without spaces.
_WITHOUT_SPACES = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1a20-\u1aaf]")
INVISIBLE = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{200b}\x{200e}\x{200f}\x{2028}-\x{202e}"
    r"\x{2060}\x{2066}-\x{2069}\x{feff}\x{fff9}-\x{fffb}]"
)


def remove_invisible(text: str, settings: NoSettings | None = None) -> str:
    """The text without invisible characters that have no meaning.

    >>> remove_invisible("in\\u00advis\\u200bible\\ufeff")
    'invisible'
    """
    text = _REMOVED.sub("", _WORDS.sub(" ", _LINES.sub("\n", text)))
    if not _RIGHT_TO_LEFT.search(text):
        text = _DIRECTIONS.sub("", text)
    if _ZERO_WIDTH in text and not _WITHOUT_SPACES.search(text):
        text = text.replace(_ZERO_WIDTH, "")
    return text


add_treatment(
    TextTreatment(
        "control",
        NoSettings,
        remove_invisible,
        pattern=INVISIBLE,
        because="contained invisible characters",
        order=20,
        answers=True,
        default=True,
        fixes=("control_characters",),
    )
)


# ftfy (Speer 2019) undoes a wrong decoding only if the text is improbable as it is and probable
# afterwards; correct text in any script stays. Windows-1252 characters that were read as control
# characters (``\x97``) become the intended dashes and quotes.
MAX_LAYERS = 6
# The bytes of a letter, read one by one, give several letters, control characters, or a letter and
# a space.
MISREAD = r"[\x{80}-\x{9f}]|[^\x00-\x7f][^\x00-\x7f]|[\x{c2}-\x{f4}][ \x1a]"
_MAY_BE_MISREAD = re.compile("[\x80-\x9f]|[^\x00-\x7f][^\x00-\x7f]|[\xc2-\xf4][ \x1a]")


def repair_encoding(text: str, settings: NoSettings | None = None) -> str:
    """The text in its correct characters; repeated wrong decodings are all undone.

    >>> repair_encoding("schÃ¶n")
    'schön'
    """
    if not _MAY_BE_MISREAD.search(text):
        return text
    import ftfy

    for _ in range(MAX_LAYERS):
        before, text = text, ftfy.fix_encoding(text)
        if text == before:
            break
    return text


add_treatment(
    TextTreatment(
        "encoding",
        NoSettings,
        repair_encoding,
        pattern=MISREAD,
        because="was decoded with the wrong encoding",
        order=10,
        answers=True,
        default=True,
        fixes=("encoding_damage",),
    )
)


# White space as a reader sees it; not for programs, where indentation has a meaning.
_WIDE = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_RUN = re.compile(f"[ \t{_WIDE}]+")
_LINE_BREAK = re.compile(r" *(?:\r\n?|\n) *")
_EMPTY = re.compile(r"\n{3,}")


def normalize_space(text: str, settings: NoSettings | None = None) -> str:
    """The text with single spaces and at most one empty line in a row.

    >>> normalize_space("  one\\u00a0 two \\r\\n three ")
    'one two\\nthree'
    """
    return _EMPTY.sub("\n\n", _LINE_BREAK.sub("\n", _RUN.sub(" ", text))).strip(" \n")


add_treatment(
    TextTreatment(
        "space",
        NoSettings,
        normalize_space,
        pattern=r"[\t\r\x{a0}\x{1680}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}]|  | \n|\n |\n\n\n|"
        r"^[ \n]|[ \n]$",
        because="had superfluous white space",
        order=40,
    )
)


# Only words with at least two Latin letters: the Delta of a formula and the mu of a unit do not
# look like a Latin letter and stay.
_LATIN = r"[A-Za-z\u00c0-\u024f]"
MIXED = re.compile(
    rf"(?<!\w)(?=[\w'-]*{_LATIN}[\w'-]*{_LATIN})(?:{_LATIN}|['-](?=\w))*"
    rf"(?:{LOOK_ALIKE_PATTERN}+(?:{_LATIN}|['-](?=\w))*)+(?!\w)"
)


def unify_script(text: str, settings: NoSettings | None = None) -> str:
    """The text with words of mixed scripts in Latin letters.

    >>> unify_script("p\\u0430ypal")
    'paypal'
    """
    return MIXED.sub(lambda word: word[0].translate(TO_LATIN), text)


add_treatment(
    TextTreatment(
        "homoglyphs",
        NoSettings,
        unify_script,
        pattern=LOOK_ALIKE_PATTERN,
        because="had look-alike letters of another script",
        order=50,
        fixes=("mixed_scripts",),
    )
)


@dataclass(frozen=True, slots=True)
class Mask:
    """``only`` these types of personal data (``quality/personal.py``); all if empty."""

    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from holdfast.core.discovery import suggest_name
        from holdfast.core.errors import RecipeError

        for data_type in self.only:
            if data_type not in PERSONAL_TYPES:
                rule = "is not a type of personal data"
                raise RecipeError(
                    "clean.mask.only",
                    rule,
                    data_type,
                    suggest_name(str(data_type), list(PERSONAL_TYPES)),
                )


def mask_personal(text: str, settings: Mask | None = None) -> str:
    """The text with ``[EMAIL]`` in place of an address, and so on for the types of
    ``quality/personal.py``. The removed values are not logged, so this cannot be undone.

    >>> mask_personal("write to jo@example.com")
    'write to [EMAIL]'
    """
    only = settings.only if settings is not None else ()
    parts, end = [], 0
    for personal in find_personal(text):
        if only and personal.data_type not in only:
            continue
        parts += [text[end : personal.start], f"[{personal.data_type.upper()}]"]
        end = personal.end
    return "".join([*parts, text[end:]]) if parts else text


add_treatment(
    TextTreatment(
        "mask",
        Mask,
        mask_personal,
        pattern=ANY_HINT,
        because="contained personal data or secrets",
        order=60,
        answers=True,
        fixes=("personal_data",),
        hides=True,
    )
)
