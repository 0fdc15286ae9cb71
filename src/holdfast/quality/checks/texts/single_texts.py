"""What single texts hold that they should not: unseen characters, wrong decodings, HTML, letters of
two scripts, personal data; or no word at all."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.data.texts.general import LOOK_ALIKE_PATTERN
from holdfast.quality.check import CheckResult, check, result, with_texts
from holdfast.quality.clean.markup import ENTITY, TAG, entities
from holdfast.quality.clean.texts import MISREAD, MIXED, UNSEEN, masked, repaired, visible
from holdfast.quality.personal import SEEN, find_personal, hidden
from holdfast.quality.single import around, difference, matching, single_finding, text_check
from holdfast.quality.views import TableRows, text_batches

_SHOWN = 3


@check(
    TableRows,
    cannot_see="Joiners, which Persian and emoji need, where they are misused.",
    error_rate="Eleven real sets, 1,500 texts each: recall 0.99 to 1.00 of planted characters; "
    "of the sets as they are it names 9 rows in 56,000, all with such characters.",
    holds_for=with_texts,
)
def control_characters(rows: TableRows) -> CheckResult | None:
    """Lists the rows with characters that cannot be seen and mean nothing in their script. Score:
    their share of the rows."""
    found, kinds = [], Counter[str]()
    for position, text in matching(rows, UNSEEN):
        # What was meant for dashes and quotes is damage of another kind.
        text = repaired(text)
        lost = Counter(text) - Counter(visible(text))
        if lost:
            kinds.update(lost.keys())
            found.append((position, ", ".join(_named(one) for one in sorted(lost)[:_SHOWN])))
    shown = ", ".join(f"{_named(one)} in {count}" for one, count in kinds.most_common(_SHOWN))
    return single_finding(
        rows,
        found,
        f"characters that cannot be seen ({shown})",
        "`treat.control` takes them out, which train does by itself.",
    )


def _named(character: str) -> str:
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
    after = repaired(text)
    return difference(text, after) if after != text else None


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
    return around(text, *match.span()) if match else None


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
    found = [
        start + n
        for start, batch in text_batches(table)
        for n, text in enumerate(batch)
        if not _WORD.search(text)
    ]
    if not found:
        return None
    ids = rows.ids
    example = table.rows[found[0]]["text"].strip()
    plural = "s have" if len(found) > 1 else " has"
    return result(
        ids[found],
        f"{len(found)} text{plural} neither a letter nor a digit, e.g. {example[:40]!r}",
        "Take them out, unless they are meant to be there.",
        score=len(found) / len(table),
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
    holds_for=with_texts,
)
def personal_data(rows: TableRows) -> CheckResult | None:
    """Counts the rows with e-mail addresses, telephone numbers, IBANs and cards that pass their
    check, identity numbers that check themselves, IP addresses, and keys. Nothing is shown whole.
    Score: their share of the rows."""
    found, kinds = [], Counter[str]()
    texts: dict[int, str] = {}
    for position, text in matching(rows, SEEN):
        here = find_personal(text)
        if here:
            kinds.update(dict.fromkeys((one.kind for one in here), 1))
            shown = [f"{one.kind} {hidden(text[one.start : one.end])}" for one in here[:3]]
            found.append((position, ", ".join(shown)))
            texts[position] = text
    told = ", ".join(f"{_NAMES[kind]} in {count}" for kind, count in kinds.most_common())
    return single_finding(
        rows,
        found,
        f"personal data or secrets ({told})",
        "Ask whether you may train on them; `treat.mask` puts words such as [EMAIL] in their "
        "place. Keys that are valid should be withdrawn.",
        masked=lambda position: masked(texts[position]),
    )
