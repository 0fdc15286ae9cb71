"""Personal data and secrets: what a model may learn by heart and say to anybody."""

from __future__ import annotations

from collections import Counter

from holdfast.quality.check import CheckResult, check, with_texts
from holdfast.quality.clean.mask import masked
from holdfast.quality.personal import SEEN, find_personal, hidden
from holdfast.quality.single import matching, single_finding
from holdfast.quality.views import TableRows

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
