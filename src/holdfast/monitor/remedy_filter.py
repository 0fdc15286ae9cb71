"""Which remedies a verdict may name: none that the run's task refuses, none that the run itself has
already shown to be wrong. The one place that decides it, for every detector and label."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace

from holdfast.core.records import OVERFITTED, Label, Remedy
from holdfast.monitor import limits
from holdfast.monitor.history import History

# Shares of what a task counts as correct, where a row as a whole is neither right nor wrong.
SHARES = ("token_accuracy", "accuracy", "entity_f1")


def advisable(
    history: History, label: Label, symptoms: Container[str], remedies: Iterable[Remedy]
) -> Iterator[Remedy]:
    """The remedies in their order, without settings that cannot help this run; one that had
    settings and has none left is not given.

    Not advised are: what the task refuses or the recipe has already (``RunFacts.refused``); more
    training where the training rows have nothing left to teach, where validation got worse, or the
    run diverged, and less where it ends too early; a higher learning rate where the training rows
    have nothing left to teach, the run diverged, or it was too high, and a lower one where it was
    too low; as many passes again as the whole run made. ``symptoms`` are the detectors that
    saw something.
    """
    known = _shown(history, label, symptoms)
    for remedy in remedies:
        if remedy.aim == "longer" and known.long_enough:
            continue
        settings = tuple(s for s in remedy.set if not known.refuses(s, remedy.aim == "longer"))
        if settings or not remedy.set:
            yield replace(remedy, set=settings)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a run has shown of more training and of its learning rate."""

    refused: tuple[str, ...]
    epochs: float
    at_end: bool
    rate: float
    long_enough: bool
    too_short: bool
    fast_enough: bool
    slow_enough: bool

    def refuses(self, setting: str, to_train_longer: bool) -> bool:
        key, _, value = setting.partition("=")
        if setting in self.refused:
            return True
        if key == "train.epochs":
            # A remedy that asks for less must not ask for more than there was.
            longer, shorter = float(value) > self.epochs, float(value) < self.epochs
            wrong = self.long_enough or not to_train_longer
            as_it_is = self.at_end and float(value) == self.epochs
            return as_it_is or (longer and wrong) or (shorter and self.too_short)
        if key == "train.learning_rate":
            faster, slower = float(value) > self.rate, float(value) < self.rate
            return (faster and self.fast_enough) or (slower and self.slow_enough)
        return False


def _shown(history: History, label: Label, symptoms: Container[str]) -> _Shown:
    diverging = label == "diverging"
    worse = diverging or label in OVERFITTED or history.rose
    spent = nothing_left(history)
    return _Shown(
        refused=history.run_facts.refused,
        # Of no number nothing is more and nothing less.
        epochs=history.snapshots[-1].epoch if history.snapshots else float("nan"),
        at_end=bool(history.snapshots) and history.final,
        rate=history.highest_rate if history.snapshots else float("nan"),
        long_enough=worse or spent,
        too_short=label in ("underfit", "learning"),
        fast_enough=diverging or spent or "rate_high" in symptoms,
        slow_enough="rate_low" in symptoms and not diverging and label != "forgetting",
    )


def nothing_left(history: History) -> bool:
    """Whether the training rows have next to nothing left to teach: they are at their floor, or
    95 % of what is counted in them is correct and validation is more than 10 points behind."""
    if not history.snapshots:
        return False
    if history.at_floor:
        return True
    last = history.snapshots[-1]
    for name in SHARES:
        train, valid = last.train_metrics.get(name), last.valid_metrics.get(name)
        if train is not None and valid is not None:
            # A comparison with NaN is false.
            return train >= limits.FLOOR_SHARE and train - valid > limits.GAP
    return False
