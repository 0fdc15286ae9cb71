"""Scores of tagged words with intervals: entity F1 by sentence and by type, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.predictions import groups_of
from holdfast.core.records import Floats, Ints, Outputs, Scores, finite
from holdfast.metrics.reliability import ece_estimate, reliability
from holdfast.metrics.resample import RESAMPLES, ResampledUnits, Resampling, undefined
from holdfast.models.compute.device import on_best_device
from holdfast.stats.temperature import losses_at
from holdfast.tasks.hardest import hardest_rows
from holdfast.tasks.rates import f1_of, rate_estimates, rates_by_name, with_each
from holdfast.tasks.tags.entities import TagTable, entity_counts, spans_of
from holdfast.tasks.tags.losses import EncodedWords, TokenClassification
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.data.table import Table

TOKENS = 1024
METRICS = ("entity_f1", "entity_precision", "entity_recall", "accuracy", "loss")
NOTHING = "no entity here is labelled or predicted"
NO_ENTITY = "no entity"
Network = Callable[..., "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class TagOutputs:
    """A model's tags for some sentences: ``rows`` [n] source positions, ``counts`` [n] their words.

    Of all words, one sentence after the other: ``labels`` [words] (−1 where unknown), ``answers``
    [words] (the predictions), and ``chances`` [words], the probability of each prediction, NaN for
    a word that the model does not read. ``losses`` [n] is the mean cross-entropy of a sentence's
    read words in nats, NaN where none is read. ``read`` are the words that are read, each as a row
    of one class, in the unit that intervals are resampled by.
    """

    rows: Ints
    counts: Ints
    labels: Ints
    answers: Ints
    chances: Floats
    losses: Floats
    read: Outputs
    groups: npt.NDArray[Any] | None = None

    @property
    def units(self) -> ResampledUnits:
        """The resampling unit: sentences, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))

    @property
    def sentences(self) -> Ints:
        """The sentence of each word [words], 0 … n − 1."""
        return np.repeat(np.arange(len(self.rows)), self.counts)

    @property
    def confidence(self) -> Floats:
        """The lowest confidence among a sentence's words [n]; NaN where none is read."""
        known = np.isfinite(self.chances)
        least = np.full(len(self.rows), np.inf)
        np.minimum.at(least, self.sentences[known], self.chances[known])
        return np.where(np.isfinite(least), least, np.nan)

    def by_sentence(self, words: npt.NDArray[np.generic]) -> list[list[Any]]:
        """The values of the words, as one list per sentence."""
        ends = np.cumsum(self.counts)
        return [list(words[end - n : end]) for end, n in zip(ends, self.counts, strict=True)]


def word_outputs(network: Network, examples: EncodedWords, task: TokenClassification) -> Floats:
    """The logits [read words, tags] of these sentences, in their order, float32. ``network`` maps
    a tokenizer's batch to logits [batch, pieces, tags]."""
    import torch

    parts: list[Floats] = [np.zeros((0, len(task.classes)), dtype=np.float32)] * len(examples)
    longest = int(examples.lengths.max()) if len(examples) else 1
    tokens = max(TOKENS, longest)
    with torch.inference_mode(), on_best_device(network, len(examples)) as device:
        for batch_rows in batches_by_length(examples.lengths, np.arange(len(examples)), tokens):
            batch = device_batch(task, examples, batch_rows, device)
            where = batch.pop("where")
            batch.pop("tags"), batch.pop("counts")
            logits = network(**batch).float()
            # A learned prompt precedes the pieces.
            logits = logits[:, logits.shape[1] - batch["input_ids"].shape[1] :].flatten(0, 1)
            word_logits = logits[where].cpu().numpy()
            ends = np.cumsum(examples.read[batch_rows])[:-1]
            for place, part in zip(batch_rows, np.split(word_logits, ends), strict=True):
                parts[place] = part
    return np.concatenate(parts) if parts else np.zeros((0, len(task.classes)), dtype=np.float32)


