"""Checks of single texts: invisible characters, encoding damage, HTML, mixed scripts, personal
data, texts without words."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.data.texts.general import LOOK_ALIKE_PATTERN
from holdfast.quality.check import CheckResult, check, has_texts, result
from holdfast.quality.clean.markup import ENTITY, TAG, entities
from holdfast.quality.clean.texts import (
    INVISIBLE,
    MISREAD,
    MIXED,
    mask_personal,
    remove_invisible,
    repair_encoding,
)
from holdfast.quality.personal import ANY_HINT, find_personal, redact
from holdfast.quality.single import (
    excerpt_around,
    first_difference,
    matching_texts,
    text_check,
    text_finding,
)
from holdfast.quality.views import TableRows, text_batches

_SHOWN = 3


@check(
    TableRows,
    cannot_see="Misused joiners (Persian and emoji need joiners).",
    error_rate="Eleven real data sets, 1,500 texts each: recall 0.99 to 1.00 of planted "
    "characters. In the unmodified sets it lists 9 of 56,000 rows, all with such characters.",
    applies_to=has_texts,
)
def control_characters(rows: TableRows) -> CheckResult | None:
    """Lists the rows with invisible characters that have no meaning in their script. Score: their
    share of the rows."""
    notes, character_counts = [], Counter[str]()
    for position, text in matching_texts(rows, INVISIBLE):
        # Control characters that stand for dashes and quotes are encoding damage.
        text = repair_encoding(text)
        invisible = Counter(text) - Counter(remove_invisible(text))
        if invisible:
            character_counts.update(invisible.keys())
            notes.append(
                (position, ", ".join(_code_point(one) for one in sorted(invisible)[:_SHOWN]))
            )
    shown = ", ".join(
        f"{_code_point(one)} in {count}" for one, count in character_counts.most_common(_SHOWN)
    )
    return text_finding(
        rows,
        notes,
        f"invisible characters ({shown})",
        "`clean.control` removes them; train does this by default.",
    )


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


@text_check(
    "characters from decoding with the wrong encoding",
    "Read the file with its correct encoding (data.encoding). `clean.encoding` repairs the rows; "
    "train does this by default.",
    pattern=MISREAD,
    cannot_see="Lost characters (? or \ufffd), and damage that leaves plausible text.",
    error_rate="Eleven real data sets, 1,500 texts each: recall 1.00 of planted damage. In the "
    "unmodified sets it lists 159 rows; we read 30 of them and all were damaged.",
)
def encoding_damage(text: str) -> str | None:
    """Lists the rows that ftfy would repair: their characters are improbable as they are, and
    probable after a wrong decoding is undone. Score: their share of the rows."""
    after = repair_encoding(text)
    return first_difference(text, after) if after != text else None


@text_check(
    "HTML tags or entities",
    "If they are leftovers, `clean.markup` removes them. Keep them where texts are about HTML.",
    pattern=r"<[/a-zA-Z]|&[#a-zA-Z]",
    warns_from=0.01,
    cannot_see="Markdown and other markup languages; whether a text is about HTML.",
    error_rate="Eleven real data sets, 1,500 texts each: recall 1.00 of planted tags and entities, "
    "without false positives. In the unmodified sets it lists 24 rows; five of them are about "
    "HTML.",
)
def markup(text: str) -> str | None:
    """Lists the rows with an HTML tag or entity. It is a warning from 1 % of the rows on. Score:
    their share of the rows."""
    match = TAG.search(text)
    if match is None and entities(text):
        match = ENTITY.search(text)
    return excerpt_around(text, *match.span()) if match else None


@text_check(
    "a word with look-alike letters of another script",
    "`clean.homoglyphs` writes such words in one script. Keep them if they indicate the label "
    "(spam).",
    pattern=LOOK_ALIKE_PATTERN,
    cannot_see="Words that are entirely in another script, and look-alikes in one script (l, I and "
    "1).",
    error_rate="Eleven real data sets, 1,500 texts each: recall 1.00 of planted words, and nothing "
    "reported in 56,000 unmodified rows.",
)
def mixed_scripts(text: str) -> str | None:
    """Lists the rows with a word that mixes Latin letters with Cyrillic or Greek look-alikes.
    Score: their share of the rows."""
    match = MIXED.search(text)
    return f"{match[0]!r} is {match[0]!a}" if match else None


_WORD = re.compile(r"[^\W_]")


@check(
    TableRows,
    cannot_see="Words without meaning.",
    error_rate="Exact. It also lists symbols that have a meaning.",
)
def wordless_texts(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text has no letter and no digit of any script. Such a text may have a
    meaning (an emoji), so the severity is info. Score: their share of the rows."""
    table = rows.table
    positions = [
        start + n
        for start, batch in text_batches(table)
        for n, text in enumerate(batch)
        if not _WORD.search(text)
    ]
    if not positions:
        return None
    ids = rows.ids
    example = table.rows[positions[0]]["text"].strip()
    plural = "s have" if len(positions) > 1 else " has"
    return result(
        ids[positions],
        f"{len(positions)} text{plural} neither a letter nor a digit, e.g. {example[:40]!r}",
        "Remove them, unless they are intended.",
        score=len(positions) / len(table),
        severity="info",
    )


_NAMES = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "iban": "IBANs",
    "card": "card numbers",
    "national_id": "identity numbers",
    "ip_address": "IP addresses",
    "secret": "API keys",
    "password": "passwords",
    "private_key": "private keys",
}


@check(
    TableRows,
    cannot_see="Names, addresses, dates of birth, health data; national telephone numbers without "
    "a word such as 'phone' before them; identity numbers that cannot be validated.",
    error_rate="Eleven real data sets, 1,500 texts each: recall 0.99 to 1.00 of planted addresses "
    "and telephone numbers. In the unmodified sets it lists 41 of 56,000 rows. All contain such "
    "data; in six it was invented as an example.",
    applies_to=has_texts,
)
def personal_data(rows: TableRows) -> CheckResult | None:
    """Lists the rows with e-mail addresses, telephone numbers, IBANs and card numbers with valid
    check digits, identity numbers that can be validated, IP addresses, passwords and keys. Findings
    never show a complete value. Score: their share of the rows."""
    notes, type_counts = [], Counter[str]()
    texts: dict[int, str] = {}
    for position, text in matching_texts(rows, ANY_HINT):
        matches = find_personal(text)
        if matches:
            type_counts.update(dict.fromkeys((one.data_type for one in matches), 1))
            shown = [f"{one.data_type} {redact(text[one.start : one.end])}" for one in matches[:3]]
            notes.append((position, ", ".join(shown)))
            texts[position] = text
    summary = ", ".join(
        f"{_NAMES[data_type]} in {count}" for data_type, count in type_counts.most_common()
    )
    return text_finding(
        rows,
        notes,
        f"personal data or secrets ({summary})",
        "Check whether you may train on such data. `clean.mask` replaces it by placeholders such "
        "as [EMAIL]. Revoke keys that are still valid.",
        masked=lambda position: mask_personal(texts[position]),
    )
