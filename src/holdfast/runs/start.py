"""The folder of a run while it is made: what it began with, where it is written, and which alerts
and trackers follow it.

``checkpoints/begun.json`` records what a run began with. A resumed run repeats its first decisions
from it, and refuses other rows, settings or base weights. Before the first step, an outline of the
rows and then of the model is sent in plain values to listeners through the context, as decisions
are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdfast.contract.fit import FittedModel, RunStart, ScoringResult, TrainingPlan
from holdfast.contract.inference import run_recipe
from holdfast.contract.run_folder import CHECKPOINTS, RECIPE, RUN_START, SEARCH, is_finished
from holdfast.core.decisions import notify
from holdfast.core.errors import Interrupted, RunError
from holdfast.core.files import disk_errors, json_digest, write_json, write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import read_result
from holdfast.core.yaml_values import from_yaml, read_yaml
from holdfast.data.table import Table
from holdfast.fits.fit import FitPlace
from holdfast.models.layers import count_parameters
from holdfast.prepare.rows import Divided
from holdfast.prepare.sharding import shard_of
from holdfast.recipe import Recipe, resolve_paths
from holdfast.recipe.plain_names import settings_with_stored_keys
from holdfast.report.public import public_name
from holdfast.training.checkpoint import LEAST_SECONDS, CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.alerts import Alerts
from holdfast.training.listeners.trackers import MARK_FILE, TrackerListener, open_trackers
from holdfast.training.plan import Phase

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.contract.request import TrainingRequest


# Settings that may change while a run is not finished: the paths of its files (the rows themselves
# are compared), and alerts.
CHANGEABLE = {
    "data": ("path", "valid", "test", "descriptions", "unlabelled", "general"),
    "probes": ("forgetting", "fairness"),
    "alert": None,
    "track": None,
}
# Keys that have an option of their own.
OPTION_KEYS = (
    "data.path",
    "data.test",
    "data.text",
    "data.label",
    "data.group",
    "model.name",
    "task",
    "seed",
)
OPENED = "test rows opened"
OTHER = "Restore it. To train with other settings, start a new run with another --out."
NEEDED = {"rows": str, "base_model": str, "findings": list, "decisions": list}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a run is written. With ``resume`` the existing run is continued; ``every_s`` is the
    least number of seconds between two checkpoints."""

    run: Path
    resume: bool = False
    every_s: float = LEAST_SECONDS


def finished_before(run: Path, resume: bool) -> dict[str, Any] | None:
    """The result of a run that is to be resumed but is already finished, else ``None``."""
    with disk_errors(run):
        finished = resume and is_finished(run)
    return read_result(run) if finished else None


