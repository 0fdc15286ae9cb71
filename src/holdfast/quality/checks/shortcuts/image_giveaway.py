"""Image shortcuts: file properties and traces in the pixels that predict the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase, list_phrase, percent_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.image_facts import CORNERS, SCALARS, Traces
from holdfast.quality.views import Images, ImageSample
from holdfast.stats.auc import delong
from holdfast.stats.intervals import wilson

_LEAST_ROWS = 20
_MIN_COVERAGE = 0.1
_MIN_PRECISION = 0.83
_MEASURES = {"width": "pixels wide", "height": "pixels high", "shape": "in width to height"}
_MIN_AREA = 0.9
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class _Cue:
    """A property, its value, the class that it predicts, and the rows of that class that have
    it."""

    fact: str
    value: str
    label: int
    rows: Ints
    share: float


@check(
    Images,
    cannot_see="A mark inside the image (a logo, a ruler), or a property of less than 10 % of a "
    "class.",
    error_rate="It finds each of five properties planted in half of a class of 60 images (size, "
    "format, compression, border, grey). It reports nothing on CIFAR-10, MNIST and Omniglot.",
    applies_to=has_classes,
)
def image_giveaway(view: Images) -> CheckResult | None:
    """Reports a property of the image files that predicts the class by itself: format,
    compression, exact size, transparency, a border, grey or colour; width, height or aspect ratio
    beyond a limit.

    A value is reported if at least 20 images of a class have it, and 10 % of the class. Of all
    images with the value, the share of that class must have a lower 95 % limit of at least 83 %,
    and of at least two thirds of the way from the class's share of the table to 1. A measure is
    reported if it separates a class from all others nearly perfectly (lower limit of the AUC 0.9 or
    more). Score: the share of affected images; from one half on it is an error.
    """
    facts = [file.pixel_facts for file in view.file_facts]
    cues = [*_value_cues(view, facts), *_measure_cues(view)]
    return _cue_result(view, cues, in_pixels=True)


@check(
    Images,
    cannot_see="A source that leaves no trace in the file; numbers in file names.",
    error_rate="It finds each of four properties planted in half of a class of 60 images (camera, "
    "software, date, form of the name). It reports nothing on CIFAR-10, MNIST and Omniglot.",
    applies_to=has_classes,
)
def image_source(view: Images) -> CheckResult | None:
    """Reports file metadata that predicts the class by itself (camera, software, date, metadata,
    the form of the file name), by the rule of ``image_giveaway``. A network does not see metadata.
    But the images of such classes come from different sources, and that may be visible. A file name
    that contains its class name is not reported. Score: the share of affected images."""
    named = [name.casefold() for name in view.rows.table.classes]
    cues = [
        cue
        for cue in _value_cues(view, [look.metadata_facts for look in view.file_facts])
        if cue.fact != "file name" or named[cue.label] not in cue.value.casefold()
    ]
    return _cue_result(view, cues, in_pixels=False)


def _value_cues(view: Images, facts: list[dict[str, str]]) -> Iterator[_Cue]:
    labels = view.rows.labels
    rows = np.bincount(labels[labels >= 0], minlength=len(view.rows.table.classes))
    for fact in facts[0]:
        values = np.array([one[fact] for one in facts], dtype=object)
        for value, count in Counter(values[labels >= 0].tolist()).items():
            has = (values == value) & (labels >= 0)
            label, hits = Counter(labels[has].tolist()).most_common(1)[0]
            if hits < max(_LEAST_ROWS, _MIN_COVERAGE * int(rows[label])):
                continue
            # If nearly all images are of one class, any value predicts it.
            low, base = wilson(hits, count)[0], float(rows[label] / rows.sum())
            if low < _MIN_PRECISION or low < 1 - (1 - base) / 3:
                continue
            rows_of_class = np.flatnonzero(has & (labels == label))
            yield _Cue(fact, value, label, rows_of_class, hits / count)


def _measure_cues(view: Images) -> Iterator[_Cue]:
    labels = view.rows.labels
    labelled = labels >= 0
    measures = {
        "width": np.array([float(look.width) for look in view.file_facts]),
        "height": np.array([float(look.height) for look in view.file_facts]),
        "shape": np.array([look.shape for look in view.file_facts]),
    }
    for name, values in measures.items():
        for label in range(len(view.rows.table.classes)):
            in_class = labels == label
            if in_class.sum() < _LEAST_ROWS or in_class.sum() == labelled.sum():
                continue
            area = delong(in_class[labelled], values[labelled])
            high = area.value >= 0.5
            if max(area.low, 1 - area.high) < _MIN_AREA:
                continue
            limit = np.quantile(values[in_class], 0.05 if high else 0.95)
            words = f"{limit:.4g} {_MEASURES[name]} or {'more' if high else 'less'}"
            where = np.flatnonzero(in_class & (values >= limit if high else values <= limit))
            yield _Cue(name, words, label, where, float(area.value))


def _cue_result(view: Images, cues: list[_Cue], *, in_pixels: bool) -> CheckResult | None:
    if not cues:
        return None
    # A PNG has no JPEG quality either: report properties of the same images once.
    once = {cue.rows.tobytes(): cue for cue in reversed(cues)}
    cues = sorted(once.values(), key=lambda cue: (-len(cue.rows), cue.fact, cue.value))
    classes, ids = view.rows.table.classes, view.rows.ids
    rows = np.unique(np.concatenate([cue.rows for cue in cues]))
    share = len(rows) / len(view.paths)
    sentences = [
        f"{cue.fact} {cue.value!r} in {count_phrase(len(cue.rows), 'image')} of class "
        f"{classes[cue.label]!r} ({percent_phrase(cue.share)})"
        for cue in cues
    ]
    shown = list_phrase(sentences, _SHOWN)
    examples = tuple(
        CheckExample(int(ids[cue.rows[0]]), f"{cue.fact}: {cue.value}") for cue in cues[:_SHOWN]
    )
    return result(
        ids[rows],
        f"shortcut: a property of the image files predicts the class: {shown}"
        if in_pixels
        else f"the images of a class come from a source of their own: {shown}",
        "Convert all images to one size, format and compression before training: a network learns "
        "such properties instead of the content."
        if in_pixels
        else "Test on images of each class from sources that are not in the training set.",
        score=share,
        severity=("error" if share >= 0.5 else "warn") if in_pixels else "info",
        examples=examples,
    )


LEAST_ROWS = 20
# Real differences between classes reached 0.57 on the samples on which this value was chosen.
MIN_SEPARATION = 0.7
# One image of another class with the trace weighs as much as five images of the class without it.
WEIGHT = 5
# Colours closer than this (of 255) count as equal.
COLOUR_TOLERANCE = 8
PERMUTATIONS = 199
ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class _Trace:
    """``rows`` [m] of the sample that have the trace ``name``, and how well it separates the class
    ``label``."""

    name: str
    label: int
    rows: Ints
    separation: float


def _why_no_class(view: ImageSample) -> str:
    if len(checked_classes(view)):
        return ""
    return f"no class has {LEAST_ROWS} of the {len(view.labels):,} decoded images"


@check(
    ImageSample,
    cannot_see="A trace in less than 70 % of a class, or one that other classes have too; a mark "
    "that is not in a corner or is smaller than 1/16 of the shorter side; JPEG compression with "
    "non-standard tables, at a quality that all images once had, or before a resize; noise and "
    "colour casts.",
    error_rate="It reports nothing on 192 samples of 100 to 400 unmodified images of CIFAR-10, "
    "MNIST and Omniglot. A red corner of 1/7 of the side, or JPEG compression at quality 50 to 90 "
    "saved as PNG, in every image of a class: found in 259 of 259 samples, with the correct class. "
    "A slight blur: found in 33 of 37.",
    applies_to=has_classes,
    skip_reason=_why_no_class,
)
def image_artefacts(view: ImageSample) -> CheckResult | None:
    """Reports classes that a single trace of image processing predicts: earlier JPEG compression,
    block borders, blur or sharpening (frequency bands), or a corner of one colour. The separation
    of a class is the share of its images that have the trace, minus five times the share of the
    other images that have it. The threshold of a trace, or the colour of a corner, is the one that
    separates best. A class is reported from a separation of 0.7 on if a permutation test of the
    labels (199 permutations) gives p ≤ 0.01 for the largest separation over all classes and traces.
    At most 1,000 images are decoded; classes with fewer than 20 of them are skipped. Score: the
    share of these images that have such a trace.
    """
    labels, traces = view.labels, view.traces
    classes_checked = checked_classes(view)
    separating = [
        one for one in _traces(traces, labels, classes_checked) if one.separation >= MIN_SEPARATION
    ]
    if not separating:
        return None
    lowest_separation = min(one.separation for one in separating)
    p = _permutation_p_value(traces, labels, classes_checked, lowest_separation)
    if p > ALPHA:
        return None
    # Neighbouring qualities are one compression: report each trace of a class once, by its best.
    best: dict[tuple[int, str], _Trace] = {}
    for one in sorted(separating, key=lambda one: one.separation):
        best[one.label, one.name.split(" near ")[0]] = one
    distinct = sorted(best.values(), key=lambda one: -one.separation)
    classes, ids = view.rows.table.classes, view.rows.ids[view.sample]
    rows = np.unique(np.concatenate([one.rows[labels[one.rows] == one.label] for one in distinct]))
    share = len(rows) / len(labels)
    shown = list_phrase([_shown(one, labels, classes) for one in distinct], _SHOWN)
    sampled = "" if len(labels) == len(view.rows.table) else f" of {len(labels):,} examined"
    examples = tuple(
        CheckExample(int(ids[one.rows[labels[one.rows] == one.label][0]]), one.name)
        for one in distinct[:_SHOWN]
    )
    return result(
        ids[rows],
        "shortcut: a trace of image processing predicts the class of "
        f"{count_phrase(len(rows), 'image')}{sampled}: "
        f"{shown} (p = {p:.3f}, permutation test of the labels for the largest of "
        f"{len(SCALARS) + len(CORNERS)} traces)",
        "Process the images of all classes in the same way before training (source, compression, "
        "size; crop the corners): a network learns such traces instead of the content.",
        score=share,
        severity="error" if share >= 0.5 else "warn",
        examples=examples,
    )


def checked_classes(view: ImageSample) -> Ints:
    """The classes with 20 images or more in the sample, and 20 or more of other classes."""
    counts = np.bincount(view.labels, minlength=len(view.rows.table.classes))
    enough = (counts >= LEAST_ROWS) & (counts.sum() - counts >= LEAST_ROWS)
    return np.flatnonzero(enough)


def _weights(labels: Ints, classes_checked: Ints) -> Floats:
    """What each image adds to the separation of each class if it has the trace [n, classes]."""
    in_class = labels[:, None] == classes_checked
    share: Floats = np.where(in_class, 1 / in_class.sum(axis=0), -WEIGHT / (~in_class).sum(axis=0))
    return share


def _traces(traces: Traces, labels: Ints, classes_checked: Ints) -> Iterator[_Trace]:
    """The best of each trace for each class."""
    weights = _weights(labels, classes_checked)
    for column, values in enumerate(traces.scalars.T):
        order, sums = _running_sums(values, weights)
        for k, label in enumerate(classes_checked.tolist()):
            # All values up to a limit, or all values above one.
            low, high = int(np.argmax(sums[:, k])), int(np.argmin(sums[:, k]))
            upward = 1 - WEIGHT - sums[high, k] > sums[low, k]
            rows = order[high + 1 :] if upward else order[: low + 1]
            better = float(1 - WEIGHT - sums[high, k] if upward else sums[low, k])
            yield _Trace(SCALARS[column], label, np.sort(rows), better)
    for place in range(len(CORNERS)):
        is_near = _near_colours(traces.corners[:, place])
        separation = np.where(weights > 0, is_near.astype(np.float32) @ weights, -np.inf)
        for k, label in enumerate(classes_checked.tolist()):
            best = int(np.argmax(separation[:, k]))
            colour = ", ".join(f"{value:.0f}" for value in traces.corners[best, place])
            name = f"{CORNERS[place]} ({colour})"
            yield _Trace(name, label, np.flatnonzero(is_near[best]), float(separation[best, k]))


def _running_sums(values: Floats, weights: Floats) -> tuple[Ints, Floats]:
    """The images in the order of a trace, and the sum of weights up to each [n, k]. The sum is 0
    where the next image has the same value, because no limit can separate them."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order], axis=0)
    tied = np.flatnonzero(np.diff(values[order]) == 0)
    sums[tied] = 0
    return order, sums


