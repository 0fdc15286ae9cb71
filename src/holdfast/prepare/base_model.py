"""Choose the base model (``model.name: auto``) among the encoders on this machine.

At most 600 rows pass once through each frozen candidate. A linear probe on its layers predicts each
row out of fold; d is the mean difference of its scores from the embedded model's, s its standard
error. Where a row has one class its score is minus the Brier score, −Σ_c (p_c − y_c)²: on ten data
sets with 100 rows each, its difference between two encoders was nearer to that of their test
accuracies (slope 0.87, correlation 0.81) than the difference of cross-validated accuracies was
(0.53, 0.70; benchmarks/probe_scores.py). On other data sets the advantage of such a model was δ on
average, with a standard deviation of τ between sets.
The expected advantage is the mean of the posterior,

    (d ÷ s² + δ ÷ τ²) ÷ (1 ÷ s² + 1 ÷ τ²),    with the variance 1 ÷ (1 ÷ s² + 1 ÷ τ²)

(a normal mean with a normal prior). The expected gain of fine-tuning over the probe is added, with
cross-fitting or without: the mean gain on other data sets, but at most half of the probe's errors.
Where the run may be cross-fitted, the folds of the embedded model are run first; its gain is then
the posterior of the out-of-fold differences from its probe, by the same equation, and a run that
begins from it has its folds already. Of the options within the budget, those within half a point of
the highest sum are compared, and the cheapest is chosen. Times are counted operations divided by
the speed of the machine (``training/machine/speed.py``), so that the choice is the same in every
run on a machine.

The rows are the training rows, and the validation rows too where those may be learned from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from holdfast.contract.fit import PreparedData, class_count
from holdfast.core.decisions import notify, stage, tick
from holdfast.core.errors import InputError, RecipeError
from holdfast.core.machine import process_count
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.tasks import LABELLED_TEXT_TASKS, TAGGING_TASKS
from holdfast.core.wording import percent_phrase, seconds_phrase, signed
from holdfast.metrics.comparison import METRICS
from holdfast.models.layers import BACKBONE, count_parameters
from holdfast.models.loading.card import card_here
from holdfast.models.loading.hub_models import HubModel, hub_models
from holdfast.models.loading.local import LocalModel, local_encoders, naming_place
from holdfast.models.loading.source import Source, find_model, short_name
from holdfast.plan.defaults import default_folds, plan_phases, resolve_settings
from holdfast.plan.language import detect_language, language_mismatch, sample_texts
from holdfast.prepare.probe_evidence import FrozenRows, assign_folds, sample_rows
from holdfast.recipe import Recipe
from holdfast.recipe.parts import AUTO_MODEL, ModelPart
from holdfast.recipe.resolution import resolve_recipe
from holdfast.stats.paired_tests import by_groups
from holdfast.training.machine.speed import BACKWARD, forward_operations, operations_per_second

Prepare = Callable[[Recipe], PreparedData]
# For each row whether its class is predicted out of fold after fine-tuning, less whether the probe
# predicts it (1, 0 or -1); None without folds.
MeasureGains = Callable[[PreparedData], Floats | None]

# What the choice is made by is of no use to a repeat, which names the model.
WITHOUT_CHOICE: dict[str, object] = {"candidates": None, "budget": None, "download": False}

MAX_CANDIDATES = 6
# The estimated time that all probes may take together.
PROBING_S = 60.0
# The budget: minutes of training, or so many times those of the embedded model if that is more.
BUDGET_MINUTES, TIMES_EMBEDDED = 3.0, 5.0
# Within so much of the best expected score the cheaper option is taken.
CLOSE = 0.005
# Of the speed of a product, what a pass of an encoder reaches, and its training.
FORWARD, TRAINING = 0.67, 0.5
# What fine-tuning without cross-fitting gains over a probe, from the embedded encoder and from a
# larger one, up to so many rows and with more; what cross-fitting adds; and the standard deviation
# of the gain between data sets (benchmarks/quality.py and default_plans.py: ten sets with 100 rows
# and with 400, six with 1,600). A share of the probe's errors in place of points chose worse on
# fresh runs; but no larger encoder removed more than half of them.
TUNING_GAINS = {200: (0.063, 0.064), 800: (0.045, 0.033), math.inf: (0.074, 0.05)}
FOLDS_GAIN = 0.015
MOST_REMOVED = 0.5
GAIN_SPREAD = 0.06
# The digits of a hash that are printed.
DIGITS = 12
EMBEDDED_PARAMETERS = 23_000_000
Z = 1.959964


@dataclass(frozen=True, slots=True)
class Prior:
    """The ``advantage`` of a kind of model over the embedded one on other data sets, as a score,
    and its standard deviation between sets; ``source`` in words."""

    advantage: float
    spread: float
    source: str


# Larger sentence encoders than the embedded one, on the sets of benchmarks/quality.py.
SENTENCES = Prior(
    0.04,
    0.05,
    "on other data sets, all-mpnet-base-v2 beat MiniLM by 4 accuracy points (linear probe)",
)
UNKNOWN = Prior(0.0, 0.1, "no results for such a model on other data sets")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A model that a run may begin from. ``operations`` are those of a forward pass of a row, on
    average. Fine-tuning has this many ``folds``, or none where validation rows are set aside;
    ``passed`` gives the rows that it passes, for so many training rows and folds. ``origin`` says
    which weights these are, under which licence."""

    model: LocalModel
    rows: FrozenRows
    operations: float
    prior: Prior
    folds: int
    passed: Callable[[int, int], float]
    origin: str


