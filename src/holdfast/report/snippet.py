"""What a run shows of itself in a notebook: a small piece of HTML, nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from holdfast.report.answer import answer

RATES = ("accuracy", "f1_macro", "f1_micro", "exact_match", "rouge_l")
PLAIN = ("perplexity", "mae", "r2", "spearman", "loss")
SHOWN = 4


def run_snippet(result: Mapping[str, Any], folder: Path) -> str:
    """The answer, whether to use it, the verdict, the first scores on the test rows with the
    baseline's beside them, and where the report is."""
    verdict, test, baseline = result["verdict"], result["test"], result["baseline"]
    names = [name for name in (*RATES, *PLAIN) if name in test["metrics"]][:SHOWN]
    beside = baseline["test"]["metrics"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><b>{_value(name, test['metrics'][name])}</b></td>"
        f"<td>{_range(name, test['metrics'][name])}</td>"
        f"<td>{_value(name, beside.get(name, {}))}</td></tr>"
        for name in names
    )
    report, said = folder / "report.html", answer(result)
    return (
        '<div style="font-family:sans-serif;max-width:46em">'
        f"<p><b>{escape(said.headline)}</b><br>{escape(said.advice)}</p>"
        f"<p><b>{escape(verdict['label'])}</b>: {escape(verdict['because'])}</p>"
        f"<table><tr><th>on {test['n']} test rows</th><th></th><th>95 % interval</th>"
        f"<th>{escape(baseline['what'])}</th></tr>{rows}</table>"
        f"<p>{escape(str(result['model']))}, best state at step {result['best_step']} of "
        f"{result['last_step']}. Report: <code>{escape(str(report))}</code></p></div>"
    )


def _value(name: str, estimate: Mapping[str, Any]) -> str:
    return _shown(name, estimate.get("value"))


def _range(name: str, estimate: Mapping[str, Any]) -> str:
    if estimate.get("low") is None:
        return escape(str(estimate.get("why") or estimate.get("note") or "–"))
    return f"{_shown(name, estimate['low'])} to {_shown(name, estimate['high'])}"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if name in RATES else f"{value:.3f}"
