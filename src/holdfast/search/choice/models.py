"""``holdfast choose``: which of several models to fine-tune on these rows, without fine-tuning all.

The rows are read and divided as ``train`` would have it. Every candidate is loaded and asked what
it knows already: a classifier by a linear probe on each of its frozen layers
(``frozen_evidence.py``), a model that writes by the bits a byte that texts cost it, before and
after a few updates of LoRA. The best two are then fine-tuned for a short while, as ``train`` does
it, judged by validation rows. ``ranking.py`` says which model comes first by both, and whether
these rows show it. Test rows are never opened, and nothing is written but what ``adapted.py`` makes
of the chosen model, where that was asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, InputError, ModelError, RecipeError
from holdfast.core.printable import brief
from holdfast.core.records import Decision, Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import WRITERS
from holdfast.core.wording import counted
from holdfast.fits.compose import make_ready
from holdfast.fits.fit import fit
from holdfast.fits.row_roles import known_tables
from holdfast.metrics.row_scores import METRICS, entity_rows, number_rows, right_rows, set_rows
from holdfast.models.compute.dropout import quick_dropout
from holdfast.plan.task import with_task
from holdfast.prepare.general import with_general
from holdfast.prepare.model import prepare_divided, with_added
from holdfast.prepare.rows import Divided, load_and_divide
from holdfast.prepare.sources import in_files, with_mix
from holdfast.recipe import Recipe
from holdfast.search.choice.adaptation import Adapted, Adapting, adapt_model, check_adapting
from holdfast.search.choice.candidate import ModelFacts, beside
from holdfast.search.choice.order import (
    LEVEL,
    MARGIN,
    ModelOrder,
    cheapest_as_good,
    difference,
    estimate,
    rank,
)
from holdfast.search.choice.probe_evidence import FOLDS, Frozen, deal, frozen_evidence
from holdfast.search.choice.text_evidence import TextEvidence, text_evidence, text_rows
from holdfast.training.machine.machine import flushed_subnormals
from holdfast.training.machine.signals import terminate_like_interrupt

if TYPE_CHECKING:
    import pyarrow as pa


# A probe learns from no more rows, and of sentences from no more words: more would say little more.
MOST_ROWS, MOST_WORDS = 600, 4000
# A short fine-tune takes this share of the updates that ``train`` would.
SHORT, LEAST_STEPS, MOST_STEPS = 0.1, 5, 200
TRIED = 2
# Why no score after fine-tuning is given.
NOT_PREDICTED = (
    "the score after fine-tuning is not predicted: no interval for it has been shown to hold on "
    "data sets that it was not fitted on"
)
CALIBRATED = "on no data sets, so no score after fine-tuning is predicted"
WORDS = {
    "accuracy": "accuracy",
    "f1_micro": "micro F1",
    "r2": "R²",
    "entity_f1": "entity F1",
    "bits_per_byte": "bits a byte",
}


@dataclass(frozen=True, slots=True)
class Short:
    """A short fine-tune: ``rows`` [validation rows] its scores (NaN for one of which nothing is
    read), ``units`` which of them are copies or of one group, ``score`` their mean, after ``steps``
    updates."""

    rows: Floats
    units: Ints
    score: float
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """A model that was asked about: by a ``frozen`` probe or by the ``texts`` that it was to write,
    with ``evidence`` the score that it has by that; ``short`` where it was fine-tuned for a while.
    Scores are as the metric has them."""

    name: str
    beside: ModelFacts
    rows_per_s: float
    seconds: float
    evidence: Estimate
    frozen: Frozen | None = None
    texts: TextEvidence | None = None
    short: Short | None = None

    @property
    def rows(self) -> Floats:
        """The evidence row by row, before any short fine-tune."""
        return self._found.rows

    @property
    def units(self) -> Ints:
        """Which of these rows are copies or of one group."""
        return self._found.units

    @property
    def _found(self) -> Frozen | TextEvidence:
        found = self.frozen or self.texts
        assert found is not None
        return found

    @property
    def what(self) -> str:
        """What ``evidence`` is the score of."""
        if self.texts is None:
            return f"linear probe, {FOLDS}-fold cross-validation"
        return f"after {counted(self.texts.steps, 'update')} of LoRA"

    def to_json(self, predicted: Mapping[str, object]) -> dict[str, Any]:
        made: dict[str, Any] = {"name": self.name, "predicted": dict(predicted)}
        made["evidence"] = {"what": self.what, **self.evidence.to_json()}
        if self.frozen is not None:
            made |= {
                "probe": self.frozen.score,
                "layer": self.frozen.layer.name,
                "probe_of_head": self.frozen.head.score,
                "h_score": self.frozen.h_score,
                "logme": self.frozen.log_evidence,
                "layers": [layer.to_json() for layer in self.frozen.layers],
            }
        if self.texts is not None:
            made["bits_per_byte"] = self.texts.to_json()
        short = self.short
        made["short"] = short and {
            "score": short.score,
            "steps": short.steps,
            "seconds": round(short.seconds, 2),
        }
        speed = {"rows_per_s": round(self.rows_per_s, 1), "seconds": round(self.seconds, 2)}
        return {**made, **speed, **self.beside.to_json()}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A candidate that cannot be used for these rows, and why."""

    name: str
    because: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model to take: ``chosen``, and ``because`` in a sentence.

    ``told_apart`` says whether the 95 % interval of its lead over the next excludes 0. The
    ``candidates`` stand best first, each with its measured ``evidence``. ``predicted``, in the same
    order, has no value: a score after fine-tuning is not predicted, and ``why`` says why.
    ``metric`` names the score. ``rows`` are those that were asked about. ``adapted`` is what became
    of the chosen model, where it was to be adapted.
    """

    chosen: str
    because: str
    told_apart: bool
    task: str
    metric: str
    higher: bool
    rows: int
    valid: int
    candidates: tuple[ModelCandidate, ...]
    predicted: tuple[Mapping[str, Any], ...]
    left_out: tuple[LeftOut, ...]
    calibrated: str
    seconds: float
    adapted: Adapted | None = None

    def __repr__(self) -> str:
        return brief("Choice", self.chosen, self.because)

    def to_json(self) -> dict[str, Any]:
        both = zip(self.candidates, self.predicted, strict=True)
        made: dict[str, Any] = to_json(self._plain(both))
        return made

    def _plain(self, both: Iterable[tuple[ModelCandidate, Mapping[str, float]]]) -> dict[str, Any]:
        return {
            "schema": 1,
            "chosen": self.chosen,
            "because": self.because,
            "told_apart": self.told_apart,
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher,
            "rows": self.rows,
            "valid": self.valid,
            "models": [candidate.to_json(predicted) for candidate, predicted in both],
            "left_out": [{"name": one.name, "because": one.because} for one in self.left_out],
            "adapted": self.adapted and self.adapted.to_json(),
            "calibrated": self.calibrated,
            "seconds": round(self.seconds, 2),
        }


def choose_model(
    recipe: Recipe,
    models: Sequence[str],
    held: Mapping[str, pa.Table] = MappingProxyType({}),
    adapting: Adapting | None = None,
) -> Choice:
    """Choose among ``models`` (names or folders) for the rows of a recipe; ``held`` are rows in
    memory, see ``prepare.sources``. The chosen one is then adapted, where that is asked for.

    Raises what ``train`` raises of its rows and settings, ``RecipeError`` where no model is named,
    ``ModelError`` where none can be used.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminate_like_interrupt())
        stack.enter_context(flushed_subnormals())
        stack.enter_context(quick_dropout())
        recipe = stack.enter_context(in_files(*with_mix(recipe, held)))
        start = time.perf_counter()
        names = _named(models)
        recipe = _settled(recipe, names)
        if adapting is not None:
            check_adapting(adapting, recipe.task)
            recipe = recipe.changed(data={"unlabelled": adapting.texts})
        divided, texts = _divided(recipe, adapting)
        rows = ChoiceRows.of(divided)
        found, left_out = _asked(rows, names)
        tried = _tried(rows, found)
        choice = _choice(rows, tried, left_out, time.perf_counter() - start)
        if adapting is None:
            return choice
        chosen = divided.recipe.changed(model={"name": choice.chosen})
        adapted = adapt_model(divided, chosen, texts, adapting)
        return replace(choice, adapted=adapted, seconds=time.perf_counter() - start)


