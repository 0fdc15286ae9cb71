"""``worth`` of ``result.json``: the fine-tuned model against its base model on the same test rows.

The base model is prompted zero-shot and few-shot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, to_json
from holdfast.core.wording import about, count_phrase, signed
from holdfast.metrics import TextMetric, Texts
from holdfast.stats.paired_tests import rows_needed_for_power
from holdfast.stats.two_samples import holm
from holdfast.tasks.generation.judge import (
    Judge,
    MetricJudge,
    ModelJudge,
    can_judge,
    judged,
    prefer_scores,
    row_scores,
    win_rate,
)
from holdfast.tasks.generation.mark_shares import JUDGED_ALARMS
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.generation.token_scores import TokenOutputs, compare_tokens

ALPHA = 0.05
PLAIN, EXAMPLES, QUANTIZED = "zero_shot", "few_shot", "quantized"
CALLED = {"rouge_l": "ROUGE-L", "chrf": "chrF", "bleu": "BLEU", "exact_match": "exact match"}
NAMES = {
    PLAIN: "the base model",
    EXAMPLES: "the base model with {} examples (few-shot)",
    QUANTIZED: "the quantised base model",
}


@dataclass(frozen=True, slots=True)
class Prompting:
    """One prompting of the base model: its losses on the given targets (``outputs``) and those of
    the fine-tuned model on the same rows (``tuned``).

    ``texts`` are what it generates for the sample; ``why`` says what is missing. ``shots`` is how
    many examples it was given, ``fewer`` how many rows had room for less. A prompting that is not
    ``judged`` is reported and has no part in the verdict.
    """

    outputs: TokenOutputs | None = None
    tuned: TokenOutputs | None = None
    texts: Sequence[str] | None = None
    shots: int = 0
    fewer: int = 0
    why: str | None = None
    judged: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


def worth_block(
    promptings: Mapping[str, Prompting],
    generated: Generated,
    judge: Judge | None,
    metric: TextMetric,
    general: Mapping[str, object] | None,
    *,
    seed: int = 0,
    why: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """``start`` (a paired comparison of losses for each prompting), ``texts`` (the mean of
    ``metric``), ``win_rate`` by the stated judge, ``general``, and the ``verdict``: yes, no or
    undecided by the losses, Holm over both promptings.
    """
    tests = sum(way.judged and way.outputs is not None for way in promptings.values())
    start = adjusted({name: _compared(name, way, seed, tests) for name, way in promptings.items()})
    verdict, because, more = answer_of(start)
    ability = _ability(judge, generated)
    scores = _row_scores(promptings, generated, metric)
    same = isinstance(judge, MetricJudge) and judge.metric is metric
    rates = _win_rates(promptings, generated, judge, ability, scores if same else {})
    block: dict[str, Any] = to_json(
        {
            "verdict": verdict,
            "because": because + _judged_sentence(rates, judge),
            "more_rows": more,
            "start": start,
            "texts": _texts(promptings, generated, metric, scores),
            "judge": None if judge is None else judge.name,
            "judge_ability": ability,
            "win_rate": rates,
            "general": general,
            "left_out": dict(why or {}),
            "false_alarms": JUDGED_ALARMS if rates else None,
        }
    )
    return block


def _compared(name: str, way: Prompting, seed: int, tests: int) -> dict[str, Any]:
    facts = {"shots": way.shots, "fewer": way.fewer, **way.facts}
    facts |= {} if way.judged else {"judged": False}
    if way.outputs is None or way.tuned is None:
        return {**facts, "n": 0, "why": way.why or "it was not run"}
    called = NAMES[name].format(way.shots)
    comparison = compare_tokens(
        way.tuned, way.outputs, names=("fine-tuned model", called), seed=seed
    )
    gap = way.tuned.loss_rows - way.outputs.loss_rows
    p_value, value = comparison["p_value"], comparison["difference"].value
    more, units = None, way.tuned.units
    if p_value is not None and value:
        settled = rows_needed_for_power(
            gap,
            abs(value),
            sides=2,
            # The first step of Holm's correction, which the p-value may have to pass.
            alpha=ALPHA / max(1, tests),
            groups=units.codes if units.grouped else None,
        )
        more = None if settled is None else max(0, settled - len(gap))
    return {
        **facts,
        "n": len(gap),
        "loss": way.outputs.loss if len(gap) else None,
        "tuned_loss": way.tuned.loss if len(gap) else None,
        **comparison,
        "more_rows": more,
    }


def adjusted(start: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The comparisons as JSON has them, each judged one with its p-value after Holm's correction
    over all of these (``p_adjusted``), where it has one.
    """
    plain: dict[str, dict[str, Any]] = to_json(dict(start))
    judged = [one for one in plain.values() if one.get("judged", True)]
    tested = [one for one in judged if one.get("p_value") is not None]
    for one, p in zip(tested, holm(np.array([one["p_value"] for one in tested])), strict=True):
        one["p_adjusted"] = float(p)
        if p <= ALPHA:
            one["more_rows"] = None
    return plain


