"""Scores of a sequence-to-sequence run's test rows, and the comparison with the base model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, ScoringRequest, ScoringResult, SplitRows, plain_facts
from holdfast.contract.predictions import groups_of
from holdfast.contract.run_folder import MODEL
from holdfast.core.records import Floats, Scores
from holdfast.data.table import Table
from holdfast.metrics import TextMetric
from holdfast.models.generators.seq2seq import LoadedSeq2Seq, end_token, position_limit
from holdfast.models.generators.seq2seq_network import load_saved_seq2seq
from holdfast.recipe import Recipe
from holdfast.tasks.generation.base import losses_at_rows, noted, other_rows, target_texts
from holdfast.tasks.generation.base_model import WrittenTests, start_model, writer_blocks
from holdfast.tasks.generation.samples import TABLES, extra_metrics
from holdfast.tasks.generation.shots import pairs_before
from holdfast.tasks.generation.text_scores import Generated, sample_positions, score_generated
from holdfast.tasks.generation.token_scores import GeneratedTexts, TokenOutputs, score_tokens
from holdfast.tasks.generation.worth import EXAMPLES, Prompting
from holdfast.tasks.lines import take_rows
from holdfast.tasks.seq2seq.generation import GenerationOptions, read_pairs, texts_at, write_texts
from holdfast.tasks.seq2seq.losses import EncodedPairs, SequenceToSequence, encode_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import Network


def encode_rows(table: Table, loaded: LoadedSeq2Seq, recipe: Recipe) -> EncodedPairs:
    """Source and target tokens of every row with something left to learn."""
    return encode_pairs(
        table,
        loaded.tokenizer,
        loaded.max_length,
        loaded.max_target_length,
        end_token(loaded.tokenizer),
    )


NO_SENTENCES = "an encoder-decoder gives a sentence no likelihood of its own"


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Rows of which a sample is generated: their table, their tokens, the sample's positions."""

    table: Table
    examples: EncodedPairs
    sample: Any

    def texts(self, name: str) -> list[str]:
        return texts_at(self.table, self.examples.kept[self.sample], name)

    def generated(self, texts: list[str], untuned: list[str] | None) -> Generated:
        groups = groups_of(self.table)
        return Generated(
            self.examples.rows[self.sample],
            self.texts("text"),
            self.texts("target"),
            texts,
            untuned,
            None if groups is None else list(groups[self.examples.kept[self.sample]]),
            self.tables,
        )

    @property
    def tables(self) -> list[str] | None:
        """The tables that generated code runs on, where it is run."""
        return self.texts(TABLES) if TABLES in self.table.rows.column_names else None


