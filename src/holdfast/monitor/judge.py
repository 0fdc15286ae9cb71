"""The one door of the room: a history of snapshots to a verdict.

    snapshots, run facts → history → each detector's symptom → the winner and its cause → verdict

Where no symptom has a label the answer is ``inconclusive``, and says what would be needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.core.records import Evidence, Remedy, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.detectors import all_detectors
from holdfast.monitor.history import History
from holdfast.monitor.inconclusive import inconclusive
from holdfast.monitor.precedence import likeliest_cause, winner
from holdfast.monitor.remedy_filter import advisable
from holdfast.monitor.symptom import Symptom, sure
from holdfast.monitor.words import sentence

MOST_REMEDIES = 5


def judge(
    history: Sequence[Snapshot], run_facts: RunFacts | None = None, kept: int | None = None
) -> Verdict:
    """The verdict on a history, oldest snapshot first: a pure function of what it is given.

    It judges the course up to the last look, by that look's gap of right answers between train
    probe and validation. ``kept`` is the step of the state that the run keeps, where that is known:
    the sentence adds its gap, and begins with its score where that is no better than a baseline.
    No label depends on it.

    ``run_facts`` add what no history shows: the end of the plan, the usual learning rates, a
    linear probe on the same rows, findings on the data. Without them the labels that rest on these
    (``underfit``, ``leaking`` by a finding) are not given, fewer causes are known, and no label is
    surer.
    """
    seen = History(tuple(history), run_facts or RunFacts(), kept)
    return settle(seen, symptoms_of(seen))


def symptoms_of(history: History) -> dict[str, Symptom]:
    """What each detector sees, by its name."""
    found = {name: detect(history) for name, detect in all_detectors().items()}
    return {name: symptom for name, symptom in found.items() if symptom is not None}


def settle(history: History, symptoms: Mapping[str, Symptom]) -> Verdict:
    """One verdict from all symptoms, by the tables of ``precedence``."""
    name = winner(symptoms)
    leading = inconclusive(history) if name is None else symptoms[name]
    assert leading.label is not None
    blamed = likeliest_cause(symptoms, leading.label)
    behind = symptoms[blamed] if blamed is not None else None
    beside = [
        symptom
        for symptom in (behind, symptoms.get("disparity"))
        if symptom and symptom is not leading
    ]
    return Verdict(
        label=leading.label,
        because=sentence(history, leading),
        confidence=sure(leading.strength),
        harm=history.harm,
        since_step=leading.since_step,
        cause=behind.cause if behind else leading.cause,
        evidence=_joined(leading, beside),
        remedies=tuple(advisable(history, leading.label, symptoms, _remedies(leading, behind)))[
            :MOST_REMEDIES
        ],
    )


def _joined(leading: Symptom, beside: Sequence[Symptom]) -> tuple[Evidence, ...]:
    """Each name once, the label's own first."""
    known: dict[str, Evidence] = {}
    for symptom in (leading, *beside):
        for evidence in symptom.evidence:
            known.setdefault(evidence.name, evidence)
    return tuple(known.values())


def _remedies(leading: Symptom, behind: Symptom | None) -> tuple[Remedy, ...]:
    """Against the cause first, then against the label; each once."""
    known: dict[str, Remedy] = {}
    for remedy in (*(behind.remedies if behind else ()), *leading.remedies):
        known.setdefault(remedy.do, remedy)
    return tuple(known.values())
