"""From everything that a log holds to the few series that a verdict needs, each choice told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

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
    valid = _asked(log, settings, "valid", what) or _valid(known)
    # Neither is an error alone: the verdict says what cannot be judged without it.
    if train is None and valid is None:
        names = ", ".join(log.columns)
        raise not_a_log(what, "has no column that is named like a loss or a metric", names)
    metrics = _metrics(known)
    rows = valid_rows(log, _take(log, valid), _share_right(log, metrics[1]))
    decisions = [*_series_decisions(known, train, valid, settings), *_metric_decision(*metrics)]
    return _fewer(
        Curves(
            source=log.source,
            axis=log.axis,
            train=_take(log, train),
            valid=_take(log, valid),
            train_metric=_share_right(log, metrics[0]),
            valid_metric=_share_right(log, metrics[1]),
            comparable=train is not None and valid is not None and train.base == valid.base,
            clean=log.clean,
            planned=log.planned,
            epochs=log.epochs,
            seconds=log.seconds,
            valid_rows=None if rows is None else rows[0],
            decisions=(*log.decisions, *decisions, *([] if rows is None else [rows[1]])),
        )
    )


def _fewer(curves: Curves) -> Curves:
    """The curves with at most ``MOST_POINTS`` a series: every second, third … point, counted from
    the last, so that series of one length keep the same positions. The time of a verdict grows with
    the square of the points, and a course of 20,000 has told all that it can."""
    decisions = []
    series: dict[str, Series | None] = {}
    for part in ("train", "valid", "train_metric", "valid_metric"):
        chosen: Series | None = getattr(curves, part)
        # Rounded up: one point in two where there is one too many.
        every = 1 if chosen is None else -(-len(chosen) // MOST_POINTS)
        series[part] = chosen
        if chosen is not None and every > 1:
            kept = slice((len(chosen) - 1) % every, None, every)
            series[part] = replace(chosen, at=chosen.at[kept], values=chosen.values[kept])
            because = f"{len(chosen):,} points; more than {MOST_POINTS:,} tell nothing further"
            decisions.append(Decision(f"points of {chosen.name}", f"every {every}th", because))
    if not decisions:
        return curves
    return replace(
        curves,
        train=series["train"],
        valid=series["valid"],
        train_metric=series["train_metric"],
        valid_metric=series["valid_metric"],
        decisions=(*curves.decisions, *decisions),
    )


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
        raise DataError(
            f"--set {side}={name}",
            f"is no numeric column of {what}",
            name,
            nearest(name, list(log.columns)),
        )
    return meaning(name) or NameMeaning(name, None, False, 0, False, False, (), name)


def _best(known: Iterable[NameMeaning], side: str, rises: bool) -> NameMeaning | None:
    """The plainest name of a set: the loss itself before its parts, epochs before single steps."""
    fitting = [m for m in known if m.side == side and m.rises == rises]
    if side == "train":
        # Rates of errors are no loss: training minimises something smooth.
        fitting = [m for m in fitting if m.rank < 4]
    order = {m.name: place for place, m in enumerate(fitting)}
    return min(fitting, key=lambda m: (*_cost(m), order[m.name]), default=None)


def _cost(m: NameMeaning) -> tuple[bool, int, int, bool]:
    return m.held_aside, m.rank, len(m.extra), m.per_step


def _valid(known: Iterable[NameMeaning]) -> NameMeaning | None:
    known = list(known)
    return _best(known, "valid", rises=False) or _best(known, "valid", rises=True)


def _metrics(known: Iterable[NameMeaning]) -> tuple[NameMeaning | None, NameMeaning | None]:
    """The metric of the validation rows, and the same one of the training rows; a rate of errors
    where no metric rises."""
    known = list(known)
    valid = _best(known, "valid", rises=True) or _error_rate(known)
    if valid is None:
        return None, None
    same = [m for m in known if m.side == "train" and m.rises == valid.rises]
    return min((m for m in same if m.base == valid.base), key=_cost, default=None), valid


def _error_rate(known: Iterable[NameMeaning]) -> NameMeaning | None:
    rates = [m for m in known if m.side == "valid" and m.base in ERRORS]
    return min(rates, key=_cost, default=None)


def _share_right(log: Log, chosen: NameMeaning | None) -> Series | None:
    """A metric as it is; a rate of errors as 1 − it (100 − it in per cent)."""
    series = _take(log, chosen)
    if series is None or chosen is None or chosen.rises:
        return series
    whole = 100.0 if series.finite.values.max(initial=0.0) > WHOLE else 1.0
    return replace(
        series, name=f"{whole:g} − {series.name}", values=whole - series.values, rises=True
    )


def _metric_decision(train: NameMeaning | None, valid: NameMeaning | None) -> Iterable[Decision]:
    if valid is None:
        return
    beside = "no training metric" if train is None else f"{train.name} on the training rows"
    because = "the same metric on both sets" if train is not None else "none has the same name"
    yield Decision("metric", f"{valid.name} on validation, {beside}", because)


def _take(log: Log, chosen: NameMeaning | None) -> Series | None:
    if chosen is None:
        return None
    return replace(log.columns[chosen.name], rises=chosen.rises)


def _series_decisions(
    known: Iterable[NameMeaning],
    train: NameMeaning | None,
    valid: NameMeaning | None,
    settings: Mapping[str, str],
) -> Iterable[Decision]:
    known = list(known)
    for side, chosen in (("train", train), ("valid", valid)):
        if chosen is None:
            yield Decision(f"{side} series", "none", f"no column is named like one of {side}")
            continue
        others = [m.name for m in known if m.side == side and m.name != chosen.name]
        because = "asked for" if side in settings else "found by its name"
        if others and side not in settings:
            shown = ", ".join(others[:6]) + (" …" if len(others) > 6 else "")
            because += f"; also there: {shown} (choose with --set {side}=…)"
        shape = f"{chosen.name} (more is better)" if chosen.rises else chosen.name
        yield Decision(f"{side} series", shape, because)
