"""Tokenisation of chats and plain text, and which tokens the loss is computed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import RecipeError
from holdfast.core.input_errors import first_line
from holdfast.core.machine import resource_bounds
from holdfast.core.records import Ints
from holdfast.data.chats.turns import Turn, is_trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Mask = npt.NDArray[np.bool_]
Span = tuple[int, int]
# A template is untrusted code. A chat of a thousand turns takes milliseconds and megabytes.
LONGEST_S, MOST_MEMORY = 5.0, 500_000_000


def render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, answer_next: bool) -> str:
    """Render the turns with the tokenizer's chat template; ``answer_next`` adds the text that opens
    an answer.

    Raises ``RecipeError`` where the template refuses the turns, or takes more than 5 seconds or 500
    MB for them.
    """
    try:
        with resource_bounds(LONGEST_S, MOST_MEMORY):
            # The type annotation does not say that the result without ``tokenize`` is a text.
            text: str = tokenizer.apply_chat_template(  # type: ignore[assignment]
                [{"role": turn["role"], "content": turn["content"]} for turn in turns],
                tokenize=False,
                add_generation_prompt=answer_next,
            )
    except Exception as error:
        rule = f"refuses a row: {first_line(error)}"
        remedy = "Set another with --set data.template=…, or remove the rows that it refuses."
        raise RecipeError("the chat template", rule, [t["role"] for t in turns], remedy) from error
    return text


def answers_in(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> tuple[str, list[Span]]:
    """The full chat as text, and the spans of its answers: each from the end of its opening to the
    end of its closing, without the white space after.

    A template may render the turns before an answer differently once the answer is there (some drop
    earlier thoughts): a turn whose beginning cannot be found again raises ``RecipeError``.
    """
    rendered = render(tokenizer, turns, answer_next=False)
    spans = []
    for at, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = render(tokenizer, turns[:at], answer_next=True)
        # Some templates open the next, missing answer differently.
        if not rendered.startswith(before):
            before = render(tokenizer, turns[:at], answer_next=False)
        last = at == len(turns) - 1
        through = rendered if last else render(tokenizer, turns[: at + 1], answer_next=False)
        if not (rendered.startswith(before) and rendered.startswith(through)):
            raise _unsteady(turns)
        spans.append((len(before), len(through.rstrip())))
    return rendered, spans


def chat_tokens(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], given: int = 0
) -> tuple[Ints, Mask]:
    """Ids [n] of the chat, and the mask of its answers' tokens [n], including the one that ends
    each answer. Answers of weight 0 and the first ``given`` ones are part of the prompt.

    The chat is tokenised as one text, so that ids are those of ``apply_chat_template``; a token
    belongs to an answer when its last character does. No special token is added: the template has
    them.
    """
    text, spans = answers_in(tokenizer, turns)
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    trained = zip(answers[given:], spans[given:], strict=True)
    spans = [span for turn, span in trained if is_trained(turn)]
    if not tokenizer.is_fast:
        return _piecewise(tokenizer, text, spans)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    ends = np.asarray([end for _, end in encoded["offset_mapping"]], dtype=np.int64)
    inside = np.zeros(len(ids), dtype=bool)
    for start, stop in spans:
        inside |= (ends > start) & (ends <= stop)
    return ids, inside


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> list[int]:
    """Ids of the turns and of the text that opens the answer to them."""
    text = render(tokenizer, turns, answer_next=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> Ints:
    """Ids of a plain text, with the tokenizer's own start token (once: a text that begins with it
    keeps its own) and end token, where it has them.
    """
    start, end = tokenizer.bos_token, tokenizer.eos_token_id
    has_start = bool(start) and text.startswith(start)
    ids: list[int] = tokenizer(text, add_special_tokens=not has_start, verbose=False)["input_ids"]
    if end is not None and (not ids or ids[-1] != end):
        ids = [*ids, end]
    return np.asarray(ids, dtype=np.int32)


def blocks_of(ids: Ints, length: int) -> list[Ints]:
    """Split the text into blocks of at most ``length`` tokens.

    Each begins with the last token of the block before it, as context, so that every token but the
    first of the text is predicted once.
    """
    return [ids[at : at + length] for at in range(0, max(0, len(ids) - 1), length - 1)]


def _piecewise(
    tokenizer: PreTrainedTokenizerBase, text: str, spans: Sequence[Span]
) -> tuple[Ints, Mask]:
    """For a tokenizer without character offsets: tokenise the pieces between the answers
    separately.
    """
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    ids: list[int] = []
    inside: list[bool] = []
    for number in range(len(edges) - 1):
        piece = tokenizer(text[edges[number] : edges[number + 1]], add_special_tokens=False)
        ids += piece["input_ids"]
        inside += [number % 2 == 1] * len(piece["input_ids"])
    return np.asarray(ids, dtype=np.int32), np.asarray(inside, dtype=bool)


def _unsteady(turns: Sequence[Turn]) -> RecipeError:
    return RecipeError(
        "the chat template",
        "renders earlier turns differently when later ones follow, so that Holdfast "
        "cannot locate the answers",
        [t["role"] for t in turns],
        "Set another: --set data.template=chatml.",
    )
