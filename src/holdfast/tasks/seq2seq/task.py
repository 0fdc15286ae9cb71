"""The sequence-to-sequence task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import EncodedSplits, FittedModel, TaskDefinition
from holdfast.contract.inference import (
    Data,
    InferenceOptions,
    LabelledRequest,
    PredictionRequest,
    TextPredictions,
    encoding_for,
    group_for,
    read_columns,
    read_prediction_rows,
    select_columns,
)
from holdfast.contract.run_folder import model_of
from holdfast.contract.written_text import Sample, WrittenSamples
from holdfast.core.decisions import decisions_to
from holdfast.core.records import Finding, Ints, Scores
from holdfast.core.wording import percent_phrase
from holdfast.data.load import rename_columns, unlabelled_table
from holdfast.data.mix import with_sources
from holdfast.data.options import RowOptions
from holdfast.data.pairs import choose_pair, load_pairs, target_column
from holdfast.data.table import Table
from holdfast.metrics import Metric
from holdfast.models.compute.device import best_device
from holdfast.models.generators.seq2seq import (
    LoadedSeq2Seq,
    end_token,
    limit_by_targets,
    load_seq2seq,
)
from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork, load_saved_seq2seq
from holdfast.plan.adapters import load_options
from holdfast.plan.chunks import chunk_size
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.generation.base import (
    GenerationPredictor,
    find_text_metric,
    save_plain,
    target_texts,
    the_runs,
    together,
)
from holdfast.tasks.generation.samples import (
    check_own_metric,
    extra_metrics,
    text_metric_of,
    watched_positions,
    with_tables,
)
from holdfast.tasks.generation.text_scores import need_score_packages, sample_positions
from holdfast.tasks.generation.token_scores import TokenOutputs
from holdfast.tasks.seq2seq.generation import read_pairs, write_texts
from holdfast.tasks.seq2seq.losses import EncodedPairs, SequenceToSequence, encode_pairs
from holdfast.tasks.seq2seq.scores import (
    SampledRows,
    encode_rows,
    prediction_columns,
    score_rows,
    scores_of,
    writing_of,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """Read the pairs of a source; ``like`` another table, with its columns."""
    columns = like.columns if like is not None else None
    template = data.template or (columns.template if columns else None)
    options = data.row_options(
        text=None if template else (columns.text if columns else data.text),
        label=columns.label if columns else target_column(data.label, data.target),
        template=template,
    )
    optional = like is not None
    return with_sources(
        load_pairs(source, options), source, data.source, data.row_options(), optional=optional
    )


def load(recipe: Recipe, table: Table) -> LoadedSeq2Seq:
    """Load the recipe's model."""
    if recipe.generate.rows:
        need_score_packages()
    model = recipe.model
    return load_seq2seq(model.name, load_options(recipe), max_target_length=model.max_target_length)


def fit_loaded(loaded: LoadedSeq2Seq, rows: Table, examples: EncodedPairs) -> LoadedSeq2Seq:
    """The model with the maximum target length that the training targets need."""
    return limit_by_targets(loaded, examples.target_sizes)


def transform_examples(examples: EncodedPairs, loaded: LoadedSeq2Seq, rows: Table) -> EncodedPairs:
    """Rows with their targets truncated at that length."""
    return examples.limited(loaded.max_target_length, loaded.n_end_tokens)


def choose_samples(
    loaded: LoadedSeq2Seq, splits: EncodedSplits, recipe: Recipe, probe_rows: int
) -> WrittenSamples:
    """The rows for which texts are generated during training, or after it."""
    writing = writing_of(recipe, loaded.max_target_length)
    train, valid = splits.train, splits.valid
    assert isinstance(train, EncodedPairs)
    assert isinstance(valid, EncodedPairs)
    at = watched_positions(train, valid, probe_rows, recipe)

    def sample(rows: SampledRows) -> Sample:
        def write(network: Any, device: torch.device) -> list[str]:
            return list(
                write_texts(
                    network, loaded.tokenizer, rows.examples, rows.sample, writing, device
                ).texts
            )

        return Sample(rows.texts("text"), rows.texts("target"), rows.tables, write)

    samples = {
        "train": sample(SampledRows(splits.train_rows.table, train, at["train"])),
        "valid": sample(SampledRows(splits.valid_rows.table, valid, at["valid"])),
    }
    answers = target_texts(train, splits.train_rows.table)
    return WrittenSamples(samples, answers, text_metric_of(recipe), writing.max_new_tokens)


def make_task(
    loaded: LoadedSeq2Seq, table: Table, recipe: Recipe, metric: Metric | None
) -> SequenceToSequence:
    chunk = chunk_size(recipe, loaded)
    return SequenceToSequence(int(loaded.tokenizer.pad_token_id), chunk)


def check_examples(
    examples: EncodedPairs, loaded: LoadedSeq2Seq, split: str
) -> tuple[Finding, ...]:
    """Findings for truncated sources and targets, and for rows without a target token."""
    n = max(1, len(examples))
    limits = (
        (
            "truncated_sources",
            int(examples.source_cut.sum()),
            "sources",
            loaded.max_length,
            "max_length",
        ),
        (
            "truncated_targets",
            int(examples.target_cut.sum()),
            "targets",
            loaded.max_target_length,
            "max_target_length",
        ),
    )
    findings = [
        Finding(
            check,
            "warn" if count > 0.05 * n else "info",
            count / n,
            count,
            (),
            f"{count:,} {split} {length_name} ({percent_phrase(count / n, 1)}) are longer than "
            f"{limit} tokens; the rest of each is not read",
            f"Raise model.{key} if the model and the memory allow it.",
        )
        for check, count, length_name, limit, key in limits
        if count
    ]
    if examples.left_out:
        count = len(examples.left_out)
        findings.append(
            Finding(
                "targets_without_tokens",
                "warn",
                count / (n + count),
                count,
                examples.left_out[:100],
                f"{count} {split} rows are left out: no token of their target is left",
                "Their characters are unknown to the tokenizer, or the limit is too small.",
                True,
            )
        )
    return tuple(findings)


