"""What the model remembers of its training rows, and what it forgot of what it knew before them:
``probes.memorization`` and ``probes.forgetting`` of ``result.json``."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.block import Block
from holdfast.report.charts.curves import ChartSeries, CurvesChart, curves
from holdfast.report.numbers import count, estimate, interval, number, sentence
from holdfast.report.run_files import RunFiles

ATTACKS = {
    "loss": "Loss",
    "conditioned": "Loss, for what the row is",
    "ratio": "Loss relative to the base model",
    "errors": "Wrong tokens relative to the base model",
}
RISKS = {
    "loss trace": (
        "Range of loss",
        "The inter-quartile range of the row's losses over the epochs, in nats: a row that was "
        "learned late and is now predicted well was memorized.",
    )
}
GENERAL = "General probe"
OTHER = ("Score", "How much better the model predicts the row than a new one would be.")


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The answer in a sentence, the attacks, and the rows that would be given away first."""

    sentence: str
    attacks: tuple[tuple[str, str, str], ...]
    blind: tuple[str, str]
    found: tuple[tuple[str, str, str], ...]
    exposed: tuple[tuple[str, str, str, str], ...]
    risk: tuple[str, str]
    more: tuple[str, ...]
    alarms: str


def memory(run: RunFiles) -> MemoryView | None:
    """``None`` where a run says nothing of it (older versions)."""
    block = run.part("probes", "memorization")
    if not block:
        return None
    if "auc" not in block:
        why = block.text("why", "not recorded in this run")
        return MemoryView(f"Not known: {why}.", (), ("", ""), (), (), OTHER, (), "")
    more = (block.block(name).text("because") for name in ("extraction", "canaries"))
    return MemoryView(
        block.text("because"),
        tuple(
            (ATTACKS.get(name, name), *_number(one, "auc"))
            for name, one in block.table("attacks").items()
        ),
        _number(block, "blind_auc"),
        tuple(map(_found, block.blocks("tpr"))),
        tuple(
            (str(one.get("row")), one.text("label"), one.text("text"), number(one.number("risk")))
            for one in block.blocks("exposed")
        ),
        RISKS.get(str(block.get("risk_by")), OTHER),
        tuple(filter(None, more)),
        _alarms(block.block("false_alarms")),
    )


def _number(block: Block, key: str) -> tuple[str, str]:
    found = block.estimate(key)
    return number(found.value), interval(found)


def _found(one: Block) -> tuple[str, str, str]:
    share, rate = estimate(one), one.number("at_fpr")
    at = "–" if rate is None else f"{100 * rate:.2g}\u00a0%"
    if share.value is None:
        return at, "–", str(share.why or "")
    span = ""
    if share.low is not None and share.high is not None:
        span = f"{100 * share.low:.0f} – {100 * share.high:.0f}\u00a0%"
    return at, f"{100 * share.value:.1f}\u00a0%", span


def _alarms(found: Block) -> str:
    if not found.get("runs"):
        return ""
    return (
        f"False alarms: {found.get('alarms')} of {found.get('runs')} {found.get('what')} "
        "(benchmarks/memory.py)."
    )


@dataclass(frozen=True, slots=True)
class ForgettingView:
    """The curve of the probe's loss, and what it says in a sentence."""

    chart: Markup
    sentence: str


def forgetting(run: RunFiles) -> ForgettingView | None:
    """``None`` where no general rows were measured."""
    found = run.part("probes", "forgetting")
    if "rise" not in found:
        said = found.text("because") or found.text("why")
        return ForgettingView(Markup(""), sentence(said)) if said else None
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
    drawn = curves(chart) if looks else Markup("")
    if found.get("because"):
        skipped = found.get("skipped")
        more = f" The end and the first {count(skipped)} tokens of each are not scored."
        return ForgettingView(drawn, f"{found['because']}{more if skipped else ''}")
    # As runs by older versions told it.
    before, after, rise = map(found.estimate, ("before", "after", "rise"))
    told = (
        f"On {count(found.get('n'))} rows of what the model knew before, which nothing here learns "
        f"from, the loss was {number(before.value)} before the first step and is "
        f"{number(after.value)} in the state that was kept: a rise of {number(rise.value)}"
    )
    span = interval(rise)
    return ForgettingView(drawn, f"{told} (95 % interval {span})." if span else f"{told}.")
