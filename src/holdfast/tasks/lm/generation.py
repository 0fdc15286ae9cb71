"""Token losses of a causal language model, and the texts that it generates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from holdfast.contract.predictions import Groups
from holdfast.core.decisions import tick
from holdfast.core.records import Floats, Ints
from holdfast.data.chats.chat import form_of, read_row_turns
from holdfast.data.chats.turns import Turn, prompt_text, prompt_turns
from holdfast.data.table import Table
from holdfast.models.generators.average import AveragedNetwork, processors_of
from holdfast.models.generators.causal import CausalNetwork, PrefixKeyValues
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import position_limit
from holdfast.tasks.generation.token_scores import GeneratedTexts, TokenOutputs, drawing
from holdfast.tasks.lines import common_prefix_length
from holdfast.tasks.lm.chat_tokens import prompt_tokens, render, text_tokens
from holdfast.tasks.lm.losses import EncodedTokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

BEGINNING = 64
CONTINUED = 64
LONGEST_ANSWER = 128
ROOM = 8
TOGETHER = 8
# From so many tokens on that all texts begin with, these pass through the model once.
MIN_PREFIX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts, [n] each: ``ids`` of the prompt; ``sources``, the same as text for readers;
    ``references``, the known answers (empty where there are none). ``chat``: they are chats in the
    template, not texts to be continued.
    """

    ids: Sequence[Sequence[int]]
    sources: Sequence[str]
    references: Sequence[str]
    chat: bool


def token_outputs(
    losses: Floats, kept: Floats, examples: EncodedTokens, groups: Groups | None
) -> TokenOutputs:
    """Measured examples in the form for scoring; ``groups`` are those of the table's rows."""
    names = None if groups is None else groups[examples.positions]
    return TokenOutputs(
        examples.rows, losses, kept[:, 0].round().astype(np.int64), kept[:, 1], names
    )


def prompts_of(table: Table, tokenizer: PreTrainedTokenizerBase) -> Prompts:
    """The prompts of chats, up to their last answer; of plain texts the first tokens, with the next
    ones as the reference.
    """
    ids: list[Sequence[int]] = []
    sources, references = [], []
    for turns, text in zip(read_row_turns(table), table.column("text"), strict=True):
        if turns:
            before = prompt_turns(turns)
            ids.append(prompt_tokens(tokenizer, before))
            sources.append(prompt_text(before))
            references.append(turns[-1]["content"] if len(before) < len(turns) else "")
        else:
            token_ids = text_tokens(tokenizer, text)
            # Of a short text half is kept as the reference.
            end = min(BEGINNING, max(1, len(token_ids) // 2))
            ids.append(token_ids[:end].tolist())
            sources.append(_decode(tokenizer, token_ids[:end]))
            references.append(_decode(tokenizer, token_ids[end : end + CONTINUED]))
    return Prompts(ids, sources, references, form_of(table) != "text")


def whole_prompts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Plain texts to be continued, without the end token."""
    # The end token of a text says that nothing follows.
    ended = [text_tokens(tokenizer, text).tolist() for text in texts]
    end = tokenizer.eos_token_id
    return [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in ended]


def answer_length(
    prompts: Prompts, tokenizer: PreTrainedTokenizerBase, requested: int | None
) -> int:
    """The maximum number of tokens of an answer: as requested, else that of the longest reference,
    within bounds.
    """
    if requested is not None:
        return requested
    longest = max(
        (len(tokenizer(text, verbose=False)["input_ids"]) for text in prompts.references), default=0
    )
    return min(LONGEST_ANSWER, longest + ROOM) if longest else LONGEST_ANSWER


def closing(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text that the chat template adds after an answer, without white space; empty without
    one.
    """
    if not tokenizer.chat_template:
        return ""
    turns: list[Turn] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "@@"}]
    return render(tokenizer, turns, answer_next=False).rpartition("@@")[2].strip()


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, end: str, also: int | Sequence[int] | None = ()
) -> list[int]:
    """The tokens that end an answer: the tokenizer's, ``end`` where it is one token, and those
    given.
    """
    given = [also] if isinstance(also, int) else list(also or ())
    marks = tokenizer(end, add_special_tokens=False)["input_ids"]
    # An end of several tokens cannot stop generation; the text is cut there when it is decoded.
    closing_ids = marks if len(marks) == 1 else []
    return sorted({i for i in (*given, tokenizer.eos_token_id, *closing_ids) if i is not None})


