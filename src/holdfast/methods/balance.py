"""Class imbalance: learn more from rare classes, and predict for other class rates.

Two settings that are independent.

``by`` is how the model learns more from rare classes. ``draw``: an epoch of n rows over K classes
gives each class n ÷ K places, or with ``strength`` s in (0, 1) a share in proportion to its number
of rows to the power 1 − s. A class with more rows than places gives a sample without replacement
(other rows in each epoch); one with fewer gives every row as often as all of them fit, and some
once more. ``weights``: rows pass unchanged, and the loss of a row has the weight n_y^−s, 1 on
average. ``effective``: it has the weight 1 ÷ (1 − β^n_y), the inverse of an effective number of
rows (1901.05555). ``none``: neither. Unlike weights, which make single updates jump, drawing
changes which rows pass together.

``target`` is the population that the predictions are for. Training on an even draw makes a model
that predicts as if classes were equally frequent (``drawn``: it stays so). With any other target
the model still learns at the rates of the rows: if the update's rows have the rates q, and the
training rows have the rates p, the loss of row i is

    −log softmax(z + log q − log p)[y_i]

so that z, which everything else sees, are the logits at p, whatever was drawn. Validation losses,
the choice of the checkpoint and the temperature then refer to the rows' own rates. At the end the
last layer's bias moves the logits to the target (``moved``): ``rows`` leaves them unchanged, which
gives probabilities at the true rates; ``even`` predicts for equally frequent classes, ``half`` for
rates half of the way there (in proportion to √p), which suits macro F1; a table states the rates of
the population where the model is used; ``auto`` is ``half`` unless the validation rows prove
another of these better for macro F1. Logit adjustment of the loss (2007.07314) is ``by: none`` with
``target: even`` or ``half``: its constant is the bias's, which is free, and the two gave the same
result to the digit (benchmarks/balance.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.settings import setting
from holdfast.core.updates import Draw, ForwardPass, RowPool, batch_of_epoch
from holdfast.core.wording import percent_phrase, signed
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    import torch


# How far a user's shares may be from 1 in all: two digits of each class are common.
ROUNDING = 0.01
# A share of the way from the rows' own rates (0) to equally frequent classes (1).
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
# It gained macro F1 on all three sets of benchmarks/balance.py; the full way costs accuracy.
USUAL = 0.5
RESAMPLES = 2000
# One-sided, and divided among the moves that may replace the usual one: strict, since selecting the
# best of several is optimistic, and a percentile interval of few rows is too short.
LEVEL = 0.01 / (len(STRENGTHS) - 1)


def class_shares(labels: Ints, classes: int) -> Floats:
    """The share of each class [classes] among these labels [n]. A class without a row counts as
    half a row, so that its logarithm is finite."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    counts[counts == 0] = 0.5
    return np.asarray(counts / counts.sum())


def tempered_rates(shares: Floats, strength: float) -> Floats:
    """Rates in proportion to ``shares`` [classes] to the power 1 − ``strength``: unchanged at 0,
    equal at 1."""
    powered = np.asarray(shares, dtype=np.float64) ** (1 - strength)
    return np.asarray(powered / powered.sum())


def adjust_logits(logits: Floats, learned_rates: Floats, target_rates: Floats) -> Floats:
    """Convert logits from one population's class rates to another's: the same model, other class
    frequencies.

    A classifier trained where the classes had the shares q predicts P_q(c | x) ∝ p(x | c) · q_c. In
    a population with the shares t and the same texts within each class, Bayes' rule changes its
    logits to

        z_c + log t_c − log q_c

    (Saerens et al. 2002; as an adjustment of the decision for rare classes 2007.07314, section
    4.1). Nothing is fitted, and among rows of one class nothing changes. The assumption is that
    the classes look as before and differ only in frequency.

    Logits [n, classes] of a model trained at the rates ``learned_rates``, in a population
    whose rates are ``target_rates``; both [classes], above 0, summing to 1.
    """
    return np.asarray(logits) + np.log(target_rates) - np.log(learned_rates)


