"""The section "Test score on new tasks" of ``holdfast meta``: the meta-learned model and its
baselines on new tasks. Also the headline of such a run."""

from __future__ import annotations

from holdfast.core.wording import signed
from holdfast.report.answer.score import Use
from holdfast.report.document import Cell, Details, Document, DocumentTable, Passage
from holdfast.report.numbers import count, interval
from holdfast.report.run_files import Block, RunFiles

METHOD_NAMES = {
    "frozen": "base model, new head for each task",
    "tuned": "fine-tuned on all training classes, new head for each task",
    "prototypes": "prototypical network",
    "anil": "ANIL",
    "maml": "first-order MAML",
    "reptile": "Reptile",
}
MAX_TASKS = 40
NO_ADVICE = "Whether to use it is unknown."
ACCURACY_COLUMN = "Accuracy"


def episodes(run: RunFiles) -> Document | None:
    """``None`` where the run is not one of ``holdfast meta``."""
    meta = run.part("meta")
    if not meta:
        return None
    kept_method = str(meta.get("kept"))
    others = {name: one for name, one in meta.table("baselines").items() if name != kept_method}
    tasks = sorted(
        (one for one in meta.blocks("per_task") if one.get("accuracy") is not None),
        key=lambda one: (one["accuracy"], str(one["task"])),
    )
    unit = "Task" if meta.get("by") == "task" else "Class"
    scores = DocumentTable(
        "Scores on test episodes",
        ("Model", ACCURACY_COLUMN),
        tuple(_score(name, one) for name, one in {kept_method: meta, **others}.items()),
        display="quiet",
    )
    trials = DocumentTable(
        "Scores on validation episodes",
        ("Method", ACCURACY_COLUMN, "Difference from the baseline"),
        tuple(_trial_line(one, kept_method) for one in meta.blocks("tried")),
        display="quiet",
        region="Methods compared",
    )
    by_task = DocumentTable(
        f"Test episodes by {unit.lower()}",
        (unit, ACCURACY_COLUMN, "Episodes"),
        tuple(
            (str(t["task"]), _percent(t["accuracy"]), count(t["episodes"]))
            for t in tasks[:MAX_TASKS]
        ),
        ("name", "n", "n"),
        "quiet",
    )
    hidden = (
        [Passage(f"{more} more are in result.json.", "quiet")]
        if (more := len(tasks) - MAX_TASKS) > 0
        else []
    )
    return Document(
        (
            Passage(_sentence(meta, kept_method), explained=True),
            scores,
            Details("Methods compared", (trials,)),
            Details(f"Accuracy by {unit.lower()}, lowest first", (by_task, *hidden)),
        )
    )


def _sentence(meta: Block, kept_method: str) -> str:
    interval_block, accuracy = meta.block("interval"), meta.estimate("accuracy")
    unit, plain = interval_block.text("over", "class"), interval_block.get("plain_half")
    units = f"{count(interval_block.get('units'))} {unit}{'es' if unit == 'class' else 's'}"
    sentence = (
        f"chosen: {METHOD_NAMES.get(kept_method, kept_method)}; {meta.get('because')}. The "
        f"intervals account for the {count(meta.get('episodes'))} test episodes being drawn from "
        f"the same {units}"
    )
    if accuracy.low is not None and accuracy.high is not None and plain:
        wider = (accuracy.high - accuracy.low) / 2 / plain
        sentence += (
            f". If the episodes were treated as independent, the intervals would be {wider:.0f} "
            "times narrower, and wrong"
        )
    return f"{sentence[0].upper()}{sentence[1:]}."


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _score(name: str, block: Block) -> tuple[str, Cell]:
    accuracy = block.estimate("accuracy")
    value = "–" if accuracy.value is None else _percent(accuracy.value)
    return METHOD_NAMES.get(name, name), Cell(value, interval(accuracy, "accuracy"))


def _trial_line(one: Block, kept_method: str) -> tuple[str, str, str]:
    value, low, high = map(one.block("difference").get, ("value", "low", "high"))
    words = "–" if value is None else f"{signed(100 * value)} points"
    if low is not None and high is not None:
        words += f" ({signed(100 * low)} to {signed(100 * high)})"
    name = str(one.get("method"))
    mark = " (kept)" if name == kept_method else ""
    return f"{METHOD_NAMES.get(name, name)}{mark}", _percent(float(one["accuracy"])), words


def meta_answer(meta: Block) -> tuple[str, str, Use]:
    """Headline, advice and whether to use the model, from the block ``meta`` of a result."""
    accuracy = meta.estimate("accuracy")
    shots, classes = meta.get("shots"), meta.get("ways")
    if accuracy.value is None:
        return "Not measured: no episodes were scored.", NO_ADVICE, "unknown"
    rows = "row" if shots == 1 else "rows"
    span = interval(accuracy, "accuracy")
    interval_block = meta.block("interval")
    unit = interval_block.text("over", "class")
    units = f"{interval_block.get('units')} {unit}{'es' if unit == 'class' else 's'}"
    interval_text = f" (95 % CI {span}, {units})" if span else ""
    if not span and accuracy.why:
        interval_text = f" (no interval: {accuracy.why})"
    unseen = "tasks" if meta.get("by") == "task" else "classes"
    headline = (
        f"Accuracy {100 * accuracy.value:.1f} %{interval_text} on {unseen} it was not trained on, "
        f"with {shots} labelled {rows} for each of {classes} classes."
    )
    comparison = meta.block("against")
    gap, low, high = comparison.get("value"), comparison.get("low"), comparison.get("high")
    name = comparison.get("baseline")
    head = "a new head for each task"
    if meta.get("method") == "embedding":
        if meta.get("kept") == "tuned":
            return (
                headline,
                f"No meta-learning method was better than ordinary fine-tuning with {head}, so the "
                "fine-tuned model was kept.",
                "yes",
            )
        return (
            headline,
            f"Keep the base model: no method was shown to be better than its features with {head}.",
            "no",
        )
    words = f"the {name} embedding with {head}"
    by = "" if gap is None else f" by {100 * abs(gap):.1f} points"
    if low is not None and low > 0:
        return headline, f"Worth using: better than {words}{by}.", "yes"
    if high is not None and high < 0:
        return headline, f"Do not use it: {words} is better{by}.", "no"
    open_gap = "" if gap is None else f" (difference {signed(100 * gap)} points)"
    return headline, f"Inconclusive: no difference from {words} is shown{open_gap}.", "unsettled"
