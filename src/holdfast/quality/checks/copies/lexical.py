"""Duplicates by words: exact duplicates, near-duplicates, and looser ones on request."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.pairs import (
    MAX_EXAMPLES,
    MAX_ROWS_LISTED,
    SERIOUS_SHARE,
    differently_labelled,
    pair_examples,
    ranked_rows,
    sort_by_similarity,
)
from holdfast.quality.views import TableCopies, TableRows

KEEP_ALL = "keep them all: train assigns duplicates to the same split. A random split would not"
# Groups that examples are chosen from, and the fewest words of a preferred example.
MAX_GROUPS_COMPARED, MIN_WORDS_SHOWN = 1000, 3


@check(
    TableCopies,
    cannot_see="Duplicates with a changed word (see near_duplicates), and paraphrases (see "
    "semantic_copies).",
    error_rate="Exact: the texts are equal except for case, space and punctuation. Short answers "
    "such as 'yes' may repeat legitimately.",
)
def exact_duplicates(copied: TableCopies) -> CheckResult | None:
    """Lists the rows that another row of the table repeats, ignoring case, space and punctuation
    (``duplicates/normalise.py``), the largest group first. Score: the share of rows that are
    redundant, i.e. the rows beyond the first of each text."""
    rows = copied.rows
    forms = copied.all_rows.duplicates.exact[copied.all_rows.span("source")]
    _, group, sizes = np.unique(forms, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group] > 1)
    if not len(repeated):
        return None
    order = repeated[np.lexsort((repeated, group[repeated], -sizes[group[repeated]]))]
    texts, extra = int((sizes > 1).sum()), len(repeated) - int((sizes > 1).sum())
    share = extra / len(forms)
    contents = copied.all_rows.duplicates.contents[copied.all_rows.span("source")]
    to_the_letter = len(contents) - len(np.unique(contents))
    # The first two rows of each group; texts of three words or more come first.
    first: dict[int, int] = {}
    second: dict[int, int] = {}
    for at in order.tolist():
        (second if group[at] in first else first).setdefault(int(group[at]), at)
    pairs = [(first[g], second[g]) for g in list(first)[:MAX_GROUPS_COMPARED] if g in second]
    pair_rows = rows.table.take(np.array([at for at, _ in pairs], dtype=np.int64))
    text_of_pair = dict(zip(pairs, TableRows(pair_rows).texts, strict=True))
    pairs.sort(key=lambda pair: len(text_of_pair[pair].split()) < MIN_WORDS_SHOWN)
    repeats = f"{count_phrase(extra, 'row repeats', 'rows repeat')} another row"
    if rows.table.has_images:
        because = (
            f"{count_phrase(texts, 'image occurs', 'images occur')} in {len(repeated)} files with "
            f"equal pixels, so that {repeats}"
        )
        remedy = f"Keep one file of each image, or {KEEP_ALL}{copied.split_inflation_text(forms)}."
    else:
        because = (
            f"{count_phrase(texts, 'text occurs', 'texts occur')} in {len(repeated)} rows "
            f"(ignoring case, space and punctuation), so that {repeats}, {to_the_letter} of them "
            "character for character"
        )
        remedy = (
            f"Keep one row of each text, or {KEEP_ALL}{copied.split_inflation_text(forms)}. "
            "audit --fix keeps one row of those with the same label and exactly the same text; "
            "with --set clean.copies.same=normal also of those that differ in case, space and "
            "punctuation."
        )
    return result(
        rows.ids[order[:MAX_ROWS_LISTED]],
        because,
        remedy,
        score=share,
        severity="warn" if share >= SERIOUS_SHARE else "info",
        count=len(repeated),
        examples=(
            CheckExample(int(rows.ids[one]), f"the same {rows.noun}", int(rows.ids[other]))
            for one, other in pairs[:MAX_EXAMPLES]
        ),
    )


@check(
    TableCopies,
    cannot_see="Which of the two labels is wrong, and conflicts between texts that differ in more "
    "than one word in eight.",
    error_rate="BANKING77 has 8 such pairs. In 2 a label is wrong, by our reading; in the other 6 "
    "the differing word decides (a card, a transfer) and both labels are correct.",
    applies_to=has_classes,
)
def conflicting_near_duplicates(copied: TableCopies) -> CheckResult | None:
    """Lists verified near-duplicates whose labels differ, the most similar first. The check
    ``conflicting_labels`` lists texts that differ only in case, space and punctuation. Score: the
    share of the labelled rows."""
    rows, ids, labels = copied.rows, copied.rows.ids, copied.rows.labels
    pairs = differently_labelled(_near_pairs(copied), labels)
    if not len(pairs):
        return None
    row_positions, classes = ranked_rows(pairs), rows.table.classes
    a, b = pairs.first[0], pairs.second[0]
    return result(
        ids[row_positions[:MAX_ROWS_LISTED]],
        f"{count_phrase(len(pairs), 'pair')} of texts that differ in few words "
        f"{'has' if len(pairs) == 1 else 'have'} different labels, e.g. row {ids[a]} "
        f"{classes[labels[a]]!r}, row {ids[b]} {classes[labels[b]]!r}",
        "Read both texts of each pair. Correct a wrong label; keep both labels where the differing "
        "word changes the class.",
        score=len(row_positions) / max(1, int((labels >= 0).sum())),
        # The same words in another order seldom mean another class.
        severity="warn" if pairs.similarity.max() >= 1 else "info",
        count=len(row_positions),
        examples=pair_examples(
            pairs, ids, ids, "near-duplicates, different labels", max_examples=MAX_EXAMPLES
        ),
    )


@check(
    TableCopies,
    cannot_see="Duplicates with more than one word in eight changed, texts of fewer than five "
    "words, and paraphrases (see semantic_copies).",
    error_rate="Every pair is verified word by word. Rows from one template that differ in one "
    "word may be intended.",
)
def near_duplicates(copied: TableCopies) -> CheckResult | None:
    """Lists the rows that are verified near-duplicates of another row of the table: at most one
    word in eight differs (``duplicates/criterion.py``). The most similar come first. Score: the
    share of such rows."""
    pairs, ids = _near_pairs(copied), copied.rows.ids
    if not len(pairs):
        return None
    span, copies = copied.all_rows.span("source"), copied.all_rows.duplicates
    forms = copies.exact[span]
    paired_forms = np.union1d(forms[pairs.first], forms[pairs.second])
    near_count = int(np.isin(forms, paired_forms).sum())
    share = near_count / len(forms)
    return result(
        ids[ranked_rows(pairs)[:MAX_ROWS_LISTED]],
        f"{count_phrase(near_count, 'row is a near-duplicate', 'rows are near-duplicates')} of "
        "another row: at most one word in eight differs "
        f"({count_phrase(len(pairs), 'pair')} of texts)",
        "Review the examples. train assigns near-duplicates to the same split. A random split "
        f"would not{copied.split_inflation_text(copies.groups[span])}. audit --fix removes those "
        "with the same label only with --set clean.copies.same=near.",
        score=share,
        severity="warn" if share >= SERIOUS_SHARE else "info",
        count=near_count,
        examples=pair_examples(pairs, ids, ids, "similarity {:.2f}", max_examples=MAX_EXAMPLES),
    )


def _near_pairs(copied: TableCopies) -> SimilarPairs:
    """The near-duplicate pairs within the table, the most similar first."""
    stop, pairs = (
        copied.all_rows.span("source").stop,
        copied.all_rows.duplicates.near_duplicate_pairs(),
    )
    # A pair names the first position of each text, and the source comes first.
    return sort_by_similarity(pairs.where((pairs.first < stop) & (pairs.second < stop)))


def needs_loose_share(copied: TableCopies) -> str:
    """Why loose near-duplicates were not searched for; empty if they were."""
    return "" if copied.loose_copies is not None else "not requested: --set audit.loose=0.3"


@check(
    TableCopies,
    cannot_see="Texts of fewer than five words, and paraphrases (see semantic_copies). Of texts "
    "with 30 % of their words replaced it found 97 in 100 among a million texts, and 26 of 30 "
    "among 230.",
    error_rate="Every pair is verified word by word. But questions of one form differ as little "
    "as duplicates do, and the check cannot tell them apart. Review its list.",
    skip_reason=needs_loose_share,
)
def loose_copies(copied: TableCopies) -> CheckResult | None:
    """Lists loose near-duplicates: rows that differ from another row, of the table or of a file
    given with ``--against``, in at most the share of words set by ``audit.loose``. It omits what
    ``near_duplicates`` and ``leaks`` list. Score: the share of the rows."""
    loose, all_rows = copied.loose_copies, copied.all_rows
    if loose is None:
        return None
    pairs, span = loose.pairs(), all_rows.span("source")
    groups, ids = all_rows.duplicates.groups, copied.rows.ids
    # The source comes first: a pair of two other files has both ends beyond it.
    pairs = pairs.where((pairs.first < span.stop) & (groups[pairs.first] != groups[pairs.second]))
    if not len(pairs):
        return None
    pairs = sort_by_similarity(pairs)
    row_positions = [row for row in ranked_rows(pairs) if row < span.stop]
    across = len(np.unique(pairs.first[pairs.second >= span.stop]))
    files = f"; for {across} of them that row is in another file" if across else ""
    examples = []
    for n in range(min(MAX_EXAMPLES, len(pairs))):
        name = all_rows.table_name(int(pairs.second[n]))
        table, place = all_rows.tables[name], int(pairs.second[n]) - all_rows.starts[name]
        examples.append(
            CheckExample(
                int(ids[pairs.first[n]]),
                f"similarity {pairs.similarity[n]:.2f}",
                int(table.column("row")[place]),
                None if name == "source" else table.source,
            )
        )
    return result(
        ids[row_positions[:MAX_ROWS_LISTED]],
        f"{count_phrase(len(row_positions), 'row differs', 'rows differ')} from another row in "
        f"more than one word in eight and at most {percent_phrase(loose.share)} of the words "
        f"({count_phrase(len(pairs), 'pair')} of texts){files}",
        "Review the examples: rows from one template are not duplicates. Give real duplicates a "
        "common group (--group) so that no split tests what another was trained on.",
        score=len(row_positions) / len(ids),
        severity="info",
        count=len(row_positions),
        examples=examples,
    )
