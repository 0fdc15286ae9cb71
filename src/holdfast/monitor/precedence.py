"""Which symptom becomes the verdict where several fit, and which cause is named: two tables.

A detector never looks at another's symptom to decide about itself; what wins over what is decided
here and nowhere else. ``docs/verdicts.md`` shows the first table, and a test holds it against this
one.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core.records import Label
from holdfast.monitor.symptom import Symptom

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
