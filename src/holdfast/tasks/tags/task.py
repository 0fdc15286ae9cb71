"""The token classification task: a tag for each word of a sentence (named entities)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import (
    FittedModel,
    ScoringRequest,
    ScoringResult,
    SplitRows,
    TaskDefinition,
    TrainingPlan,
    plain_facts,
)
from holdfast.contract.result import baseline_block, brief
from holdfast.contract.run_folder import MODEL
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.metric_names import higher_is_better
from holdfast.core.records import Decision, Finding, Floats, Ints, Scores
from holdfast.core.seeds import generator
from holdfast.core.wording import percent_phrase
from holdfast.data.table import Table
from holdfast.data.tags.scheme import are_untyped, entity_types
from holdfast.data.tags.sentences import load_tagged
from holdfast.methods.closed_form import HeadRefit
from holdfast.metrics import Metric
from holdfast.metrics.comparison import compare_losses
from holdfast.models.base import evaluating
from holdfast.models.encoders.checkpoint import load_saved_tagger
from holdfast.models.encoders.classifier import LoadedClassifier, load_tagger
from holdfast.models.layers import count_parameters
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.plan.adapters import load_options
from holdfast.plan.defaults import model_size
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.classes.baseline import MAJORITY, PROBE
from holdfast.tasks.classes.classifier import classifier, probe_network
from holdfast.tasks.tags.answers import (
    calibrated,
    load_plain_model,
    task_of,
    unread_tag,
    use_fitted,
    use_runs,
    words_in,
)
from holdfast.tasks.tags.losses import (
    WATCHED,
    EncodedWords,
    TokenClassification,
    encode_words,
    word_features,
)
from holdfast.tasks.tags.scores import (
    TagOutputs,
    hardest_sentences,
    score_tags,
    tag_outputs,
    word_outputs,
)
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.training.run import Run


# Words for the linear probe: a sample to choose its penalty on, and the words it is fitted to.
CHOSEN_ON, FITTED_TO = 2_000, 50_000
PASS_TOKENS = 2048
LISTED = 100


def read(source: str, data: DataPart, like: Table | None) -> Table:
    """Read the sentences of a source; ``like`` another table, with its columns and tags."""
    columns = like.columns if like is not None else None
    if data.template:
        rule = "does not apply to token-classification, which reads words"
        remedy = "Leave it out. To name the column of words, use --text."
        raise RecipeError("data.template", rule, data.template, remedy)
    column_names = {"text": columns.text, "label": columns.label} if columns else {}
    return load_tagged(source, data.row_options(like=like, **column_names))


def load(recipe: Recipe, table: Table) -> LoadedClassifier:
    """Load the recipe's model with a new layer of tags on every piece."""
    model = recipe.model
    loaded = load_tagger(model.name, table.names, load_options(recipe))
    total, _ = count_parameters(loaded.network)
    # As for classes: an encoder's word embeddings stay pretrained, unless an adapter freezes more.
    words = model.freeze is None and model.adapter.method is None
    settings = {"freeze": "words"} if words else {}
    return replace(loaded, settings=settings, defaults=f"{model_size(total)} encoder")


def refuse(recipe: Recipe) -> None:
    """Refuse settings that do not apply here."""
    given: dict[str, Any] = {
        "train.huber": recipe.train.huber,
        "model.pooling": recipe.model.pooling if recipe.model.pooling == "mean" else None,
        "data.label_separator": recipe.data.label_separator,
        "data.rare_classes": recipe.data.rare if recipe.data.rare != "refuse" else None,
        "data.label_kind": recipe.data.label_kind if recipe.data.label_kind != "several" else None,
    }
    for key, value in given.items():
        if value:
            raise RecipeError(key, "does not apply to token-classification", value, "Leave it out.")


def encode_rows(table: Table, loaded: LoadedClassifier, recipe: Recipe) -> EncodedWords:
    return encode_words(table, loaded.tokenizer, loaded.max_length)