Mode = Literal["tuned", "without cross-fitting", "frozen"]
# How each is called behind the name of a model.
MODES: dict[Mode, str] = {
    "tuned": "",
    "without cross-fitting": " without cross-fitting",
    "frozen": " with a frozen encoder",
}


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate, fine-tuned (with the usual cross-fitting or without) or frozen: its expected
    score relative to the embedded model's probe, and the estimated ``seconds`` of training."""

    candidate: Candidate
    mode: Mode
    advantage: Advantage
    expected: float
    seconds: float

    @property
    def name(self) -> str:
        return short_name(self.candidate.model.name) + MODES[self.mode]


@dataclass(frozen=True, slots=True)
class BaseModelChoice:
    """The settings of a recipe's ``model`` and ``train``, and the decisions that say why."""

    settings: dict[str, dict[str, object]]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BaseModels:
    """The candidates for a run's base model, with the frozen features of its rows: ``choose`` can
    be asked for any part of them. ``sample`` are the rows that were passed, ascending; the embedded
    model comes first. ``speed`` is the machine's, in operations a second; ``decisions`` are those
    of the run's own choice."""

    recipe: Recipe
    budget: float | None
    candidates: tuple[Candidate, ...]
    sample: Ints
    labels: Ints
    speed: float
    skipped: tuple[Decision, ...] = ()
    decisions: tuple[Decision, ...] = ()

    @classmethod
    def of(
        cls, requested: ModelPart, embedded: PreparedData, prepare: Prepare
    ) -> BaseModels | None:
        """The usable encoders of texts on this machine, each with one pass over the sample;
        ``None`` if the embedded model is the only one. ``requested`` says which models the user
        names, ``embedded`` are the rows as that model reads them, ``prepare`` prepares them for
        another.

        Raises ``ModelError`` where a model of ``model.candidates`` or ``HOLDFAST_MODELS`` is
        missing or cannot be used.
        """
        recipe = embedded.recipe
        found, unusable = local_encoders(requested.candidates or ())
        language = detect_language(sample_texts(embedded.rows, recipe.seed))
        on_hub = hub_models(recipe.task, language)
        if requested.download:
            # Those that are not on this machine yet, or not wholly.
            names = {one.name for one in found}
            found[1:1] = [LocalModel(one.name) for one in on_hub if one.name not in names]
        names = {one.name for one in found}
        skipped = [_skipped(one.name, one.because) for one in unusable if one.name not in names]
        if len(found) == 1:
            notify(_embedded_alone(recipe.task, () if requested.download else on_hub), *skipped)
            return None
        because = f"at most {MAX_CANDIDATES} models are compared"
        skipped += [_skipped(one.name, because) for one in found[MAX_CANDIDATES:]]
        sample = sample_rows(embedded, np.arange(len(embedded)))
        speed, left_s = operations_per_second(embedded.machine), PROBING_S
        candidates = [_candidate(embedded, found[0], sample, language)]
        with stage("comparing base models"):
            for number, model in enumerate(found[1:MAX_CANDIDATES], 1):
                tick(number, len(found[:MAX_CANDIDATES]))
                try:
                    with naming_place(model.named_by):
                        prepared = prepare(recipe.with_changes(model=_named(model)))
                        seconds = float(_operations(prepared, sample).sum()) / speed / FORWARD
                        if seconds <= left_s:
                            candidates.append(_candidate(prepared, model, sample, language))
                            left_s -= seconds
                            continue
                    because = (
                        f"its probe takes about {seconds:.0f} s, and {left_s:.0f} s of the "
                        f"{PROBING_S:.0f} s for all probes are left"
                    )
                except InputError as error:
                    if model.named_by is not None:
                        raise
                    because = error.rule
                skipped.append(_skipped(model.name, because))
        labels = np.asarray(embedded.rows.column("label"))[sample]
        return cls(
            recipe, requested.budget, tuple(candidates), sample, labels, speed, tuple(skipped)
        )

    @property
    def _has_classes(self) -> bool:
        return self.candidates[0].rows.label_type == "class"

    @property
    def folds(self) -> int:
        """See ``ChoosesModel``."""
        return self.candidates[0].folds

    def choose(self, train: Ints, gains: Floats | None = None) -> BaseModelChoice:
        """The base model for training rows at these positions, by those of them in the sample, and
        by the ``gains`` of all independent units if they were measured (``MeasureGains``)."""
        part = np.flatnonzero(np.isin(self.sample, train))
        units = self.candidates[0].rows.units[part]
        folds = assign_folds(units, self.labels[part], self.recipe.seed)
        evidence = [one.rows.evidence(folds, part) for one in self.candidates]
        scores = [one.rows for one in evidence]
        compared = [-one.errors for one in evidence] if self._has_classes else scores
        advantages = [
            expected_advantage(values - compared[0], units, one.prior)
            for one, values in zip(self.candidates, compared, strict=True)
        ]
        # Against itself.
        advantages[0] = Advantage(0.0, 0.0)
        score, rows = float(np.nanmean(scores[0])), len(train)
        measured = None if gains is None else measured_gain(gains, rows)
        options: list[Option] = []
        for one, advantage in zip(self.candidates, advantages, strict=True):
            wrong = max(0.0, 1 - score - advantage.mean)
            known = measured if one is self.candidates[0] else None
            for mode, gain in self._modes(one, wrong, rows, known):
                seconds = self._seconds(one, mode, rows)
                options.append(Option(one, mode, advantage, advantage.mean + gain, seconds))
        budget_s = self._budget_s(options[0].seconds)
        affordable = [one for one in options if one.seconds <= budget_s or one is options[0]]
        best = max(one.expected for one in affordable)
        close = (one for one in affordable if one.expected >= best - CLOSE)
        taken = min(close, key=lambda one: one.seconds)
        reasons = [_reason(one, taken, best, budget_s, options) for one in options]
        return BaseModelChoice(
            self._settings(taken), self._decisions(taken, options, scores, reasons, measured)
        )

    def prepared(
        self, embedded: PreparedData, prepare: Prepare, train: Ints, gains: Floats | None
    ) -> PreparedData:
        """The rows prepared for the model that is best for those at ``train``."""
        if gains is not None:
            gains = by_groups(gains, embedded.units)
        choice = self.choose(train, gains)
        recipe = self.recipe.with_changes(**choice.settings)
        best = embedded if recipe == self.recipe else prepare(recipe)
        return replace(best, base_models=replace(self, decisions=choice.decisions))

    def _modes(
        self, of: Candidate, wrong: float, rows: int, measured: Advantage | None
    ) -> Iterator[tuple[Mode, float]]:
        """The ways to train a candidate whose probe has this share of the rows ``wrong``, and what
        each adds to the probe. Folds may be left out where the recipe does not ask for them and
        they are not run yet (``measured``); a body may stay frozen where no layers are named, and
        a row has one class."""
        if measured is not None:
            yield "tuned", measured.mean
        else:
            gain, most = tuning_gain(rows, of is self.candidates[0]), MOST_REMOVED * wrong
            yield "tuned", min(gain + FOLDS_GAIN if of.folds else gain, most)
            if of.folds and self.recipe.train.folds is None:
                yield "without cross-fitting", min(gain, most)
        if of.rows.label_type == "class" and self.recipe.model.freeze is None:
            yield "frozen", 0.0

    def _seconds(self, of: Candidate, mode: Mode, rows: int) -> float:
        if mode == "frozen":
            passed = rows / FORWARD
        else:
            passed = of.passed(rows, of.folds if mode == "tuned" else 0) * (1 + BACKWARD) / TRAINING
        return of.operations * passed / self.speed

    def _budget_s(self, embedded_s: float) -> float:
        if self.budget is not None:
            return 60 * self.budget
        return max(60 * BUDGET_MINUTES, TIMES_EMBEDDED * embedded_s)

    def settings(self, train: Ints, recipe: Recipe) -> dict[str, object]:
        """See ``ChoosesModel.settings``."""
        return {
            f"{part}.{key}": value
            for part, chosen in self.choose(train).settings.items()
            for key, value in chosen.items()
            if getattr(getattr(recipe, part), key) != value
        }

    def _settings(self, taken: Option) -> dict[str, dict[str, object]]:
        freeze = BACKBONE if taken.mode == "frozen" else self.recipe.model.freeze
        folds: dict[str, object] = {"folds": 0} if taken.mode == "without cross-fitting" else {}
        return {"model": {**_named(taken.candidate.model), "freeze": freeze}, "train": folds}

    def _decisions(
        self,
        taken: Option,
        options: Sequence[Option],
        scores: Sequence[Floats],
        reasons: Sequence[str],
        measured: Advantage | None,
    ) -> tuple[Decision, ...]:
        """The choice with its reason, then the models that were not taken, fine-tuned."""
        decisions = []
        embedded = self.candidates[0]
        metric = METRICS[embedded.rows.label_type or "class"][0].replace("_", " ")
        score = "Brier score" if self._has_classes else metric
        for one, rows in zip(self.candidates, scores, strict=True):
            option = taken if taken.candidate is one else _tuned(one, options)
            n, mean = int(np.isfinite(rows).sum()), float(np.nanmean(rows))
            probed = percent_phrase(mean, 1) if self._has_classes else f"{mean:.3f}"
            text = [
                f"linear probe: {metric} {probed} out of fold ({n} rows)",
                *([] if one is embedded else [option.advantage.phrase(one.prior, score)]),
                *([_gain_phrase(measured)] if measured and one is embedded else []),
                f"training takes about {seconds_phrase(option.seconds)}",
                reasons[options.index(option)],
                *([one.origin] if option is taken else []),
            ]
            what = "base model" if option is taken else f"base model {short_name(one.model.name)}"
            chosen = option.name if option is taken else "not chosen"
            decisions.append(Decision(what, chosen, "; ".join(text), prominent=option is taken))
        decisions.sort(key=lambda decision: not decision.prominent)
        return (*decisions, *self.skipped)