def tag_outputs(examples: EncodedWords, logits: Floats, table: Table, unread: int) -> TagOutputs:
    """The predictions for every sentence of ``examples``, which are encoded from ``table``; a word
    that is not read gets the tag ``unread``.
    """
    table = table.take(examples.kept)
    counts = examples.counts
    begins = np.cumsum(counts) - counts
    places = np.repeat(begins, examples.read) + examples.words
    answers = np.full(int(counts.sum()), unread, dtype=np.int64)
    labels = np.full(len(answers), -1, dtype=np.int64)
    chances = np.full(len(answers), np.nan)
    given = [tag for tags in table.column("tags") for tag in tags]
    if len(given) == len(labels):
        labels = np.asarray(given, dtype=np.int64)
    sentence = np.repeat(np.arange(len(counts)), examples.read)
    known = examples.tags >= 0
    each = losses_at(logits, np.maximum(examples.tags, 0), 1.0) if len(logits) else np.zeros(0)
    groups = groups_of(table)
    # ECE is of words, its interval of sentences.
    units = sentence.astype(str).astype(object) if groups is None else groups[sentence]
    read = Outputs(table.column("row")[sentence], examples.tags, logits, each, units)
    answers[places] = read.predictions
    chances[places] = read.probabilities.max(axis=1) if len(logits) else 0.0
    total = np.bincount(sentence, np.where(known, each, 0.0), len(counts))
    size = np.bincount(sentence, known, len(counts))
    with np.errstate(invalid="ignore"):
        losses = np.where(size > 0, total / size, np.nan)
    return TagOutputs(examples.rows, counts, labels, answers, chances, losses, read, groups)


def take_sentences(outputs: TagOutputs, positions: Ints) -> TagOutputs:
    """The outputs of the sentences at ``positions``, in that order."""
    ends = np.cumsum(outputs.counts)
    words = [np.arange(ends[p] - outputs.counts[p], ends[p]) for p in positions]
    at = np.concatenate([*words, np.zeros(0, dtype=np.int64)]).astype(np.int64)
    # Which of the read words each word is.
    order = np.cumsum(np.isfinite(outputs.chances)) - 1
    read = order[at][np.isfinite(outputs.chances[at])]
    one = outputs.read
    groups = None if one.groups is None else one.groups[read]
    return TagOutputs(
        outputs.rows[positions],
        outputs.counts[positions],
        outputs.labels[at],
        outputs.answers[at],
        outputs.chances[at],
        outputs.losses[positions],
        Outputs(one.rows[read], one.labels[read], one.logits[read], one.losses[read], groups),
        None if outputs.groups is None else outputs.groups[positions],
    )