def make_task(
    loaded: LoadedClassifier, table: Table, recipe: Recipe, metric: Metric | None
) -> TokenClassification:
    return TokenClassification(int(loaded.tokenizer.pad_token_id), table.names)


def find_metric(name: str) -> Metric:
    """Find the metric that ``train.metric`` names: one that every evaluation measures."""
    if name in WATCHED:
        return Metric(name, higher_is_better(name), 0.0, 1.0, lambda outputs, classes: None)
    rule = "is not a metric of token-classification"
    raise RecipeError(
        "train.metric", rule, name, suggest_name(name, ["loss", "refined_loss", *WATCHED])
    )


def check_examples(
    examples: EncodedWords, loaded: LoadedClassifier, split: str
) -> tuple[Finding, ...]:
    """Findings for words of sentences that are not read, and for tags without training
    words.
    """
    findings: list[Finding] = []
    names = loaded.network.classes
    total = max(1, int(examples.counts.sum()))
    long = examples.rows[examples.cut > 0]
    if len(long):
        words = int(examples.cut.sum())
        share = words / total
        findings.append(
            Finding(
                "truncated_sentences",
                "warn" if share > 0.05 else "info",
                share,
                len(long),
                tuple(int(row) for row in long[:LISTED]),
                f"{len(long)} {split} sentences have {words:,} words ({percent_phrase(share, 1)}) "
                f"beyond {loaded.max_length} pieces, which the model does not read; "
                "in predictions such words get the tag "
                f"{names[unread_tag(names, examples)]}, and every score counts it",
                "Split long sentences, or raise model.max_length if the model allows it.",
            )
        )
    without = np.setdiff1d(np.arange(len(names)), examples.tags)
    if len(without):
        bare = are_untyped(names)
        known = entity_types((names[tag] for tag in np.unique(examples.tags)), bare)
        missing = [names[tag] for tag in without]
        findings.append(
            Finding(
                "tags_without_training_words",
                # Harmless: a prefix that a learned type never has (of amounts that are one word).
                "info" if set(entity_types(missing, bare)) <= set(known) else "warn",
                len(without) / len(names),
                len(without),
                (),
                f"no {split} word has the tag {', '.join(missing[:12])}, so the "
                "model will never predict it",
                "Add sentences that contain it, if the tag matters.",
            )
        )
    return tuple(findings)


def listeners(training_plan: TrainingPlan) -> tuple[HeadRefit, ...]:
    """The last layer fitted to the pretrained features of the words: the baseline, and the initial
    layer.
    """
    seed, classes = training_plan.recipe.seed, len(training_plan.task.classes)

    def fit(features: Floats, labels: Ints) -> Probe:
        return fit_words(features, labels, classes, seed)

    return (HeadRefit(fit, bool(training_plan.recipe.methods["probe_first"]), read=words_read),)


def fit_words(features: Floats, labels: Ints, classes: int, seed: int) -> Probe:
    """The linear probe of words [words, width]; its penalty is chosen on a sample of them, since
    the choice takes forty fits.
    """
    if len(labels) <= CHOSEN_ON:
        return fit_probe(features, labels, classes=classes, seed=seed)
    some = generator(seed, "probe words").permutation(len(labels))[:CHOSEN_ON]
    probe = fit_probe(features[some], labels[some], classes=classes, seed=seed)
    return fit_probe(features, labels, classes=classes, seed=seed, c=probe.c)


def words_read(run: Run, examples: EncodedWords) -> tuple[Floats, Ints]:
    """The features [words, width] and tags of the sentences' words, in their order.

    Above ``FITTED_TO`` words they come from a fixed random sample of the sentences. Every process
    computes them all.
    """
    order = generator(run.plan.seed, "probe sentences").permutation(len(examples))
    enough = int(np.searchsorted(np.cumsum(examples.read[order]), FITTED_TO)) + 1
    some = examples.take(examples.kept[np.sort(order[:enough])])
    parts: list[Floats] = [np.zeros((0, 0))] * len(some)
    network, accelerator, task = run.network, run.job.accelerator, run.job.task
    with evaluating(network), accelerator.autocast():
        for batch_rows in batches_by_length(some.lengths, np.arange(len(some)), PASS_TOKENS):
            batch = device_batch(task, some, batch_rows, accelerator.device)
            features = word_features(network, batch).float().cpu().numpy()
            ends = np.cumsum(some.read[batch_rows])[:-1]
            for place, part in zip(batch_rows, np.split(features, ends), strict=True):
                parts[place] = part
    return np.concatenate(parts), some.tags


