"""What the model remembers of its training rows: ``probes.memorization`` of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.report.numbers import estimate, interval, number
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
    block = run.part("probes").get("memorization")
    if not isinstance(block, Mapping):
        return None
    if "auc" not in block:
        why = str(block.get("why") or "not recorded in this run")
        return MemoryView(f"Not known: {why}.", (), ("", ""), (), (), OTHER, (), "")
    attacks = block.get("attacks")
    named = attacks if isinstance(attacks, Mapping) else {}
    more = (block.get("extraction"), block.get("canaries"))
    return MemoryView(
        str(block.get("because") or ""),
        tuple(
            (str(ATTACKS.get(name, name)), *_number(one.get("auc")))
            for name, one in named.items()
            if isinstance(one, Mapping)
        ),
        _number(block.get("blind_auc")),
        tuple(_found(one) for one in block.get("tpr") or () if isinstance(one, Mapping)),
        tuple(_row(one) for one in block.get("exposed") or () if isinstance(one, Mapping)),
        RISKS.get(str(block.get("risk_by")), OTHER),
        tuple(
            str(one["because"]) for one in more if isinstance(one, Mapping) and one.get("because")
        ),
        _alarms(block.get("false_alarms")),
    )


def _number(raw: object) -> tuple[str, str]:
    found = estimate(raw)
    return number(found.value), interval(found) or ""


def _found(one: Mapping[str, object]) -> tuple[str, str, str]:
    share = estimate(one)
    rate = one.get("at_fpr")
    at = f"{100 * rate:.2g}\u00a0%" if isinstance(rate, (int, float)) else "–"
    if share.value is None:
        return at, "–", str(share.why or "")
    span = (
        ""
        if share.low is None or share.high is None
        else (f"{100 * share.low:.0f} – {100 * share.high:.0f}\u00a0%")
    )
    return at, f"{100 * share.value:.1f}\u00a0%", span


def _row(one: Mapping[str, object]) -> tuple[str, str, str, str]:
    risk = one.get("risk")
    shown = number(risk) if isinstance(risk, (int, float)) else "–"
    return str(one.get("row")), str(one.get("label") or ""), str(one.get("text") or ""), shown


def _alarms(raw: object) -> str:
    if not isinstance(raw, Mapping) or not raw.get("runs"):
        return ""
    return (
        f"False alarms: {raw.get('alarms')} of {raw.get('runs')} {raw.get('what')} "
        "(benchmarks/memory.py)."
    )
