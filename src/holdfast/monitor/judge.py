"""The API of the package: a history of snapshots to a verdict.

    snapshots, run facts → history → each detector's symptom → the winner and its cause → verdict

A detector never looks at another's symptom to decide about itself: what wins over what, and which
cause is named, is decided here by two tables and nowhere else. ``docs/verdicts.md`` shows the
first, and a test holds it against this one. Where no symptom has a label the answer is
``inconclusive``, and says what would be needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Remedy, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.evidence import accuracy_gap_of
from holdfast.monitor.history import History
from holdfast.monitor.inconclusive import inconclusive
from holdfast.monitor.remedies import advisable_remedies
from holdfast.monitor.symptom import Symptom, clip_confidence

# Detector, the label it may give, why it stands above those that follow.
ORDER: tuple[tuple[str, Label, str], ...] = (
    ("rate_high", "diverging", "nothing else can be read off a run that breaks"),
    (
        "noisy_labels",
        "noisy_labels",
        "wrong labels make training rows look worse than validation, "
        "and overfitting on them is what follows",
    ),
    ("leaking", "leaking", "a validation loss that leaks says nothing about anything else"),
    (
        "overfit",
        "overfit",
        "validation got worse by a test of this run's own looks, and its answers with it",
    ),
    ("forgetting", "forgetting", "the general probe got worse while validation did not"),
    ("underfit", "underfit", "the run ends too early to call its state good or bad"),
    ("outputs", "memorizing", "training answers on other rows are memory, whatever the losses say"),
    (
        "memorizing",
        "memorizing",
        "nothing rose, but validation rows are far behind training rows that "
        "have nothing left to teach",
    ),
    (
        "miscalibrated",
        "miscalibrated",
        "the loss rose while the answers hold on unseen rows: "
        "confidence alone is wrong, which the temperature mends",
    ),
    ("learning", "learning", "validation still falls"),
    ("plateau", "healthy", "nothing above holds, and the rows can exclude what matters"),
)

# Where two causes are blamed alike, the earlier is named; a detector that is not listed names none.
CAUSES: tuple[str, ...] = (
    "rate_high",
    "rate_low",
    "noisy_labels",
    "leaking",
    "outputs",
    "too_large",
    "few_rows",
    "overfit",
    "memorizing",
    "underfit",
    "primacy",
    "miscalibrated",
    "forgetting",
)


def winner(symptoms: Mapping[str, Symptom]) -> str | None:
    """The detector whose label becomes the verdict; ``None`` where no symptom has one."""
    for name, label, _ in ORDER:
        if name in symptoms and symptoms[name].label == label:
            return name
    return None


def likeliest_cause(symptoms: Mapping[str, Symptom], label: Label) -> str | None:
    """The detector whose cause explains ``label`` best: of its own and of those that say they
    explain it, the most blamed; the earlier in ``CAUSES`` on a tie."""
    fitting = [
        name
        for name in CAUSES
        if name in symptoms
        and symptoms[name].cause
        and (symptoms[name].label == label or label in symptoms[name].explains)
    ]
    # ``max`` takes the first of equals, which is the order of ``CAUSES``.
    return max(fitting, key=lambda name: symptoms[name].blame, default=None)


MOST_REMEDIES = 5


def judge(
    history: Sequence[Snapshot], run_facts: RunFacts | None = None, kept_step: int | None = None
) -> Verdict:
    """The verdict on a history, oldest snapshot first: a pure function of what it is given.

    It judges the course up to the last look, by that look's gap of right answers between train
    probe and validation. ``kept_step`` is the step of the state that the run keeps, where that is
    known: the sentence adds its gap, and begins with its score where that is no better than a
    baseline. No label depends on it.

    ``run_facts`` add what no history shows: the end of the plan, the usual learning rates, a
    linear probe on the same rows, findings on the data. Without them the labels that rest on these
    (``underfit``, ``leaking`` by a finding) are not given, fewer causes are known, and no label is
    surer.
    """
    full_history = History(tuple(history), run_facts or RunFacts(), kept_step)
    return verdict_of(full_history, symptoms_of(full_history))


def symptoms_of(history: History) -> dict[str, Symptom]:
    """What each detector sees, by its name."""
    detected = ((name, detect(history)) for name, detect in DETECTORS.items())
    return {name: symptom for name, symptom in detected if symptom is not None}


def verdict_of(history: History, symptoms: Mapping[str, Symptom]) -> Verdict:
    """One verdict from all symptoms, by the table of what wins."""
    name = winner(symptoms)
    winning_symptom = inconclusive(history) if name is None else symptoms[name]
    assert winning_symptom.label is not None
    cause_name = likeliest_cause(symptoms, winning_symptom.label)
    cause_symptom = symptoms[cause_name] if cause_name is not None else None
    evidence: dict[str, Evidence] = {}
    for symptom in (winning_symptom, cause_symptom, symptoms.get("disparity")):
        for item in symptom.evidence if symptom else ():
            evidence.setdefault(item.name, item)
    remedies: dict[str, Remedy] = {}
    # Against the cause first, then against the label.
    for symptom in (cause_symptom, winning_symptom):
        for remedy in symptom.remedies if symptom else ():
            remedies.setdefault(remedy.do, remedy)
    remedies_given = advisable_remedies(history, winning_symptom.label, symptoms, remedies.values())
    return Verdict(
        label=winning_symptom.label,
        because=_sentence(history, winning_symptom),
        confidence=clip_confidence(winning_symptom.strength),
        harm=history.harm,
        since_step=winning_symptom.since_step,
        cause=cause_symptom.cause if cause_symptom else winning_symptom.cause,
        evidence=tuple(evidence.values()),
        remedies=tuple(remedies_given)[:MOST_REMEDIES],
    )


def _sentence(history: History, symptom: Symptom) -> str:
    """One sentence: a score no better than its baseline, the reason of the label, the gap of the
    last evaluation, that of the kept checkpoint, and training answers that are recited."""
    gap = history.accuracy_gap if history.comparable else None
    parts = [_useless_words(history), symptom.because]
    parts.append(f"at the last evaluation {gap.words()}" if gap is not None else "")
    kept_place = history.kept_place
    if kept_place is not None and kept_place < len(history.snapshots) - 1 and history.comparable:
        kept_gap = accuracy_gap_of(history.snapshots[kept_place])
        if kept_gap is not None:
            parts.append(
                f"at the kept checkpoint (step {kept_gap.step}) {kept_gap.train:.0%} and "
                f"{kept_gap.valid:.0%} "
                f"(gap {round(100 * kept_gap.value)} points)"
            )
    if history.completions is not None:
        parts.append(history.completions.words())
    text = "; ".join(filter(None, parts))
    return text[:1].upper() + text[1:] + "."


def _useless_words(history: History) -> str:
    """Where the kept checkpoint (the last one, where that is not known) is no better than a model
    that has learned nothing: the majority class, or its own first evaluation."""
    place = len(history.snapshots) - 1 if history.kept_place is None else history.kept_place
    if not history.is_useless(place):
        return ""
    which = "the last checkpoint" if history.kept_place is None else "the kept checkpoint"
    if history.most_frequent_share is None or history.valid_hits is None:
        loss = float(history.raw.mean(axis=0)[place])
        return f"{which} has a validation loss of {loss:.3f}, no better than before training"
    accuracy = float(history.valid_hits[:, place].mean())
    return (
        f"{which} has a validation accuracy of {accuracy:.0%}, no better than the majority class "
        f"({history.most_frequent_share:.0%})"
    )
