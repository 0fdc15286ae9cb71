"""Rows that stand in another file too: of a test file, they make its score too good."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import counted
from holdfast.quality.check import CheckExample, CheckResult, check, result
from holdfast.quality.leaks import Leaks, leaks_with
from holdfast.quality.pairs import EXAMPLES, LISTED, SERIOUS
from holdfast.quality.views import Copied, TableRows, alone

# Words from which on a text is no answer such as "None.", which many rows give by right.
TELLING = 3


@check(
    Copied,
    cannot_see="The same said in other words, texts of fewer than five words with a word "
    "changed, and what a file that was not named holds.",
    error_rate="Every pair is verified word by word. Whether a text repeated by chance (a "
    "greeting, a short answer) is a leak, it cannot tell: texts of one or two words make it a "
    "warning, no error.",
    nothing=alone,
)
def leaks(copied: Copied) -> CheckResult | None:
    """Lists the rows that are verified copies or near-copies of a row of another table. Score: the
    largest share of another table's rows that the source holds too."""
    gathered = copied.gathered
    found = {name: leaks_with(gathered, name) for name in copied.others}
    found = {name: pairs for name, pairs in found.items() if len(pairs)}
    if not found:
        return None
    shares = {
        name: len(np.unique(pairs.other)) / len(gathered.tables[name])
        for name, pairs in found.items()
    }
    worst = max(shares.values())
    serious = max(_telling(copied, name, pairs) for name, pairs in found.items())
    source = np.unique(np.concatenate([pairs.source for pairs in found.values()]))
    told = "; ".join(_told(copied, name, pairs, shares[name]) for name, pairs in found.items())
    return result(
        copied.rows.ids[source[:LISTED]],
        f"{counted(len(source), 'row copies or nearly copies', 'rows copy or nearly copy')} a row "
        f"of another file: {told}",
        "Take them out of one of the two. train --test FILE leaves such rows out of the training "
        "part by itself, and lists them.",
        score=worst,
        severity="error" if serious >= SERIOUS else "warn",
        count=len(source),
        examples=_examples(copied, found),
    )


def _telling(copied: Copied, name: str, pairs: Leaks) -> float:
    """The share of the other table's rows that stand here and say more than a word or two: those
    may repeat by chance."""
    table = copied.gathered.tables[name]
    texts = TableRows(table.take(np.unique(pairs.other))).texts
    return sum(len(text.split()) >= TELLING for text in texts) / len(table)


def _told(copied: Copied, name: str, pairs: Leaks, share: float) -> str:
    theirs, table = len(np.unique(pairs.other)), copied.gathered.tables[name]
    gathered = copied.gathered
    contents = gathered.copies.contents
    same = np.isin(contents[gathered.span(name)], contents[gathered.span("source")])
    exact = int(same[np.unique(pairs.other)].sum())
    mine, their = gathered.tables["source"].column("label"), table.column("label")
    one, other = mine[pairs.source], their[pairs.other]
    odd = len(np.unique(pairs.other[(one >= 0) & (other >= 0) & (one != other)]))
    labels = f", {odd} of them with another label" if odd else ""
    price = copied.pricing.of_leaks(gathered, pairs) if copied.pricing else None
    cost = f", which would lift an accuracy measured on them by {price}" if price else ""
    return (
        f"{theirs} of the {counted(len(table), 'row')} of {table.source} ({share:.1%}) stand here, "
        f"{exact} of them to the letter{labels}{cost}"
    )


def _examples(copied: Copied, found: dict[str, Leaks]) -> tuple[CheckExample, ...]:
    made = []
    for name, pairs in found.items():
        table = copied.gathered.tables[name]
        theirs, lengths = table.column("row"), np.array([len(t) for t in table.column("text")])
        # The plainest are the most alike, and of these the longest.
        order = np.lexsort((-lengths[pairs.other], -pairs.similarity))
        made += [
            CheckExample(
                int(copied.rows.ids[pairs.source[n]]),
                f"similarity {pairs.similarity[n]:.2f}",
                int(theirs[pairs.other[n]]),
                table.source,
            )
            for n in order[:EXAMPLES].tolist()
        ]
    return tuple(made)
