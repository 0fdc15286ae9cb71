"""The tokenizer of a model, without the limits in its file, and how many tokens of a text are
used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.models.loading.checks import loading, read_object
from holdfast.models.loading.source import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

PIECES = "If it is a SentencePiece one: pip install 'holdfast[sentencepiece]'."
SETTING = "model.max_length"
DEFAULT_MAX_LENGTH, CHAT_MAX_LENGTH = 512, 1024
# Tokenizers without a limit carry a huge number in its place.
NO_LIMIT = 1_000_000
MIN_LENGTH = 4  # two special tokens, and two of a text
# Below this a text is tokenised whole, as ever: an article is far below, a novel just reaches it.
LONG = 1_000_000
SPARE_PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|PAD_TOKEN|>")
# Their table of positions begins after the padding index.
POSITIONS_AFTER_PADDING = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
# Of tokens wanted, so that what is cut off cannot reach back to those that are read.
TOKEN_MARGIN = 2
# Far above the mean of any language; English has some four.
CHARACTERS_A_TOKEN = 25


def load_tokenizer(source: Source, trust: bool = False, need_pad: bool = True) -> Any:
    """The model's tokenizer, without truncation or padding of its own.

    A ``tokenizer.json`` may truncate and pad every text by itself (all-MiniLM's does so at 128
    tokens); a saved folder would keep that unnoticed. It returns only what the model takes.

    Raises
    ------
    ModelError : it cannot be read, has no padding token, or knows more tokens than the model.
    """
    from transformers import AutoTokenizer

    with loading(source.name, "has a tokenizer that cannot be read", PIECES):
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=trust)
    # Saved as it is, it would need the code that it came from.
    if not type(tokenizer).__module__.startswith("transformers."):
        tokenizer = _as_plain(source, tokenizer)
    forget_limits(tokenizer)
    if need_pad and tokenizer.pad_token_id is None:
        remedy = "Choose an encoder: texts of unlike length cannot share a batch without one."
        raise ModelError(source.name, "has a tokenizer without a padding token", None, remedy)
    n_embeddings = source.config.get("vocab_size", len(tokenizer))
    if not isinstance(n_embeddings, int) or len(tokenizer) > n_embeddings:
        rule = f"has {n_embeddings} word embeddings, fewer than its tokenizer has tokens"
        remedy = "The tokenizer belongs to another model."
        raise ModelError(source.name, rule, len(tokenizer), remedy)
    return tokenizer


def give_pad(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The padding token; where there is none, one that the vocabulary already has becomes it.
    ``None`` where no token can."""
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        spare = next((token for token in SPARE_PADS if token in vocabulary), None)
        found = spare or tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
        if found is not None:
            tokenizer.pad_token = found
    return tokenizer.pad_token


def _as_plain(source: Source, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A tokenizer of the model's own class as a plain one, which a saved folder needs."""
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rule = "has a tokenizer that exists only as custom code"
        remedy = "Choose a model with a tokenizer.json: a saved folder must load without such code."
        raise ModelError(source.name, rule, type(tokenizer).__name__, remedy)
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=backend, **tokenizer.special_tokens_map)


def forget_limits(tokenizer: object) -> None:
    """Drop the truncation and padding that a fast tokenizer keeps from its file or last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def accepted_inputs(config: PretrainedConfig) -> tuple[str, ...]:
    """The tokenizer's outputs that a backbone with this configuration can take."""
    segments = int(getattr(config, "type_vocab_size", 0) or 0)
    return ("input_ids", "attention_mask") + (("token_type_ids",) if segments > 1 else ())


