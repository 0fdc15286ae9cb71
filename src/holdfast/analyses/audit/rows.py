"""The rows of an audit, read as ``train`` would read them, but with fewer errors: an audit must
report what would stop a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from holdfast.analyses.audit.tokenized import is_tokenized, read_tokenized, silent_token_checks
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.core.tasks import (
    DECODER_TASKS,
    ENCODER_DECODER_TASKS,
    GENERATIVE_TASKS,
    IMAGE_TASKS,
    LABELLED_TEXT_TASKS,
    TAGGING_TASKS,
)
from holdfast.data.chats.chat import is_text_file, load_chats
from holdfast.data.columns.extra import refuse_changed_source
from holdfast.data.columns.profile import is_missing
from holdfast.data.images.table import load_images
from holdfast.data.labels.texts import load_labelled
from holdfast.data.load import load_table, read_unlabelled_texts, unlabelled_table
from holdfast.data.options import RowOptions
from holdfast.data.pairs import load_pairs
from holdfast.data.raw import source_path
from holdfast.data.source import read_source, refuse_missing
from holdfast.data.table import Table
from holdfast.data.tags.conll import has_conll_content, is_conll_file
from holdfast.plan.task import resolve_task_from_rows
from holdfast.prepare.given_files import given_files
from holdfast.quality.views import OtherColumns
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks import task_definition


@dataclass(frozen=True, slots=True)
class AuditRows:
    """The source, and the tables that it is compared with: ``splits`` are its own validation and
    test rows by name, ``against`` other files by the name that the user gave. ``other_columns`` are
    the other columns of each, the source's as ``source``; ``missing_columns`` says why a table has
    none. ``empty`` are the rows of the source without a text, which are in no table; ``unlabelled``
    are the texts of ``data.unlabelled``, else the rows of the source without a label, if any."""

    recipe: Recipe
    table: Table
    splits: Mapping[str, Table]
    against: Mapping[str, Table]
    other_columns: Mapping[str, OtherColumns]
    missing_columns: Mapping[str, str]
    empty: tuple[int, ...] = ()
    unlabelled: Table | None = None

    @property
    def other_tables(self) -> dict[str, Table]:
        """All tables except the source."""
        return {**self.splits, **self.against}


def read_rows(recipe: Recipe, against: Sequence[str], names: Mapping[str, str]) -> AuditRows:
    """Read the source and everything that it is compared with. ``names`` are the user's names of
    files that stand for rows in memory.

    Raises ``DataError`` for an unreadable source, ``RecipeError`` for a file compared with itself.
    """
    if recipe.data.path is None:
        raise RecipeError("data.path", "is missing", None, "Name the file with the rows.")
    _refuse_itself(str(recipe.data.path), against)
    data = recipe.data
    for source in (data.path, data.valid, data.test, data.unlabelled, *against):
        if source is not None:
            refuse_missing(source)
    if is_tokenized(str(data.path), data):
        return _tokenized(recipe, against, names)
    recipe, task_decisions = resolve_task_from_rows(recipe)
    notify(*task_decisions)
    table = _source(recipe)
    notify(*table.decisions)
    split_paths, decisions = given_files(recipe.data, recipe.task)
    notify(*decisions)
    splits = {name: _other(recipe, path, table) for name, path in split_paths.items()}
    against_tables = {
        names.get(path, path): _other(recipe, path, table) for path in dict.fromkeys(against)
    }
    paths = {"source": str(recipe.data.path), **split_paths}
    paths |= {names.get(path, path): path for path in against}
    other_columns, missing_columns = {}, {}
    for name, each in {"source": table, **splits, **against_tables}.items():
        other_columns[name], why = _other_columns(each, paths[name], recipe.data)
        if why:
            missing_columns[name] = why
    named = {name: replace(each, source=name) for name, each in against_tables.items()}
    empty = _empty(table, paths["source"], recipe.data)
    pool = _unlabelled(recipe, table, paths["source"], names)
    table = replace(table, source=names.get(paths["source"], table.source))
    return AuditRows(recipe, table, splits, named, other_columns, missing_columns, empty, pool)


def _tokenized(recipe: Recipe, against: Sequence[str], names: Mapping[str, str]) -> AuditRows:
    """The rows of a source of token ids, and others of the kind to compare them with."""
    data, model = recipe.data, recipe.model.name
    for key in ("text", "label", "target", "group", "template"):
        if (value := getattr(data, key)) is not None:
            rule = "does not apply to tokenised rows: their columns are input_ids, labels and "
            raise RecipeError(f"data.{key}", f"{rule}attention_mask", value, "Leave it out.")
    if recipe.task not in (None, *DECODER_TASKS):
        rule = f"must be {DECODER_TASKS[0]}: the rows hold token ids (input_ids)"
        raise RecipeError("task", rule, recipe.task, "Leave it out.")
    beginning: str | None = None

    def read(path: str) -> tuple[Table, int]:
        nonlocal beginning
        found, beginning, checked = read_tokenized(path, recipe, beginning)
        return replace(found, source=names.get(path, found.source)), checked

    recipe = recipe.model_copy(update={"task": DECODER_TASKS[0]})
    table, checked = read(str(data.path))
    because = f"they are token ids, decoded by the tokenizer of {model}"
    notify(
        *table.decisions,
        Decision("rows", "tokenised", because, prominent=True),
        silent_token_checks(table.findings, checked, len(table)),
    )
    paths, decisions = given_files(data, recipe.task)
    notify(*decisions)
    splits = {name: read(path)[0] for name, path in paths.items()}
    against_tables = {names.get(path, path): read(path)[0] for path in dict.fromkeys(against)}
    every = ("source", *splits, *against_tables)
    missing = dict.fromkeys(every, "tokenised rows have no other columns")
    columns = dict.fromkeys(every, OtherColumns())
    return AuditRows(recipe, table, splits, against_tables, columns, missing)


def _refuse_itself(source: str, against: Sequence[str]) -> None:
    source_file = source_path(source)
    for other in against:
        path = source_path(other)
        if other == source or (
            path.exists() and source_file.exists() and path.samefile(source_file)
        ):
            rule = "names the audited file itself, so every row would be a duplicate"
            remedy = "Name another file: duplicates within one file are found without the option."
            raise RecipeError("--against", rule, other, remedy)


def _source(recipe: Recipe) -> Table:
    """The rows, with their labels if there are any."""
    try:
        return _labelled(recipe)
    except DataError as error:
        if recipe.data.label is not None or recipe.task not in LABELLED_TEXT_TASKS:
            raise
        try:
            table = _without_label(recipe)
        except DataError:
            raise error from None
        if table.columns.label is not None:
            # train will refuse it.
            rule = f"{table.columns.label!r} cannot be the label: {error.rule}"
            finding = Finding("unusable_label", "error", 1.0, len(table), (), rule, error.remedy)
            return replace(table, findings=(*table.findings, finding))
        because = f"the file {error.rule}; checks of classes are skipped (--label names a column)"
        notify(Decision("label column", "none", because, prominent=True))
        return table


def _labelled(recipe: Recipe) -> Table:
    """The rows as ``train`` reads them, but with every class, however small."""
    data, task = recipe.data, recipe.task
    if task in LABELLED_TEXT_TASKS:
        return load_labelled(str(data.path), data.row_options(rare_below=1))
    return task_definition(task).read(str(data.path), data, None)


def _without_label(recipe: Recipe) -> Table:
    data = recipe.data
    options = data.row_options(label=None, labels="merged", need_label=False)
    return load_table(str(data.path), options)


def _other(recipe: Recipe, path: str, like: Table) -> Table:
    """Rows to compare with those of ``like``: with its columns if they exist, and labels and target
    texts if they are known."""
    data, columns = recipe.data, like.columns
    text = None if columns.template else columns.text
    group = like.columns.group
    try:
        return _read_other(recipe, path, like, text, group)
    except DataError:
        # Another file may have other column names.
        if data.text is not None or data.template is not None:
            raise
        return _read_other(recipe, path, like, None, None)


def _read_other(
    recipe: Recipe, path: str, like: Table, text: tuple[str, ...] | None, group: str | None
) -> Table:
    data, columns, task = recipe.data, like.columns, recipe.task
    label = columns.label if text is not None else None
    if task in IMAGE_TASKS:
        options = RowOptions(classes=like.classes, labels=data.labels, links=data.links)
        return load_images(path, replace(options, need_label=False))
    if task in TAGGING_TASKS:
        return task_definition(task).read(path, data, like)
    group_column = _group_column(path, data, group)
    options = data.row_options(text=text, label=label, group=group_column, need_label=False)
    if task in GENERATIVE_TASKS:
        return (load_pairs if task in ENCODER_DECODER_TASKS else load_chats)(path, options)
    classes = like.classes if columns.one_class else None
    return load_table(path, replace(options, template=columns.template, classes=classes or None))


def _group_column(path: str, data: DataPart, group: str | None) -> str | None:
    """The group column, if this file has it too."""
    from holdfast.data.source import read_first_batch

    if group is None or group not in read_first_batch(path, data.encoding, data.config).names:
        return None
    return group


def _empty(table: Table, path: str, data: DataPart) -> tuple[int, ...]:
    """The rows of the source without a text: they duplicate each other."""
    if not any(finding.check == "missing_text" for finding in table.findings):
        return ()
    if source_path(path).is_dir() or table.columns.template is not None:
        return ()
    raw = read_source(path, data.encoding, data.config)
    missing = np.logical_and.reduce(
        [is_missing(raw.table[name]).to_numpy() for name in table.columns.text]
    )
    return tuple(np.flatnonzero(missing).tolist())


def _unlabelled(recipe: Recipe, table: Table, path: str, names: Mapping[str, str]) -> Table | None:
    """The texts to label next: those of ``data.unlabelled``, else those of the source without a
    label; ``None`` if there are none, or labels are not classes."""
    one_class = table.columns.label_kind == "class" and len(table.classes) > 1
    if recipe.task not in LABELLED_TEXT_TASKS or not one_class:
        return None
    encoding = recipe.data.encoding
    if recipe.data.unlabelled is not None:
        pool = read_unlabelled_texts(recipe.data.unlabelled, table, encoding)
        return pool if len(pool) else None
    if not any(finding.check == "missing_label" for finding in table.findings):
        return None
    raw = read_source(path, encoding, recipe.data.config)
    pool = unlabelled_table(raw, table.columns)
    pool = pool.take(np.flatnonzero(~np.isin(pool.column("row"), table.column("row"))))
    return replace(pool, source=names.get(path, table.source)) if len(pool) else None


def _other_columns(table: Table, path: str, data: DataPart) -> tuple[OtherColumns, str]:
    """The other columns of a table's source, or why there are none."""
    place = source_path(path)
    if place.is_dir():
        return OtherColumns(), "a folder of images has no columns"
    if is_conll_file(path) or has_conll_content(path, data.encoding) or is_text_file(path):
        return OtherColumns(), f"{Path(path).name} has no other columns"
    raw = read_source(path, data.encoding, data.config)
    refuse_changed_source(raw, table)
    used = {*table.columns.text, table.columns.label, table.columns.group}
    names = tuple(name for name in raw.names if name not in used)
    if not names:
        return OtherColumns(), "there are no other columns"
    at = pa.array(table.column("row"), pa.int64())
    return OtherColumns(names, lambda name: raw.table[name].take(at).to_pylist()), ""
