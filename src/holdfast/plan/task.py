"""The task of a recipe: as stated, or inferred from the rows and the model, with a reason."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.discovery import path_exists
from holdfast.core.errors import RecipeError
from holdfast.core.packaged_models import EMBEDDED, SMOLLM2
from holdfast.core.records import Decision
from holdfast.core.tasks import GENERATIVE_TASKS, TASKS
from holdfast.data.chats.chat import is_text_file
from holdfast.data.chats.turns import is_template
from holdfast.data.columns.shape import RowsShape, detect_shape
from holdfast.data.images.decode import is_image_name
from holdfast.data.images.folders import is_image_folder
from holdfast.data.images.table import SAMPLED_ROWS, holds_paths
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import read_first_batch
from holdfast.data.tags.conll import has_conll_content, is_conll_file
from holdfast.models.loading.card import Purpose, purpose_of
from holdfast.recipe import DataPart, Recipe
from holdfast.recipe.parts import AUTO_MODEL

TASK_OF_ROWS: dict[str, str] = {one.rows: name for name, one in TASKS.items() if one.rows}
CLASSES, PAIRS, WRITING, PICTURES = (
    TASK_OF_ROWS[form] for form in ("classes", "pair", "text", "pictures")
)
GENERATIVE_TASK_OF: dict[Purpose, str] = {"encoder-decoder": PAIRS, "decoder": WRITING}
SUITABLE_MODELS = {
    PAIRS: "--model google/flan-t5-small (or t5-small, facebook/bart-base, a folder), or --model "
    f"{SMOLLM2}, which reads a pair as prompt and answer",
    WRITING: f"--model {SMOLLM2} (or HuggingFaceTB/SmolLM2-360M, Qwen/Qwen2.5-0.5B, a folder)",
}


def resolve_task(recipe: Recipe) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its task, and the reason where the recipe does not state it.

    The rows decide. A model that supports only one task decides between those that the rows allow
    (a decoder reads a source and its target as prompt and answer). In doubt: text classification.
    The embedded language model is SmolLM2.

    Raises ``RecipeError`` where the rows need a generative model and the model is an encoder.
    """
    if recipe.task is not None:
        return _with_model(recipe, recipe.task), ()
    if is_image_folder(str(recipe.data.path)):
        return _with_decided_task(
            recipe, PICTURES, "the source is a folder with one subfolder of images per class"
        )
    purpose = purpose_of(recipe.model.name_or_embedded, recipe.model.revision)
    if purpose == "pictures":
        return _with_decided_task(recipe, PICTURES, f"{recipe.model.name} is an image model")
    is_open = recipe.model.name in (AUTO_MODEL, EMBEDDED)
    if is_open and (column := column_of_images(recipe.data)) is not None:
        return _with_decided_task(recipe, PICTURES, f"{column!r} holds paths of image files")
    shape = _shape(recipe.data)
    task, because = _task(shape, purpose)
    resolved = _with_model(_with_named_columns(recipe, shape, task), task)
    if task in GENERATIVE_TASKS and purpose == "encoder" and resolved.model.name != SMOLLM2:
        raise _not_generative_error(recipe.model.name_or_embedded, task, because)
    return _with_decided_task(resolved, task, because)


def resolve_task_from_rows(recipe: Recipe) -> tuple[Recipe, tuple[Decision, ...]]:
    """As ``resolve_task``, but without a model: the form of the rows decides, and a default model
    that cannot generate text does not lead to an error."""
    if recipe.task is not None:
        return recipe, ()
    if is_image_folder(str(recipe.data.path)):
        return resolve_task(recipe)
    if purpose_of(recipe.model.name_or_embedded, recipe.model.revision) != "encoder":
        return resolve_task(recipe)
    if column_of_images(recipe.data) is not None:
        return resolve_task(recipe)
    shape = _shape(recipe.data)
    task, because = _task(shape, None)
    return _with_decided_task(_with_named_columns(recipe, shape, task), task, because)


