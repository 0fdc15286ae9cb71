"""A listener that shows the run: a bar and the curves on a terminal, a plain line per snapshot
elsewhere, and in both a line whenever the verdict changes."""

from __future__ import annotations

import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from holdfast.cli.live import glance, verdict_lines
from holdfast.cli.say import width

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress


class Show:
    """Losses, speed and time left, on standard error."""

    name = "show"

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._live: Live | None = None
        self._verdict: str | None = None
        self._task: Any = None
        self._first: tuple[float, int, int] | None = None
        self._label = ""

    def run_start(self, run: Any) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("  {task.completed}/{task.total}"), BarColumn(bar_width=16),
            TextColumn("{task.description}"),
        )  # fmt: skip
        self._live = Live(self._bar, console=Console(stderr=True), transient=True,
                          refresh_per_second=4)  # fmt: skip
        self._live.start()
        self._task = self._bar.add_task("measuring the model before any step", total=run.plan.steps)

    def step_done(self, run: Any) -> None:
        if self._first is None:
            self._first = (time.perf_counter(), run.step, run.examples_seen)
        if self._bar is not None:
            text = f"loss {run.running_loss:.3f} {self._label}{self._speed(run)}"
            self._bar.update(self._task, completed=run.step, description=text)

    def snapshot_taken(self, run: Any) -> None:
        last = run.history[-1]
        found = last.valid_metrics
        accuracy = _shown(found)
        self._label = f"valid {last.refined_loss:.3f} {accuracy} "
        if self._quiet:
            return
        self._say_verdict(run)
        if self._live is not None:
            self._show_curves(run)
            return
        best = " ← best" if run.best.step == run.step else ""
        line = (
            f"  step {run.step}/{run.plan.steps} {last.phase}: train {last.train_loss:.3f}, "
            f"valid {last.refined_loss:.3f}, {accuracy}{best}{self._speed(run)}"
        )
        sys.stderr.write(textwrap.fill(line, width(), subsequent_indent="      ") + "\n")

    def _say_verdict(self, run: Any) -> None:
        """The alert on standard error: a line when the label changes."""
        verdict = run.verdict
        if verdict is None or verdict.label == self._verdict:
            return
        self._verdict = verdict.label
        lines = "\n".join(verdict_lines(verdict, width()))
        if self._live is not None:
            self._live.console.print(f"  step {run.step}", lines, sep="\n", highlight=False,
                                     markup=False, soft_wrap=True)  # fmt: skip
        else:
            sys.stderr.write(lines + "\n")

    def _show_curves(self, run: Any) -> None:
        from rich.console import Group
        from rich.text import Text

        assert self._live is not None
        assert self._bar is not None
        seen = Text("\n".join(glance(run.history, run.verdict, width())))
        self._live.update(Group(self._bar, seen))

    def run_end(self, run: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the terminal; also after an error."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None

    def _speed(self, run: Any) -> str:
        if self._first is None or run.step <= self._first[1]:
            return ""
        start, step, seen = self._first
        elapsed = time.perf_counter() - start
        left = elapsed / (run.step - step) * (run.plan.steps - run.step)
        return f", {(run.examples_seen - seen) / elapsed:.0f} rows/s, {_clock(left)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _shown(found: dict[str, float]) -> str:
    """The first of a snapshot's numbers that a person looks at."""
    for name, short in (("accuracy", "acc"), ("token_accuracy", "acc"), ("f1_micro", "F1"),
                        ("r2", "R²")):  # fmt: skip
        if name in found:
            return f"{short} {found[name]:.3f}"
    return "acc nan"
