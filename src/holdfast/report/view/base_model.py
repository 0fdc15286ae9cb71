"""The sections "Comparison with the base model" and "Output quality" of a generative model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.core.metric_names import metric_name
from holdfast.core.records import Estimate
from holdfast.core.wording import about, prompt_phrase
from holdfast.report.document import Document, DocumentTable
from holdfast.report.numbers import count, estimate, first_two, interval, number, p_value, points
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck

SPLIT_TITLES = {"test": "Test prompts", "train": "Training prompts"}
VERDICTS = {
    "more": "more often",
    "fewer": "less often",
    "not shown": "no difference shown",
    "not asked": "base model not run",
}
P = "p (Holm's correction)"
SETS = {
    "grammar": "grammar",
    "facts": "facts",
    "opposites": "opposites",
    "sense": "common sense",
    "all": "all together",
}


def worth(run: RunFiles) -> Document | None:
    """From ``worth`` of result.json; ``None`` where the task generates no text."""
    raw = run.part("worth")
    if not raw:
        return None
    start, rates, texts = raw.table("start"), raw.table("win_rate"), raw.block("texts")
    general, own, ability = (raw.block(name) for name in ("general", "tasks", "judge_ability"))
    tables = [_loss_table(start)]
    if any(texts.get(name) is not None for name in start):
        tables.append(_texts_table(start, texts))
    if any(one.get("n") for one in rates.values()):
        tables.append(_win_rate_table(rates, start, raw.text("judge")))
    if general:
        title = "Pairs of short English sentences: share with the correct one more probable"
        tables.append(_tasks_table(general, title))
    if own:
        tables.append(_tasks_table(own, "Evaluation tasks: share of correct answers"))
    notes = [
        f"{prompt_phrase(name, one)}: {one['why']}" for name, one in start.items() if one.get("why")
    ]
    notes += [
        f"{prompt_phrase(name, start.get(name, {}))}: {one['why']}"
        for name, one in rates.items()
        if one.get("why") and one.get("value") is None
    ]
    notes += map(str, raw.block("left_out").values())
    judged = f"The judge was tested first: {ability.get('because')}." if ability.get("able") else ""
    more = (judged, general.text("because"), own.text("because"), raw.text("false_alarms"))
    return Document.of(raw.text("because"), tuple(filter(None, more)), tables, _sentences(notes))


def outputs(run: RunFiles) -> Document | None:
    """From ``outputs`` of result.json; ``None`` where no text was generated."""
    raw = run.part("outputs")
    shares = [one for one in raw.blocks("shares") if one.get("n")]
    if not shares:
        return None
    meaning = raw.block("meaning")
    shares_of_split = {
        split: [one for one in shares if one.get("side") == split] for split in SPLIT_TITLES
    }
    tables = [
        _shares_table(SPLIT_TITLES[split], split_shares, meaning)
        for split, split_shares in shares_of_split.items()
        if split_shares
    ]
    more = (
        "Words are matched against small English lists, which recognise neither irony nor "
        "quotation. The words themselves are not shown here.",
        raw.text("false_alarms"),
    )
    notes = _sentences(map(str, raw.block("left_out").values()))
    return Document.of(raw.text("because"), tuple(filter(None, more)), tables, notes)


def _loss_table(start: Mapping[str, Block]) -> DocumentTable:
    lines = tuple(
        _compared(name, one, one, (one["n"], one.get("loss"), one.get("tuned_loss")))
        for name, one in start.items()
        if one.get("n")
    )
    columns = ("Compared with", "rows", "its loss", "this model's loss", "difference", P)
    return DocumentTable("Loss on the references", columns, lines)


def _texts_table(start: Mapping[str, Block], texts: Block) -> DocumentTable:
    differences, metric = texts.table("difference"), metric_name(texts.text("metric"))
    lines = tuple(
        _compared(
            name,
            one,
            differences.get(name, Block()),
            (texts["n"], texts.get(name), texts.get("tuned")),
        )
        for name, one in start.items()
        if texts.get(name) is not None
    )
    columns = ("Compared with", "texts", f"its {metric}", f"this model's {metric}")
    return DocumentTable("Generated texts", (*columns, "difference", P), lines)


def _compared(
    name: str, prompting: Block, paired: Block, known: tuple[Any, Any, Any]
) -> tuple[str, ...]:
    """A line: the prompting; rows and two scores (``known``); the ``paired`` difference."""
    rows, its, own = known
    gap, test = paired.estimate("difference"), paired.get("test")
    p = paired.get("p_adjusted", paired.get("p_value"))
    return (
        f"Base model, {prompt_phrase(name, prompting)}",
        count(rows),
        number(its),
        number(own),
        f"{number(gap.value)} {interval(gap)}".strip(),
        " ".join([p_value(p), *([f"({test})"] if test else [])]),
    )


def _win_rate_table(
    rates: Mapping[str, Block], start: Mapping[str, Block], judge: str
) -> DocumentTable:
    lines = tuple(
        (
            f"Base model, {prompt_phrase(name, start.get(name, {}))}",
            *(count(one.get(key)) for key in ("wins", "ties", "losses")),
            f"{number(rate.value, 'accuracy')} {interval(rate, 'accuracy')}".strip(),
            p_value(one.get("p_adjusted")),
        )
        for name, one in rates.items()
        if one.get("n")
        for rate in (estimate(one),)
    )
    columns = (
        "Compared with",
        "wins",
        "ties",
        "losses",
        "win rate (ties count half)",
        "p (exact sign test, Holm)",
    )
    return DocumentTable(f"Which output is better, judged by {judge}", columns, lines)


def _tasks_table(raw: Block, title: str) -> DocumentTable:
    sets = raw.blocks("sets") + [one for one in (raw.block("all"),) if one]
    lines = tuple(
        (
            SETS.get(str(one.get("name")), str(one.get("name"))),
            count(one.get("n")),
            number(one.estimate("before").value, "accuracy"),
            number(one.estimate("after").value, "accuracy"),
            _difference_text(one.estimate("difference")),
            one.text("verdict"),
        )
        for one in sets
    )
    columns = ("Set", "items", "base model", "this model", "difference", "verdict")
    return DocumentTable(title, columns, lines)


def _shares_table(name: str, shares: list[Block], meaning: Block) -> DocumentTable:
    lines = tuple(
        (
            meaning.text(str(one.get("mark")), str(one.get("mark"))),
            *(
                number(one.estimate(key).value, "accuracy")
                for key in ("tuned", "start", "references")
            ),
            _difference_text(one.estimate("difference")),
            p_value(one.get("p_adjusted")),
            VERDICTS.get(str(one.get("verdict")), "") + _rows_needed(one.get("more_rows")),
            ", ".join(one.texts("rows")[:5]),
        )
        for one in shares
    )
    columns = (
        "Outputs that",
        "this model",
        "base model",
        "references",
        "difference",
        "p (McNemar's exact test, Holm)",
        "verdict",
        "rows",
    )
    return DocumentTable(f"{name} ({count(shares[0].get('n'))})", columns, lines)


def _difference_text(difference: Estimate) -> str:
    if difference.value is None:
        return "–"
    return f"{points(difference.value)} ({points(difference.low)} to {points(difference.high)})"


def _rows_needed(rows: object) -> str:
    return f"; {about(rows)} more rows would decide it" if rows and isinstance(rows, int) else ""


def _sentences(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in dict.fromkeys(notes))


def _not_better_than_base(run: RunFiles) -> str | None:
    verdict = run.part("worth").get("verdict")
    if verdict is None:
        return None
    if verdict == "no":
        return "Its loss on the references is higher than the base model's"
    return CLEAN if verdict == "yes" else UNDECIDED


def _more_faulty_outputs(run: RunFiles) -> str | None:
    block = run.part("outputs")
    shares = [one for one in block.blocks("shares") if one.get("side") == "test"]
    if not shares:
        return None
    marks = [str(one.get("mark")) for one in shares if one.get("verdict") == "more"]
    more = [block.block("meaning").text(mark, mark) for mark in marks]
    return f"More of its outputs than of the base model's {first_two(more)}" if more else CLEAN


WORTH = RelianceCheck("a base model with a lower loss", _not_better_than_base, rank=1)
OUTPUTS = RelianceCheck("more faulty outputs than the base model's", _more_faulty_outputs, rank=7)
