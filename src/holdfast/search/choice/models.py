"""``holdfast choose``: which of several pretrained models to fine-tune, without fine-tuning all.

The rows are read and split as in ``train``. Every candidate is loaded and scored: a
classifier by a linear probe on each of its frozen layers, a generative model by bits per byte,
before and after a few updates of LoRA. The best two are then fine-tuned briefly, as in ``train``,
and scored on validation rows. ``order.py`` ranks the models by both and says whether the rows show
the difference. Test rows are never used. Nothing is written, except the adapted model of
``adaptation.py`` if requested.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import InputError, ModelError, RecipeError
from holdfast.core.printable import brief_repr
from holdfast.core.records import Decision, to_json
from holdfast.core.wording import count_phrase
from holdfast.models.loading.local import FOLDERS, SkippedModel, local_encoders
from holdfast.plan.task import resolve_task
from holdfast.prepare.base_model import WITHOUT_CHOICE
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe
from holdfast.search.choice.adaptation import (
    AdaptationOptions,
    AdaptedModel,
    adapt_model,
    check_adaptation,
)
from holdfast.search.choice.candidate import ChoiceRows, ModelCandidate, assess_candidate, short_fit
from holdfast.search.choice.order import (
    LEVEL,
    MARGIN,
    ModelOrder,
    cheapest_as_good,
    difference,
    rank_models,
)
from holdfast.search.context import run_environment

if TYPE_CHECKING:
    import pyarrow as pa

# Candidates that are fine-tuned for a short while.
SHORT_FITS = 2
# Why no score after fine-tuning is given.
NOT_PREDICTED = (
    "the score after fine-tuning is not predicted: no prediction interval was shown to be reliable "
    "on new data sets"
)
CALIBRATED = "on no data sets, so no score after fine-tuning is predicted"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model to take: ``chosen``, and ``because`` in a sentence.

    ``told_apart`` says whether the 95 % interval of its lead over the next excludes 0. The
    ``candidates`` are sorted best first, each with its measured ``evidence``. ``predicted``, in the
    same order, has no value: the score after fine-tuning is not predicted, and ``why`` gives the
    reason. ``metric`` names the score. ``rows`` are the assessed rows. ``adapted`` is the result of
    the adaptation, if one was requested.
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
    left_out: tuple[SkippedModel, ...]
    calibrated: str
    seconds: float
    adapted: AdaptedModel | None = None

    def __repr__(self) -> str:
        return brief_repr("Choice", self.chosen, self.because)

    def to_json(self) -> dict[str, Any]:
        both = zip(self.candidates, self.predicted, strict=True)
        made: dict[str, Any] = {
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
            "left_out": [asdict(one) for one in self.left_out],
            "adapted": self.adapted and self.adapted.to_json(),
            "calibrated": self.calibrated,
            "seconds": round(self.seconds, 2),
        }
        plain: dict[str, Any] = to_json(made)
        return plain


def choose_model(
    recipe: Recipe,
    models: Sequence[str] | None,
    in_memory: Mapping[str, pa.Table] = MappingProxyType({}),
    adaptation: AdaptationOptions | None = None,
) -> Choice:
    """Choose among ``models`` (names or folders; ``None``: the encoders of texts on this
    machine) for the rows of a recipe; ``in_memory`` are rows in memory, see ``prepare.sources``.
    The chosen one is then adapted, if requested.

    Raises what ``train`` raises for its rows and settings, ``RecipeError`` if no model is named,
    ``ModelError`` if none can be used.
    """
    with run_environment(recipe, in_memory) as recipe:
        start = time.perf_counter()
        listed, skipped = _models(models, recipe.model.candidates or ())
        # Each candidate is compared by name, so that what `auto` is chosen by does not apply.
        recipe = recipe.with_changes(model=WITHOUT_CHOICE)
        recipe = _with_inferred_task(recipe, listed)
        if adaptation is not None:
            check_adaptation(adaptation, recipe.task)
            recipe = recipe.with_changes(data={"unlabelled": adaptation.texts})
        divided = load_and_divide(recipe)
        texts = divided.unlabelled
        if adaptation is not None:
            check_adaptation(adaptation, divided.recipe.task)
            # None of the texts copies a row that is held out; a fit does not learn from these as
            # it would from ``data.unlabelled``.
            without_texts = divided.recipe.with_changes(data={"unlabelled": None})
            divided = replace(divided, recipe=without_texts, unlabelled=())
        rows = replace(ChoiceRows.of(divided), revisions=listed)
        candidates, left_out = _assess_all(rows, list(listed))
        left_out = [*skipped, *left_out]
        fine_tuned = _fine_tune_best(rows, candidates)
        choice = _make_choice(rows, fine_tuned, left_out, time.perf_counter() - start)
        if adaptation is None:
            return choice
        chosen_recipe = divided.recipe.with_changes(model=rows.model(choice.chosen))
        adapted = adapt_model(divided, chosen_recipe, texts, adaptation)
        return replace(choice, adapted=adapted, seconds=time.perf_counter() - start)


def _models(
    named: Sequence[str] | None, more: Sequence[str]
) -> tuple[dict[str, str | None], list[SkippedModel]]:
    """The candidates with their revisions, and what is on this machine but cannot be used: those
    ``named``, or the encoders on this machine, ``more`` among them."""
    if named is not None:
        names = [name.strip() for name in named if name.strip()]
        if names:
            return dict.fromkeys(names), []
        remedy = "Name at least one model."
        raise RecipeError("--models", "names no model", None, remedy)
    found, skipped = local_encoders(more)
    count = count_phrase(len(found), "encoder")
    because = (
        f"--models was not given: embedded, model.candidates, {FOLDERS} and the Hugging Face cache"
    )
    notify(Decision("candidates", f"{count} on this machine", because, prominent=True))
    return {one.name: one.revision for one in found}, list(skipped)


def _with_inferred_task(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe with the task inferred from the rows and the first model that can do it."""
    problems: list[InputError] = []
    for name in names:
        candidate_recipe = recipe.with_changes(model={"name": name})
        try:
            resolve_task(candidate_recipe)
        except InputError as error:
            problems.append(error)
        else:
            return candidate_recipe
    raise problems[0]


