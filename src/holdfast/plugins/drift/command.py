"""``holdfast drift``: compare new rows with a run's reference rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import Output
from holdfast.cli.run_input import DataOptions
from holdfast.core.errors import RecipeError
from holdfast.core.printable import shorten
from holdfast.core.shapes import anything, count, document, list_of, mapping_of, record, text
from holdfast.core.wording import count_phrase
from holdfast.terminal.layout import entries, wrap

if TYPE_CHECKING:
    from holdfast.plugins.drift.drift import Drifted

VERDICTS = ("differ", "harmful")
EXIT_VERDICT_REACHED = 3
MAX_CLASSES = 6
ASPECT_NAMES = {"inputs": "the inputs", "classes": "the shares of the predicted classes"}


DOCUMENT = document(
    {
        "task": text,
        "verdict": text,
        "rows": count,
        "of": count,
        "reference": record({"rows": count, "what": text}),
        "differ": list_of(anything),
        "classes": list_of(mapping_of(anything)),
        "alarms": list_of(mapping_of(anything)),
        "examples": list_of(mapping_of(anything)),
        "left_out": mapping_of(count),
        **dict.fromkeys(("inputs", "facts", "accuracy", "harm", "terms", "unwatched"), anything),
    },
    ("task", "verdict", "rows", "differ", "alarms", "left_out"),
)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Rows in the order in which they arrived.")
    ],
    rows: DataOptions,
    between: Annotated[
        int,
        typer.Option(
            "--between-alarms",
            metavar="N",
            help="Lower bound on the mean number of rows without drift between false alarms.",
        ),
    ] = 100_000,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="VERDICT", help="Exit with 3 at: differ (default) or harmful."),
    ] = None,
    *,
    output: Output,
) -> None:
    """Compare the rows of DATA with the reference rows of RUN to detect distribution shift.
    Estimate the model's accuracy on them, with or without labels. Report what changed, and at
    which row the change began."""
    for one in fail_on or ():
        if one not in VERDICTS:
            remedy = f"Use {' or '.join(VERDICTS)}."
            raise RecipeError("--fail-on", "is not a verdict", one, remedy)
    from holdfast.plugins.drift.drift import drift

    with output.heard(f"holdfast drift {run} {data}", progress=True):
        result = drift(run, data, rows.options(), between=between)
    output.show(result.to_json(), lambda columns: summary(result, columns))
    # A harmful change is a difference too.
    verdicts_met = {"differ": {"differ"}, "harmful": {"differ", "harmful"}}.get(
        result.verdict, set()
    )
    if verdicts_met & set(fail_on or VERDICTS):
        raise typer.Exit(EXIT_VERDICT_REACHED)


def summary(result: Drifted, columns: int) -> str:
    """The verdict in one sentence, then the accuracy, what has changed, and which rows show it."""
    block = result.to_json()
    filled = [(name, value) for name, value in _entries(block) if value]
    return "\n".join(
        [
            *wrap(verdict_sentence(block), columns),
            *entries(filled, columns),
            *_facts(block, columns),
            *_classes(block, columns),
            *_examples(block, columns),
        ]
    )


def _entries(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts of the summary lines; an empty text is not shown."""
    out_of = f" of {block['of']:,}" if block["of"] > block["rows"] else ""
    reference = block["reference"]
    rows_text = f"{block['rows']:,}{out_of}, compared with {reference['rows']:,} "
    yield "Rows", f"{rows_text}{reference['what']}"
    yield "Accuracy", _accuracy(block["accuracy"])
    yield "Labels", _labels(block) if block["accuracy"]["labels"] else ""
    yield "Left out", _left_out(block["left_out"])
    if inputs := block["inputs"]:
        area, outside = _auc(inputs["told_apart"]), 100 * inputs["outside"]
        inputs_text = f"a classifier separates new rows from reference rows with AUC {area}"
        yield "Inputs", f"{inputs_text}; {outside:.0f} % of new rows are unlike any reference row"
    alarms = [
        f"row {one['since']:,}, detected at row {one['at']:,} ({one['by']})"
        for one in block["alarms"][:3]
    ]
    yield "Since", "; then ".join(alarms)
    shares = [
        f"{one['word']} {100 * one['then']:.0f} → {100 * one['now']:.0f} %"
        for one in block["terms"]
    ]
    yield "Words", ", ".join(shares)
    yield "Not tested", "; ".join(f"{name} ({why})" for name, why in block["unwatched"].items())


