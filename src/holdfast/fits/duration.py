"""Estimate the time of a run after its last step: test scoring, the base model, generated texts,
and analyses of the best checkpoint.

Work is counted in rows passed forward and in batches of generated texts. The time of a row was
measured before any step; the time of a text is measured here, on a few tokens of one batch. The
base model's texts count with their maximum length, since it rarely ends one where the answers do;
the fine-tuned model's with the lengths of training answers. A larger batch counts as several
batches of ``TOGETHER`` texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.predictions import MOST_HEARD, PREDICTED_TRAIN_ROWS
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS, LABELLED_TEXT_TASKS
from holdfast.data.texts.evaluation_tasks import read_task
from holdfast.data.texts.general import passages
from holdfast.models.compute.prefix import NOT_BLOCKS, evaluation_mode
from holdfast.tasks.generation.base_model import FEW_SHOT_ROWS
from holdfast.tasks.generation.general_tasks import general_tasks
from holdfast.tasks.lm.generation import TOGETHER
from holdfast.tasks.lm.verbatim import MOST_ROWS
from holdfast.training.plan import FORWARD_SHARE

if TYPE_CHECKING:
    import torch

    from holdfast.contract.fit import TrainingPlan
    from holdfast.contract.written_text import WrittenSamples
    from holdfast.models.base import Network


# What passes no rows: saving, reading the saved model, analyses, card and report. Measured in runs
# of 100 to 2,700 texts with MiniLM.
OTHER_S = 4.0
# A pass of the saved model is in float32, and takes about twice as long as one in half precision.
FLOAT32_TIMES = 2
# Tokens used to time a batch of texts, after one that allocates memory.
TIMED_TOKENS = 8
# A first pass also allocates memory, which is a small part of one that takes longer.
ALLOCATION_COUNTS_S = 1.0
# Training answers whose lengths are counted.
MOST_ANSWERS = 500


def seconds_after_training(
    training_plan: TrainingPlan,
    test_rows: int,
    network: Network,
    device: torch.device,
    row_seconds: float,
) -> dict[str, float]:
    """Seconds of ``scoring``, ``texts`` and ``probes``, where a row takes ``row_seconds`` forward,
    and of the texts of one evaluation (``evaluation``; 0 where it generates none)."""
    recipe, tuned_and_base = training_plan.recipe, 2
    row_seconds *= _depth_times(training_plan)
    tests_memory = not recipe.probes.skips("memorization")
    tests_forgetting = not recipe.probes.skips("forgetting")
    train, valid = len(training_plan.train), len(training_plan.valid)
    is_generative = recipe.task in GENERATIVE_TASKS
    # The saved model, the base model, and a third pass for the baseline of classes.
    half = recipe.train.precision != "float32"
    of_classes = 2 + (FLOAT32_TIMES if half else 1)
    scoring: float = test_rows * (tuned_and_base if is_generative else of_classes)
    if recipe.model.quantize != "none":
        scoring += test_rows
    probes: float = min(PREDICTED_TRAIN_ROWS, train) + valid
    if is_generative:
        if recipe.probes.shots:
            few_shot_rows = min(FEW_SHOT_ROWS, test_rows)
            # Examples that pass through the model once, or before each row.
            prefix_is_cached = getattr(network, "supports_key_value_cache", False)
            passes = 1 if prefix_is_cached else few_shot_rows
            scoring += few_shot_rows + recipe.probes.shots * passes
        if tests_memory:
            memorization_rows = min(MOST_HEARD, train) + min(MOST_HEARD, test_rows)
            probes += tuned_and_base * memorization_rows
    if recipe.distill.teacher and recipe.distill.alone:
        # The student that is trained without its teacher, for about as many updates.
        updates = sum(phase.rows_passed for phase in training_plan.plan.phases)
        probes += updates / FORWARD_SHARE
    if recipe.task in (*DECODER_TASKS, *LABELLED_TEXT_TASKS) and tests_forgetting:
        probes += tuned_and_base * _as_rows(passages(), training_plan)
    if recipe.task in DECODER_TASKS:
        tasks = [read_task(Path(name)) for name in recipe.probes.tasks]
        if tests_forgetting:
            tasks += general_tasks()
        choices = [
            one.context + choice for t in tasks for one in t.questions for choice in one.choices
        ]
        scoring += tuned_and_base * _as_rows(choices, training_plan)
        if tests_memory:
            # Training rows with both models, and validation rows with the fine-tuned one.
            probes += tuned_and_base * min(MOST_ROWS, train) + min(MOST_ROWS, valid)
    parts = {
        "scoring": scoring * row_seconds + OTHER_S,
        "texts": 0.0,
        "probes": probes * row_seconds,
        "evaluation": 0.0,
    }
    generates = is_generative and recipe.generate.rows and recipe.model.adapter.method != "prompt"
    if not generates and training_plan.watch is None:
        return parts
    prefill, token = _time_tokens(training_plan, network, device)
    if generates:
        parts["texts"] = _generation_seconds(training_plan, test_rows, prefill, token)
    if training_plan.watch is not None:
        batches = sum(_batches(len(one.references)) for one in training_plan.watch.samples.values())
        parts["evaluation"] = batches * (prefill + training_plan.watch.new_tokens * token)
    return parts


def _depth_times(training_plan: TrainingPlan) -> float:
    """How many times longer a row takes through all blocks than from the cached outputs of the
    frozen ones, with which it was timed."""
    if training_plan.prefix is None:
        return 1.0
    network = training_plan.loaded.network
    blocks = sum(layer.name not in NOT_BLOCKS for layer in network.layers())
    return blocks / max(1, blocks - len(training_plan.prefix.blocks))


def _generation_seconds(
    training_plan: TrainingPlan, test_rows: int, prefill: float, token: float
) -> float:
    """Seconds of the generated rows."""
    recipe = training_plan.recipe
    samples = training_plan.definition.choose_samples(
        training_plan.loaded, training_plan.splits, recipe, training_plan.plan.probe_rows
    )
    assert samples is not None
    test_sample = min(recipe.generate.rows, test_rows)
    train, test, valid = (
        _batches(rows)
        for rows in (
            min(test_sample, len(training_plan.train)),
            test_sample,
            min(recipe.generate.rows, len(training_plan.valid)),
        )
    )
    # Both models generate for test rows, the base model also with few-shot examples. Validation
    # texts are generated at the end if no evaluation generated them.
    tuned = train + test + (0 if training_plan.watch else valid)
    base = test + (test if recipe.probes.shots else 0)
    tokens = tuned * _longest_of_batch(training_plan, samples) + base * samples.new_tokens
    return (tuned + base) * prefill + tokens * token


def _longest_of_batch(training_plan: TrainingPlan, samples: WrittenSamples) -> float:
    """The expected tokens of the longest text of a batch, where texts are as long as the training
    answers: the mean of the largest of ``TOGETHER`` draws from them, Σ x₍ᵢ₎ ((i ÷ n)ᵏ − ((i − 1) ÷
    n)ᵏ)."""
    answers = list(samples.answers[:MOST_ANSWERS])
    if not answers:
        return samples.new_tokens
    encoded = training_plan.loaded.tokenizer(answers, verbose=False)["input_ids"]
    # One more for its end.
    sizes = np.sort([min(len(ids) + 1, samples.new_tokens) for ids in encoded])
    shares = np.linspace(0, 1, len(sizes) + 1) ** TOGETHER
    return float(sizes @ np.diff(shares))


def _time_tokens(
    training_plan: TrainingPlan, network: Network, device: torch.device
) -> tuple[float, float]:
    """Seconds of a batch's first token, and of each following token."""

    def seconds(tokens: int) -> float:
        recipe = training_plan.recipe.with_changes(
            generate={"rows": TOGETHER, "max_new_tokens": tokens}
        )
        watch = training_plan.definition.choose_samples(
            training_plan.loaded, training_plan.splits, recipe, training_plan.plan.probe_rows
        )
        assert watch is not None
        start = time.perf_counter()
        watch.samples["valid"].write(network, device)
        return time.perf_counter() - start

    with evaluation_mode(network):
        first = seconds(1)
        if first < ALLOCATION_COUNTS_S:
            first = seconds(1)
        more = seconds(1 + TIMED_TOKENS)
    return first, max(0.0, more - first) / TIMED_TOKENS


def _batches(rows: int) -> int:
    return math.ceil(rows / TOGETHER)


def _as_rows(texts: Sequence[str], training_plan: TrainingPlan) -> float:
    """The tokens of these texts, as a number of rows of the run's mean length."""
    if not texts:
        return 0.0
    # Longer texts are meant, so Transformers' warning about them is not.
    encoded = training_plan.loaded.tokenizer(list(texts), verbose=False)
    tokens = sum(map(len, encoded["input_ids"]))
    return tokens / max(1.0, float(np.mean(training_plan.train.lengths)))
