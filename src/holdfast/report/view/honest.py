"""The honest number: the test score with its interval, beside what needs no fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.core.records import Estimate
from holdfast.report.answer.score import paired_of, rows_of
from holdfast.report.charts.dots import Dot, dots
from holdfast.report.document import Cell
from holdfast.report.numbers import (
    FIRST,
    compact,
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
from holdfast.report.run_files import Block, RunFiles


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
    """What a careless random division would have reported, next to the honest number."""

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
    test = run.part("test")
    scores, others = metrics(test), baselines(run)
    name = headline_metric(scores)
    value = scores.get(name) or Estimate(None, why="there were no test rows")
    columns = [("This model", scores)]
    columns += [(_capital(what), found) for what, found in (*others, *parts(run))]
    rows, how = "test rows", ONCE
    if test.get("out_of_fold"):
        rows, how = "rows out of fold", OUT_OF_FOLD
    if test.get("unit") == "episodes":
        rows, how = "test episodes", EPISODES
    unknown = Estimate(None, why="not recorded")
    # Of the model itself also why nothing was recorded.
    shown = [value, *(found.get(name) or unknown for _, found in columns[1:])]
    dotted = [
        Dot(what, one, "main" if place == 0 else "other")
        for place, ((what, _), one) in enumerate(zip(columns, shown, strict=True))
    ]
    return Honest(
        name=metric_name(name),
        cell=cell(value, name),
        level=f"{100 * value.level:.0f}\u00a0%",
        sentence=_sentence(run, value, name, others),
        opened=moment(test.text("opened_at")),
        chart=dots("score", dotted, name, f"{metric_name(name)} on {rows}"),
        columns=tuple(what for what, _ in columns),
        table=tuple(
            (metric_name(key), tuple(cell(found.get(key, unknown), key) for _, found in columns))
            for key in scores
        ),
        paired=_paired(run, name),
        careless=_careless(run.part("careless"), name),
        rows=rows,
        how=how,
    )


def unless_folded(run: RunFiles) -> Honest | None:
    """``None`` where folds are the score, without test rows: their own section says it."""
    folded = bool(run.part("cv")) and not run.part("test").get("n")
    return None if folded else honest(run)


def headline_metric(scores: Mapping[str, Estimate]) -> str:
    """The metric shown in large: accuracy when there is one."""
    return next((name for name in FIRST if name in scores), next(iter(scores), "accuracy"))


def baselines(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """Every baseline's name and metrics, the chosen one first; an older run lists only one."""
    chosen = run.part("baseline")
    listed = chosen.blocks("all")
    if chosen.get("what"):
        listed = [chosen, *(b for b in listed if b.get("what") != chosen["what"])]
    return [
        (baseline_name(str(b.get("what", "baseline"))), metrics(b.block("test"))) for b in listed
    ]


def baseline_name(what: str) -> str:
    """A baseline's name for a reader. A run may begin as another linear probe, which is none."""
    return "linear probe (baseline)" if what == "linear probe" else what


def parts(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """What else the same model's test rows were scored by: the text part alone where columns stand
    beside it, and the rows of each source by themselves."""
    plain = run.part("plain_part", "test")
    found = [("the text part alone", metrics(plain))] if plain else []
    for name, block in run.part().table("sources").items():
        rows = plural(int(block.get("n") or 0), "row")
        found.append((f"source {name}, {rows}", metrics(block)))
    return found


def cell(value: Estimate, name: str) -> Cell:
    """``value`` of the metric ``name`` as text."""
    remark = value.why or value.note
    return Cell(number(value.value, name), interval(value, name), remark or "")


def _sentence(
    run: RunFiles, value: Estimate, name: str, others: list[tuple[str, dict[str, Estimate]]]
) -> str:
    rows, which = rows_of(run.result), "that took no part in any choice"
    if run.part("test").get("out_of_fold"):
        which = "each by a model that had not learned from it"
        rows += ","
    if value.value is None:
        return f"The score on {rows} is undefined: {value.why}."
    called = "accuracy" if name == "accuracy" else metric_name(name)
    start = f"On {rows} {which}, its {called} is {number(value.value, name)}"
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
    scores = run.part("generations", "scores")
    found, before = (
        scores.block(side).estimate("rouge_l").value for side in ("test", "test_untuned")
    )
    if found is None:
        return ""
    rouge = f" ROUGE-L of its texts is {number(found, 'rouge_l')}"
    return f"{rouge}." if before is None else f"{rouge}, before {number(before, 'rouge_l')}."


def _paired(run: RunFiles, name: str) -> PairedView | None:
    raw = run.part("baseline", "comparison")
    if not raw:
        return None
    untuned = run.part("baseline").get("what") == "untuned model"
    other = "untuned model" if untuned else baseline_name("linear probe")
    found, difference = paired_of(run.result), raw.estimate("difference")
    if found is None:
        verdict = f"The fine-tuned model and the {other} could not be compared."
    elif found.apart and found.gain:
        than = "better" if found.gain > 0 else "worse"
        verdict = f"The fine-tuned model is significantly {than} than the {other}."
    else:
        verdict = f"No difference between the fine-tuned model and the {other} is shown."
    rate = is_rate(raw.text("metric", name))
    show = points if rate else compact
    known = difference.low is not None and difference.high is not None
    return PairedView(
        verdict=verdict,
        difference=f"{show(difference.value)}{' points' if rate else ''}",
        span=f"{show(difference.low)} to {show(difference.high)}" if known else "",
        p=p_value(raw.get("p_value")),
        # Runs by older versions do not name it.
        test=raw.text("test", "paired test"),
        because=raw.text("because", difference.why or ""),
    )


def _careless(raw: Block, name: str) -> Careless | None:
    if not raw:
        return None
    random_split, truth = raw.estimate("random_split"), raw.estimate("honest")
    lines = [Dot("Honest division", truth, "main"), Dot("Random division", random_split, "warn")]
    return Careless(
        what=baseline_name(raw.text("what", "linear probe")),
        chart=dots("careless", lines, name, "Honest against careless division"),
        random_split=cell(random_split, name),
        honest=cell(truth, name),
        because=raw.text("because"),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
