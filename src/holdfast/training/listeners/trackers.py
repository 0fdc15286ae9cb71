"""A listener that sends a run's metrics to experiment trackers, through Accelerate's.

| tracker | receives |
|---|---|
| TensorBoard | numbers, and the verdict's sentence; in ``RUN/tracking/tensorboard`` |
| Weights & Biases, Trackio | the same, without their own records of the machine and the code |
| MLflow | numbers; on the tracking server that MLflow's own settings name |

Nothing is sent unless a recipe requests it. The numbers of the snapshots, the verdict and the
settings are sent, with paths shortened to their last part; no row, no environment.
"""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, RunError
from holdfast.core.files import write_json
from holdfast.core.input_errors import reading_errors
from holdfast.core.labels import Label
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision, Snapshot, Verdict
from holdfast.core.shapes import boolean, integer, parse_object, record, text

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

    from holdfast.training.run import Run

MARK_FILE = "tracked.json"
MARK_SHAPE = record({"id": text, "step": integer, "mlflow": text, "scored": boolean}, ("id",))
FOLDER = "tracking"
NUMBERS_ONLY = ("mlflow",)
INSTALLED_BY = {
    "tensorboard": "'holdfast[tensorboard]'",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "wandb": "wandb",
}
# Without these, W&B stores the command line, paths, the repository's address, and the output.
WANDB_SETTINGS = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
LABELS = get_args(Label)


