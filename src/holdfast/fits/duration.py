"""How long a run goes on after its last step: the test rows, the base model, generated texts and
what is found out about the kept checkpoint.

Work is counted in rows passed forward and in batches of generated texts. What a row takes was
measured before any step; what a text takes is measured here, by a few tokens of one batch. Texts
are counted at their longest, since an untrained model seldom ends one, and a larger batch as so
many of ``TOGETHER`` texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from holdfast.contract.predictions import PREDICTED_TRAIN_ROWS, MOST_HEARD
from holdfast.contract.written_text import COMPARED
from holdfast.core.tasks import DECODER_TASKS, LABELLED_TEXT_TASKS, GENERATIVE_TASKS
from holdfast.data.texts.general import passages
from holdfast.models.compute.prefix import evaluation_mode
from holdfast.tasks.generation.base_model import FEW_SHOT_ROWS
from holdfast.tasks.generation.general_tasks import general_items
from holdfast.tasks.lm.generation import TOGETHER
from holdfast.tasks.lm.verbatim import MOST_ROWS, TOKENS_A_WORD

if TYPE_CHECKING:
    import torch

    from holdfast.contract.fit import TrainingPlan
    from holdfast.models.base import Network


# Tokens by which a batch of texts is timed, after one that lays out memory.
TIMED_TOKENS = 8


def seconds_after(
    ready: TrainingPlan, test_rows: int, network: Network, device: torch.device, a_row: float
) -> dict[str, float]:
    """Seconds of ``scoring``, ``texts`` and ``probes``, where a row takes ``a_row`` forward, and of
    the texts of one evaluation (``evaluation``; 0 where none are written there)."""
    recipe, tuned_and_base = ready.recipe, 2
    train, valid = len(ready.train), len(ready.valid)
    writes = recipe.task in GENERATIVE_TASKS
    # The saved model, the one that it began from, and once more for the baseline of classes.
    scoring: float = test_rows * (tuned_and_base if writes else 3)
    if recipe.model.quantize != "none":
        scoring += test_rows
    probes: float = min(PREDICTED_TRAIN_ROWS, train) + valid
    if writes:
        scoring += valid + ready.plan.probe_rows
        if recipe.probes.shots:
            scoring += min(FEW_SHOT_ROWS, test_rows) * (1 + recipe.probes.shots)
        heard = min(MOST_HEARD, train) + min(MOST_HEARD, test_rows)
        probes += tuned_and_base * heard
    if recipe.task in (*DECODER_TASKS, *LABELLED_TEXT_TASKS):
        probes += tuned_and_base * _rows_of(passages(), ready)
    if recipe.task in DECODER_TASKS:
        pairs = [pair for of in general_items().values() for pair in of]
        scoring += tuned_and_base * _rows_of([text for pair in pairs for text in pair], ready)
    parts = {"scoring": scoring * a_row, "texts": 0.0, "probes": probes * a_row, "evaluation": 0.0}
    generates = writes and recipe.generate.rows and recipe.model.adapter.kind != "prompt"
    if not generates and ready.watch is None:
        return parts
    prefill, token = _timed(ready, network, device)
    if generates:
        own, completed = _seconds_of_texts(ready, test_rows, prefill, token)
        parts["texts"], parts["probes"] = own, parts["probes"] + completed
    if ready.watch is not None:
        batches = sum(_batches(len(one.references)) for one in ready.watch.samples.values())
        parts["evaluation"] = batches * (prefill + ready.watch.new_tokens * token)
    return parts


def _seconds_of_texts(
    ready: TrainingPlan, test_rows: int, prefill: float, token: float
) -> tuple[float, float]:
    """Of the generated rows, and of the completions that show what is known by heart."""
    recipe = ready.recipe
    samples = ready.definition.choose_samples(ready.loaded, ready.splits, recipe, ready.plan.probe_rows)
    assert samples is not None
    train, valid = (
        _batches(min(recipe.generate.rows, len(rows))) for rows in (ready.train, ready.valid)
    )
    test = _batches(min(recipe.generate.rows, test_rows))
    # Both models write the training and test rows, the base model also behind examples; the
    # validation rows are written at the end where no look wrote them.
    batches = 2 * (train + test) + (test if recipe.probes.shots else 0)
    batches += 0 if ready.watch else valid
    own = batches * (prefill + samples.new_tokens * token)
    if recipe.task not in DECODER_TASKS:
        return own, 0.0
    each = prefill + COMPARED * TOKENS_A_WORD * token
    # Training rows by both models, and validation rows by the tuned one.
    asked = 2 * _batches(min(MOST_ROWS, len(ready.train)))
    return own, (asked + _batches(min(MOST_ROWS, len(ready.valid)))) * each


def _timed(ready: TrainingPlan, network: Network, device: torch.device) -> tuple[float, float]:
    """Seconds of a batch's first token, and of each one that follows."""

    def seconds(tokens: int) -> float:
        asked = ready.recipe.with_changes(generate={"rows": TOGETHER, "max_new_tokens": tokens})
        watch = ready.definition.choose_samples(ready.loaded, ready.splits, asked, ready.plan.probe_rows)
        assert watch is not None
        start = time.perf_counter()
        watch.samples["valid"].write(network, device)
        return time.perf_counter() - start

    with evaluation_mode(network):
        # The first pass also lays out memory.
        seconds(1)
        first, more = seconds(1), seconds(1 + TIMED_TOKENS)
    return first, max(0.0, more - first) / TIMED_TOKENS


def _batches(rows: int) -> int:
    return math.ceil(rows / TOGETHER)


def _rows_of(texts: Sequence[str], ready: TrainingPlan) -> float:
    """These texts, as so many rows of the run's mean length."""
    tokens = sum(len(ids) for ids in ready.loaded.tokenizer(list(texts))["input_ids"])
    return tokens / max(1.0, float(np.mean(ready.train.lengths)))