def stated_rates(target: Mapping[str, float], classes: Sequence[str], key: str) -> Floats:
    """The rates [classes] that a user states by class name.

    Raises ``RecipeError`` for an unknown class, a missing class, a share that is not a number
    above 0, and shares that do not add up to 1 (to within 0.01, since they are often rounded).
    """
    # YAML reads the class ``0`` as a number, and ``true`` as True.
    keys: list[object] = [*target]
    written = any(isinstance(key, bool) for key in keys)
    spelled = {name.lower(): name for name in classes} if written else {}
    target = {spelled.get(str(key).lower(), str(key)): share for key, share in target.items()}
    unknown = [name for name in target if name not in classes]
    missing = [name for name in classes if name not in target]
    for wrong, rule in ((unknown, "names an unknown class"), (missing, "lacks a class")):
        if wrong:
            known = ", ".join(map(repr, classes[:10])) + (" …" if len(classes) > 10 else "")
            raise RecipeError(key, rule, wrong[0], f"State a share of each of {known}.")
    values = [target[name] for name in classes]
    for name, value in zip(classes, values, strict=True):
        if type(value) not in (int, float) or not 0 < value < 1e9:
            rule = f"must be a number above 0 for {name!r}"
            raise RecipeError(key, rule, value, "For a class of share 0, drop its rows.")
    rates = np.array(values, dtype=np.float64)
    total = float(rates.sum())
    if abs(total - 1) > ROUNDING:
        same = ", ".join(
            f"{name}: {rate:.3g}" for name, rate in zip(classes, rates / total, strict=True)
        )
        remedy = f"These ratios as shares: {{{same}}}."
        raise RecipeError(key, "has shares that do not add up to 1", f"{total:.4g}", remedy)
    return np.asarray(rates / total)


@dataclass(frozen=True, slots=True)
class Rates:
    """``rows`` [classes] are the rates of the training rows, ``target`` those that the predictions
    are for; ``is_moved`` says whether they differ."""

    classes: tuple[str, ...]
    rows: Floats
    target: Floats
    because: str

    @property
    def is_moved(self) -> bool:
        return not np.allclose(self.rows, self.target, rtol=0, atol=1e-12)

    @property
    def shift(self) -> Floats:
        """The addition to the logits of each class [classes], after temperature scaling."""
        return np.asarray(np.log(self.target) - np.log(self.rows))

    def to_json(self) -> dict[str, Any]:
        """The rates for JSON: ``logits − shift`` are those at the rates of the training rows."""
        named = zip(
            self.classes, self.rows.tolist(), self.target.tolist(), self.shift.tolist(), strict=True
        )
        return {
            "because": self.because,
            "classes": {
                name: {"rows": rows, "target": target, "shift": shift}
                for name, rows, target, shift in named
            },
        }

    @property
    def decision(self) -> Decision:
        if not self.is_moved:
            return Decision("class rates", "as in the training rows", self.because)
        most_moved = int(np.abs(self.shift).argmax())
        shift_words = (
            f"{self.classes[most_moved]!r} at {percent_phrase(self.target[most_moved], 1)} instead "
            f"of {percent_phrase(self.rows[most_moved], 1)}"
        )
        return Decision("class rates", shift_words, self.because, prominent=True)


@dataclass(frozen=True, slots=True)
class TargetRates:
    """The rates that the decision is for: ``target`` [classes], ``strength`` as the share of the
    way to equal rates, and ``because``. ``gain`` in macro F1 with its 90 % interval, a fraction."""

    target: Floats
    strength: float
    gain: float
    low: float
    high: float
    because: str


