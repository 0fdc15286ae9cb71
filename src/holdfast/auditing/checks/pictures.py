"""Pictures that are copies of others though their pixels differ, and pictures that show nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.auditing.check import Check, Example, Found, add, anything, with_classes
from holdfast.auditing.views import Pictures
from holdfast.copies.pictures import near_pictures, unequal
from holdfast.copies.vectors import Pairs
from holdfast.core.records import Finding, Ints
from holdfast.core.wording import counted, have

_SHOWN = 20
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


def near_images(view: Pictures) -> Found | None:
    """Lists the pictures whose pixels agree with another's after a resize, a recompression or a
    small change (``copies/pictures.py``); pictures of equal pixels are exact copies and not among
    them. Score: the share of pictures in such pairs."""
    pairs = view.copies
    if not len(pairs):
        return None
    rows, ids = _rows(pairs), view.rows.ids
    least = float(pairs.similarity.min())
    return Found(
        Finding(
            "near_images",
            "warn",
            len(rows) / len(view.paths),
            len(rows),
            tuple(ids[rows].tolist()),
            f"{counted(len(rows), 'picture')} {have(len(rows))} the pixels of another but for a "
            f"small change ({counted(len(pairs), 'pair')}, correlations from {least:.2f}), e.g. "
            f"rows {ids[pairs.first[0]]} and {ids[pairs.second[0]]}",
            "Keep one of each, or give copies one group (--group), so that they stay on one side.",
        ),
        _examples(pairs, ids, ids),
    )


def image_conflicts(view: Pictures) -> Found | None:
    """Lists the pictures that are copies, exact or near, of one with another label. Score: their
    share of the pictures."""
    labels, classes, ids = view.rows.labels, view.rows.table.classes, view.rows.ids
    known = view.copies
    one, other = labels[known.first], labels[known.second]
    pairs = known.where((one >= 0) & (other >= 0) & (one != other))
    if not len(pairs):
        return None
    rows = _rows(pairs)
    notes = [
        f"{classes[labels[a]]!r} and {classes[labels[b]]!r}"
        for a, b in zip(pairs.first[:_SHOWN], pairs.second[:_SHOWN], strict=True)
    ]
    return Found(
        Finding(
            "image_conflicts",
            "warn",
            len(rows) / len(labels),
            len(rows),
            tuple(ids[rows].tolist()),
            f"{counted(len(pairs), 'pair')} of pictures show the same under different labels, e.g. "
            f"rows {ids[pairs.first[0]]} and {ids[pairs.second[0]]} are {notes[0]}",
            "Correct the label of one of each pair.",
        ),
        _examples(pairs, ids, ids, notes=notes),
    )


def image_leaks(view: Pictures) -> Found | None:
    """Lists the pictures that stand in another folder too but for a small change; equal pixels are
    leaks of their own. Score: the largest share of a folder's pictures that are met here."""
    ids = view.rows.ids
    met: dict[str, Ints] = {}
    mine: list[Ints] = []
    examples: list[tuple[Example, ...]] = []
    for name, other in view.others.items():
        found = near_pictures(view.thumbnails, other.thumbnails)
        pairs = found.where(unequal(view.rows.texts, other.rows.texts, found))
        if len(pairs):
            met[name] = np.unique(pairs.second)
            mine.append(pairs.first)
            examples.append(_examples(pairs, ids, other.rows.ids, name))
    if not met:
        return None
    positions = np.unique(np.concatenate(mine))
    said = " and ".join(
        f"{len(found):,} of the {len(view.others[name].paths):,} pictures of {name}"
        for name, found in met.items()
    )
    return Found(
        Finding(
            "image_leaks",
            "warn",
            max(len(found) / len(view.others[name].paths) for name, found in met.items()),
            len(positions),
            tuple(ids[positions].tolist()),
            f"{said} stand here too but for a small change",
            "Take them out of the training pictures: the score on them is remembered, not learned.",
        ),
        tuple(example for part in examples for example in part)[:_SHOWN],
    )


def blank_images(view: Pictures) -> Finding | None:
    """Lists the pictures of one colour, or nearly so: brightness and colour vary by less than 4 of
    255. Score: their share."""
    found = np.flatnonzero(view.thumbnails.flat)
    if not len(found):
        return None
    ids = view.rows.ids
    return Finding(
        "blank_images",
        "warn",
        len(found) / len(view.paths),
        len(found),
        tuple(ids[found].tolist()),
        f"{counted(len(found), 'picture')} {have(len(found))} one colour and nothing else",
        "Take them out: nothing can be seen in them.",
    )


def _rows(pairs: Pairs) -> Ints:
    return np.unique(np.concatenate([pairs.first, pairs.second]))


def _examples(
    pairs: Pairs, ids: Ints, others: Ints, file: str | None = None, notes: Sequence[str] = ()
) -> tuple[Example, ...]:
    return tuple(
        Example(
            int(ids[pairs.first[n]]),
            ", ".join([*notes[n : n + 1], f"correlation {pairs.similarity[n]:.3f}"]),
            int(others[pairs.second[n]]),
            file,
        )
        for n in range(min(_SHOWN, len(pairs)))
    )


add(Check("near_images", Pictures, near_images, _CANNOT_SEE, _ERROR_RATE, anything))
add(Check("image_conflicts", Pictures, image_conflicts, _CANNOT_SEE, _ERROR_RATE, with_classes))
add(Check("image_leaks", Pictures, image_leaks, _CANNOT_SEE, _ERROR_RATE, anything))
add(
    Check(
        "blank_images",
        Pictures,
        blank_images,
        cannot_see="Pictures of noise, and those whose one thing is too small to be seen.",
        error_rate="None of 6,000 CIFAR-10, 6,000 MNIST and 4,840 Omniglot pictures is accused.",
        holds_for=anything,
    )
)