def write_answers(
    network: CausalNetwork | AveragedNetwork,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    chat: bool,
    beams: int = 1,
    temperature: float = 0.0,
) -> GeneratedTexts:
    """Generate the model's answers [n].

    Decoding is greedy (or beam search); above ``temperature`` 0 tokens are sampled with PyTorch's
    generators in their current state. In a ``chat`` an answer ends where its template closes it.

    A prompt that leaves no room is cut from its beginning.
    """
    texts = [""] * len(ids)
    confidences = np.full(len(ids), np.nan)
    ended = np.zeros(len(ids), dtype=bool)
    # Prompts of similar length together: a padded position costs as much as a token.
    order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
    end = closing(tokenizer) if chat else ""
    room = position_limit(network.config)
    # However long an answer may be, half of the model's positions are left to the prompt.
    new = min(new_tokens, max(1, room // 2))
    # The end of a prompt is kept, since it holds the question.
    prompts = [list(one)[-(room - new) :] for one in ids]
    # Beam search would need the cache of each beam.
    shared = min(common_prefix_length(prompts), min(map(len, prompts), default=1) - 1)
    prefix = None
    if beams == 1 and can_reuse_prefix(network, shared):
        prefix = PrefixKeyValues(network, prompts[0][:shared])
    for start in range(0, len(order), TOGETHER):
        batch_rows = order[start : start + TOGETHER]
        batch = [prompts[n] for n in batch_rows]
        generated = _generate(network, tokenizer, batch, new, beams, end, temperature, prefix)
        for n, (text, confidence, is_complete) in zip(batch_rows, generated, strict=True):
            texts[n], confidences[n], ended[n] = text, confidence, is_complete
        tick(start + len(batch_rows), len(order))
    return GeneratedTexts(texts, confidences, ended)


def can_reuse_prefix(network: object, shared: int) -> TypeGuard[CausalNetwork]:
    """Whether texts that begin with the same ``shared`` tokens are computed behind them."""
    return (
        shared >= MIN_PREFIX_TOKENS
        and isinstance(network, CausalNetwork)
        and network.supports_key_value_cache
    )


def _generate(
    network: CausalNetwork | AveragedNetwork,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    new: int,
    beams: int,
    end: str,
    temperature: float,
    prefix: PrefixKeyValues | None = None,
) -> list[tuple[str, float, bool]]:
    import torch

    plain = network.plain
    device: Any = network.word_embeddings.weight.device
    longest = max(map(len, prompts))
    # Padded positions are masked, so any token id will do.
    pad = tokenizer.pad_token_id or 0
    # Padded on the left, behind the common prefix: generation continues after the
    # last token of every prompt.
    prefix_length = len(prefix) if prefix else 0

    def padded(line: list[int], fill: int) -> list[int]:
        return [*line[:prefix_length], *[fill] * (longest - len(line)), *line[prefix_length:]]

    ids = torch.tensor([padded(p, pad) for p in prompts], device=device)
    mask = torch.tensor([padded([1] * len(p), 0) for p in prompts], device=device)
    cache = {"past_key_values": prefix.for_batch(len(prompts))} if prefix else {}
    stops = stop_tokens(tokenizer, end, getattr(plain.generation_config, "eos_token_id", None))
    draws = drawing(temperature)
    with torch.inference_mode(), quiet_transformers():
        generated = plain.generate(
            input_ids=ids,
            attention_mask=mask,
            **cache,
            **processors_of(network, attention_mask=mask),
            max_new_tokens=new,
            num_beams=1 if draws["do_sample"] else beams,
            pad_token_id=pad,
            eos_token_id=stops or None,
            return_dict_in_generate=True,
            output_scores=True,
            **draws,
        )
        scores = plain.compute_transition_scores(
            generated.sequences,
            generated.scores,
            getattr(generated, "beam_indices", None),
            normalize_logits=True,
        )
    written = generated.sequences[:, longest:].cpu()
    return [
        (
            _text(tokenizer, line, end),
            _confidence(line, score, stops, pad),
            _ended(tokenizer, line, stops, end),
        )
        for line, score in zip(written, scores.float().cpu(), strict=True)
    ]


def _text(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor, end: str) -> str:
    text = _decode(tokenizer, ids)
    return (text.partition(end)[0] if end else text).strip()


def _ended(
    tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor, stops: Sequence[int], end: str
) -> bool:
    """Whether the answer contains an end: a stop token, or the template's closing text."""
    if any(token in stops for token in ids.tolist()):
        return True
    return bool(end) and end in _decode(tokenizer, ids)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor | Ints) -> str:
    # The type annotation does not say that one list of ids gives one text.
    text: str = tokenizer.decode(  # type: ignore[assignment]
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def _confidence(ids: torch.Tensor, scores: torch.Tensor, stops: Sequence[int], pad: int) -> float:
    """The geometric mean of the probabilities up to the token that ends the answer."""
    log_probabilities: list[float] = []
    for token, score in zip(ids.tolist(), scores.tolist(), strict=False):
        if math.isfinite(score):
            log_probabilities.append(score)
        if token in stops or (token == pad and pad in stops):
            break
    return (
        math.exp(sum(log_probabilities) / len(log_probabilities))
        if log_probabilities
        else float("nan")
    )
