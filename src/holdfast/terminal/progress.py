"""Progress: a listener that shows a run, and one line for any other long task.

On a terminal a run has a progress bar and its learning curves; elsewhere, one line per evaluation.
Both print a line when the verdict changes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, cast

from holdfast.core.actions import (
    Action,
    Continue,
    Extend,
    Freeze,
    ResetHead,
    Reshuffle,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
    Unfreeze,
    to_record,
)
from holdfast.core.wording import seconds_phrase
from holdfast.terminal.colour import coloured
from holdfast.terminal.evaluations import (
    curve_summary,
    evaluation_row,
    format_metric,
    heading,
    metric_of,
    verdict_lines,
)
from holdfast.terminal.layout import entry, width
from holdfast.terminal.streams import SafeStream, notify

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress

    from holdfast.core.decisions import DecisionListener
    from holdfast.core.events import Place
    from holdfast.core.records import Decision, Finding
    from holdfast.training.run import Run


# Nothing is wrong, or nothing can be judged yet.
UNREMARKABLE_VERDICTS = ("learning", "healthy", "inconclusive")
MIN_REDRAW_S = 0.2
# A shorter task gets no line where a line cannot be overwritten.
MIN_REPORTED_S = 1.0


class RunDisplay:
    """Losses, speed and time left, on standard error."""

    name = "show"
    place: Place = "tell"

    def __init__(self, quiet: bool, verbose: bool = False, verdicts: bool = True) -> None:
        """Without ``verdicts``, verdicts during training are hidden (unless ``verbose``): in the
        last of many fits, only the final verdict is new."""
        self._quiet = quiet
        self._verdicts = verdicts or verbose
        self._verbose = verbose
        self._bar: Progress | None = None
        self._live: Live | None = None
        # The verdict printed last, and that of the last evaluation.
        self._verdict: str | None = None
        self._last_verdict: str | None = None
        self._task: Any = None
        self._first_step: tuple[float, int, int] | None = None
        self._heading_printed = False
        self._label = ""
        self._actions_reported = 0
        self._last_step = 0

    def run_start(self, run: Run) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("  {task.completed}/{task.total}"),
            BarColumn(bar_width=16),
            TextColumn("{task.description}"),
        )
        # The stream as it is now: Rich replaces sys.stderr while it draws the bar.
        stream = cast("IO[str]", SafeStream(sys.stderr))
        self._live = Live(
            self._bar, console=Console(file=stream), transient=True, refresh_per_second=4
        )
        self._live.start()
        self._task = self._bar.add_task(
            "evaluating the model before training", total=run.plan.steps
        )

    def batch_ready(self, run: Run) -> None:
        if self._first_step is None:
            # A resumed run printed its earlier actions before it was interrupted.
            self._actions_reported = len(run.guard.actions)

    def step_done(self, run: Run) -> None:
        # Timed from the end of the first step, which also allocates memory and chooses kernels. The
        # clock restarts when the run rolls back: the abandoned steps say nothing about those to
        # come.
        if self._first_step is None or run.step <= self._last_step:
            self._first_step = (time.perf_counter(), run.step, run.examples_seen)
        self._last_step = run.step
        if self._bar is not None:
            text = ", ".join(
                filter(None, [f"loss {run.running_loss:.3f}", self._label, self._speed(run)])
            )
            # An action may extend the plan.
            self._bar.update(self._task, completed=run.step, total=run.plan.steps, description=text)

    def snapshot_taken(self, run: Run) -> None:
        metric = metric_of(run.history[-1])
        self._label = "" if metric is None else f"{metric[0]} {format_metric(metric[1], metric[2])}"
        if self._quiet:
            return
        # Not after a roll-back to the first evaluation.
        if len(run.history) == 1 and self._first_step is None:
            self._report_time(run)
        self._report_verdict(run)
        if self._live is not None:
            self._report_actions(run)
            self._show_curves(run)
            return
        if not self._heading_printed:
            self._print(heading(run.history[0]))
            self._heading_printed = True
        # After a roll-back the last evaluation is no longer part of the history.
        evaluations = (
            *(s for s in run.history if s.step < run.last_snapshot.step),
            run.last_snapshot,
        )
        line = evaluation_row(
            evaluations,
            # An action after this evaluation may have changed the plan already.
            run.last_snapshot.planned_steps or run.job.plan.steps,
            run.best.step == run.last_snapshot.step,
            self._time_left(run),
        )
        notify(line + "\n")
        self._report_actions(run)

    def run_end(self, run: Run) -> None:
        was_live = self._live is not None
        self.close()
        if was_live:
            # The bar is removed; the curves stay above the summary.
            notify("\n".join(curve_summary(run.history, None, width())) + "\n")

    def close(self) -> None:
        """Remove the bar from the terminal, also after an error."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None

    def _report_time(self, run: Run) -> None:
        """The expected remaining duration, from the time that rows took before the first step."""
        expected = expected_seconds(run)
        if expected is None:
            text = "known after the first steps"
        else:
            training, later = expected
            what = "scoring and analyses after training"
            after = f", of which {seconds_phrase(later)} for {what}" if later else ""
            more = seconds_phrase(training + later)
            text = f"about {more} more{after}, estimated before the first step"
        self._print(entry("Time", text, width()))

    def _report_verdict(self, run: Run) -> None:
        """Print a line when the verdict changes to or from one that the user should know about, and
        two evaluations in a row have it: with few validation rows a verdict may come and go.
        ``events.jsonl`` holds every change. A single evaluation gives no verdict."""
        verdict = run.verdict
        if verdict is None or len(run.history) < 2 or not self._verdicts:
            return
        holds = verdict.label == self._last_verdict
        self._last_verdict = verdict.label
        if verdict.label == self._verdict or not (holds or self._verbose):
            return
        unremarkable = verdict.label in UNREMARKABLE_VERDICTS and (
            self._verdict is None or self._verdict in UNREMARKABLE_VERDICTS
        )
        self._verdict = verdict.label
        if unremarkable and not self._verbose:
            return
        step_line = [f"  step {run.step}"] if self._live is not None else []
        self._print([*step_line, *verdict_lines(verdict, width(), self._verbose)])

    def _report_actions(self, run: Run) -> None:
        """Print the actions since the last evaluation; the reason for a stop is in the summary."""
        new = [action for _, action in run.guard.actions[self._actions_reported :]]
        for words in describe_actions([action for action in new if not isinstance(action, Stop)]):
            self._print(entry("Action", words, width()))
        self._actions_reported = len(run.guard.actions)

    def _print(self, lines: list[str]) -> None:
        """Print above the bar, if there is one."""
        if self._live is not None:
            self._live.console.print(
                "\n".join(lines), highlight=False, markup=False, soft_wrap=True
            )
        else:
            notify(coloured("\n".join(lines), sys.stderr) + "\n")

    def _show_curves(self, run: Run) -> None:
        from rich.console import Group
        from rich.text import Text

        assert self._live is not None
        assert self._bar is not None
        verdict = run.verdict if self._verdicts else None
        curves = Text("\n".join(curve_summary(run.history, verdict, width(), self._verbose)))
        self._live.update(Group(self._bar, curves))

    def _speed(self, run: Run) -> str:
        if self._first_step is None or run.step <= self._first_step[1]:
            return ""
        start, _, examples_before = self._first_step
        elapsed = time.perf_counter() - start
        left = self._time_left(run)
        return f"{(run.examples_seen - examples_before) / elapsed:.0f} rows/s" + (
            f", {left} left" if left else ""
        )

    def _time_left(self, run: Run) -> str:
        """The remaining time at this speed; empty before the second step and after the last."""
        if (
            self._first_step is None
            or run.step <= self._first_step[1]
            or run.step >= run.plan.steps
        ):
            return ""
        start, step, _ = self._first_step
        elapsed = time.perf_counter() - start
        return seconds_phrase(elapsed / (run.step - step) * (run.plan.steps - run.step))


