"""Comparison of a generative model with its base model: ``worth`` and ``outputs`` of a result.

Both are computed from the losses and texts that the score needs anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from holdfast.contract.result import baseline_block
from holdfast.core.decisions import stage
from holdfast.core.errors import HoldfastError, RecipeError
from holdfast.core.machine import MB
from holdfast.core.records import to_json
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS
from holdfast.data.texts.evaluation_tasks import read_task
from holdfast.metrics import TEXT_METRICS, TextMetric
from holdfast.models.adapters.quantize import is_quantized
from holdfast.models.layers import count_parameters
from holdfast.plan.memory import free_mb
from holdfast.recipe import Recipe
from holdfast.tasks.generation.judge import Judge, metric_judge
from holdfast.tasks.generation.mark_shares import Flags, Marked, check_classifier, outputs_block
from holdfast.tasks.generation.marks import marks
from holdfast.tasks.generation.samples import execution_of, extra_metrics, text_metric_of
from holdfast.tasks.generation.text_scores import (
    Generated,
    frequent_answer,
    generations_block,
    score_generated,
)
from holdfast.tasks.generation.token_scores import TokenOutputs, compare_tokens
from holdfast.tasks.generation.worth import PLAIN, QUANTIZED, Prompting, worth_block

if TYPE_CHECKING:
    from holdfast.contract.fit import ScoringRequest
    from holdfast.models.base import Network

Bools = npt.NDArray[np.bool_]
BASELINE = "untuned model"
# Rows that are measured with few-shot examples: each is several rows long.
FEW_SHOT_ROWS = 200


def check_probes(recipe: Recipe) -> None:
    """Refuse a judge or a text classifier that is unavailable, or that has no texts to read, before
    any training.

    Raises ``ModelError`` or ``RecipeError``.
    """
    from holdfast.models.generators.causal import check_causal

    judge = recipe.probes.judge
    for key, given in (("judge", judge), ("classifier", recipe.probes.classifier)):
        if given is not None and recipe.task not in GENERATIVE_TASKS:
            raise RecipeError(
                f"probes.{key}",
                f"reads generated texts, and {recipe.task} generates none",
                given,
                "Leave it out.",
            )
    if recipe.probes.tasks and recipe.task not in DECODER_TASKS:
        raise RecipeError(
            "probes.tasks",
            f"applies only to causal-lm, not to {recipe.task}",
            ", ".join(recipe.probes.tasks),
            "Leave it out.",
        )
    if recipe.probes.tasks and recipe.data.test is None and recipe.data.split.test == 0:
        rule = "needs test rows: the tasks run when these are scored"
        remedy = "Remove it, or set data.split.test above 0."
        raise RecipeError("probes.tasks", rule, ", ".join(recipe.probes.tasks), remedy)
    names = Counter(read_task(Path(name)).name for name in recipe.probes.tasks)
    for name, count in names.items():
        if count > 1:
            remedy = "Give each file another name under task."
            raise RecipeError(
                "probes.tasks", f"has {count} tasks with the name {name!r}", None, remedy
            )
    if judge is not None and judge not in TEXT_METRICS:
        check_causal(judge)
    if recipe.probes.classifier is not None:
        check_classifier(recipe.probes.classifier)


def metric_of(recipe: Recipe) -> TextMetric:
    """The metric that compares texts: ``train.metric``, execution accuracy, or ROUGE-L."""
    metric = text_metric_of(recipe) or execution_of(recipe)
    # A corpus metric may be undefined for a single row.
    return metric if metric is not None and metric.of_rows is not None else TEXT_METRICS["rouge_l"]


def judge_of(recipe: Recipe, device: torch.device) -> Judge:
    """The judge that the recipe names, else the metric of the texts."""
    from holdfast.tasks.generation.judge import MetricJudge, load_judge

    named = recipe.probes.judge
    if named is None:
        return MetricJudge(metric_of(recipe))
    return metric_judge(named) or load_judge(named, device)


def start_model(
    request: ScoringRequest, tuned: TokenOutputs, measure: Callable[[Network], TokenOutputs]
) -> tuple[Network, dict[str, Prompting], dict[str, str]]:
    """Load the base model on the run's device, with a second prompting to compare and what was left
    out.

    For a run that quantised the base model this is the unquantised model, which a user would have
    without the run; the quantised one is the second prompting. Where memory cannot hold the
    unquantised model, the quantised one replaces it, and what was left out says so.
    """
    fitted, training_plan = request.fitted, request.training_plan
    untuned = fitted.base_network()
    if not is_quantized(untuned):
        return untuned, {}, {}
    of_dtype = torch.empty((), dtype=getattr(torch, training_plan.recipe.model.dtype or "float32"))
    need = count_parameters(untuned)[0] * of_dtype.element_size() / MB
    if need > (free := free_mb()):
        why = (
            f"the unquantised base model needs about {need:,.0f} MB of memory, and "
            f"{free:,.0f} MB are free; the quantised one is used instead"
        )
        return untuned, {}, {"unquantised base model": why}
    references = {QUANTIZED: Prompting(measure(untuned), tuned, judged=False)}
    untuned.cpu()
    unquantized = {"quantize": "none", "quant_type": None, "double_quant": None}
    with stage("loading the unquantised base model"):
        loaded = training_plan.definition.load(
            training_plan.recipe.with_changes(model=unquantized),
            training_plan.splits.train_rows.table,
        )
    return loaded.network.to(fitted.job.accelerator.device).eval(), references, {}


@dataclass(frozen=True, slots=True)
class WrittenTests:
    """Results of scoring a generative model.

    The losses of the test rows by the fine-tuned model (``outputs``) and by the base model
    (``before``), the texts of both splits' samples (``made``), and for each split which texts the
    fine-tuned and the base model ended themselves (``ended``). ``beside`` are the base model's
    other promptings, ``general`` and ``tasks`` its general tasks and the user's, ``left_out`` what
    was left out and why.
    """

    outputs: TokenOutputs
    before: TokenOutputs
    made: Mapping[str, Generated]
    ended: Mapping[str, tuple[Bools | None, Bools | None]]
    beside: Mapping[str, Prompting]
    general: Mapping[str, object] | None = None
    tasks: Mapping[str, object] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def writer_blocks(
    request: ScoringRequest,
    written: WrittenTests,
    start_scores: dict[str, Any],
    answers: Sequence[str],
    settings: Mapping[str, object],
    seed: int = 0,
) -> dict[str, Any]:
    """``baseline``, ``generations``, ``worth`` and ``outputs`` of ``result.json``.

    The baseline is the base model, with its ``start_scores``. ``answers`` are those of the training
    rows, and ``settings`` say how texts were generated.
    """
    recipe, device = request.training_plan.recipe, request.fitted.job.accelerator.device
    generated, extra = written.made, extra_metrics(recipe)
    plain = Prompting(written.before, written.outputs, generated["test"].untuned)
    worth = _worth(recipe, {PLAIN: plain, **written.beside}, written, device)
    against = compare_tokens(written.outputs, written.before, seed=seed)
    baseline = baseline_block({BASELINE: start_scores}, BASELINE, against)
    # The baseline comparison has the p-value that the verdict of ``worth`` uses.
    baseline["comparison"]["p_adjusted"] = worth["start"].get(PLAIN, {}).get("p_adjusted")
    scores = {
        "test": score_generated(generated["test"], seed=seed, extra=extra),
        "test_untuned": score_generated(generated["test"], seed=seed, untuned=True, extra=extra),
        "train": score_generated(generated["train"], seed=seed, extra=extra),
    }
    if (guess := frequent_answer(answers)) is not None and len(generated["test"]):
        constant = replace(generated["test"], texts=[guess] * len(generated["test"]))
        scores["test_constant"] = score_generated(constant, seed=seed)
    texts = generations_block(generated["train"], generated["test"], answers, settings)
    return {
        "baseline": baseline,
        "generations": {**texts, "scores": to_json(scores)},
        "worth": worth,
        "outputs": _outputs(recipe, generated, written.ended, device),
    }


def _worth(
    recipe: Recipe, promptings: Mapping[str, Prompting], written: WrittenTests, device: torch.device
) -> dict[str, Any]:
    """``worth``; where the judge fails, the block says so, since the run is already trained."""
    left_out, generated = dict(written.left_out), written.made["test"]
    judge: Judge | None = None
    try:
        judge = judge_of(recipe, device) if len(generated) else None
    except HoldfastError as error:
        left_out["win_rate"] = str(error)
    block = worth_block(
        promptings,
        generated,
        judge,
        metric_of(recipe),
        written.general,
        seed=recipe.seed,
        why=left_out,
    )
    return {**block, "tasks": written.tasks}


def _outputs(
    recipe: Recipe,
    generated: Mapping[str, Generated],
    ended: Mapping[str, tuple[Bools | None, Bools | None]],
    device: torch.device,
) -> dict[str, Any]:
    """``outputs`` of the texts of both splits."""
    why: dict[str, str] = {}
    flags: Flags | None = None
    try:
        named = recipe.probes.classifier
        flags = Flags(named, device) if named else None
    except HoldfastError as error:
        why["flagged"] = str(error)
    if recipe.probes.classifier is None:
        why["flagged"] = "no classifier is named (probes.classifier)"
    if any(pair[0] is None for pair in ended.values()):
        why["cut"] = "continued texts have no end of their own"
    return outputs_block([_marked(s, generated[s], ended[s], flags) for s in generated], why)


def _marked(
    split: str, generated: Generated, ended: tuple[Bools | None, Bools | None], flags: Flags | None
) -> Marked:
    def of(texts: Sequence[str], complete: Bools | None) -> dict[str, Bools]:
        return marks(
            generated.sources,
            generated.references,
            texts,
            complete,
            flags(texts) if flags else None,
        )

    start = None if generated.untuned is None else of(generated.untuned, ended[1])
    return Marked(
        split,
        generated.rows,
        of(generated.texts, ended[0]),
        start,
        of(generated.references, None),
        generated.groups,
    )
