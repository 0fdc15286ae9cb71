"""From finished runs to the recipe of their student: ``holdfast distill``.

The student learns from the first run's rows, on the run's split: training, validation and test rows
stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.inference import run_recipe
from holdfast.contract.predictions import SplitName
from holdfast.contract.run_folder import MODEL, open_run
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.packaged_models import EMBEDDED
from holdfast.fits.lessons import check_teachers, refuse_unlabelled
from holdfast.models.depth import stated_depth
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.models.loading.source import read_config
from holdfast.prepare.model import refuse_static
from holdfast.recipe import Recipe, as_settings, override, resolve_paths
from holdfast.recipe.parts import DistillPart, ModelPart, TrainPart
from holdfast.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    from collections.abc import Mapping


COMMAND = "holdfast distill"
STATIC = "static"
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")


def student_recipe(
    runs: Sequence[Path],
    *,
    student: str | None = None,
    layers: int | None = None,
    to: str | None = None,
    unlabelled: str | None = None,
    seed: int | None = None,
    settings: Mapping[str, object] | Sequence[str] = (),
) -> Recipe:
    """The recipe of a student of these finished runs.

    ``student`` is a model by name or folder; without it the student is the first run's own network
    with ``layers`` of its blocks, by default half of them. With ``to="static"`` it is a static
    classifier with the token vectors of that model and ``layers`` new blocks. ``settings`` override
    all of that.

    Raises ``RunError`` if a run is unfinished or its rows have changed since, ``RecipeError`` for
    an impossible student or unlabelled file.
    """
    if student is not None and layers is not None and to is None:
        rule = "exclude each other: a student is another model, or some blocks of its teacher"
        raise RecipeError("--student and --layers", rule, None, "Remove one of them.")
    if to not in (None, STATIC):
        raise RecipeError("--to", "is unknown", to, f"Use --to {STATIC}.")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int)):
        raise RecipeError("--layers", "must be a whole number", layers, "Give one, or remove it.")
    least, has = (0, "attention blocks of") if to else (1, "the teacher's layers kept by")
    if layers is not None and layers < least:
        rule = f"must be at least {least}, the number of {has} the student"
        raise RecipeError("--layers", rule, layers, "Remove it for the default number.")
    first_run = runs[0]
    for run in runs:
        open_run(run)
    recipe = run_recipe(first_run)
    check_teachers(runs, recipe)
    model = _student_model(first_run, recipe, student, layers, static=to is not None)
    finished = FinishedRun(first_run)
    for split in SPLITS:
        # Refuses rows that are not there as they were.
        finished.table(split)
    student_config = _student_recipe(
        runs, recipe, model, unlabelled, recipe.seed if seed is None else seed
    )
    requested = student_config.model
    student_config = resolve_paths(override(student_config, as_settings(settings)), Path())
    _refuse_contradictions(requested, student_config.model, layers is not None)
    if not student_config.distill.teacher:
        rule = "is empty, but a student needs a teacher"
        raise RecipeError("distill.teacher", rule, None, "Remove it.")
    refuse_unlabelled(student_config)
    refuse_static(student_config, student_config.data.label_kind)
    if student_config.data.test is None and not finished.n_test:
        raise RunError(
            str(first_run),
            "has no test rows, and a student is tested on those of its teacher",
            None,
            "Use a teacher that has test rows, or name a file of them: --set data.test=FILE.",
        )
    return student_config


def _refuse_contradictions(requested: ModelPart, found: ModelPart, has_layers: bool) -> None:
    """Refuse settings that say of the student what its options say otherwise."""
    keys = {"static": f"--to {STATIC}", **({"layers": "--layers"} if has_layers else {})}
    for key, option in keys.items():
        value = getattr(found, key)
        if value != getattr(requested, key):
            rule = f"contradicts {option}" if getattr(requested, key) else f"is set by {option}"
            raise RecipeError(f"model.{key}", rule, value, f"Remove it, or change {option}.")


def _student_recipe(
    runs: Sequence[Path], recipe: Recipe, model: ModelPart, unlabelled: str | None, seed: int
) -> Recipe:
    """The recipe of a student before any settings: the first run's rows, with its split."""
    split = recipe.data.split
    split_seed = recipe.seed if split.seed is None else split.seed
    data: dict[str, Any] = {
        **recipe.data.model_dump(),
        "split": {**split.model_dump(), "seed": split_seed},
        "unlabelled": unlabelled or recipe.data.unlabelled,
        "unlabelled_by": None,
    }
    distill = DistillPart(teacher=tuple(str(run.resolve()) for run in runs))
    # The rest is how the teacher itself was made: by which search, in how many folds.
    inherited = recipe.model_dump(include={"task", "generate", "audit", "alert", "enrich", "treat"})
    return Recipe.model_validate(
        inherited
        | {
            "seed": seed,
            "data": data,
            "model": model.model_dump(),
            "train": TrainPart(metric=recipe.train.metric).model_dump(),
            "distill": distill.model_dump(),
            # A teacher knew its rows, so that its student has them right from the start, which the
            # guard takes for memorizing: it would end the run before anything was taught.
            "control": {**recipe.control.model_dump(), "policy": "off"},
            "probes": {**recipe.probes.model_dump(), "canaries": None},
        }
    )


def _student_model(
    run: Path, recipe: Recipe, student: str | None, layers: int | None, *, static: bool
) -> ModelPart:
    """The model named ``student``, or the run's own network with fewer blocks; or the static one
    with its token vectors."""
    if student is not None:
        return ModelPart(name=student, static=static, layers=layers)
    folder = run / MODEL
    if is_adapter_folder(folder):
        raise RecipeError(
            f"--to {STATIC}" if static else "--layers",
            f"cannot use {run}: it is an adapter, saved without its base model",
            None,
            "Name a --student, or train the teacher with --set model.adapter.merge=true.",
        )
    copied_keys = ("pooling", "max_length", "max_target_length")
    copied = {key: getattr(recipe.model, key) for key in copied_keys}
    if static:
        own = {"name": str(folder.resolve()), "static": True, "layers": layers}
        return ModelPart.model_validate(copied | own)
    teacher_blocks = stated_depth(read_config(str(run), folder))
    if teacher_blocks == 0:
        rule = "must be given: the teacher is a static model, which has no blocks to keep"
        raise RecipeError("--student", rule, None, f"{COMMAND} {run} --student {EMBEDDED}")
    if layers is None:
        if teacher_blocks is None:
            rule = "must be given: the teacher's number of blocks is unknown"
            raise RecipeError("--student or --layers", rule, None, f"{COMMAND} {run} --layers 3")
        layers = max(1, teacher_blocks // 2)
    return ModelPart.model_validate(copied | {"name": str(folder.resolve()), "layers": layers})


def folder_name(runs: Sequence[Path]) -> str:
    """The name on which a default folder is based."""
    return f"{runs[0].resolve().name}-distilled"