def score_tags(
    outputs: TagOutputs,
    names: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Scores:
    """``entity_f1``, ``entity_precision`` and ``entity_recall`` over all entities (seqeval's micro
    averages); ``accuracy``, the share of words with the correct tag; ``loss``, the mean over
    sentences of the mean of their words; ``ece`` of the words that are read. ``per_class`` has each
    type of entity, ``confusion`` the words by type.

    Words that are not read count with the tag that they get. Intervals are BCa over sentences, or
    Student's over groups: the words of a sentence belong together. No rows: undefined.
    """
    if not len(outputs.rows):
        nothing = undefined("there are no rows")
        return Scores(0, dict.fromkeys((*METRICS, "ece"), nothing), {"per_class": {}})
    table = TagTable.of(names)
    types = len(table.entities)
    # Sentences are resampled, never words: the errors of one sentence are dependent.
    drawing = Resampling(outputs.units, seed, level, resamples)
    metrics, each = rate_estimates(
        drawing,
        _counted(outputs, table),
        lambda totals: _values(totals, types),
        METRICS,
        (NOTHING, "no such entity is labelled or predicted here"),
        "entities",
    )
    if metrics["loss"].value is None:
        metrics["loss"] = undefined("no such entity is labelled or predicted here")
    labelled = spans_of(outputs.labels, outputs.counts, table)
    n = np.bincount(labelled.types, minlength=types)
    read = outputs.read
    metrics["ece"] = ece_estimate(read, ResampledUnits.of(read), seed, level)
    extra = {
        "confusion": confusion_of(outputs, table),
        "reliability": reliability(read),
        "per_class": rates_by_name(table.entities, n, each),
        "words": int(outputs.counts.sum()),
        "unread_words": int(np.isnan(outputs.chances).sum()),
    }
    return Scores(len(outputs.rows), metrics, extra)


def _counted(outputs: TagOutputs, table: TagTable) -> Floats:
    """Sums over sentences: found, predicted and labelled entities of each type, correct words and
    words, the loss and one where there is a loss.
    """
    entities = entity_counts(outputs.labels, outputs.answers, outputs.counts, table)
    right = outputs.labels == outputs.answers
    hits = np.bincount(outputs.sentences, right, len(outputs.rows))
    known = np.isfinite(outputs.losses)
    losses = np.where(known, outputs.losses, 0.0)
    return np.column_stack([entities, hits, outputs.counts, losses, known])


def _values(totals: Floats, types: int) -> Floats:
    """[resamples, 5 + 3 × types] of sums [resamples, 3 × types + 4]."""
    correct, predicted, labelled = (totals[:, i * types : (i + 1) * types] for i in range(3))
    hits, words, losses, rows = totals[:, 3 * types :].T
    with np.errstate(divide="ignore", invalid="ignore"):
        totals_all = [part.sum(axis=1) for part in (correct, predicted, labelled)]
        f1 = f1_of(totals_all[0], totals_all[2], totals_all[1])
        # Where only labels or only predictions have entities, both are 0, as in seqeval.
        precision, recall = (
            np.where(
                totals_all[i] > 0,
                totals_all[0] / totals_all[i],
                np.where(np.isfinite(f1), 0.0, np.nan),
            )
            for i in (1, 2)
        )
        averages = [f1, precision, recall, hits / words, losses / rows]
    return with_each(averages, correct, labelled, predicted)


def confusion_of(outputs: TagOutputs, table: TagTable) -> dict[str, Any]:
    """Words by the type of their label (lines) and of their prediction, whatever the prefix."""
    classes = [*table.entities, NO_ENTITY]
    pairs = table.types[outputs.labels] % len(classes), table.types[outputs.answers] % len(classes)
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, pairs, 1)
    return {"classes": classes, "counts": counts.tolist()}


def hardest_sentences(
    outputs: TagOutputs, sentences: list[list[str]], names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The largest losses, and the wrong sentences with the highest confidence of their least
    certain word.

    Words with a wrong tag are in brackets in ``text``; ``label`` and ``prediction`` list the
    entities.
    """
    table = TagTable.of(names)
    right = outputs.labels == outputs.answers
    wrong = np.bincount(outputs.sentences, ~right, len(outputs.rows)) > 0
    # A sentence without a read word has no loss.
    losses = np.nan_to_num(outputs.losses, nan=-np.inf)
    confidence = np.nan_to_num(outputs.confidence, nan=-np.inf)
    hits = outputs.by_sentence(right)
    labelled = _spelled(outputs.labels, outputs.counts, table, sentences)
    predicted = _spelled(outputs.answers, outputs.counts, table, sentences)

    def entry(i: int) -> dict[str, Any]:
        words = zip(sentences[i], hits[i], strict=True)
        return {
            "text": " ".join(word if hit else f"[{word}]" for word, hit in words),
            "label": labelled[i],
            "prediction": predicted[i],
            "confidence": finite(outputs.confidence[i]),
            "loss": finite(outputs.losses[i]),
        }

    return hardest_rows(outputs.rows, losses, (confidence, wrong), entry)


def _spelled(tags: Ints, counts: Ints, table: TagTable, sentences: list[list[str]]) -> list[str]:
    """The entities of each sentence as text: ``Anna (PER), New York (LOC)``."""
    spans = spans_of(tags, counts, table)
    sentence = np.repeat(np.arange(len(counts)), counts)
    begins = np.cumsum(counts) - counts
    spelled: list[list[str]] = [[] for _ in counts]
    for first, last, entity_type in zip(spans.first, spans.last, spans.types, strict=True):
        at = int(sentence[first])
        words = sentences[at][first - begins[at] : last - begins[at] + 1]
        spelled[at].append(f"{' '.join(words)} ({table.entities[entity_type]})")
    return [", ".join(entities) or NO_ENTITY for entities in spelled]
