"""Paraphrases: within the table, with different labels, and across files."""

from __future__ import annotations

from holdfast.core.wording import count_phrase
from holdfast.duplicates.semantic import MIN_AGREEMENT, are_no_duplicates, paraphrases
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.pairs import conflicts_result, leaks_result, pair_examples, paired_rows
from holdfast.quality.single import excerpt
from holdfast.quality.views import Embedded, TableRows, needs_other_file

_LIKENESS = "similarity {:.2f}"
_CANNOT_SEE = (
    "What the encoder cannot read: languages that it was not trained on, and words beyond its "
    "token limit. Of sentences translated to another language and back it lists a third."
)
_ERROR_RATE = (
    "We judged 27 random pairs of CR, MR, TREC and BANKING77 with a similarity of 0.92 to 0.95, "
    "the doubtful range: 26 have the same meaning."
)


@check(Embedded, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def semantic_copies(view: Embedded) -> CheckResult | None:
    """Lists paraphrases: pairs of rows with an adjusted cosine similarity of 0.92 or more that are
    neither duplicates nor near-duplicates by words. The adjustment makes it 0 for random rows of
    the table and 1 for equal texts (``duplicates/semantic.py``). Each row is compared with its ten
    nearest rows. Score: the share of rows in such pairs."""
    pairs = view.paraphrases
    if not len(pairs):
        return None
    rows, ids, texts = paired_rows(pairs), view.rows.ids, view.rows.texts
    # The clearest example is one in the middle: the first pairs hardly differ.
    a, b = int(pairs.first[len(pairs) // 2]), int(pairs.second[len(pairs) // 2])
    return result(
        ids[rows],
        f"{count_phrase(len(rows), 'row is a paraphrase', 'rows are paraphrases')} of other rows "
        f"({count_phrase(len(pairs), 'pair')} with adjusted cosine similarity ≥ {MIN_AGREEMENT} "
        f"in the vectors of {view.encoder}), e.g. rows {ids[a]} and {ids[b]}: {excerpt(texts[a])} "
        f"and {excerpt(texts[b])}",
        "Give paraphrases of one question a common group (--group) so that no split tests what "
        "another was trained on. Paraphrases teach less than as many independent rows.",
        score=len(rows) / len(view.rows.table),
        severity="info",
        examples=pair_examples(pairs, ids, ids, _LIKENESS),
    )


@check(
    Embedded,
    cannot_see=_CANNOT_SEE,
    error_rate=f"{_ERROR_RATE} It cannot tell which label is wrong, or whether the classes "
    "overlap.",
    applies_to=has_classes,
)
def semantic_conflicts(view: Embedded) -> CheckResult | None:
    """Lists paraphrases (``semantic_copies``) whose labels differ: one label may be wrong, or the
    classes overlap. Score: the share of rows in such pairs."""
    wording = (
        "paraphrases",
        "Read these pairs. Correct wrong labels, or write down what distinguishes the two classes.",
    )
    return conflicts_result(
        view.paraphrases, view.rows, _LIKENESS, wording, "info", quote_texts=True
    )


@check(Embedded, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE, skip_reason=needs_other_file)
def semantic_leaks(view: Embedded) -> CheckResult | None:
    """Lists the rows that have a paraphrase in another file. The check ``leaks`` lists duplicates
    by words. Score: the largest share of another file's rows that have a paraphrase in the
    source."""
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
            "a paraphrase of a row",
            "paraphrases of rows",
            f" (adjusted cosine similarity ≥ {MIN_AGREEMENT} in the vectors of {view.encoder})",
        ),
        "Split by group (--group) so that all forms of one text are in one file: a score on "
        "paraphrases of training rows says little about new rows.",
        "info",
    )
