"""Rows that are one text but for its numbers: many, and yet one thing to learn."""

from __future__ import annotations

import re

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_texts
from holdfast.quality.single import matching
from holdfast.quality.views import TableRows

_NUMBER = re.compile(r"(?<!\w)\d+(?:[.,:/-]\d+)*(?!\w)")
_LEAST_ROWS, _SHARE, _LEAST_WORDS = 20, 0.01, 4
# Beyond this, texts that agree but for numbers are near-copies, which another check finds.
_LONGEST = 300


@check(
    TableRows,
    cannot_see="Templates whose slots hold names or words; near-copies show most of those.",
    error_rate="Eleven real sets: found in each where one row in twenty was made of one "
    "template; nothing found in them as they are.",
    holds_for=with_texts,
)
def template_rows(rows: TableRows) -> CheckResult | None:
    """Reports texts, of four words to 300 characters, that at least 20 rows and 1 % of them share
    but for their numbers. Score: the share of rows made so."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for position, text in matching(rows, "[0-9]"):
        if len(text) > _LONGEST:
            continue
        mould = " ".join(_NUMBER.sub("0", text).casefold().split())
        groups.setdefault(mould, []).append((position, text))
    enough = max(_LEAST_ROWS, _SHARE * len(rows.sample))
    found = [
        (mould, members)
        for mould, members in groups.items()
        # Plain copies are found by others.
        if len({text for _, text in members}) >= enough
        and sum(word.strip(".,;:!?") not in ("", "0") for word in mould.split()) >= _LEAST_WORDS
    ]
    if not found:
        return None
    found.sort(key=lambda one: (-len(one[1]), one[0]))
    ids = rows.ids
    positions = sorted(position for _, members in found for position, _ in members)
    shown = "; ".join(
        f"{counted(len(members), 'row')} like {members[0][1][:80]!r}" for _, members in found[:3]
    )
    examples = tuple(
        CheckExample(int(ids[members[0][0]]), "the same but for numbers", int(ids[members[1][0]]))
        for _, members in found[:20]
    )
    return result(
        ids[positions[:100]],
        f"{counted(len(positions), 'row')}{rows.of_sample} are one of "
        f"{counted(len(found), 'text')} but for numbers: {shown}",
        "They count as one row each for what can be learned, and parted between the sides they "
        "leak: name a column that tells them apart (--group), or keep a few.",
        score=len(positions) / len(rows.sample),
        count=len(positions),
        examples=examples,
    )
