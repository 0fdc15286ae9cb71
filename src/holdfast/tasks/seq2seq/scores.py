"""Sequence-to-sequence: the test rows of a fitted run, scored beside the untuned model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import Finish, Scored, SplitRows, TrainingPlan
from holdfast.contract.run_folder import MODEL
from holdfast.core.records import Floats, Scores, to_json
from holdfast.data.table import Table
from holdfast.metrics import TextMetric
from holdfast.models.generators.seq2seq import LoadedSeq2Seq, end_token, position_limit
from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
from holdfast.models.layers import count_parameters
from holdfast.recipe import Recipe
from holdfast.tasks.generation.base import losses_at_rows, noted, other_rows, texts_column
from holdfast.tasks.generation.base_model import corrected, outputs_of, start_model, worth_of
from holdfast.tasks.generation.samples import TABLES, extra_metrics
from holdfast.tasks.generation.shots import pairs_before
from holdfast.tasks.generation.text_scores import (
    Generated,
    generations_block,
    sample_positions,
    score_generated,
)
from holdfast.tasks.generation.token_scores import TokenOutputs, compare_tokens, score_tokens
from holdfast.tasks.generation.worth import EXAMPLES, PLAIN, Prompting, only
from holdfast.tasks.seq2seq.generation import GenerationOptions, read_pairs, texts_at, write_texts
from holdfast.tasks.seq2seq.losses import EncodedPairs, SequenceToSequence, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import Network


def encode_rows(table: Table, loaded: LoadedSeq2Seq, recipe: Recipe) -> EncodedPairs:
    """Source and target tokens of every row of which something is left to learn."""
    return encode_pairs(
        table,
        loaded.tokenizer,
        loaded.max_length,
        loaded.max_target_length,
        end_token(loaded.tokenizer),
    )


NO_SENTENCES = "an encoder-decoder gives no sentence a likelihood of its own"


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Rows of which a sample is generated: their table, their tokens, the sample's positions."""

    table: Table
    examples: EncodedPairs
    sample: Any

    def texts(self, name: str) -> list[str]:
        return texts_at(self.table, self.examples.kept[self.sample], name)

    def generated(self, texts: list[str], untuned: list[str]) -> Generated:
        return Generated(
            self.examples.rows[self.sample],
            self.texts("text"),
            self.texts("target"),
            texts,
            untuned,
            self.texts("group") if self.table.has_groups else None,
            self.tables,
        )

    @property
    def tables(self) -> list[str] | None:
        """What written code runs on, where it is run."""
        return self.texts(TABLES) if TABLES in self.table.rows.column_names else None


def score_rows(finish: Finish) -> Scored:
    """Score the saved folder, reloaded in plain Transformers, beside the untuned model."""
    start = time.perf_counter()
    ready, recipe = finish.ready, finish.ready.recipe
    loaded, task, device = ready.loaded, ready.task, finish.fitted.job.accelerator.device
    assert isinstance(loaded, LoadedSeq2Seq)
    assert isinstance(task, SequenceToSequence)
    pad = task.pad_id
    train, test = _sides(finish)
    network, tokenizer = load_saved_seq2seq(finish.run / MODEL)
    outputs = read_pairs(network, pad, test.examples, test.table, device)
    writing = writing_of(recipe, loaded.max_target_length)
    written = [
        write_texts(network, tokenizer, side.examples, side.sample, writing, device)
        for side in (train, test)
    ]
    del network
    score_s = time.perf_counter() - start
    others = other_rows(finish)
    untuned, quantized, left_out = start_model(
        finish, outputs, lambda one: read_pairs(one, pad, test.examples, test.table, device)
    )
    before = read_pairs(untuned, pad, test.examples, test.table, device)
    plain = [
        write_texts(untuned, tokenizer, side.examples, side.sample, writing, device)
        for side in (train, test)
    ]
    pairs = list(zip(written, plain, strict=True))
    made = [
        side.generated(list(tuned.texts), list(begun.texts))
        for side, (tuned, begun) in zip((train, test), pairs, strict=True)
    ]
    few = _few_shot(finish, untuned, tokenizer, outputs, test, writing)
    ways = {PLAIN: Prompting(before, outputs, made[1].untuned), EXAMPLES: few, **quantized}
    ended = [(tuned.ended, begun.ended) for tuned, begun in pairs]
    sides = ("train", "test")
    left_out["general"] = NO_SENTENCES
    beside = worth_of(recipe, ways, made[1], device, None, left_out)
    extra = extra_metrics(recipe)
    tested = scores_of(outputs, made[1], recipe.seed, extra=extra)
    blocks = {
        "classes": None,
        "test": {**tested.to_json(), "opened_at": finish.opened_at},
        **others,
        "baseline": corrected(_baseline(outputs, before, made[1], recipe.seed, extra), beside),
        "generations": _generations(finish, writing, made[0], made[1], extra),
        "worth": beside,
        "outputs": outputs_of(
            recipe,
            dict(zip(sides, made, strict=True)),
            dict(zip(sides, ended, strict=True)),
            device,
        ),
        "hardest": None,
        "model_facts": _scored_model_facts(ready),
        "careless": None,
    }
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    return Scored(
        blocks, (), seconds, predictions=_predictions(test, outputs, list(written[1].texts))
    )


