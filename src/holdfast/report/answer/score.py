"""The number of a run that a person is told: with its baselines, in the sentence that tells it, and
in the paired comparison with what is simpler."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.core.records import Estimate
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.report.numbers import MINUS, NBSP, metric_name, metrics, plural
from holdfast.report.run_files import Block

# Whether to use the model.
Use = Literal["yes", "unsettled", "no", "unknown"]
FEW = 100
# What each baseline is called in a sentence, after "the"; those that read nothing by themselves.
GUESSES = {
    "majority class": "majority class (baseline)",
    "training mean": "training mean (baseline)",
}
PHRASES = {**GUESSES, "linear probe": "linear probe (baseline)", "untuned model": "untuned model"}
WRITTEN = ("execution", "exact_match", "rouge_l")
FALLING = ("mae", "rmse", "loss", "token_loss", "perplexity")


@dataclass(frozen=True, slots=True)
class Headline:
    """One number of the test rows, ``others`` its baselines' by name; ``text`` is the headline,
    which begins with the metric's name, empty where the number is undefined."""

    name: str
    value: Estimate
    others: Mapping[str, float]
    text: str

    def beaten_by(self) -> list[str]:
        """The baselines that do at least as well, those that read nothing first."""
        value = self.value.value
        if value is None:
            return []
        sign = -1.0 if self.name in FALLING else 1.0
        found = [what for what, other in self.others.items() if sign * value <= sign * other]
        return sorted(found, key=lambda what: what not in GUESSES)


def score_of(result: Mapping[str, Any]) -> Headline | None:
    """The number of the task's kind; ``None`` where the test rows have no metric at all."""
    result = Block(result)
    found = metrics(result.block("test"))
    if "entity_f1" in found:
        # Told with what it is made of.
        parts = _precision_recall(found.get("entity_precision"), found.get("entity_recall"))
        end = f" {parts[:1].upper()}{parts[1:]}." if parts else ""
        return _share(result, "entity_f1", found["entity_f1"], end=end)
    if "accuracy" in found:
        return _share(result, "accuracy", found["accuracy"])
    if "f1_micro" in found:
        # Judged by micro F1, told by all labels of a row and by what F1 is made of.
        parts = _precision_recall(found.get("precision_micro"), found.get("recall_micro"))
        end = f" Micro-averaged over labels: {parts}." if parts else ""
        whole = _share(result, "exact_match", found["exact_match"], "All labels correct in", end)
        others = _others(result, "f1_micro")
        return Headline("f1_micro", found["f1_micro"], others, whole.text)
    if "mae" in found:
        return _measure(result, "mae", found["mae"])
    if is_written(result):
        return _writing(result, found)
    name = next(iter(found), None)
    return None if name is None else _share(result, name, found[name])


def _share(
    result: Block, name: str, value: Estimate, start: str = "", end: str = "", written: int = 0
) -> Headline:
    """A share of the rows in percent (ROUGE as a fraction, as the tables have it); ``start`` is
    what it is called (the metric's name where empty), ``end`` a sentence that follows."""
    others = _others(result, name)
    scale, unit = (1, "") if name == "rouge_l" else (100, " %")
    shown = _percent(value, others.values(), scale)
    text = ""
    if value.value is not None:
        of = f"{start or metric_name(name)} {shown(value.value)}{unit}"
        text = f"{of}{_span(value, shown, result, written)}{_list(others, shown, unit)}.{end}"
    return Headline(name, value, others, text)


def _precision_recall(given: Estimate | None, seen: Estimate | None) -> str:
    """Both as percentages; empty where one is missing."""
    if given is None or seen is None or given.value is None or seen.value is None:
        return ""
    precision, recall = _percent(given, ())(given.value), _percent(seen, ())(seen.value)
    return f"precision {precision} %, recall {recall} %"


def _writing(result: Block, found: Mapping[str, Estimate]) -> Headline | None:
    """The strictest score of written texts that any row reaches; without texts, perplexity."""
    generated = result.block("generations")
    scores = generated.block("scores", "test")
    texts = {**found, **{name: scores.estimate(name) for name in scores}}
    for name in WRITTEN:
        value = texts.get(name)
        if value is None or value.value is None or (name != "rouge_l" and not value.value):
            continue
        start = "Execution accuracy" if name == "execution" else ""
        # For how many test rows texts were written.
        n = generated.block("counts", "test").whole("n")
        return _share(result, name, value, start, written=n or 0)
    if "perplexity" not in found:
        return None
    return _measure(result, "perplexity", found["perplexity"])


def _measure(result: Block, name: str, value: Estimate) -> Headline:
    """A number that is no share, in its own unit."""
    others = _others(result, name)
    shown = _measured([value.value, *others.values()])
    text = ""
    if value.value is not None:
        of = f"{metric_name(name)} {shown(value.value)}"
        text = f"{of}{_span(value, shown, result)}{_list(others, shown)}."
    return Headline(name, value, others, text)


def _others(result: Block, name: str) -> dict[str, float]:
    """The baselines' numbers by the baseline's name, the best first."""
    block, untuned = result.block("baseline"), result.block("generations", "scores", "test_untuned")
    listed = block.blocks("all") or ([block] if block.get("what") else [])
    found = {
        str(one.get("what")): one.block("test", "metrics").estimate(name) for one in listed if one
    }
    before = found.get("untuned model")
    if name in untuned and (before is None or before.value is None):
        found["untuned model"] = untuned.estimate(name)
    known = {what: one.value for what, one in found.items() if one.value is not None}
    sign = 1.0 if name in FALLING else -1.0
    return dict(sorted(known.items(), key=lambda pair: sign * pair[1]))