def _divided(recipe: Recipe, adapting: Adapting | None) -> tuple[Divided, tuple[str, ...]]:
    """The divided rows, and the texts to adapt to, none of which copies a row that is held out; a
    fit does not learn from these as it would from ``data.unlabelled``."""
    divided = load_and_divide(recipe)
    if adapting is None:
        return divided, ()
    check_adapting(adapting, divided.recipe.task)
    bare = divided.recipe.changed(data={"unlabelled": None})
    return replace(divided, recipe=bare, unlabelled=()), divided.unlabelled


def _named(models: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in models if name.strip()))
    if not names:
        raise RecipeError(
            "--models",
            "names no model",
            None,
            "Name one or more, with commas between: --models embedded,bert-base-uncased",
        )
    return names


def _settled(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with the task that the rows, and the first model that can do it, say."""
    problem: InputError | None = None
    for name in names:
        asked = recipe.changed(model={"name": name})
        try:
            with_task(asked)
        except InputError as error:
            problem = problem or error
        else:
            return asked
    assert problem is not None
    raise problem


@dataclass(frozen=True, slots=True)
class ChoiceRows:
    """The divided rows that every candidate is asked about, and as what."""

    divided: Divided
    recipe: Recipe
    kind: str

    @classmethod
    def of(cls, divided: Divided) -> ChoiceRows:
        task = divided.recipe.task
        label = divided.table.columns.label_kind or "class"
        kinds = dict.fromkeys(WRITERS, "text") | {"token-classification": "tags"}
        made = divided.recipe
        if task in WRITERS and made.model.adapter.kind is None:
            made = made.changed(model={"adapter": {"kind": "lora"}})
        return cls(divided, made, kinds.get(str(task), label))

    @property
    def writes(self) -> bool:
        return self.kind == "text"

    def prepared(self, name: str) -> tuple[PreparedData, Ints, Ints]:
        """The rows as a candidate reads them, without what is added to them."""
        recipe = self.recipe.changed(model={"name": name})
        return prepare_divided(recipe, self.divided.splits, self.divided.findings, extend=False)

    def extended(self, prepared: PreparedData, train: Ints, valid: Ints) -> PreparedData:
        """With what a fit of ``train`` would learn from beside them."""
        known = known_tables(self.divided)
        wide = with_general(prepared, known)
        return with_added(wide, train, valid, self.divided.unlabelled, known)


def _asked(rows: ChoiceRows, names: Sequence[str]) -> tuple[list[ModelCandidate], list[LeftOut]]:
    """What each candidate knows already."""
    found: list[ModelCandidate] = []
    left_out: list[LeftOut] = []
    for name in names:
        start = time.perf_counter()
        try:
            candidate = _evidence(rows, name, start)
        except InputError as error:
            left_out.append(LeftOut(name, f"{error.what} {error.rule}"))
            notify(Decision(f"candidate {name}", "left out", str(error), prominent=True))
            continue
        found.append(candidate)
        notify(_heard(candidate))
    if not found:
        reasons = "; ".join(f"{one.name}: {one.because}" for one in left_out)
        raise ModelError(
            "--models",
            f"names none that can be fine-tuned on these rows: {reasons}",
            None,
            "Name a model folder, a model of the Hugging Face hub (owner/name), or embedded.",
        )
    return found, left_out


def _evidence(rows: ChoiceRows, name: str, start: float) -> ModelCandidate:
    prepared, train, valid = rows.prepared(name)
    frozen, texts = None, None
    if rows.writes:
        texts = text_evidence(prepared, train, valid)
        speed, positions = texts.rows_per_s, valid
    else:
        positions = asked_rows(prepared, np.union1d(train, valid))
        labels = np.asarray(prepared.rows.column("label"))[positions]
        folds = deal(prepared.units[positions], labels, FOLDS, prepared.recipe.seed)
        frozen = frozen_evidence(prepared, positions, folds)
        speed = frozen.rows_per_s
    found = frozen or texts
    assert found is not None
    if not np.isfinite(found.rows).any():
        rule = f"hold nothing that {WORDS[METRICS[rows.kind][0]]} could be told of"
        raise DataError(prepared.rows.source, rule, None, "Give more rows, or others.")
    facts = beside(prepared, positions)
    score = _measured(rows, found.rows, found.units, frozen is not None)
    return ModelCandidate(name, facts, speed, time.perf_counter() - start, score, frozen, texts)


def _measured(rows: ChoiceRows, scores: Floats, units: Ints, probe: bool) -> Estimate:
    """The mean of rows with its interval, as the metric has it."""
    found = estimate(scores, units, METRICS[rows.kind][0], FOLDS if probe else None)
    if METRICS[rows.kind][1] or found.value is None:
        return found
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return replace(found, value=-found.value, low=low, high=high)


def asked_rows(prepared: PreparedData, everything: Ints) -> Ints:
    """Of all rows at most 600, of sentences with a tag a word at most 4,000 words: a fixed sample
    that hangs on no model, in the rows' order."""
    order = generator(prepared.recipe.seed, "rows of candidates").permutation(len(everything))
    some = everything[order[:MOST_ROWS]]
    if "tokens" in prepared.rows.rows.column_names:
        words = np.array([len(one) for one in prepared.rows.take(some).column("tokens")])
        within = np.cumsum(words) <= MOST_WORDS
        within[: 2 * FOLDS] = True
        some = some[within]
    return np.sort(some)


def _heard(candidate: ModelCandidate) -> Decision:
    """A line as soon as a candidate was asked: the next one takes seconds to minutes."""
    if candidate.frozen is not None:
        name = candidate.frozen.layer.name
        said = f"a probe (best on layer {name}) scores {candidate.frozen.score:.3f} out of fold"
    else:
        assert candidate.texts is not None
        said = (
            f"{candidate.texts.before:.3f} bits a byte, {candidate.texts.after:.3f} after "
            f"{counted(candidate.texts.steps, 'update')} of LoRA"
        )
    doubts = "; ".join(["", *candidate.beside.doubts])
    took = f"{candidate.seconds:.1f} s"
    return Decision(f"candidate {candidate.name}", took, f"{said}{doubts}", prominent=True)


def _tried(rows: ChoiceRows, found: list[ModelCandidate]) -> list[ModelCandidate]:
    """The candidates, the best two of them fine-tuned for a short while."""
    best = sorted(range(len(found)), key=lambda i: -np.nanmean(found[i].rows))[:TRIED]
    for place in best:
        name = found[place].name
        prepared, train, valid = rows.prepared(name)
        short = short_fit(rows, rows.extended(prepared, train, valid), train, valid)
        because = f"{_of(rows, short.score):.3f} on {counted(len(valid), 'validation row')}"
        notify(
            Decision(
                f"short fine-tune of {name}",
                f"{counted(short.steps, 'update')}, {short.seconds:.1f} s",
                because,
                prominent=True,
            )
        )
        found[place] = replace(found[place], short=short)
    return found


def short_fit(rows: ChoiceRows, prepared: PreparedData, train: Ints, valid: Ints) -> Short:
    """A tenth of the updates that ``train`` would take, 5 to 200, judged by validation rows."""
    start = time.perf_counter()
    planned = sum(phase.steps for phase in make_ready(prepared, train, valid).plan.phases)
    steps = min(max(round(SHORT * planned), LEAST_STEPS), MOST_STEPS, planned)
    settings = {"train.max_steps": steps, "train.evaluations": 1, "control.policy": "off"}
    fitted = fit(prepared, train, valid, settings)
    found = fitted_rows(rows.kind, fitted)
    scores = np.full(len(valid), np.nan)
    # A sentence of which no word is read is no example.
    examples: Any = fitted.ready.valid
    scores[np.arange(len(valid)) if len(found) == len(valid) else examples.kept] = found
    units, seconds = prepared.units[valid], time.perf_counter() - start
    return Short(scores, units, float(np.nanmean(scores)), fitted.trained.last_step, seconds)


def fitted_rows(kind: str, fitted: FittedModel) -> Floats:
    """The scores of a fit's validation rows, higher better, as ``Candidate.rows`` has them."""
    examples: Any = fitted.ready.valid
    losses, kept = fitted.measure(examples)
    if kind == "text":
        return text_rows(examples, losses, kept, fitted.ready.loaded.tokenizer)
    if kind == "tags":
        return entity_rows(kept[:, 2:5])
    labels = np.asarray(examples.labels)
    if kind == "several":
        return set_rows(kept > 0, labels)
    if kind == "number":
        return number_rows(kept[:, 0], labels)
    return right_rows(kept, labels)


def _of(rows: ChoiceRows, score: float) -> float:
    """A score as its metric has it: where less is better it is reckoned with its sign turned."""
    return score if METRICS[rows.kind][1] else -score


def _choice(
    rows: ChoiceRows, found: Sequence[ModelCandidate], left_out: Sequence[LeftOut], seconds: float
) -> Choice:
    metric, higher = METRICS[rows.kind]
    scores = np.stack([one.rows for one in found])
    short = {i: one.short.rows for i, one in enumerate(found) if one.short is not None}
    units = found[0].units
    valid = next((one.short.units for one in found if one.short is not None), None)
    ranking = rank(scores, units, short, valid)
    taken, because = _decided(rows, found, ranking, units)
    none = {"value": None, "low": None, "high": None, "level": LEVEL, "why": NOT_PREDICTED}
    return Choice(
        chosen=found[taken].name,
        because=because,
        told_apart=taken == ranking.order[0] and ranking.significant,
        task=str(rows.recipe.task),
        metric=metric,
        higher=higher,
        rows=int(np.isfinite(found[0].rows).sum()),
        valid=len(rows.divided.splits.valid),
        candidates=tuple(found[place] for place in ranking.order),
        predicted=tuple(none for _ in found),
        left_out=tuple(left_out),
        calibrated=CALIBRATED,
        seconds=seconds,
    )


def _decided(
    rows: ChoiceRows, found: Sequence[ModelCandidate], ranking: ModelOrder, units: Ints
) -> tuple[int, str]:
    """Which is taken, and why in a sentence."""
    best = ranking.order[0]
    score = _score_words(rows, found[best])
    lead = ranking.lead
    if lead is None:
        return best, f"{found[best].name}, the only one that could be asked: {score}."
    second = ranking.order[1]
    scores = np.stack([one.rows for one in found])
    by = "a short fine-tune of both" if ranking.by_short else "this score"
    count = counted(lead.n, "validation row" if ranking.by_short else "row")
    gap = f"{lead.value:.3f} (95 % CI {lead.low:.3f} to {lead.high:.3f}, {count})"
    if ranking.significant:
        return best, f"{found[best].name}: {score}. By {by} it is {gap} better than " + (
            f"{found[second].name}, the next."
        )
    margin = MARGIN * (abs(float(np.nanmean(scores[best]))) if rows.writes else 1.0)
    taken = cheapest_as_good(scores, units, [one.rows_per_s for one in found], margin)
    if taken == best:
        return best, (
            f"{found[best].name}: {score}. {counted(lead.n, 'row')} do not show that it is better "
            f"than {found[second].name}, the next: difference {gap}."
        )
    against = difference(scores[best], scores[taken], units)
    times = found[taken].rows_per_s / found[best].rows_per_s
    return taken, (
        f"{found[taken].name}: {_score_words(rows, found[taken])}. {found[best].name} scores "
        f"{against.value:.3f} better (95 % CI {against.low:.3f} to {against.high:.3f}), which "
        f"{counted(against.n, 'row')} do not show to be a difference, and {found[taken].name} "
        f"passes {times:.1f} times as many rows a second."
    )


def _score_words(rows: ChoiceRows, candidate: ModelCandidate) -> str:
    """What was measured of a candidate, with its interval."""
    found, word = candidate.evidence, WORDS[METRICS[rows.kind][0]]
    assert found.value is not None
    span = "no interval" if found.low is None else f"95 % CI {found.low:.3f} to {found.high:.3f}"
    return f"{word} {found.value:.3f} ({span}; {candidate.what})"
