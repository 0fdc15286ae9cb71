"""The honest number: the test score with its interval, beside what needs no fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.answer.score import rows_of
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.numbers import (
    FIRST,
    compact,
    estimate,
    interval,
    is_rate,
    metric_name,
    metrics,
    moment,
    number,
    p_value,
    plural,
    points,
)
from holdfast.report.run_files import RunFiles

LOSSES = ("loss", "token_loss", "perplexity", "mae")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number, its interval, and a remark: why it is undefined, or what qualifies it."""

    value: str
    span: str
    remark: str


@dataclass(frozen=True, slots=True)
class PairedView:
    """The paired test of the fine-tune against the probe, on the same test rows."""

    verdict: str
    difference: str
    span: str
    p: str
    test: str
    because: str


@dataclass(frozen=True, slots=True)
class Careless:
    """What a careless random division would have reported, beside the honest number."""

    what: str
    chart: Markup
    random_split: Cell
    honest: Cell
    because: str


@dataclass(frozen=True, slots=True)
class Honest:
    """The section. ``table`` has one line a metric; ``columns`` are this model and baselines."""

    name: str
    cell: Cell
    level: str
    sentence: str
    opened: str
    chart: Markup
    columns: tuple[str, ...]
    table: tuple[tuple[str, tuple[Cell, ...]], ...]
    paired: PairedView | None
    careless: Careless | None
    rows: str
    how: str


ONCE = "Measured once, on test rows that took no part in any choice."
OUT_OF_FOLD = (
    "There are no test rows: each row was predicted out of fold, by a model trained on the other "
    "rows. The interval is for the model of all rows."
)
EPISODES = (
    "An episode is a task that the model was not trained on: a few rows of each class to learn "
    "from, and others to predict."
)


def honest(run: RunFiles) -> Honest:
    """Tolerates a run without test rows or baselines: each missing number says why."""
    scores = metrics(run.part("test"))
    name = headline_metric(scores)
    value = scores.get(name) or Estimate(None, why="there were no test rows")
    others = baselines(run)
    beside = [*others, *parts(run)]
    folds = bool(run.part("test").get("out_of_fold"))
    rows = "rows out of fold" if folds else "test rows"
    how = OUT_OF_FOLD if folds else ONCE
    if run.part("test").get("unit") == "episodes":
        rows, how = "test episodes", EPISODES
    return Honest(
        name=metric_name(name),
        cell=cell(value, name),
        level=f"{100 * value.level:.0f}\u00a0%",
        sentence=_sentence(run, value, name, others),
        opened=moment(str(run.part("test").get("opened_at") or "")),
        chart=dots("score", _lines(name, value, beside), name, f"{metric_name(name)} on {rows}"),
        columns=("This model", *(_capital(what) for what, _ in beside)),
        table=_table(scores, beside),
        paired=_paired(run.part("baseline", "comparison"), name, _compared(run)),
        careless=_careless(run.part("careless"), name),
        rows=rows,
        how=how,
    )


def headline_metric(scores: Mapping[str, Estimate]) -> str:
    """The metric shown in large: accuracy when there is one."""
    return next((name for name in FIRST if name in scores), next(iter(scores), "accuracy"))


