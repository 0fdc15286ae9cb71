"""The headline score of a run with its baselines, and the paired comparison with the linear probe
or the untuned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.core.metric_names import LOWER_IS_BETTER, metric_name
from holdfast.core.records import Estimate
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.core.wording import unit_phrase
from holdfast.report.numbers import MINUS, NBSP, metrics, plural
from holdfast.report.run_files import Block

# Whether to use the model.
Use = Literal["yes", "unsettled", "no", "unknown"]
FEW_TEST_ROWS = 100
# Names of the baselines in a sentence, after "the"; first those that do not read the rows.
GUESSES = {
    "majority class": "most frequent class (baseline)",
    "training mean": "training mean (baseline)",
    "most frequent answer": "most frequent answer (baseline)",
}
PHRASES = {**GUESSES, "linear probe": "linear probe (baseline)", "untuned model": "base model"}
TEXT_METRICS = ("execution", "exact_match", "rouge_l")


@dataclass(frozen=True, slots=True)
class Headline:
    """One metric on the test rows; ``others`` are the baselines' values by name. ``text`` is the
    headline, which begins with the metric's name; empty where the value is undefined."""

    name: str
    value: Estimate
    others: Mapping[str, float]
    text: str

    def beaten_by(self) -> list[str]:
        """The baselines that are at least as good; those that do not read the rows come first."""
        value = self.value.value
        if value is None:
            return []
        sign = -1.0 if self.name in LOWER_IS_BETTER else 1.0
        better = [what for what, other in self.others.items() if sign * value <= sign * other]
        return sorted(better, key=lambda what: what not in GUESSES)


def headline_score(result: Mapping[str, Any]) -> Headline | None:
    """The headline metric of the task; ``None`` where the test rows have no metric."""
    result = Block(result)
    metrics_found = metrics(result.block("test"))
    if "entity_f1" in metrics_found:
        # Given with precision and recall.
        precision_recall = _precision_recall(
            metrics_found.get("entity_precision"), metrics_found.get("entity_recall")
        )
        end = f" {precision_recall[:1].upper()}{precision_recall[1:]}." if precision_recall else ""
        return _share_headline(result, "entity_f1", metrics_found["entity_f1"], closing=end)
    if "accuracy" in metrics_found:
        return _share_headline(result, "accuracy", metrics_found["accuracy"])
    if "f1_micro" in metrics_found:
        # Compared by micro F1; the text gives the exact match, precision and recall.
        precision_recall = _precision_recall(
            metrics_found.get("precision_micro"), metrics_found.get("recall_micro")
        )
        end = f" Micro-averaged over labels: {precision_recall}." if precision_recall else ""
        all_correct = _share_headline(
            result, "exact_match", metrics_found["exact_match"], "All labels correct in", end
        )
        others = _baseline_values(result, "f1_micro")
        return Headline("f1_micro", metrics_found["f1_micro"], others, all_correct.text)
    if "mae" in metrics_found:
        return _measure_headline(result, "mae", metrics_found["mae"])
    if is_generation(result):
        return _written_text_headline(result, metrics_found)
    name = next(iter(metrics_found), None)
    return None if name is None else _share_headline(result, name, metrics_found[name])


def _share_headline(
    result: Block,
    name: str,
    value: Estimate,
    opening: str = "",
    closing: str = "",
    written_rows: int = 0,
) -> Headline:
    """A share of the rows in percent (ROUGE as a fraction, as in tables). ``opening`` is its name
    (default: the metric's), ``closing`` a further sentence; ``written_rows`` counts the rows with
    generated text."""
    others = _baseline_values(result, name)
    scale, unit = (1, "") if name == "rouge_l" else (100, " %")
    shown = _percent_format(value, others.values(), scale)
    text = ""
    if value.value is not None:
        of = f"{opening or metric_name(name)} {shown(value.value)}{unit}"
        limits = _interval_text(value, shown, result, written_rows)
        text = f"{of}{limits}{_baseline_text(others, shown, unit)}.{closing}"
    return Headline(name, value, others, text)


def _precision_recall(precision_estimate: Estimate | None, recall_estimate: Estimate | None) -> str:
    """Both as percentages; empty where one is missing."""
    if (
        precision_estimate is None
        or recall_estimate is None
        or precision_estimate.value is None
        or recall_estimate.value is None
    ):
        return ""
    precision, recall = (
        _percent_format(precision_estimate, ())(precision_estimate.value),
        _percent_format(recall_estimate, ())(recall_estimate.value),
    )
    return f"precision {precision} %, recall {recall} %"


