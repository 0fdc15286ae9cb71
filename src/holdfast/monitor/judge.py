"""The one door of the room: a history of snapshots to a verdict.

    history, circumstances → case → each detector's sign → the winner and its cause → verdict

Where no sign has a label the answer is ``inconclusive``, and says what would be needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.core.circumstances import Circumstances
from holdfast.core.records import Evidence, Remedy, Snapshot, Verdict
from holdfast.monitor.case import Case
from holdfast.monitor.detectors import all_detectors
from holdfast.monitor.inconclusive import inconclusive
from holdfast.monitor.precedence import likeliest_cause, winner
from holdfast.monitor.remedies import pushes_on
from holdfast.monitor.sign import Sign, sure
from holdfast.monitor.words import sentence

MOST_REMEDIES = 5


def judge(
    history: Sequence[Snapshot], circumstances: Circumstances | None = None, kept: int | None = None
) -> Verdict:
    """The verdict on a history, oldest snapshot first: a pure function of what it is given.

    It judges the course up to the last look, by that look's gap of right answers between train
    probe and validation. ``kept`` is the step of the state that the run keeps, where that is known:
    the sentence adds its gap, and begins with its score where that is no better than a baseline.
    No label depends on it.

    ``circumstances`` add what no history shows: the end of the plan, the usual learning rates, a
    linear probe on the same rows, findings on the data. Without them the labels that rest on these
    (``underfit``, ``leaking`` by a finding) are not given, fewer causes are known, and no label is
    surer.
    """
    case = Case(tuple(history), circumstances or Circumstances(), kept)
    return settle(case, signs_of(case))


def signs_of(case: Case) -> dict[str, Sign]:
    """What each detector sees, by its name."""
    found = {name: detect(case) for name, detect in all_detectors().items()}
    return {name: sign for name, sign in found.items() if sign is not None}


def settle(case: Case, signs: Mapping[str, Sign]) -> Verdict:
    """One verdict from all signs, by the tables of ``precedence``."""
    name = winner(signs)
    own = inconclusive(case) if name is None else signs[name]
    assert own.label is not None
    blamed = likeliest_cause(signs, own.label)
    behind = signs[blamed] if blamed is not None else None
    beside = [sign for sign in (behind, signs.get("disparity")) if sign and sign is not own]
    return Verdict(
        label=own.label,
        because=sentence(case, own),
        confidence=sure(own.strength),
        harm=case.harm,
        since_step=own.since_step,
        cause=behind.cause if behind else own.cause,
        evidence=_joined(own, beside),
        remedies=tuple(r for r in _remedies(own, behind) if not pushes_on(case, r))[:MOST_REMEDIES],
    )


def _joined(own: Sign, beside: Sequence[Sign]) -> tuple[Evidence, ...]:
    """Each name once, the label's own first."""
    known: dict[str, Evidence] = {}
    for sign in (own, *beside):
        for evidence in sign.evidence:
            known.setdefault(evidence.name, evidence)
    return tuple(known.values())


def _remedies(own: Sign, behind: Sign | None) -> tuple[Remedy, ...]:
    """Against the cause first, then against the label; each once."""
    known: dict[str, Remedy] = {}
    for remedy in (*(behind.remedies if behind else ()), *own.remedies):
        known.setdefault(remedy.do, remedy)
    return tuple(known.values())
