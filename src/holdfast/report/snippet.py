"""How a notebook displays a run: headline, verdict, scores and learning curves as one piece of
self-contained HTML without scripts."""

from __future__ import annotations

import hashlib
from pathlib import Path

from holdfast.core.discovery import short_path
from holdfast.core.errors import InputError
from holdfast.core.metric_names import metric_name
from holdfast.report.charts.svg import SIZES
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import interval, metrics, number
from holdfast.report.page import UNPRINTABLE, asset, environment
from holdfast.report.run_files import RunFiles, read_run
from holdfast.report.view.headline import headline
from holdfast.report.view.learning import learning
from holdfast.report.view.score import baseline_name

# The first ``MAX_SCORES`` of these that a run has are shown.
SCORE_ORDER = (
    "accuracy",
    "entity_f1",
    "f1_macro",
    "f1_micro",
    "exact_match",
    "rouge_l",
    "mae",
    "r2",
    "spearman",
    "perplexity",
    "token_accuracy",
    "loss",
)
MAX_SCORES = 4


def run_snippet(folder: Path) -> str:
    """The HTML for the run in ``folder``, or the error if the folder cannot be read.

    Everything is escaped. The colours follow the notebook's theme where it states one, otherwise
    the system's.
    """
    try:
        run = read_run(folder)
    except InputError as error:
        return _render(problem=str(error), run=None, folder=folder)
    return _render(problem="", run=run, folder=folder)


def _render(problem: str, run: RunFiles | None, folder: Path) -> str:
    context: dict[str, object] = {"problem": problem}
    if run is not None:
        # A notebook may show many runs on one page; the ids of their elements must differ.
        mark = hashlib.sha256(str(folder.resolve()).encode("utf-8", "replace")).hexdigest()[:8]
        narrow = tuple(size for size in SIZES if size[0] == "narrow")
        context |= {
            "top": headline(run),
            "scores": score_lines(run),
            "rows": run.part("test").get("n", 0),
            "baseline": baseline_name(run.part("baseline").text("what", "baseline")),
            "curves": learning(run, key=f"run-{mark}", sizes=narrow, scripted=False),
            "report": str(short_path(folder.absolute()) / "report.html"),
        }
    template = environment(Glossary()).get_template("snippet.html.j2")
    return template.render(style=asset("snippet.css"), **context).translate(UNPRINTABLE)


def score_lines(run: RunFiles) -> tuple[tuple[str, str, str, str], ...]:
    """The first scores on the test rows: name, value, interval (or why there is none), and the
    baseline's value."""
    scores, baseline = metrics(run.part("test")), metrics(run.part("baseline", "test"))
    names = [name for name in SCORE_ORDER if name in scores][:MAX_SCORES]
    return tuple(
        (
            metric_name(name),
            number(scores[name].value, name),
            interval(scores[name], name) or scores[name].why or scores[name].note or "–",
            number(baseline[name].value, name) if name in baseline else "–",
        )
        for name in names
    )