def choose_strength(logits: Floats, labels: Ints, shares: Floats, *, seed: int) -> TargetRates:
    """Choose how far to move the decision towards equal class rates, for macro F1.

    ``logits`` [n, classes] at the rates ``shares``, of rows that the model was not trained on, with
    their ``labels`` [n]. The result is half of the way (``USUAL``), unless these rows prove another
    of ``STRENGTHS`` better, including none of it: the lower end of a paired bootstrap's one-sided
    99.75 % interval of the gain in macro F1 (1 % divided among the others) is then above 0. Rows
    are resampled within their class, so that no resample lacks a class.
    """
    predictions = np.stack(
        [adjust_logits(logits, shares, tempered_rates(shares, s)).argmax(1) for s in STRENGTHS]
    )
    f1_by_strength = np.array([_f1(labels, guess, len(shares)) for guess in predictions])
    usual, best = STRENGTHS.index(USUAL), int(f1_by_strength.argmax())
    where = f"on {len(labels)} validation rows"
    if f1_by_strength[best] <= f1_by_strength[usual]:
        because = (
            f"half of the way to equal class rates; {where} no other share has a better macro F1"
        )
        return TargetRates(tempered_rates(shares, USUAL), USUAL, 0.0, 0.0, 0.0, because)
    rng, gains = generator(seed, "rates"), np.zeros(RESAMPLES)
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for index in range(RESAMPLES):
        rows = np.concatenate([rng.choice(place, len(place)) for place in places])
        drawn = [_f1(labels[rows], predictions[k, rows], len(shares)) for k in (usual, best)]
        gains[index] = drawn[1] - drawn[0]
    low, high = (float(one) for one in np.quantile(gains, [LEVEL, 1 - LEVEL]))
    gain = float(f1_by_strength[best] - f1_by_strength[usual])
    gain_words = (
        f"{signed(100 * gain)} ({signed(100 * low)} to {signed(100 * high)}) points of "
        f"macro F1 {where}"
    )
    move_words = f"{percent_phrase(STRENGTHS[best])} of the way to equal class rates"
    if low <= 0:
        because = (
            f"half of the way to equal class rates; {move_words} would bring "
            f"{gain_words}: not significant"
        )
        return TargetRates(tempered_rates(shares, USUAL), USUAL, gain, low, high, because)
    because = f"{move_words} instead of half of it: {gain_words}"
    return TargetRates(
        tempered_rates(shares, STRENGTHS[best]), STRENGTHS[best], gain, low, high, because
    )


def _f1(labels: Ints, predictions: Ints, classes: int) -> float:
    """Macro-F1 over the classes that have a row here."""
    correct_counts = np.bincount(labels[predictions == labels], minlength=classes)
    label_counts = np.bincount(labels, minlength=classes)
    predicted_counts = np.bincount(predictions, minlength=classes)
    present = label_counts > 0
    return float((2 * correct_counts[present] / (label_counts + predicted_counts)[present]).mean())


# The middle of the four that 1901.05555 tries.
BETA = 0.999
BALANCE_MODES = ("draw", "weights", "effective", "none")
TARGET = "methods.balance.target"
TARGETS = ("drawn", "rows", "half", "even", "auto")


def places_per_class(sizes: Ints, total: int, strength: float) -> Ints:
    """The number of the ``total`` places that each class [K] of these sizes gets: in proportion to
    size^(1 − strength), the largest remainders rounded up."""
    share = np.asarray(sizes, dtype=np.float64) ** (1 - strength)
    exact = total * share / share.sum()
    places: Ints = np.floor(exact).astype(np.int64)
    left = total - int(places.sum())
    places[np.argsort(places - exact, kind="stable")[:left]] += 1
    return places


def balanced_positions(labels: Ints, strength: float, rng: np.random.Generator) -> Ints:
    """Positions [n] of an epoch over rows of these ``labels`` [n], in random order."""
    present, sizes = np.unique(labels, return_counts=True)
    positions = []
    for label, size, places in zip(
        present, sizes, places_per_class(sizes, len(labels), strength), strict=True
    ):
        rows = np.flatnonzero(labels == label)
        full_repeats, extra_rows = divmod(int(places), int(size))
        positions += [np.tile(rows, full_repeats), rng.permutation(rows)[:extra_rows]]
    return rng.permutation(np.concatenate(positions))


