"""What a verdict needs to know about a run beside its history of snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.records import Finding, Floats, Ints


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """What out-of-fold answers say against the labels of ``n`` rows: the estimated share of wrong
    labels with its 90 % interval, the share of the rows whose label is the answer (``right``), and
    the share of the commonest class (``base``), which an answer that knows nothing reaches."""

    rate: float
    low: float
    high: float
    right: float
    base: float
    n: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of one run that no step changes; ``None`` and empty where nobody knows them.

    ``planned_steps`` the updates that the run would take if nothing stopped it, ``planned_looks``
    its snapshots. ``train_rows`` and ``train_tokens`` are what it learns from, ``trainable`` the
    parameters that learn. ``peak_rate`` is the highest learning rate of the plan, in the unit of
    ``train.learning_rate``, ``usual_rates`` are the least and the largest that are known to work
    for such a model. ``findings`` are the audit's and the division's.
    ``probe_valid_losses`` [valid rows] are the losses of a linear probe on the untouched model over
    the validation rows, in their order, and ``probe_curve`` pairs (training rows, mean validation
    loss) of that probe on parts of the training rows, the largest last. ``first_seen`` [train
    probe] is the update that used each row of the train probe first, counted from 1, ``-1`` where
    none does. ``copied_valid`` is how many validation rows have a twin among the training rows (the
    same encoded row, or the same features on the untouched model), and of how many that were looked
    at. ``label_noise`` is what that probe's answers on rows it was not fitted on say against the
    labels. ``refused`` are settings (``key=value``) that the run's task refuses, or that the run
    has already.
    """

    task: str = "text-classification"
    classes: int | None = None
    planned_steps: int | None = None
    planned_looks: int | None = None
    train_rows: int | None = None
    train_tokens: int | None = None
    trainable: int | None = None
    peak_rate: float | None = None
    usual_rates: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    probe_valid_losses: Floats | None = None
    probe_curve: tuple[tuple[int, float], ...] = ()
    first_seen: Ints | None = None
    copied_valid: tuple[int, int] | None = None
    label_noise: LabelNoise | None = None
    refused: tuple[str, ...] = ()
