"""Scores of a causal language model's test rows: losses, comparison with the base model, and
generated texts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import (
    ScoringRequest,
    ScoringResult,
    SplitRows,
    TrainingPlan,
    plain_facts,
)
from holdfast.contract.predictions import Groups, groups_of
from holdfast.contract.result import brief, scores_block
from holdfast.contract.run_folder import MODEL
from holdfast.contract.written_text import Sample
from holdfast.core.decisions import stage
from holdfast.core.errors import HoldfastError
from holdfast.core.records import Decision, Floats, Ints, Scores
from holdfast.data.chats.chat import read_row_turns
from holdfast.data.chats.turns import prompt_turns
from holdfast.data.table import Table
from holdfast.data.texts.evaluation_tasks import EvaluationTask, read_task
from holdfast.models.generators.causal import CausalNetwork, has_prompt, load_saved_causal
from holdfast.recipe import Recipe
from holdfast.tasks.generation.base import other_rows
from holdfast.tasks.generation.base_model import (
    FEW_SHOT_ROWS,
    WrittenTests,
    start_model,
    writer_blocks,
)
from holdfast.tasks.generation.general_tasks import compare_general, general_tasks, tasks_block
from holdfast.tasks.generation.samples import TABLES
from holdfast.tasks.generation.shots import (
    encode_with_shots,
    fitted_shots,
    shots_of,
    table_with_shots,
)
from holdfast.tasks.generation.text_scores import Generated, sample_positions
from holdfast.tasks.generation.token_scores import (
    GeneratedTexts,
    TokenOutputs,
    measure_saved,
    score_tokens,
)
from holdfast.tasks.generation.worth import EXAMPLES, Prompting
from holdfast.tasks.lines import take_rows
from holdfast.tasks.lm.chat_tokens import prompt_tokens
from holdfast.tasks.lm.evaluation_tasks import right_answers
from holdfast.tasks.lm.generation import (
    Prompts,
    answer_length,
    can_reuse_prefix,
    prompts_of,
    token_outputs,
    write_answers,
)
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens, encode
from holdfast.training.observe import Observer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import Network
    from holdfast.models.generators.average import AveragedNetwork


Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Sampled rows of one split: their positions in the table, and the prompts."""

    table: Table
    positions: Any
    prompts: Prompts

    @property
    def tables(self) -> list[str] | None:
        """The tables that generated code runs on, where it is run."""
        has_tables = TABLES in self.table.rows.column_names
        return self.table.column(TABLES) if has_tables else None


