"""Noise on the network's input in training: on its hidden states, its word embeddings, its tokens.

Hooks exist during a run and act only in training mode, so evaluation, saving and generation are not
affected. They use PyTorch's own random generator, whose state a checkpoint stores: a resumed run
draws the same numbers as the uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.events import Place
from holdfast.core.records import Decision, Finding
from holdfast.core.settings import setting
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.base import LoadedModel, Network
    from holdfast.training.run import Run


# Adds itself to a network, and returns how it is removed.
Attach = Callable[["Network"], Sequence[Callable[[], None]]]


class NoiseHooks:
    """The listener: it calls ``attach`` with the network when the run starts."""

    place: Place = "change"

    def __init__(self, name: str, attach: Attach) -> None:
        self.name = name
        self._attach = attach
        self._remove: Sequence[Callable[[], None]] = ()

    def run_start(self, run: Run) -> None:
        self._remove = self._attach(run.network)

    def run_end(self, run: Run) -> None:
        for remove in self._remove:
            remove()
        self._remove = ()


def tables_for(method: str, network: Network) -> list[nn.Embedding]:
    """The word-embedding tables; raises ``RecipeError`` where the network has none."""
    from holdfast.models.dropouts import word_tables

    try:
        return list(word_tables(network))
    except RecipeError as error:
        rule = "acts on word embeddings, and this network has none"
        raise RecipeError(f"methods.{method}", rule, None, "Leave it out.") from error


def report_target(
    method: str, network: Network, modules: Sequence[nn.Module], target: str, because: str
) -> None:
    """Report what a method acts on in this network, and whether all these modules are frozen first
    layers: they stay in evaluation mode and their outputs may be cached, so the method has no
    effect."""
    from holdfast.models.compute.prefix import frozen_prefix

    notify(Decision(f"{method} acts on", target, because))
    layers = [part for layer in frozen_prefix(network) for part in layer.modules]
    frozen = {id(module) for layer in layers for module in layer.modules()}
    if all(id(module) in frozen for module in modules):
        rule = f"methods.{method} acts only on frozen first layers, which are computed without "
        rule += "noise: it has no effect"
        remedy = "Leave it out, or freeze fewer layers (model.freeze)."
        notify(Finding("unused_setting", "warn", 0.5, 1, (), rule, remedy))


NOISES = ("uniform", "normal")


@dataclass(frozen=True, slots=True)
class HyPe:
    """HyPe: noise on the hidden states between the blocks in training (2212.08853).

        h_l = f_l(h_{l−1} + ε),   ε ~ U(−σ, σ) or N(0, σ²) per unit

    at the input of every block (the paper's equations 2 and 3). ``scale`` is σ, in the unit of the
    hidden states; the paper uses 1e-5. On few rows it gained most there, and halved the spread
    between seeds. Unlike NEFTune, which changes only the word embeddings and a thousand times as
    much, it changes every layer a little; unlike dropout it removes nothing.

    ``scale`` is σ; ``noise`` its distribution: ``uniform`` in (−σ, σ), or ``normal``.
    """

    scale: float = setting(1e-5, above=0, most=10)
    noise: str = setting("uniform", choices=NOISES)

    def disturbed(self, states: torch.Tensor) -> Any:
        """The hidden states with noise of the same shape and type added."""
        import torch

        if self.noise == "normal":
            return states + self.scale * torch.randn_like(states)
        return states + (2 * self.scale) * (torch.rand_like(states) - 0.5)

    def attach(self, network: Network) -> Sequence[Callable[[], None]]:
        """A hook on every block."""
        from holdfast.models.dropouts import blocks_of

        def before(
            block: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
        ) -> Any:
            if not block.training:
                return None
            if given:
                return (self.disturbed(given[0]), *given[1:]), named
            return given, {**named, "hidden_states": self.disturbed(named["hidden_states"])}

        blocks = blocks_of(network)
        return [b.register_forward_pre_hook(before, with_kwargs=True).remove for b in blocks]


def _announce_blocks(loaded: LoadedModel) -> None:
    from holdfast.models.dropouts import blocks_of

    blocks = blocks_of(loaded.network)
    if not blocks:
        rule = "needs a network with blocks, between which it adds noise"
        raise RecipeError("methods.hype", rule, type(loaded.network).__name__, "Leave it out.")
    because = "noise on the input of each block, only in updates"
    report_target("hype", loaded.network, blocks, f"{len(blocks)} blocks", because)


def _hype_parts(settings: HyPe) -> Parts:
    return Parts(
        listeners=lambda: (NoiseHooks("hype", settings.attach),), prepares=_announce_blocks
    )


METHODS.add("hype", Method(HyPe, _hype_parts))


def real_tokens(ids: torch.Tensor, padding: int | None) -> torch.Tensor:
    """Which positions of ``ids`` [batch, length] contain a token [batch, length]: those up to the
    last one that is not ``padding``, since padding is on the right."""
    import torch

    if padding is None:
        return torch.ones_like(ids, dtype=torch.bool)
    is_token = ids != padding
    return is_token.flip(1).cumsum(dim=1).flip(1) > 0


def embedding_noise(states: torch.Tensor, real: torch.Tensor, alpha: float) -> torch.Tensor:
    """The noise for embeddings ``states`` [batch, length, units], where ``real`` [batch, length]
    says which tokens count."""
    import torch

    lengths = real.sum(dim=1).clamp(min=1)
    scale = alpha / torch.sqrt(lengths * states.shape[-1]).to(states.dtype)
    drawn = torch.rand_like(states) * 2 - 1
    return drawn * (scale[:, None] * real.to(states.dtype))[..., None]


@dataclass(frozen=True, slots=True)
class Neftune:
    """NEFTune: noise on the word embeddings in training (2310.05914).

        x' = x + α ÷ √(L d) · ε,   ε ~ U(−1, 1) per unit

    for a row of L real tokens with embeddings of d units; padding does not count and is not
    changed. ``alpha`` is α: 5, 10 or 15 in the paper. The norm of a row's noise is about α ÷ √3 in
    total, whatever the length of the row. Made for instruction tuning of language models, it suits
    any network with word embeddings. With packed rows (``train.pack``) L is that of the packed
    sequence. HyPe changes the hidden states between the blocks instead.

    ``alpha`` is α.
    """

    alpha: float = setting(5.0, above=0, most=1000)

    def attach(self, network: Network, padding: int | None) -> Sequence[Callable[[], None]]:
        """A hook on the word-embedding table."""
        from holdfast.models.dropouts import word_tables

        def after(table: nn.Module, given: tuple[torch.Tensor], states: torch.Tensor) -> Any:
            if not table.training:
                return None
            ids = given[0].reshape(-1, given[0].shape[-1])
            flat = states.reshape(*ids.shape, states.shape[-1])
            return (flat + embedding_noise(flat, real_tokens(ids, padding), self.alpha)).view_as(
                states
            )

        return [one.register_forward_hook(after).remove for one in word_tables(network)]


def _announce_embeddings(loaded: LoadedModel) -> None:
    tables = tables_for("neftune", loaded.network)
    size = int(tables[0].weight.shape[1])
    because = f"of {size} units per token; only in updates"
    report_target("neftune", loaded.network, tables, "the word embeddings", because)


def _neftune_parts(settings: Neftune) -> Parts:
    def listeners(loaded: LoadedModel) -> tuple[NoiseHooks]:
        padding = loaded.tokenizer.pad_token_id
        return (NoiseHooks("neftune", lambda network: settings.attach(network, padding)),)

    return Parts(listeners_for=listeners, prepares=_announce_embeddings)


METHODS.add("neftune", Method(Neftune, _neftune_parts))


REPLACEMENTS = ("auto", "mask", "unknown", "zero")


@dataclass(frozen=True, slots=True)
class TokenReplacement:
    """The replacement of a hidden token: the token ``by``, or a zero vector where it is ``None``;
    ``special_tokens`` are the tokens that always stay."""

    by: int | None
    special_tokens: tuple[int, ...]


def tokens_to_hide(ids: torch.Tensor, rate: float, special_tokens: Sequence[int]) -> torch.Tensor:
    """Which positions of ``ids`` are hidden, in the same shape: each with probability ``rate``,
    except for the tokens in ``special_tokens``."""
    import torch

    special = torch.isin(
        ids, torch.tensor(list(special_tokens), dtype=ids.dtype, device=ids.device)
    )
    return (torch.rand(ids.shape, device=ids.device) < rate) & ~special


@dataclass(frozen=True, slots=True)
class WordDropout:
    """Word dropout: hide tokens of a row in training (1511.06349, 1512.05287).

        x'_i = [MASK] with probability ``rate`` for each token i independently, else x_i

    Special tokens (begin, end, separators, padding) stay. ``by`` is the replacement of a token:
    ``mask``, ``unknown``, or ``zero``, a vector of zeros; ``auto`` is the first of them that the
    tokenizer has, as many language models have neither. For generative models the targets stay:
    only the input is hidden. Unlike the enrichments, which make other texts of a row once per
    epoch, it costs nothing and needs no word lists; unlike dropout it hides entire tokens.

    ``rate`` is the share of the tokens; ``by`` their replacement.
    """

    rate: float = setting(0.1, above=0, most=0.95)
    by: str = setting("auto", choices=REPLACEMENTS)

    def attach(self, network: Network, hidden: TokenReplacement) -> Sequence[Callable[[], None]]:
        """A hook on the word-embedding table."""
        from holdfast.models.dropouts import word_tables

        tables = word_tables(network)

        def before(module: nn.Module, given: Any) -> Any:
            if not module.training:
                return None
            ids = given[0]
            return ids.masked_fill(tokens_to_hide(ids, self.rate, hidden.special_tokens), hidden.by)

        def after(module: nn.Module, given: tuple[torch.Tensor], states: torch.Tensor) -> Any:
            if not module.training:
                return None
            return states.masked_fill(
                tokens_to_hide(given[0], self.rate, hidden.special_tokens)[..., None], 0
            )

        if hidden.by is None:
            return [one.register_forward_hook(after).remove for one in tables]
        return [one.register_forward_pre_hook(before).remove for one in tables]


def token_replacement(
    settings: WordDropout, tokenizer: PreTrainedTokenizerBase
) -> TokenReplacement:
    """The replacement for this tokenizer; raises ``RecipeError`` for a token that it lacks."""
    special_tokens = tuple(int(one) for one in tokenizer.all_special_ids)
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    # Some tokenizers use the end-of-text token as the unknown token too.
    unknown = None if tokenizer.unk_token_id in ends else tokenizer.unk_token_id
    token_ids = {"mask": tokenizer.mask_token_id, "unknown": unknown}
    if settings.by == "auto":
        return TokenReplacement(
            next((one for one in token_ids.values() if one is not None), None), special_tokens
        )
    if settings.by == "zero":
        return TokenReplacement(None, special_tokens)
    if token_ids[settings.by] is None:
        has = [name for name, one in token_ids.items() if one is not None]
        remedy = f"Set methods.word_dropout.by={has[0] if has else 'zero'}."
        rule = "is a token that this tokenizer does not have"
        raise RecipeError("methods.word_dropout.by", rule, settings.by, remedy)
    return TokenReplacement(token_ids[settings.by], special_tokens)


def _announce_tokens(settings: WordDropout, loaded: LoadedModel) -> None:
    tables = tables_for("word_dropout", loaded.network)
    by = token_replacement(settings, loaded.tokenizer).by
    shown = "a zero vector" if by is None else repr(loaded.tokenizer.convert_ids_to_tokens(by))
    because = f"each token becomes {shown} with probability {settings.rate:g}, special ones never"
    report_target("word_dropout", loaded.network, tables, "the tokens of updates", because)


def _word_dropout_parts(settings: WordDropout) -> Parts:
    def listeners(loaded: LoadedModel) -> tuple[NoiseHooks]:
        hidden = token_replacement(settings, loaded.tokenizer)
        return (NoiseHooks("word_dropout", lambda network: settings.attach(network, hidden)),)

    return Parts(
        listeners_for=listeners, prepares=lambda loaded: _announce_tokens(settings, loaded)
    )


METHODS.add("word_dropout", Method(WordDropout, _word_dropout_parts))