def limit_inputs(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> None:
    """Make the tokenizer, and any saved copy of it, return only the inputs of these ``names``."""
    tokenizer.model_input_names = list(names)
    # What is saved comes from here. Without it a reloaded ALBERT would not see where the second
    # text of a pair begins.
    tokenizer.init_kwargs["model_input_names"] = list(names)


def usual_length(form: str) -> int:
    """The most tokens of a language model's row where none are requested: a chat that is cut can
    lose its answer, while a plain text (``form`` is ``text``) goes on in the next block."""
    return DEFAULT_MAX_LENGTH if form == "text" else CHAT_MAX_LENGTH


def choose_max_length(
    folder: Path,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    requested: int | None,
    reserved: int = 0,
    most: int = DEFAULT_MAX_LENGTH,
) -> tuple[int, Decision]:
    """The number of tokens a text is cut to, special ones included, with the reason.

    The default is the smallest of the limits of model, tokenizer and a sentence-transformers
    configuration, and at most ``most``. A requested number is used as it is. ``reserved`` positions
    are not for the text (a soft prompt's).

    Raises
    ------
    RecipeError : more than the model's positions are requested, or fewer than 4.
    """
    positions = position_limit(config) - reserved
    if requested is not None:
        if MIN_LENGTH <= requested <= positions:
            return requested, Decision(SETTING, str(requested), "set in the recipe")
        rule = f"must be between 4 and the model's {positions} positions"
        remedy = f"Use --set {SETTING}={positions} or less, or a model for longer texts."
        raise RecipeError(SETTING, rule, requested, remedy)
    trained, path = None, folder / "sentence_bert_config.json"
    if path.is_file():
        trained = read_object(str(folder), path).get("max_seq_length")
    limits = {
        f"the model has {positions} positions": positions,
        "its tokenizer states this limit": stated_limit(tokenizer.model_max_length),
        "its sentence-transformers configuration states this limit": stated_limit(trained),
        f"longer texts cost much memory; {SETTING} takes up to {positions}": most,
    }
    # Of equal limits the first, which is the model's own, gives the reason.
    because = min(limits, key=lambda reason: limits[reason])
    return limits[because], Decision(SETTING, str(limits[because]), because)


def position_limit(config: PretrainedConfig) -> int:
    """The positions that tokens can take; ``NO_LIMIT`` where they are relative. RoBERTa and its kin
    number them from the padding index plus one, so that of 514 rows only 512 are positions."""
    positions = int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)
    if positions < 0:  # XLNet's way to say that it has no limit
        return NO_LIMIT
    if config.model_type in POSITIONS_AFTER_PADDING:
        return positions - int(config.pad_token_id) - 1
    return positions


def stated_limit(limit: object) -> int:
    """The largest length in a tokenizer's or a model's file, in tokens; ``NO_LIMIT`` if there is
    none, or a placeholder number.

    Raises ``ModelError`` for a value that is not a length.
    """
    if limit is None:
        return NO_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= MIN_LENGTH:
        rule = f"gives a maximum length that is not a number of at least {MIN_LENGTH}"
        remedy = "Correct model_max_length in its tokenizer_config.json."
        raise ModelError("the tokenizer", rule, limit, remedy)
    return NO_LIMIT if limit > NO_LIMIT else int(limit)


def text_beginnings(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> list[str]:
    """The texts. A text of more than ``LONG`` characters is shortened to its beginning, if its
    words except the last make ``TOKEN_MARGIN`` times ``max_length`` tokens: the first
    ``max_length`` tokens are then those of the full text. Otherwise the full text is kept. A book
    is not tokenised for one page of it."""
    return [
        text if len(text) <= LONG else _text_beginning(tokenizer, text, TOKEN_MARGIN * max_length)
        for text in texts
    ]


def _text_beginning(tokenizer: PreTrainedTokenizerBase, text: str, n_tokens: int) -> str:
    max_characters = CHARACTERS_A_TOKEN * n_tokens
    # Up to a space; where there is none for long, anywhere: the last word is not counted.
    begin = (
        text[: text.rfind(" ", max_characters // 2, max_characters) + 1] or text[:max_characters]
    )
    if len(begin) >= len(text) or not tokenizer.is_fast:
        return text
    encoded = tokenizer(begin, add_special_tokens=False, verbose=False)
    words = encoded.word_ids(0)
    complete_tokens = sum(word != words[-1] for word in words) if words else 0
    return begin if complete_tokens > n_tokens else text
