"""Predictions of trained taggers for other sentences, and scores where tags are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel, TrainingPlan
from holdfast.contract.inference import (
    Data,
    InferenceOptions,
    LabelledRequest,
    PredictionRequest,
    PredictionType,
    Scorer,
    encoding_for,
    label_for,
    run_recipe,
)
from holdfast.contract.run_folder import model_of, need_run, open_run
from holdfast.core.decisions import decisions_in, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Floats, Ints, Outputs, Scores, softmax
from holdfast.data.cells import write_json_cell
from holdfast.data.options import RowOptions
from holdfast.data.raw import Raw, store
from holdfast.data.table import Columns, Table
from holdfast.data.tags.conll import holds_sentences, read_sentences, sentence_rows
from holdfast.data.tags.scheme import OUTSIDE
from holdfast.data.tags.sentences import choose_tagged, load_tagged, read_tagged, untagged_table
from holdfast.metrics.reliability import Calibration, calibrate
from holdfast.models.encoders.checkpoint import load_saved_tagger
from holdfast.models.encoders.classifier import LoadedClassifier
from holdfast.recipe import Recipe
from holdfast.stats.temperature import losses_at
from holdfast.tasks.classes.answers import FittedText
from holdfast.tasks.classes.classifier import Tempered
from holdfast.tasks.classes.encoding import TextModel
from holdfast.tasks.ensemble import (
    Chances,
    EnsembleEvidence,
    SavedModels,
    SharedRows,
    members,
    same_names,
)
from holdfast.tasks.tags.losses import EncodedWords, TokenClassification, encode_words
from holdfast.tasks.tags.scores import (
    TagOutputs,
    score_tags,
    tag_outputs,
    take_sentences,
    word_outputs,
)
from holdfast.training.task import Examples

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TagPredictions:
    """A tag for each word of a row.

    ``sure`` [n] is the lowest probability among the words' tags, since a sentence is correct only
    where all of its words are; NaN where no word is read.
    """

    predictions: Sequence[list[str]]
    sure: Floats

    @property
    def confidence(self) -> list[float | None]:
        return [float(p) if p == p else None for p in self.sure]

    @property
    def probabilities(self) -> None:
        return None


@dataclass(frozen=True)
class TagPredictor(SavedModels[TextModel]):
    """Taggers of the same tags, averaged by their ``weights``.

    ``recipe`` (of the first) says how rows are read; ``unread`` is the tag of a word that no model
    reads.
    """

    recipe: Recipe
    unread: int
    prediction_type: PredictionType = "list"
    names: tuple[str, ...] = ()

    def read_rows(self, data: Data, options: InferenceOptions) -> PredictionRequest:
        """Read a file as training reads it, with or without tags, or a ``.txt`` with a sentence a
        line.

        Also reads a list of lists of words; a text in place of a list is split at white space.
        """
        part = self.recipe.data
        decisions: tuple[Decision, ...] = ()
        if isinstance(data, str):
            encoding, decisions = encoding_for(part, data, options)
            plain = holds_sentences(data, encoding)
            raw = (read_sentences if plain else read_tagged)(data, encoding)
        else:
            raw = raw_of_sentences(data)
        with record_decisions() as log:
            row_options = RowOptions(self._words(raw, options), need_label=False)
            columns = choose_tagged(raw, row_options)
        chosen = tuple(made for made in decisions_in(log) if made.what == "words column")
        table = untagged_table(raw, Columns(columns.text, None))
        return PredictionRequest(raw, table, decisions=(*decisions, *raw.decisions, *chosen))

    def _words(self, raw: Raw, options: InferenceOptions) -> Sequence[str] | None:
        """The column of words: the requested one, else the run's where it exists; else it is found
        by its name.
        """
        columns = self.recipe.data.text
        return options.text or (columns if columns and columns[0] in raw.names else None)

    def read_labelled_rows(self, data: str, options: InferenceOptions) -> LabelledRequest:
        part = self.recipe.data
        encoding, decisions = encoding_for(part, data, options)
        raw = read_tagged(data, encoding, first=True)
        group = part.group
        if group is not None and group not in raw.names:
            because = f"column {group!r} is missing here: the intervals treat rows as independent"
            group, decisions = None, (*decisions, Decision("groups", "none", because))
        tags = label_for(part, options)
        reading = RowOptions(
            self._words(raw, options),
            tags if options.label or tags in raw.names else None,
            group,
            encoding=encoding,
            classes=self.models[0].classes,
        )
        return LabelledRequest(load_tagged(data, reading), decisions)

    def predict(self, table: Table) -> TagPredictions:
        outputs = self._outputs(table)
        tags = np.asarray(self.models[0].classes, dtype=object)[outputs.answers]
        return TagPredictions(outputs.by_sentence(tags), outputs.confidence)

    def scorer(self, table: Table) -> Scorer:
        outputs, names = self._outputs(table), self.models[0].classes

        def score_some(positions: Ints | None = None) -> Scores:
            some = outputs if positions is None else take_sentences(outputs, positions)
            return score_tags(some, names)

        return score_some

    def row_losses(self, table: Table) -> Floats:
        """The mean over a sentence's read words; NaN where none is read."""
        return self._outputs(table).losses

    def evidence(self, rows: SharedRows) -> EnsembleEvidence:
        """The probability that each model gives to the true tag of every word that all of them
        read.
        """
        table = rows.table
        outputs = [self._of(model, table) for model in self.models]
        keys = [_word_keys(one) for one, _ in outputs]
        common = reduce(np.intersect1d, keys)
        columns = []
        for key, (examples, logits) in zip(keys, outputs, strict=True):
            here = np.isin(key, common)
            losses = losses_at(logits[here], examples.tags[here], 1.0)
            columns.append(np.exp(-losses))
        first = outputs[0][0]
        owner = np.repeat(np.arange(len(first)), first.read)[np.isin(keys[0], common)]
        return Chances(np.column_stack(columns), owner, len(table))

    @staticmethod
    def plain_of(model: TextModel) -> Any:
        """The module of a saved tagger."""
        network: Any = model.network
        return network.model

    def _outputs(self, table: Table) -> TagOutputs:
        """The mean of the models' probabilities.

        Models with different tokenizers or lengths read different words: a word that one of them
        does not read counts as unread.
        """
        outputs = [self._of(model, table) for model in self.models]
        examples, logits = outputs[0]
        # A mean of probabilities, as for classes; its logarithm is scored like logits.
        if len(outputs) > 1:
            keys = [_word_keys(one) for one, _ in outputs]
            common = keys[0]
            for other in keys[1:]:
                common = np.intersect1d(common, other)
            total = np.zeros((len(common), logits.shape[1]))
            weights = self.weights or [1 / len(outputs)] * len(outputs)
            for weight, key, (_, raw) in zip(weights, keys, outputs, strict=True):
                wide = raw[np.isin(key, common)].astype(np.float64)
                total += weight * softmax(wide)
            examples = _with_words(examples, np.isin(keys[0], common))
            logits = np.log(np.maximum(total, np.finfo(np.float64).tiny))
        return tag_outputs(examples, logits, table, self.unread)

    def _of(self, model: TextModel, table: Table) -> tuple[EncodedWords, Floats]:
        task = TokenClassification(int(model.tokenizer.pad_token_id), model.classes)
        examples = encode_words(table, model.tokenizer, model.max_length, need_words=False)
        order = [model.classes.index(name) for name in self.models[0].classes]
        return examples, word_outputs(model.network, examples, task)[:, order]


