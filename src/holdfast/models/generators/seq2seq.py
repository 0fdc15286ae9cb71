"""A name or folder → an encoder-decoder ready to be trained, its tokenizer and the reasons."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision, Ints
from holdfast.models.adapters.quantize import QuantizeSpec, load_settings, settle
from holdfast.models.generators.seq2seq_network import PLAIN_INPUTS, Seq2SeqNetwork
from holdfast.models.loading.checks import architectures, loading
from holdfast.models.loading.limits import stated_limit
from holdfast.models.loading.source import Source, find_model
from holdfast.models.loading.tokenizer import load_tokenizer
from holdfast.models.loading.weights import (
    check_writes,
    configuration,
    describe,
    held_in,
    pretrained,
)

if TYPE_CHECKING:
    from transformers import (
        GenerationConfig,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

DROPOUTS = (
    "dropout_rate",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
)
SOURCE_UNASKED, TARGET_UNASKED = 512, 256
LOOKED_AT = 2000
NO_LIMIT = 1_000_000
TARGET_LENGTH = "model.max_target_length"


@dataclass(frozen=True)
class LoadedSeq2Seq:
    """What ``load_seq2seq`` gives. ``max_length`` and ``max_target_length`` are the tokens that
    sources and targets are cut to; ``settings`` are what the recipe must keep of the choices.
    ``ending`` tokens end a target; ``by_targets`` says that training targets have still to decide
    how long one may be."""

    network: Seq2SeqNetwork
    tokenizer: Any
    max_length: int
    max_target_length: int
    decisions: tuple[Decision, ...]
    facts: dict[str, Any]
    ending: int = 1
    by_targets: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        return {"max_target_length": self.max_target_length}

    @property
    def defaults(self) -> str:
        """T5's family learns at higher rates than the rest."""
        return "t5" if "t5" in str(self.facts["architecture"]) else "seq2seq"


def load_seq2seq(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_length: int | None = None,
    max_target_length: int | None = None,
    dropout: float | None = None,
    seed: int = 0,
    quantize: QuantizeSpec | None = None,
    dtype: str = "float32",
) -> LoadedSeq2Seq:
    """Load an encoder-decoder (T5, Flan-T5, mT5, BART, Pegasus, Marian …) in evaluation
    mode, its weights held in ``dtype``.

    The vocabulary is never resized. Without ``max_target_length`` a target may have 256 tokens,
    until ``for_targets`` knows how long those of a fit are. What ``quantize`` asks for needs an
    adapter later.

    Raises
    ------
    ModelError : the model cannot be found or read, or is no encoder-decoder.
    RecipeError : more tokens are asked for than the model has positions.
    """
    from transformers import AutoModelForSeq2SeqLM

    check_writes(name, "an encoder-decoder", "google/flan-t5-small")
    source = find_model(name, revision=revision, trust=trust_remote_code)
    config = _config(source, dropout)
    tokenizer = load_tokenizer(source, trust_remote_code)
    # What a saved copy yields must be what the model takes, in any library.
    tokenizer.model_input_names = list(PLAIN_INPUTS)
    tokenizer.init_kwargs["model_input_names"] = list(PLAIN_INPUTS)
    with loading(source.name, "states no length that can be used"):
        lengths = _lengths(config, tokenizer, max_length, max_target_length)
    plain = pretrained(
        AutoModelForSeq2SeqLM,
        source,
        config,
        "an encoder-decoder",
        seed=seed,
        dtype=dtype,
        **load_settings(quantize.config if quantize else None),
    )
    packed = settle(plain, quantize, source.name) if quantize else held_in(dtype)
    tokens = settle_tokens(plain, tokenizer)
    network = Seq2SeqNetwork(plain)
    network.eval()
    return LoadedSeq2Seq(
        network,
        tokenizer,
        int(lengths[0].chosen),
        int(lengths[1].chosen),
        (*source.decisions, *packed, *lengths, *tokens),
        describe(
            source,
            network,
            str(source.config.get("model_type")),
            pooling=None,
            vocabulary=int(network.config.vocab_size),
        ),
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
    return replace(loaded, max_target_length=length, decisions=decisions, by_targets=False)


def settle_tokens(
    plain: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[Decision, ...]:
    """Make the model begin, end and pad its texts with the tokens that the tokenizer has.

    A model and a tokenizer that belong together agree already, and nothing changes.
    """
    decisions = []
    config, generation = plain.config, plain.generation_config
    end = end_token(tokenizer)
    wanted = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": end}
    for key, token in wanted.items():
        found = _setting(config, key)
        same = token in found if isinstance(found, list) else found == token
        if not same:
            _set(config, generation, key, token)
            because = "the tokenizer's, where the model's configuration says another"
            decisions.append(
                Decision(key.removesuffix("_id").replace("_", " "), str(token), because)
            )
            # BART's family forces this one at the end, whatever the other says.
            if key == "eos_token_id" and generation.forced_eos_token_id is not None:
                generation.forced_eos_token_id = token
    if _setting(config, "decoder_start_token_id") is None:
        start = _first_of(tokenizer.bos_token_id, tokenizer.pad_token_id)
        _set(config, generation, "decoder_start_token_id", start)
        because = "the model names none"
        decisions.append(Decision("decoder start token", str(start), because))
    return tuple(decisions)


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
    added = itertools.takewhile(
        special.__contains__, reversed(tokenizer(text_target="a")["input_ids"])
    )
    return max(1, len(list(added)))


def position_limit(config: PretrainedConfig) -> int | None:
    """The positions of the model; ``None`` where they are relative (T5, mT5)."""
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions) if positions else None


def _first_of(*tokens: int | None) -> int | None:
    return next((int(token) for token in tokens if token is not None), None)


def _setting(config: PretrainedConfig, key: str) -> Any:
    return getattr(config, key, None)


def _set(
    config: PretrainedConfig, generation: GenerationConfig, key: str, token: int | None
) -> None:
    setattr(config, key, token)
    setattr(generation, key, token)


def _config(source: Source, dropout: float | None) -> Any:
    config = configuration(source, dropout, DROPOUTS)
    named = architectures(source.config)
    headless = bool(named) and not any(
        n.endswith(("Generation", "LMHeadModel", "MTModel")) for n in named
    )
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