def expected_seconds(run: Run) -> tuple[float, float] | None:
    """The expected time in seconds of all steps and evaluations, and of what follows them
    (``Job.overhead_s``); ``None`` where no row has passed through the network yet.

    Evaluations are estimated from the rows that were passed before the first step (by the linear
    probe, or by the first evaluation), updates from timed rows in training mode
    (``seconds_of_updates``), and a head that is refitted at an evaluation from its first fit. With
    several processes, a row forward and backward counts as three forward passes
    (``FORWARD_SHARE``).
    """
    from holdfast.methods.closed_form import HeadRefit
    from holdfast.training.plan import FORWARD_SHARE
    from holdfast.training.step import seconds_of_updates

    if not run.observer.rows_passed:
        return None
    seconds_per_row = run.observer.seconds / run.observer.rows_passed
    if run.job.accelerator.num_processes > 1:
        updates = (
            seconds_per_row * sum(phase.rows_passed for phase in run.plan.phases) / FORWARD_SHARE
        )
    else:
        updates = seconds_of_updates(run)
    evaluations, refits = len(run.plan.evaluate_at) - 1, run.plan.refits
    # A refitted head reads every training row; the training sample is among them.
    training_rows = len(run.job.train) + len(run.job.added_examples or ())
    evaluated_rows = (
        evaluations * len(run.job.valid)
        + refits * training_rows
        + (evaluations - refits) * run.plan.probe_rows
    )
    head_refits = [one for one in run.job.listeners if isinstance(one, HeadRefit)]
    refit_seconds = refits * sum(one.seconds for one in head_refits)
    other_seconds = 0.0 if run.job.overhead_s is None else run.job.overhead_s(seconds_per_row)
    return float(updates + seconds_per_row * evaluated_rows + refit_seconds), other_seconds


