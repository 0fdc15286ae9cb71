"""Several runs beside each other: what they were told that differs, their curves in one chart, and
whether one is better than another on the rows that both were tested on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from holdfast.core.errors import HoldfastError
from holdfast.report.charts.curves import ChartSeries, CurvesChart, curves
from holdfast.report.numbers import AT_LOOKS, metric_name
from holdfast.report.run_files import RunFiles

# Runs that can be told apart in one chart.
MOST = 6
LONGEST = 80
# Where the results go says nothing of how they were made.
LEFT_OUT = ("out",)


def settings_that_differ(
    runs: Sequence[RunFiles],
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], int]:
    """The settings of the runs' recipes that are not the same in all of them, each with its key and
    a value for each run (an empty one: not set); and how many are the same."""
    flat = [dict(_flat(run.recipe)) for run in runs]
    found, same = [], 0
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one.get(key) for one in flat]
        if key in LEFT_OUT:
            continue
        if all(value == values[0] for value in values):
            same += 1
        else:
            found.append((key, tuple("" if v is None else _short(v) for v in values)))
    return tuple(found), same


def overlaid(runs: Sequence[RunFiles]) -> tuple[tuple[str, Markup], ...]:
    """Charts with their titles: the validation losses in one, and what share is right in another
    where every run says the same of it; empty where no run has looks."""
    charts = [_chart("loss", "Validation loss", [_losses(run) for run in runs])]
    names = [_metric(run) for run in runs]
    if names[0] and all(name == names[0] for name in names):
        title = f"Validation {metric_name(names[0])}"
        charts.append(_chart(names[0], title, [_rates(run, names[0]) for run in runs]))
    return tuple(one for one in charts if one[1])


def paired_views(names: Sequence[str], paths: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """What the paired test says of the first run and each other one, on the test rows that both
    stored answers to: ``verdict`` is "" where it could not be made, and ``because`` says why."""
    return tuple(
        _paired(names[0], paths[0], name, path)
        for name, path in zip(names[1:], paths[1:], strict=True)
    )


def _paired(name: str, first: Path, other: str, path: Path) -> Mapping[str, Any]:
    from holdfast.analyses.compare.compare import compare

    try:
        found = compare(str(first), str(path))
    except HoldfastError as error:
        told = f"{error.what}: {error.rule}".replace(str(first), name).replace(str(path), other)
        return {"verdict": "", "tone": "unsure", "because": told, "facts": ()}
    block = found.to_json()
    tone = {"better": "good", "worse": "bad", "equivalent": "good"}.get(block["verdict"], "unsure")
    facts = [("Rows", f"{block['n']:,}")]
    if block["discordant"]:
        only = block["discordant"]
        facts.append((f"Right only by {name}", f"{only['only_a']:,}"))
        facts.append((f"Right only by {other}", f"{only['only_b']:,}"))
    because = found.because.replace("A minus B", f"{name} minus {other}")
    because = because.replace("A and B", f"{name} and {other}")
    because = because.replace("A is ", f"{name} is ").replace(" than B ", f" than {other} ")
    return {"verdict": block["verdict"], "tone": tone, "because": because, "facts": facts}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


Points = list[tuple[int, float | None]]


def _losses(run: RunFiles) -> Points:
    """Of generators always over tokens: in runs by older versions ``valid_loss`` is over rows."""
    return [
        (
            int(one["step"]),
            (one.get("valid_metrics") or {}).get("token_loss", one.get("valid_loss")),
        )
        for one in run.snapshots
    ]


def _rates(run: RunFiles, name: str) -> Points:
    looks = run.snapshots
    return [(int(one["step"]), (one.get("valid_metrics") or {}).get(name)) for one in looks]


def _metric(run: RunFiles) -> str:
    found = {name for one in run.snapshots for name in one.get("valid_metrics") or {}}
    return next((name for name in AT_LOOKS if name in found), "")


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
    return title, curves(chart)
