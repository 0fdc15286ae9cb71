"""Images whose class is told by what they do not show: facts of the file, traces in the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase, list_phrase
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
    """A fact, its value, the class it gives away, and the positions of that class that have it."""

    fact: str
    value: str
    label: int
    rows: Ints
    share: float


@check(
    Images,
    cannot_see="A mark inside the picture (a logo, a ruler), or one in less than a tenth of a "
    "class.",
    error_rate="Each of five marks planted in half of a class of 60 pictures is found (size, "
    "format, compression, border, grey); none is found in CIFAR-10, MNIST and Omniglot.",
    applies_to=has_classes,
)
def image_giveaway(view: Images) -> CheckResult | None:
    """Reports a fact of the files that alone predicts the class: format, compression, exact size,
    transparency, a border, grey beside colour; width, height or shape beyond a limit.

    A value is a cue where at least 20 pictures of a class have it, a tenth of the class, and the
    lower 95 % limit of that class's share of all that have it is 83 % or more, and no less than two
    thirds of the way from the class's share of the table to 1. A measure is a cue where it parts a
    class from all others nearly perfectly (area under the ROC curve 0.9 or more at the lower
    limit). Score: the share of pictures given away; half of them is an error.
    """
    facts = [file.pixel_facts for file in view.file_facts]
    cues = [*_value_cues(view, facts), *_measure_cues(view)]
    return _cue_result(view, cues, in_pixels=True)


@check(
    Images,
    cannot_see="A source that leaves nothing in the file; numbers in file names.",
    error_rate="Each of four marks planted in half of a class of 60 pictures is found (camera, "
    "software, date, form of the name); none is found in CIFAR-10, MNIST and Omniglot.",
    applies_to=has_classes,
)
def image_source(view: Images) -> CheckResult | None:
    """Reports what only the file carries (camera, software, date, metadata, the form of its name)
    where it alone predicts the class, by the rule of ``image_giveaway``. A network does not see
    it, but such classes were gathered in different places, which it may see. A name that holds its
    class's is no finding. Score: the share of pictures given away."""
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
            # Where nearly all pictures are of one class anything predicts it.
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
    # A PNG has no JPEG quality either: what marks the same pictures is said once.
    once = {cue.rows.tobytes(): cue for cue in reversed(cues)}
    cues = sorted(once.values(), key=lambda cue: (-len(cue.rows), cue.fact, cue.value))
    classes, ids = view.rows.table.classes, view.rows.ids
    rows = np.unique(np.concatenate([cue.rows for cue in cues]))
    share = len(rows) / len(view.paths)
    sentences = [
        f"{cue.fact} {cue.value!r} in {count_phrase(len(cue.rows), 'picture')} of class "
        f"{classes[cue.label]!r} ({cue.share:.0%})"
        for cue in cues
    ]
    shown = list_phrase(sentences, _SHOWN)
    examples = tuple(
        CheckExample(int(ids[cue.rows[0]]), f"{cue.fact}: {cue.value}") for cue in cues[:_SHOWN]
    )
    return result(
        ids[rows],
        f"what is not shown gives the class away: {shown}"
        if in_pixels
        else f"the files of a class come from a place of their own: {shown}",
        "Bring all pictures into one form (size, format, compression) before training: a network "
        "learns such marks instead of what is shown."
        if in_pixels
        else "Test on pictures of each class from places that were not trained on.",
        score=share,
        severity=("error" if share >= 0.5 else "warn") if in_pixels else "info",
        examples=examples,
    )


LEAST_ROWS = 20
# What real classes differ in for honest reasons reached 0.57 on the draws that it was chosen on.
MIN_SEPARATION = 0.7
# An image of another class with the trace weighs so much as five of the class without it.
WEIGHT = 5
# Colours so near each other, of 255, are one.
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
    return f"no class has {LEAST_ROWS} of the {len(view.labels):,} images that were decoded"


