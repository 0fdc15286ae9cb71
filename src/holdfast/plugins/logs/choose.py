"""From everything that a log holds to the few series that a verdict needs, each choice told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from holdfast.core.curves import WHOLE, Curves, Series
from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.names import LOSSES, NameMeaning, meaning
from holdfast.plugins.logs.rows import valid_rows

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
            raise RecipeError("--set", "is not a series", key, nearest(key, list(SETTINGS)))
    known = _sided(log)
    train = _asked(log, settings, "train", what) or _best(known, "train", rises=False)
    valid = _asked(log, settings, "valid", what) or _best(known, "valid", rises=False)
    valid = valid or _best(known, "valid", rises=True)
    # Neither is an error alone: the verdict says what cannot be judged without it.
    if train is None and valid is None:
        names = ", ".join(log.columns)
        raise not_a_log(what, "has no column that is named like a loss or a metric", names)
    train_metric, valid_metric = _metrics(known)
    decisions = [
        *log.decisions,
        *_series_decisions(known, {"train": train, "valid": valid}, settings),
    ]
    if valid_metric is not None:
        beside, because = "no training metric", "none has the same name"
        if train_metric is not None:
            beside = f"{train_metric.name} on the training rows"
            because = "the same metric on both sets"
        chosen = f"{valid_metric.name} on validation, {beside}"
        decisions.append(Decision("metric", chosen, because))
    measured, right = _series(log, valid), _share_right(log, valid_metric)
    rows = valid_rows(log, measured, right)
    if rows is not None:
        decisions.append(rows[1])
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
            planned=log.planned,
            epochs=log.epochs,
            seconds=log.seconds,
            valid_rows=None if rows is None else rows[0],
            decisions=tuple(decisions),
        )
    )


def _fewer(curves: Curves) -> Curves:
    """The curves with at most ``MOST_POINTS`` a series: every second, third … point, counted from
    the last, so that series of one length keep the same positions. The time of a verdict grows with
    the square of the points, and a course of 20,000 has told all that it can."""
    decisions = list(curves.decisions)
    fewer: dict[str, Any] = {}
    for part in ("train", "valid", "train_metric", "valid_metric"):
        series: Series | None = getattr(curves, part)
        # Rounded up: one point in two where there is one too many.
        every = 1 if series is None else -(-len(series) // MOST_POINTS)
        if series is not None and every > 1:
            kept = slice((len(series) - 1) % every, None, every)
            fewer[part] = replace(series, at=series.at[kept], values=series.values[kept])
            because = f"{len(series):,} points; more than {MOST_POINTS:,} tell nothing further"
            decisions.append(Decision(f"points of {series.name}", f"every {every}th", because))
    return replace(curves, **fewer, decisions=tuple(decisions))


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
        rule, remedy = f"is no numeric column of {what}", nearest(name, list(log.columns))
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
    return None if chosen is None else replace(log.columns[chosen.name], rises=chosen.rises)


def _share_right(log: Log, chosen: NameMeaning | None) -> Series | None:
    """A metric as it is; a rate of errors as 1 − it (100 − it in per cent)."""
    series = _series(log, chosen)
    if series is None or series.rises:
        return series
    whole = 100.0 if series.finite.values.max(initial=0.0) > WHOLE else 1.0
    return replace(
        series, name=f"{whole:g} − {series.name}", values=whole - series.values, rises=True
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
