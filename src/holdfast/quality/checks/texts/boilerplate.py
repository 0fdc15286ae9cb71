"""The same line or sentence at the beginning or end of many texts: signatures, disclaimers."""

from __future__ import annotations

from collections import Counter

from holdfast.core.wording import counted, listing
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_texts
from holdfast.quality.clean.boilerplate import first_line, last_line, often_enough
from holdfast.quality.single import EXAMPLES, reading
from holdfast.quality.views import Closely


@check(
    Closely,
    cannot_see="Sentences in the middle of texts, and those of which a word differs.",
    error_rate="Eleven real sets: found in each where it was planted into one row in twenty; "
    "nothing found in them as they are.",
    holds_for=with_texts,
)
def boilerplate(view: Closely) -> CheckResult | None:
    """Reports sentences or lines of five words or more that open or close at least 20 texts and 1 %
    of them, whose other words differ. Score: the share of rows with any."""
    rows = view.rows
    firsts: dict[str, list[int]] = {}
    lasts: dict[str, list[int]] = {}
    texts = dict(reading(rows))
    for position, text in texts.items():
        for line, into in ((first_line(text), firsts), (last_line(text), lasts)):
            if line is not None:
                into.setdefault(line, []).append(position)
    enough = often_enough(len(rows.sample))
    often: list[tuple[str, str, list[int]]] = []
    for place, lines in (("begin", firsts), ("end", lasts)):
        for line, positions in lines.items():
            # Copies of a whole text are no boilerplate.
            distinct = {texts[position] for position in positions}
            if len(distinct) >= enough:
                often.append((place, line, positions))
    if not often:
        return None
    often.sort(key=lambda one: (-len(one[2]), one[1]))
    ids = rows.ids
    touched = Counter(position for _, _, positions in often for position in positions)
    told = [
        f"{counted(len(positions), 'text')} {place} with {line[:80]!r}"
        for place, line, positions in often
    ]
    examples = tuple(
        CheckExample(int(ids[position]), f"{place}s with {line[:60]!r}")
        for place, line, positions in often[:EXAMPLES]
        for position in positions[:1]
    )
    return result(
        ids[sorted(touched)[:100]],
        f"the same sentence stands in many texts{rows.of_sample}: {listing(told, 3)}",
        "If it is no part of what is to be learned, `treat.boilerplate` of audit --fix takes it "
        "out; if new texts have it too, it does no harm.",
        score=len(touched) / len(rows.sample),
        severity="info",
        count=len(touched),
        examples=examples,
    )
