"""What single texts hold that they should not: unseen characters, wrong decodings, HTML, letters of
two scripts, personal data; or no word at all."""

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
    cannot_see="Joiners, which Persian and emoji need, where they are misused.",
    error_rate="Eleven real sets, 1,500 texts each: recall 0.99 to 1.00 of planted characters; "
    "of the sets as they are it names 9 rows in 56,000, all with such characters.",
    applies_to=has_texts,
)
def control_characters(rows: TableRows) -> CheckResult | None:
    """Lists the rows with characters that cannot be seen and mean nothing in their script. Score:
    their share of the rows."""
    notes, character_counts = [], Counter[str]()
    for position, text in matching_texts(rows, INVISIBLE):
        # What was meant for dashes and quotes is damage of another kind.
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
        f"characters that cannot be seen ({shown})",
        "`treat.control` takes them out, which train does by itself.",
    )


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


@text_check(
    "letters of a wrong decoding",
    "Read the source with its own encoding (data.encoding); `treat.encoding` repairs what is "
    "in the rows, which train does by itself.",
    pattern=MISREAD,
    cannot_see="Letters that were lost (? or \ufffd), and damage that leaves probable text.",
    error_rate="Eleven real sets, 1,500 texts each: every damage that was planted was found "
    "(recall 1.00), and all 30 of the 159 rows read that it names in the sets as "
    "they are were damaged.",
)
def encoding_damage(text: str) -> str | None:
    """Lists the rows that ftfy reads otherwise: those whose letters are improbable as they stand
    and probable once a wrong decoding is undone. Score: their share of the rows."""
    after = repair_encoding(text)
    return first_difference(text, after) if after != text else None


@text_check(
    "tags or entities of HTML",
    "If they are left over, `treat.markup` takes them out; where texts are about HTML, leave them.",
    pattern=r"<[/a-zA-Z]|&[#a-zA-Z]",
    warns_from=0.01,
    cannot_see="Marks of Markdown and of other languages; whether a text is about HTML.",
    error_rate="Eleven real sets, 1,500 texts each: recall 1.00 of planted tags and entities, "
    "no other row accused; of the 24 rows that it names as they are, five are about HTML.",
)
def markup(text: str) -> str | None:
    """Lists the rows with a tag or an entity that HTML knows; a warning from one row in a hundred
    on. Score: their share of the rows."""
    match = TAG.search(text)
    if match is None and entities(text):
        match = ENTITY.search(text)
    return excerpt_around(text, *match.span()) if match else None


@text_check(
    "a word with letters of another script that look like its own",
    "`treat.homoglyphs` writes them in one script; if they carry the label (spam), leave them.",
    pattern=LOOK_ALIKE_PATTERN,
    cannot_see="Whole words in another script, and look-alikes within one (l, I and 1).",
    error_rate="Eleven real sets, 1,500 texts each: recall 1.00 of planted words, and nothing "
    "accused in 56,000 rows as they are.",
)
def mixed_scripts(text: str) -> str | None:
    """Lists the rows with a word of Latin letters and of Cyrillic or Greek ones that look like
    them. Score: their share of the rows."""
    match = MIXED.search(text)
    return f"{match[0]!r} is {match[0]!a}" if match else None


_WORD = re.compile(r"[^\W_]")


@check(
    TableRows,
    cannot_see="Words without meaning.",
    error_rate="Exact; signs that carry a meaning are listed too.",
)
def wordless_texts(rows: TableRows) -> CheckResult | None:
    """Lists the rows whose text has no letter and no digit of any script. They may mean something
    (an emoji), so this is for information. Score: their share of the rows."""
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
        "Take them out, unless they are meant to be there.",
        score=len(positions) / len(table),
        severity="info",
    )


_NAMES = {
    "email": "e-mail addresses",
    "phone": "telephone numbers",
    "iban": "bank accounts",
    "card": "card numbers",
    "national_id": "identity numbers",
    "ip_address": "IP addresses",
    "secret": "keys of services",
    "password": "passwords",
    "private_key": "private keys",
}


@check(
    TableRows,
    cannot_see="Names, addresses, dates of birth, health; national telephone numbers without a "
    "word before them; identity numbers that do not check themselves.",
    error_rate="Eleven real sets, 1,500 texts each: recall 0.99 to 1.00 of planted addresses "
    "and telephone numbers. Of the 41 rows in 56,000 that it names as they are, all "
    "have one, six of them invented for an example.",
    applies_to=has_texts,
)
def personal_data(rows: TableRows) -> CheckResult | None:
    """Counts the rows with e-mail addresses, telephone numbers, IBANs and cards that pass their
    check, identity numbers that check themselves, IP addresses, and keys. Nothing is shown whole.
    Score: their share of the rows."""
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
        "Ask whether you may train on them; `treat.mask` puts words such as [EMAIL] in their "
        "place. Keys that are valid should be withdrawn.",
        masked=lambda position: mask_personal(texts[position]),
    )
