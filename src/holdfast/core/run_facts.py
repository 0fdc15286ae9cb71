"""What a verdict needs to know about a run beside its history of snapshots."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.records import Finding, Floats, Ints


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """Evidence of wrong labels from out-of-fold predictions on ``n`` rows: the estimated share of
    wrong labels with its 90 % interval, the share of rows whose label equals the prediction
    (``right``), and the share of the most frequent class (``base``), which a constant prediction
    reaches."""

    rate: float
    low: float
    high: float
    right: float
    base: float
    n: int


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of one run that no step changes; ``None`` or empty where they are unknown.

    ``planned_steps`` is the number of updates if nothing stops the run, ``planned_looks`` its
    number of evaluations, ``step_limit`` what ``train.max_steps`` allows. ``train_rows`` and
    ``train_tokens`` are what it learns from, ``trainable`` the number of trained parameters,
    ``None`` where benchmarks measured the plan with so few rows. ``peak_rate`` is the highest
    learning rate of the plan, in the unit of ``train.learning_rate``; ``usual_rates`` are the
    smallest and the largest that are known to work for such a model. ``findings`` are those of the
    audit and the split. ``probe_valid_losses`` [valid rows] are the losses of a linear probe on the
    base model over the validation rows, in their order; ``probe_curve`` pairs (training rows, mean
    validation loss) of that probe on parts of the training rows, the largest last. ``first_seen``
    [training sample] is the update that used each row of the training sample first, counted from 1,
    ``-1`` if none does. ``copied_valid`` is how many validation rows have a duplicate among the
    training rows (the same encoded row, or the same features on the base model), and of how many
    that were checked. ``label_noise`` compares the probe's out-of-fold predictions with the labels.
    ``valid_groups`` [valid rows] and ``train_groups`` [training sample] give rows that belong
    together (a group, duplicates) the same whole number; ``None`` where no two do.
    ``refused`` are settings (``key=value``) that the run's task refuses, or that the run already
    has.
    """

    task: str = "text-classification"
    classes: int | None = None
    planned_steps: int | None = None
    planned_looks: int | None = None
    step_limit: int | None = None
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
    valid_groups: Ints | None = None
    train_groups: Ints | None = None
    refused: tuple[str, ...] = ()
