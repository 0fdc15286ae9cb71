"""Word dropout: tokens of a row are hidden while the network learns (1511.06349, 1512.05287).

    x'_i = [MASK] with probability ``rate`` for each token i by itself, else x_i

Special tokens (of beginnings, ends, separators, padding) stay. ``by`` says what stands in the place
of a token: ``mask``, ``unknown``, or ``zero``, a vector of zeros; ``auto`` is the first of them
that the tokenizer has, as many language models have neither. Where a model writes, what it is to
write stays: only what it reads is hidden. Unlike the enrichments, which make other texts of a row
once an epoch, it costs nothing and knows no words; unlike dropout a token goes as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import RecipeError
from holdfast.methods.noise.hooks import Disturbance, tables_for, tell_where
from holdfast.methods.registry import METHODS, Method, Parts, setting

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import Loaded, Network

WAYS = ("auto", "mask", "unknown", "zero")


@dataclass(frozen=True, slots=True)
class Hidden:
    """What hides a token: the token ``by``, or a zero vector where it is ``None``; ``kept`` are the
    tokens that always stay."""

    by: int | None
    kept: tuple[int, ...]


def chosen(ids: torch.Tensor, rate: float, kept: Sequence[int]) -> torch.Tensor:
    """Which places of ``ids`` are hidden, in the same shape: each with probability ``rate``, none
    of the tokens in ``kept``."""
    import torch

    special = torch.isin(ids, torch.tensor(list(kept), dtype=ids.dtype, device=ids.device))
    return (torch.rand(ids.shape, device=ids.device) < rate) & ~special


@dataclass(frozen=True, slots=True)
class WordDropout:
    """``rate`` is the share of the tokens; ``by`` what stands in their place."""

    rate: float = setting(0.1, above=0, most=0.95)
    by: str = setting("auto", words=WAYS)

    def attach(self, network: Network, hidden: Hidden) -> Sequence[Callable[[], None]]:
        """A hook on the table of words."""
        from holdfast.models.places import word_tables

        tables = word_tables(network)

        def before(module: nn.Module, given: Any) -> Any:
            if not module.training:
                return None
            ids = given[0]
            return ids.masked_fill(chosen(ids, self.rate, hidden.kept), hidden.by)

        def after(module: nn.Module, given: tuple[torch.Tensor], states: torch.Tensor) -> Any:
            if not module.training:
                return None
            return states.masked_fill(chosen(given[0], self.rate, hidden.kept)[..., None], 0)

        if hidden.by is None:
            return [one.register_forward_hook(after).remove for one in tables]
        return [one.register_forward_pre_hook(before).remove for one in tables]


def hidden_by(asked: WordDropout, tokenizer: PreTrainedTokenizerBase) -> Hidden:
    """What hides a token of this tokenizer; raises ``RecipeError`` for a token that it has not."""
    kept = tuple(int(one) for one in tokenizer.all_special_ids)
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    # Some call the end of a text the unknown token as well.
    unknown = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id
    known = {"mask": tokenizer.mask_token_id, "unknown": unknown}
    if asked.by == "auto":
        return Hidden(next((one for one in known.values() if one is not None), None), kept)
    if asked.by == "zero":
        return Hidden(None, kept)
    if known[asked.by] is None:
        has = [name for name, one in known.items() if one is not None]
        remedy = f"Set methods.word_dropout.by={has[0] if has else 'zero'}."
        rule = "is a token that this tokenizer has not"
        raise RecipeError("methods.word_dropout.by", rule, asked.by, remedy)
    return Hidden(known[asked.by], kept)


def _prepares(asked: WordDropout, loaded: Loaded) -> None:
    tables = tables_for("word_dropout", loaded.network)
    by = hidden_by(asked, loaded.tokenizer).by
    shown = "a zero vector" if by is None else repr(loaded.tokenizer.convert_ids_to_tokens(by))
    because = f"each token becomes {shown} with probability {asked.rate:g}, special ones never"
    tell_where("word_dropout", loaded.network, tables, "the tokens of updates", because)


def _parts(asked: WordDropout) -> Parts:
    def listeners(loaded: Loaded) -> tuple[Disturbance]:
        hidden = hidden_by(asked, loaded.tokenizer)
        return (Disturbance("word_dropout", lambda network: asked.attach(network, hidden)),)

    return Parts(listeners_for=listeners, prepares=lambda loaded: _prepares(asked, loaded))


METHODS.add("word_dropout", Method(WordDropout, _parts))
