"""The folder of a run while it is made: what it began with, where it is written, who is told of it.

``checkpoints/begun.json`` says what a run began with, so that one that is continued gives the first
reasons again and refuses other rows or settings. What a person wants to know before the first step,
the rows and then the model, is outlined in plain values; that goes to whoever listens, with the
context, as decisions do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holdfast.contract.fit import FittedModel, RunStart, ScoringResult, TrainingPlan
from holdfast.contract.run_folder import RUN_START, CHECKPOINTS, RECIPE, is_finished
from holdfast.core.decisions import notify
from holdfast.core.errors import Interrupted, RunError
from holdfast.core.files import disk_errors, write_json, write_text
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import read_result
from holdfast.core.yaml_values import from_yaml, read_yaml
from holdfast.data.table import Table
from holdfast.fits.fit import FitPlace
from holdfast.models.layers import count_parameters
from holdfast.prepare.rows import Divided
from holdfast.prepare.sharding import part_of
from holdfast.training.checkpoint import LEAST_SECONDS, CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.alerts import Alerts
from holdfast.training.listeners.trackers import MARK_FILE, TrackerListener, open_trackers
from holdfast.training.plan import Phase

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.recipe import Recipe


# What may change while a run is not finished: where its files lie (the rows themselves are
# compared), who is told of it.
MOVABLE = {
    "data": ("path", "valid", "test", "descriptions", "unlabelled", "general"),
    "probes": ("forgetting", "fairness"),
    "alert": None,
    "track": None,
}
OPENED = "test rows opened"
OTHER = "Restore it; to train with other settings, start a new run with another --out."
NEEDED = {"rows": str, "findings": list, "decisions": list}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a run is written. With ``resume`` the run that is there is continued; ``every_s`` is
    the least time between two checkpoints."""

    run: Path
    resume: bool = False
    every_s: float = LEAST_SECONDS


def finished_before(run: Path, resume: bool) -> dict[str, Any] | None:
    """The result of a run that is to be continued and had come to its end; ``None`` of others."""
    with disk_errors(run):
        finished = resume and is_finished(run)
    return read_result(run) if finished else None


@contextlib.contextmanager
def interruptible(run: Path) -> Iterator[None]:
    """Ctrl-C inside is ``Interrupted``, which says how the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        what, rule = "the run", "was interrupted"
        if not (run / RECIPE).exists():
            raise Interrupted(what, f"{rule} before anything was written") from None
        remedy = "Continue it with the same command and --resume."
        raise Interrupted(what, rule, None, remedy) from None


def remember(to: Destination, ready: TrainingPlan, divided: Divided) -> RunStart:
    """What the run began with.

    It is written once, before the recipe. A run that is continued reads it; where that cannot be
    done, each checkpoint has a copy. Raises ``RunError`` where the run began with other rows, or
    with another recipe.
    """
    run, again, text = to.run, to.resume, ready.recipe.to_yaml()
    begun = RunStart(
        _fingerprint(divided, ready),
        settings_of(run) if again else settings_mark(from_yaml(text)),
        to_json([*divided.findings, *ready.findings]),
        to_json([*divided.decisions, *ready.decisions]),
    )
    path = run / CHECKPOINTS / RUN_START
    if not again:
        path.parent.mkdir(exist_ok=True)
        _write(path, asdict(begun))
        write_text(run / RECIPE, text)
        return begun
    before, wrong = _read(path)
    if wrong is not None:
        before = _again(path, wrong, begun)
    if before["rows"] != begun.rows:
        raise RunError(
            str(run),
            "began with other rows than its source has now",
            None,
            "Restore the source file, or start a new run.",
        )
    return replace(begun, findings=before["findings"], decisions=before["decisions"])


def check_recipe(run: Path) -> None:
    """Raise ``RunError`` where the recipe of a run that is to be continued cannot be read, or is
    not the one that the run began with, as far as that is known."""
    now = settings_of(run)
    before, wrong = _read(run / CHECKPOINTS / RUN_START)
    if wrong is None and before.get("settings", now) != now:
        raise RunError(str(run / RECIPE), "is not the recipe that the run began with", None, OTHER)


def _again(path: Path, wrong: str, begun: RunStart) -> dict[str, Any]:
    """What the run began with where its file ``wrong``: from a checkpoint, else as of now."""
    kept = CheckpointStore(path.parent, mark=begun.mark).read_run_info()
    if kept is None:
        because = (
            f"it {wrong}, and no checkpoint holds a copy: that the rows are the first ones "
            "cannot be checked, and what was chosen then counts as set by you"
        )
        kept = asdict(begun)
        notify(Decision(RUN_START, "made anew", because))
    else:
        notify(Decision(RUN_START, "taken from a checkpoint", f"it {wrong}"))
    if path.is_dir():
        raise RunError(str(path), "is a folder, and a file belongs there", None, "Take it away.")
    path.parent.mkdir(exist_ok=True)
    _write(path, kept)
    return kept


def _write(path: Path, kept: Mapping[str, object]) -> None:
    write_json(path, {**kept, "digest": _digest(kept)})


def _read(path: Path) -> tuple[dict[str, Any], str | None]:
    """The file's object, and what is wrong with it."""
    if not path.exists() and not path.is_symlink():
        return {}, "is missing"
    try:
        with reading_errors(str(path), RunError):
            found = json.loads(path.read_text("utf-8"))
    except RunError as error:
        return {}, error.rule
    if not isinstance(found, dict) or any(
        not isinstance(found.get(name), kind) for name, kind in NEEDED.items()
    ):
        return {}, "does not hold what a run begins with"
    told = found.pop("digest", None)
    # An unfinished run of an older version has none.
    if told is not None and told != _digest(found):
        return {}, "was changed"
    try:
        for decision in found["decisions"]:
            Decision(**decision)
    except TypeError:
        return {}, "does not hold what a run begins with"
    return found, None