@dataclass(frozen=True)
class Seq2SeqPredictor(GenerationPredictor):
    """Predictor that generates a text for each source.

    It is scored by the losses of the targets and by the generated texts. ``folder`` is the run's,
    where there is one.
    """

    folder: Path | None = None

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        part = self.recipe.data
        raw, decisions = read_prediction_rows(part, data, options, "text")
        names = read_columns(part)
        view = raw if names is None else select_columns(raw, names, options)
        text = None if part.template else (names or options.text)
        with decisions_to(None):
            row_options = RowOptions(text, template=part.template, need_label=False)
            columns = choose_pair(view, row_options)
        table = unlabelled_table(view, columns, label=0, target=True)
        return PredictionRequest(raw, table, decisions=decisions)

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        part = self.recipe.data
        encoding, decisions = encoding_for(part, data, options)
        group, dropped = group_for(part, data, encoding)
        names = read_columns(part)
        reading = RowOptions(
            None if part.template else (part.text or options.text),
            options.label or target_column(part.label, part.target),
            group,
            part.template,
            encoding=encoding,
            view=partial(rename_columns, expected=names, given_names=options.text)
            if names
            else None,
        )
        table = load_pairs(data, reading)
        metric = check_own_metric(self.folder, self.recipe) if self.folder else ()
        return LabelledRequest(with_tables(table, self.recipe), (*decisions, *dropped, *metric))

    def predict(self, table: Table) -> TextPredictions:
        """The generated texts for the sources, with the geometric mean probability of their
        tokens.
        """
        recipe, examples = self.recipe, self.sources(table)
        writing = writing_of(recipe, recipe.model.max_target_length or 0)
        writing = replace(writing, temperature=self.temperature)
        texts, sure, ended = write_texts(
            self.network, self.tokenizer, examples, np.arange(len(examples)), writing, best_device()
        )
        return TextPredictions(texts, sure, ~ended)

    def sources(self, table: Table) -> EncodedPairs:
        """The sources as the model reads them."""
        return _encode_saved(table, self.tokenizer, self.recipe, need_target=False)

    @property
    def task(self) -> SequenceToSequence:
        return SequenceToSequence(int(self.tokenizer.pad_token_id))

    def encoded(self, table: Table) -> tuple[EncodedPairs, Ints]:
        examples = _encode_saved(table, self.tokenizer, self.recipe, need_target=True)
        return examples, examples.kept

    def measure(self, examples: EncodedPairs, table: Table) -> TokenOutputs:
        return read_pairs(self.network, self.task.pad_id, examples, table, best_device())

    def scored(self, table: Table) -> Scores:
        """The losses of the targets, and the scores of the texts of a fixed sample of the rows."""
        recipe, (examples, _) = self.recipe, self.encoded(table)
        outputs = self.measure(examples, table)
        positions = sample_positions(len(examples), recipe.generate.rows, recipe.seed, "test")
        sample = SampledRows(table, examples, positions)
        writing = writing_of(recipe, recipe.model.max_target_length or 0)
        texts, _, _ = write_texts(
            self.network, self.tokenizer, examples, sample.sample, writing, best_device()
        )
        generated = sample.generated(list(texts), [])
        return scores_of(outputs, generated, recipe.seed, extra=extra_metrics(recipe))


def load_plain_model(run: Path) -> Any:
    """Load the model of a finished run."""
    return load_saved_seq2seq(model_of(run))[0].plain


def use_runs(runs: Sequence[Path]) -> Seq2SeqPredictor:
    """Predictor for one finished run, or for the mean of several, token by token."""
    recipe = the_runs(runs)
    networks, tokenizers = zip(*(load_saved_seq2seq(model_of(run)) for run in runs), strict=True)
    return Seq2SeqPredictor(together(networks, tokenizers), tokenizers[0], recipe, runs[0])


def use_fitted(fitted: FittedModel) -> Seq2SeqPredictor:
    """Predictor for a fit's best checkpoint."""
    network = fitted.network.eval()
    assert isinstance(network, Seq2SeqNetwork)
    return Seq2SeqPredictor(network, fitted.training_plan.loaded.tokenizer, fitted.recipe)


def _encode_saved(
    table: Table, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, need_target: bool
) -> EncodedPairs:
    model = recipe.model
    assert model.max_length is not None
    assert model.max_target_length is not None
    return encode_pairs(
        table,
        tokenizer,
        model.max_length,
        model.max_target_length,
        end_token(tokenizer),
        need_target=need_target,
    )


DEFINITION = TaskDefinition(
    name="seq2seq",
    read=read,
    load=load,
    encode=encode_rows,
    make_task=make_task,
    check_examples=check_examples,
    save=save_plain,
    score=score_rows,
    prediction_columns=prediction_columns,
    load_plain_model=load_plain_model,
    use_runs=use_runs,
    use_fitted=use_fitted,
    find_metric=find_text_metric,
    choose_samples=choose_samples,
    fit_loaded=fit_loaded,
    transform_examples=transform_examples,
)
