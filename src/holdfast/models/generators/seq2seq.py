"""From a name or folder to an encoder-decoder ready for training, its tokenizer and the reasons."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import decisions_in, notify, record_decisions
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.core.wording import percent_phrase
from holdfast.models.base import LoadedModel
from holdfast.models.generators.base import check_generates, pretrained_generator
from holdfast.models.generators.seq2seq_network import PLAIN_INPUTS, Seq2SeqNetwork
from holdfast.models.loading.checks import architectures, loading
from holdfast.models.loading.options import DEFAULT_LOAD_OPTIONS, LoadOptions
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import NO_LIMIT, limit_inputs, load_tokenizer, stated_limit
from holdfast.models.loading.weights import configuration, describe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DESCRIPTION = "an encoder-decoder"
DROPOUTS = (
    "dropout_rate",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
)
DEFAULT_SOURCE_LENGTH, DEFAULT_TARGET_LENGTH = 512, 256
SAMPLED_TARGETS = 2000
TARGET_LENGTH = "model.max_target_length"


@dataclass(frozen=True)
class LoadedSeq2Seq(LoadedModel):
    """The result of ``load_seq2seq``. ``max_length`` and ``max_target_length`` are the tokens that
    sources and targets are cut to; ``settings`` are the choices that the recipe must store.
    ``n_end_tokens`` tokens end a target; ``length_from_targets``: training targets still determine
    the longest target."""

    network: Seq2SeqNetwork
    max_length: int
    n_end_tokens: int = 1
    length_from_targets: bool = False

    @property
    def max_target_length(self) -> int:
        """The tokens that targets are cut to."""
        return int(self.settings["max_target_length"])


def load_seq2seq(
    name: str, options: LoadOptions = DEFAULT_LOAD_OPTIONS, *, max_target_length: int | None = None
) -> LoadedSeq2Seq:
    """Load an encoder-decoder (T5, Flan-T5, mT5, BART, Pegasus, Marian …) in evaluation mode.

    The vocabulary is never resized. Without ``max_target_length`` a target may have 256 tokens,
    until ``limit_by_targets`` knows how long those of a fit are. What ``quantize`` asks for needs
    an adapter later.

    Raises
    ------
    ModelError : the model cannot be found or read, or is no encoder-decoder.
    RecipeError : more tokens are asked for than the model has positions.
    """
    from transformers import AutoModelForSeq2SeqLM

    check_generates(name, DESCRIPTION, "google/flan-t5-small")
    source = find_model(name, revision=options.revision, trust=options.trust_remote_code)
    config = _config(source, options.dropout)
    tokenizer = load_tokenizer(source, options.trust_remote_code)
    # What a saved copy yields must be what the model takes, in any library.
    limit_inputs(tokenizer, PLAIN_INPUTS)
    with loading(source.name, "states no length that can be used"):
        first, second = _lengths(config, tokenizer, options.max_length, max_target_length)
    with record_decisions() as log:
        notify(*source.decisions)
        plain = pretrained_generator(AutoModelForSeq2SeqLM, source, config, DESCRIPTION, options)
        notify(first, second)
        align_special_tokens(plain, tokenizer)
    network = Seq2SeqNetwork(plain).eval()
    architecture = str(source.config.get("model_type"))
    vocabulary = int(network.config.vocab_size)
    return LoadedSeq2Seq(
        network,
        tokenizer,
        int(first.chosen),
        decisions_in(log),
        describe(source, network, architecture, pooling=None, vocabulary=vocabulary),
        settings={"max_target_length": int(second.chosen)},
        # T5's family learns at higher rates than the rest.
        defaults="t5" if "t5" in architecture else "seq2seq",
        n_end_tokens=_ending(tokenizer),
        length_from_targets=max_target_length is None,
    )


def limit_by_targets(loaded: LoadedSeq2Seq, sizes: Ints) -> LoadedSeq2Seq:
    """The same model with the limit from training targets of these ``sizes`` [rows] in tokens: the
    longest, up to the limit at loading. A requested limit stays."""
    if not loaded.length_from_targets:
        return loaded
    limit, step = loaded.max_target_length, max(1, len(sizes) // SAMPLED_TARGETS)
    sampled = sizes[::step]
    longest = int(sampled.max()) if len(sampled) else limit
    length = min(limit, -(-(longest + 1) // 8) * 8)
    share = float((sampled > length).mean()) if len(sampled) else 0.0
    # Of a text far beyond the limit only the beginning was turned into tokens.
    size = f"{longest}" if longest <= limit else f"more than {limit}"
    because = f"the longest of {len(sampled)} training targets has {size} tokens"
    because += f"; {percent_phrase(share, 1)} of them are longer than this" if share else ""
    decision = Decision(TARGET_LENGTH, str(length), because)
    decisions = tuple(decision if d.what == TARGET_LENGTH else d for d in loaded.decisions)
    settings = {"max_target_length": length}
    return replace(loaded, settings=settings, decisions=decisions, length_from_targets=False)


def align_special_tokens(plain: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the model begin, end and pad its texts with the tokenizer's tokens.

    A model and a tokenizer that belong together agree already, and nothing changes.
    """
    config, generation = plain.config, plain.generation_config

    def set_token(key: str, token: int | None, because: str) -> None:
        setattr(config, key, token)
        setattr(generation, key, token)
        notify(Decision(key.removesuffix("_id").replace("_", " "), str(token), because))

    end = end_token(tokenizer)
    for key, token in (("pad_token_id", tokenizer.pad_token_id), ("eos_token_id", end)):
        configured = getattr(config, key, None)
        if not (token in configured if isinstance(configured, list) else configured == token):
            set_token(key, token, "the tokenizer's, where the model's configuration says another")
            # BART's family forces this one at the end, whatever the other says.
            if key == "eos_token_id" and generation.forced_eos_token_id is not None:
                generation.forced_eos_token_id = token
    if getattr(config, "decoder_start_token_id", None) is None:
        start = _first_of(tokenizer.bos_token_id, tokenizer.pad_token_id)
        set_token("decoder_start_token_id", start, "the model names none")


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a target: the last special one that the tokenizer adds, else its own.

    Raises ``ModelError`` if there is none: a model could not learn to stop.
    """
    last = tokenizer(text_target="a")["input_ids"][-1]
    if last in tokenizer.all_special_ids and last != tokenizer.unk_token_id:
        return int(last)
    end = _first_of(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if end is None:
        rule = "has no token that ends a text, so the model could not learn to stop"
        raise ModelError("tokenizer", rule, None, "Use a tokenizer with an eos_token.")
    return end


def _ending(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens end a target: those that the tokenizer adds, else the one that is added for
    it (see ``end_token``)."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = reversed(tokenizer(text_target="a")["input_ids"])
    return max(1, len(list(itertools.takewhile(special.__contains__, ids))))


def position_limit(config: PretrainedConfig) -> int | None:
    """The positions of the model; ``None`` where they are relative (T5, mT5)."""
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions) if positions else None


def _first_of(*tokens: int | None) -> int | None:
    return next((int(token) for token in tokens if token is not None), None)


def _config(source: Source, dropout: float | None) -> Any:
    config = configuration(source, dropout, DROPOUTS)
    named = architectures(source.config)
    writers = ("Generation", "LMHeadModel", "MTModel")
    headless = bool(named) and not any(n.endswith(writers) for n in named)
    if not config.is_encoder_decoder or headless:
        raise ModelError(
            source.name,
            "is not an encoder-decoder that generates text",
            named or config.model_type,
            "Choose a sequence-to-sequence model (T5, Flan-T5, mT5, BART, Pegasus, Marian …), or "
            "another task.",
        )
    return config


def _lengths(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    requested: int | None,
    requested_target: int | None,
) -> tuple[Decision, Decision]:
    """The limits of source and target, in tokens, special ones included."""
    positions = position_limit(config)
    for key, value in (("max_length", requested), ("max_target_length", requested_target)):
        if value is not None and positions is not None and value > positions:
            rule = f"must be at most the model's {positions} positions"
            remedy = f"Use --set model.{key}={positions}, or a model for longer texts."
            raise RecipeError(f"model.{key}", rule, value, remedy)
    limit = positions or NO_LIMIT
    if requested is not None:
        first = Decision("model.max_length", str(requested), "set in the recipe")
    else:
        stated = min(stated_limit(tokenizer.model_max_length or None), limit)
        if stated < DEFAULT_SOURCE_LENGTH:
            first = Decision("model.max_length", str(stated), "the model states this limit")
        else:
            because = f"longer texts cost much memory; model.max_length takes up to {stated}"
            because = because if stated < NO_LIMIT else because.partition(" takes")[0] + " sets it"
            first = Decision("model.max_length", str(DEFAULT_SOURCE_LENGTH), because)
    if requested_target is not None:
        return first, Decision(TARGET_LENGTH, str(requested_target), "set in the recipe")
    most = str(min(limit, DEFAULT_TARGET_LENGTH))
    return first, Decision(TARGET_LENGTH, most, "at most, until training targets are known")
