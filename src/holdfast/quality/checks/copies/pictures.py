"""Pictures that are copies of others though their pixels differ, and pictures that show nothing."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase, has_or_have
from holdfast.duplicates.images import have_different_content, near_duplicate_images
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.pairs import conflicts_result, leaks_result, pair_examples, paired_rows
from holdfast.quality.views import Images, TableRows

_LIKENESS = "correlation {:.3f}"
_CANNOT_SEE = (
    "Copies that are mirrored, turned, or cropped by more than a twentieth; more than ten copies "
    "of one picture; other photographs of the same thing."
)
_ERROR_RATE = (
    "All 9 pairs in 6,000 pictures of CIFAR-10, and all 4 between them and 1,000 of its test set, "
    "are copies to the eye; none in MNIST; 3 of Omniglot's strokes are accused. Of planted copies "
    "of photographs it finds 100 % recompressed, brighter or noisy, 92 % cut by 3 %, 88 % at half "
    "the size, 56 % made grey; of drawings 93 % or more recompressed, few resized or moved."
)


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def near_images(view: Images) -> CheckResult | None:
    """Lists the pictures whose pixels agree with another's after a resize, a recompression or a
    small change (``duplicates/images.py``); pictures of equal pixels are exact copies and not
    among them. Score: the share of pictures in such pairs."""
    pairs = view.copies
    if not len(pairs):
        return None
    rows, ids = paired_rows(pairs), view.rows.ids
    lowest = float(pairs.similarity.min())
    return result(
        ids[rows],
        f"{count_phrase(len(rows), 'picture')} {has_or_have(len(rows))} the pixels of "
        "another but for a "
        f"small change ({count_phrase(len(pairs), 'pair')}, correlations from {lowest:.2f}), e.g. "
        f"rows {ids[pairs.first[0]]} and {ids[pairs.second[0]]}",
        "Keep one of each, or give copies one group (--group), so that they stay on one side.",
        score=len(rows) / len(view.paths),
        examples=pair_examples(pairs, ids, ids, _LIKENESS),
    )


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE, applies_to=has_classes)
def image_conflicts(view: Images) -> CheckResult | None:
    """Lists the pictures that are copies, exact or near, of one with another label. Score: their
    share of the pictures."""
    wording = (
        "pictures show the same under different labels",
        "Correct the label of one of each pair.",
    )
    return conflicts_result(view.copies, view.rows, _LIKENESS, wording, "warn", quote_texts=False)


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def image_leaks(view: Images) -> CheckResult | None:
    """Lists the pictures that stand in another folder too but for a small change; equal pixels are
    leaks of their own. Score: the largest share of a folder's pictures that are met here."""
    ids = view.rows.ids
    pairs_by_folder: dict[str, tuple[SimilarPairs, TableRows]] = {}
    for name, other in view.others.items():
        pairs = near_duplicate_images(view.thumbnails, other.thumbnails)
        unequal_pairs = pairs.where(
            have_different_content(view.rows.texts, other.rows.texts, pairs)
        )
        pairs_by_folder[name] = unequal_pairs, other.rows
    return leaks_result(
        pairs_by_folder,
        ids,
        _LIKENESS,
        ("pictures", "too but for a small change"),
        "Take them out of the training pictures: the score on them is remembered, not learned.",
        "warn",
    )


@check(
    Images,
    cannot_see="Pictures of noise, and those whose one thing is too small to be seen.",
    error_rate="None of 6,000 CIFAR-10, 6,000 MNIST and 4,840 Omniglot pictures is accused.",
)
def blank_images(view: Images) -> CheckResult | None:
    """Lists the pictures of one colour, or nearly so: brightness and colour vary by less than 4 of
    255. Score: their share."""
    blank = np.flatnonzero(view.thumbnails.flat)
    if not len(blank):
        return None
    ids = view.rows.ids
    return result(
        ids[blank],
        f"{count_phrase(len(blank), 'picture')} {has_or_have(len(blank))} one colour and "
        "nothing else",
        "Take them out: nothing can be seen in them.",
        score=len(blank) / len(view.paths),
    )