def score_rows(request: ScoringRequest) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers, and the base model on the same
    rows.
    """
    start = time.perf_counter()
    training_plan, table = request.training_plan, request.table
    device = request.fitted.job.accelerator.device
    saved, tokenizer = load_saved_causal(request.run / MODEL)
    length, task = training_plan.loaded.max_length, training_plan.task
    assert length is not None
    assert isinstance(task, CausalLM)
    examples = encode(table, tokenizer, length)
    groups = groups_of(table)
    losses, kept = measure_saved(saved, task, examples, device)
    outputs = token_outputs(losses, kept, examples, groups)
    test = score_tokens(outputs)
    score_s = time.perf_counter() - start
    test_sample = _sample(training_plan, tokenizer, table, training_plan.recipe.generate.rows)
    train_table = training_plan.splits.train_rows.table
    samples = {
        "train": _sample(training_plan, tokenizer, train_table, len(test_sample.positions)),
        "test": test_sample,
    }
    with stage("generating texts"):
        written = {
            split: _answers(training_plan, saved, tokenizer, s) for split, s in samples.items()
        }
    general = [] if training_plan.recipe.probes.skips("forgetting") else general_tasks()
    with stage("evaluation tasks"):
        general_after = right_answers(general, saved, tokenizer, device)
        after = _answered(training_plan.recipe.probes.tasks, saved, tokenizer, device)
    del saved
    others = other_rows(request)
    untuned, references, left_out = start_model(
        request, outputs, lambda network: _measured(request, network, examples, groups)
    )
    assert isinstance(untuned, CausalNetwork)
    before = _measured(request, untuned, examples, groups)
    texts = {
        "train": None,
        "test": _base_answers(training_plan, untuned, tokenizer, samples["test"]),
    }
    generated = {
        split: _generated(sample, written[split], texts[split]) for split, sample in samples.items()
    }
    with stage("few-shot prompting of the base model"):
        few = _few_shot(request, untuned, tokenizer, outputs, samples["test"])
    ended = {split: _ends(samples[split], written[split], texts[split]) for split in samples}
    with stage("evaluation tasks by the base model"):
        general_before = right_answers(general, untuned, tokenizer, device)
        own = after.compared(untuned, tokenizer, device)
    untuned.cpu()
    promptings = {EXAMPLES: few, **references}
    left_out |= after.left_out
    compared = compare_general(general_before, general_after) if general else None
    tests = WrittenTests(outputs, before, generated, ended, promptings, compared, own, left_out)
    blocks = _blocks(request, tests, brief(score_tokens(before)), test, others)
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    predictions = _predictions(
        table, examples, losses, samples["test"], list(written["test"].texts)
    )
    return ScoringResult(blocks, _incomplete(examples), seconds, predictions=predictions)


@dataclass(frozen=True, slots=True)
class _AnsweredTasks:
    """The user's evaluation tasks, which questions the fine-tuned model answers right, and why
    others were left out: the run is trained already."""

    tasks: Sequence[EvaluationTask]
    right: Mapping[str, Bools]
    left_out: dict[str, str]

    def compared(
        self, untuned: CausalNetwork, tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> dict[str, Any] | None:
        """``tasks`` of ``worth``; ``None`` without one."""
        if not self.tasks:
            return None
        before = right_answers(self.tasks, untuned, tokenizer, device)
        return tasks_block(self.tasks, before, self.right)


def _answered(
    files: Sequence[str],
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> _AnsweredTasks:
    tasks: list[EvaluationTask] = []
    right: dict[str, Bools] = {}
    left_out: dict[str, str] = {}
    for file in files:
        try:
            task = read_task(Path(file))
            right |= right_answers([task], network, tokenizer, device)
        except HoldfastError as error:
            left_out[file] = str(error)
        else:
            tasks.append(task)
    return _AnsweredTasks(tasks, right, left_out)


def _blocks(
    request: ScoringRequest,
    tests: WrittenTests,
    untuned: dict[str, Any],
    test: Scores,
    others: Mapping[str, object],
) -> dict[str, Any]:
    """Blocks of ``result.json``: the test rows by the model and by the ``untuned`` one, and the
    ``others``.
    """
    recipe, rows = request.training_plan.recipe, request.training_plan.splits.train_rows.table
    settings = recipe.generate.model_dump()
    return {
        "classes": None,
        "test": scores_block(test, request.opened_at),
        **others,
        **writer_blocks(request, tests, untuned, answers_of(rows), settings),
        "model_facts": plain_facts(request.fitted, request.saved),
        "careless": None,
    }


def _observer(request: ScoringRequest, share: float = 1.0) -> Observer:
    """``share`` of the tokens in memory are those of a batch."""
    job = request.fitted.job
    return Observer(job.accelerator, job.task, round(4096 * share), alone=True)


def _measured(
    finish: ScoringRequest, network: Network, examples: EncodedTokens, groups: Groups | None
) -> TokenOutputs:
    task, beginning, share = finish.fitted.job.task, examples.common_prefix, 1.0
    with contextlib.ExitStack() as stack:
        # Packed examples have positions of their own.
        if not getattr(task, "pack", False) and can_reuse_prefix(network, len(beginning)):
            stack.enter_context(network.with_prefix(beginning.tolist()))
            share = 1 - len(beginning) / int(examples.lengths.max())
            examples = examples.without_prefix(len(beginning))
        losses, kept = _observer(finish, share).measure(network, examples, np.arange(len(examples)))
    kept = kept.astype(np.float64) if len(losses) else np.zeros((0, 2))
    return token_outputs(losses, kept, examples, groups)


def _sample(
    training_plan: TrainingPlan, tokenizer: PreTrainedTokenizerBase, table: Table, most: int
) -> _Sample:
    positions = sample_positions(len(table), most, training_plan.recipe.seed)
    return sample_of(table, positions, tokenizer)


def sample_of(table: Table, positions: Ints, tokenizer: PreTrainedTokenizerBase) -> _Sample:
    """The rows at these positions of the table, as prompts."""
    sampled = table.take(positions)
    return _Sample(sampled, positions, prompts_of(sampled, tokenizer))


def watched(one: _Sample, tokenizer: PreTrainedTokenizerBase, new: int, recipe: Recipe) -> Sample:
    """The same for evaluations during training, of at most ``new`` tokens each."""

    def write(network: CausalNetwork | AveragedNetwork, device: torch.device) -> list[str]:
        generated = write_answers(
            network,
            tokenizer,
            one.prompts.ids,
            new_tokens=new,
            chat=one.prompts.chat,
            beams=recipe.generate.beams,
        )
        return list(generated.texts)

    return Sample(one.prompts.sources, one.prompts.references, one.tables, write)


def answers_of(table: Table) -> list[str]:
    """Every answer of the chats of a table."""
    turns = (turn for chat in read_row_turns(table) for turn in chat)
    return [turn["content"] for turn in turns if turn["role"] == "assistant"]


def _answers(
    training_plan: TrainingPlan,
    network: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    sample: _Sample,
) -> GeneratedTexts:
    settings = training_plan.recipe.generate
    new = answer_length(sample.prompts, tokenizer, settings.max_new_tokens)
    return write_answers(
        network,
        tokenizer,
        sample.prompts.ids,
        new_tokens=new,
        chat=sample.prompts.chat,
        beams=settings.beams,
    )


def _base_answers(
    training_plan: TrainingPlan,
    untuned: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    sample: _Sample,
) -> GeneratedTexts | None:
    """The base model's texts; ``None`` where it has a prompt-tuning adapter."""
    # Prompt tuning adds its tokens to every call of the model, and generation calls it per token.
    if has_prompt(untuned):
        return None
    with stage("generating texts by the base model"):
        return _answers(training_plan, untuned, tokenizer, sample)


