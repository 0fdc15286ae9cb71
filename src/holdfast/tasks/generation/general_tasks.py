"""A few general tasks before and after tuning: which of two sentences a model finds likelier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats
from holdfast.data.chats.chat import chats_from_prompts
from holdfast.stats.intervals import wilson
from holdfast.stats.many import holm
from holdfast.stats.paired_tests import mcnemar, newcombe
from holdfast.tasks.generation.general_items import general_items
from holdfast.tasks.lm.generation import measure_saved
from holdfast.tasks.lm.losses import CausalLM, encode

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.models.generators.causal import CausalNetwork

Bools = npt.NDArray[np.bool_]
LEVEL, ALPHA = 0.95, 0.05
LONGEST = 128


def right_pairs(losses: Callable[[Sequence[str]], Floats]) -> dict[str, Bools]:
    """Of each set, where the right sentence is the likelier one [pairs]; ``losses`` gives −log P of
    whole sentences, in nats."""
    items = general_items()
    flat = [text for pairs in items.values() for pair in pairs for text in pair]
    table = np.asarray(losses(flat), dtype=np.float64).reshape(-1, 2)
    found, start = {}, 0
    for name, pairs in items.items():
        lines = table[start : start + len(pairs)]
        found[name] = np.asarray(lines[:, 0] < lines[:, 1])
        start += len(pairs)
    return found


def right_sentences(
    network: CausalNetwork, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, Bools]:
    """The same of a causal language model: each sentence as a text of its own."""

    def losses(texts: Sequence[str]) -> Floats:
        examples = encode(chats_from_prompts(texts, "text"), tokenizer, LONGEST)
        task = CausalLM(tokenizer.pad_token_id or 0)
        means, _ = measure_saved(network, task, examples, device)
        tokens = examples.target_counts.astype(np.float64)
        sums = np.bincount(examples.positions, weights=means * tokens, minlength=len(texts))
        return np.asarray(sums, dtype=np.float64)

    return right_pairs(losses)


def compare_general(before: Mapping[str, Bools], after: Mapping[str, Bools]) -> dict[str, Any]:
    """``general`` of ``worth``: every set and all together, McNemar's exact test for each set,
    Holm over the sets; of all together the interval says what so few sentences can show."""
    p_values = np.array([mcnemar(before[name], after[name], mid=False) for name in before])
    adjusted = holm(p_values)
    sets = [
        {**_line(name, before[name], after[name]), "p_value": float(p), "p_adjusted": float(q)}
        for name, p, q in zip(before, p_values, adjusted, strict=True)
    ]
    for line, q in zip(sets, adjusted, strict=True):
        line["verdict"] = _verdict(line["difference"]["value"], float(q))
    whole = tuple(np.concatenate(list(side.values())) for side in (before, after))
    everything = _line("all", *whole)
    p = mcnemar(*whole, mid=False)
    everything |= {"p_value": p, "verdict": _verdict(everything["difference"]["value"], p)}
    return {"sets": sets, "all": everything, "because": _sentence(everything, sets)}


def _line(name: str, before: Bools, after: Bools) -> dict[str, Any]:
    low, high = newcombe(after, before, LEVEL)
    value = float(np.mean(after)) - float(np.mean(before))
    return {
        "name": name,
        "n": len(before),
        "before": _rate(before),
        "after": _rate(after),
        "difference": Estimate(value, low, high, LEVEL).to_json(),
    }


def _rate(hits: Bools) -> dict[str, Any]:
    low, high = wilson(float(np.sum(hits)), len(hits), LEVEL)
    return Estimate(float(np.mean(hits)), low, high, LEVEL).to_json()


def _verdict(value: float, p_value: float) -> str:
    if p_value > ALPHA:
        return "no change shown"
    return "fell" if value < 0 else "rose"


def _sentence(everything: dict[str, Any], sets: Sequence[Mapping[str, Any]]) -> str:
    n, gap = everything["n"], everything["difference"]
    counts = [round(everything[side]["value"] * n) for side in ("before", "after")]
    said = f"Of {n} pairs of short English sentences it knows the right one in {counts[1]}"
    said += f" (before: {counts[0]})"
    fell = [line["name"] for line in sets if line["verdict"] == "fell"]
    if everything["before"]["low"] <= 0.5:
        return f"{said}; before tuning it was not better than chance: there was nothing to lose."
    if fell or everything["verdict"] == "fell":
        return f"{said}: it lost some of its English ({', '.join(fell) or 'all sets together'})."
    lost = max(0.0, -100 * gap["low"])
    return f"{said}: no loss is shown, and one of more than {lost:.0f} points is excluded."