def load_plain_model(run: Path) -> Any:
    """Load the model of a finished run."""
    return load_saved_tagger(model_of(run)).network.model


def use_runs(runs: Sequence[Path]) -> TagPredictor:
    """Predictor for one finished run, or for the average of several."""
    for run in runs:
        need_run(run)
    models = members(runs, lambda run: load_saved_tagger(model_of(run)))
    names = models[0].classes
    same_names(models, names, "tags")
    unread = str(open_run(runs[0]).get("model_facts", {}).get("unread_tag"))
    # Folders of older versions may lack it; ``O`` comes first.
    place = names.index(unread) if unread in names else 0
    return TagPredictor(models, run_recipe(runs[0]), place)


def words_in(examples: Examples) -> EncodedWords:
    """A fit's split as this task encoded it."""
    assert isinstance(examples, EncodedWords)
    return examples


def task_of(training_plan: TrainingPlan) -> TokenClassification:
    """The task as the training loop sees it."""
    assert isinstance(training_plan.task, TokenClassification)
    return training_plan.task


def use_fitted(fitted: FittedModel) -> TagPredictor:
    """Predictor for a fit's best checkpoint, calibrated as its saved folder would be."""
    training_plan, loaded = fitted.training_plan, fitted.training_plan.loaded
    network = Tempered(fitted.network.cpu().eval(), kept_temperature(fitted))
    assert isinstance(loaded, LoadedClassifier)
    model = FittedText(network, loaded.tokenizer, training_plan.task.classes, loaded.max_length)
    return TagPredictor(
        [model],
        training_plan.recipe,
        unread_tag(training_plan.task.classes, words_in(training_plan.train)),
    )


