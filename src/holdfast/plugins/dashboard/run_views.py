"""The views of one run, and of several runs compared.

Of one run: the report's parts, for an unfinished run as far as there are any, and curves with a
limited number of evaluations. Of several: the settings that differ, their curves in one chart, and
a paired test on common test rows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from holdfast.core.branches import snapshot_events_on_branch
from holdfast.core.errors import HoldfastError, RunError
from holdfast.core.labels import verdict_title
from holdfast.core.metric_names import metric_name
from holdfast.core.run_files import EVENTS_FILE, RESULT_FILE
from holdfast.core.run_shapes import EVENT_SHAPES
from holdfast.core.shapes import anything
from holdfast.core.yaml_values import from_yaml
from holdfast.plugins.dashboard.files import (
    MAX_FILE_BYTES,
    START_POSITION,
    read_file,
    read_new_lines,
    refuse_links,
)
from holdfast.plugins.dashboard.summary import RECIPE
from holdfast.report.charts.curves import ChartSeries, CurvesChart, draw_curves
from holdfast.report.numbers import EVALUATION_METRICS, count, sentence
from holdfast.report.page import sections
from holdfast.report.public import strip_paths
from holdfast.report.run_files import SEALED_FILES, RunFiles, read_run
from holdfast.report.section import PagePart
from holdfast.report.view import learning as learning_view
from holdfast.report.view.headline import VERDICT_SENTENCES

# Maximum evaluations in a chart: a page should be small and fast however long the run is.
MAX_DRAWN = 50
# The tabs of a finished run, and the parts of the report on each.
TABS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "": ("Summary", ("folds", "score", "distilled", "episodes", "worth", "learning")),
    "right-and-wrong": (
        "Errors",
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
        "Training",
        ("gap", "capacity", "study", "decisions", "timeline", "settings", "facts", "load"),
    ),
}


@dataclass(frozen=True, slots=True)
class FinishedRunView:
    """A finished run and the parts of its report, by name."""

    run: RunFiles
    parts: Mapping[str, PagePart]


def finished_run_view(path: Path) -> FinishedRunView:
    """Every file of a finished run, with thinned evaluations. Raises ``RunError``."""
    refuse_links(path, (RESULT_FILE, EVENTS_FILE, *SEALED_FILES))
    run = strip_paths(thinned(read_run(path)))
    return FinishedRunView(run, {part.id: part for part in sections(run)})


def parts_on_tab(parts: Mapping[str, PagePart], tab: str) -> tuple[PagePart, ...]:
    """The non-empty parts of a tab; parts that no tab names are on the last."""
    named = {part for _, parts in TABS.values() for part in parts}
    names = list(TABS[tab][1])
    if tab == list(TABS)[-1]:
        names += [name for name in parts if name not in named]
    return tuple(parts[name] for name in names if name in parts)


def tab_of(part: str) -> str:
    """The tab with this part of the report."""
    return next((tab for tab, (_, parts) in TABS.items() if part in parts), list(TABS)[-1])


def thinned(run: RunFiles, best: object = None) -> RunFiles:
    """The run with about ``MAX_DRAWN`` evenly spread evaluations, including the first, the last,
    the best checkpoint's (or ``best``) and those with the lowest and the highest validation loss. A
    note says so."""
    evaluations = run.snapshots
    if len(evaluations) <= MAX_DRAWN:
        return run
    best = run.result.get("best_step", best)
    numbers = [(one["valid_loss"], i) for i, one in enumerate(evaluations) if _has_valid_loss(one)]
    required = {0, len(evaluations) - 1}
    if numbers:
        required |= {min(numbers)[1], max(numbers)[1]}
    required |= {
        i for i, one in enumerate(evaluations) if best is not None and one.get("step") == best
    }
    free_count = max(1, MAX_DRAWN - len(required))
    evenly_spaced = {round(i * (len(evaluations) - 1) / free_count) for i in range(free_count)}
    kept_evaluations = [evaluations[i] for i in sorted(required | evenly_spaced)][
        : MAX_DRAWN + len(required)
    ]
    note = {
        "event": "note",
        "step": 0,
        "what": "evaluations shown",
        "chosen": f"{len(kept_evaluations)} of {count(len(evaluations))}",
        "because": "a page with all of them would be slow; events.jsonl has every one",
    }
    return replace(
        run, snapshots=tuple(kept_evaluations), left=run.left[-MAX_DRAWN:], notes=(*run.notes, note)
    )


def _has_valid_loss(evaluation: Mapping[str, Any]) -> bool:
    """Whether an evaluation has a validation loss."""
    value = evaluation.get("valid_loss")
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def unfinished_run_view(path: Path) -> Mapping[str, Any]:
    """The state of an unfinished run: its last verdict, its curves, decisions and actions;
    ``place`` is the position in its events for later updates. What cannot be read is left out and
    reported."""
    events, position, problem = _read_events(path / EVENTS_FILE)
    recipe: Any = {}
    with contextlib.suppress(Exception):
        recipe = from_yaml(read_file(path / RECIPE, MAX_FILE_BYTES).decode())
    verdicts, actions, notes = (
        tuple(one for one in events if one["event"] == event_type)
        for event_type in ("verdict", "action", "note")
    )
    evaluations = tuple(snapshot_events_on_branch(events))
    losses = [(one["valid_loss"], one["step"]) for one in evaluations if _has_valid_loss(one)]
    best = min(losses)[1] if losses else None
    run = RunFiles(
        {},
        snapshots=evaluations,
        actions=actions,
        notes=tuple(note for note in notes if "sight" not in note),
        recipe=recipe if isinstance(recipe, Mapping) else {},
    )
    run = strip_paths(thinned(run, best))
    last: Mapping[str, Any] = verdicts[-1] if verdicts else {}
    label = str(last.get("label") or "")
    return {
        "run": run,
        "tone": VERDICT_SENTENCES.get(label, ("unsure", ""))[0],
        "label": verdict_title(label) or "no verdict yet",
        "because": sentence(str(last.get("because") or "No evaluation has a verdict yet.")),
        "step": count(evaluations[-1]["step"]) if evaluations else "–",
        "looks": len(evaluations),
        "best": count(best),
        "place": position,
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


def _read_events(path: Path) -> tuple[list[Mapping[str, Any]], str, str]:
    """A run's events, the position after them, and a problem with reading them (empty: none)."""
    events: list[Mapping[str, Any]] = []
    position, problem, has_more = START_POSITION, "", True
    try:
        while has_more:
            new_lines = read_new_lines(path, position)
            events = [] if new_lines.restarted else events
            events += [one for _, one in new_lines.lines if _is_event(one)]
            position, has_more = new_lines.position, new_lines.more
            if new_lines.skipped:
                problem = f"{EVENTS_FILE} has lines that cannot be read; they are left out"
    except FileNotFoundError:
        problem = "the run has written nothing yet"
    except (OSError, RunError) as error:
        problem = f"{EVENTS_FILE} cannot be read: {error}"
    return events, position, problem


