"""What a start that was learned from many tasks (``holdfast meta``) is worth on new ones: its
section, beside the baselines, and the answer of the run."""

from __future__ import annotations

from holdfast.report.answer.score import Use
from holdfast.report.document import Cell, Details, Document, DocumentTable, Passage
from holdfast.report.numbers import count, interval
from holdfast.report.run_files import Block, RunFiles

NAMES = {
    "frozen": "the model as it is, a head fitted anew",
    "tuned": "features tuned on all training classes, a head fitted anew",
    "prototypes": "prototypical network",
    "anil": "ANIL",
    "maml": "first-order MAML",
    "reptile": "Reptile",
}
HARDEST = 40
RIGHT = "Rows that are right"


def episodes(run: RunFiles) -> Document | None:
    """``None`` where the run is none of ``holdfast meta``."""
    meta = run.part("meta")
    if not meta:
        return None
    kept = str(meta.get("kept"))
    others = {name: one for name, one in meta.table("baselines").items() if name != kept}
    tasks = sorted(
        (one for one in meta.blocks("per_task") if one.get("accuracy") is not None),
        key=lambda one: (one["accuracy"], str(one["task"])),
    )
    what = "Task" if meta.get("by") == "task" else "Class"
    scores = DocumentTable(
        "Scores on test episodes",
        ("Start", RIGHT),
        tuple(_score(name, one) for name, one in {kept: meta, **others}.items()),
        look="quiet",
    )
    tried = DocumentTable(
        "On validation episodes",
        ("Method", RIGHT, "Against the baseline"),
        tuple(_tried(one, kept) for one in meta.blocks("tried")),
        look="quiet",
        region="What was tried",
    )
    by_task = DocumentTable(
        f"Test episodes by {what.lower()}",
        (what, RIGHT, "Episodes"),
        tuple(
            (str(t["task"]), _percent(t["accuracy"]), count(t["episodes"])) for t in tasks[:HARDEST]
        ),
        ("name", "n", "n"),
        "quiet",
    )
    hidden = (
        [Passage(f"{more} more stand in result.json.", "quiet")]
        if (more := len(tasks) - HARDEST) > 0
        else []
    )
    return Document(
        (
            Passage(_sentence(meta, kept), explained=True),
            scores,
            Details("Show what was tried", (tried,)),
            Details(f"Show each {what.lower()}, the hardest first", (by_task, *hidden)),
        )
    )


def _sentence(meta: Block, kept: str) -> str:
    told, found = meta.block("interval"), meta.estimate("accuracy")
    unit, plain = told.text("over", "class"), told.get("plain_half")
    units = f"{count(told.get('units'))} {unit}{'es' if unit == 'class' else 's'}"
    sentence = (
        f"{NAMES.get(kept, kept)} was kept: {meta.get('because')}. Intervals know that the "
        f"{count(meta.get('episodes'))} test episodes are made of the same {units}"
    )
    if found.low is not None and found.high is not None and plain:
        wider = (found.high - found.low) / 2 / plain
        sentence += (
            f"; taken for {count(meta.get('episodes'))} tasks each of its own they would be "
            f"{wider:.0f} times narrower, and wrong"
        )
    return f"{sentence[0].upper()}{sentence[1:]}."


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _score(name: str, block: Block) -> tuple[str, Cell]:
    found = block.estimate("accuracy")
    value = "–" if found.value is None else _percent(found.value)
    return NAMES.get(name, name), Cell(value, interval(found, "accuracy"))


def _tried(one: Block, kept: str) -> tuple[str, str, str]:
    value, low, high = map(one.block("difference").get, ("value", "low", "high"))
    words = "–" if value is None else f"{100 * value:+.1f} points"
    if low is not None and high is not None:
        words += f" ({100 * low:+.1f} to {100 * high:+.1f})"
    name = str(one.get("method"))
    mark = " (kept)" if name == kept else ""
    return f"{NAMES.get(name, name)}{mark}", _percent(float(one["accuracy"])), words


def of_start(meta: Block) -> tuple[str, str, Use]:
    """Headline, advice and whether to use the start, of the block ``meta`` of a result."""
    found = meta.estimate("accuracy")
    shots, ways = meta.get("shots"), meta.get("ways")
    if found.value is None:
        return "Not measured: no episodes were scored.", "It cannot be said.", "unknown"
    rows = "row" if shots == 1 else "rows"
    span = interval(found, "accuracy")
    told = meta.block("interval")
    unit = told.text("over", "class")
    many = f"{told.get('units')} {unit}{'es' if unit == 'class' else 's'}"
    inside = f" (95 % CI {span}, {many})" if span else ""
    if not span and found.why:
        inside = f" (no interval: {found.why})"
    what = "tasks" if meta.get("by") == "task" else "classes"
    headline = (
        f"Accuracy {100 * found.value:.1f} %{inside} on {what} it was not trained on, with {shots} "
        f"labelled {rows} of each of {ways} classes."
    )
    held = meta.block("against")
    gap, low, high = held.get("value"), held.get("low"), held.get("high")
    name = held.get("baseline")
    head = "a new head fitted to each task"
    if meta.get("method") == "embedding":
        if meta.get("kept") == "tuned":
            return (
                headline,
                f"No method did better than features tuned in the ordinary way with {head}: these "
                "are kept.",
                "yes",
            )
        return (
            headline,
            f"Keep the model as it is: nothing proved better than its own features with {head}.",
            "no",
        )
    words = f"the {name} embedding with {head}"
    by = "" if gap is None else f" by {100 * abs(gap):.1f} points"
    if low is not None and low > 0:
        return headline, f"Worth using: better than {words}{by}.", "yes"
    if high is not None and high < 0:
        return headline, f"Do not use it: {words} is better{by}.", "no"
    open_gap = "" if gap is None else f" (difference {100 * gap:+.1f} points)"
    return headline, f"Inconclusive: no difference from {words} is shown{open_gap}.", "unsettled"
