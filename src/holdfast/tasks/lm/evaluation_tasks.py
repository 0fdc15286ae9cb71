"""Answers of a causal language model to evaluation tasks, scored as lm-evaluation-harness does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.decisions import tick
from holdfast.core.errors import DataError
from holdfast.core.machine import OverrunError
from holdfast.core.records import Floats
from holdfast.data.texts.evaluation_tasks import EvaluationTask
from holdfast.models.generators.base import targets_at_once
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import position_limit
from holdfast.tasks.generation.losses import token_losses
from holdfast.tasks.generation.token_scores import TOKENS, drawing
from holdfast.training.plan import batches_by_length

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.generators.causal import CausalNetwork

Bools = npt.NDArray[np.bool_]
Pair = tuple[list[int], list[int]]
TOGETHER = 8


def right_answers(
    tasks: Sequence[EvaluationTask],
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> dict[str, Bools]:
    """Of each task, by its name, which questions the model answers right [questions]. Raises
    ``DataError`` for a task that cannot be asked of this model."""
    found = {}
    for task in tasks:
        if task.metric != "exact_match":
            found[task.name] = np.asarray(_chosen(task, network, tokenizer, device))
            continue
        if task.new_tokens >= (most := position_limit(network.config)):
            rule = f"generates up to {task.new_tokens} tokens, and the model has {most} positions"
            raise DataError(task.name, rule, None, "Set a smaller max_gen_toks.")
        try:
            found[task.name] = np.asarray(_matching(task, network, tokenizer, device))
        except OverrunError as error:
            rule = "has a regular expression that takes too long on a generated text"
            raise DataError(task.name, rule, None, "Use a simpler one.") from error
    return found


def _chosen(
    task: EvaluationTask,
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> list[bool]:
    """Whether the choice with the highest log-likelihood is a right one."""
    pairs = [
        encoded_pair(tokenizer, one.context, f"{task.delimiter}{choice}")
        for one in task.questions
        for choice in one.choices
    ]
    table, right, start = log_likelihoods(network, tokenizer, pairs, device), [], 0
    for one in task.questions:
        scores = table[start : start + len(one.choices)]
        if task.metric == "acc_norm":
            scores = scores / np.array([len(choice) for choice in one.choices], dtype=np.float64)
        right.append(int(scores.argmax()) in one.right)
        start += len(one.choices)
    return right


def encoded_pair(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Pair:
    """Tokens of the context and of the continuation. White space at the end of the context belongs
    to the continuation; in place of an empty context stands the token that begins a text."""
    stripped = context.rstrip()
    if not stripped:
        ids = _ids(tokenizer, context + continuation, add_special_tokens=False)
        first = _first(tokenizer)
        return (ids[:1], ids[1:]) if not first or ids[:1] == first else (first, ids)
    whole = _ids(tokenizer, context + continuation)
    before = _ids(tokenizer, stripped)
    return before, whole[len(before) :]


def _first(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that begins a text, or else ends one; none where the tokenizer has neither."""
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return [one for one in marks if one is not None][:1]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **settings: bool) -> list[int]:
    bos = tokenizer.bos_token
    if bos and text.startswith(bos):
        settings["add_special_tokens"] = False
    return list(tokenizer(text, verbose=False, **settings)["input_ids"])


def log_likelihoods(
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    device: torch.device,
) -> Floats:
    """log P of each continuation after its context [pairs], in nats. Of a pair that is longer than
    the model's positions, the beginning is cut."""
    import torch

    # The last token is never an input, so that choices which differ in it alone share a pass.
    inputs: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    longest = position_limit(network.config)
    for place, (before, after) in enumerate(pairs):
        given = (*before, *after)[-longest - 1 : -1]
        inputs.setdefault(given, []).append((place, after[-len(given) :]))
    lines, found, pad = list(inputs), np.zeros(len(pairs)), tokenizer.pad_token_id or 0
    lengths = np.array([len(line) for line in lines], dtype=np.int64)
    together = targets_at_once(int(network.config.vocab_size))
    network.to(device).eval()
    done = 0
    for batch in batches_by_length(lengths, np.arange(len(lines)), TOKENS):
        width = int(lengths[batch].max())
        ids = [[*lines[n], *[pad] * (width - len(lines[n]))] for n in batch]
        targets = [
            (place, row * width + len(lines[n]) - len(after) + i, token)
            for row, n in enumerate(batch)
            for place, after in inputs[lines[n]]
            for i, token in enumerate(after)
        ]
        if targets:
            places, *columns = zip(*targets, strict=True)
            where, expected = (torch.tensor(column, device=device) for column in columns)
            input_ids = torch.tensor(ids, device=device)
            with torch.inference_mode():
                if network.chunks:
                    losses, _ = network.losses_at(where, expected, together, input_ids=input_ids)
                else:
                    losses = token_losses(network.logits_at(where, input_ids=input_ids), expected)
            np.subtract.at(found, np.array(places), losses.double().cpu().numpy())
        done += len(batch)
        tick(done, len(lines))
    return found


def _matching(
    task: EvaluationTask,
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> list[bool]:
    """Whether the generated text matches a reference."""
    network.to(device).eval()
    room = position_limit(network.config) - task.new_tokens
    prompts = [
        (_ids(tokenizer, one.context) or _first(tokenizer))[-room:] for one in task.questions
    ]
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    for start in range(0, len(order), TOGETHER):
        batch = order[start : start + TOGETHER]
        written = _continued(task, network, tokenizer, [prompts[place] for place in batch])
        for place, text in zip(batch, written, strict=True):
            texts[place] = text
        tick(start + len(batch), len(order))
    return [task.matches(text, one) for text, one in zip(texts, task.questions, strict=True)]


def _continued(
    task: EvaluationTask,
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
) -> list[str]:
    """The most probable texts after the prompts, up to the first mark that ends one."""
    import torch

    plain: Any = network.plain
    device: Any = network.word_embeddings.weight.device
    longest, pad = max(map(len, prompts)), tokenizer.pad_token_id or 0
    lines = [[pad] * (longest - len(one)) + list(one) for one in prompts]
    mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
    marks = [one for one in (*task.until, tokenizer.eos_token) if one]
    with torch.inference_mode(), quiet_transformers():
        made = plain.generate(
            input_ids=torch.tensor(lines, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=task.new_tokens,
            pad_token_id=pad,
            stop_strings=marks,
            tokenizer=tokenizer,
            **drawing(0.0),
        )
    texts = tokenizer.batch_decode(
        made[:, longest:], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    for mark in marks:
        texts = [text.partition(mark)[0] for text in texts]
    return texts