def baselines(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """Every baseline's name and metrics, the chosen one first; an older run lists only one."""
    chosen = run.part("baseline")
    listed = list(run.records("baseline", "all"))
    if chosen.get("what"):
        listed = [chosen, *(b for b in listed if b.get("what") != chosen["what"])]
    return [
        (baseline_name(str(b.get("what", "baseline"))), metrics(b.get("test") or {}))
        for b in listed
    ]


def baseline_name(what: str) -> str:
    """A baseline's name for a reader. A run may begin as another linear probe, which is none."""
    return "linear probe (baseline)" if what == "linear probe" else what


def parts(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """What else the same model's test rows were scored by: the text part alone where columns stand
    beside it, and the rows of each source by themselves."""
    found = []
    if plain := run.part("plain_part", "test"):
        found.append(("the text part alone", metrics(plain)))
    for name in run.part("sources"):
        block = run.part("sources", name)
        rows = plural(int(block.get("n") or 0), "row")
        found.append((f"source {name}, {rows}", metrics(block)))
    return found


def cell(value: Estimate, name: str) -> Cell:
    """``value`` of the metric ``name`` as text."""
    remark = value.why or value.note
    return Cell(number(value.value, name), interval(value, name), remark or "")


def _lines(name: str, value: Estimate, others: list[tuple[str, dict[str, Estimate]]]) -> list[Dot]:
    rest = [
        Dot(_capital(what), found.get(name) or Estimate(None, why="not recorded"))
        for what, found in others
    ]
    return [Dot("This model", value, "main"), *rest]


def _table(
    scores: Mapping[str, Estimate], others: list[tuple[str, dict[str, Estimate]]]
) -> tuple[tuple[str, tuple[Cell, ...]], ...]:
    unknown = Estimate(None, why="not recorded")
    return tuple(
        (
            metric_name(name),
            (cell(value, name), *(cell(found.get(name, unknown), name) for _, found in others)),
        )
        for name, value in scores.items()
    )


def _sentence(
    run: RunFiles, value: Estimate, name: str, others: list[tuple[str, dict[str, Estimate]]]
) -> str:
    rows, which = rows_of(run.result), "that took no part in any choice"
    if run.part("test").get("out_of_fold"):
        which = "each by a model that had not learned from it"
        rows += ","
    if value.value is None:
        return f"The score on {rows} is undefined: {value.why}."
    score = number(value.value, name)
    start = (
        f"On {rows} {which}, its accuracy is {score}"
        if name == "accuracy"
        else f"On {rows} {which}, its {metric_name(name)} is {score}"
    )
    if not others or others[0][1].get(name) is None:
        return f"{start}."
    if name == "perplexity":
        beside = number(others[0][1][name].value, name)
        return f"{start}; that of the {others[0][0]} {beside}.{_overlap(run)}"
    told = [
        f"the {what.removesuffix(' (baseline)')} has {number(scores[name].value, name)}"
        for what, scores in others
        if scores.get(name) is not None
    ]
    return f"{start}; {' and '.join(told)}."


def _overlap(run: RunFiles) -> str:
    """ROUGE-L of the generated sample in a sentence; empty where nothing was generated."""
    found = {
        side: estimate(run.part("generations", "scores", side).get("rouge_l"))
        for side in ("test", "test_untuned")
    }
    if found["test"].value is None:
        return ""
    rouge = f" ROUGE-L of its texts is {number(found['test'].value, 'rouge_l')}"
    before = found["test_untuned"].value
    return f"{rouge}." if before is None else f"{rouge}, before {number(before, 'rouge_l')}."


def _compared(run: RunFiles) -> str:
    """What the paired test compares the fine-tune with."""
    untuned = run.part("baseline").get("what") == "untuned model"
    return "untuned model" if untuned else baseline_name("linear probe")


def _paired(raw: Mapping[str, Any], name: str, other: str) -> PairedView | None:
    if not raw:
        return None
    rate = is_rate(str(raw.get("metric") or name))
    difference = estimate(raw.get("difference"))
    show = points if rate else compact
    known = difference.low is not None and difference.high is not None
    return PairedView(
        verdict=_paired_words(
            difference,
            raw.get("p_adjusted", raw.get("p_value")),
            other,
            str(raw.get("metric")) in LOSSES,
        ),
        difference=f"{show(difference.value)}{' points' if rate else ''}",
        span=f"{show(difference.low)} to {show(difference.high)}" if known else "",
        p=p_value(raw.get("p_value")),
        # Runs by older versions do not name it.
        test=str(raw.get("test") or "paired test"),
        because=str(raw.get("because") or difference.why or ""),
    )


def _paired_words(difference: Estimate, p: float | None, other: str, loss: bool) -> str:
    """The test decides where there is one; else the interval."""
    if difference.value is None or (p is None and difference.low is None):
        return f"The fine-tuned model and the {other} could not be compared."
    apart = p < 1 - difference.level if p is not None else not _holds_zero(difference)
    gain = -difference.value if loss else difference.value
    if apart and gain > 0:
        return f"The fine-tuned model is significantly better than the {other}."
    if apart and gain < 0:
        return f"The fine-tuned model is significantly worse than the {other}."
    return f"No difference between the fine-tuned model and the {other} is shown."


def _holds_zero(difference: Estimate) -> bool:
    return (difference.low or 0.0) <= 0 <= (difference.high or 0.0)


def _careless(raw: Mapping[str, object], name: str) -> Careless | None:
    if not raw:
        return None
    random_split, truth = estimate(raw.get("random_split")), estimate(raw.get("honest"))
    lines = [Dot("Honest division", truth, "main"), Dot("Random division", random_split, "warn")]
    return Careless(
        what=baseline_name(str(raw.get("what") or "linear probe")),
        chart=dots("careless", lines, name, "Honest against careless division"),
        random_split=cell(random_split, name),
        honest=cell(truth, name),
        because=str(raw.get("because") or ""),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
