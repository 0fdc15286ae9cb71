"""How sure the score is: ``cv`` of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.answer.folds import answer_words
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.numbers import count, estimate, interval, metric_name, number
from holdfast.report.run_files import RunFiles


@dataclass(frozen=True, slots=True)
class FoldsView:
    """The answer in a sentence, the folds' scores as a chart, and the tables."""

    sentence: str
    verdicts: str
    final: str
    of: str
    chart: Markup
    metrics: tuple[tuple[str, str, str, str], ...]
    folds: tuple[tuple[str, ...], ...]
    name: str
    how: str
    ways: tuple[tuple[str, str], ...]


def folds(run: RunFiles) -> FoldsView | None:
    """``None`` where a run was not cross-validated."""
    cv = run.part("cv")
    if not cv.get("per_fold"):
        return None
    name = str(cv.get("metric"))
    per_fold = [one for one in cv["per_fold"] if isinstance(one, Mapping)]
    lines = [Dot("All folds", estimate(run.part("cv", "metrics").get(name)), "main")]
    lines += [Dot(_called(one), _of_fold(one, name), "other") for one in per_fold]
    metrics = run.part("cv", "metrics")
    return FoldsView(
        sentence=answer_words(cv),
        verdicts=str(run.part("cv", "verdicts").get("sentence") or ""),
        final=_final(run),
        of=str(run.part("cv", "interval").get("of") or ""),
        chart=dots("folds", lines, name, f"{metric_name(name)} of each fold"),
        metrics=tuple(_metric(key, metrics[key]) for key in metrics),
        folds=tuple(_fold(one, name) for one in per_fold),
        name=metric_name(name),
        how=str(cv.get("how") or ""),
        ways=tuple(
            (str(way), str(what)) for way, what in run.part("cv", "interval", "ways").items()
        ),
    )


def _final(run: RunFiles) -> str:
    final = run.part("cv", "final")
    if not final:
        return ""
    return (
        f"The saved model learned from all {count(final.get('rows'))} rows and is the state of "
        f"step {count(final.get('step'))} of {count(final.get('planned'))}: "
        f"{final.get('because')}."
    )


def _called(one: Mapping[str, Any]) -> str:
    fold = f"Fold {int(one['fold']) + 1}"
    return fold if not one.get("repeat") else f"{fold}, repeat {int(one['repeat']) + 1}"


def _of_fold(one: Mapping[str, object], name: str) -> Estimate:
    metrics = one.get("metrics")
    return estimate(metrics.get(name) if isinstance(metrics, Mapping) else None)


def _metric(name: str, raw: object) -> tuple[str, str, str, str]:
    found = estimate(raw)
    how = str(raw.get("how") or "") if isinstance(raw, Mapping) else ""
    return metric_name(name), number(found.value, name), interval(found, name) or "", how


def _fold(one: Mapping[str, object], name: str) -> tuple[str, ...]:
    verdict = one.get("verdict")
    label = str(verdict.get("label") or "") if isinstance(verdict, Mapping) else ""
    kept = f"{count(one.get('best_step'))} of {count(one.get('planned_steps'))}"
    value = number(_of_fold(one, name).value, name)
    return _called(one), count(one.get("n")), value, kept, label.replace("_", " ")