def _digest(begun: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(begun, sort_keys=True).encode()).hexdigest()


def settings_of(run: Path) -> str:
    """The hash of what the run's recipe says."""
    with reading_errors(str(run / RECIPE), RunError, remedy=OTHER):
        return settings_mark(read_yaml(run / RECIPE))


def settings_mark(plain: object) -> str:
    """A hash of what a recipe says, but for what may change while a run is not finished."""
    if not isinstance(plain, dict):
        raise ValueError("it holds no settings")
    for section, names in MOVABLE.items():
        if names is None:
            plain.pop(section, None)
        elif isinstance(plain.get(section), dict):
            plain[section] = {k: v for k, v in plain[section].items() if k not in names}
    told = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _fingerprint(divided: Divided, ready: TrainingPlan) -> str:
    lot, general = ready.prepared.added, ready.prepared.general
    beside = (*((lot.table,) if lot else ()), *(general.tables if general else ()))
    return rows_digest((*divided.tables, *beside))


def rows_digest(tables: Sequence[Table]) -> str:
    """A hash of every value of these tables."""
    digest = hashlib.blake2b(digest_size=16)
    for table in tables:
        for name in sorted(table.rows.column_names):
            for value in table.column(name):
                digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


class RunFolder:
    """The folder of one run while it is made; ``fit`` asks it to ``begin``.

    ``opened_before`` is when an earlier, unfinished scoring of this run opened the test rows, if
    one did. On leaving, trackers are closed, also those of a run that broke.
    """

    def __init__(self, to: Destination, divided: Divided) -> None:
        self._to = to
        self._divided = divided
        self._tracks: tuple[TrackerListener, ...] = ()
        self.opened_before: str | None = None

    @property
    def run(self) -> Path:
        """The folder itself."""
        return self._to.run

    @property
    def kept_in(self) -> Path:
        """What goes when the run is finished lies here."""
        return self._to.run / CHECKPOINTS

    def begin(self, ready: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Write down what the run begins with, or compare it with what it began with.

        Raises ``RunError`` where a run that is continued began with other rows or settings.
        """
        to, writes = self._to, accelerator.is_main_process
        show_outline(outline_model(ready))
        begun = remember(to, ready, self._divided) if writes else None
        accelerator.wait_for_everyone()
        if begun is None:
            # A process that is not the first writes nothing and gives no reasons.
            begun = RunStart(_fingerprint(self._divided, ready), settings_of(to.run), (), ())
        listeners = self._listeners(ready.recipe) if writes else ()
        journal = Journal(to.run if writes else None)
        # The loop takes the journal back to its last checkpoint, which may be before that.
        opened = [line for line in journal.lines() if line.get("what") == OPENED]
        self.opened_before = str(opened[-1]["at"]) if opened else None
        return FitPlace(
            journal=journal,
            store=CheckpointStore(
                self.kept_in,
                to.every_s,
                begun.mark,
                asdict(begun) if writes else {},
                part_of(ready.recipe, accelerator),
            ),
            kept_in=self.kept_in,
            resume=to.resume,
            decisions=[Decision(**decision) for decision in begun.decisions],
            listeners=listeners,
            begun=begun,
            test_rows=len(self._divided.splits.test),
        )

    def send_score(self, fitted: FittedModel, scored: ScoringResult) -> None:
        """The honest score, beside the curves that led to it."""
        for track in self._tracks:
            track.log_test_metrics(fitted.trained.last_step, scored.blocks["test"]["metrics"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for track in self._tracks:
            track.close()

    def _listeners(self, recipe: Recipe) -> tuple[Any, ...]:
        """Who is told of the run: by alerts, and by the trackers that ``track.to`` names."""
        run, alert, track = self._to.run, recipe.alert, recipe.track
        if track.to:
            mark, name = run / CHECKPOINTS / MARK_FILE, track.name or run.resolve().name
            opened = open_trackers(track.to, track.project, name, run, mark, recipe.public_settings())
            self._tracks = (opened,)
        if not (alert.command or alert.webhook):
            return self._tracks
        return (Alerts(alert.on, alert.command, alert.webhook, run.name), *self._tracks)


@dataclass(frozen=True, slots=True)
class RowsOutline:
    """The rows and their division. ``answers`` is what a row is answered with: ``2 classes``,
    ``5 labels``, ``a number``; empty where the answer is a text. ``dropped`` rows are used nowhere,
    most of them because of ``why_dropped``; ``moved`` ones stand beside their copies or group.
    ``folded``: all but the test rows are dealt into folds, and no side is one for good."""

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
    """The model and the plan. ``rows_a_step`` are those of the last phase, ``epochs`` the passes
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
    """What is outlined inside goes to ``listener``, a part as soon as it stands."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def show_outline(part: Outline) -> None:
    """Hand a part to whoever listens."""
    _LISTENER.get()(part)


def outline_rows(divided: Divided, folded: bool = False) -> RowsOutline:
    """Of rows that were loaded and divided, or are to be ``folded``."""
    table, splits = divided.table, divided.splits
    gone = Counter(
        note or ""
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
        answers=_answers(divided),
        group=table.columns.group,
        train=len(splits.train),
        valid=len(splits.valid),
        test=len(splits.test),
        moved=splits.moved,
        dropped=sum(gone.values()),
        why_dropped=max(gone, key=lambda note: gone[note], default=""),
        folded=folded,
    )


def outline_model(ready: TrainingPlan) -> ModelOutline:
    """Of a model that is loaded and a plan that stands."""
    total, learning = count_parameters(ready.loaded.network)
    phases, name = ready.plan.phases, str(ready.recipe.model.name)
    passes = sum(_passes(phase, len(ready.train)) for phase in phases)
    return ModelOutline(
        name=Path(name).name if Path(name).is_dir() else name,
        task=str(ready.recipe.task),
        parameters=total,
        learning=learning,
        steps=ready.plan.steps,
        phases=len(phases),
        rows_a_step=phases[-1].rows_per_step,
        epochs=passes,
        looks=len(ready.plan.evaluate_at),
    )


def _passes(phase: Phase, rows: int) -> float:
    """Passes over the training rows: the last batch of one is partial, but a source without
    epochs has none."""
    if not phase.source.has_epochs:
        return phase.steps * phase.rows_per_step / max(1, rows)
    return phase.steps / max(1, math.ceil(rows / phase.rows_per_step))


def _answers(divided: Divided) -> str:
    table = divided.table
    if table.columns.label_kind == "number":
        return "a number"
    if table.names:
        return f"{len(table.names)} labels"
    return f"{len(table.classes)} classes" if len(table.classes) > 1 else ""
