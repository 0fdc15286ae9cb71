"""The report section on forgetting: ``probes.forgetting`` of ``result.json``."""

from __future__ import annotations

from markupsafe import Markup

from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.document import Document, Figure, Passage
from holdfast.report.numbers import count, interval, number, sentence
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, RelianceCheck, Section

GENERAL = "General-text set"


def forgetting(run: RunFiles) -> Document | None:
    """``None`` for a run that did not measure general texts."""
    block = run.part("probes", "forgetting")
    if "rise" not in block:
        reason = block.text("because") or block.text("why")
        return _document(sentence(reason)) if reason else None
    evaluations = [
        s for s in run.snapshots if isinstance(s.get("step"), int) and "general_loss" in s
    ]
    evaluations.sort(key=lambda evaluation: int(evaluation["step"]))
    chart = CurvesChart(
        "general-loss",
        "Loss on the general-text set",
        "loss",
        tuple(int(evaluation["step"]) for evaluation in evaluations),
        tuple(evaluation.get("epoch") for evaluation in evaluations),
        (
            ChartSeries(
                GENERAL, "valid", tuple(evaluation["general_loss"] for evaluation in evaluations)
            ),
        ),
        run.part().whole("best_step"),
    )
    figure = draw_curves(chart) if evaluations else None
    if block.get("because"):
        skipped = block.get("skipped")
        more = f" The end and the first {count(skipped)} tokens of each passage are not scored."
        return _document(f"{block['because']}{more if skipped else ''}", figure)
    # Runs of older versions have no ``because``.
    before, after, rise = map(block.estimate, ("before", "after", "rise"))
    text = (
        f"On {count(block.get('n'))} rows of general text, which the run did not train on, the "
        f"loss was {number(before.value)} before the first step and is {number(after.value)} at "
        f"the best checkpoint: a rise of {number(rise.value)}"
    )
    span = interval(rise)
    return _document(f"{text} (95 % CI {span})." if span else f"{text}.", figure)


def _document(text: str, figure: Markup | None = None) -> Document:
    answer = Passage(text, explained=True)
    return Document((answer, Figure(figure, "Loss, in nats")) if figure else (answer,))


def _forgot(run: RunFiles) -> str | None:
    block = run.part("probes", "forgetting")
    if "forgot" not in block:
        return None
    # In runs of older versions ``forgot`` is true only for a large rise.
    forgot = block["forgot"] or block.get("verdict") == "a little"
    return block.text("because", "it forgot some of what the base model knew") if forgot else CLEAN


SECTIONS = (
    Section(
        "forgetting",
        "Forgetting",
        forgetting,
        reliance=RelianceCheck("forgetting", _forgot, rank=6),
    ),
)