def _near_colours(colours: Floats) -> npt.NDArray[np.bool_]:
    """Which images have the same corner colour as which [n, n]."""
    is_near: npt.NDArray[np.bool_] = np.ones((len(colours), len(colours)), dtype=bool)
    for channel in colours.T:
        is_near &= np.abs(channel[:, None] - channel) <= COLOUR_TOLERANCE
    return is_near


def _permutation_p_value(
    traces: Traces, labels: Ints, classes_checked: Ints, separation_found: float
) -> float:
    """The permutation p-value: the share of random label assignments, the given one included, whose
    best trace of any class separates it by ``separation_found`` or more (max-T: Westfall and Young
    1993)."""
    rng = generator(0, "image_artefacts")
    permuted = [_weights(rng.permutation(labels), classes_checked) for _ in range(PERMUTATIONS)]
    weights = np.concatenate(permuted, axis=1)
    best = np.full(weights.shape[1], -np.inf)
    for values in traces.scalars.T:
        sums = _running_sums(values, weights)[1]
        best = np.maximum(best, np.maximum(sums.max(axis=0), 1 - WEIGHT - sums.min(axis=0)))
    for place in range(len(CORNERS)):
        is_near = _near_colours(traces.corners[:, place]).astype(np.float32)
        separation = np.where(weights > 0, is_near @ weights.astype(np.float32), -np.inf)
        best = np.maximum(best, separation.max(axis=0))
    exceeds = best.reshape(PERMUTATIONS, -1).max(axis=1) >= separation_found
    return float(1 + exceeds.sum()) / (1 + PERMUTATIONS)


def _shown(one: _Trace, labels: Ints, classes: tuple[str, ...]) -> str:
    in_class = int((labels[one.rows] == one.label).sum())
    total = int((labels == one.label).sum())
    return (
        f"{one.name} in {in_class} of {total} images of class {classes[one.label]!r} and in "
        f"{len(one.rows) - in_class} of {len(labels) - total} others"
    )
