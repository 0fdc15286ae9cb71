"""The section "Test score": the score with its interval, compared with the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.core.metric_names import metric_name, metric_words
from holdfast.core.records import Estimate
from holdfast.report.answer.score import compared_baseline, paired_comparison, test_row_text
from holdfast.report.charts.dots import Dot, draw_dots
from holdfast.report.document import Cell
from holdfast.report.numbers import (
    HEADLINE_METRICS,
    compact,
    interval,
    is_rate,
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
    """The paired comparison of the fine-tuned model with the linear probe, on the same rows;
    ``test`` is the test with its p-value, or how the interval was made."""

    verdict: str
    difference: str
    span: str
    test: str
    because: str


@dataclass(frozen=True, slots=True)
class Careless:
    """The score on a random split (``random_split``) and on the split of the run (``honest``)."""

    what: str
    chart: Markup
    random_split: Cell
    honest: Cell
    because: str


@dataclass(frozen=True, slots=True)
class ScoreView:
    """The section. ``table`` has one line for each metric; ``columns`` are this model and its
    baselines."""

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


# Names of the baselines for readers, by ``what`` of their blocks.
BASELINE_NAMES = {
    "linear probe": "linear probe (baseline)",
    "majority class": "most frequent class",
}
MEASURED_ONCE = "Scored once on the test set, whose rows took no part in any choice."
OUT_OF_FOLD = (
    "There are no test rows: each row was predicted out of fold, by a model trained on the other "
    "folds. The interval is for the model trained on all rows."
)
EPISODES = (
    "An episode is a task that the model was not trained on: it gets a few labelled rows of each "
    "class and predicts other rows."
)


def score_view(run: RunFiles) -> ScoreView:
    """The data of the section. A run may lack test rows or baselines: each missing number then says
    why."""
    test = run.part("test")
    scores, baseline_scores = metrics(test), baselines(run)
    name = headline_metric(scores)
    value = scores.get(name) or Estimate(None, why="there were no test rows")
    columns = [("This model", scores)]
    columns += [
        (_capitalize_first(column_name), scores_found)
        for column_name, scores_found in (*baseline_scores, *partial_scores(run))
    ]
    rows, how = "test rows", MEASURED_ONCE
    if test.get("out_of_fold"):
        rows, how = "out-of-fold rows", OUT_OF_FOLD
    if test.get("unit") == "episodes":
        rows, how = "test episodes", EPISODES
    unknown = Estimate(None, why="not recorded")
    # For the model itself the estimate also says why it has no value.
    shown = [value, *(scores_found.get(name) or unknown for _, scores_found in columns[1:])]
    chart_lines = [
        Dot(column_name, one, "main" if place == 0 else "other")
        for place, ((column_name, _), one) in enumerate(zip(columns, shown, strict=True))
    ]
    return ScoreView(
        name=metric_name(name),
        cell=cell(value, name),
        level=f"{100 * value.level:.0f}\u00a0%",
        sentence=_sentence(run, value, name, baseline_scores),
        opened=moment(test.text("opened_at")),
        chart=draw_dots("score", chart_lines, name, f"{metric_name(name)} on {rows}"),
        columns=tuple(column_name for column_name, _ in columns),
        table=tuple(
            (
                metric_name(key),
                tuple(cell(scores_found.get(key, unknown), key) for _, scores_found in columns),
            )
            for key in scores
        ),
        paired=_paired(run, name),
        careless=_baseline_run(run.part("careless"), name),
        rows=rows,
        how=how,
    )


def score_unless_folded(run: RunFiles) -> ScoreView | None:
    """``None`` where a run was cross-validated and has no test rows: see ``folds.py``."""
    folded = bool(run.part("cv")) and not run.part("test").get("n")
    return None if folded else score_view(run)


def headline_metric(scores: Mapping[str, Estimate]) -> str:
    """The metric shown first: accuracy where the run has it."""
    return next(
        (name for name in HEADLINE_METRICS if name in scores), next(iter(scores), "accuracy")
    )


def baselines(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """The name and metrics of each baseline, the chosen one first; older runs list only one."""
    main_baseline = run.part("baseline")
    listed = main_baseline.blocks("all")
    if main_baseline.get("what"):
        listed = [main_baseline, *(b for b in listed if b.get("what") != main_baseline["what"])]
    return [
        (baseline_name(str(b.get("what", "baseline"))), metrics(b.block("test"))) for b in listed
    ]


def baseline_name(name: str) -> str:
    """A baseline's name for a reader. A run may also begin with a linear probe as its last layer,
    which is no baseline."""
    return BASELINE_NAMES.get(name, name)


def partial_scores(run: RunFiles) -> list[tuple[str, dict[str, Estimate]]]:
    """Further scores of the same model on the test rows: of its text part only, where it also reads
    columns, and on the rows of each source."""
    plain = run.part("plain_part", "test")
    parts_found = [("text only, without columns", metrics(plain))] if plain else []
    for name, block in run.part().table("sources").items():
        rows = plural(int(block.get("n") or 0), "row")
        parts_found.append((f"source {name}, {rows}", metrics(block)))
    return parts_found


def cell(value: Estimate, name: str) -> Cell:
    """``value`` of the metric ``name``, as text."""
    remark = value.why or value.note
    return Cell(number(value.value, name), interval(value, name), remark or "")


def _sentence(
    run: RunFiles, value: Estimate, name: str, others: list[tuple[str, dict[str, Estimate]]]
) -> str:
    rows, which = test_row_text(run.result), "that took no part in any choice"
    if run.part("test").get("out_of_fold"):
        which = "each predicted by a model that was not trained on it"
        rows += ","
    if value.value is None:
        return f"The score on {rows} is undefined: {value.why}."
    metric = metric_words(name)
    start = f"On {rows} {which}, the {metric} is {number(value.value, name)}"
    if not others or others[0][1].get(name) is None:
        return f"{start}."
    if name == "perplexity":
        baseline_value = number(others[0][1][name].value, name)
        return f"{start}; that of the {others[0][0]} is {baseline_value}.{_rouge_sentence(run)}"
    comparisons = [
        f"the {baseline.removesuffix(' (baseline)')} has {number(scores[name].value, name)}"
        for baseline, scores in others
        if scores.get(name) is not None
    ]
    return f"{start}; {' and '.join(comparisons)}."


def _rouge_sentence(run: RunFiles) -> str:
    """ROUGE-L of the generated texts, as a sentence; empty where no text was generated."""
    scores = run.part("generations", "scores")
    tuned, untuned = (
        scores.block(split).estimate("rouge_l").value for split in ("test", "test_untuned")
    )
    if tuned is None:
        return ""
    rouge = f" ROUGE-L of the generated texts is {number(tuned, 'rouge_l')}"
    if untuned is None:
        return f"{rouge}."
    return f"{rouge}, that of the base model {number(untuned, 'rouge_l')}."


FOLDS_SHARE_ROWS = "the interval is widened, because the folds share training rows"


def _paired(run: RunFiles, name: str) -> PairedView | None:
    raw = run.part("baseline", "comparison")
    if not raw:
        return None
    other = compared_baseline(run.result)
    comparison, difference = paired_comparison(run.result), raw.estimate("difference")
    if comparison is None:
        verdict = f"The fine-tuned model and the {other} could not be compared."
    elif comparison.apart and comparison.gain:
        than = "better" if comparison.gain > 0 else "worse"
        verdict = f"The fine-tuned model is significantly {than} than the {other}."
    else:
        verdict = f"No difference between the fine-tuned model and the {other} is shown."
    rate = is_rate(raw.text("metric", name))
    format_value = points if rate else compact
    known = difference.low is not None and difference.high is not None
    # The counts alone: the verdict and the test stand before them.
    counts, colon, _ = raw.text("because", difference.why or "").partition(": ")
    return PairedView(
        verdict=verdict,
        difference=f"{format_value(difference.value)}{' points' if rate else ''}",
        span=f"{format_value(difference.low)} to {format_value(difference.high)}" if known else "",
        # Runs by older versions do not name the test; out of fold there is none.
        test=f"{raw.text('test', 'paired test')}, {p_value(p)}{_adjusted(raw)}"
        if (p := raw.get("p_value")) is not None
        else FOLDS_SHARE_ROWS * ("widened" in str(difference.note)),
        because=f"{counts}." if colon else counts,
    )


def _adjusted(raw: Block) -> str:
    """The p-value that decides, where several comparisons were made."""
    adjusted = raw.get("p_adjusted")
    is_same = adjusted is None or adjusted == raw.get("p_value")
    return "" if is_same else f" ({p_value(adjusted)} after Holm's correction, which decides)"


def _baseline_run(raw: Block, name: str) -> Careless | None:
    if not raw:
        return None
    random_split, truth = raw.estimate("random_split"), raw.estimate("honest")
    lines = [Dot("Split of this run", truth, "main"), Dot("Random split", random_split, "warn")]
    return Careless(
        what=baseline_name(raw.text("what", "linear probe")),
        chart=draw_dots("careless", lines, name, "Score on two ways to split"),
        random_split=cell(random_split, name),
        honest=cell(truth, name),
        because=raw.text("because"),
    )


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]
