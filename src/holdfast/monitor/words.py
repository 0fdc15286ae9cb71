"""The sentence of a verdict: what is worst first, then the label's own reason, then the gaps."""

from __future__ import annotations

from holdfast.monitor.case import Case
from holdfast.monitor.generalisation import gap_of
from holdfast.monitor.sign import Sign


def sentence(case: Case, own: Sign) -> str:
    """One sentence: a score no better than its baseline, the reason of the label, the gap of the
    last look, and that of the state that is kept."""
    parts = [_useless(case), own.because, _gap(case), _kept_gap(case)]
    told = "; ".join(part for part in parts if part)
    return told[:1].upper() + told[1:] + "."


def _useless(case: Case) -> str:
    """Where the state that is kept (the last one, where that is not known) is no better than a
    model that has learned nothing: the commonest class, or its own first look."""
    look = len(case.history) - 1 if case.kept_look is None else case.kept_look
    if not case.useless(look):
        return ""
    which = "the last look" if case.kept_look is None else "the state that is kept"
    if case.commonest is None or case.valid_hits is None:
        loss = float(case.raw.mean(axis=0)[look])
        return f"{which} has a validation loss of {loss:.3f}, no better than untrained"
    right = float(case.valid_hits[:, look].mean())
    return (
        f"{which} is right on {right:.0%} of validation, no better than always giving its "
        f"commonest class ({case.commonest:.0%})"
    )


def _gap(case: Case) -> str:
    gap = case.accuracy_gap if case.comparable else None
    return f"at the last look {gap.words()}" if gap is not None else ""


def _kept_gap(case: Case) -> str:
    look = case.kept_look
    if look is None or look == len(case.history) - 1 or not case.comparable:
        return ""
    gap = gap_of(case.history[look])
    if gap is None:
        return ""
    return (
        f"the state that is kept, of step {gap.step}, has {gap.train:.0%} and {gap.valid:.0%} "
        f"({round(100 * gap.value)} points)"
    )
