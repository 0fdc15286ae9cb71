"""``holdfast.train``, ``distill``, ``lr``, ``audit`` and others: the commands as functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.api.arguments import (
    RowArguments,
    Settings,
    as_file,
    check_number,
    file_of,
    name_or_none,
    naming_rows,
    options_of,
    rows_name,
)
from holdfast.api.command_result import CommandResult
from holdfast.api.trained_run import TrainedRun, run_folder
from holdfast.contract.advice import in_python

if TYPE_CHECKING:
    from holdfast.analyses.audit.audit import Audit
    from holdfast.analyses.compare.compare import Comparison
    from holdfast.analyses.explain.explanation import Explanation
    from holdfast.contract.request import TrainingRequest
    from holdfast.core.records import Decision, Finding
    from holdfast.recipe import Recipe
    from holdfast.search.choice.models import Choice
    from holdfast.search.rate_range import RateRange


def _trained(request: TrainingRequest, recipe: Recipe, *, quiet: bool, **how: Any) -> TrainedRun:
    """The finished run; its summary is printed below its progress."""
    from holdfast.contract.run_folder import is_main_process
    from holdfast.terminal.summary import show_summary
    from holdfast.terminal.watch import train_with_progress

    if quiet and request.resume and request.out is not None:
        _warn_unused(request.out, request, recipe)
    result, folder = train_with_progress(request, recipe, quiet=quiet, **how)
    if not quiet and is_main_process():
        show_summary(result, folder)
    return TrainedRun(folder)


def _warn_unused(run: Path, request: TrainingRequest, recipe: Recipe) -> None:
    """Say which options and settings a resumed run ignores, where its messages are not printed."""
    import warnings

    from holdfast.runs.start import unused_settings

    if unused := unused_settings(run, recipe, request):
        text = f"{run} resumes with the settings it began with. Ignored: {'; '.join(unused)}"
        warnings.warn(text, stacklevel=4)


@in_python()
def train(
    source: Any,
    labels: Any = None,
    *,
    out: str | Path | None = None,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    quiet: bool = False,
) -> TrainedRun:
    """Train as ``holdfast train`` does, and return the finished run.

    Parameters
    ----------
    source : a recipe, a data file, or a hub data set, by its name; or rows in memory: a data frame
        of pandas or Polars, an Arrow table, a ``datasets.Dataset``, a dictionary of columns, a list
        of dictionaries, or a list of texts (or of pairs) with their ``labels``. Rows in memory are
        stored as ``data.parquet`` in the run's folder.
    labels, groups : for texts in memory, one each; rows of one group stay in one split.
    test : test rows: a file, or rows in memory like ``source``.
    settings : recipe keys to values, ``{"train.epochs": 5}``, or ``["train.epochs=5"]`` as for
        ``--set``.
    quiet : print no progress and no summary; warnings are still issued.

    Others as the options of the command. Raises ``holdfast.InputError`` where the
    command would exit with 2. May be called as often as you like in one process.
    """
    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(model, task, seed, settings, out, resume)
    return _trained(request, request.recipe(), quiet=quiet)


@in_python()
def dry_run(
    source: Any,
    labels: Any = None,
    *,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    quiet: bool = True,
) -> CommandResult:
    """The plan of ``holdfast train --dry-run``: the split, findings and decisions, the trainable
    parameters, memory and time, from a few timed steps on the longest rows. Nothing is written. A
    notebook shows the plan as a text. Parameters and errors as for ``train``."""
    from functools import partial

    from holdfast.core.decisions import decisions_to
    from holdfast.pipeline.preview import preview
    from holdfast.search.context import run_environment
    from holdfast.search.learner import dry_run_plan
    from holdfast.terminal.messages import MessagePrinter
    from holdfast.terminal.results.plan import folds_text, plan_text
    from holdfast.terminal.watch import recipe_cross_validation

    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(model, task, seed, settings)
    recipe = request.recipe()
    folds = recipe_cross_validation(recipe)
    with (
        decisions_to(MessagePrinter(quiet, verbose=True)),
        run_environment(recipe, request.in_memory) as recipe,
    ):
        if folds is not None:
            return CommandResult(dry_run_plan(folds, recipe), folds_text)
        return CommandResult(preview(recipe), partial(plan_text, with_findings=True))


@in_python()
def cv(
    source: Any,
    labels: Any = None,
    *,
    folds: int | None = None,
    repeats: int | None = None,
    nested: bool = False,
    learning_curve: bool = False,
    engine: str = "local",
    address: str | None = None,
    out: str | Path | None = None,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    quiet: bool = False,
) -> TrainedRun:
    """Cross-validate as ``holdfast cv`` does, and return the finished run. ``result["cv"]`` holds
    the folds and the metrics with their confidence intervals.

    Parameters
    ----------
    folds, repeats : the number of folds (default 5) and of repetitions with other random folds
        (default 1).
    nested : whether inner folds choose the steps and the checkpoint of each fold.
    learning_curve : whether the folds are also trained on a quarter and half of their rows, to tell
        what twice the rows would bring.
    engine, address : ``local``, or ``ray`` with the address of its cluster.

    Others as for ``train``.
    """
    from holdfast.search.folds.cross_validation import cross_validation_of

    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(model, task, seed, settings, out, resume)
    recipe = request.recipe()
    procedure = cross_validation_of(recipe, folds, repeats, nested, learning_curve, engine, address)
    return _trained(request, recipe, quiet=quiet, procedure=procedure)


@in_python()
def tune(
    source: Any,
    labels: Any = None,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    study: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    out: str | Path | None = None,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    quiet: bool = False,
) -> TrainedRun:
    """Search hyperparameters as ``holdfast tune`` does, and return the finished run;
    ``run.result["study"]`` holds the trials.

    Parameters
    ----------
    trials, minutes : limits of the search; default: 16 trials.
    study : a file or database URL that stores the trials; default: a file in the run's folder.
    engine, address : ``local``, or ``ray`` on the cluster at ``address``.
    settings : as for ``train``; a range instead of a value searches the key:
        ``{"train.learning_rate": {"range": [1e-5, 5e-4], "log": True}}``,
        ``{"train.optimizer": {"choices": ["adamw", "sgd"]}}``. The keys of ``search`` (such as
        ``search.sampler``) set how.

    Others as for ``train``. Raises ``holdfast.InputError`` where the command would exit
    with 2.
    """
    from holdfast.search.tune import tune_request

    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(model, task, seed, settings, out, resume)
    request, recipe, procedure = tune_request(
        request,
        trials=trials,
        minutes=minutes,
        study=name_or_none(study),
        engine=engine,
        address=address,
    )
    return _trained(request, recipe, quiet=quiet, procedure=procedure)


@in_python()
def lr(
    source: Any,
    labels: Any = None,
    *,
    model: str | Path | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    quiet: bool = True,
) -> RateRange:
    """Run the learning-rate range test of ``holdfast lr``: ``suggested`` is a learning rate, or
    ``None`` if the curve suggests none; ``because`` gives the reason. Parameters and errors as for
    ``train``; nothing is written."""
    from holdfast.core.decisions import decisions_to
    from holdfast.search.rate_range import range_test
    from holdfast.terminal.messages import MessagePrinter

    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(model, task, seed, settings)
    with decisions_to(MessagePrinter(quiet, verbose=False)):
        return range_test(request.recipe(), request.in_memory)


@in_python()
def choose(
    source: Any,
    labels: Any = None,
    *,
    models: str | Path | Sequence[str | Path] | None = None,
    task: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    test: Any = None,
    seed: int | None = None,
    settings: Settings = (),
    adapt: str | Path | None = None,
    extend: int = 0,
    out: str | Path | None = None,
    quiet: bool = True,
) -> Choice:
    """Compare base models as ``holdfast choose`` does: ``chosen`` is the model to fine-tune on
    these rows, ``because`` the reason, and ``candidates`` the measured evidence of each.

    Parameters
    ----------
    models : names or folders; without any, the encoders of texts on this machine. Those that do not
        fit the rows are in ``left_out``.
    adapt : a file of unlabelled texts, to pretrain the chosen model on.
    extend : how many words of the rows may be added to its vocabulary.
    out : the folder of the adapted model, if validation rows show that it is better.

    The other parameters and the errors as for ``train``. Nothing else is written, and the test rows
    are not used.
    """
    from holdfast.core.decisions import decisions_to
    from holdfast.search.choice.adaptation import adaptation_options
    from holdfast.search.choice.models import choose_model
    from holdfast.terminal.messages import MessagePrinter

    rows = RowArguments(source, labels, groups, test, text, label, group)
    request = rows.request(None, task, seed, settings)
    listed = [models] if isinstance(models, (str, Path)) else models
    named = None if listed is None else list(map(str, listed))
    adapting = adaptation_options(adapt, extend, out)
    with decisions_to(MessagePrinter(quiet, verbose=False)):
        return choose_model(request.recipe(), named, request.in_memory, adapting)


@in_python()
def distill(
    runs: str | Path | TrainedRun | Sequence[str | Path | TrainedRun],
    *,
    student: str | Path | None = None,
    layers: int | None = None,
    to: str | None = None,
    unlabelled: Any = None,
    out: str | Path | None = None,
    seed: int | None = None,
    settings: Settings = (),
    resume: bool = False,
    quiet: bool = False,
) -> TrainedRun:
    """Distil as ``holdfast distill`` does, and return the student's finished run;
    ``run.result["distilled"]`` compares it with its teachers.

    Parameters
    ----------
    runs : the teacher, a finished run; several are averaged.
    student : a model by name or folder; default: ``layers`` layers of the teacher (default: half of
        them).
    to : ``"static"``: token vectors and ``layers`` new blocks (1), for speed.
    unlabelled : unlabelled texts, whose labels the teacher predicts: a file, a data frame or a
        list.

    Others as for ``train``. Raises ``holdfast.InputError`` where the command would exit
    with 2.
    """
    from holdfast.contract.request import TrainingRequest
    from holdfast.core.errors import RecipeError
    from holdfast.data.memory.texts import unlabelled_rows
    from holdfast.search.student import folder_name, student_recipe

    given: Any = [runs] if isinstance(runs, (str, Path, TrainedRun)) else runs
    if not isinstance(given, Iterable):
        rule, remedy = "must be a finished run or a list of them", "Give its folder."
        raise RecipeError("runs", rule, type(runs).__name__, remedy)
    paths = [run_folder(one) for one in given]
    if not paths:
        raise RecipeError("runs", "is empty", None, "Give the folder of a finished run.")
    held = unlabelled is not None and not isinstance(unlabelled, (str, Path))
    recipe = student_recipe(
        paths,
        student=name_or_none(student),
        layers=layers,
        to=to,
        unlabelled="unlabelled.parquet" if held else name_or_none(unlabelled),
        seed=seed,
        settings=settings,
    )
    in_memory = {}
    if held:
        in_memory["unlabelled"] = unlabelled_rows(unlabelled, names=recipe.data.text or ())
    request = TrainingRequest(
        folder_name(paths), out=Path(out) if out else None, resume=resume, in_memory=in_memory
    )
    return _trained(request, recipe, quiet=quiet, command="distill")


@in_python()
def probe(
    model: str | Path | TrainedRun,
    *,
    members: str | Path | None = None,
    others: str | Path | None = None,
    start: str | Path | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    encoding: str | None = None,
    notify: Callable[[Decision | Finding], None] = lambda _: None,
) -> CommandResult:
    """Test as ``holdfast probe`` does, and return the document of ``--json``: ``memorization`` and
    ``forgetting`` of a finished run; or ``memorization`` of any saved ``model``, from the rows of
    the file ``members``, which it was trained on, and of ``others``, which it was not trained on. A
    notebook shows what the command prints.

    ``start`` is the base model of a generative model. Raises ``RecipeError`` if only one of the
    files is given, ``RunError`` or ``ModelError`` if ``model`` is not a run or a model, and
    ``DataError`` for rows that cannot be read.
    """
    from holdfast.analyses.memory.analysis import Files, is_run, probe_model, probe_run
    from holdfast.contract.run_folder import model_of
    from holdfast.core.decisions import decisions_to
    from holdfast.core.errors import RecipeError
    from holdfast.terminal.results.probe import probe_text

    folder = run_folder(model)
    if (members is None) != (others is None):
        rule = "needs both members and others"
        remedy = "Give rows that the model was trained on, and rows that it was not trained on."
        raise RecipeError("probe", rule, None, remedy)
    with decisions_to(notify):
        if members is None or others is None:
            return CommandResult(probe_run(folder), probe_text)
        if is_run(str(folder)):
            folder = model_of(folder)
        columns = (text,) if isinstance(text, str) else tuple(text or ()) or None
        base_model = name_or_none(start)
        files = Files(str(members), str(others), columns, label, encoding, base_model)
        return CommandResult(probe_model(str(folder), files), probe_text)


@in_python()
def audit(
    data: Any,
    labels: Any = None,
    *,
    against: Any = (),
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    groups: Any = None,
    settings: Settings = (),
    quiet: bool = True,
) -> Audit:
    """Check a data set as ``holdfast audit`` does, and return the findings, which a notebook shows.

    Parameters
    ----------
    data : a data file, a folder of images, a hub data set, a recipe or a run, by its name; or
        rows in memory, as for ``train``. Texts may come without ``labels``.
    labels, groups : for texts in memory, one each.
    against : rows that ``data`` must not contain: a file, rows in memory like ``data``, or a list
        of these.
    settings : recipe keys to values, ``{"audit.rows": 0}``, or ``["audit.rows=0"]``.
    quiet : no progress on standard error.

    Others as the options of the command. Raises ``holdfast.InputError`` where the
    command would exit with 2.
    """
    from holdfast.analyses.audit.audit import AuditRequest
    from holdfast.recipe import as_settings
    from holdfast.terminal.watch import audit_with_progress

    columns = [text] if isinstance(text, str) else list(text or [])
    names: dict[str, str] = {}
    if labels is not None or groups is not None:
        columns = columns or ["text"]
        group = group or ("group" if groups is not None else None)
    if labels is not None:
        label = label or "label"
    source = as_file(data, labels, groups, "the rows", names)
    # A list of dictionaries is a table.
    listed = isinstance(against, (list, tuple)) and not any(
        isinstance(one, Mapping) for one in against
    )
    several = list(against) if listed else [against]
    others = [
        as_file(one, None, None, f"against {place}", names) for place, one in enumerate(several, 1)
    ]
    request = AuditRequest(
        source, tuple(others), columns or None, label, group, tuple(as_settings(settings)), names
    )
    with naming_rows(names):
        return audit_with_progress(request, quiet=quiet)


@in_python()
def compare(
    a: str | Path | TrainedRun,
    b: str | Path | TrainedRun,
    data: Any = None,
    *,
    margin: float = 1.0,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    encoding: str | None = None,
) -> Comparison:
    """Test whether ``a`` is better than ``b`` on the same rows, as ``holdfast compare`` does.

    Parameters
    ----------
    a, b : a run (its folder or a ``TrainedRun``), the folder of a model, or a file of predictions.
    data : labelled rows: a file or a data frame; default: the test rows that both runs share.
    margin : the largest difference that does not matter, in percentage points.

    Others as the options of the command. ``to_json()`` of the result is what ``--json`` prints.
    Raises ``holdfast.InputError`` where the command would exit with 2.
    """
    from holdfast.analyses.compare.compare import compare as compared

    check_number("margin", margin)
    first, second = (str(run_folder(one)) for one in (a, b))
    options = options_of(text, label, encoding, ())
    with contextlib.nullcontext() if data is None else file_of(data) as rows:
        return compared(first, second, rows, margin=margin, options=options)


@in_python()
def fairness(
    run: str | Path | TrainedRun,
    groups: str | Sequence[str] = (),
    *,
    terms: str | Path | None = None,
    rows: int | None = None,
    insert: bool = False,
    against: str | Path | TrainedRun | None = None,
) -> CommandResult:
    """The document of ``holdfast fairness --json``: the predictions of a finished run compared
    between groups of rows, and between texts in which a term for a group of people is swapped.

    Parameters
    ----------
    run : a finished run.
    groups : columns of the source that define groups.
    terms, rows, insert, against : as the options of the command.

    Without any of these options, the stored result of the run is returned. A notebook shows what
    the command prints.
    """
    from holdfast.analyses.fairness.analysis import FairnessRequest, fairness_document
    from holdfast.core.errors import RecipeError
    from holdfast.terminal.results.fairness import fairness_text

    check_number("rows", rows, whole=True)
    if rows is not None and rows < 0:
        raise RecipeError("rows", "must be 0 or more", rows, "0 skips the test of swapped terms.")
    columns = (groups,) if isinstance(groups, str) else tuple(groups)
    terms_path = None if terms is None else str(Path(terms).absolute())
    request = FairnessRequest(columns, terms_path, rows, insert)
    plain_run = None if against is None else run_folder(against)
    document = fairness_document(run_folder(run), request, plain_run)
    return CommandResult(document, fairness_text)


@in_python()
def threshold(
    run: str | Path | TrainedRun,
    *,
    precision: float | None = None,
    coverage: float | None = None,
    cost: str | Path | None = None,
    force: bool = False,
) -> CommandResult:
    """Choose the confidence below which a run makes no prediction, as ``holdfast threshold`` does,
    and store it. ``run`` is a folder or a ``TrainedRun``; give exactly one of ``precision``,
    ``coverage`` and ``cost``.

    Returns the document of ``--json``; a notebook shows what the command prints. If the rows cannot
    guarantee it (the command exits with 3), ``rule`` is ``None``, nothing is stored, and
    ``highest`` is the best possible guarantee. Raises ``holdfast.InputError`` where the command
    would exit with 2.
    """
    from holdfast.analyses.threshold.analysis import ThresholdRequest, set_threshold
    from holdfast.terminal.results.threshold import threshold_text

    check_number("precision", precision)
    check_number("coverage", coverage)
    folder = run_folder(run)
    request = ThresholdRequest(precision, coverage, name_or_none(cost))
    result = set_threshold(folder, request, force=force)
    if isinstance(run, TrainedRun):
        # The loaded model has no threshold yet; the next prediction loads it again.
        run.__dict__.pop("predictor", None)
    return CommandResult(result, threshold_text)


@in_python()
def explain(
    run: TrainedRun | str | Path,
    data: Any,
    *,
    rows: int = 50,
    text: str | Sequence[str] | None = None,
    encoding: str | None = None,
    settings: Settings = (),
) -> Explanation:
    """Explain predictions as ``holdfast explain`` does: how much each word (or square of an image)
    contributes to a prediction, and whether that is better than random words. A notebook shows the
    result.

    Parameters
    ----------
    run : a finished run.
    data : a file, by its name; a data frame; or a list of texts (of paths, for images; of texts
        or lists of words, for tags).
    rows : how many rows are explained, from the first on.

    Others as the options of the command. Raises ``holdfast.InputError`` where the
    command would exit with 2.
    """
    from dataclasses import replace

    from holdfast.analyses.explain.explain import explain as explained
    from holdfast.data.memory.frames import is_frame, series_values

    check_number("rows", rows, whole=True)
    folder = run_folder(run)
    filed = isinstance(data, (str, Path)) or is_frame(data)
    with file_of(data) if filed else contextlib.nullcontext(series_values(data)) as given:
        found = explained(folder, given, options_of(text, None, encoding, settings), rows=rows)
    return replace(found, source=rows_name(data))


@in_python()
def errors(
    run: str | Path | TrainedRun, *, robustness: bool = False, topics: bool = False
) -> CommandResult:
    """The document of ``holdfast errors --json``: ``slices`` found on validation rows and confirmed
    on test rows, ``confusions``, and ``hardest`` rows. A notebook shows what the command prints.

    ``robustness`` also predicts changed test rows, which uses the test rows again; ``topics``
    also searches for slices among clusters of embeddings. Raises
    ``holdfast.InputError`` where the command would exit with 2.
    """
    from holdfast.analyses.errors.analysis import errors as errors_of_run
    from holdfast.terminal.results.errors import errors_text

    folder = run_folder(run)
    return CommandResult(errors_of_run(folder, robust=robustness, topics=topics), errors_text)
