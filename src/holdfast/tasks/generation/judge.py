"""Pairwise comparison of generated texts by a judge: the fine-tuned model against another.

A judge is a metric of texts against their references, or a language model that the user names. A
language model sees each pair twice, with the two texts in either order, and only a verdict on which
both orders agree counts: models tend to prefer the first text (Wang et al., 2305.17926). Before it
judges it must show that it can: it has to prefer a row's own reference to another row's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.core.printable import shorten_middle
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.metrics import TEXT_METRICS, TextMetric, Texts
from holdfast.metrics.resample import ResampledUnits
from holdfast.metrics.score import rate_estimate
from holdfast.models.generators.causal import CausalNetwork, load_causal
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import position_limit
from holdfast.stats.paired_tests import rows_needed_for_power, sign_flip_p_value
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.lm.chat_tokens import prompt_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


LEVEL, ALPHA = 0.95, 0.05
CHARACTERS = 1500
DEFAULT = "rouge_l"
TEMPLATE = (
    "Below are a task, a reference answer and two answers, A and B. Say which answer is better.\n\n"
    "### Task:\n{source}\n\n### Reference answer:\n{reference}\n\n### Answer A:\n{first}\n\n"
    "### Answer B:\n{second}\n\n### The better answer is"
)


class Judge(Protocol):
    """``name`` is shown to readers; ``prefer`` returns for each pair 1 (the first is better), −1 or
    0 (a tie), [n].
    """

    @property
    def name(self) -> str: ...

    def prefer(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        tables: Sequence[str | None] | None = None,
    ) -> Ints: ...


@dataclass(frozen=True)
class MetricJudge:
    """A metric of texts: the higher score of a row wins; equal scores (and rows without one)
    tie.
    """

    metric: TextMetric

    @property
    def name(self) -> str:
        return self.metric.name

    def prefer(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        tables: Sequence[str | None] | None = None,
    ) -> Ints:
        a, b = (
            row_scores(self.metric, Texts(references, texts, sources, tables))
            for texts in (first, second)
        )
        return prefer_scores(self.metric, a, b)


def prefer_scores(metric: TextMetric, first: Floats, second: Floats) -> Ints:
    """Which of two scores a row is better, as ``Judge.prefer``."""
    gap = np.sign(first - second) * (1 if metric.higher_is_better else -1)
    return np.asarray(np.nan_to_num(gap), dtype=np.int64)


def row_scores(metric: TextMetric, texts: Texts) -> Floats:
    """The metric of each row by itself, [n]; NaN where a row has none."""
    if metric.of_rows is not None:
        return np.asarray(metric.of_rows(texts), dtype=np.float64)
    alone = (metric.compute(texts.take(np.asarray([at]))) for at in range(len(texts)))
    return np.asarray([np.nan if value is None else value for value in alone], dtype=np.float64)


@dataclass(frozen=True)
class ModelJudge:
    """A language model as the judge: for prompts [n], ``scores`` returns by how much ``A`` is more
    probable than ``B`` as the continuation [n], in nats.
    """

    name: str
    scores: Callable[[Sequence[str]], Floats]

    def prefer(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        tables: Sequence[str | None] | None = None,
    ) -> Ints:
        forth, back = self.both_ways(sources, references, first, second)
        same = np.asarray([a.strip() == b.strip() for a, b in zip(first, second, strict=True)])
        agreed = np.where(np.sign(forth) == -np.sign(back), np.sign(forth), 0)
        return np.where(same, 0, agreed).astype(np.int64)

    def both_ways(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
    ) -> tuple[Floats, Floats]:
        """Its scores with the first text as A, and with the second as A."""
        lines = list(zip(sources, references, first, second, strict=True))
        prompts = [prompt(s, r, a, b) for s, r, a, b in lines]
        prompts += [prompt(s, r, b, a) for s, r, a, b in lines]
        scores = self.scores(prompts)
        return scores[: len(lines)], scores[len(lines) :]


def prompt(source: str, reference: str, first: str, second: str) -> str:
    """The judge's prompt; each text longer than ``CHARACTERS`` is cut in its middle."""
    texts = [shorten_middle(text, CHARACTERS) for text in (source, reference, first, second)]
    names = ("source", "reference", "first", "second")
    return TEMPLATE.format(**dict(zip(names, texts, strict=True)))


def metric_judge(name: str | None) -> MetricJudge | None:
    """The metric of this name (``DEFAULT`` for none), or ``None`` for an unknown name."""
    metric_name = name or DEFAULT
    return MetricJudge(TEXT_METRICS[metric_name]) if metric_name in TEXT_METRICS else None


