"""The tokenizer of a model, freed of limits that its file brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.core.errors import ModelError
from holdfast.models.loading.checks import loading
from holdfast.models.loading.source import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

PIECES = "If it is a SentencePiece one: pip install 'holdfast[sentencepiece]'."


def load_tokenizer(source: Source, trust: bool = False, need_pad: bool = True) -> Any:
    """The model's tokenizer, without truncation or padding of its own.

    A ``tokenizer.json`` may cut and pad every text by itself (all-MiniLM's does so at 128
    tokens); that would go on unseen in a saved folder. It yields only what the model takes.

    Raises
    ------
    ModelError : it cannot be read, has no padding token, or knows more tokens than the model.
    """
    tokenizer = _read(source, trust)
    # Saved as it is, it would need the code that it came from.
    if not type(tokenizer).__module__.startswith("transformers."):
        tokenizer = _as_plain(source, tokenizer)
    forget_limits(tokenizer)
    _check(source, tokenizer, need_pad)
    return tokenizer


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


def limit_inputs(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Have the tokenizer, and any saved copy of it, yield what a backbone with ``config`` takes."""
    tokenizer.model_input_names = list(accepted_inputs(config))
    # What is saved comes from here. Without it a reloaded ALBERT would not see where the second
    # text of a pair begins.
    tokenizer.init_kwargs["model_input_names"] = list(accepted_inputs(config))


def _read(source: Source, trust: bool) -> Any:
    from transformers import AutoTokenizer

    with loading(source.name, "has a tokenizer that cannot be read", PIECES):
        return AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust)


def _as_plain(source: Source, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A tokenizer of the model's own class as a plain one, which a saved folder needs."""
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            source.name,
            "has a tokenizer that exists only as code of its own",
            type(tokenizer).__name__,
            "Choose a model with a tokenizer.json: a saved folder must load without such code.",
        )
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=backend, **tokenizer.special_tokens_map)


def _check(source: Source, tokenizer: PreTrainedTokenizerBase, need_pad: bool) -> None:
    if need_pad and tokenizer.pad_token_id is None:
        raise ModelError(
            source.name,
            "has a tokenizer without a padding token",
            None,
            "Choose an encoder: texts of unlike length cannot share a batch without one.",
        )
    known = source.config.get("vocab_size", len(tokenizer))
    if not isinstance(known, int) or len(tokenizer) > known:
        raise ModelError(
            source.name,
            f"has {known} word embeddings, fewer than its tokenizer has tokens",
            len(tokenizer),
            "The tokenizer belongs to another model.",
        )