def column_of_images(data: DataPart) -> str | None:
    """The column whose values are paths of image files below the table's folder; ``None`` where a
    setting or another column is of texts."""
    path = source_path(str(data.path))
    if data.label_kind or data.template or data.target or data.messages:
        return None
    if not path.is_file() or is_text_file(str(path)) or is_conll_file(str(path)):
        return None
    if has_conll_content(str(path), data.encoding):
        return None
    raw = read_first_batch(str(path), data.encoding, data.config)
    names = [name for name in data.text or raw.names if name in raw.names]
    paths = [name for name in names if holds_paths(raw, name)]
    texts = any(" " in str(value or "").strip() for name in names for value in _first(raw, name))
    if len(paths) != 1 or texts:
        return None
    first = next(value for value in _first(raw, paths[0]) if value and is_image_name(value))
    return paths[0] if path_exists(path.parent / first.strip()) else None


def _first(raw: Raw, name: str) -> list[str | None]:
    values: list[str | None] = raw.table[name].slice(0, SAMPLED_ROWS).to_pylist()
    return values


def _shape(data: DataPart) -> RowsShape:
    """The form of the rows, from the rows and the columns that the recipe names."""
    if data.label_kind is not None:
        return RowsShape("classes", f"data.label_kind is {data.label_kind}")
    if data.template is not None and is_template(data.template):
        return RowsShape("chat", "data.template is a chat template")
    if data.messages is not None:
        return RowsShape("chat", f"data.messages names a column of chats: {data.messages}")
    if is_conll_file(str(data.path)) or has_conll_content(str(data.path), data.encoding):
        return RowsShape("tags", f"{Path(str(data.path)).name} holds one word and its tag per line")
    if is_text_file(str(data.path)):
        return RowsShape("text", f"{Path(str(data.path)).name} is a file of plain text")
    if data.target is not None:
        return RowsShape("pair", f"data.target names a column of target texts: {data.target}")
    raw = read_first_batch(str(data.path), data.encoding, data.config)
    if data.template is not None and data.label is None:
        return RowsShape("classes", "a template by itself does not imply another task")
    return detect_shape(raw, text=data.text, label=data.label)


def _task(shape: RowsShape, purpose: Purpose | None) -> tuple[str, str]:
    task, because = TASK_OF_ROWS.get(shape.form, WRITING), shape.because
    if task == PAIRS and purpose == "decoder":
        return WRITING, f"{because}; the model is a decoder, which reads them as prompt and answer"
    if shape.form in ("instruction", "prompt") and purpose == "encoder-decoder":
        return PAIRS, f"{because}; the model is an encoder-decoder, which reads them as a pair"
    if task == CLASSES and purpose in GENERATIVE_TASK_OF:
        return (
            task,
            f"{because}; to generate texts instead, use --set task={GENERATIVE_TASK_OF[purpose]}",
        )
    return task, because


def _with_named_columns(recipe: Recipe, shape: RowsShape, task: str) -> Recipe:
    """A decoder's reader has other usual names than the reader of pairs, so name the columns."""
    data = recipe.data
    if task != WRITING or shape.form != "pair" or data.text or data.template or data.target:
        return recipe
    return recipe.with_changes(data={"text": shape.text, "label": shape.target})


def _with_model(recipe: Recipe, task: str) -> Recipe:
    """The recipe with SmolLM2 as the language model that it leaves open, or calls ``embedded``."""
    if task != WRITING or recipe.model.name not in (AUTO_MODEL, EMBEDDED):
        return recipe
    return recipe.with_changes(model={"name": SMOLLM2})


def _with_decided_task(
    recipe: Recipe, task: str, because: str
) -> tuple[Recipe, tuple[Decision, ...]]:
    resolved = recipe.model_copy(update={"task": task})
    return resolved, (Decision("task", task, f"{because} (--set task=NAME chooses another)"),)


def _not_generative_error(name: str, task: str, because: str) -> RecipeError:
    return RecipeError(
        "model.name",
        f"is an encoder, which cannot generate text, but the inferred task is {task}: {because}",
        name,
        f"Name a generative model: {SUITABLE_MODELS[task]}. If the rows have classes, name their "
        "column: --task text-classification --label COLUMN.",
    )
