"""Personal data and secrets in a text: found by pattern and, where a number has them, by check
digits.

A number by itself is not enough: an order number, a date or an amount has the form of a telephone
number in some country. So a telephone number needs a country code, North American punctuation, or
a word that names it. Card numbers must pass Luhn's test and begin like a card. An IBAN must have
the length of its country and pass modulo 97. Identity numbers count only if they can be validated.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

SHOWN_CHARACTERS = 2
MIN_BITS = 3.0


@dataclass(frozen=True, slots=True)
class PersonalMatch:
    """One match: ``text[start:end]`` is of this ``data_type``."""

    data_type: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _PersonalPattern:
    data_type: str
    hint: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str, str, int], bool]


def find_personal(text: str) -> list[PersonalMatch]:
    """All matches, from left to right, without overlaps: of two that overlap, the one that begins
    first, or the longer one."""
    has_hint = {hint: bool(pattern.search(text)) for hint, pattern in _HINTS.items()}
    matches = [
        PersonalMatch(form.data_type, match.start(), match.end())
        for form in _PERSONAL_PATTERNS
        if has_hint[form.hint]
        for match in form.pattern.finditer(text)
        if form.is_valid(match[0], text, match.start())
    ]
    selected: list[PersonalMatch] = []
    for one in sorted(matches, key=lambda one: (one.start, -one.end)):
        if not selected or one.start >= selected[-1].end:
            selected.append(one)
    return selected


def redact(value: str) -> str:
    """The value as it may be shown: its ends and its length.

    >>> redact("jo.doe@example.com")
    'jo…om (18 characters)'
    """
    return f"{value[:SHOWN_CHARACTERS]}…{value[-SHOWN_CHARACTERS:]} ({len(value)} characters)"


def passes_luhn(digits: str) -> bool:
    """Whether the digits pass Luhn's test (ISO/IEC 7812): with every second one from the right
    doubled, their digit sum is a multiple of ten."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_iban(value: str) -> bool:
    """Whether it is an IBAN (ISO 13616): the length of its country and remainder 1 modulo 97."""
    plain = value.replace(" ", "").upper()
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def bits_per_character(value: str) -> float:
    """Shannon entropy of its characters, in bits: 0 for ``aaaa``, above 3 for random strings.

    >>> bits_per_character("abcd")
    2.0
    """
    counts = Counter(value)
    return -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())


def _always_valid(value: str, text: str, at: int) -> bool:
    return True


def _pattern(
    data_type: str,
    hint: str,
    pattern: str,
    is_valid: Callable[[str, str, int], bool] = _always_valid,
    flags: int = 0,
) -> _PersonalPattern:
    return _PersonalPattern(data_type, hint, re.compile(pattern, flags), is_valid)


def _card(value: str, text: str, at: int) -> bool:
    digits = re.sub(r"\D", "", value)
    return len(set(digits)) > 2 and passes_luhn(digits)


def _iban(value: str, text: str, at: int) -> bool:
    return is_iban(value)


def _phone(value: str, text: str, at: int) -> bool:
    digits = re.sub(r"\D", "", value)
    if not 8 <= len(digits) <= 15 or len(set(digits)) < 3:
        return False
    if value.count("(") != value.count(")"):
        return False
    if value.startswith("+"):
        return digits[0] != "0"
    if _NORTH_AMERICA.fullmatch(value):
        return True
    return (
        bool(_PHONE_CONTEXT.search(text[max(0, at - 40) : at])) and _DATE.fullmatch(value) is None
    )


def _ip4(value: str, text: str, at: int) -> bool:
    parts = [int(part) for part in value.split(".")]
    if any(part > 255 for part in parts) or any(
        len(part) > 1 and part[0] == "0" for part in value.split(".")
    ):
        return False
    # Version and chapter numbers are small; 127.0.0.1 and 0.0.0.0 belong to nobody.
    is_version = _VERSION.search(text[max(0, at - 30) : at + len(value) + 15])
    return max(parts) >= 20 and parts[0] not in (0, 127, 255) and not is_version


def _ip6(value: str, text: str, at: int) -> bool:
    groups = [part for part in value.split(":") if part]
    if len(groups) < 4 or max(map(len, groups)) < 3:
        return False
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return True


def _secret(value: str, text: str, at: int) -> bool:
    # The prefix is the same in all keys of a service.
    return bits_per_character(re.split(r"[-_]", value)[-1] if len(value) > 60 else value) > MIN_BITS