def _written_text_headline(result: Block, metrics_found: Mapping[str, Estimate]) -> Headline | None:
    """The strictest score of the generated texts that is above 0; without texts, perplexity."""
    generated = result.block("generations")
    scores = generated.block("scores", "test")
    texts = {**metrics_found, **{name: scores.estimate(name) for name in scores}}
    for name in TEXT_METRICS:
        value = texts.get(name)
        if value is None or value.value is None or (name != "rouge_l" and not value.value):
            continue
        start = "Execution accuracy" if name == "execution" else ""
        # The number of test rows with generated text.
        n = generated.block("counts", "test").whole("n")
        return _share_headline(result, name, value, start, written_rows=n or 0)
    if "perplexity" not in metrics_found:
        return None
    return _measure_headline(result, "perplexity", metrics_found["perplexity"])


def _measure_headline(result: Block, name: str, value: Estimate) -> Headline:
    """A metric that is not a share, in its own unit."""
    others = _baseline_values(result, name)
    shown = _measure_format([value.value, *others.values()])
    text = ""
    if value.value is not None:
        of = f"{metric_name(name)} {shown(value.value)}"
        text = f"{of}{_interval_text(value, shown, result)}{_baseline_text(others, shown)}."
    return Headline(name, value, others, text)


def _baseline_values(result: Block, name: str) -> dict[str, float]:
    """The baselines' values by the baseline's name, the best first."""
    block, texts = result.block("baseline"), result.block("generations", "scores")
    listed = block.blocks("all") or ([block] if block.get("what") else [])
    estimates = {
        str(one.get("what")): one.block("test", "metrics").estimate(name) for one in listed if one
    }
    for what, scored in (
        ("untuned model", "test_untuned"),
        ("most frequent answer", "test_constant"),
    ):
        known = estimates.get(what)
        if name in texts.block(scored) and (known is None or known.value is None):
            estimates[what] = texts.block(scored).estimate(name)
    values = {what: one.value for what, one in estimates.items() if one.value is not None}
    sign = 1.0 if name in LOWER_IS_BETTER else -1.0
    return dict(sorted(values.items(), key=lambda pair: sign * pair[1]))


def is_generation(result: Mapping[str, object]) -> bool:
    """Whether the task generates text, so that the baseline is the untuned model."""
    task = result.get("task")
    return task in GENERATIVE_TASKS or bool(result.get("generations"))


def test_row_text(result: Mapping[str, Any]) -> str:
    """``30 test rows``, and of how many groups or different texts they are, where intervals count
    these; ``30 out-of-fold rows`` without a test set; ``30 test episodes``."""
    test = Block(result).block("test")
    noun = "test episode" if test.get("unit") == "episodes" else "test row"
    rows = plural(test.get("n") or 0, "out-of-fold row" if test.get("out_of_fold") else noun)
    units = unit_phrase(test)
    return f"{rows} of {units}" if units else rows


def _interval_text(
    value: Estimate, shown: Callable[[float], str], result: Block, written_rows: int = 0
) -> str:
    """``(95 % CI 84–91)``, with the number of rows where they are few, or why there is no interval.
    ``written_rows`` is the number of rows with generated text, where not all have one."""
    n, rows = result.block("test").get("n") or 0, test_row_text(result)
    if 0 < written_rows < n:
        n, rows = written_rows, f"{written_rows} of {rows}"
    row_note = rows if 0 < n < FEW_TEST_ROWS or unit_phrase(result.block("test")) else ""
    if value.low is None or value.high is None:
        why = value.why or value.note or "no interval"
        parts = [row_note, why if "no interval" in why else f"no interval: {why}"]
    else:
        level = f"{100 * value.level:.0f} % CI"
        parts = [f"{level} {shown(value.low)}–{shown(value.high)}", row_note]
    return f" ({', '.join(part for part in parts if part)})"


def _baseline_text(
    others: Mapping[str, float], shown: Callable[[float], str], unit: str = ""
) -> str:
    return "".join(f"; {PHRASES.get(what, what)} {shown(v)}{unit}" for what, v in others.items())


def _percent_format(
    value: Estimate, others: Collection[float], scale: int = 100
) -> Callable[[float], str]:
    """Whole percentages, or one decimal where whole ones would mislead; as a fraction where
    ``scale`` is 1."""
    values = [v for v in (value.value, *others) if v is not None]
    hides_difference = any(
        a != b and round(100 * a) == round(100 * b) for a in values for b in values
    )
    hides_extreme = any(round(100 * v) in (0, 100) and v not in (0.0, 1.0) for v in values)
    digits = (1 if hides_difference or hides_extreme else 0) + (2 if scale == 1 else 0)
    return lambda v: f"{scale * v:.{digits}f}"


