"""A model whose language or domain is not that of the rows: pretrained further on texts without
labels, with words of its own, and kept only where that is shown to help.

What is made is a plain folder that ``--model`` takes everywhere. The model as it was and as it
became are both fine-tuned on the training rows, as ``train`` does it, by two seeds each; their
losses of the validation rows, of which no text was read before, are compared row by row. No gain
beyond chance: no folder. The interval is over rows; how far two seeds lie from the mean of all is
not in it.
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
from holdfast.plan.language import sample_texts
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.search.choice.candidate import fertility
from holdfast.search.choice.evidence import bits_per_byte_rows
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
    """What is requested: ``texts`` a file to pretrain on, at most ``words`` new ones, ``steps`` of
    pretraining (``None``: worked out), and the folder ``out``."""

    out: Path
    texts: str | None = None
    words: int = 0
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """What became of ``model``: ``kept`` says whether it lies in ``folder``, ``because`` why.

    ``difference`` is by how much less a validation row costs it than the model as it was (value,
    low, high), in ``unit``; ``words`` were added, and a word of the rows takes so many ``pieces``
    before and after.
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
    """The adaptation that the options request; ``None`` without any."""
    if texts is None and not words and out is None:
        return None
    if words < 0:
        raise RecipeError("--extend", "must be at least 0", words, "Say how many words, e.g. 200.")
    if out is None:
        rule = "make a model, and nothing says where it is to lie"
        raise RecipeError("--adapt and --extend", rule, None, "Add --out FOLDER.")
    return AdaptationOptions(Path(out), None if texts is None else str(texts), words)


def check_adaptation(options: AdaptationOptions, task: str | None) -> None:
    """Refuse what cannot be done, before anything is read; the task once it is known."""
    if options.texts is None and not options.words:
        rule = "is where an adapted model goes, and nothing says how to adapt it"
        remedy = "Add --adapt FILE with texts, or --extend N for new words."
        raise RecipeError("--out", rule, str(options.out), remedy)
    refuse_existing(options.out, "a model")
    if task is not None and task not in TASKS:
        remedy = f"Leave them out; they are there for {' and '.join(TASKS)}."
        raise RecipeError("--adapt and --extend", f"are not built for {task}", None, remedy)


def adapt_model(
    divided: Divided, recipe: Recipe, texts: Sequence[str], options: AdaptationOptions
) -> AdaptedModel:
    """Adapt the model of a recipe to ``texts`` without labels, of which none copies a row that is
    held out, and try it on the rows of a split.

    Raises ``ModelError`` where the model cannot be pretrained further, ``DataError`` where there
    are too few texts, ``RunError`` where the folder is there.
    """
    check_adaptation(options, recipe.task)
    if divided.table.has_pairs:
        rule = f"are not built for pairs of texts ({recipe.task})"
        raise RecipeError("--adapt and --extend", rule, None, "Leave them out.")
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
    gap = f"{value:.4f} {unit} ({low:.4f} to {high:.4f})"
    rows_text = f"on {count_phrase(rows, 'validation row')}"
    because = (
        f"once fine-tuned it costs {gap} less a row than the model as it was, {rows_text}: kept"
        if kept
        else f"once fine-tuned it is not shown to be better than the model as it was: {gap} less a "
        f"row, {rows_text}; nothing was written"
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
    """The adapted model in ``folder``, a plain one: what its pretraining was, and its new words."""
    model = recipe.model
    source = find_model(model.name, revision=model.revision, trust=model.trust_remote_code)
    masked = purpose_of(str(source.folder)) == "encoder"
    tokenizer = load_tokenizer(source, model.trust_remote_code, need_pad=masked)
    if masked and options.texts is not None and tokenizer.mask_token_id is None:
        rule = "has no token that masks others, so it cannot be pretrained further"
        raise ModelError(model.name, rule, None, "Leave --adapt out.")
    model_with_head, base, is_new = _load_model(source, masked, recipe.seed)
    words: list[NewWord] = []
    if options.words:
        train_table = divided.splits.train.table
        all_texts = [*texts, *(text for text in train_table.column("text") if text)]
        words = extend_vocabulary(
            model_with_head, tokenizer, new_words(tokenizer, all_texts, options.words)
        )
        word_list = ", ".join(word.token.strip() for word in words[:8]) or "none"
        because = f"of the texts and training rows, those that save most tokens: {word_list}"
        notify(Decision("new words", f"{len(words):,}", because, prominent=True))
        if not words and options.texts is None:
            rule = "finds no word that the model takes apart and that stands in three places"
            remedy = "Its words are those of the rows already: leave it out."
            raise DataError("--extend", rule, options.words, remedy)
    pretraining = None
    if options.texts is not None:
        steps = options.steps or min(MAX_STEPS, max(1, DEFAULT_PASSES * len(texts) // BATCH))
        because = "masked tokens are said" if masked else "the next token is said"
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
    """The model with a head that pretrains, the plain one that is saved, and which weights of the
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
    """A plain folder, with what the first one said of lengths, licence and language."""
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
    """By how much less a validation row costs the adapted model than the other, both fine-tuned."""
    rows = []
    for name in (recipe.model.name, adapted):
        costs_by_seed = [_validation_costs(divided, recipe, name, seed) for seed in range(SEEDS)]
        rows.append(np.mean([costs for costs, _ in costs_by_seed], axis=0))
        units = costs_by_seed[0][1]
        score_text = f"{np.nanmean(rows[-1]):.4f} a validation row once fine-tuned, {SEEDS} seeds"
        label = "the model as it was" if name == recipe.model.name else "the adapted model"
        notify(Decision(label, "tried", score_text, prominent=True))
    finite = np.isfinite(rows[0]) & np.isfinite(rows[1])
    base_losses, adapted_losses = rows[0][finite], rows[1][finite]
    groups = np.unique(units[finite], return_inverse=True)[1]
    gap = paired_bootstrap(
        base_losses,
        adapted_losses,
        seed=generator(recipe.seed, "adapted or not"),
        groups=groups if len(np.unique(groups)) < len(groups) else None,
    )
    unit = "bits a byte" if recipe.task in DECODER_TASKS else "nats"
    return (gap.value, gap.low, gap.high), int(finite.sum()), unit


def _validation_costs(divided: Divided, recipe: Recipe, name: str, seed: int) -> tuple[Floats, Any]:
    """What each validation row costs a fit of ``train`` [n], and the rows' units [n]."""
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