def _password(value: str, text: str, at: int) -> bool:
    password = re.split(r"[:=]", value, maxsplit=1)[1].strip().strip("\"'")
    character_classes = sum(
        bool(re.search(pattern, password)) for pattern in (r"[a-z]", r"[A-Z]", r"\d", r"[^\w]")
    )
    return character_classes >= 3 and bits_per_character(password) > 2.5


def _ssn(value: str, text: str, at: int) -> bool:
    area, group, serial = value.split("-")
    is_valid = area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"
    # Well-known sample numbers that belong to nobody.
    return is_valid and value not in ("078-05-1120", "219-09-9999", "123-45-6789")


def _dni(value: str, text: str, at: int) -> bool:
    digits = value[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == value[-1]


def _cpf(value: str, text: str, at: int) -> bool:
    digits = [int(c) for c in value if c.isdigit()]
    if len(set(digits)) == 1:
        return False

    def check(n: int) -> int:
        rest = sum(d * (n + 1 - i) for i, d in enumerate(digits[:n])) * 10 % 11
        return rest % 10

    return check(9) == digits[9] and check(10) == digits[10]


def _hetu(value: str, text: str, at: int) -> bool:
    number = int(value[:6] + value[7:10])
    century = {"+": 1800, "-": 1900, "A": 2000}[value[6]]
    is_date = _is_date(century + int(value[4:6]), int(value[2:4]), int(value[:2]))
    return is_date and "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == value[10]


def _fiscal(value: str, text: str, at: int) -> bool:
    odd_values = [
        1,
        0,
        5,
        7,
        9,
        13,
        15,
        17,
        19,
        21,
        2,
        4,
        18,
        20,
        11,
        3,
        6,
        8,
        12,
        14,
        16,
        10,
        22,
        25,
        24,
    ]
    odd_values.append(23)
    total = 0
    for place, c in enumerate(value[:15]):
        number = int(c) if c.isdigit() else ord(c) - 65
        total += odd_values[number] if place % 2 == 0 else number
    return chr(65 + total % 26) == value[15]


def _nir(value: str, text: str, at: int) -> bool:
    digits = value.replace(" ", "").replace("2A", "19").replace("2B", "18")
    return 1 <= int(digits[3:5]) <= 12 and 97 - int(digits[:13]) % 97 == int(digits[13:])


def _resident(value: str, text: str, at: int) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    rest = sum(int(d) * w for d, w in zip(value, weights, strict=False)) % 11
    is_date = _is_date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    return is_date and "10X98765432"[rest] == value[17].upper()


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        return 1800 <= date(year, month, day).year <= 2100
    except ValueError:
        return False


_IBAN_LENGTHS = {
    code: int(length)
    for code, length in re.findall(
        r"([A-Z]{2}):(\d+)",
        """
        AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24
        DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28
        HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20
        LV:21 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29
        RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22
        VG:24 XK:20
        """,
    )
}
# An order has a number too, so "number" counts only with a possessive.
_PHONE_CONTEXT = re.compile(
    r"\b(?:(?:tele|cell|i|smart)?phone|tel|mobile|cell|fax|whatsapp)\b[^\n]*\Z|"
    r"(?:\b(?:my|his|her|your|our|their|new)|(?:'|\u2019)s(?: \([^)\n]*\)(?:'|\u2019)s)?) number"
    r"(?:\s(?:is|was))?[\s:]*\Z|"
    r"\b(?:call|ring|dial|text)(?: (?:me|him|her|us|them))?(?: (?:at|on))?[\s:]*\Z",
    re.IGNORECASE,
)
_NORTH_AMERICA = re.compile(r"(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-. ]\d{4}")
_DATE = re.compile(r"(?:\d{4}[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ]\d{4}|\d{8})")
_VERSION = re.compile(
    r"\bv(?=[ .:]*\d)|version|release|\bsection|chapter|build|firmware|\u00a7", re.IGNORECASE
)
_PREFIXES = (
    r"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|[sr]k_(?:live|test)_|sk-|AIza|hf_|npm_|"
    r"pypi-|SG\.|eyJ"
)
# A pattern that each form requires, so that a text without it costs only one search.
_HINT_PATTERNS = {
    "at": r"[0-9A-Za-z_]@[0-9A-Za-z]",
    "digits": r"[0-9][0-9 ().\-/+A]{5,}[0-9]",
    "colons": r"[0-9a-fA-F]:[0-9a-fA-F]{0,4}:",
    "key": r"-----BEGIN ",
    "password": r"[pP][aA][sS][sS][wW]|[pP][wW][dD]|[sS][eE][cC][rR][eE][tT]|"
    r"[kK][eE][yY]\"?\s{0,2}[:=]|[tT][oO][kK][eE][nN]\"?\s{0,2}[:=]",
    "letters": r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}|[A-Z]{6}[0-9]{2}[A-Z]",
    "token": rf"(?:{_PREFIXES})[A-Za-z0-9_\-]{{8}}",
}
_HINTS = {hint: re.compile(pattern) for hint, pattern in _HINT_PATTERNS.items()}
ANY_HINT = "|".join(f"(?:{pattern})" for pattern in _HINT_PATTERNS.values())
_TOKENS = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}|"
    r"glpat-[A-Za-z0-9_\-]{20,}|xox[abprs]-[A-Za-z0-9\-]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{20,}|"
    r"sk-(?:proj-|ant-)?[A-Za-z0-9_\-]{32,}|AIza[A-Za-z0-9_\-]{35}|hf_[A-Za-z0-9]{30,}|"
    r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,}|SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}|"
    r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"
)
_PERSONAL_PATTERNS = (
    _pattern(
        "email",
        "at",
        r"(?<![\w.+\-])[A-Za-z0-9][\w.+\-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}"
        r"[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@])",
    ),
    _pattern(
        "private_key",
        "key",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----.*?"
        r"(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)",
        flags=re.DOTALL,
    ),
    _pattern("secret", "token", rf"(?<![A-Za-z0-9_\-])(?:{_TOKENS})(?![A-Za-z0-9])", _secret),
    _pattern(
        "password",
        "password",
        r"\b(?:password|passwd|pwd|secret|api[_ \-]?key|access[_ \-]?token)\"?\s{0,2}[:=]"
        r"\s{0,2}[\"']?[^\s\"',;]{8,200}",
        _password,
        flags=re.IGNORECASE,
    ),
    _pattern(
        "iban",
        "letters",
        r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"
        r"(?![A-Za-z0-9])",
        _iban,
    ),
    _pattern(
        "card",
        "digits",
        r"(?<![\w.\-])(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6(?:011|5\d{2}))(?:[ \-]?\d{4}){3}"
        r"(?![\w\-]|\.\d)|(?<![\w.\-])3[47]\d{2}[ \-]?\d{6}[ \-]?\d{5}(?![\w\-]|\.\d)",
        _card,
    ),
    _pattern("national_id", "digits", r"(?<![\w\-])\d{3}-\d{2}-\d{4}(?![\w\-])", _ssn),
    _pattern("national_id", "digits", r"(?<!\w)(?:\d{8}|[XYZ]\d{7})[A-HJ-NP-TV-Z](?!\w)", _dni),
    _pattern("national_id", "digits", r"(?<!\w)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)", _cpf),
    _pattern("national_id", "digits", r"(?<!\w)\d{6}[+\-A]\d{3}[0-9A-Y](?!\w)", _hetu),
    _pattern(
        "national_id",
        "letters",
        r"(?<!\w)[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?!\w)",
        _fiscal,
    ),
    _pattern(
        "national_id",
        "digits",
        r"(?<!\w)[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?!\w)",
        _nir,
    ),
    _pattern("national_id", "digits", r"(?<!\w)[1-8]\d{5}(?:19|20)\d{9}[\dXx](?!\w)", _resident),
    _pattern(
        "phone",
        "digits",
        r"(?<![\w.,$€£#/\-])\+?\(?\d{1,4}\)?(?:[ .\-/]?\(?\d{2,4}\)?){2,5}"
        r"(?![\w%°]|[.,\-]\d|:\d)",
        _phone,
    ),
    _pattern("ip_address", "digits", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)", _ip4),
    _pattern(
        "ip_address", "colons", r"(?<![\w:])[0-9a-fA-F]{1,4}:[0-9a-fA-F:]{6,38}(?![\w:])", _ip6
    ),
)
PERSONAL_TYPES = tuple(dict.fromkeys(form.data_type for form in _PERSONAL_PATTERNS))