def _assess_all(
    rows: ChoiceRows, names: Sequence[str]
) -> tuple[list[ModelCandidate], list[SkippedModel]]:
    """Assess each candidate before fine-tuning."""
    candidates: list[ModelCandidate] = []
    left_out: list[SkippedModel] = []
    for name in names:
        try:
            candidate = assess_candidate(rows, name)
        except InputError as error:
            fault = error.rule if error.what == name else f"{error.what} {error.rule}"
            left_out.append(SkippedModel(name, fault))
            notify(Decision(f"candidate {name}", "left out", str(error), prominent=True))
            continue
        candidates.append(candidate)
        notify(candidate.decision())
    if not candidates:
        reasons = "; ".join(f"{one.name}: {one.because}" for one in left_out)
        rule = f"cannot be fine-tuned on these rows: {reasons}"
        remedy = "Name a model folder, a model of the Hugging Face hub (owner/name), or embedded."
        raise ModelError("the candidate models", rule, None, remedy)
    return candidates, left_out


def _fine_tune_best(rows: ChoiceRows, candidates: list[ModelCandidate]) -> list[ModelCandidate]:
    """The candidates, the best two of them with a short fine-tune."""
    best = sorted(
        range(len(candidates)), key=lambda i: -np.nanmean(candidates[i].row_evidence.rows)
    )[:SHORT_FITS]
    for place in best:
        name = candidates[place].name
        prepared, train, valid = rows.prepare(name)
        short = short_fit(rows, rows.extend(prepared, train, valid), train, valid)
        score = short.score if rows.metric[1] else -short.score
        because = f"{score:.3f} on {count_phrase(len(valid), 'validation row')}"
        took = f"{count_phrase(short.steps, 'update')}, {short.seconds:.1f} s"
        notify(Decision(f"short fine-tune of {name}", took, because, prominent=True))
        candidates[place] = replace(candidates[place], short=short)
    return candidates


