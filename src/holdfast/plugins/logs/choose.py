"""Selection of the few series of a log that a verdict needs: what a name means, which series are
selected, a decision for each, and the number of validation rows.
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
# In order of how well each stands for the loss that was minimised.
LOSSES = (
    ("loss",),
    ("nll", "logloss", "mlogloss", "crossentropy", "xent", "ce", "deviance"),
    ("mse", "rmse", "mae", "mape", "rmsle", "l1", "l2", "huber"),
    ("perplexity", "ppl"),
    ("error", "err", "merror", "wer", "cer"),
)
# Of classes, texts, masks, numbers, and others; the place is the rank.
METRICS = (
    *("accuracy", "acc", "f1", "auc", "auroc", "aucpr", "map", "mcc", "matthews"),
    *("bleu", "sacrebleu", "rouge", "meteor", "chrf", "bertscore", "em", "match"),
    *("r2", "iou", "miou", "dice", "kappa", "pearson", "spearman", "spearmanr", "ndcg"),
    *("precision", "recall", "accuracies", "psnr", "ssim", "score", "scores", "reward", "rewards"),
)
# Two spellings of one metric: ``accuracy`` and ``val_acc`` are the same on both sets.
SYNONYMS = {
    "acc": "accuracy",
    "accuracies": "accuracy",
    "auroc": "auc",
    "matthews": "mcc",
    "spearmanr": "spearman",
    "rewards": "reward",
    "scores": "score",
}
STEMS = re.compile(r"(rouge|bleu|map|top|f1|auc|ndcg|acc)(\w?\d*\w*)$")
# Split and kind in one word: ``valloss``, ``vacc``.
SET_AND_METRIC = re.compile(r"^(train|val|valid|test|eval|dev|v|t)(loss|acc|accuracy)$")
SET_LETTERS = {"v": "val", "t": "train"}
NON_METRIC_WORDS = {
    *("scale", "scaler", "weight", "lr", "rate", "norm", "time", "runtime", "second", "seconds"),
    *("std", "stderr", "count", "num"),
}
NEUTRAL_WORDS = {
    "epoch",
    "total",
    "step",
    "mean",
    "avg",
    "average",
    "metrics",
    "history",
    "running",
}


@dataclass(frozen=True, slots=True)
class NameMeaning:
    """A name taken apart.

    ``rank`` orders the kinds of one direction, best first; ``extra`` are the words that name
    neither the split nor the kind; ``base`` is the name without its split, in one spelling.
    """

    name: str
    split: Literal["train", "valid"] | None
    rises: bool
    rank: int
    is_test: bool
    per_step: bool
    extra: tuple[str, ...]
    base: str

    def cost(self) -> tuple[bool, int, int, bool]:
        """Sort key: the plainest name comes first."""
        return self.is_test, self.rank, len(self.extra), self.per_step


def parse_name(name: str) -> NameMeaning | None:
    """What ``name`` measures, ``None`` when it is neither a loss nor a known metric."""
    words = _words(name)
    ranked_words = [
        (rank_of_word, word) for word in words if (rank_of_word := _metric_rank(word)) is not None
    ]
    # ``error_rate`` is a metric; ``loss_scale`` and ``reward_std`` are not.
    if not ranked_words or (NON_METRIC_WORDS & set(words) and not {"error", "rate"} <= set(words)):
        return None
    (rises, rank), metric_word = min(ranked_words)
    extra = tuple(w for w in words if w not in (*VALID, *TRAIN, *NEUTRAL_WORDS, metric_word))
    split: Literal["train", "valid"] | None = "train" if set(words) & set(TRAIN) else None
    if set(words) & set(VALID):
        split = "valid"
    return NameMeaning(
        name,
        split,
        rises,
        rank,
        "test" in words,
        "step" in words,
        extra,
        " ".join([SYNONYMS.get(metric_word, metric_word), *extra]),
    )


def _words(name: str) -> tuple[str, ...]:
    pieces = []
    for piece in re.split(r"[^0-9A-Za-z]+", name):
        joined = SET_AND_METRIC.match(piece.lower())
        if joined:
            pieces += [SET_LETTERS.get(joined[1], joined[1]), joined[2]]
        elif _metric_rank(piece.lower()) is None and re.search(r"[a-z][A-Z]", piece):
            pieces += re.sub(r"([a-z])([A-Z])", r"\1 \2", piece).lower().split()
        else:
            pieces.append(piece.lower())
    return tuple(piece for piece in pieces if piece)


def _metric_rank(word: str) -> tuple[bool, int] | None:
    """Whether higher is better, and its rank; a loss sorts before a metric."""
    for rank, names in enumerate(LOSSES):
        if word in names:
            return False, rank
    if word in METRICS:
        return True, METRICS.index(word)
    stem = STEMS.match(word)
    if stem:
        return True, METRICS.index(stem[1]) if stem[1] in METRICS else len(METRICS)
    return None


MAX_POINTS = 20_000
SETTINGS = ("train", "valid")
# Names without their split; ``mean_squared_error`` is not among them.
ERRORS = ("error", "err", "merror", "error rate", "err rate")


def choose_curves(log: Log, settings: Mapping[str, str], log_name: str) -> Curves:
    """Select the curves of ``log``; ``settings`` name the columns ``train`` and ``valid`` where the
    user did.

    Validation is a loss where there is one, else a metric that rises. Raises ``DataError`` where
    the log has neither a training loss nor anything on validation, and ``RecipeError`` for an
    unknown setting.
    """
    for key in settings:
        if key not in SETTINGS:
            raise RecipeError("--set", "is not a series", key, suggest_name(key, list(SETTINGS)))
    columns = _named_columns(log)
    train = _requested_column(log, settings, "train", log_name) or _plainest(
        columns, "train", rises=False
    )
    valid = _requested_column(log, settings, "valid", log_name) or _plainest(
        columns, "valid", rises=False
    )
    valid = valid or _plainest(columns, "valid", rises=True)
    # One of the two may be missing: the verdict says what cannot be judged without it.
    if train is None and valid is None:
        names = ", ".join(log.columns)
        raise not_a_log(log_name, "has no column with the name of a loss or a metric", names)
    train_metric, valid_metric = _metrics(columns)
    notify(*_series_decisions(columns, {"train": train, "valid": valid}, settings))
    if valid_metric is not None:
        training_words, because = "no training metric", "none has the same name"
        if train_metric is not None:
            training_words = f"{train_metric.name} on the training rows"
            because = "the same metric on both sets"
        metric_words = f"{valid_metric.name} on validation, {training_words}"
        notify(Decision("metric", metric_words, because))
    valid_series, valid_accuracy = _series(log, valid), _as_accuracy(log, valid_metric)
    rows = validation_row_count(log, valid_series, valid_accuracy)
    if rows is not None:
        notify(rows[1])
    return _thin_out(
        Curves(
            source=log.source,
            axis=log.axis,
            train=_series(log, train),
            valid=valid_series,
            train_metric=_as_accuracy(log, train_metric),
            valid_metric=valid_accuracy,
            comparable=train is not None and valid is not None and train.base == valid.base,
            clean=log.clean,
            planned_end=log.planned,
            epochs=log.epochs,
            seconds=log.seconds,
            valid_rows=None if rows is None else rows[0],
        )
    )


def _thin_out(curves: Curves) -> Curves:
    """The curves with at most ``MAX_POINTS`` a series: every second, third … point, counted from
    the last, so that series of one length keep the same positions.

    The time of a verdict grows with the square of the points, and more points add nothing.
    """
    thinned: dict[str, Any] = {}
    for part in ("train", "valid", "train_metric", "valid_metric"):
        series: Series | None = getattr(curves, part)
        # Rounded up: every second point where there is one too many.
        step = 1 if series is None else -(-len(series) // MAX_POINTS)
        if series is not None and step > 1:
            positions = slice((len(series) - 1) % step, None, step)
            thinned[part] = replace(
                series, positions=series.positions[positions], values=series.values[positions]
            )
            because = f"{len(series):,} points; more than {MAX_POINTS:,} add no information"
            notify(Decision(f"points of {series.name}", f"every {step}th", because))
    return replace(curves, **thinned)


def _named_columns(log: Log) -> list[NameMeaning]:
    """The meaning of every column; a name without a split gets one."""
    filled_columns = [name for name, series in log.columns.items() if len(series)]
    meanings = [m for name in filled_columns if (m := parse_name(name)) is not None]
    splits_of_base: dict[str, set[str]] = {}
    for m in meanings:
        if m.split is not None:
            splits_of_base.setdefault(m.base, set()).add(m.split)
    losses = {m.split for m in meanings if not m.rises and m.rank < len(LOSSES) - 1}
    return [
        m
        if m.split is not None
        else replace(m, split=_guess_split(m, splits_of_base.get(m.base, set()), losses, log))
        for m in meanings
    ]


def _guess_split(
    bare: NameMeaning, twins: Collection[str], losses: Collection[str | None], log: Log
) -> Literal["train", "valid"]:
    """The split of a name that has none.

    With the same name in one split it belongs to the other (``accuracy`` with ``val_accuracy``).
    With losses that both name their split, a metric is of validation, as in scripts that write
    ``train_loss, val_loss, accuracy``. Else the program's default applies.
    """
    if twins == {"valid"}:
        return "train"
    if not bare.rises:
        return log.default_split
    return "valid" if twins == {"train"} or losses == {"train", "valid"} else log.default_split


def _requested_column(
    log: Log, settings: Mapping[str, str], split: str, log_name: str
) -> NameMeaning | None:
    if split not in settings:
        return None
    name = settings[split]
    if name not in log.columns:
        rule, remedy = (
            f"is not a numeric column of {log_name}",
            suggest_name(name, list(log.columns)),
        )
        raise DataError(f"--set {split}={name}", rule, name, remedy)
    return parse_name(name) or NameMeaning(name, None, False, 0, False, False, (), name)


def _plainest(columns: Sequence[NameMeaning], split: str, rises: bool) -> NameMeaning | None:
    """The plainest name of a split: the loss itself before its parts, epochs before single
    steps.
    """
    candidates = [m for m in columns if m.split == split and m.rises == rises]
    if split == "train":
        # Error rates are not losses: training minimises something smooth.
        candidates = [m for m in candidates if m.rank < len(LOSSES) - 1]
    return min(candidates, key=NameMeaning.cost, default=None)


def _metrics(columns: Sequence[NameMeaning]) -> tuple[NameMeaning | None, NameMeaning | None]:
    """The same metric of the training and of the validation rows; an error rate where no metric
    rises.
    """
    error_rates = [m for m in columns if m.split == "valid" and m.base in ERRORS]
    plainest = min(error_rates, key=NameMeaning.cost, default=None)
    valid = _plainest(columns, "valid", rises=True) or plainest
    if valid is None:
        return None, None
    training = [
        m for m in columns if (m.split, m.rises, m.base) == ("train", valid.rises, valid.base)
    ]
    return min(training, key=NameMeaning.cost, default=None), valid


def _series(log: Log, column: NameMeaning | None) -> Series | None:
    return (
        None if column is None else replace(log.columns[column.name], higher_is_better=column.rises)
    )


def _as_accuracy(log: Log, column: NameMeaning | None) -> Series | None:
    """A metric unchanged; an error rate as 1 − it (100 − it in per cent)."""
    series = _series(log, column)
    if series is None or series.higher_is_better:
        return series
    full = 100.0 if series.finite.values.max(initial=0.0) > PERCENT_ABOVE else 1.0
    return replace(
        series, name=f"{full:g} − {series.name}", values=full - series.values, higher_is_better=True
    )


def _series_decisions(
    columns: Sequence[NameMeaning],
    selected: Mapping[str, NameMeaning | None],
    settings: Mapping[str, str],
) -> Iterator[Decision]:
    for split, series in selected.items():
        if series is None:
            yield Decision(f"{split} series", "none", f"no column has the name of a {split} series")
            continue
        others = [m.name for m in columns if m.split == split and m.name != series.name]
        because = "set in the recipe" if split in settings else "found by its name"
        if others and split not in settings:
            shown = ", ".join(others[:6]) + (" …" if len(others) > 6 else "")
            because += f"; also available: {shown} (choose with --set {split}=…)"
        shape = f"{series.name} (higher is better)" if series.rises else series.name
        yield Decision(f"{split} series", shape, because)


ROW_COLUMNS = {
    name
    for side in ("eval", "val", "valid")
    for name in (f"{side}_samples", f"{side}_rows", f"n_{side}")
}
MAX_FRACTION_ROWS = 5_000  # rows: above, any value is close to some fraction
MIN_DISTINCT_VALUES = 4  # values that must all be fractions of the same number
MAX_CHANCE = 0.01  # probability that they are by chance, over every number tried


def validation_row_count(
    log: Log, valid: Series | None, metric: Series | None
) -> tuple[int, Decision] | None:
    """The number of validation rows and its source; ``None`` where unknown.

    The source is a column with the number; the Trainer's rows per second times its seconds; or an
    accuracy whose values are all fractions of one number.
    """
    counted = _row_column(log) or _rows_by_speed(log, valid) or _rows_by_fractions(metric)
    if counted is None:
        return None
    rows, because = counted
    return rows, Decision("validation rows", str(rows), because)


def _row_column(log: Log) -> tuple[int, str] | None:
    for name, series in log.columns.items():
        if (
            name.lower() in ROW_COLUMNS
            and np.isfinite(series.values[-1])
            and series.values[-1] >= 1
        ):
            return round(float(series.values[-1])), f"the column {name}"
    return None


def _rows_by_speed(log: Log, valid: Series | None) -> tuple[int, str] | None:
    """``eval_loss`` comes with ``eval_runtime`` and ``eval_samples_per_second``, also for each of
    several named evaluation sets.
    """
    if valid is None:
        return None
    stem = valid.name.rpartition("_")[0]
    while stem:
        time = log.columns.get(f"{stem}_runtime")
        speed = log.columns.get(f"{stem}_samples_per_second")
        if time is not None and speed is not None and len(time) == len(speed):
            # Both are logged rounded, to three or four decimals: the median removes most of that.
            rows = float(np.median(time.values * speed.values))
            named = f"{stem}_runtime times {stem}_samples_per_second"
            return (round(rows), named) if np.isfinite(rows) and rows >= 1 else None
        stem = stem.rpartition("_")[0]
    return None


def _rows_by_fractions(metric: Series | None) -> tuple[int, str] | None:
    """The least number of rows n for which every accuracy is k / n, within its decimals.

    With d decimals a value v is k / n only where n v lies within n / 2·10⁻ᵈ of a whole number,
    which m values do by chance with probability (n 10⁻ᵈ)ᵐ; summed over the numbers tried, this must
    stay below 1 %. The true number may be a multiple: the interval is then too wide, not too
    narrow. A mean over batches of unequal size, or another metric, fits no number.
    """
    if metric is None or "acc" not in metric.name.lower():
        return None
    values = np.unique(metric.finite.values)
    scale = 100.0 if values.max(initial=0.0) > PERCENT_ABOVE else 1.0
    values = values[(values > 0) & (values < scale)]
    if len(values) < MIN_DISTINCT_VALUES:
        return None
    # The most decimals with which the values were written. Twelve: further ones of a float64 are
    # rounding noise.
    decimals = max(len(f"{v:.12f}".rstrip("0").partition(".")[2]) for v in values)
    slack = 10.0**-decimals / scale
    accident = 0.0
    for rows in range(2, MAX_FRACTION_ROWS):
        # Summed over all numbers tried: the search itself makes a fit by chance more probable.
        accident += min(1.0, rows * slack) ** len(values)
        if accident > MAX_CHANCE:
            return None
        parts = rows * values / scale
        if np.all(np.abs(parts - np.round(parts)) <= rows * slack / 2 + 1e-9):
            return rows, f"every value of {metric.name} is a multiple of 1 ÷ that number"
    return None
