"""``worth`` of ``result.json``: the fine-tuned model against its base model on the same test rows.

The base model is prompted zero-shot and few-shot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from holdfast.core.metric_names import metric_words
from holdfast.core.records import Estimate, Floats, to_json
from holdfast.core.wording import about, count_phrase, signed
from holdfast.metrics import TextMetric, Texts
from holdfast.metrics.comparison import compare_losses, compare_rates
from holdfast.metrics.resample import ResampledUnits
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
    """``start`` (a paired comparison of losses for each prompting), ``texts`` (the same for the
    generated texts, by ``metric``), ``win_rate`` by the stated judge, ``general``, and the
    ``verdict``: yes, no or undecided by the losses, Holm over both promptings; undecided where the
    texts contradict them.
    """
    tests = sum(way.judged and way.outputs is not None for way in promptings.values())
    start = adjusted({name: _compared(name, way, seed, tests) for name, way in promptings.items()})
    scores = _row_scores(promptings, generated, metric)
    texts = _texts(scores, generated, metric, promptings, seed)
    verdict, because, more = answer_of(start, texts)
    ability = _ability(judge, generated)
    same = isinstance(judge, MetricJudge) and judge.metric is metric
    rates = _win_rates(promptings, generated, judge, ability, scores if same else {})
    block: dict[str, Any] = to_json(
        {
            "verdict": verdict,
            "because": because + _judged_sentence(rates, judge),
            "more_rows": more,
            "start": start,
            "texts": texts,
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
    _correct(one for one in plain.values() if one.get("judged", True))
    return plain


def _correct(comparisons: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give those with a p-value ``p_adjusted``, Holm's over all of them, and return them; a
    significant one needs no ``more_rows``."""
    tested = [one for one in comparisons if one.get("p_value") is not None]
    for one, p in zip(tested, holm(np.array([one["p_value"] for one in tested])), strict=True):
        one["p_adjusted"] = float(p)
        if p <= ALPHA and "more_rows" in one:
            one["more_rows"] = None
        if one["p_value"] <= ALPHA < p and "because" in one:
            one["because"] += f" After Holm's correction p = {p:.2g}: no difference is shown."
    return tested


def answer_of(
    start: Mapping[str, Mapping[str, Any]], texts: Mapping[str, Any]
) -> tuple[str, str, int | None]:
    """Verdict (yes, no or undecided), sentence, and how many more rows would decide it, from
    ``adjusted`` comparisons of losses and those of the generated ``texts``.

    A model whose loss is significantly better than a prompting's and whose texts are significantly
    worse than the same prompting's (or the converse) is undecided, and no number of rows decides
    that.
    """
    tested = {name: one for name, one in start.items() if one.get("p_adjusted") is not None}
    if not tested:
        why = [str(one["because"]) for one in start.values() if one.get("because")]
        return "undecided", why[0] if why else "There are no losses to compare.", None
    words, by_loss = [], {}
    for name, one in tested.items():
        gap, p = one["difference"]["value"], one["p_adjusted"]
        by_loss[name] = "open" if p > ALPHA else "better" if gap < 0 else "worse"
        words.append(_against(NAMES[name].format(one["shots"]), one, by_loss[name]))
    listed, verdicts = "; ".join(words), set(by_loss.values())
    by_texts = {name: one["verdict"] for name, one in texts.get("difference", {}).items()}
    parted = {
        name: one
        for name, one in by_texts.items()
        if {one, by_loss.get(name)} == {"better", "worse"}
    }
    if any(one == "worse" and name not in parted for name, one in by_loss.items()):
        return "no", f"No: on the test rows {listed}.", None
    if parted:
        shown = _texts_sentence(texts, parted)
        return "undecided", f"Inconclusive: on the test rows {listed}, but {shown}.", None
    if "open" in verdicts:
        more = [one["more_rows"] for one in tested.values() if one["more_rows"]]
        needed = max(more, default=None)
        tail = f"; {about(needed)} more rows would decide" if needed else ""
        clear = {name: one for name, one in by_texts.items() if one != "not shown"}
        shown = f", but {_texts_sentence(texts, clear)}" if clear else ""
        return "undecided", f"Inconclusive: on the test rows {listed}{tail}{shown}.", needed
    return "yes", f"Yes: on the test rows {listed}.", None


