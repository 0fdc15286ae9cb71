"""One run as the pages show it: the report's own parts, of a run that goes on what there is of
them so far, and curves of at most so many looks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.core.branches import living_events
from holdfast.core.errors import RunError
from holdfast.core.run_files import EVENTS, RESULT
from holdfast.core.run_shapes import EVENT_SHAPES
from holdfast.core.shapes import anything
from holdfast.core.yaml_values import from_yaml
from holdfast.plugins.dashboard.follow import START, follow
from holdfast.plugins.dashboard.inside import LARGEST, read_whole, refuse_links
from holdfast.plugins.dashboard.summary import RECIPE
from holdfast.report.numbers import count, sentence
from holdfast.report.page import sections
from holdfast.report.public import without_paths
from holdfast.report.run_files import READ, RunFiles, read_run
from holdfast.report.section import PagePart
from holdfast.report.view import learning as learning_view
from holdfast.report.view.headline import PLAIN

# Looks that are drawn of a run: a page is to be small and quick however long the run is.
DRAWN = 50
# The tabs of a finished run, and the parts of the report on each.
TABS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "": ("Answer", ("folds", "score", "distilled", "episodes", "worth", "learning")),
    "right-and-wrong": (
        "Right and wrong",
        (
            "generations",
            "outputs",
            "confusion",
            "classes",
            "calibration",
            "thresholds",
            "slices",
            "hardest",
            "nearby",
            "fairness",
            "reasons",
        ),
    ),
    "data": ("Data", ("findings", "division", "examples", "memory", "forgetting")),
    "making": (
        "How it was made",
        ("gap", "capacity", "study", "decisions", "timeline", "settings", "facts", "load"),
    ),
}


@dataclass(frozen=True, slots=True)
class Whole:
    """A finished run and the parts of its report, by their names."""

    run: RunFiles
    parts: Mapping[str, PagePart]


def whole_run(path: Path) -> Whole:
    """Every file of a finished run, its looks thinned to what is drawn. Raises ``RunError``."""
    refuse_links(path, (RESULT, EVENTS, *READ))
    run = without_paths(drawn(read_run(path)))
    return Whole(run, {part.id: part for part in sections(run)})


def parts_of(parts: Mapping[str, PagePart], tab: str) -> tuple[PagePart, ...]:
    """The parts of a tab that have anything to say; what no tab names stands on the last."""
    named = {part for _, parts in TABS.values() for part in parts}
    wanted = list(TABS[tab][1])
    if tab == list(TABS)[-1]:
        wanted += [name for name in parts if name not in named]
    return tuple(parts[name] for name in wanted if name in parts)


def tab_of(part: str) -> str:
    """The tab on which a part of the report stands."""
    return next((tab for tab, (_, parts) in TABS.items() if part in parts), list(TABS)[-1])


def drawn(run: RunFiles, best: object = None) -> RunFiles:
    """The run with about ``DRAWN`` looks, evenly spread: the first, the last, the kept one (or the
    ``best``) and those with the lowest and the highest validation loss among them. A note says
    so."""
    looks = run.snapshots
    if len(looks) <= DRAWN:
        return run
    best = run.result.get("best_step", best)
    numbers = [(one["valid_loss"], i) for i, one in enumerate(looks) if _is_number(one)]
    must = {0, len(looks) - 1}
    if numbers:
        must |= {min(numbers)[1], max(numbers)[1]}
    must |= {i for i, one in enumerate(looks) if best is not None and one.get("step") == best}
    free = max(1, DRAWN - len(must))
    even = {round(i * (len(looks) - 1) / free) for i in range(free)}
    kept = [looks[i] for i in sorted(must | even)][: DRAWN + len(must)]
    said = {
        "event": "note",
        "step": 0,
        "what": "looks that are drawn",
        "chosen": f"{len(kept)} of {count(len(looks))}",
        "because": "a page of all of them would be slow; events.jsonl has every one",
    }
    return replace(run, snapshots=tuple(kept), left=run.left[-DRAWN:], notes=(*run.notes, said))


def _is_number(look: Mapping[str, Any]) -> bool:
    """Whether it has a validation loss."""
    value = look.get("valid_loss")
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def so_far(path: Path) -> Mapping[str, Any]:
    """What a run says that is not finished: its last verdict in words, its curves, what was decided
    and done; ``place`` is the place in its events behind which news are told. Whatever of it cannot
    be read is left out and told."""
    problem = ""
    events: list[Mapping[str, Any]] = []
    place = START
    try:
        while True:
            found = follow(path / EVENTS, place)
            events = [] if found.again else events
            events += [one for _, one in found.lines if _is_event(one)]
            place = found.place
            if found.skipped:
                problem = f"{EVENTS} has lines that cannot be read; they are left out"
            if not found.more:
                break
    except FileNotFoundError:
        problem = "it has written nothing yet"
    except (OSError, RunError) as error:
        problem = f"{EVENTS} cannot be read: {error}"
    recipe: Any = {}
    with contextlib.suppress(Exception):
        recipe = from_yaml(read_whole(path / RECIPE, LARGEST).decode())
    verdicts, actions, notes = (
        tuple(one for one in events if one["event"] == kind)
        for kind in ("verdict", "action", "note")
    )
    alive = tuple(living_events(events))
    losses = [(one["valid_loss"], one["step"]) for one in alive if _is_number(one)]
    best = min(losses)[1] if losses else None
    run = RunFiles(
        {},
        snapshots=alive,
        actions=actions,
        notes=tuple(note for note in notes if "sight" not in note),
        recipe=recipe if isinstance(recipe, Mapping) else {},
    )
    run = without_paths(drawn(run, best))
    last: Mapping[str, Any] = verdicts[-1] if verdicts else {}
    label = str(last.get("label") or "")
    return {
        "run": run,
        "tone": PLAIN.get(label, ("unsure", ""))[0],
        "label": label.replace("_", " ") or "no verdict yet",
        "because": sentence(str(last.get("because") or "No look was judged so far.")),
        "step": count(alive[-1]["step"]) if alive else "–",
        "looks": len(alive),
        "best": count(best),
        "place": place,
        "learning": learning_view.learning(run),
        "doing": [
            (
                f"Step {count(one.get('step'))}: {str(one.get('action') or '').replace('_', ' ')}",
                sentence(str(one.get("because") or "")),
            )
            for one in run.actions
        ],
        "problem": problem,
    }


def _is_event(event: Mapping[str, Any]) -> bool:
    """Whether a line is what a run writes, so that whoever draws it need not ask."""
    kind = event.get("event")
    if not isinstance(kind, str):
        return False
    try:
        EVENT_SHAPES.get(kind, anything)(event, "")
    except ValueError:
        return False
    return True


def look_words(event: Mapping[str, Any]) -> str:
    """A line of a run's events in a few words, for those who hear the page; empty where it is of
    no interest to them."""
    kind, step = event.get("event"), count(event.get("step"))
    if kind == "snapshot":
        loss = event.get("valid_loss") if _is_number(event) else None
        return f"Step {step}" + (f": validation loss {loss:.4g}" if loss is not None else "")
    if kind == "verdict":
        return f"Verdict at step {step}: {str(event.get('label')).replace('_', ' ')[:60]}"
    if kind == "action":
        return f"At step {step}: {str(event.get('action')).replace('_', ' ')[:60]}"
    return ""
