"""The API of the package: from a history of snapshots to a verdict.

    snapshots, run facts → history → each detector's symptom → the winner and its cause → verdict

A detector never reads another detector's symptom. Two tables in this module, and nothing else,
decide which label takes precedence and which cause is named. ``docs/verdicts.md`` shows the first
table, and a test compares the two. Where no symptom has a label, the verdict is ``inconclusive``
and says what is needed to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.core.labels import Label
from holdfast.core.records import Evidence, Remedy, Snapshot, Verdict
from holdfast.core.run_facts import RunFacts
from holdfast.core.wording import percent_phrase
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.inconclusive import inconclusive
from holdfast.monitor.remedies import advisable_remedies
from holdfast.monitor.symptom import Symptom, clip_confidence

# Detector, the label it may give, and why it takes precedence over those below.
ORDER: tuple[tuple[str, Label, str], ...] = (
    ("rate_high", "diverging", "no other conclusion is valid for a run that diverges"),
    (
        "noisy_labels",
        "noisy_labels",
        "wrong labels raise the training loss, which can look like leakage, "
        "and a run that fits them looks overfit",
    ),
    (
        "leaking",
        "leaking",
        "if validation rows leak, the validation loss supports no other verdict",
    ),
    (
        "overfit",
        "overfit",
        "a test over all evaluations shows that the validation loss rose, and at least one of "
        "these holds: the predictions got worse; validation accuracy is far below training "
        "accuracy; or the rows are too few to decide whether it is, and more than half of the best "
        "checkpoint's gain over predicting the class frequencies is lost",
    ),
    ("forgetting", "forgetting", "the loss on general text rose while the validation loss did not"),
    ("underfit", "underfit", "the run ended too early to call the model good or bad"),
    (
        "outputs",
        "memorizing",
        "training outputs are generated for other rows, whatever the losses are",
    ),
    (
        "memorizing",
        "memorizing",
        "no loss rose significantly, validation accuracy is far below training accuracy, and at "
        "least one of two things holds: the training rows are memorized, or the validation loss "
        "rose with p ≤ 0.2",
    ),
    (
        "miscalibrated",
        "miscalibrated",
        "the loss rose, but the predictions on validation rows did not get worse: "
        "only the probabilities are wrong, and temperature scaling corrects them",
    ),
    ("learning", "learning", "the validation loss is still falling"),
    ("plateau", "healthy", "no label above fits, and the rows exclude any change that matters"),
)

# On a tie of blame the earlier cause is named. A detector that is not listed names no cause.
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
    """The detector whose label becomes the verdict; ``None`` where no symptom has a label."""
    for name, label, _ in ORDER:
        if name in symptoms and symptoms[name].label == label:
            return name
    return None


def likeliest_cause(symptoms: Mapping[str, Symptom], label: Label) -> str | None:
    """The detector whose cause best explains ``label``: the one with the largest blame among those
    that gave the label or list it in ``explains``; on a tie the earlier in ``CAUSES``."""
    fitting = [
        name
        for name in CAUSES
        if name in symptoms
        and symptoms[name].cause
        and (symptoms[name].label == label or label in symptoms[name].explains)
    ]
    # ``max`` returns the first of equal items, which is the order of ``CAUSES``.
    return max(fitting, key=lambda name: symptoms[name].blame, default=None)


MOST_REMEDIES = 5


def judge(
    history: Sequence[Snapshot], run_facts: RunFacts | None = None, kept_step: int | None = None
) -> Verdict:
    """Give the verdict on a history, oldest snapshot first: a pure function of its arguments.

    The verdict is about the learning curves up to the last evaluation and uses the accuracy gap
    (training sample − validation) there. ``kept_step`` is the step of the checkpoint that the run
    keeps, where it is known. The sentence then adds the gap at that checkpoint, and begins with
    its score where that score is no better than a baseline. No label depends on it.

    ``run_facts`` add what no history contains: the planned end, the usual learning rates, a linear
    probe on the same rows, findings on the data. Without them, labels that need these facts
    (``underfit``, ``leaking`` by a finding) are not given and fewer causes are known. No label
    becomes more certain.
    """
    full_history = History(tuple(history), run_facts or RunFacts(), kept_step)
    return verdict_of(full_history, symptoms_of(full_history))


def symptoms_of(history: History) -> dict[str, Symptom]:
    """The symptom of each detector that reports one, by the detector's name."""
    detected = ((name, detect(history)) for name, detect in DETECTORS.items())
    return {name: symptom for name, symptom in detected if symptom is not None}


def verdict_of(history: History, symptoms: Mapping[str, Symptom]) -> Verdict:
    """Combine all symptoms into one verdict, by the order of precedence."""
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
    # Remedies against the cause come first, then those against the label.
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
    """Build the sentence: a score no better than its baseline, the reason for the label, the gap
    at the last evaluation and at the best checkpoint, and memorized training outputs."""
    gap = history.accuracy_gap if history.comparable else None
    parts = [_useless_words(history), symptom.because]
    parts.append(f"at the last evaluation {gap.words()}" if gap is not None else "")
    kept_place = history.kept_place
    if kept_place is not None and kept_place < len(history.snapshots) - 1 and history.comparable:
        kept_gap = history.accuracy_gap_at(kept_place)
        if kept_gap is not None:
            parts.append(
                f"at the best checkpoint (step {kept_gap.step}) it is "
                f"{percent_phrase(kept_gap.train)} and {percent_phrase(kept_gap.valid)} "
                f"(gap {round(100 * kept_gap.value)} points)"
            )
    if history.completions is not None:
        parts.append(history.completions.words())
    text = "; ".join(filter(None, parts))
    return text[:1].upper() + text[1:] + "."


def _useless_words(history: History) -> str:
    """Say where the best checkpoint (the last one, where the best is not known) is no better than
    a model that learned nothing: the majority class, or its own first evaluation."""
    place = len(history.snapshots) - 1 if history.kept_place is None else history.kept_place
    if not history.is_useless(place):
        return ""
    which = "the last checkpoint" if history.kept_place is None else "the best checkpoint"
    if history.most_frequent_share is None or history.valid_hits is None:
        loss = float(history.raw.mean(axis=0)[place])
        return f"{which} has a validation loss of {loss:.3f}, no better than before training"
    accuracy = float(history.valid_hits[:, place].mean())
    return (
        f"{which} has a validation accuracy of {percent_phrase(accuracy)}, no better than the "
        f"majority class ({percent_phrase(history.most_frequent_share)})"
    )
