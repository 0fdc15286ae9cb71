"""Rows that say the same in other words: within the table, with another label, in another file."""

from __future__ import annotations

from holdfast.core.wording import count_phrase
from holdfast.duplicates.semantic import MIN_AGREEMENT, are_no_duplicates, paraphrases
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.pairs import conflicts_result, leaks_result, pair_examples, paired_rows
from holdfast.quality.single import excerpt
from holdfast.quality.views import Embedded, TableRows

_LIKENESS = "agreement {:.2f}"
_CANNOT_SEE = (
    "What the encoder does not see: languages that it was not trained on, words beyond its limit. "
    "Of sentences translated to another language and back it lists a third."
)
_ERROR_RATE = (
    "Of 27 pairs drawn from those of CR, MR, TREC and BANKING77 with an agreement of 0.92 to 0.95, "
    "where the doubtful ones are, 26 were judged to say the same."
)


@check(Embedded, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def semantic_copies(view: Embedded) -> CheckResult | None:
    """Lists the rows that say what another row says in other words: pairs whose agreement
    (``duplicates/semantic.py``) is 0.92 or more and that are no copies word for word. Each row is
    compared with its ten nearest. Score: the share of rows in such pairs."""
    pairs = view.paraphrases
    if not len(pairs):
        return None
    rows, ids, texts = paired_rows(pairs), view.rows.ids, view.rows.texts
    # The plainest example is one in the middle: the first differ by hardly a word.
    a, b = int(pairs.first[len(pairs) // 2]), int(pairs.second[len(pairs) // 2])
    return result(
        ids[rows],
        f"{count_phrase(len(rows), 'row')} say what another says in other words "
        f"({count_phrase(len(pairs), 'pair')} with an agreement of {MIN_AGREEMENT} or more "
        "by the vectors "
        f"of {view.encoder}), e.g. rows {ids[a]} and {ids[b]}: {excerpt(texts[a])} and "
        f"{excerpt(texts[b])}",
        "They count as fewer rows than they are. Where they are forms of one question, give them a "
        "group (--group), so that no side tests what another has learned.",
        score=len(rows) / len(view.rows.table),
        severity="info",
        examples=pair_examples(pairs, ids, ids, _LIKENESS),
    )


@check(
    Embedded,
    cannot_see=_CANNOT_SEE,
    error_rate=f"{_ERROR_RATE} Which of the labels is wrong, or whether the classes overlap, it "
    "cannot tell.",
    applies_to=has_classes,
)
def semantic_conflicts(view: Embedded) -> CheckResult | None:
    """Lists the pairs of ``semantic_copies`` whose labels differ: one of the two may be wrong, or
    the classes overlap. Score: the share of rows in such pairs."""
    wording = (
        "rows say the same in other words under different labels",
        "Read these pairs: correct a label, or write down what parts the two classes.",
    )
    return conflicts_result(
        view.paraphrases, view.rows, _LIKENESS, wording, "info", quote_texts=True
    )


@check(Embedded, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def semantic_leaks(view: Embedded) -> CheckResult | None:
    """Lists the rows that say what a row of another file says in other words; copies word for word
    are leaks of their own. Score: the largest share of a file's rows that are met so."""
    rows, ids = view.rows, view.rows.ids
    pairs_by_file: dict[str, tuple[SimilarPairs, TableRows]] = {}
    for name, (table, vectors) in view.others.items():
        other_rows = TableRows(table)
        pairs = paraphrases(view.vectors, rows.texts, (vectors, other_rows.texts))
        paraphrase_pairs = pairs.where(
            are_no_duplicates(rows.table, pairs.first, table, pairs.second)
        )
        pairs_by_file[name] = paraphrase_pairs, other_rows
    return leaks_result(
        pairs_by_file,
        ids,
        _LIKENESS,
        (
            "rows",
            f"in other words (agreement {MIN_AGREEMENT} or more by the vectors of {view.encoder})",
        ),
        "Divide by what the rows are forms of (--group): a score on such rows says little about "
        "new ones.",
        "info",
    )