@contextlib.contextmanager
def interruptible(run: Path) -> Iterator[None]:
    """Turn Ctrl-C into ``Interrupted``, whose message says how to resume the run, or that nothing
    was written."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        name, rule = "the run", "was interrupted"
        if not ((run / RECIPE).exists() or (run / CHECKPOINTS / SEARCH).exists()):
            raise Interrupted(name, f"{rule} before anything was written") from None
        if isinstance(error, Interrupted):
            raise
        remedy = "Continue it with the same command and --resume."
        raise Interrupted(name, rule, None, remedy) from None


def record_start(
    destination: Destination,
    training_plan: TrainingPlan,
    divided: Divided,
    outer_recipes: Sequence[Mapping[str, Any]] = (),
) -> RunStart:
    """The record of what the run began with.

    It is written once, before the recipe. A resumed run reads it; if that fails, each checkpoint
    has a copy. Raises ``RunError`` where the run began with other rows or another recipe.
    """
    run, resume, text = destination.run, destination.resume, training_plan.recipe.to_yaml()
    run_start = RunStart(
        _rows_fingerprint(divided, training_plan),
        settings_of(run) if resume else settings_fingerprint(from_yaml(text)),
        training_plan.loaded.facts["sha256"],
        to_json([*divided.findings, *training_plan.findings]),
        to_json([*divided.decisions, *training_plan.decisions]),
        outer_recipes,
        training_plan.trials,
        training_plan.prepared.recipe.model_dump(mode="json", include={"train", "methods"})
        if training_plan.trials
        else {},
    )
    path = run / CHECKPOINTS / RUN_START
    if not resume:
        path.parent.mkdir(exist_ok=True)
        _write(path, asdict(run_start))
        write_text(run / RECIPE, text)
        return run_start
    before, fault = _read(path)
    if fault is not None:
        before = _restore_start(path, fault, run_start)
    changed = {
        "rows": ("with different rows than its source now has", "source file"),
        "base_model": ("from different weights than its base model now has", "base model"),
    }
    for name, (rule, lost) in changed.items():
        if before[name] != getattr(run_start, name):
            raise RunError(
                str(run), f"was started {rule}", None, f"Restore the {lost}, or start a new run."
            )
    return replace(
        run_start,
        findings=before["findings"],
        decisions=before["decisions"],
        # The recipe of a resumed run names its model, so no other is chosen then.
        outer_recipes=before.get("outer_recipes", ()),
        trials=before.get("trials", ()),
        requested=before.get("requested", {}),
    )


def unused_settings(run: Path, recipe: Recipe, request: TrainingRequest) -> list[str]:
    """The options and settings of the ``request``, from which ``recipe`` was made, that a resumed
    run does not use, because it began with other values: ``train.epochs=5 (the run uses 3)``.

    Rows in memory are not among them: other rows are refused."""
    if not (run / RECIPE).exists():
        return []
    now, began, default = (
        one.model_dump(mode="json")
        for one in (resolve_paths(recipe, Path()), run_recipe(run), Recipe())
    )
    keys = [key for key in OPTION_KEYS if _value_at(now, key) != _value_at(default, key)]
    if "data" in request.in_memory:
        keys.remove("data.path")
    if request.seed is not None:
        # It may be given as the default value, where the run has another.
        keys.append("seed")
    stored_settings = settings_with_stored_keys(request.settings)[0]
    keys += [one.partition("=")[0].strip() for one in stored_settings]
    values = {key: [_value_at(one, key) for one in (now, began)] for key in keys}
    return [f"{k}={new} (the run uses {old})" for k, (new, old) in values.items() if new != old]


def _value_at(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def check_recipe(run: Path) -> None:
    """Raise ``RunError`` where the recipe of a run to resume cannot be read, or is known to differ
    from the one that the run began with."""
    now = settings_of(run)
    before, fault = _read(run / CHECKPOINTS / RUN_START)
    if fault is None and before.get("settings", now) != now:
        raise RunError(str(run / RECIPE), "is not the recipe that the run began with", None, OTHER)


def _restore_start(path: Path, fault: str, run_start: RunStart) -> dict[str, Any]:
    """The record of the run's beginning where its file ``fault``: from a checkpoint, else made
    again now."""
    recorded = CheckpointStore(path.parent, mark=run_start.mark).read_run_info()
    if recorded is None:
        because = (
            f"it {fault}, and no checkpoint has a copy: whether the rows are unchanged cannot be "
            "checked, and earlier automatic choices are treated as set by you"
        )
        recorded = asdict(run_start)
        notify(Decision(RUN_START, "recreated", because, prominent=True))
    else:
        notify(Decision(RUN_START, "restored from a checkpoint", f"it {fault}", prominent=True))
    if path.is_dir():
        raise RunError(
            str(path), "is a folder, but must be a file", None, "Remove or rename the folder."
        )
    path.parent.mkdir(exist_ok=True)
    _write(path, recorded)
    return recorded


def _write(path: Path, recorded: Mapping[str, object]) -> None:
    write_json(path, {**recorded, "digest": json_digest(recorded)})


def _read(path: Path) -> tuple[dict[str, Any], str | None]:
    """The file's object, and what is wrong with it."""
    if not path.exists() and not path.is_symlink():
        return {}, "is missing"
    try:
        with reading_errors(str(path), RunError):
            recorded = json.loads(path.read_text("utf-8"))
    except RunError as error:
        return {}, error.rule
    if not isinstance(recorded, dict) or any(
        not isinstance(recorded.get(name), value_type) for name, value_type in NEEDED.items()
    ):
        return {}, "is not the record of a run's beginning"
    digest = recorded.pop("digest", None)
    # An unfinished run of an older version has none.
    if digest is not None and digest != json_digest(recorded):
        return {}, "was changed"
    try:
        for decision in recorded["decisions"]:
            Decision(**decision)
    except TypeError:
        return {}, "is not the record of a run's beginning"
    return recorded, None