def score_rows(request: ScoringRequest) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers, and the base model on the same
    rows.
    """
    start = time.perf_counter()
    training_plan, recipe = request.training_plan, request.training_plan.recipe
    loaded, task = training_plan.loaded, training_plan.task
    device = request.fitted.job.accelerator.device
    assert isinstance(loaded, LoadedSeq2Seq)
    assert isinstance(task, SequenceToSequence)
    pad, samples = task.pad_id, _sampled_splits(request)
    test = samples["test"]
    network, tokenizer = load_saved_seq2seq(request.run / MODEL)
    outputs = read_pairs(network, pad, test.examples, test.table, device)
    writing = writing_of(recipe, loaded.max_target_length)

    def write(network: Network, sample: SampledRows) -> GeneratedTexts:
        return write_texts(network, tokenizer, sample.examples, sample.sample, writing, device)

    written = {name: write(network, sample) for name, sample in samples.items()}
    del network
    score_s = time.perf_counter() - start
    others = other_rows(request)
    untuned, quantized, left_out = start_model(
        request, outputs, lambda one: read_pairs(one, pad, test.examples, test.table, device)
    )
    before = read_pairs(untuned, pad, test.examples, test.table, device)
    plain = write(untuned, test)
    generated = {
        "train": samples["train"].generated(list(written["train"].texts), None),
        "test": test.generated(list(written["test"].texts), list(plain.texts)),
    }
    ended = {"train": (written["train"].ended, None), "test": (written["test"].ended, plain.ended)}
    few = _few_shot(request, untuned, tokenizer, outputs, test, writing)
    left_out["general"] = NO_SENTENCES
    tests = WrittenTests(
        outputs, before, generated, ended, {EXAMPLES: few, **quantized}, left_out=left_out
    )
    extra = extra_metrics(recipe)
    tested = scores_of(outputs, generated["test"], recipe.seed, extra=extra)
    started = scores_of(before, generated["test"], recipe.seed, untuned=True, extra=extra)
    blocks = _blocks(request, tests, tested, started, others, writing)
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    predictions = _predictions(test, outputs, list(written["test"].texts))
    return ScoringResult(blocks, (), seconds, predictions=predictions)


def _blocks(
    request: ScoringRequest,
    tests: WrittenTests,
    test: Scores,
    untuned: Scores,
    others: Mapping[str, object],
    writing: GenerationOptions,
) -> dict[str, Any]:
    """Blocks of ``result.json``: the test rows by the model and by the ``untuned`` one, and the
    ``others``.
    """
    return {
        "classes": None,
        "test": {**test.to_json(), "opened_at": request.opened_at},
        **others,
        **_writer_blocks(request, tests, untuned.to_json(), writing),
        "hardest": None,
        "model_facts": _facts(request.fitted),
        "careless": None,
    }


def _writer_blocks(
    request: ScoringRequest,
    tests: WrittenTests,
    untuned: dict[str, Any],
    writing: GenerationOptions,
) -> dict[str, Any]:
    training_plan, recipe = request.training_plan, request.training_plan.recipe
    answers = target_texts(training_plan.train, training_plan.splits.train_rows.table)
    settings = {
        "beams": writing.beams,
        "max_new_tokens": writing.max_new_tokens,
        "rows": recipe.generate.rows,
    }
    return writer_blocks(request, tests, untuned, answers, settings, recipe.seed)


def _few_shot(
    request: ScoringRequest,
    untuned: Network,
    tokenizer: PreTrainedTokenizerBase,
    tuned: TokenOutputs,
    test: SampledRows,
    writing: GenerationOptions,
) -> Prompting:
    """The base model with training pairs before each source: the losses of the generated sample and
    its texts.
    """
    training_plan, recipe = request.training_plan, request.training_plan.recipe
    loaded, task = training_plan.loaded, training_plan.task
    assert isinstance(loaded, LoadedSeq2Seq)
    assert isinstance(task, SequenceToSequence)
    train = training_plan.splits.train_rows.table
    sample = test.table.take(test.examples.kept[test.sample])
    shots = pairs_before(
        train.column("text"),
        train.column("target"),
        sample.column("text"),
        tokenizer,
        position_limit(untuned.config),
        recipe.probes.shots,
        recipe.seed,
    )
    if isinstance(shots, str):
        return Prompting(why=shots)
    behind = sample.with_column("text", shots.sources)
    examples = encode_pairs(
        behind, tokenizer, shots.room, loaded.max_target_length, end_token(tokenizer)
    )
    device = request.fitted.job.accelerator.device
    texts = write_texts(untuned, tokenizer, examples, np.arange(len(examples)), writing, device)
    return Prompting(
        outputs=read_pairs(untuned, task.pad_id, examples, behind, device),
        tuned=take_rows(tuned, test.sample),
        texts=list(texts.texts),
        shots=shots.shots,
        fewer=shots.fewer,
    )


def _sampled_splits(request: ScoringRequest) -> dict[str, SampledRows]:
    training_plan, recipe = request.training_plan, request.training_plan.recipe
    samples, most = {}, recipe.generate.rows
    for split, table, examples in (
        ("test", request.table, request.fitted.encode(request.table)),
        ("train", training_plan.splits.train_rows.table, training_plan.train),
    ):
        assert isinstance(examples, EncodedPairs)
        sample = sample_positions(len(examples), most, recipe.seed, split)
        samples[split] = SampledRows(table, examples, sample)
        # As many training rows.
        most = len(sample)
    return samples


def writing_of(recipe: Recipe, longest_target: int) -> GenerationOptions:
    """Generation settings from the recipe's ``generate``."""
    part = recipe.generate
    return GenerationOptions(part.beams, part.max_new_tokens or longest_target)


def scores_of(
    outputs: TokenOutputs,
    generated: Generated,
    seed: int,
    untuned: bool = False,
    extra: Sequence[TextMetric] = (),
) -> Scores:
    """The losses of all rows, and the overlaps of the generated sample with a note on its size."""
    scores = score_tokens(outputs, seed=seed)
    overlaps = (
        score_generated(generated, seed=seed, untuned=untuned, extra=extra)
        if len(generated)
        else {}
    )
    notes = noted(overlaps, len(generated), len(outputs.rows))
    return Scores(scores.n, {**scores.metrics, **notes}, scores.extra)


def _facts(fitted: FittedModel) -> dict[str, Any]:
    loaded = fitted.training_plan.loaded
    assert isinstance(loaded, LoadedSeq2Seq)
    model_facts = plain_facts(fitted, {})
    # A sequence-to-sequence model has no temperature, but a second length limit.
    model_facts.pop("temperature")
    return {**model_facts, "max_target_length": loaded.max_target_length}


def _predictions(sample: SampledRows, outputs: TokenOutputs, texts: list[str]) -> dict[str, Any]:
    """Every test row; the generated text where the row was in the sample, the loss where its target
    has tokens.
    """
    written: list[str | None] = [None] * len(sample.table)
    for place, text in zip(sample.examples.kept[sample.sample], texts, strict=True):
        written[place] = text
    return texts_column_block(sample.table, sample.examples, outputs.losses, written)


def prediction_columns(split_rows: SplitRows) -> dict[str, Any]:
    """The losses of training or validation rows by the best checkpoint; no text is generated."""
    examples, table = split_rows.examples, split_rows.table
    assert isinstance(examples, EncodedPairs)
    return texts_column_block(table, examples, split_rows.measure()[0], [None] * len(table))


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