@dataclass(frozen=True, slots=True)
class Balance:
    """The settings, and the source of ``by: draw``: ``strength``, 1 for equal class rates, near 0
    for the rows' own; ``by`` and ``target`` as in the module docstring."""

    strength: float = setting(1.0, above=0, most=1)
    by: str = setting("draw", choices=BALANCE_MODES)
    target: str | Mapping[str, float] = setting("drawn", choices=TARGETS, shares=True)
    name: ClassVar[str] = "balance"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        labels = pool.labels
        assert labels is not None

        def order(rng: np.random.Generator) -> Ints:
            return balanced_positions(labels, self.strength, rng)

        return Draw(batch_of_epoch(pool, step, "balance", order))


@dataclass(frozen=True, slots=True)
class BalancedLoss:
    """The loss term. ``weights`` and ``offset`` [classes] are those of the training rows: the
    weight of a class's rows, and log q − log p; before ``of_rows`` nothing is changed."""

    settings: Balance
    weights: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    name: ClassVar[str] = "balance"
    compares_rows: ClassVar[bool] = False

    def of_rows(self, labels: Ints, classes: Sequence[str]) -> BalancedLoss:
        """The term for training rows of these ``labels`` [n]."""
        weights = class_weights(self.settings, labels, len(classes))
        shares = class_shares(labels, len(classes))
        offset: Floats = np.zeros(len(classes))
        if self.settings.target != "drawn":
            drawn: Floats = np.asarray(shares * weights)
            if self.settings.by == "draw":
                drawn = tempered_rates(shares, self.settings.strength)
            offset = np.asarray(np.log(drawn / drawn.sum()) - np.log(shares))
        return BalancedLoss(self.settings, tuple(weights.tolist()), tuple(offset.tolist()))

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if not self.weights:
            return losses
        logits, labels = passed.output.logits.float(), passed.batch["labels"]
        if any(self.offset):
            offset = torch.tensor(self.offset, dtype=torch.float32, device=logits.device)
            losses = torch.nn.functional.cross_entropy(logits + offset, labels, reduction="none")
        return (
            torch.tensor(self.weights, dtype=torch.float32, device=logits.device)[labels] * losses
        )


def class_weights(settings: Balance, labels: Ints, classes: int) -> Floats:
    """The weight of a row of each class [classes], 1 on average over these rows [n]."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    class_counts = np.maximum(counts, 1)
    if settings.by == "weights":
        raw = class_counts**-settings.strength
    elif settings.by == "effective":
        raw = (1 - BETA) / (1 - BETA**class_counts)
    else:
        return np.ones(classes)
    return np.asarray(raw * counts.sum() / (raw * counts).sum())


def changes_losses(by: str, target: object) -> bool:
    """Whether it changes the losses: by weights, or by moving the logits of the loss."""
    return by in ("weights", "effective") or (by == "draw" and target != "drawn")


def target_setting(methods: Mapping[str, object]) -> Any:
    """The ``target`` of these methods (name: settings); ``None`` where nothing is moved."""
    settings = methods.get("balance")
    target = settings.get("target", "drawn") if isinstance(settings, Mapping) else "drawn"
    return None if target == "drawn" else target


def check_target(methods: Mapping[str, object], classes: Sequence[str], network: Any) -> None:
    """Refuse, before any step, a stated population whose classes are not those of the rows, and one
    that the last layer of the ``network`` cannot be moved to."""
    target = target_setting(methods)
    if isinstance(target, Mapping):
        stated_rates(target, classes, TARGET)
    if target is not None and getattr(network.head, "bias", None) is None:
        rule = "moves the bias of the last layer, and this model's has none"
        remedy = "Keep the frequencies of the training rows: --set methods.balance=false."
        raise RecipeError(TARGET, rule, target, remedy)


def _parts(settings: Balance) -> Parts:
    source = settings if settings.by == "draw" else None
    moves = changes_losses(settings.by, settings.target)
    return Parts(source=source, terms=(BalancedLoss(settings),) if moves else ())


METHODS.add("balance", Method(Balance, _parts, needs_classes=True))