def settings_of(run: Path) -> str:
    """The hash of the settings in the run's recipe."""
    with reading_errors(str(run / RECIPE), RunError, remedy=OTHER):
        return settings_fingerprint(read_yaml(run / RECIPE))


def settings_fingerprint(settings: object) -> str:
    """A hash of a recipe's settings, without those that may change while a run is unfinished."""
    if not isinstance(settings, dict):
        raise ValueError("it holds no settings")
    for section, names in CHANGEABLE.items():
        if names is None:
            settings.pop(section, None)
        elif isinstance(settings.get(section), dict):
            settings[section] = {k: v for k, v in settings[section].items() if k not in names}
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _rows_fingerprint(divided: Divided, training_plan: TrainingPlan) -> str:
    added, general = training_plan.prepared.added, training_plan.prepared.general
    extra_tables = (*((added.table,) if added else ()), *(general.tables if general else ()))
    return rows_digest((*divided.tables, *extra_tables))


def rows_digest(tables: Sequence[Table]) -> str:
    """A hash of every value of these tables."""
    digest = hashlib.blake2b(digest_size=16)
    for table in tables:
        for name in sorted(table.rows.column_names):
            for value in table.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


class RunFolder:
    """The folder of one run while it is made; ``fit`` calls its ``begin``.

    ``opened_before`` is when an earlier, unfinished scoring of this run opened the test rows, if
    there was one. On exit trackers are closed, also those of a failed run.
    """

    def __init__(
        self, to: Destination, divided: Divided, outer_recipes: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._destination = to
        self._divided = divided
        self._outer_recipes = outer_recipes
        self._tracks: tuple[TrackerListener, ...] = ()
        self.opened_before: str | None = None

    @property
    def run(self) -> Path:
        """The folder itself."""
        return self._destination.run

    @property
    def checkpoints(self) -> Path:
        """The folder of files that are removed when the run is finished."""
        return self._destination.run / CHECKPOINTS

    def begun_trials(self) -> Sequence[Mapping[str, Any]] | None:
        """The trials of a resumed fit; ``None`` where none began."""
        if not (self._destination.resume and (self.run / RECIPE).exists()):
            return None
        trials: Sequence[Mapping[str, Any]] = _read(self.checkpoints / RUN_START)[0].get(
            "trials", ()
        )
        return trials

    def begin(self, training_plan: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Record what the run begins with, or compare it with the record of a resumed run.

        Raises ``RunError`` where a resumed run began with other rows, settings or base weights.
        """
        destination, is_writer = self._destination, accelerator.is_main_process
        notify_outline(outline_model(training_plan))
        run_start = (
            record_start(destination, training_plan, self._divided, self._outer_recipes)
            if is_writer
            else None
        )
        accelerator.wait_for_everyone()
        if run_start is None:
            # Only the first process writes files and reports decisions.
            run_start = RunStart(
                _rows_fingerprint(self._divided, training_plan),
                settings_of(destination.run),
                training_plan.loaded.facts["sha256"],
                (),
                (),
            )
        listeners = self._listeners(training_plan.recipe) if is_writer else ()
        journal = Journal(destination.run if is_writer else None)
        # The loop rewinds the journal to its last checkpoint, which may be before that.
        opened = [line for line in journal.lines() if line.get("what") == OPENED]
        self.opened_before = str(opened[-1]["at"]) if opened else None
        return FitPlace(
            journal=journal,
            store=CheckpointStore(
                self.checkpoints,
                destination.every_s,
                run_start.mark,
                asdict(run_start) if is_writer else {},
                shard_of(training_plan.recipe, accelerator),
            ),
            checkpoints=self.checkpoints,
            resume=destination.resume,
            decisions=[Decision(**decision) for decision in run_start.decisions],
            listeners=listeners,
            run_start=run_start,
            test_rows=len(self._divided.splits.test),
        )

    def send_score(self, fitted: FittedModel, scored: ScoringResult) -> None:
        """Send the test score to the trackers, next to the learning curves."""
        for track in self._tracks:
            track.log_test_metrics(fitted.trained.last_step, scored.blocks["test"]["metrics"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for track in self._tracks:
            track.close()

    def _listeners(self, recipe: Recipe) -> tuple[Any, ...]:
        """The listeners that follow the run: alerts, and the trackers that ``track.to`` names."""
        run, alert, track = self._destination.run, recipe.alert, recipe.track
        if track.to:
            mark, name = run / CHECKPOINTS / MARK_FILE, track.name or run.resolve().name
            opened = open_trackers(
                track.to, track.project, name, run, mark, recipe.public_settings()
            )
            self._tracks = (opened,)
        if not (alert.command or alert.webhook):
            return self._tracks
        return (Alerts(alert.on, alert.command, alert.webhook, run.name), *self._tracks)


@dataclass(frozen=True, slots=True)
class RowsOutline:
    """The rows and their split. ``answers`` is the type of the labels: ``2 classes``,
    ``5 labels``, ``a number``; empty where the target is a text. ``dropped`` rows are not used,
    most of them because of ``why_dropped``; ``moved`` ones are in the split of their duplicates or
    group. ``folded``: all rows but test rows are assigned to folds, and no split is fixed."""

    source: str
    rows: int
    text: tuple[str, ...]
    label: str | None
    answers: str
    group: str | None
    train: int
    valid: int
    test: int
    moved: int
    dropped: int
    why_dropped: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class ModelOutline:
    """The model and the plan. ``rows_a_step`` are those of the last phase, ``epochs`` the epochs
    over the training rows of all phases together."""

    name: str
    task: str
    parameters: int
    learning: int
    steps: int
    phases: int
    rows_a_step: int
    epochs: float
    looks: int


Outline = RowsOutline | ModelOutline
_LISTENER: ContextVar[Callable[[Outline], None]] = ContextVar("outline", default=lambda _: None)


@contextlib.contextmanager
def outlines_to(listener: Callable[[Outline], None]) -> Iterator[None]:
    """Send the outlines inside the ``with`` block to ``listener``, each as soon as it is made."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def notify_outline(part: Outline) -> None:
    """Send an outline to the listener, if there is one."""
    _LISTENER.get()(part)


def outline_rows(divided: Divided, scores_by_folds: bool = False) -> RowsOutline:
    """The outline of rows that were loaded and split, or are to be ``scores_by_folds``."""
    table, splits = divided.table, divided.splits
    # Each note names its own row: they are counted by what is the same in them.
    dropped_notes = Counter(
        re.sub(r"\brow \d+|, similarity [\d.]+", lambda m: "a row" * (m[0][0] == "r"), note or "")
        for note, split in zip(
            splits.records["note"].to_pylist(), splits.records["split"].to_pylist(), strict=True
        )
        if split == "dropped"
    )
    return RowsOutline(
        source=Path(table.source).name or table.source,
        rows=table.source_rows,
        text=tuple(table.columns.text),
        label=table.columns.label,
        answers=_answers_text(divided),
        group=table.columns.group,
        train=len(splits.train),
        valid=len(splits.valid),
        test=len(splits.test),
        moved=splits.moved,
        dropped=sum(dropped_notes.values()),
        why_dropped=max(dropped_notes, key=lambda note: dropped_notes[note], default=""),
        folded=scores_by_folds,
    )


def outline_model(training_plan: TrainingPlan) -> ModelOutline:
    """The outline of a loaded model and its plan."""
    total, learning = count_parameters(training_plan.loaded.network)
    phases, name = training_plan.plan.phases, str(training_plan.recipe.model.name)
    passes = sum(_passes(phase, len(training_plan.train)) for phase in phases)
    return ModelOutline(
        name=public_name(name) if Path(name).is_dir() else name,
        task=str(training_plan.recipe.task),
        parameters=total,
        learning=learning,
        steps=training_plan.plan.steps,
        phases=len(phases),
        rows_a_step=phases[-1].rows_per_step,
        epochs=passes,
        looks=len(training_plan.plan.evaluate_at),
    )


def _passes(phase: Phase, rows: int) -> float:
    """Epochs over the training rows: the last batch of one is partial, but a source without epochs
    has none."""
    if not phase.source.has_epochs:
        return phase.steps * phase.rows_per_step / max(1, rows)
    return phase.steps / max(1, math.ceil(rows / phase.rows_per_step))


def _answers_text(divided: Divided) -> str:
    table = divided.table
    if table.columns.label_kind == "number":
        return "a number"
    if table.names:
        return f"{len(table.names)} labels"
    return f"{len(table.classes)} classes" if len(table.classes) > 1 else ""
