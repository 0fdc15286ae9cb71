"""Domain and language adaptation: pretrain a model further on unlabelled texts, optionally with new
tokens, and keep it only if that is shown to help.

The result is a plain folder that ``--model`` accepts everywhere. The original and the adapted model
are both fine-tuned on the training rows, as ``train`` does it, with two seeds each. Their
validation losses are compared row by row; no text of a validation row was read before. Without a
significant gain there is no folder. The interval is over rows; it does not include the variance
between seeds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, ModelError, RecipeError
from holdfast.core.files import disk_errors, new_folder, refuse_existing
from holdfast.core.records import Decision, Floats
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, LABELLED_TEXT_TASKS
from holdfast.core.wording import count_phrase
from holdfast.fits.fit import fit
from holdfast.models.encoders.vocabulary import NewWord, extend_vocabulary, new_words
from holdfast.models.loading.card import CARD, card_of, purpose_of
from holdfast.models.loading.checks import architectures
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import forget_limits, load_tokenizer
from holdfast.models.loading.weights import configuration, load_pretrained
from holdfast.plan.control import without_trials
from holdfast.plan.language import sample_texts
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.choice.candidate import fertility
from holdfast.search.choice.text_evidence import bits_per_byte_rows
from holdfast.stats.paired_tests import paired_bootstrap
from holdfast.stats.temperature import best_temperature, losses_at
from holdfast.training.pretrain import BATCH, PretrainingResult, pretrain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


TASKS = (*LABELLED_TEXT_TASKS, *DECODER_TASKS)
# Updates of the pretraining, where nobody says: three passes, and no more than these.
DEFAULT_PASSES, MAX_STEPS = 3, 400
SEEDS = 2
LIMITS_OF_SENTENCES = "sentence_bert_config.json"


@dataclass(frozen=True, slots=True)
class AdaptationOptions:
    """The adaptation options: a file of ``texts`` to pretrain on, at most ``words`` new tokens,
    ``steps`` of pretraining (``None``: chosen automatically), and the folder ``out``."""

    out: Path
    texts: str | None = None
    words: int = 0
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """The result of adapting ``model``: ``kept`` says whether it was saved in ``folder``,
    ``because`` why.

    ``difference`` is the reduction of the mean validation loss against the original model (value,
    low, high), in ``unit``; ``words`` were added, and ``pieces`` are the tokens per word of the
    rows before and after.
    """

    model: str
    kept: bool
    because: str
    folder: Path | None
    difference: tuple[float, float, float]
    unit: str
    rows: int
    words: tuple[NewWord, ...]
    pieces: tuple[float | None, float | None]
    pretrained: PretrainingResult | None

    def to_json(self) -> dict[str, Any]:
        value, low, high = self.difference
        pretraining = self.pretrained
        return {
            "model": self.model,
            "kept": self.kept,
            "because": self.because,
            "folder": None if self.folder is None else str(self.folder),
            "difference": {"value": value, "low": low, "high": high, "unit": self.unit},
            "rows": self.rows,
            "new_words": [word.token.strip() for word in self.words],
            "tokens_per_word": {"before": self.pieces[0], "after": self.pieces[1]},
            "pretrain": pretraining
            and {
                "steps": pretraining.steps,
                "kept": pretraining.best_step,
                "texts": pretraining.blocks,
                "held_out": pretraining.held_out,
                "loss_before": pretraining.loss_before,
                "loss_after": pretraining.loss_after,
            },
        }


def adaptation_options(
    texts: str | Path | None, words: int, out: str | Path | None
) -> AdaptationOptions | None:
    """The adaptation that the options request; ``None`` if they request none."""
    if texts is None and not words and out is None:
        return None
    if words < 0:
        raise RecipeError(
            "--extend", "must be at least 0", words, "Give a number of words, e.g. 200."
        )
    if out is None:
        rule = "make a model, but no output folder is given"
        raise RecipeError("--adapt and --extend", rule, None, "Add --out FOLDER.")
    return AdaptationOptions(Path(out), None if texts is None else str(texts), words)


def check_adaptation(options: AdaptationOptions, task: str | None) -> None:
    """Refuse impossible options before anything is read; the task is checked once it is known."""
    if options.texts is None and not options.words:
        rule = "is the folder of an adapted model, but no adaptation is requested"
        remedy = "Add --adapt FILE with texts, or --extend N for new words."
        raise RecipeError("--out", rule, str(options.out), remedy)
    refuse_existing(options.out, "a model")
    if task is not None and task not in TASKS:
        remedy = f"Remove them; they work for {' and '.join(TASKS)}."
        raise RecipeError("--adapt and --extend", f"do not support {task}", None, remedy)


def adapt_model(
    divided: Divided, recipe: Recipe, texts: Sequence[str], options: AdaptationOptions
) -> AdaptedModel:
    """Adapt the model of a recipe to unlabelled ``texts``, none of which duplicates a held-out row,
    and evaluate it on the rows of a split.

    Raises ``ModelError`` if the model cannot be pretrained further, ``DataError`` if there are too
    few texts, ``RunError`` if the folder exists.
    """
    check_adaptation(options, recipe.task)
    if divided.table.has_pairs:
        rule = f"do not support pairs of texts ({recipe.task})"
        raise RecipeError("--adapt and --extend", rule, None, "Remove them.")
    with new_folder(options.out, "a model") as (folder, finish):
        pretraining, words = build_adapted(recipe, divided, texts, options, folder)
        difference, rows, unit = compare_adapted(divided, recipe, str(folder))
        validation_texts = sample_texts(divided.splits.valid.table, recipe.seed)
        before, after = (
            fertility(load_tokenizer(find_model(name), need_pad=False), validation_texts)[0]
            for name in (recipe.model.name, str(folder))
        )
        value, low, high = difference
        kept = low > 0
        if kept:
            finish()
    gap = f"{value:.4f} {unit} (95 % CI {low:.4f} to {high:.4f})"
    rows_text = f"on {count_phrase(rows, 'validation row')}"
    because = (
        f"after fine-tuning its validation loss is lower than the original model's by {gap}, "
        f"{rows_text}: kept"
        if kept
        else "no improvement over the original model can be shown after fine-tuning: its "
        f"validation loss minus the adapted model's is {gap}, {rows_text}; nothing was written"
    )
    return AdaptedModel(
        recipe.model.name,
        kept,
        because,
        options.out if kept else None,
        difference,
        unit,
        rows,
        tuple(words),
        (before, after),
        pretraining,
    )


def build_adapted(
    recipe: Recipe, divided: Divided, texts: Sequence[str], options: AdaptationOptions, folder: Path
) -> tuple[PretrainingResult | None, list[NewWord]]:
    """Save the adapted model in ``folder``; returns what its pretraining was, and its new
    tokens."""
    model = recipe.model
    source = find_model(model.name, revision=model.revision, trust=model.trust_remote_code)
    masked = purpose_of(str(source.folder)) == "encoder"
    tokenizer = load_tokenizer(source, model.trust_remote_code, need_pad=masked)
    if masked and options.texts is not None and tokenizer.mask_token_id is None:
        rule = "has no mask token, so it cannot be pretrained further"
        raise ModelError(model.name, rule, None, "Remove --adapt.")
    model_with_head, base, is_new = _load_model(source, masked, recipe.seed)
    words: list[NewWord] = []
    if options.words:
        train_table = divided.splits.train.table
        all_texts = [*texts, *(text for text in train_table.column("text") if text)]
        words = extend_vocabulary(
            model_with_head, tokenizer, new_words(tokenizer, all_texts, options.words)
        )
        word_list = ", ".join(word.token.strip() for word in words[:8]) or "none"
        because = f"the words of texts and training rows that save most tokens: {word_list}"
        notify(Decision("new words", f"{len(words):,}", because, prominent=True))
        if not words and options.texts is None:
            rule = "finds no word that occurs at least 3 times and that the tokenizer splits"
            remedy = "Remove --extend: the vocabulary already fits the rows."
            raise DataError("--extend", rule, options.words, remedy)
    pretraining = None
    if options.texts is not None:
        steps = options.steps or min(MAX_STEPS, max(1, DEFAULT_PASSES * len(texts) // BATCH))
        because = "predicting masked tokens" if masked else "predicting the next token"
        notify(Decision("pretraining", f"{count_phrase(steps, 'update')}", because, prominent=True))
        pretraining = pretrain(
            model_with_head,
            tokenizer,
            texts,
            masked=masked,
            steps=steps,
            seed=recipe.seed,
            is_new=is_new,
        )
    _save(source, model_with_head, base, tokenizer, folder)
    return pretraining, words


def _load_model(source: Source, masked: bool, seed: int) -> tuple[Any, Any, Any]:
    """The model with a pretraining head, the plain model that is saved, and which weights of the
    first are new."""
    import transformers

    config, auto_class = configuration(source), transformers.AutoModelForCausalLM
    if not masked:
        model_with_head = load_pretrained(
            auto_class, source, config, "a causal language model", seed=seed
        )
        return model_with_head, model_with_head, lambda name: False

    def pooler(key: str) -> bool:
        return key.startswith("pooler.")

    base = load_pretrained(
        transformers.AutoModel, source, config, "an encoder", seed=seed, new=pooler
    )
    has_own_head = any(name.endswith("ForMaskedLM") for name in architectures(source.config))
    prefix = f"{base.base_model_prefix}."

    def is_new(name: str) -> bool:
        return not has_own_head and not name.startswith(prefix)

    model_with_head = load_pretrained(
        transformers.AutoModelForMaskedLM,
        source,
        configuration(source),
        "a masked language model",
        seed=seed,
        new=lambda key: not key.startswith(prefix),
    )
    return model_with_head, base, is_new


def _save(
    source: Source,
    model_with_head: Any,
    base: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """Save a plain folder, with the lengths, licence and languages of the original."""
    if base is not model_with_head:
        size = model_with_head.get_input_embeddings().weight.shape[0]
        base.resize_token_embeddings(size, mean_resizing=False)
        # Its pooling layer is in no masked language model, and stays as it was.
        base.load_state_dict(model_with_head.base_model.state_dict(), strict=False)
    with disk_errors(folder), quiet_transformers():
        base.cpu().eval().save_pretrained(folder)
        forget_limits(tokenizer)
        tokenizer.save_pretrained(folder)
        limits = source.folder / LIMITS_OF_SENTENCES
        if limits.is_file():
            shutil.copy(limits, folder / LIMITS_OF_SENTENCES)
        card = card_of(source)
        front_matter = {"license": card.licence, "language": list(card.languages)}
        stated = [f"{key}: {json.dumps(value)}" for key, value in front_matter.items() if value]
        lines = ["---", *stated, "---", "", f"# {source.name}, adapted by Holdfast", ""]
        (folder / CARD).write_text("\n".join(lines), encoding="utf-8")


def compare_adapted(
    divided: Divided, recipe: Recipe, adapted: str
) -> tuple[tuple[float, float, float], int, str]:
    """The reduction of the validation loss per row by adaptation, both models fine-tuned."""
    recipe, policy_decisions = without_trials(
        recipe, "both models are compared with the same settings"
    )
    notify(*policy_decisions)
    rows = []
    for name in (recipe.model.name, adapted):
        costs_by_seed = [_validation_costs(divided, recipe, name, seed) for seed in range(SEEDS)]
        rows.append(np.mean([costs for costs, _ in costs_by_seed], axis=0))
        units = costs_by_seed[0][1]
        score_text = f"mean validation loss {np.nanmean(rows[-1]):.4f}, {SEEDS} seeds"
        label = "the original model" if name == recipe.model.name else "the adapted model"
        notify(Decision(label, "fine-tuned", score_text, prominent=True))
    finite = np.isfinite(rows[0]) & np.isfinite(rows[1])
    base_losses, adapted_losses = rows[0][finite], rows[1][finite]
    groups = np.unique(units[finite], return_inverse=True)[1]
    gap = paired_bootstrap(
        base_losses,
        adapted_losses,
        seed=generator(recipe.seed, "adapted or not"),
        groups=groups if len(np.unique(groups)) < len(groups) else None,
    )
    unit = "bits per byte" if recipe.task in DECODER_TASKS else "nats"
    return (gap.value, gap.low, gap.high), int(finite.sum()), unit


def _validation_costs(divided: Divided, recipe: Recipe, name: str, seed: int) -> tuple[Floats, Any]:
    """The loss of each validation row in a fit of ``train`` [n], and the rows' units [n]."""
    seeded = recipe.with_changes(model={"name": name}).model_copy(
        update={"seed": recipe.seed + seed}
    )
    prepared, train, valid = prepare_divided(seeded, divided.splits, extend=False)
    fitted = fit(prepared, train, valid)
    examples: Any = fitted.training_plan.valid
    losses, outputs = fitted.measure(examples)
    if seeded.task in DECODER_TASKS:
        costs = -bits_per_byte_rows(
            examples, losses, outputs, fitted.training_plan.loaded.tokenizer
        )
    elif prepared.rows.columns.one_class:
        temperature, _ = best_temperature(outputs, examples.labels)
        costs = losses_at(outputs, examples.labels, temperature)
    else:
        costs = losses
    return costs, prepared.units[valid]