class TrackerListener:
    """Sends every snapshot once, whatever the number of resumes.

    A tracker's steps must increase, so a run that went back sends nothing until it is past its
    earlier position. The losses of the updates are sent with the next evaluation, for the same
    reason: a run that is killed before it repeats them.

    ``mark`` is a file with the last step sent and what a tracker needs to continue the same run. It
    is written before a step is sent: if the run is killed in between, this step is missing in the
    tracker, and no step is there twice.

    A tracker that fails is not used again, which a decision records; the run and the other trackers
    continue. One that cannot be started ends the run before its first step with ``MachineError``.
    """

    name, place = "track", "tell"

    def __init__(
        self, trackers: Sequence[GeneralTracker], mark: Path, settings: Mapping[str, object]
    ) -> None:
        self._trackers = list(trackers)
        self._mark = mark
        self._state = read_mark(mark)
        self._step_losses: list[tuple[int, float]] = []
        for tracker in trackers:
            try:
                with redirect_stdout(sys.stderr):
                    tracker.start()
                    if "step" not in self._state:
                        tracker.store_init_configuration(flatten(settings))
            except Exception as error:
                rule = f"names {tracker.name}, which failed to start ({type(error).__name__})"
                remedy = f"Check the settings of {tracker.name}, or leave it out."
                raise MachineError("track.to", rule, str(error), remedy) from error
            if tracker.name == "mlflow":
                self._state["mlflow"] = tracker.tracker.info.run_id
        self._save_state(self._state.get("step", -1))

    def step_done(self, run: Run) -> None:
        self._step_losses.append((run.step, run.running_loss))

    def snapshot_taken(self, run: Run) -> None:
        step_losses, self._step_losses = self._step_losses, []
        last = self._state["step"]
        if run.step <= last or run.verdict is None:
            return
        self._save_state(run.step)
        failed: list[Decision] = []
        for step, loss in step_losses:
            if step > last:
                last = step
                failed += self._send({"train/step_loss": loss}, step)
        values = {**numbers(run.history[-1]), **verdict_values(run.verdict)}
        for failure in [*failed, *self._send(values, run.step)]:
            run.journal.decide(run.step, failure)

    def log_test_metrics(self, step: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Send the metrics of the test rows, when they are known: once per run."""
        values = {f"test/{name}": metric["value"] for name, metric in metrics.items()}
        if not self._state.get("scored"):
            self._state["scored"] = True
            self._save_state(self._state["step"])
            notify(*self._send({k: v for k, v in values.items() if v is not None}, step))

    def close(self) -> None:
        notify(*self._with_each(_finish))

    def _send(self, values: dict[str, float | str], step: int) -> list[Decision]:
        plain = {name: v for name, v in values.items() if not isinstance(v, str)}
        return self._with_each(
            lambda one: one.log(plain if one.name in NUMBERS_ONLY else values, step=step)
        )

    def _with_each(self, act: Callable[[GeneralTracker], None]) -> list[Decision]:
        """``act`` on every tracker; those that fail are dropped, with a decision for each."""
        failed: list[Decision] = []
        for tracker in tuple(self._trackers):
            try:
                # Trackio prints, and standard output may be the JSON of the command.
                with redirect_stdout(sys.stderr):
                    act(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                # Without the message, which may hold an address with a password.
                because = f"it failed with {type(error).__name__}; the run continues without it"
                failed.append(Decision(tracker.name, "not used further", because, prominent=True))
        return failed

    def _save_state(self, step: int) -> None:
        self._state["step"] = step
        write_json(self._mark, self._state)


def _finish(tracker: GeneralTracker) -> None:
    if tracker.name == "trackio":
        # A run that Accelerate finishes, Trackio finishes again at exit.
        importlib.import_module("trackio").finish()
    else:
        tracker.finish()


def open_trackers(
    tracker_names: Sequence[str],
    project: str,
    name: str,
    run: Path,
    mark: Path,
    settings: Mapping[str, object],
) -> TrackerListener:
    """Start the trackers ``tracker_names`` for the folder ``run``, or continue where ``mark`` says
    they were."""
    state = read_mark(mark)
    if not state:
        state = {"id": uuid.uuid4().hex[:16]}
        write_json(mark, state)
    trackers = [
        make_tracker(name_of_tracker, project, name, run, state)
        for name_of_tracker in tracker_names
    ]
    return TrackerListener(trackers, mark, settings)


def make_tracker(
    tracker_name: str, project: str, name: str, run: Path, state: Mapping[str, object]
) -> Any:
    """One of Accelerate's trackers, not started yet; ``state`` is the content of a mark."""
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

    if tracker_name == "tensorboard":
        return TensorBoardTracker("tensorboard", run / FOLDER)
    if tracker_name == "mlflow":
        return MLflowTracker(project, run_id=state.get("mlflow"), run_name=name)
    if tracker_name == "trackio":
        # Trackio finds a run again by its name, and other runs of the project may have this one.
        unique = f"{name}-{state['id']}"
        return TrackioTracker(
            project, name=unique, resume="allow", auto_log_gpu=False, auto_log_cpu=False
        )
    (run / FOLDER).mkdir(exist_ok=True)
    return WandBTracker(
        project,
        name=name,
        id=state["id"],
        resume="allow",
        dir=str(run / FOLDER),
        settings=WANDB_SETTINGS,
    )


def check_trackers(to: Sequence[str]) -> None:
    """Raise ``MachineError``, with the install command, for a package that is missing."""
    for name in to:
        need_packages(
            "track.to", name, install=INSTALLED_BY[name], otherwise="leave it out of track.to"
        )


def numbers(snapshot: Snapshot) -> dict[str, float | str]:
    """The scalars of a snapshot by the names that trackers group: ``train/…``, ``valid/…``."""
    values: dict[str, float | None] = {
        "train/loss": snapshot.train_loss,
        "valid/loss": snapshot.valid_loss,
        "valid/refined_loss": snapshot.refined_loss,
        "valid/temperature": snapshot.temperature,
        **{f"train/{name}": value for name, value in snapshot.train_metrics.items()},
        **{f"valid/{name}": value for name, value in snapshot.valid_metrics.items()},
        "run/epoch": snapshot.epoch,
        "run/examples_seen": float(snapshot.examples_seen),
        "run/learning_rate": snapshot.learning_rate,
        "run/gradient_norm": snapshot.gradient_norm,
        "run/relative_update": snapshot.relative_update,
        "run/distance": snapshot.distance,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def verdict_values(verdict: Verdict) -> dict[str, float | str]:
    """The verdict as text, and as numbers for trackers that only plot those: ``number`` is the
    position of the label in the contract's list, from 0."""
    return {
        "verdict/label": verdict.label,
        "verdict/because": verdict.because,
        "verdict/number": float(LABELS.index(verdict.label)),
        "verdict/confidence": float(verdict.confidence),
    }


def flatten(settings: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to the plain values of what is set; a path is shortened to its last part."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            plain = isinstance(value, (bool, int, float))
            values[prefix + key] = value if plain else str(_shortened(value))
    return values


def read_mark(mark: Path) -> dict[str, Any]:
    """The state that an earlier part of the run stored; empty where there was none. Raises
    ``RunError`` where it cannot be read."""
    if not mark.exists():
        return {}
    with reading_errors(
        str(mark), RunError, remedy="Delete it: the tracker then begins a new run."
    ):
        state = parse_object(mark.read_text("utf-8"))
        MARK_SHAPE(state, "")
    return state


def _shortened(value: object) -> object:
    """The value with every path in it, at any depth, shortened to its last part."""
    if isinstance(value, Mapping):
        return {name: _shortened(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(one) for one in value]
    if not isinstance(value, str):
        return value
    path, _, function = value.partition(".py:")
    named = Path(f"{path}.py") if function else Path(path)
    absolute = named.is_absolute()
    return f"{named.name}{':' if function else ''}{function}" if absolute else value