@dataclass(frozen=True, slots=True)
class Advantage:
    """The expected advantage of a model over the embedded one, in its score, and the standard
    ``deviation`` of that."""

    mean: float
    deviation: float

    def phrase(self, prior: Prior, score: str) -> str:
        """It as a sentence's part; ``score`` is what the probes were compared by."""
        return (
            f"expected advantage over embedded's linear probe {signed(100 * self.mean)} points "
            f"({self.interval}, by the {score} on these rows; {prior.source})"
        )

    @property
    def interval(self) -> str:
        low, high = (100 * (self.mean + side * Z * self.deviation) for side in (-1, 1))
        return f"95 % credible interval {signed(low)} to {signed(high)}"


def tuning_gain(rows: int, is_embedded: bool) -> float:
    """What fine-tuning without cross-fitting on so many rows gains over a probe on other sets."""
    embedded, larger = next(gains for most, gains in TUNING_GAINS.items() if rows <= most)
    return embedded if is_embedded else larger


def measured_gain(gains: Floats, rows: int) -> Advantage:
    """The expected gain of fine-tuning the embedded model with cross-fitting, from the ``gains`` of
    independent units and from other data sets."""
    usual = Prior(tuning_gain(rows, True) + FOLDS_GAIN, GAIN_SPREAD, "")
    return expected_advantage(gains, np.arange(len(gains)), usual)


