"""How many tokens of a text are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.models.loading.checks import read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

SETTING = "model.max_length"
LONGEST_UNASKED = 512
# Tokenizers without a limit carry a huge number in its place.
NO_LIMIT = 1_000_000
LEAST = 4  # two special tokens, and two of a text


def choose_max_length(
    folder: Path,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    asked: int | None,
    taken: int = 0,
) -> tuple[int, Decision]:
    """The number of tokens a text is cut to, special ones included, with the reason.

    Unasked it is the smallest of the limits that model, tokenizer and a sentence-transformers
    configuration state, and at most 512. Asked, it is taken as it is. ``taken`` positions are
    not for the text (a learnt prompt's).

    Raises
    ------
    RecipeError : more is asked than the model has positions for, or fewer than 4.
    """
    positions = position_limit(config) - taken
    if asked is not None:
        if LEAST <= asked <= positions:
            return asked, Decision(SETTING, str(asked), "set by you")
        raise RecipeError(
            SETTING,
            f"must be between 4 and the model's {positions} positions",
            asked,
            f"Use --set {SETTING}={positions} or less, or a model for longer texts.",
        )
    limits = {
        f"the model has {positions} positions": positions,
        "its tokenizer states this limit": stated_limit(tokenizer.model_max_length),
        "its sentence-transformers configuration states this limit": _trained(folder),
        f"longer texts cost much memory; {SETTING} takes up to {positions}": LONGEST_UNASKED,
    }
    # Of equal limits the first, which is the model's own, gives the reason.
    because = min(limits, key=lambda reason: limits[reason])
    return limits[because], Decision(SETTING, str(limits[because]), because)


def position_limit(config: PretrainedConfig) -> int:
    """The positions that tokens can take. RoBERTa's family numbers them from the padding index
    plus one, so that of its 514 rows only 512 are positions."""
    positions = int(config.max_position_embeddings)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return positions - int(config.pad_token_id) - 1
    return positions


def stated_limit(limit: object) -> int:
    """What a tokenizer's or a model's file states as its largest length, in tokens; ``NO_LIMIT``
    where it states none, or so large a number that it means none.

    Raises ``ModelError`` for what is no length.
    """
    if limit is None:
        return NO_LIMIT
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= LEAST:
        raise ModelError(
            "the tokenizer",
            f"states a largest length that is no number of at least {LEAST}",
            limit,
            "Mend model_max_length in its tokenizer_config.json.",
        )
    return NO_LIMIT if limit > NO_LIMIT else int(limit)


def _trained(folder: Path) -> int:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return NO_LIMIT
    return stated_limit(read_object(str(folder), path).get("max_seq_length"))