def verdict_sentence(block: Mapping[str, Any]) -> str:
    """The verdict in one sentence."""
    reference_rows = block["reference"]["what"]
    if block["verdict"] == "alike":
        return f"No difference from the {reference_rows} of the run can be shown."
    if block["verdict"] == "harmful":
        allowed = 100 * block["harm"]["allowed"]
        return f"Harmful: the error rate on the labelled rows is shown to be above {allowed:.0f} %."
    *others, last = [ASPECT_NAMES.get(name, name) for name in block["differ"]]
    listed = f"{', '.join(others)} and {last}" if others else last
    return f"Distribution shift: the rows differ from the {reference_rows} of the run in {listed}."


def _accuracy(block: Mapping[str, Any]) -> str:
    before, now = block["before"], block["estimated"]
    if now["value"] is None:
        estimate = f"cannot be estimated without labels: {now['why']}"
    else:
        estimate = f"{_percent(now)} estimated without labels"
    if before["value"] is None:
        return estimate
    return f"{estimate}; on the reference rows {_percent(before)}"


def _labels(block: Mapping[str, Any]) -> str:
    powered, harm = block["accuracy"]["powered"], block["harm"]
    labels_text = f"accuracy {_percent(powered)} on {block['accuracy']['labels']:,} labelled rows"
    labels_text += f", {powered.get('note') or 'from labels and predictions (PPI++)'}"
    if harm is None:
        return labels_text
    limit = f"{100 * harm['allowed']:.1f} % (the upper limit on the reference rows plus 2 points)"
    if harm["harmful"]:
        since = f"since about row {harm['since']:,}"
        return f"{labels_text}; error rate shown to be above {limit}, {since}"
    return f"{labels_text}; error rate not shown to be above {limit}"


def _left_out(block: Mapping[str, int]) -> str:
    rows, labels = block["without_text"], block["unknown_labels"]
    reasons = [f"{count_phrase(rows, 'row')} without a text or readable image"] if rows else []
    unknown = f"{count_phrase(labels, 'label')} that are not a class of the run"
    reasons += [unknown] if labels else []
    return "; ".join(reasons)


def _facts(block: Mapping[str, Any], columns: int) -> list[str]:
    if not block["facts"]:
        return []
    lines = ["", f"  {'Median of':<16}{'reference':>9} {'new':>9}   P(new > reference)"]
    for name, one in block["facts"].items():
        area = one["higher"]["value"]
        chance = "unknown" if area is None else f"{100 * area:.0f} %"
        mark = "!" if one["moved"] else " "
        lines.append(f"  {mark} {name:<14}{one['then']:>9.3g} {one['now']:>9.3g}   {chance:>8}")
    return [line[:columns] for line in lines]


def _classes(block: Mapping[str, Any], columns: int) -> list[str]:
    if not block["classes"]:
        return []
    head = "!" if "classes" in block["differ"] else " "
    lines = ["", f"  {head} {'Predicted class':<15}{'reference':>10}  {'new':>8}"]
    for one in block["classes"][:MAX_CLASSES]:
        name, then, now = one["class"][:20], one["then"]["value"], one["now"]["value"]
        lines.append(f"    {name:<16} {100 * then:>6.1f} %  {100 * now:>6.1f} %")
    more = len(block["classes"]) - MAX_CLASSES
    return [*(line[:columns] for line in lines), *([f"    … and {more} more"] if more > 0 else [])]


def _examples(block: Mapping[str, Any], columns: int) -> list[str]:
    if not block["examples"]:
        return []
    lines = ["", "  Rows most unlike the reference"]
    for one in block["examples"]:
        text = " ".join(str(one["text"]).split())
        lines.append(shorten(f"    {one['row']}: {text}", columns))
    return lines


def _percent(block: Mapping[str, Any]) -> str:
    low, high = block.get("low"), block.get("high")
    ends = "" if low is None or high is None else f" (95 % CI {100 * low:.1f}–{100 * high:.1f})"
    return f"{100 * block['value']:.1f} %{ends}"


def _auc(block: Mapping[str, Any]) -> str:
    low, high = block.get("low"), block.get("high")
    limits = "" if low is None or high is None else f"95 % CI {low:.3f}–{high:.3f}; "
    return f"{block['value']:.3f} ({limits}chance 0.500)"