def save(folder: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the plain model with the temperature folded into its last layer."""
    calibration = calibrated(fitted)
    temperature = calibration.temperature
    classifier(fitted.network.cpu()).save(
        folder, fitted.training_plan.loaded.tokenizer, temperature
    )
    return {"temperature": temperature, "calibration": calibration}


def score_rows(request: ScoringRequest) -> ScoringResult:
    """Score the saved folder, reloaded in plain Transformers, and the baselines that were fitted on
    training words.
    """
    start = time.perf_counter()
    training_plan, table, names = (
        request.training_plan,
        request.table,
        request.training_plan.task.classes,
    )
    unread = unread_tag(names, words_in(training_plan.train))
    # The folder is scored, as anybody loads it, not the network in memory.
    saved = load_saved_tagger(request.run / MODEL)
    outputs = _predict_words(training_plan, saved.network, table, unread)
    test = score_tags(outputs, names)
    score_s = time.perf_counter() - start
    temperature = request.saved["temperature"]
    others = _other_rows(request, temperature, unread)
    baseline, baseline_decision = _baseline(request, outputs, unread)
    blocks = {
        "classes": list(names),
        "test": {**test.to_json(), "opened_at": request.opened_at},
        **others,
        "baseline": baseline,
        "hardest": hardest_sentences(outputs, table.column("tokens"), names),
        "model_facts": facts(request.fitted, request.saved),
        "careless": None,
    }
    decisions = (baseline_decision, request.saved["calibration"].decision)
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    return ScoringResult(blocks, decisions, seconds, predictions=_predictions(outputs, names))


def _predict_words(
    training_plan: TrainingPlan, network: Callable[..., torch.Tensor], table: Table, unread: int
) -> TagOutputs:
    loaded = training_plan.loaded
    assert isinstance(loaded, LoadedClassifier)
    examples = encode_words(table, loaded.tokenizer, loaded.max_length, need_words=False)
    logits = word_outputs(network, examples, task_of(training_plan))
    return tag_outputs(examples, logits, table, unread)


def _other_rows(request: ScoringRequest, temperature: float, unread: int) -> dict[str, Any]:
    """``valid`` and ``train_probe``: scores of the best checkpoint."""
    training_plan, splits = request.training_plan, request.training_plan.splits
    network = request.fitted.network.cpu().eval()
    train = words_in(training_plan.train)
    places = train.kept[training_plan.probe]
    inputs = {
        "valid": (words_in(training_plan.valid), splits.valid_rows.table),
        "train_probe": (train.take(places), splits.train_rows.table.take(places)),
    }

    def scored(examples: EncodedWords, table: Table) -> Scores:
        logits = word_outputs(network, examples, task_of(training_plan)) / temperature
        return score_tags(tag_outputs(examples, logits, table, unread), training_plan.task.classes)

    return {name: scored(*split_inputs).to_json() for name, split_inputs in inputs.items()}


def prediction_columns(split_rows: SplitRows) -> dict[str, Any]:
    """Predictions of the best checkpoint for training or validation sentences, calibrated."""
    fitted, examples = split_rows.fitted, words_in(split_rows.examples)
    training_plan, names = fitted.training_plan, fitted.training_plan.task.classes
    network = fitted.network.cpu().eval()
    logits = (
        word_outputs(network, examples, task_of(training_plan)) / split_rows.saved["temperature"]
    )
    unread = unread_tag(names, words_in(training_plan.train))
    return _predictions(tag_outputs(examples, logits, split_rows.table, unread), names)


def _baseline(
    request: ScoringRequest, outputs: TagOutputs, unread: int
) -> tuple[dict[str, Any], Decision]:
    """Score the linear probe and the most frequent tag.

    The one with the better entity F1 on the validation rows is the baseline, or with the smaller
    loss where they tie.
    """
    training_plan, names = request.training_plan, request.training_plan.task.classes
    network = probe_network(request)
    counts = np.bincount(words_in(training_plan.train).tags, minlength=len(names)).astype(
        np.float64
    )
    # One word more of each tag, so that a tag without training words costs no infinite loss.
    shares = np.log((counts + 1) / (counts.sum() + len(names))).astype(np.float32)

    def both(table: Table) -> dict[str, TagOutputs]:
        loaded = training_plan.loaded
        assert isinstance(loaded, LoadedClassifier)
        examples = encode_words(table, loaded.tokenizer, loaded.max_length, need_words=False)
        logits_by_name = {
            MAJORITY: np.tile(shares, (len(examples.tags), 1)),
            PROBE: word_outputs(network, examples, task_of(training_plan)),
        }
        return {
            selected: tag_outputs(examples, x, table, unread)
            for selected, x in logits_by_name.items()
        }

    # Chosen on validation rows: the better of two on test rows would be biased upwards.
    valid = both(training_plan.splits.valid_rows.table)
    on_valid = {selected: score_tags(made, names, resamples=1) for selected, made in valid.items()}
    selected = max(on_valid, key=lambda name: _merit(on_valid[name]))
    shown_f1 = ", ".join(f"{name} {_merit(scores)[0]:.3f}" for name, scores in on_valid.items())
    on_test = both(request.table)
    tests = {name: brief(score_tags(made, names)) for name, made in on_test.items()}
    # Sentences without a read word have no difference.
    known = np.isfinite(outputs.losses)
    comparison = compare_losses(
        np.where(known, outputs.losses, 0.0),
        np.where(known, on_test[PROBE].losses, 0.0),
        outputs.units,
    )
    block = baseline_block(tests, selected, comparison)
    return block, Decision("baseline", selected, f"entity F1 on the validation rows: {shown_f1}")


def _merit(scores: Scores) -> tuple[float, float]:
    f1, loss = scores.metrics["entity_f1"].value, scores.metrics["loss"].value
    return f1 or 0.0, -(loss if loss is not None else np.inf)


def facts(fitted: FittedModel, saved: Mapping[str, Any]) -> dict[str, Any]:
    """``model_facts`` of a tagger: with the tag of words that it does not read."""
    names = fitted.training_plan.task.classes
    unread = unread_tag(names, words_in(fitted.training_plan.train))
    return {**plain_facts(fitted, saved), "unread_tag": names[unread]}


def _predictions(outputs: TagOutputs, names: tuple[str, ...]) -> dict[str, Any]:
    """The columns of ``predictions.parquet``: lists of tags, and the confidence of each word's
    tag.
    """
    import pyarrow as pa

    tags = np.asarray(names, dtype=object)
    chances = [
        [None if np.isnan(p) else p for p in line] for line in outputs.by_sentence(outputs.chances)
    ]
    return {
        "row": pa.array(outputs.rows, pa.int64()),
        "label": pa.array(outputs.by_sentence(tags[outputs.labels]), pa.list_(pa.string())),
        "prediction": pa.array(outputs.by_sentence(tags[outputs.answers]), pa.list_(pa.string())),
        "loss": pa.array(outputs.losses, pa.float64(), from_pandas=True),
        "probabilities": pa.array(chances, pa.list_(pa.float64())),
    }


DEFINITION = TaskDefinition(
    name="token-classification",
    read=read,
    load=load,
    encode=encode_rows,
    make_task=make_task,
    check_examples=check_examples,
    listeners=listeners,
    save=save,
    score=score_rows,
    prediction_columns=prediction_columns,
    load_plain_model=load_plain_model,
    use_runs=use_runs,
    use_fitted=use_fitted,
    find_metric=find_metric,
    facts=facts,
    refuse=refuse,
)