def _make_choice(
    rows: ChoiceRows,
    candidates: Sequence[ModelCandidate],
    left_out: Sequence[SkippedModel],
    seconds: float,
) -> Choice:
    scores = np.stack([one.row_evidence.rows for one in candidates])
    short = {i: one.short.rows for i, one in enumerate(candidates) if one.short is not None}
    units = candidates[0].row_evidence.units
    valid_units = next((one.short.units for one in candidates if one.short is not None), None)
    ranking = rank_models(scores, units, short, valid_units)
    selected, because = _select(rows, candidates, ranking)
    no_prediction = {"value": None, "low": None, "high": None, "level": LEVEL, "why": NOT_PREDICTED}
    return Choice(
        chosen=candidates[selected].name,
        because=because,
        told_apart=selected == ranking.order[0] and ranking.significant,
        task=str(rows.recipe.task),
        metric=rows.metric[0],
        higher=rows.metric[1],
        rows=int(np.isfinite(scores[0]).sum()),
        valid=len(rows.divided.splits.valid),
        candidates=tuple(candidates[place] for place in ranking.order),
        predicted=(no_prediction,) * len(candidates),
        left_out=tuple(left_out),
        calibrated=CALIBRATED,
        seconds=seconds,
    )


def _select(
    rows: ChoiceRows, candidates: Sequence[ModelCandidate], ranking: ModelOrder
) -> tuple[int, str]:
    """The selected model, and why in a sentence."""
    scores, units = (
        np.stack([one.row_evidence.rows for one in candidates]),
        candidates[0].row_evidence.units,
    )
    best = ranking.order[0]
    score = _score_text(rows, candidates[best])
    lead = ranking.lead
    if lead is None:
        return best, f"{candidates[best].name}, the only usable candidate: {score}."
    second = ranking.order[1]
    judged_by = "After a short fine-tune of both" if ranking.by_short else "By this score"
    count = count_phrase(lead.n, "validation row" if ranking.by_short else "row")
    gap_text = f"{lead.value:.3f} (95 % CI {lead.low:.3f} to {lead.high:.3f}, {count})"
    if ranking.significant:
        return (
            best,
            f"{candidates[best].name}: {score}. {judged_by} it is better than the next, "
            f"{candidates[second].name}, by {gap_text}.",
        )
    margin = MARGIN * (abs(float(np.nanmean(scores[best]))) if rows.is_generative else 1.0)
    selected = cheapest_as_good(scores, units, [one.rows_per_s for one in candidates], margin)
    if selected == best:
        return best, (
            f"{candidates[best].name}: {score}. Its lead over the next, {candidates[second].name}, "
            f"is inconclusive: {gap_text}."
        )
    against = difference(scores[best], scores[selected], units)
    times = candidates[selected].rows_per_s / candidates[best].rows_per_s
    return selected, (
        f"{candidates[selected].name}: {_score_text(rows, candidates[selected])}. "
        f"{candidates[best].name} scores better by {against.value:.3f} (95 % CI {against.low:.3f} "
        f"to {against.high:.3f}, {count_phrase(against.n, 'row')}), which is inconclusive, and "
        f"{candidates[selected].name} is {times:.1f} times as fast."
    )


def _score_text(rows: ChoiceRows, candidate: ModelCandidate) -> str:
    """A candidate's measured score, with its interval."""
    estimate = candidate.evidence
    span = (
        "no interval"
        if estimate.low is None
        else f"95 % CI {estimate.low:.3f} to {estimate.high:.3f}"
    )
    return f"{rows.metric_text} {estimate.value:.3f} ({span}; {candidate.evidence_text})"