def _texts_sentence(texts: Mapping[str, Any], verdicts: Mapping[str, str]) -> str:
    """Which promptings' texts this model's are better or worse than, by the metric, with the
    interval; ``verdicts`` are those of the promptings to name."""
    metric, sentences = metric_words(str(texts.get("metric"))), []
    for verdict in ("better", "worse"):
        named = []
        for name in (one for one, found in verdicts.items() if found == verdict):
            one = texts["difference"][name]
            gap, called = one["difference"], NAMES[name].format(one["shots"])
            limits = ""
            if gap["low"] is not None:
                ends = (signed(gap[end], "+.3f") for end in ("low", "high"))
                limits = ", 95 % CI {} to {}".format(*ends)
            difference = signed(gap["value"], "+.3f")
            named.append(f"those of {called} (difference {difference}{limits})")
        if named:
            listed = " and ".join(named)
            sentences.append(f"its generated texts are {verdict} in {metric} than {listed}")
    return ", and ".join(sentences)


def _against(called: str, one: Mapping[str, Any], verdict: str) -> str:
    gap, rows = one["difference"], count_phrase(one["n"], "row")
    limits = ""
    if gap["low"] is not None:
        ends = (gap["low"], gap["high"]) if verdict != "better" else (-gap["high"], -gap["low"])
        form = "+.3f" if verdict == "open" else ".3f"
        limits = "95 % CI {} to {}, ".format(*(signed(end, form) for end in ends))
    if verdict == "open":
        # An interval is that of one comparison; the verdict is that of all of them.
        if limits and not gap["low"] <= 0 <= gap["high"]:
            limits += f"but p = {one['p_adjusted']:.2g} after Holm's correction, "
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
    return {
        name: row_scores(metric, texts) for name, texts in _written(promptings, generated).items()
    }


def _texts(
    scores: Mapping[str, Floats],
    generated: Generated,
    metric: TextMetric,
    promptings: Mapping[str, Prompting],
    seed: int,
) -> dict[str, Any]:
    """The mean of ``metric`` over the generated sample, for the fine-tuned model and each
    prompting, and the paired ``difference`` from each prompting: p-values with Holm's correction.
    """
    known = {name: rows[np.isfinite(rows)] for name, rows in scores.items()}
    means = {name: float(rows.mean()) if len(rows) else None for name, rows in known.items()}
    gains = {
        name: {"shots": promptings[name].shots}
        | _gain(scores["tuned"], rows, generated.groups, metric, seed)
        for name, rows in scores.items()
        if name != "tuned" and promptings[name].judged
    }
    for one in gains.values():
        one["verdict"] = "not shown"
    for one in _correct(gains.values()):
        if one["p_adjusted"] <= ALPHA:
            is_better = (one["difference"].value > 0) == metric.higher_is_better
            one["verdict"] = "better" if is_better else "worse"
    block: dict[str, Any] = to_json(
        {"n": len(generated), "metric": metric.name, **means, "difference": gains}
    )
    return block


def _gain(
    tuned: Floats, base: Floats, groups: object, metric: TextMetric, seed: int
) -> dict[str, Any]:
    """The metric of the fine-tuned model's texts minus the base model's, on the rows where both
    have one."""
    known = np.isfinite(tuned) & np.isfinite(base)
    of_rows = None if groups is None else np.asarray(groups, dtype=object)[known]
    units = ResampledUnits.by(of_rows, int(known.sum()))
    if metric.rate and known.any():
        difference, p_value, test = compare_rates(tuned[known] == 1, base[known] == 1, units)
        return {"difference": difference, "p_value": p_value, "test": test}
    compared = compare_losses(tuned[known], base[known], units, metric=metric.name, seed=seed)
    return {key: compared.get(key) for key in ("difference", "p_value", "test")}


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
    for one in _correct(rates.values()):
        ahead = one["wins"] > one["losses"]
        shown = one["p_adjusted"] <= ALPHA
        one["verdict"] = "not shown" if not shown else "wins" if ahead else "loses"
    return rates


def _judged_sentence(rates: Mapping[str, Any], judge: Judge | None) -> str:
    """The judge's result for the texts, after the verdict of the losses."""
    for name in (EXAMPLES, PLAIN):
        one = rates.get(name)
        if one is None or judge is None or one.get("value") is None:
            continue
        judged_by = metric_words(judge.name) if isinstance(judge, MetricJudge) else judge.name
        rival = "few-shot" if name == EXAMPLES else "zero-shot"
        counts = f"win {one['wins']}, tie {one['ties']} and lose {one['losses']} of {one['n']}"
        return (
            f" Judged by {judged_by}, its texts {counts} "
            f"comparisons with the base model's ({rival})."
        )
    return ""