def _gain_phrase(measured: Advantage) -> str:
    gain = f"{signed(100 * measured.mean)} points ({measured.interval})"
    return (
        f"expected gain of fine-tuning over its linear probe {gain}, from out-of-fold predictions "
        "and other data sets"
    )


def expected_advantage(differences: Floats, units: Ints, prior: Prior) -> Advantage:
    """The posterior of the mean of ``differences`` [n] (NaN for a row without one) between two
    models' scores of a row; ``units`` [n] are equal for rows that are not independent."""
    scored = np.isfinite(differences)
    if not scored.any():
        return Advantage(prior.advantage, prior.spread)
    values = by_groups(differences[scored], units[scored])
    count, precision = len(values), 1 / prior.spread**2
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    # Rows that agree throughout do not show that all rows do: at least one in n + 2 may differ.
    error = max(1 / (count + 2), spread / math.sqrt(count))
    both = precision + 1 / error**2
    posterior = (prior.advantage * precision + float(values.mean()) / error**2) / both
    return Advantage(posterior, math.sqrt(1 / both))


def _tuned(candidate: Candidate, options: Sequence[Option]) -> Option:
    """The candidate fine-tuned as usual, with cross-fitting where it has folds."""
    return next(one for one in options if one.candidate is candidate and one.mode == "tuned")