def calibrated(fitted: FittedModel) -> Calibration:
    """The temperature of the best checkpoint, fitted to the words of the validation sentences;
    words of one sentence stay together.
    """
    if fitted.job.out_of_fold is not None:
        because = "every sentence was used in training, and none is left to fit a temperature on"
        return Calibration(1.0, math.nan, math.nan, because)
    valid = words_in(fitted.training_plan.valid)
    logits = word_outputs(fitted.network.cpu().eval(), valid, task_of(fitted.training_plan))
    sentences = np.repeat(np.arange(len(valid)), valid.read)
    losses = losses_at(logits, valid.tags, 1.0)
    words = Outputs(valid.rows[sentences], valid.tags, logits, losses, sentences)
    return calibrate(words, seed=fitted.recipe.seed)


def kept_temperature(fitted: FittedModel) -> float:
    """What the logits of the best checkpoint are divided by, wherever they are used."""
    return calibrated(fitted).temperature


def unread_tag(names: tuple[str, ...], learnt: EncodedWords) -> int:
    """The tag of unread words, as its place in ``names``: ``O``, or the most frequent tag of the
    training words.
    """
    if OUTSIDE in names:
        return names.index(OUTSIDE)
    return int(np.bincount(learnt.tags).argmax())


def raw_of_sentences(data: Sequence[object]) -> Raw:
    """A list of lists of words, or of texts that are split at white space."""
    return store(iter([sentence_rows([_cell(one) for one in data])]), "the list")


def _cell(sentence: object) -> str | None:
    if sentence is None:
        return None
    words = sentence.split() if isinstance(sentence, str) else sentence
    tokens = words.tolist() if hasattr(words, "tolist") else words
    if not isinstance(tokens, (list, tuple)):
        rule = "must hold a text or a list of words for each sentence"
        remedy = 'Give [["Anna", "lives", "here"], …] or ["Anna lives here", …].'
        raise DataError("the list", rule, type(sentence).__name__, remedy)
    return write_json_cell(list(tokens))


def _word_keys(examples: EncodedWords) -> Ints:
    """Each read word by its sentence and its place in it, as one number."""
    sentence = np.repeat(np.arange(len(examples)), examples.read)
    return np.asarray(sentence * (int(examples.counts.max(initial=0)) + 1) + examples.words)


def _with_words(examples: EncodedWords, mask: npt.NDArray[np.bool_]) -> EncodedWords:
    """The same sentences with only some of the read words."""
    sentence = np.repeat(np.arange(len(examples)), examples.read)[mask]
    read = np.bincount(sentence, minlength=len(examples))
    return replace(
        examples,
        places=examples.places[mask],
        words=examples.words[mask],
        tags=examples.tags[mask],
        starts=np.concatenate([[0], np.cumsum(read)]).astype(np.int64),
    )
