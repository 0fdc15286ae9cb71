"""Before you rely on it: what the parts of the report found that a user of the model must know, at
most five lines, each with the section that says more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.report.numbers import NBSP, estimate, number, plural, sentence
from holdfast.report.run_files import RunFiles

MOST = 5
# A slice's name may hold any word of a text.
LONG = 60
Record = Mapping[str, Any]


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
    found: list[RelianceLine] = []
    clean: list[str] = []
    undecided: list[str] = []
    for section, looked_for, told in QUESTIONS:
        if shown is not None and section not in shown:
            continue
        said = told(run)
        if said is None:
            continue
        if said in (CLEAN, UNDECIDED):
            (clean if said == CLEAN else undecided).append(looked_for)
        else:
            found.append(
                RelianceLine(section, "info" if section in USES else "warn", sentence(said))
            )
    if not (found or clean or undecided):
        return None
    faults = [line for line in found if line.tone == "warn"]
    uses = [line for line in found if line.tone == "info"]
    lines = (*faults[: MOST - len(uses[:1])], *uses[:1])
    left = len(faults) - sum(line.tone == "warn" for line in lines)
    return Reliance(lines, _rest(clean, undecided, left, bool(faults)))


def _rest(clean: list[str], undecided: list[str], left: int, faults: bool) -> str:
    parts = []
    if left:
        parts.append(f"{left} more below.")
    if clean:
        more = "also " if faults else ""
        parts.append(f"Tested for {more}and not found: {', '.join(clean)}.")
    if undecided:
        parts.append(f"Too few rows to decide: {', '.join(undecided)}.")
    return " ".join(parts)


# An AUC of membership inference below which nobody would call a model's rows memorized.
NEARLY_NONE = 0.6
CLEAN, UNDECIDED = "clean", "undecided"
USES = ("thresholds",)
Told = Callable[[RunFiles], str | None]


def _slices(run: RunFiles) -> str | None:
    block = run.part("slices")
    if "found" not in block:
        return None
    found = _records(block["found"])
    if not found:
        untested = block.get("n_candidates") == 0
        return UNDECIDED if untested or _records(block.get("undecided")) else CLEAN
    worst = found[0]
    name = str(worst.get("slice") or "")
    name = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
    told = f"It fails more often on {name}"
    if block.get("what") == "wrong":
        value, rest = (estimate(worst.get(key)).value for key in ("value", "rest"))
        told += f": {number(value, 'error')} wrong, {number(rest, 'error')} of the others"
    more = len(found) - 1
    return told + (f"; and in {plural(more, 'other slice')}" if more else "")


def _reasons(run: RunFiles) -> str | None:
    words = _records(run.part("reasons").get("words"))
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
    groups, swap = block.get("groups"), block.get("swap")
    if not isinstance(groups, Mapping):
        return None
    gaps = _records(groups.get("findings"))
    axes = _records(swap.get("axes")) if isinstance(swap, Mapping) else []
    changes = [str(one.get("axis")) for one in axes if one.get("status") == "changes"]
    said = []
    if gaps:
        where = dict.fromkeys(f"{one.get('column')} {one.get('group')}" for one in gaps)
        said.append(f"its score differs between groups of rows ({_few(where)})")
    if changes:
        said.append(f"its predictions change with whom a text is about ({_few(changes)})")
    looked = groups.get("columns") or axes
    if not said and any(str(one.get("status")) == "inconclusive" for one in axes):
        return UNDECIDED
    return " and ".join(said) or (CLEAN if looked else None)


def _memory(run: RunFiles) -> str | None:
    block = run.part("probes").get("memorization")
    if not isinstance(block, Mapping) or "verdict" not in block:
        return None
    written = block.get("extraction")
    words = written.get("completed") if isinstance(written, Mapping) else None
    if block["verdict"] == "memorized":
        area = estimate(block.get("auc")).value
        return (
            "It memorized training rows: membership inference finds them with AUC "
            f"{number(area)}{_limits(block)} (chance 0.5)"
        )
    if isinstance(words, int) and words:
        return f"It completes {plural(words, 'training row')} word for word"
    # What so few rows cannot tell from nothing was not excluded.
    high = estimate(block.get("auc")).high
    ruled_out = block["verdict"] == "not shown" and high is not None and high <= NEARLY_NONE
    return CLEAN if ruled_out else UNDECIDED


def _limits(block: Mapping[str, object]) -> str:
    found = estimate(block.get("auc"))
    if found.low is None or found.high is None:
        return ""
    return f" (95 % CI {number(found.low)}–{number(found.high)})"


def _forgetting(run: RunFiles) -> str | None:
    block = run.part("probes").get("forgetting")
    if not isinstance(block, Mapping) or "forgot" not in block:
        return None
    # Runs by older versions told a large rise alone.
    forgot = block["forgot"] or block.get("verdict") == "a little"
    return str(block.get("because") or "it forgot some of what it knew") if forgot else CLEAN


def _worth(run: RunFiles) -> str | None:
    verdict = run.part("worth").get("verdict")
    if verdict is None:
        return None
    if verdict == "no":
        return "It is no better than the base model"
    return CLEAN if verdict == "yes" else UNDECIDED


def _outputs(run: RunFiles) -> str | None:
    block = run.part("outputs")
    shares = [one for one in _records(block.get("shares")) if one.get("side") == "test"]
    if not shares:
        return None
    meaning = block.get("meaning")
    named = meaning if isinstance(meaning, Mapping) else {}
    more = [
        str(named.get(s.get("mark")) or s.get("mark")) for s in shares if s.get("verdict") == "more"
    ]
    return f"More of its outputs than of the base model's {_few(more)}" if more else CLEAN


def _thresholds(run: RunFiles) -> str | None:
    promises = _records(run.part("thresholds").get("promises"))
    if not promises:
        return None
    kept = [one for one in promises if isinstance(one.get("test"), Mapping)]
    if not kept:
        return "No threshold on its predicted probability guarantees a precision"
    best = kept[-1]
    share = estimate(best["test"].get("coverage")).value
    return (
        f"Predictions with a probability of {number(best.get('threshold'), 'accuracy')} or more "
        f"({number(share, 'accuracy')} of the test rows) have a precision of at least "
        f"{100 * float(best['precision']):g}{NBSP}%, if new rows are like the validation rows; "
        "have an annotator check the others"
    )


def _records(raw: object) -> list[Record]:
    return [one for one in raw if isinstance(one, Mapping)] if isinstance(raw, list) else []


def _few(names: Iterable[str], most: int = 2) -> str:
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


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
