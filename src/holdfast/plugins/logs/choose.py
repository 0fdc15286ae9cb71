"""From everything that a log holds to the few series that a verdict needs: what the name of a
number says, which are chosen, each choice told, and how many validation rows stand behind them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from holdfast.core.curves import PERCENT_ABOVE, Curves, Series
from holdfast.core.decisions import notify
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log, not_a_log

VALID = ("val", "valid", "validation", "eval", "evaluation", "dev", "holdout", "test")
TRAIN = ("train", "training", "tr", "learn")
# In order of what best stands for the loss that was minimised.
LOSSES = (
    ("loss",),
    ("nll", "logloss", "mlogloss", "crossentropy", "xent", "ce", "deviance"),
    ("mse", "rmse", "mae", "mape", "rmsle", "l1", "l2", "huber"),
    ("perplexity", "ppl"),
    ("error", "err", "merror", "wer", "cer"),
)
# Of classes, of texts, of masks and numbers, and others; the place is the rank.
METRICS = (
    *("accuracy", "acc", "f1", "auc", "auroc", "aucpr", "map", "mcc", "matthews"),
    *("bleu", "sacrebleu", "rouge", "meteor", "chrf", "bertscore", "em", "match"),
    *("r2", "iou", "miou", "dice", "kappa", "pearson", "spearman", "spearmanr", "ndcg"),
    *("precision", "recall", "accuracies", "psnr", "ssim", "score", "scores", "reward", "rewards"),
)
# Two spellings of one metric: ``accuracy`` beside ``val_acc`` is the same on both sets.
SAME = {
    "acc": "accuracy",
    "accuracies": "accuracy",
    "auroc": "auc",
    "matthews": "mcc",
    "spearmanr": "spearman",
    "rewards": "reward",
    "scores": "score",
}
STEMS = re.compile(r"(rouge|bleu|map|top|f1|auc|ndcg|acc)(\w?\d*\w*)$")
# Set and kind in one word: ``valloss``, ``vacc``.
JOINED = re.compile(r"^(train|val|valid|test|eval|dev|v|t)(loss|acc|accuracy)$")
SHORT = {"v": "val", "t": "train"}
NEITHER = {
    *("scale", "scaler", "weight", "lr", "rate", "norm", "time", "runtime", "second", "seconds"),
    *("std", "stderr", "count", "num"),
}
PLAIN = {"epoch", "total", "step", "mean", "avg", "average", "metrics", "history", "running"}


@dataclass(frozen=True, slots=True)
class NameMeaning:
    """A name taken apart. ``rank`` orders the kinds of one direction, best first; ``extra`` are the
    words that neither name the set nor the kind; ``base`` is the name without its set, in one
    spelling."""

    name: str
    side: Literal["train", "valid"] | None
    rises: bool
    rank: int
    held_aside: bool
    per_step: bool
    extra: tuple[str, ...]
    base: str

    def cost(self) -> tuple[bool, int, int, bool]:
        """By what the plainest name comes first."""
        return self.held_aside, self.rank, len(self.extra), self.per_step


def meaning(name: str) -> NameMeaning | None:
    """What ``name`` measures, ``None`` when it is neither a loss nor a known metric."""
    words = _words(name)
    kinds = [(kind, word) for word in words if (kind := _kind(word)) is not None]
    # ``error_rate`` is a metric, ``loss_scale`` and ``reward_std`` are none.
    if not kinds or (NEITHER & set(words) and not {"error", "rate"} <= set(words)):
        return None
    (rises, rank), named = min(kinds)
    extra = tuple(w for w in words if w not in (*VALID, *TRAIN, *PLAIN, named))
    side: Literal["train", "valid"] | None = "train" if set(words) & set(TRAIN) else None
    if set(words) & set(VALID):
        side = "valid"
    return NameMeaning(
        name,
        side,
        rises,
        rank,
        "test" in words,
        "step" in words,
        extra,
        " ".join([SAME.get(named, named), *extra]),
    )


def _words(name: str) -> tuple[str, ...]:
    pieces = []
    for piece in re.split(r"[^0-9A-Za-z]+", name):
        joined = JOINED.match(piece.lower())
        if joined:
            pieces += [SHORT.get(joined[1], joined[1]), joined[2]]
        elif _kind(piece.lower()) is None and re.search(r"[a-z][A-Z]", piece):
            pieces += re.sub(r"([a-z])([A-Z])", r"\1 \2", piece).lower().split()
        else:
            pieces.append(piece.lower())
    return tuple(piece for piece in pieces if piece)


def _kind(word: str) -> tuple[bool, int] | None:
    """Whether it rises, and its rank; a loss sorts before a metric."""
    for rank, names in enumerate(LOSSES):
        if word in names:
            return False, rank
    if word in METRICS:
        return True, METRICS.index(word)
    stem = STEMS.match(word)
    if stem:
        return True, METRICS.index(stem[1]) if stem[1] in METRICS else len(METRICS)
    return None


MOST_POINTS = 20_000
SETTINGS = ("train", "valid")
# Names without their set; ``mean_squared_error`` is none of them.
ERRORS = ("error", "err", "merror", "error rate", "err rate")


def choose(log: Log, settings: Mapping[str, str], what: str) -> Curves:
    """The curves of ``log``; ``settings`` name the columns ``train`` and ``valid`` where the user
    did. Validation is a loss where there is one, else a metric that rises.

    Raises ``DataError`` where the log has neither a training loss nor anything on validation, and
    ``RecipeError`` for an unknown setting.
    """
    for key in settings:
        if key not in SETTINGS:
            raise RecipeError("--set", "is not a series", key, suggest_name(key, list(SETTINGS)))
    known = _sided(log)
    train = _asked(log, settings, "train", what) or _best(known, "train", rises=False)
    valid = _asked(log, settings, "valid", what) or _best(known, "valid", rises=False)
    valid = valid or _best(known, "valid", rises=True)
    # Neither is an error alone: the verdict says what cannot be judged without it.
    if train is None and valid is None:
        names = ", ".join(log.columns)
        raise not_a_log(what, "has no column that is named like a loss or a metric", names)
    train_metric, valid_metric = _metrics(known)
    notify(*_series_decisions(known, {"train": train, "valid": valid}, settings))
    if valid_metric is not None:
        beside, because = "no training metric", "none has the same name"
        if train_metric is not None:
            beside = f"{train_metric.name} on the training rows"
            because = "the same metric on both sets"
        chosen = f"{valid_metric.name} on validation, {beside}"
        notify(Decision("metric", chosen, because))
    measured, right = _series(log, valid), _share_right(log, valid_metric)
    rows = valid_rows(log, measured, right)
    if rows is not None:
        notify(rows[1])
    return _fewer(
        Curves(
            source=log.source,
            axis=log.axis,
            train=_series(log, train),
            valid=measured,
            train_metric=_share_right(log, train_metric),
            valid_metric=right,
            comparable=train is not None and valid is not None and train.base == valid.base,
            clean=log.clean,
            planned_end=log.planned,
            epochs=log.epochs,
            seconds=log.seconds,
            valid_rows=None if rows is None else rows[0],
        )
    )


def _fewer(curves: Curves) -> Curves:
    """The curves with at most ``MOST_POINTS`` a series: every second, third … point, counted from
    the last, so that series of one length keep the same positions. The time of a verdict grows with
    the square of the points, and a course of 20,000 has told all that it can."""
    fewer: dict[str, Any] = {}
    for part in ("train", "valid", "train_metric", "valid_metric"):
        series: Series | None = getattr(curves, part)
        # Rounded up: one point in two where there is one too many.
        every = 1 if series is None else -(-len(series) // MOST_POINTS)
        if series is not None and every > 1:
            kept = slice((len(series) - 1) % every, None, every)
            fewer[part] = replace(series, positions=series.positions[kept], values=series.values[kept])
            because = f"{len(series):,} points; more than {MOST_POINTS:,} tell nothing further"
            notify(Decision(f"points of {series.name}", f"every {every}th", because))
    return replace(curves, **fewer)


def _sided(log: Log) -> list[NameMeaning]:
    """What every column means; a name without a set gets one."""
    filled = [name for name, series in log.columns.items() if len(series)]
    found = [m for name in filled if (m := meaning(name)) is not None]
    sets: dict[str, set[str]] = {}
    for m in found:
        if m.side is not None:
            sets.setdefault(m.base, set()).add(m.side)
    losses = {m.side for m in found if not m.rises and m.rank < len(LOSSES) - 1}
    return [
        m if m.side is not None else replace(m, side=_side(m, sets.get(m.base, set()), losses, log))
        for m in found
    ]


def _side(
    bare: NameMeaning, twins: Collection[str], losses: Collection[str | None], log: Log
) -> Literal["train", "valid"]:
    """The set of a name that says none.

    Beside the same name with one set it is of the other (``accuracy`` beside ``val_accuracy``);
    and a metric beside losses that both name their set is of validation, as scripts that write
    ``train_loss, val_loss, accuracy`` mean it. Else as its program has it.
    """
    if twins == {"valid"}:
        return "train"
    if not bare.rises:
        return log.unsided
    return "valid" if twins == {"train"} or losses == {"train", "valid"} else log.unsided


def _asked(log: Log, settings: Mapping[str, str], side: str, what: str) -> NameMeaning | None:
    if side not in settings:
        return None
    name = settings[side]
    if name not in log.columns:
        rule, remedy = f"is no numeric column of {what}", suggest_name(name, list(log.columns))
        raise DataError(f"--set {side}={name}", rule, name, remedy)
    return meaning(name) or NameMeaning(name, None, False, 0, False, False, (), name)


def _best(known: Sequence[NameMeaning], side: str, rises: bool) -> NameMeaning | None:
    """The plainest name of a set: the loss itself before its parts, epochs before single steps."""
    fitting = [m for m in known if m.side == side and m.rises == rises]
    if side == "train":
        # Rates of errors are no loss: training minimises something smooth.
        fitting = [m for m in fitting if m.rank < len(LOSSES) - 1]
    return min(fitting, key=NameMeaning.cost, default=None)


def _metrics(known: Sequence[NameMeaning]) -> tuple[NameMeaning | None, NameMeaning | None]:
    """The same metric of the training and of the validation rows; a rate of errors where no metric
    rises."""
    rates = [m for m in known if m.side == "valid" and m.base in ERRORS]
    plainest = min(rates, key=NameMeaning.cost, default=None)
    valid = _best(known, "valid", rises=True) or plainest
    if valid is None:
        return None, None
    same = [m for m in known if (m.side, m.rises, m.base) == ("train", valid.rises, valid.base)]
    return min(same, key=NameMeaning.cost, default=None), valid


def _series(log: Log, chosen: NameMeaning | None) -> Series | None:
    return None if chosen is None else replace(log.columns[chosen.name], higher_is_better=chosen.rises)


def _share_right(log: Log, chosen: NameMeaning | None) -> Series | None:
    """A metric as it is; a rate of errors as 1 − it (100 − it in per cent)."""
    series = _series(log, chosen)
    if series is None or series.higher_is_better:
        return series
    whole = 100.0 if series.finite.values.max(initial=0.0) > PERCENT_ABOVE else 1.0
    return replace(
        series, name=f"{whole:g} − {series.name}", values=whole - series.values, higher_is_better=True
    )


def _series_decisions(
    known: Sequence[NameMeaning],
    chosen: Mapping[str, NameMeaning | None],
    settings: Mapping[str, str],
) -> Iterator[Decision]:
    for side, series in chosen.items():
        if series is None:
            yield Decision(f"{side} series", "none", f"no column is named like one of {side}")
            continue
        others = [m.name for m in known if m.side == side and m.name != series.name]
        because = "asked for" if side in settings else "found by its name"
        if others and side not in settings:
            shown = ", ".join(others[:6]) + (" …" if len(others) > 6 else "")
            because += f"; also there: {shown} (choose with --set {side}=…)"
        shape = f"{series.name} (more is better)" if series.rises else series.name
        yield Decision(f"{side} series", shape, because)


NAMES = {
    name
    for side in ("eval", "val", "valid")
    for name in (f"{side}_samples", f"{side}_rows", f"n_{side}")
}
MOST = 5_000  # rows: above, any value is close to some fraction
DISTINCT = 4  # values that must all be fractions of the same number
CHANCE = 0.01  # that they are by accident, over every number tried


def valid_rows(
    log: Log, valid: Series | None, metric: Series | None
) -> tuple[int, Decision] | None:
    """The number with where it was found: a column that says so; the Trainer's rows a second times
    its seconds; an accuracy whose values are all fractions of one number. ``None`` without."""
    counted = _column(log) or _by_speed(log, valid) or _by_fractions(metric)
    if counted is None:
        return None
    rows, because = counted
    return rows, Decision("validation rows", str(rows), because)


def _column(log: Log) -> tuple[int, str] | None:
    for name, series in log.columns.items():
        if name.lower() in NAMES and np.isfinite(series.values[-1]) and series.values[-1] >= 1:
            return round(float(series.values[-1])), f"the column {name}"
    return None


def _by_speed(log: Log, valid: Series | None) -> tuple[int, str] | None:
    """``eval_loss`` stands beside ``eval_runtime`` and ``eval_samples_per_second``; so do the
    names of each of several evaluation sets."""
    if valid is None:
        return None
    stem = valid.name.rpartition("_")[0]
    while stem:
        time = log.columns.get(f"{stem}_runtime")
        speed = log.columns.get(f"{stem}_samples_per_second")
        if time is not None and speed is not None and len(time) == len(speed):
            # Both are logged rounded, to three or four decimals: the median takes most of that out.
            rows = float(np.median(time.values * speed.values))
            named = f"{stem}_runtime times {stem}_samples_per_second"
            return (round(rows), named) if np.isfinite(rows) and rows >= 1 else None
        stem = stem.rpartition("_")[0]
    return None


def _by_fractions(metric: Series | None) -> tuple[int, str] | None:
    """The least number of rows of which every accuracy is a whole part, as far as its decimals go.

    With d decimals a value v is k / n only where n v lies within n / 2·10⁻ᵈ of a whole number,
    which m values do by accident with probability (n 10⁻ᵈ)ᵐ; summed over the numbers tried, this
    must stay below 1 %. The true number may be a multiple: the interval is then too wide, not too
    narrow. A mean over batches of unequal size, or another metric, fits no number.
    """
    if metric is None or "acc" not in metric.name.lower():
        return None
    values = np.unique(metric.finite.values)
    scale = 100.0 if values.max(initial=0.0) > PERCENT_ABOVE else 1.0
    values = values[(values > 0) & (values < scale)]
    if len(values) < DISTINCT:
        return None
    # The most decimals with which the values were written.
    # Twelve: further ones of a float64 are its own rounding.
    decimals = max(len(f"{v:.12f}".rstrip("0").partition(".")[2]) for v in values)
    slack = 10.0**-decimals / scale
    accident = 0.0
    for rows in range(2, MOST):
        # Added up over all numbers tried: the search itself makes a fit by accident likelier.
        accident += min(1.0, rows * slack) ** len(values)
        if accident > CHANCE:
            return None
        parts = rows * values / scale
        if np.all(np.abs(parts - np.round(parts)) <= rows * slack / 2 + 1e-9):
            return rows, f"every value of {metric.name} is a whole part of that many"
    return None
