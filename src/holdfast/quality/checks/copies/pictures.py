"""Near-duplicate images, in the table and across folders, and blank images."""

from __future__ import annotations

import numpy as np

from holdfast.core.wording import count_phrase
from holdfast.duplicates.images import have_different_content, near_duplicate_images
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.quality.check import CheckResult, check, has_classes, result
from holdfast.quality.pairs import conflicts_result, leaks_result, pair_examples, paired_rows
from holdfast.quality.views import Images, TableRows, needs_other_file

_LIKENESS = "correlation {:.3f}"
_CANNOT_SEE = (
    "Duplicates that are mirrored, rotated, or cropped by more than 5 %; more than ten duplicates "
    "of one image; other photographs of the same object."
)
_ERROR_RATE = (
    "It reports 9 pairs in 6,000 images of CIFAR-10, and 4 between these and 1,000 test images; "
    "all look like duplicates. It reports none in MNIST, and wrongly reports 3 of Omniglot's "
    "drawings. Of planted duplicates of photographs it finds 100 % if recompressed, brightened or "
    "noisy, 92 % if cropped by 3 %, 88 % at half the size and 56 % if turned grey. Of drawings it "
    "finds 93 % or more if recompressed, few if resized or shifted."
)


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE)
def near_images(view: Images) -> CheckResult | None:
    """Lists the images whose pixels match another image's after a resize, a recompression or a
    small change (``duplicates/images.py``). Exact duplicates (equal pixels) are not listed. Score:
    the share of images in such pairs."""
    pairs = view.copies
    if not len(pairs):
        return None
    rows, ids = paired_rows(pairs), view.rows.ids
    lowest = float(pairs.similarity.min())
    return result(
        ids[rows],
        f"{count_phrase(len(rows), 'image is a near-duplicate', 'images are near-duplicates')} of "
        f"another image ({count_phrase(len(pairs), 'pair')}, correlation ≥ {lowest:.2f}), e.g. "
        f"rows {ids[pairs.first[0]]} and {ids[pairs.second[0]]}",
        "Keep one image of each pair, or give duplicates a common group (--group) so that they "
        "stay in one split.",
        score=len(rows) / len(view.paths),
        examples=pair_examples(pairs, ids, ids, _LIKENESS),
    )


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE, applies_to=has_classes)
def image_conflicts(view: Images) -> CheckResult | None:
    """Lists the images that are near-duplicates of an image with another label. Score: their
    share of the images."""
    wording = ("near-duplicate images", "Correct one label of each pair.")
    return conflicts_result(view.copies, view.rows, _LIKENESS, wording, "warn", quote_texts=False)


@check(Images, cannot_see=_CANNOT_SEE, error_rate=_ERROR_RATE, skip_reason=needs_other_file)
def image_leaks(view: Images) -> CheckResult | None:
    """Lists the images that have a near-duplicate in another folder. The check ``leaks`` lists
    exact duplicates. Score: the largest share of a folder's images that have a near-duplicate in
    the source."""
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
        ("images", "a near-duplicate of an image", "near-duplicates of images", ""),
        "Remove these images from the training set: the score on their duplicates would reward "
        "memorization.",
        "warn",
    )


@check(
    Images,
    cannot_see="Images of noise, and images whose only object is very small.",
    error_rate="It reports none of 6,000 CIFAR-10, 6,000 MNIST and 4,840 Omniglot images.",
)
def blank_images(view: Images) -> CheckResult | None:
    """Lists images of one colour, or nearly one: brightness and colour vary by less than 4 of
    255. Score: their share."""
    blank = np.flatnonzero(view.thumbnails.flat)
    if not len(blank):
        return None
    ids = view.rows.ids
    return result(
        ids[blank],
        f"{count_phrase(len(blank), 'image is', 'images are')} blank (a single colour)",
        "Remove them: they show nothing.",
        score=len(blank) / len(view.paths),
    )
