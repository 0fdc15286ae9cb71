"""What a person sees while something goes on: a listener that shows a run (a bar and the curves on
a terminal, a plain line per snapshot elsewhere, and in both a line whenever the verdict changes),
and one line for whatever else takes long.
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
from holdfast.terminal.evaluations import glance, heading, metric_of, row, share, verdict_lines
from holdfast.terminal.layout import clock, entry, width
from holdfast.terminal.streams import Lasting, notify

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress

    from holdfast.core.decisions import DecisionListener
    from holdfast.core.events import Place
    from holdfast.core.records import Decision, Finding
    from holdfast.training.run import Run


# Where nothing is wrong, or nothing can be told yet.
CALM = ("learning", "healthy", "inconclusive")
EVERY_S = 0.2
# What is over sooner needs no words where a line cannot be drawn over.
WORTH_S = 1.0


class Show:
    """Losses, speed and time left, on standard error."""

    name = "show"
    place: Place = "tell"

    def __init__(self, quiet: bool, verbose: bool = False, verdicts: bool = True) -> None:
        """Without ``verdicts`` those of the way are not shown (but with ``verbose``): in the last
        of many fits, one of which won, only the verdict at the end says something new."""
        self._quiet = quiet
        self._verdicts = verdicts or verbose
        self._verbose = verbose
        self._bar: Progress | None = None
        self._live: Live | None = None
        self._verdict: str | None = None
        self._task: Any = None
        self._first: tuple[float, int, int] | None = None
        self._headed = False
        self._label = ""
        self._said = 0
        self._at = 0

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
        # The stream as it is now: while the bar is drawn, Rich puts itself in its place.
        lasting = cast("IO[str]", Lasting(sys.stderr))
        self._live = Live(
            self._bar, console=Console(file=lasting), transient=True, refresh_per_second=4
        )
        self._live.start()
        self._task = self._bar.add_task("measuring the model before any step", total=run.plan.steps)

    def batch_ready(self, run: Run) -> None:
        if self._first is None:
            # Those of a run that is resumed were told when they were done.
            self._said = len(run.guard.actions)

    def step_done(self, run: Run) -> None:
        # Timed from the end of the first step, which also lays out memory and chooses kernels; anew
        # where it went back: what it left counts towards no step that is to come.
        if self._first is None or run.step <= self._at:
            self._first = (time.perf_counter(), run.step, run.examples_seen)
        self._at = run.step
        if self._bar is not None:
            text = ", ".join(
                filter(None, [f"loss {run.running_loss:.3f}", self._label, self._speed(run)])
            )
            # The plan grows where an action extends the run.
            self._bar.update(self._task, completed=run.step, total=run.plan.steps, description=text)

    def snapshot_taken(self, run: Run) -> None:
        found = metric_of(run.history[-1])
        self._label = "" if found is None else f"{found[0]} {share(found[1], found[2])}"
        if self._quiet:
            return
        # Not after it went back to the first look.
        if len(run.history) == 1 and self._first is None:
            self._say_time(run)
        self._say_verdict(run)
        if self._live is not None:
            self._say_actions(run)
            self._show_curves(run)
            return
        if not self._headed:
            self._print(heading(run.history[0]))
            self._headed = True
        # Of a look from which the run went back, which is no part of its history any more.
        looks = (*(s for s in run.history if s.step < run.last_snapshot.step), run.last_snapshot)
        line = row(looks, run.plan.steps, run.best.step == run.last_snapshot.step, self._left(run))
        notify(line + "\n")
        self._say_actions(run)

    def run_end(self, run: Run) -> None:
        drawn = self._live is not None
        self.close()
        if drawn:
            # The bar goes; the curves stay above what the run has to say at its end.
            notify("\n".join(glance(run.history, None, width())) + "\n")

    def close(self) -> None:
        """Take the bar off the terminal; also after an error."""
        if self._live is not None:
            self._live.stop()
            self._live = self._bar = None

    def _say_time(self, run: Run) -> None:
        """How long it will take, from what rows took before any step."""
        seconds = expected_seconds(run)
        if seconds is None:
            text = "known after the first steps: no row was passed before them"
        else:
            after = ", with scoring and probes" if run.job.overhead_s is not None else ""
            text = f"about {clock(seconds)}{after}, as measured before the first step"
        self._print(entry("Time", text, width()))

    def _say_verdict(self, run: Run) -> None:
        """A line when the label changes to or from one that somebody should know of; every change
        stands in ``events.jsonl``. One look is nothing to judge by."""
        verdict = run.verdict
        if verdict is None or verdict.label == self._verdict:
            return
        if len(run.history) < 2 or not self._verdicts:
            return
        calm = verdict.label in CALM and (self._verdict is None or self._verdict in CALM)
        self._verdict = verdict.label
        if calm and not self._verbose:
            return
        at = [f"  step {run.step}"] if self._live is not None else []
        self._print([*at, *verdict_lines(verdict, width())])

    def _say_actions(self, run: Run) -> None:
        """What was done to the run itself since the last look; why it ends is said at its end."""
        new = [action for _, action in run.guard.actions[self._said :]]
        for told in in_words([action for action in new if not isinstance(action, Stop)]):
            self._print(entry("Action", told, width()))
        self._said = len(run.guard.actions)

    def _print(self, lines: list[str]) -> None:
        """Above the bar where there is one."""
        if self._live is not None:
            self._live.console.print(
                "\n".join(lines), highlight=False, markup=False, soft_wrap=True
            )
        else:
            notify("\n".join(lines) + "\n")

    def _show_curves(self, run: Run) -> None:
        from rich.console import Group
        from rich.text import Text

        assert self._live is not None
        assert self._bar is not None
        verdict = run.verdict if self._verdicts else None
        seen = Text("\n".join(glance(run.history, verdict, width())))
        self._live.update(Group(self._bar, seen))

    def _speed(self, run: Run) -> str:
        if self._first is None or run.step <= self._first[1]:
            return ""
        start, _, seen = self._first
        elapsed = time.perf_counter() - start
        left = self._left(run)
        return f"{(run.examples_seen - seen) / elapsed:.0f} rows/s" + (
            f", {left} left" if left else ""
        )

    def _left(self, run: Run) -> str:
        """The time left at the pace so far; empty before the second step and after the last."""
        if self._first is None or run.step <= self._first[1] or run.step >= run.plan.steps:
            return ""
        start, step, _ = self._first
        elapsed = time.perf_counter() - start
        return clock(elapsed / (run.step - step) * (run.plan.steps - run.step))


def expected_seconds(run: Run) -> float | None:
    """The time of all steps, looks and what follows them (``Job.others_s``), from that of the rows
    that were passed before any step: by the linear probe, where there is one, and by the first
    look, where it has to pass its own; and from that of rows in training mode
    (``seconds_of_updates``); a head that is refitted at a look takes what its first fit took. In
    one of several processes a row forward and backward counts as three forward
    (``FORWARD_SHARE``). ``None`` where no row was passed.
    """
    from holdfast.methods.closed_form import HeadRefit
    from holdfast.training.plan import FORWARD_SHARE
    from holdfast.training.step import seconds_of_updates

    if not run.observer.rows_passed:
        return None
    a_row = run.observer.seconds / run.observer.rows_passed
    if run.job.accelerator.num_processes > 1:
        updates = a_row * sum(phase.rows_passed for phase in run.plan.phases) / FORWARD_SHARE
    else:
        updates = seconds_of_updates(run)
    looks, refits = len(run.plan.evaluate_at) - 1, run.plan.refits
    # A refitted head reads every training row, and the rows of the train probe are among them.
    every = len(run.job.train) + len(run.job.added_examples or ())
    looked = looks * len(run.job.valid) + refits * every + (looks - refits) * run.plan.probe_rows
    fits = [one for one in run.job.listeners if isinstance(one, HeadRefit)]
    fitted = refits * sum(one.seconds for one in fits)
    others = 0.0 if run.job.overhead_s is None else run.job.overhead_s(a_row)
    return float(updates + a_row * looked + fitted + others)


def in_words(actions: Sequence[Action]) -> list[str]:
    """A line for those in a row that have one reason, the reason once. ``Continue`` is its reason:
    that a trial is kept."""
    lines = []
    for because, found in groupby(actions, lambda one: one.because):
        done = [_action_words(action) for action in found if not isinstance(action, Continue)]
        lines.append(f"{', '.join(done)}: {because}" if done else because)
    return lines


def _action_words(action: Action) -> str:
    """Of an action that has no words here: its name and what it holds."""
    match action:
        case RollBack(to_step=step):
            return f"back to step {step}"
        case ScaleLearningRate(factor=factor):
            return f"learning rate × {factor:.3g}"
        case SetWeightDecay(weight_decay=decay):
            return f"weight decay {decay:g}"
        case SetDropout(dropout=rate):
            return f"dropout {rate:g}"
        case Freeze(layers=layers):
            return f"frozen: {', '.join(layers)}"
        case Unfreeze(layers=layers):
            return "every layer learns" if "*" in layers else f"unfrozen: {', '.join(layers)}"
        case Extend(steps=steps) if steps is not None:
            return f"{steps} updates more"
        case Shorten(to_step=step):
            return f"to end at step {step}"
        case SwitchOn(method=method, settings=settings):
            with_ = ", ".join(f"{name} {value}" for name, value in settings.items())
            return f"{method} switched on{f' ({with_})' if with_ else ''}"
        case StrengthenAugmentation():
            return "the rows in stronger forms"
        case ResetHead():
            return "the last layer as at the first look"
        case Reshuffle():
            return "the rows in another order"
    record = to_record(action)
    what = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    return f"{record['action']}{f' ({what})' if what else ''}"


class ProgressLine:
    """``line(what, done, total)`` as often as you like, then ``close``: what goes on, and how much
    of it is done, drawn over itself on a terminal; elsewhere a line for each thing that is begun.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._drawn = not quiet and sys.stderr.isatty()
        self._what, self._since, self._last, self._said = "", 0.0, 0.0, ""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._since, self._last = what, now, 0.0
        if self._quiet or now - self._last < EVERY_S:
            return
        self._last = now
        spent = now - self._since
        if self._drawn:
            share = f" {done:,} of {total:,}" if done is not None and total else ""
            left = f", {clock(spent * (total - done) / done)} left" if done and total else ""
            text = f"  {what}{share}{left if spent > WORTH_S else ''} …"
            notify("\r\x1b[K" + text[: width()])
        elif self._said != what and total and spent > WORTH_S:
            self._said = what
            notify(f"  {what}: {total:,}\n")

    def close(self) -> None:
        """Take the line away."""
        if self._drawn:
            notify("\r\x1b[K")

    def then(self, listener: DecisionListener) -> DecisionListener:
        """``listener``, for whom the line is taken away first."""

        def heard(item: Decision | Finding) -> None:
            self.close()
            listener(item)

        return heard