def describe_actions(actions: Sequence[Action]) -> list[str]:
    """One line for consecutive actions with the same reason. ``Continue`` shows only its reason:
    that a trial is kept."""
    lines = []
    for because, same_reason in groupby(actions, lambda one: one.because):
        described = [
            _describe_action(action) for action in same_reason if not isinstance(action, Continue)
        ]
        lines.append(f"{', '.join(described)}: {because}" if described else because)
    return lines


def _describe_action(action: Action) -> str:
    """The action in words; its name and settings where it has no words here."""
    match action:
        case Stop():
            return "stopped"
        case RollBack(to_step=step):
            return f"rolled back to step {step}"
        case ScaleLearningRate(factor=factor):
            return f"learning rate × {factor:.3g}"
        case SetWeightDecay(weight_decay=decay):
            return f"weight decay {decay:g}"
        case SetDropout(dropout=rate):
            return f"dropout {rate:g}"
        case Freeze(layers=layers):
            return f"frozen: {', '.join(layers)}"
        case Unfreeze(layers=layers):
            return "all layers unfrozen" if "*" in layers else f"unfrozen: {', '.join(layers)}"
        case Extend(steps=steps) if steps is not None:
            return f"extended by {steps} updates"
        case Shorten(to_step=step):
            return f"shortened to step {step}"
        case SwitchOn(method=method, settings=settings):
            with_ = ", ".join(f"{name} {value}" for name, value in settings.items())
            return f"{method} switched on{f' ({with_})' if with_ else ''}"
        case StrengthenAugmentation():
            return "stronger data augmentation"
        case ResetHead():
            return "last layer reset to the first evaluation"
        case Reshuffle():
            return "training rows reshuffled"
    record = to_record(action)
    settings_text = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    return f"{record['action']}{f' ({settings_text})' if settings_text else ''}"


class ProgressLine:
    """The current task and how much of it is done: call ``line(what, done, total)`` as often as
    needed, then ``close``. On a terminal the line overwrites itself; elsewhere each task that takes
    longer than a second gets one line.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = not quiet and sys.stderr.isatty()
        self._task, self._task_start, self._last_drawn, self._reported = "", 0.0, 0.0, ""
        self._first, self._done = 0, 0

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        now = time.monotonic()
        # One fit after another reports the same task from its beginning.
        if what != self._task or (done or 0) < self._done:
            self._task, self._task_start, self._last_drawn = what, now, 0.0
            self._first = done or 0
        self._done = done or 0
        if self._quiet or now - self._last_drawn < MIN_REDRAW_S:
            return
        self._last_drawn = now
        elapsed = now - self._task_start
        if self._is_terminal:
            share = f" {done:,} of {total:,}" if done is not None and total else ""
            time_left = (
                f", {seconds_phrase(elapsed * (total - done) / (done - self._first))} left"
                if done and total and done > self._first
                else ""
            )
            text = f"  {what}{share}{time_left if elapsed > MIN_REPORTED_S else ''} …"
            notify("\r\x1b[K" + text[: width()])
        elif self._reported != what and total and elapsed > MIN_REPORTED_S:
            self._reported = what
            notify(f"  {what}: {total:,}\n")

    def close(self) -> None:
        """Remove the line."""
        if self._is_terminal:
            notify("\r\x1b[K")

    def before(self, listener: DecisionListener) -> DecisionListener:
        """``listener``, called after the line is removed."""

        def clear_then_notify(item: Decision | Finding) -> None:
            self.close()
            listener(item)

        return clear_then_notify
