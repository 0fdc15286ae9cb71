"""A name or folder → an encoder-decoder ready to be trained, its tokenizer and the reasons."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.models.base import Loaded, decisions_in
from holdfast.models.generators.base import check_writes, pretrained_generator
from holdfast.models.generators.seq2seq_network import PLAIN_INPUTS, Seq2SeqNetwork
from holdfast.models.loading.checks import architectures, loading
from holdfast.models.loading.options import AS_IT_IS, LoadOptions
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import NO_LIMIT, limit_inputs, load_tokenizer, stated_limit
from holdfast.models.loading.weights import configuration, describe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

WHAT = "an encoder-decoder"
DROPOUTS = (
    "dropout_rate",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
)
SOURCE_UNASKED, TARGET_UNASKED = 512, 256
LOOKED_AT = 2000
TARGET_LENGTH = "model.max_target_length"


@dataclass(frozen=True)
class LoadedSeq2Seq(Loaded):
    """What ``load_seq2seq`` gives. ``max_length`` and ``max_target_length`` are the tokens that
    sources and targets are cut to; ``settings`` are what the recipe must keep of the choices.
    ``ending`` tokens end a target; ``by_targets`` says that training targets have still to decide
    how long one may be."""

    network: Seq2SeqNetwork
    max_length: int
    ending: int = 1
    by_targets: bool = False

    @property
    def max_target_length(self) -> int:
        """The tokens that targets are cut to."""
        return int(self.settings["max_target_length"])


def load_seq2seq(
    name: str, options: LoadOptions = AS_IT_IS, *, max_target_length: int | None = None
) -> LoadedSeq2Seq:
    """Load an encoder-decoder (T5, Flan-T5, mT5, BART, Pegasus, Marian …) in evaluation mode.

    The vocabulary is never resized. Without ``max_target_length`` a target may have 256 tokens,
    until ``for_targets`` knows how long those of a fit are. What ``quantize`` asks for needs an
    adapter later.

    Raises
    ------
    ModelError : the model cannot be found or read, or is no encoder-decoder.
    RecipeError : more tokens are asked for than the model has positions.
    """
    from transformers import AutoModelForSeq2SeqLM

    check_writes(name, WHAT, "google/flan-t5-small")
    source = find_model(name, revision=options.revision, trust=options.trust_remote_code)
    config = _config(source, options.dropout)
    tokenizer = load_tokenizer(source, options.trust_remote_code)
    # What a saved copy yields must be what the model takes, in any library.
    limit_inputs(tokenizer, PLAIN_INPUTS)
    with loading(source.name, "states no length that can be used"):
        first, second = _lengths(config, tokenizer, options.max_length, max_target_length)
    with record_decisions() as log:
        notify(*source.decisions)
        plain = pretrained_generator(AutoModelForSeq2SeqLM, source, config, WHAT, options)
        notify(first, second)
        settle_tokens(plain, tokenizer)
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
        ending=_ending(tokenizer),
        by_targets=max_target_length is None,
    )


def for_targets(loaded: LoadedSeq2Seq, sizes: Ints) -> LoadedSeq2Seq:
    """The same with the limit that training targets of these ``sizes`` [rows] in tokens ask for:
    the longest, up to what was loaded for. A limit that was asked for stays."""
    if not loaded.by_targets:
        return loaded
    most, step = loaded.max_target_length, max(1, len(sizes) // LOOKED_AT)
    looked = sizes[::step]
    longest = int(looked.max()) if len(looked) else most
    length = min(most, -(-(longest + 1) // 8) * 8)
    share = float((looked > length).mean()) if len(looked) else 0.0
    # Of a text far beyond the limit only the beginning was turned into tokens.
    size = f"{longest}" if longest <= most else f"more than {most}"
    because = f"the longest of {len(looked)} training targets has {size} tokens"
    because += f"; {share:.1%} of them are longer than this" if share else ""
    chosen = Decision(TARGET_LENGTH, str(length), because)
    decisions = tuple(chosen if d.what == TARGET_LENGTH else d for d in loaded.decisions)
    settings = {"max_target_length": length}
    return replace(loaded, settings=settings, decisions=decisions, by_targets=False)


def settle_tokens(plain: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the model begin, end and pad its texts with the tokens that the tokenizer has.

    A model and a tokenizer that belong together agree already, and nothing changes.
    """
    config, generation = plain.config, plain.generation_config

    def use(key: str, token: int | None, because: str) -> None:
        setattr(config, key, token)
        setattr(generation, key, token)
        notify(Decision(key.removesuffix("_id").replace("_", " "), str(token), because))

    end = end_token(tokenizer)
    for key, token in (("pad_token_id", tokenizer.pad_token_id), ("eos_token_id", end)):
        found = getattr(config, key, None)
        if not (token in found if isinstance(found, list) else found == token):
            use(key, token, "the tokenizer's, where the model's configuration says another")
            # BART's family forces this one at the end, whatever the other says.
            if key == "eos_token_id" and generation.forced_eos_token_id is not None:
                generation.forced_eos_token_id = token
    if getattr(config, "decoder_start_token_id", None) is None:
        start = _first_of(tokenizer.bos_token_id, tokenizer.pad_token_id)
        use("decoder_start_token_id", start, "the model names none")


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a target: the last special one that the tokenizer adds, else its own.

    Raises ``ModelError`` where there is none: a model could not learn to stop.
    """
    last = tokenizer(text_target="a")["input_ids"][-1]
    if last in tokenizer.all_special_ids and last != tokenizer.unk_token_id:
        return int(last)
    end = _first_of(tokenizer.eos_token_id, tokenizer.sep_token_id)
    if end is None:
        raise ModelError(
            "tokenizer",
            "has no token that ends a text, so the model could not learn to stop",
            None,
            "Use a tokenizer with an eos_token.",
        )
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
            "is no encoder-decoder that writes text",
            named or config.model_type,
            "Choose a sequence-to-sequence model (T5, Flan-T5, mT5, BART, Pegasus, Marian …), or "
            "another task.",
        )
    return config


def _lengths(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    asked: int | None,
    asked_target: int | None,
) -> tuple[Decision, Decision]:
    """The limits of source and target, in tokens, special ones included."""
    positions = position_limit(config)
    for key, value in (("max_length", asked), ("max_target_length", asked_target)):
        if value is not None and positions is not None and value > positions:
            raise RecipeError(
                f"model.{key}",
                f"must be at most the model's {positions} positions",
                value,
                f"Use --set model.{key}={positions}, or a model for longer texts.",
            )
    room = positions or NO_LIMIT
    if asked is not None:
        first = Decision("model.max_length", str(asked), "set by you")
    else:
        stated = min(stated_limit(tokenizer.model_max_length or None), room)
        if stated < SOURCE_UNASKED:
            first = Decision("model.max_length", str(stated), "the model states this limit")
        else:
            because = f"longer texts cost much memory; model.max_length takes up to {stated}"
            because = because if stated < NO_LIMIT else because.partition(" takes")[0] + " sets it"
            first = Decision("model.max_length", str(SOURCE_UNASKED), because)
    if asked_target is not None:
        return first, Decision(TARGET_LENGTH, str(asked_target), "set by you")
    most = str(min(room, TARGET_UNASKED))
    return first, Decision(TARGET_LENGTH, most, "at most, until training targets are known")