def _measure_format(values: Sequence[float | None]) -> Callable[[float], str]:
    """Three significant digits for the first number, and as many decimals for the others."""
    first = next((abs(v) for v in values if v), 1.0)
    digits = min(12, max(0, 2 - math.floor(math.log10(first))))
    return lambda v: f"{v:,.{digits}f}"


def shows_guess(score: Estimate, name: str, guess: float, rows: int) -> bool:
    """Whether the rows show that a constant prediction, whose ``guess`` is at least as good as the
    ``score``, is no worse: on ``FEW_TEST_ROWS`` rows and more; on fewer only outside the interval,
    or where there is none."""
    if rows >= FEW_TEST_ROWS or score.low is None or score.high is None:
        return True
    return guess < score.low if name in LOWER_IS_BETTER else guess > score.high


@dataclass(frozen=True, slots=True)
class Paired:
    """The paired comparison with the linear probe or the untuned model. This model is better where
    ``gain`` is above 0; ``apart``: the difference is significant."""

    gain: float
    low: float | None
    high: float | None
    apart: bool
    metric: str
    level: float = 0.95


def paired_comparison(result: Mapping[str, Any]) -> Paired | None:
    """From ``baseline.comparison`` of result.json; ``None`` where nothing was compared."""
    comparison = Block(result).block("baseline", "comparison")
    difference, p = (
        comparison.estimate("difference"),
        comparison.get("p_adjusted", comparison.get("p_value")),
    )
    if difference.value is None or (p is None and difference.low is None):
        return None
    metric = comparison.text("metric", "accuracy")
    # The loss of a generated row is a mean over its tokens, in nats per token.
    metric = "token_loss" if metric == "loss" and is_generation(result) else metric
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    ends = [None if end is None else sign * end for end in (difference.low, difference.high)]
    # A change of sign swaps the ends.
    low, high = ends if sign > 0 else ends[::-1]
    includes_zero = low is None or high is None or low <= 0 <= high
    is_significant = p < 1 - difference.level if p is not None else not includes_zero
    return Paired(sign * difference.value, low, high, is_significant, metric, difference.level)


def compared_baseline(result: Mapping[str, Any]) -> str:
    """The baseline of the paired comparison, in words: the untuned model for generated texts, else
    the linear probe, but for a frozen encoder, which is one itself."""
    if is_generation(result):
        return "base model"
    names = [one.text("what") for one in Block(result).block("baseline").blocks("all")]
    compared = "linear probe" if "linear probe" in names or not names else names[0]
    return PHRASES.get(compared, compared)


def cheaper_text(other: str, *, frozen: bool = False) -> str:
    """That the baseline ``other`` costs less, and the setting that trains it, if there is one and
    the encoder is not ``frozen`` already."""
    if other == PHRASES["linear probe"] and not frozen:
        return f"The {other} costs less: --set model.freeze=backbone trains only the last layer."
    return f"The {other} costs less."


def advantage_text(paired: Paired) -> str:
    """``by 8.0 points (95 % CI 3.1 to 12.9)``, whichever model is better."""
    size = _format_amount(abs(paired.gain), paired)
    if paired.low is None or paired.high is None:
        return f"by {size}"
    ends = (paired.low, paired.high) if paired.gain >= 0 else (-paired.high, -paired.low)
    ci = f"{_format_amount(ends[0], paired, True)} to {_format_amount(ends[1], paired, True)}"
    return f"by {size} ({_level(paired)} CI {ci})"


def difference_text(paired: Paired) -> str:
    """``difference +8.0 points, 95 % CI −4.0 to +20.0``."""
    words = f"difference {_format_signed(paired.gain, paired)}"
    if paired.low is None or paired.high is None:
        return words
    ci = (
        f"{_format_signed(paired.low, paired, True)} to {_format_signed(paired.high, paired, True)}"
    )
    return f"{words}, {_level(paired)} CI {ci}"


def _level(paired: Paired) -> str:
    return f"{100 * paired.level:.0f}{NBSP}%"


def _format_amount(value: float, paired: Paired, bare: bool = False) -> str:
    if paired.metric == "accuracy":
        unit = "" if bare else f"{NBSP}points"
        return f"{100 * value:.1f}".replace("-", MINUS) + unit
    unit = {"mae": "", "token_loss": " nats per token"}.get(paired.metric, " nats per row")
    unit = "" if bare else unit
    return f"{value:.3g}".replace("-", MINUS) + unit


def _format_signed(value: float, paired: Paired, bare: bool = False) -> str:
    return ("+" if value > 0 else "") + _format_amount(value, paired, bare)