def can_judge(
    judge: ModelJudge, sources: Sequence[str], references: Sequence[str], groups: object = None
) -> dict[str, Any]:
    """Whether the judge prefers each row's own reference to the next row's.

    ``right`` of ``n`` rows, the share with Wilson's interval (by ``groups`` [n]), and ``able``:
    whether the interval's lower limit exceeds one half. Coin flips in both orders would reach a
    quarter.
    """
    others = [*references[1:], *references[:1]]
    differing = [at for at, (a, b) in enumerate(zip(references, others, strict=True)) if a != b]
    if not differing:
        return {"n": 0, "right": 0, "able": False, "because": "all references are the same text"}
    same_references = [references[at] for at in differing]
    preferences = judge.prefer(
        [sources[at] for at in differing],
        same_references,
        same_references,
        [others[at] for at in differing],
    )
    right = int(np.sum(preferences == 1))
    names = None if groups is None else np.asarray(groups)[differing]
    share = rate_estimate(preferences == 1, ResampledUnits.by(names, len(differing)), LEVEL)
    able = share.low is not None and share.low > 0.5
    because = (
        f"it prefers the row's own reference to another row's in {right} of {len(differing)} pairs"
    )
    return {
        "n": len(differing),
        "right": right,
        "share": share.to_json(),
        "able": able,
        "because": because,
    }


def win_rate(prefers: Ints, groups: object = None, tests: int = 1) -> dict[str, Any]:
    """Wins, losses and ties [n] of the first over the second, with the win rate and its test.

    ``value`` = (wins + ties ÷ 2) ÷ n with Wilson's limits, a tie counted as half a win: ties vary
    less than Wilson assumes, so the interval is conservative (wide). ``p_value`` is the exact sign
    test's over the pairs that are not ties, which is McNemar's exact test. Pairs in ``groups`` [n]
    count by the sums of their groups. ``more_rows`` would decide at ``ALPHA`` ÷ ``tests``.
    """
    n, wins, losses = len(prefers), int(np.sum(prefers == 1)), int(np.sum(prefers == -1))
    ties = n - wins - losses
    if not n:
        return {"n": 0, **Estimate(None, why="there are no pairs").to_json(), "p_value": None}
    units = ResampledUnits.by(groups, n)
    p_value = sign_flip_p_value(np.bincount(units.codes, prefers))
    gap, more = prefers.astype(np.float64), None
    if wins != losses and p_value > ALPHA / tests:
        settled = rows_needed_for_power(
            gap,
            abs(float(gap.mean())),
            sides=2,
            alpha=ALPHA / tests,
            groups=units.codes if units.grouped else None,
        )
        more = None if settled is None else max(0, settled - n)
    return {
        "n": n,
        "wins": wins,
        "losses": losses,
        "ties": ties,
        **rate_estimate((gap + 1) / 2, units, LEVEL).to_json(),
        "p_value": p_value,
        "more_rows": more,
    }


def judged(
    judge: Judge, generated: Generated, others: Sequence[str], tests: int = 1
) -> dict[str, Any]:
    """The win rate of the fine-tuned model's texts over ``others`` [n]."""
    preferences = judge.prefer(
        generated.sources, generated.references, generated.texts, others, generated.tables
    )
    return win_rate(preferences, generated.groups, tests)


def load_judge(name: str, device: torch.device | str = "cpu") -> ModelJudge:
    """Load a causal language model as the judge; raises ``ModelError`` where ``name`` is none."""
    loaded = load_causal(name)
    network, tokenizer = loaded.network.to(device).eval(), loaded.tokenizer

    def scores(prompts: Sequence[str]) -> Floats:
        return prefers_a(network, tokenizer, prompts)

    return ModelJudge(name, scores)


def prefers_a(
    network: CausalNetwork, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> Floats:
    """log P(A) − log P(B) as the next word after each prompt, [n], read at the first token in which
    the two differ.
    """
    import torch

    device: Any = network.word_embeddings.weight.device
    room, probabilities = position_limit(network.config), np.zeros(len(prompts))
    with torch.inference_mode(), quiet_transformers():
        for at, prompt in enumerate(prompts):
            shared, a, b = _parting(*(_ids(tokenizer, prompt, letter) for letter in "AB"))
            # A long prompt keeps its end, which holds the texts to compare.
            ids = torch.tensor([shared[-room:]], device=device)
            logits = network(input_ids=ids)[0, -1].float()
            probabilities[at] = float(logits[a] - logits[b])
    return probabilities


def _ids(tokenizer: PreTrainedTokenizerBase, prompt: str, letter: str) -> list[int]:
    """Ids of the prompt followed by an answer's letter, as a chat where there is a template."""
    if tokenizer.chat_template:
        prompt_ids = prompt_tokens(tokenizer, [{"role": "user", "content": prompt + ": A or B?"}])
        ids: list[int] = tokenizer(letter, add_special_tokens=False)["input_ids"]
        return [*prompt_ids, *ids]
    token_ids: list[int] = tokenizer(f"{prompt} {letter}")["input_ids"]
    return token_ids


def _parting(first: list[int], second: list[int]) -> tuple[list[int], int, int]:
    """The common prefix of two lists, and the first items in which they differ."""
    at = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[:at], first[at], second[at]
