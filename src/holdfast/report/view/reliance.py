"""Before you rely on it: what the parts of the report found that a user of the model must know, at
most five lines, each with the section that says more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from holdfast.report.numbers import NBSP, number, plural, sentence
from holdfast.report.run_files import RunFiles

MOST = 5
# A slice's name may hold any word of a text.
LONG = 60


@dataclass(frozen=True, slots=True)
class RelianceLine:
    """One thing to know: the ``section`` that says more, whether it is a fault (``warn``) or a way
    to use the model (``info``), and the ``text``, a sentence."""

    section: str
    tone: str
    text: str


@dataclass(frozen=True, slots=True)
class Reliance:
    """``lines``, the gravest first; ``rest`` says in one line what was looked for and not found,
    and what could not be decided."""

    lines: tuple[RelianceLine, ...]
    rest: str


def reliance(run: RunFiles, shown: Collection[str] | None = None) -> Reliance | None:
    """By the blocks of ``result.json``, of a page by those whose sections are ``shown``; ``None``
    where a run has none of them (older versions)."""
    told = [
        (section, looked_for, said)
        for section, looked_for, ask in QUESTIONS
        if (shown is None or section in shown) and (said := ask(run)) is not None
    ]
    if not told:
        return None
    clean = [looked_for for _, looked_for, said in told if said == CLEAN]
    undecided = [looked_for for _, looked_for, said in told if said == UNDECIDED]
    found = [
        RelianceLine(section, "info" if section in USES else "warn", sentence(said))
        for section, _, said in told
        if said not in (CLEAN, UNDECIDED)
    ]
    faults = [line for line in found if line.tone == "warn"]
    use = [line for line in found if line.tone == "info"][:1]
    shown_faults = faults[: MOST - len(use)]
    rest = []
    if left := len(faults) - len(shown_faults):
        rest.append(f"{left} more below.")
    if clean:
        also = "also " if faults else ""
        rest.append(f"Tested for {also}and not found: {', '.join(clean)}.")
    if undecided:
        rest.append(f"Too few rows to decide: {', '.join(undecided)}.")
    return Reliance((*shown_faults, *use), " ".join(rest))


# An AUC of membership inference below which nobody would call a model's rows memorized.
NEARLY_NONE = 0.6
CLEAN, UNDECIDED = "clean", "undecided"
USES = ("thresholds",)
Told = Callable[[RunFiles], str | None]


def _slices(run: RunFiles) -> str | None:
    block = run.part("slices")
    if "found" not in block:
        return None
    found = block.blocks("found")
    if not found:
        untested = block.get("n_candidates") == 0
        return UNDECIDED if untested or block.blocks("undecided") else CLEAN
    worst, more = found[0], len(found) - 1
    name = worst.text("slice")
    name = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
    told = f"It fails more often on {name}"
    if block.get("what") == "wrong":
        value, rest = worst.estimate("value").value, worst.estimate("rest").value
        told += f": {number(value, 'error')} wrong, {number(rest, 'error')} of the others"
    return told + (f"; and in {plural(more, 'other slice')}" if more else "")


def _reasons(run: RunFiles) -> str | None:
    words = run.part("reasons").blocks("words")
    # Runs by older versions did not look.
    if not any("gives_away" in one for one in words):
        return None
    found = [one for one in words if one["gives_away"]]
    if not found:
        return CLEAN
    first = found[0]
    more = f"; and {plural(len(found) - 1, 'other word')}" if len(found) > 1 else ""
    return (
        f"Its predictions of class {first['class']} depend on “{first['words']}”, which is in "
        f"{number(first['of_class'], 'accuracy')} of its texts and in "
        f"{number(first['of_others'], 'accuracy')} of the others{more}: the score may be lower on "
        "texts without it, so remove it from the training texts"
    )


def _fairness(run: RunFiles) -> str | None:
    block = run.part("fairness")
    groups, axes = block.block("groups"), block.block("swap").blocks("axes")
    if "groups" not in block:
        return None
    gaps = groups.blocks("findings")
    changes = [str(one.get("axis")) for one in axes if one.get("status") == "changes"]
    said = []
    if gaps:
        where = dict.fromkeys(f"{one.get('column')} {one.get('group')}" for one in gaps)
        said.append(f"its score differs between groups of rows ({_few(list(where))})")
    if changes:
        said.append(f"its predictions change with whom a text is about ({_few(changes)})")
    if not said and any(one.get("status") == "inconclusive" for one in axes):
        return UNDECIDED
    return " and ".join(said) or (CLEAN if groups.get("columns") or axes else None)


def _memory(run: RunFiles) -> str | None:
    block = run.part("probes", "memorization")
    if "verdict" not in block:
        return None
    found, words = block.estimate("auc"), block.block("extraction").whole("completed")
    if block["verdict"] == "memorized":
        known = found.low is not None and found.high is not None
        limits = f" (95 % CI {number(found.low)}–{number(found.high)})" if known else ""
        return (
            "It memorized training rows: membership inference finds them with AUC "
            f"{number(found.value)}{limits} (chance 0.5)"
        )
    if words:
        return f"It completes {plural(words, 'training row')} word for word"
    # What so few rows cannot tell from nothing was not excluded.
    excluded = found.high is not None and found.high <= NEARLY_NONE
    return CLEAN if block["verdict"] == "not shown" and excluded else UNDECIDED


def _forgetting(run: RunFiles) -> str | None:
    block = run.part("probes", "forgetting")
    if "forgot" not in block:
        return None
    # Runs by older versions told a large rise alone.
    forgot = block["forgot"] or block.get("verdict") == "a little"
    return block.text("because", "it forgot some of what it knew") if forgot else CLEAN


def _worth(run: RunFiles) -> str | None:
    verdict = run.part("worth").get("verdict")
    if verdict is None:
        return None
    if verdict == "no":
        return "It is no better than the base model"
    return CLEAN if verdict == "yes" else UNDECIDED


def _outputs(run: RunFiles) -> str | None:
    block = run.part("outputs")
    shares = [one for one in block.blocks("shares") if one.get("side") == "test"]
    if not shares:
        return None
    marks = [str(one.get("mark")) for one in shares if one.get("verdict") == "more"]
    more = [block.block("meaning").text(mark, mark) for mark in marks]
    return f"More of its outputs than of the base model's {_few(more)}" if more else CLEAN


def _thresholds(run: RunFiles) -> str | None:
    promises = run.part("thresholds").blocks("promises")
    if not promises:
        return None
    kept = [one for one in promises if one.block("test")]
    if not kept:
        return "No threshold on its predicted probability guarantees a precision"
    best = kept[-1]
    share = best.block("test").estimate("coverage").value
    return (
        f"Predictions with a probability of {number(best.get('threshold'), 'accuracy')} or more "
        f"({number(share, 'accuracy')} of the test rows) have a precision of at least "
        f"{100 * float(best['precision']):g}{NBSP}%, if new rows are like the validation rows; "
        "have an annotator check the others"
    )


def _few(names: list[str]) -> str:
    rest = len(names) - 2
    return ", ".join(names[:2]) + (f" and {rest} more" if rest > 0 else "")


# The section, what is looked for, and what its block says; the gravest first.
QUESTIONS: tuple[tuple[str, str, Told], ...] = (
    ("worth", "a base model that is as good", _worth),
    ("reasons", "a word that gives a class away", _reasons),
    ("slices", "rows on which it fails more often", _slices),
    ("fairness", "differences between groups", _fairness),
    ("memory", "memorized training rows", _memory),
    ("forgetting", "forgetting", _forgetting),
    ("outputs", "more faulty outputs than the base model's", _outputs),
    ("thresholds", "a probability threshold with a guaranteed precision", _thresholds),
)