def _reason(
    option: Option, taken: Option, best: float, budget_s: float, options: Sequence[Option]
) -> str:
    """Why the option is taken, or not; ``best`` is the highest expected score in the budget."""
    if option is taken and taken.expected >= best:
        highest = "the highest expected score after training"
        if option.mode != "without cross-fitting":
            return highest
        if _tuned(option.candidate, options).seconds > budget_s:
            return f"{highest} within the budget; cross-fitting would exceed it (model.budget)"
        return f"{highest}; cross-fitting takes longer and is not expected to improve it"
    if option is taken:
        return f"fastest within {100 * CLOSE:g} points of the highest expected score"
    # The embedded model, fine-tuned, is never excluded.
    if option.seconds > budget_s and option is not options[0]:
        return f"more than the budget of {seconds_phrase(budget_s)} (model.budget)"
    more = 100 * (option.expected - taken.expected)
    if more > 0:
        return f"at most {100 * CLOSE:g} points better after training, and slower"
    return f"expected score after training {signed(more)} points relative to the chosen model"


def _candidate(
    prepared: PreparedData, model: LocalModel, sample: Ints, language: str | None
) -> Candidate:
    loaded, recipe = prepared.loaded, prepared.recipe
    parameters, classes = count_parameters(loaded.network)[0], class_count(prepared)

    kind = (loaded.defaults, classes)
    folds = recipe.train.folds
    if folds is None:
        folds = default_folds(prepared)

    def passed(rows: int, folds: int) -> float:
        # With folds validation rows are passed too, and K folds pass K - 1 times what the run does.
        rows = len(prepared) if folds else rows
        filled, _ = resolve_settings(recipe, parameters, rows, *kind)
        phases = plan_phases(resolve_recipe(filled), parameters, rows, *kind)
        return float(max(1, folds) * sum(phase.rows_passed for phase in phases))

    operations = float(_operations(prepared, sample).mean())
    source = find_model(model.name, revision=model.revision)
    prior = _prior(source, parameters, language)
    model = replace(model, revision=source.commit or model.revision)
    rows = FrozenRows.of(prepared, sample)
    return Candidate(model, rows, operations, prior, folds, passed, _origin(loaded.facts))


def _origin(facts: Mapping[str, Any]) -> str:
    commit = [f"commit {facts['commit'][:DIGITS]}"] if facts["commit"] else []
    licence = facts["licence"] or "not stated in its files"
    return ", ".join([f"licence {licence}", *commit, f"SHA-256 {facts['sha256'][:DIGITS]}"])