def _is_event(event: Mapping[str, Any]) -> bool:
    """Whether a line is a valid event, so that views need not check it."""
    event_type = event.get("event")
    if not isinstance(event_type, str):
        return False
    try:
        EVENT_SHAPES.get(event_type, anything)(event, "")
    except ValueError:
        return False
    return True


def event_text(event: Mapping[str, Any]) -> str:
    """An event in a few words, for screen readers; empty for events that are not announced."""
    event_type, step = event.get("event"), count(event.get("step"))
    if event_type == "snapshot":
        loss = event.get("valid_loss") if _has_valid_loss(event) else None
        return f"Step {step}" + (f": validation loss {loss:.4g}" if loss is not None else "")
    if event_type == "verdict":
        return f"Verdict at step {step}: {verdict_title(str(event.get('label')))[:60]}"
    if event_type == "action":
        return f"At step {step}: {str(event.get('action')).replace('_', ' ')[:60]}"
    return ""


# Maximum runs in one chart.
MAX_COMPARED = 6
MAX_SETTING_LENGTH = 80
# The output folder does not affect the result.
IGNORED_SETTINGS = ("out",)


def settings_that_differ(
    runs: Sequence[RunFiles],
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], int]:
    """The settings that are not the same in all runs' recipes, each with its key and a value for
    each run (empty: not set); and how many are the same."""
    flattened = [dict(_flattened(run.recipe)) for run in runs]
    differing, same_count = [], 0
    for key in dict.fromkeys(key for one in flattened for key in one):
        values = [one.get(key) for one in flattened]
        if key in IGNORED_SETTINGS:
            continue
        if all(value == values[0] for value in values):
            same_count += 1
        else:
            differing.append((key, tuple("" if v is None else _short(v) for v in values)))
    return tuple(differing), same_count