def is_written(result: Mapping[str, object]) -> bool:
    """Whether the task writes text, so that the untuned model is what stands beside it."""
    task = result.get("task")
    return task in GENERATIVE_TASKS or bool(result.get("generations"))


def rows_of(result: Mapping[str, Any]) -> str:
    """``30 test rows``; ``30 rows out of fold`` where none were set aside; ``30 test episodes``."""
    test = Block(result).block("test")
    n = test.get("n") or 0
    if test.get("out_of_fold"):
        return f"{plural(n, 'row')} out of fold"
    return plural(n, "test episode" if test.get("unit") == "episodes" else "test row")


def _span(value: Estimate, shown: Callable[[float], str], result: Block, written: int = 0) -> str:
    """``(95 % CI 84–91)``, naming the rows where they are few, or why there is no interval;
    ``written`` are those whose texts were written to be scored, where not all were."""
    n, rows = result.block("test").get("n") or 0, rows_of(result)
    if 0 < written < n:
        n, rows = written, f"{written} of {rows}"
    few = rows if 0 < n < FEW else ""
    if value.low is None or value.high is None:
        why = value.why or value.note or "no interval"
        parts = [few, why if "no interval" in why else f"no interval: {why}"]
    else:
        level = f"{100 * value.level:.0f} % CI"
        parts = [f"{level} {shown(value.low)}–{shown(value.high)}", few]
    return f" ({', '.join(part for part in parts if part)})"


def _list(others: Mapping[str, float], shown: Callable[[float], str], unit: str = "") -> str:
    return "".join(f"; {PHRASES.get(what, what)} {shown(v)}{unit}" for what, v in others.items())


def _percent(
    value: Estimate, others: Collection[float], scale: int = 100
) -> Callable[[float], str]:
    """Whole percentages, or one decimal where whole ones would mislead; the same digits of 1 where
    ``scale`` is 1."""
    known = [v for v in (value.value, *others) if v is not None]
    hidden = any(a != b and round(100 * a) == round(100 * b) for a in known for b in known)
    ends = any(round(100 * v) in (0, 100) and v not in (0.0, 1.0) for v in known)
    digits = (1 if hidden or ends else 0) + (2 if scale == 1 else 0)
    return lambda v: f"{scale * v:.{digits}f}"


def _measured(values: Sequence[float | None]) -> Callable[[float], str]:
    """Three figures of the first of the numbers, and as many decimals for the others."""
    first = next((abs(v) for v in values if v), 1.0)
    digits = min(12, max(0, 2 - math.floor(math.log10(first))))
    return lambda v: f"{v:,.{digits}f}"


@dataclass(frozen=True, slots=True)
class Paired:
    """The paired comparison with the probe or the untuned model: ``gain`` above 0 is better."""

    gain: float
    low: float | None
    high: float | None
    apart: bool
    metric: str
    level: float = 0.95


def paired_of(result: Mapping[str, Any]) -> Paired | None:
    """From ``baseline.comparison`` of result.json; ``None`` where nothing was compared."""
    raw = Block(result).block("baseline", "comparison")
    found, p = raw.estimate("difference"), raw.get("p_adjusted", raw.get("p_value"))
    if found.value is None or (p is None and found.low is None):
        return None
    metric = raw.text("metric", "accuracy")
    # The loss of a row that is written is a mean over its tokens: its unit is nats a token.
    metric = "token_loss" if metric == "loss" and is_written(result) else metric
    sign = -1.0 if metric in FALLING else 1.0
    ends = [None if end is None else sign * end for end in (found.low, found.high)]
    # Turning the sign turns the ends round.
    low, high = ends if sign > 0 else ends[::-1]
    holds_zero = low is None or high is None or low <= 0 <= high
    apart = p < 1 - found.level if p is not None else not holds_zero
    return Paired(sign * found.value, low, high, apart, metric, found.level)


def by_words(paired: Paired) -> str:
    """``by 8.0 points (95 % CI 3.1 to 12.9)``, whichever is better."""
    size = _amount(abs(paired.gain), paired)
    if paired.low is None or paired.high is None:
        return f"by {size}"
    ends = (paired.low, paired.high) if paired.gain >= 0 else (-paired.high, -paired.low)
    ci = f"{_amount(ends[0], paired, True)} to {_amount(ends[1], paired, True)}"
    return f"by {size} ({_level(paired)} CI {ci})"


def gap_words(paired: Paired) -> str:
    """``difference +8.0 points, 95 % CI −4.0 to +20.0``."""
    words = f"difference {_signed(paired.gain, paired)}"
    if paired.low is None or paired.high is None:
        return words
    ci = f"{_signed(paired.low, paired, True)} to {_signed(paired.high, paired, True)}"
    return f"{words}, {_level(paired)} CI {ci}"


def _level(paired: Paired) -> str:
    return f"{100 * paired.level:.0f}{NBSP}%"


def _amount(value: float, paired: Paired, bare: bool = False) -> str:
    if paired.metric == "accuracy":
        unit = "" if bare else f"{NBSP}points"
        return f"{100 * value:.1f}".replace("-", MINUS) + unit
    unit = {"mae": "", "token_loss": " nats a token"}.get(paired.metric, " nats a row")
    unit = "" if bare else unit
    return f"{value:.3g}".replace("-", MINUS) + unit


def _signed(value: float, paired: Paired, bare: bool = False) -> str:
    return ("+" if value > 0 else "") + _amount(value, paired, bare)
