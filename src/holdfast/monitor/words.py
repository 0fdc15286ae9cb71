"""The sentence of a verdict: what is worst first, then the label's own reason, then the gaps."""

from __future__ import annotations

from holdfast.monitor.generalisation import gap_of
from holdfast.monitor.history import History
from holdfast.monitor.symptom import Symptom


def sentence(history: History, symptom: Symptom) -> str:
    """One sentence: a score no better than its baseline, the reason of the label, the gap of the
    last evaluation, that of the kept checkpoint, and training answers that are recited."""
    parts = [_useless(history), symptom.because, _gap(history), _kept_gap(history)]
    if history.completions is not None:
        parts.append(history.completions.words())
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:] + "."


def _useless(history: History) -> str:
    """Where the kept checkpoint (the last one, where that is not known) is no better than a model
    that has learned nothing: the majority class, or its own first evaluation."""
    look = len(history.snapshots) - 1 if history.kept_look is None else history.kept_look
    if not history.useless(look):
        return ""
    which = "the last checkpoint" if history.kept_look is None else "the kept checkpoint"
    if history.commonest is None or history.valid_hits is None:
        loss = float(history.raw.mean(axis=0)[look])
        return f"{which} has a validation loss of {loss:.3f}, no better than before training"
    right = float(history.valid_hits[:, look].mean())
    return (
        f"{which} has a validation accuracy of {right:.0%}, no better than the majority class "
        f"({history.commonest:.0%})"
    )


def _gap(history: History) -> str:
    gap = history.accuracy_gap if history.comparable else None
    return f"at the last evaluation {gap.words()}" if gap is not None else ""


def _kept_gap(history: History) -> str:
    look = history.kept_look
    if look is None or look == len(history.snapshots) - 1 or not history.comparable:
        return ""
    gap = gap_of(history.snapshots[look])
    if gap is None:
        return ""
    return (
        f"at the kept checkpoint (step {gap.step}) {gap.train:.0%} and {gap.valid:.0%} (gap "
        f"{round(100 * gap.value)} points)"
    )