def _named(model: LocalModel) -> dict[str, object]:
    return {"name": model.name, "revision": model.revision}


def _operations(prepared: PreparedData, sample: Ints) -> Floats:
    examples: Any = prepared.examples.take(sample)
    return forward_operations(prepared.loaded.network, np.asarray(examples.lengths))


def _prior(source: Source, parameters: int, language: str | None) -> Prior:
    """What other data sets say of such a model: those measured encode sentences, in the language of
    the rows."""
    mismatch = language_mismatch(card_here(source.folder).languages, language)
    if mismatch is not None:
        return replace(UNKNOWN, source=mismatch)
    is_larger = parameters > EMBEDDED_PARAMETERS
    return SENTENCES if is_larger and source.encodes_sentences else UNKNOWN


def _embedded_alone(task: str | None, on_hub: Sequence[HubModel]) -> Decision:
    """What a larger encoder would probably bring, where there is none on this machine; ``on_hub``
    are those that could be downloaded."""
    because = "no other usable encoder on this machine"
    if task not in TAGGING_TASKS:
        because += f"; {SENTENCES.source}"
    if on_hub:
        best = max(on_hub, key=lambda one: one.score)
        because += (
            f" (--download adds {best.name}, not measured: {best.millions} M parameters, "
            f"{best.licence})"
        )
    return Decision("base model", EMBEDDED, because, prominent=True)


def _skipped(name: str, because: str) -> Decision:
    return Decision(f"base model {short_name(name)}", "not compared", because)


def has_choice(recipe: Recipe) -> bool:
    """Whether a base model is to be chosen for a recipe with its task: a teacher's run says what
    its student is, and token vectors are not compared."""
    of_task = recipe.task in (*LABELLED_TEXT_TASKS, *TAGGING_TASKS)
    fixed = recipe.distill.teacher or recipe.model.static
    return recipe.model.name == AUTO_MODEL and of_task and not fixed


def check_candidates(recipe: Recipe) -> None:
    """Refuse candidates that are missing or broken, before any row is read.

    Raises ``ModelError`` for those of ``model.candidates`` and ``HOLDFAST_MODELS``, and what
    ``_refuse_settings`` raises.
    """
    _refuse_settings(recipe)
    if has_choice(recipe):
        local_encoders(recipe.model.candidates or ())


def _refuse_settings(recipe: Recipe) -> None:
    """Raise ``RecipeError`` for settings of a choice where there is none, and for a revision of no
    named model."""
    if not has_choice(recipe):
        for key in ("download", "candidates", "budget"):
            if getattr(recipe.model, key):
                rule = (
                    f"needs model.name={AUTO_MODEL}, text or token classification, and neither "
                    "distill.teacher nor model.static"
                )
                value = getattr(recipe.model, key)
                raise RecipeError(f"model.{key}", rule, value, "Remove it.")
        return
    if recipe.model.revision is not None:
        rule = f"pins a model of the hub, but model.name is {AUTO_MODEL}"
        remedy = "Set model.name, or remove model.revision."
        raise RecipeError("model.revision", rule, recipe.model.revision, remedy)


def prepare_best(
    recipe: Recipe, prepare: Prepare, train: Ints, measure: MeasureGains | None = None
) -> PreparedData:
    """The rows prepared for the best base model for those at ``train``; for the embedded one where
    there is no choice, or no other. ``measure`` trains the embedded model, prepared, on all rows
    in folds."""
    _refuse_settings(recipe)
    embedded = prepare(recipe.with_changes(model={"name": EMBEDDED, **WITHOUT_CHOICE}))
    if has_choice(recipe) and process_count() > 1:
        because = "base models are compared only in a single process; set model.name to choose one"
        notify(Decision("base model", EMBEDDED, because, prominent=True))
        return embedded
    base_models = BaseModels.of(recipe.model, embedded, prepare) if has_choice(recipe) else None
    if base_models is None:
        return embedded
    gains = measure(embedded) if measure else None
    return base_models.prepared(embedded, prepare, train, gains)