def _few_shot(
    finish: Finish,
    untuned: Network,
    tokenizer: PreTrainedTokenizerBase,
    tuned: TokenOutputs,
    test: SampledRows,
    writing: GenerationOptions,
) -> Prompting:
    """The start model with training pairs before each source: the losses of the generated sample
    and its texts."""
    ready, recipe = finish.ready, finish.ready.recipe
    loaded, task = ready.loaded, ready.task
    assert isinstance(loaded, LoadedSeq2Seq)
    assert isinstance(task, SequenceToSequence)
    train = ready.sides.train_rows.table
    sample = test.table.take(test.examples.kept[test.sample])
    found = pairs_before(
        train.column("text"),
        train.column("target"),
        sample.column("text"),
        tokenizer,
        position_limit(untuned.config),
        recipe.probes.shots,
        recipe.seed,
    )
    if isinstance(found, str):
        return Prompting(why=found)
    behind = sample.with_column("text", found.sources)
    examples = encode_pairs(
        behind, tokenizer, found.room, loaded.max_target_length, end_token(tokenizer)
    )
    device = finish.fitted.job.accelerator.device
    made = write_texts(untuned, tokenizer, examples, np.arange(len(examples)), writing, device)
    return Prompting(
        outputs=read_pairs(untuned, task.pad_id, examples, behind, device),
        tuned=only(tuned, test.sample),
        texts=list(made.texts),
        shots=found.shots,
        fewer=found.fewer,
    )


def _sides(finish: Finish) -> tuple[SampledRows, SampledRows]:
    ready, seed, rows = finish.ready, finish.ready.recipe.seed, finish.ready.recipe.generate.rows
    examples, train = finish.fitted.encode(finish.table), ready.train
    assert isinstance(examples, EncodedPairs)
    assert isinstance(train, EncodedPairs)
    return (
        SampledRows(
            ready.sides.train_rows.table, train, sample_positions(len(train), rows, seed, "train")
        ),
        SampledRows(finish.table, examples, sample_positions(len(examples), rows, seed, "test")),
    )


def writing_of(recipe: Recipe, longest_target: int) -> GenerationOptions:
    """The recipe's ``generate``."""
    part = recipe.generate
    return GenerationOptions(part.beams, part.max_new_tokens or longest_target)


def scores_of(
    outputs: TokenOutputs,
    made: Generated,
    seed: int,
    untuned: bool = False,
    extra: Sequence[TextMetric] = (),
) -> Scores:
    """The losses of all rows, and the overlaps of the generated sample, which say so."""
    scores = score_tokens(outputs, seed=seed)
    overlaps = score_generated(made, seed=seed, untuned=untuned, extra=extra) if len(made) else {}
    told = noted(overlaps, len(made), len(outputs.rows))
    return Scores(scores.n, {**scores.metrics, **told}, scores.extra)


def _baseline(
    outputs: TokenOutputs,
    before: TokenOutputs,
    made: Generated,
    seed: int,
    extra: Sequence[TextMetric],
) -> dict[str, Any]:
    test = scores_of(before, made, seed, untuned=True, extra=extra).to_json()
    what = "untuned model"
    comparison = to_json(compare_tokens(outputs, before, seed=seed))
    return {
        "what": what,
        "test": test,
        "all": [{"what": what, "test": test}],
        "comparison": comparison,
    }


def _generations(
    finish: Finish,
    writing: GenerationOptions,
    train: Generated,
    test: Generated,
    extra: Sequence[TextMetric],
) -> dict[str, Any]:
    """Texts side by side, what they repeat, and their overlap with the references."""
    recipe, table = finish.ready.recipe, finish.ready.sides.train_rows.table
    settings = {
        "beams": writing.beams,
        "max_new_tokens": writing.max_new_tokens,
        "rows": recipe.generate.rows,
    }
    answers = texts_column(finish.ready.train, table, "target")
    scores = {
        "test": score_generated(test, seed=recipe.seed, extra=extra),
        "test_untuned": score_generated(test, seed=recipe.seed, untuned=True, extra=extra),
        "train": score_generated(train, seed=recipe.seed, extra=extra),
    }
    return {**generations_block(train, test, answers, settings), "scores": to_json(scores)}


def _scored_model_facts(ready: TrainingPlan) -> dict[str, Any]:
    loaded = ready.loaded
    assert isinstance(loaded, LoadedSeq2Seq)
    total, trainable = count_parameters(loaded.network)
    return {
        **loaded.facts,
        "parameters": total,
        "trainable": trainable,
        "precision": ready.recipe.train.precision,
        "max_length": loaded.max_length,
        "max_target_length": loaded.max_target_length,
    }


def _predictions(side: SampledRows, outputs: TokenOutputs, texts: list[str]) -> dict[str, Any]:
    """Every test row; the generated text where the row was in the sample, the loss where its
    target has tokens."""
    written: list[str | None] = [None] * len(side.table)
    for place, text in zip(side.examples.kept[side.sample], texts, strict=True):
        written[place] = text
    return texts_column_block(side.table, side.examples, outputs.losses, written)


def tell(asked: SplitRows) -> dict[str, Any]:
    """The losses of training or validation rows by the kept state; no text is written."""
    examples, table = asked.examples, asked.table
    assert isinstance(examples, EncodedPairs)
    return texts_column_block(table, examples, asked.measure()[0], [None] * len(table))


def texts_column_block(
    table: Table, examples: EncodedPairs, losses: Floats, written: list[str | None]
) -> dict[str, Any]:
    """The columns of ``predictions.parquet``; ``losses`` are of the ``examples``."""
    import pyarrow as pa

    tokens = np.zeros(len(table), dtype=np.int64)
    tokens[examples.kept] = examples.target_lengths
    means = losses_at_rows(losses, examples.kept, len(table))
    return {
        "row": pa.array(np.asarray(table.column("row")), pa.int64()),
        "label": pa.array(table.column("target"), pa.string()),
        "prediction": pa.array(written, pa.string()),
        "loss": pa.array(means, pa.float64(), from_pandas=True),
        "tokens": pa.array(tokens, pa.int64()),
    }