def overlaid_curves(runs: Sequence[RunFiles]) -> tuple[tuple[str, Markup], ...]:
    """Charts with their titles: the validation losses, and the metric where all runs have the same
    one; empty where no run has evaluations."""
    charts = [_chart("loss", "Validation loss", [_loss_points(run) for run in runs])]
    names = [_common_metric(run) for run in runs]
    if names[0] and all(name == names[0] for name in names):
        title = f"Validation {metric_name(names[0])}"
        charts.append(_chart(names[0], title, [_metric_points(run, names[0]) for run in runs]))
    return tuple(one for one in charts if one[1])


def paired_views(names: Sequence[str], paths: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """The paired test of the first run against each other one, on common stored test predictions:
    ``verdict`` is "" where the test is not possible; ``because`` gives the reason."""
    return tuple(
        _paired_view(names[0], paths[0], name, path)
        for name, path in zip(names[1:], paths[1:], strict=True)
    )


def _paired_view(name: str, first: Path, other: str, path: Path) -> Mapping[str, Any]:
    from holdfast.analyses.compare.compare import compare

    try:
        comparison = compare(str(first), str(path))
    except HoldfastError as error:
        message = f"{error.what}: {error.rule}".replace(str(first), name).replace(str(path), other)
        return {"verdict": "", "tone": "unsure", "because": message, "facts": ()}
    comparison_json = comparison.to_json()
    tone = {"better": "good", "worse": "bad", "equivalent": "good"}.get(
        comparison_json["verdict"], "unsure"
    )
    facts = [("Rows", f"{comparison_json['n']:,}")]
    if comparison_json["discordant"]:
        only = comparison_json["discordant"]
        facts.append((f"Correct only for {name}", f"{only['only_a']:,}"))
        facts.append((f"Correct only for {other}", f"{only['only_b']:,}"))
    because = comparison.because.replace("A minus B", f"{name} minus {other}")
    because = because.replace("A and B", f"{name} and {other}")
    because = because.replace("A is ", f"{name} is ").replace(" than B ", f" than {other} ")
    return {"verdict": comparison_json["verdict"], "tone": tone, "because": because, "facts": facts}


def _flattened(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flattened(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SETTING_LENGTH else text[: MAX_SETTING_LENGTH - 1] + "…"


Points = list[tuple[int, float | None]]


def _loss_points(run: RunFiles) -> Points:
    """For generative models always per token: in runs by older versions ``valid_loss`` is per
    row."""
    return [
        (
            int(one["step"]),
            (one.get("valid_metrics") or {}).get("token_loss", one.get("valid_loss")),
        )
        for one in run.snapshots
    ]


def _metric_points(run: RunFiles, name: str) -> Points:
    evaluations = run.snapshots
    return [(int(one["step"]), (one.get("valid_metrics") or {}).get(name)) for one in evaluations]


def _common_metric(run: RunFiles) -> str:
    names = {name for one in run.snapshots for name in one.get("valid_metrics") or {}}
    return next((name for name in EVALUATION_METRICS if name in names), "")


def _chart(metric: str, title: str, points: Sequence[Points]) -> tuple[str, Markup]:
    steps = tuple(sorted({step for one in points for step, _ in one}))
    if not steps:
        return title, Markup("")
    series = tuple(
        ChartSeries(f"Run {place}", f"run{place}", tuple(map(dict(one).get, steps)))
        for place, one in enumerate(points, 1)
    )
    chart = CurvesChart(
        f"beside-{metric}",
        f"{title} of every run",
        metric,
        steps,
        (None,) * len(steps),
        series,
        None,
        bridged=True,
    )
    return title, draw_curves(chart)