def _ends(
    sample: _Sample, tuned: GeneratedTexts, base_texts: GeneratedTexts | None
) -> tuple[Bools | None, Bools | None]:
    """Which texts the fine-tuned and the base model ended themselves; continued texts have no end
    of their own.
    """
    if not sample.prompts.chat:
        return None, None
    return tuned.ended, None if base_texts is None else base_texts.ended


def _few_shot(
    request: ScoringRequest,
    untuned: CausalNetwork,
    tokenizer: PreTrainedTokenizerBase,
    tuned: TokenOutputs,
    sample: _Sample,
) -> Prompting:
    """The base model with training rows as examples: losses of a fixed sample of the test rows, and
    the texts of the generated one.
    """
    training_plan, table = request.training_plan, request.table
    recipe, length = training_plan.recipe, training_plan.loaded.max_length
    assert length is not None
    if has_prompt(untuned):
        return Prompting(why="its learned prompt takes the place of examples")
    shots = shots_of(
        training_plan.splits.train_rows.table,
        tokenizer,
        untuned.config,
        recipe.probes.shots,
        recipe.seed,
    )
    if isinstance(shots, str) or not len(table):
        return Prompting(why=shots if isinstance(shots, str) else "there are no test rows")
    positions = sample_positions(len(table), FEW_SHOT_ROWS, recipe.seed, "few shots")
    rows = table.take(positions)
    alone, behind, counts = encode_with_shots(rows, tokenizer, length, shots)
    places = np.flatnonzero(np.isin(tuned.rows, alone.rows))
    groups = groups_of(rows)
    new = answer_length(sample.prompts, tokenizer, recipe.generate.max_new_tokens)
    shot_counts = fitted_shots(
        read_row_turns(sample.table),
        shots,
        lambda turns: len(prompt_tokens(tokenizer, prompt_turns(turns))) + new,
    )
    behind_examples = table_with_shots(sample.table, shots, shot_counts)
    prompts = prompts_of(behind_examples, tokenizer)
    generated = _answers(training_plan, untuned, tokenizer, replace(sample, prompts=prompts))
    return Prompting(
        outputs=_measured(request, untuned, behind, groups),
        tuned=take_rows(tuned, places),
        texts=list(generated.texts),
        shots=len(shots),
        fewer=int(np.sum(counts < len(shots))),
    )


def _generated(
    sample: _Sample, tuned: GeneratedTexts, base_texts: GeneratedTexts | None
) -> Generated:
    rows = np.asarray(sample.table.column("row"), dtype=np.int64)
    groups = groups_of(sample.table)
    return Generated(
        rows,
        sample.prompts.sources,
        sample.prompts.references,
        list(tuned.texts),
        None if base_texts is None else list(base_texts.texts),
        groups,
        sample.tables,
    )


def _predictions(
    table: Table, examples: EncodedTokens, losses: Floats, sample: _Sample, texts: list[str]
) -> dict[str, Any]:
    """The test rows: reference, the generated text of the sample, the mean loss over the row's
    target tokens (null where none is left).
    """
    written: list[str | None] = [None] * len(table)
    for position, text in zip(sample.positions, texts, strict=True):
        written[int(position)] = text
    return _columns(table, examples, losses, written)


def prediction_columns(split_rows: SplitRows) -> dict[str, Any]:
    """The losses of training or validation rows by the best checkpoint; no text is generated."""
    examples, table = split_rows.examples, split_rows.table
    assert isinstance(examples, EncodedTokens)
    losses, _ = split_rows.measure()
    return _columns(table, examples, losses, [None] * len(table))


def _columns(
    table: Table, examples: EncodedTokens, losses: Floats, written: list[str | None]
) -> dict[str, Any]:
    import pyarrow as pa

    tokens = examples.target_counts.astype(np.float64)
    total = np.bincount(examples.positions, weights=losses * tokens, minlength=len(table))
    count = np.bincount(examples.positions, weights=tokens, minlength=len(table))
    mean = [t / n if n else None for t, n in zip(total.tolist(), count.tolist(), strict=True)]
    pairs = zip(read_row_turns(table), table.column("text"), strict=True)
    answers = [turns[-1]["content"] if turns else text for turns, text in pairs]
    return {
        "row": pa.array(table.column("row"), pa.int64()),
        "label": pa.array(answers, pa.string()),
        "prediction": pa.array(written, pa.string()),
        "loss": pa.array(mean, pa.float64()),
        "tokens": pa.array(count.astype(np.int64), pa.int64()),
    }


def _incomplete(examples: EncodedTokens) -> tuple[Decision, ...]:
    """How many test rows were truncated, and of how many nothing is scored."""
    counts = {
        "test rows truncated": (
            int(examples.cut.sum()),
            "the text beyond model.max_length is not scored",
        ),
        "test rows not scored": (
            len(examples.left_out),
            "no token of their answer is within model.max_length",
        ),
    }
    return tuple(
        Decision(name, f"{count} of {len(examples.table_rows)}", because)
        for name, (count, because) in counts.items()
        if count
    )