@check(
    ImageSample,
    cannot_see="A trace in less than seven tenths of a class, or in other classes too; a mark "
    "away from the corners or under a sixteenth of the shorter side; compression by tables "
    "other than the standard's, at the quality that all images once had, or before a resize; "
    "noise and colour casts.",
    error_rate="None of 192 draws of 100 to 400 images of CIFAR-10, MNIST and Omniglot as they "
    "are is accused. A red corner of a seventh of the side, or compression at quality 50 to 90 "
    "saved as PNG, in every image of a class was found and its class named in 259 of 259 "
    "draws, a slight blur in 33 of 37.",
    applies_to=has_classes,
    skip_reason=_why_no_class,
)
def image_artefacts(view: ImageSample) -> CheckResult | None:
    """Reports classes that one trace of how images were made gives away nearly alone: earlier JPEG
    compression, block borders, blur or sharpening (frequency bands), a corner of one colour. A
    trace separates a class by the share of the class that has it, less five times the share of the
    other images that have it; the limit of a trace, or the colour of a corner, is the one that
    separates best. A class is reported from 0.7 on, where at most 1 % of 200 divisions into classes
    drawn at random (the given one among them) have any class that any trace separates so well: one
    error rate for all classes and traces. At most 1,000 images are decoded, and classes with 20 of
    them or more are looked at. Score: the share of these images that a trace gives away.
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
    # Neighbouring qualities are one compression: what marks a class is said once, by its best.
    best: dict[tuple[int, str], _Trace] = {}
    for one in sorted(separating, key=lambda one: one.separation):
        best[one.label, one.name.split(" near ")[0]] = one
    distinct = sorted(best.values(), key=lambda one: -one.separation)
    classes, ids = view.rows.table.classes, view.rows.ids[view.sample]
    rows = np.unique(np.concatenate([one.rows[labels[one.rows] == one.label] for one in distinct]))
    share = len(rows) / len(labels)
    shown = list_phrase([_shown(one, labels, classes) for one in distinct], _SHOWN)
    sampled = "" if len(labels) == len(view.rows.table) else f" of {len(labels):,} looked at"
    examples = tuple(
        CheckExample(int(ids[one.rows[labels[one.rows] == one.label][0]]), one.name)
        for one in distinct[:_SHOWN]
    )
    return result(
        ids[rows],
        "how the images were made gives the class away in "
        f"{count_phrase(len(rows), 'image')}{sampled}: "
        f"{shown} (permutation test of the labels, p = {p:.3f} for the largest of "
        f"{len(SCALARS) + len(CORNERS)} traces)",
        "Bring the images of all classes onto one way (the same source, compression, size; corners "
        "cut off) before training: a network learns such traces instead of what is shown.",
        score=share,
        severity="error" if share >= 0.5 else "warn",
        examples=examples,
    )


def checked_classes(view: ImageSample) -> Ints:
    """The classes with 20 images or more in the sample, and as many of others."""
    counts = np.bincount(view.labels, minlength=len(view.rows.table.classes))
    enough = (counts >= LEAST_ROWS) & (counts.sum() - counts >= LEAST_ROWS)
    return np.flatnonzero(enough)


def _weights(labels: Ints, classes_checked: Ints) -> Floats:
    """What an image adds to the separation of a class where it has the trace [n, classes]."""
    in_class = labels[:, None] == classes_checked
    share: Floats = np.where(in_class, 1 / in_class.sum(axis=0), -WEIGHT / (~in_class).sum(axis=0))
    return share


def _traces(traces: Traces, labels: Ints, classes_checked: Ints) -> Iterator[_Trace]:
    """The best of each trace for each class."""
    weights = _weights(labels, classes_checked)
    for column, values in enumerate(traces.scalars.T):
        order, sums = _running_sums(values, weights)
        for k, label in enumerate(classes_checked.tolist()):
            # From below up to a limit, or from a limit upwards.
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
    """The images in the order of a trace, and the sum of weights up to each [n, k]; the sum is 0
    where the next image has the same value, as no limit lies between them."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order], axis=0)
    tied = np.flatnonzero(np.diff(values[order]) == 0)
    sums[tied] = 0
    return order, sums


def _near_colours(colours: Floats) -> npt.NDArray[np.bool_]:
    """Which images have a corner of the colour of which [n, n]."""
    is_near: npt.NDArray[np.bool_] = np.ones((len(colours), len(colours)), dtype=bool)
    for channel in colours.T:
        is_near &= np.abs(channel[:, None] - channel) <= COLOUR_TOLERANCE
    return is_near


def _permutation_p_value(
    traces: Traces, labels: Ints, classes_checked: Ints, separation_found: float
) -> float:
    """The share of divisions drawn at random, the given one among them, of which the best trace of
    any class separates it by ``separation_found`` or more (max-T: Westfall and Young 1993)."""
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
        f"{one.name} in {in_class} of {total} of class {classes[one.label]!r} and in "
        f"{len(one.rows) - in_class} of {len(labels) - total} others"
    )