def answer_of(start: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, int | None]:
    """Verdict (yes, no or undecided), sentence, and how many more rows would decide it, from
    ``adjusted`` comparisons.
    """
    tested = {name: one for name, one in start.items() if one.get("p_adjusted") is not None}
    if not tested:
        why = [str(one["because"]) for one in start.values() if one.get("because")]
        return "undecided", why[0] if why else "There are no losses to compare.", None
    words, verdicts = [], []
    for name, one in tested.items():
        gap, p = one["difference"]["value"], one["p_adjusted"]
        verdicts.append("open" if p > ALPHA else "better" if gap < 0 else "worse")
        words.append(_against(NAMES[name].format(one["shots"]), one, verdicts[-1]))
    listed = "; ".join(words)
    if "worse" in verdicts:
        return "no", f"No: on the test rows {listed}.", None
    if "open" in verdicts:
        more = [one["more_rows"] for one in tested.values() if one["more_rows"]]
        needed = max(more, default=None)
        tail = f" ({about(needed)} more rows would decide it)" if needed else ""
        return "undecided", f"Inconclusive: on the test rows {listed}{tail}.", needed
    return "yes", f"Yes: on the test rows {listed}.", None


def _against(called: str, one: Mapping[str, Any], verdict: str) -> str:
    gap, rows = one["difference"], count_phrase(one["n"], "row")
    limits = ""
    if gap["low"] is not None:
        ends = (gap["low"], gap["high"]) if verdict != "better" else (-gap["high"], -gap["low"])
        form = "+.3f" if verdict == "open" else ".3f"
        limits = "95 % CI {} to {}, ".format(*(signed(end, form) for end in ends))
    if verdict == "open":
        # After Holm's correction an interval of one comparison may exclude 0.
        limits = limits if limits and gap["low"] <= 0 <= gap["high"] else ""
        return f"no difference from {called} can be shown ({limits}{rows})"
    direction = "lower" if verdict == "better" else "higher"
    amount = f"{abs(gap['value']):.3f} nats per token"
    return f"its loss is {direction} than that of {called} by {amount} ({limits}{rows})"


def _written(promptings: Mapping[str, Prompting], generated: Generated) -> dict[str, Texts]:
    """The texts of the fine-tuned model and of each prompting."""
    every = {"tuned": generated.texts, **{name: way.texts for name, way in promptings.items()}}
    return {
        name: Texts(generated.references, texts, generated.sources, generated.tables)
        for name, texts in every.items()
        if texts is not None and len(generated)
    }


def _row_scores(
    promptings: Mapping[str, Prompting], generated: Generated, metric: TextMetric
) -> dict[str, Floats]:
    """The metric of every row and text, computed once, since it may have to run code."""
    if metric.of_rows is None:
        return {}
    return {
        name: row_scores(metric, texts) for name, texts in _written(promptings, generated).items()
    }


def _texts(
    promptings: Mapping[str, Prompting],
    generated: Generated,
    metric: TextMetric,
    scores: Mapping[str, Floats],
) -> dict[str, Any]:
    """The metric over the generated sample, for the fine-tuned model and each prompting."""
    means: dict[str, float | None]
    if metric.of_rows is None:
        means = {
            name: metric.compute(texts) for name, texts in _written(promptings, generated).items()
        }
    else:
        known = {name: rows[np.isfinite(rows)] for name, rows in scores.items()}
        means = {name: float(r.mean()) if len(r) else None for name, r in known.items()}
    return {"n": len(generated), "metric": metric.name, **means}


def _ability(judge: Judge | None, generated: Generated) -> dict[str, Any] | None:
    if not isinstance(judge, ModelJudge) or not len(generated):
        return None
    return can_judge(judge, generated.sources, generated.references, generated.groups)


def _win_rates(
    promptings: Mapping[str, Prompting],
    generated: Generated,
    judge: Judge | None,
    ability: Mapping[str, object] | None,
    scores: Mapping[str, Floats],
) -> dict[str, Any]:
    if judge is None or not len(generated):
        return {}
    if ability is not None and not ability["able"]:
        why = f"this judge is not shown to prefer a correct text: {ability['because']}"
        nothing = Estimate(None, why=why).to_json()
        return {name: nothing for name, way in promptings.items() if way.texts is not None}
    tests = sum(way.texts is not None for way in promptings.values())
    rates = {
        name: win_rate(
            prefer_scores(judge.metric, scores["tuned"], scores[name]), generated.groups, tests
        )
        if isinstance(judge, MetricJudge) and scores
        else judged(judge, generated, way.texts, tests)
        for name, way in promptings.items()
        if way.texts is not None
    }
    tested = [one for one in rates.values() if one.get("p_value") is not None]
    for one, p in zip(tested, holm(np.array([o["p_value"] for o in tested])), strict=True):
        one["p_adjusted"] = float(p)
        ahead = one["wins"] > one["losses"]
        one["verdict"] = "not shown" if p > ALPHA else "wins" if ahead else "loses"
        if p <= ALPHA:
            one["more_rows"] = None
    return rates


def _judged_sentence(rates: Mapping[str, Any], judge: Judge | None) -> str:
    """The judge's result for the texts, after the verdict of the losses."""
    for name in (EXAMPLES, PLAIN):
        one = rates.get(name)
        if one is None or judge is None or one.get("value") is None:
            continue
        rival = "few-shot" if name == EXAMPLES else "zero-shot"
        counts = f"win {one['wins']}, tie {one['ties']} and lose {one['losses']} of {one['n']}"
        return (
            f" Judged by {CALLED.get(judge.name, judge.name)}, its texts {counts} "
            f"comparisons with the base model's ({rival})."
        )
    return ""
