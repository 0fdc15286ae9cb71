"""What the model forgot of what it knew before: ``probes.forgetting`` of ``result.json``."""

from __future__ import annotations

from markupsafe import Markup

from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.document import Document, Figure, Passage
from holdfast.report.numbers import count, interval, number, sentence
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, RelianceCheck, Section

GENERAL = "General probe"


def forgetting(run: RunFiles) -> Document | None:
    """``None`` where no general rows were measured."""
    found = run.part("probes", "forgetting")
    if "rise" not in found:
        said = found.text("because") or found.text("why")
        return _shown(sentence(said)) if said else None
    looks = [s for s in run.snapshots if isinstance(s.get("step"), int) and "general_loss" in s]
    looks.sort(key=lambda look: int(look["step"]))
    chart = CurvesChart(
        "general-loss",
        "Loss on the general probe",
        "loss",
        tuple(int(look["step"]) for look in looks),
        tuple(look.get("epoch") for look in looks),
        (ChartSeries(GENERAL, "valid", tuple(look["general_loss"] for look in looks)),),
        run.part().whole("best_step"),
    )
    drawn = draw_curves(chart) if looks else None
    if found.get("because"):
        skipped = found.get("skipped")
        more = f" The end and the first {count(skipped)} tokens of each are not scored."
        return _shown(f"{found['because']}{more if skipped else ''}", drawn)
    # As runs by older versions told it.
    before, after, rise = map(found.estimate, ("before", "after", "rise"))
    told = (
        f"On {count(found.get('n'))} rows of what the model knew before, which nothing here learns "
        f"from, the loss was {number(before.value)} before the first step and is "
        f"{number(after.value)} in the state that was kept: a rise of {number(rise.value)}"
    )
    span = interval(rise)
    return _shown(f"{told} (95 % interval {span})." if span else f"{told}.", drawn)


def _shown(told: str, drawn: Markup | None = None) -> Document:
    answer = Passage(told, explained=True)
    return Document((answer, Figure(drawn, "Loss, in nats")) if drawn else (answer,))


def _forgot(run: RunFiles) -> str | None:
    block = run.part("probes", "forgetting")
    if "forgot" not in block:
        return None
    # Runs by older versions told a large rise alone.
    forgot = block["forgot"] or block.get("verdict") == "a little"
    return block.text("because", "it forgot some of what it knew") if forgot else CLEAN


SECTIONS = (
    Section(
        "forgetting",
        "What it forgot",
        forgetting,
        reliance=RelianceCheck("forgetting", _forgot, rank=6),
    ),
)
