"""The rows that an audit looks at, read as ``train`` would read them, but refusing less: what would
stop a training is what an audit is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.core.tasks import ENCODER_DECODERS, LABELLED_TEXTS, OF_PICTURES, TAGGERS, WRITERS
from holdfast.data.chats.chat import is_text_file, load_chats
from holdfast.data.columns.extra import refuse_changed
from holdfast.data.columns.profile import is_missing
from holdfast.data.images.table import load_images
from holdfast.data.labels.texts import load_labelled
from holdfast.data.load import load_table, read_unlabelled, unlabelled
from holdfast.data.options import RowOptions
from holdfast.data.pairs import load_pairs
from holdfast.data.raw import source_path
from holdfast.data.source import read_source, refuse_missing
from holdfast.data.table import Table
from holdfast.data.tags.conll import is_conll_file, looks_like_conll
from holdfast.plan.task import rows_task
from holdfast.prepare.rows import given_files
from holdfast.quality.views import OtherColumns
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks import kind_of


@dataclass(frozen=True, slots=True)
class AuditRows:
    """The source, and the tables that it is held against: ``sides`` are its own validation and test
    rows by name, ``against`` others by the name that the user gave. ``beside`` are the other
    columns of each, the source's as ``source``; ``without`` says why a table has none. ``empty``
    are the rows of the source that have no text, which are in no table; ``unlabelled`` the texts of
    ``data.unlabelled``, or else the rows of the source that lack a label, where there are any."""

    recipe: Recipe
    table: Table
    sides: Mapping[str, Table]
    against: Mapping[str, Table]
    beside: Mapping[str, OtherColumns]
    without: Mapping[str, str]
    empty: tuple[int, ...] = ()
    unlabelled: Table | None = None

    @property
    def given(self) -> dict[str, Table]:
        """All tables but the source."""
        return {**self.sides, **self.against}


def read_rows(recipe: Recipe, against: Sequence[str], names: Mapping[str, str]) -> AuditRows:
    """Read the source and everything that it is held against. ``names`` are what the user calls
    files that stand for rows in memory.

    Raises ``DataError`` where one cannot be read, ``RecipeError`` for a file held against itself.
    """
    if recipe.data.path is None:
        raise RecipeError("data.path", "is missing", None, "Name the file that holds the rows.")
    _refuse_itself(str(recipe.data.path), against)
    data = recipe.data
    for source in (data.path, data.valid, data.test, data.unlabelled, *against):
        if source is not None:
            refuse_missing(source)
    recipe, worked_out = rows_task(recipe)
    notify(*worked_out)
    table = _source(recipe)
    notify(*table.decisions)
    own, companions = given_files(recipe.data, kind_of(recipe.task))
    notify(*companions)
    sides = {name: _other(recipe, path, table) for name, path in own.items()}
    others = {names.get(path, path): _other(recipe, path, table) for path in dict.fromkeys(against)}
    paths = {"source": str(recipe.data.path), **own}
    paths |= {names.get(path, path): path for path in against}
    beside, without = {}, {}
    for name, each in {"source": table, **sides, **others}.items():
        beside[name], why = _beside(each, paths[name], recipe.data)
        if why:
            without[name] = why
    called = {name: replace(each, source=name) for name, each in others.items()}
    empty = _empty(table, paths["source"], recipe.data)
    fresh = _unlabelled(recipe, table, paths["source"], names)
    table = replace(table, source=names.get(paths["source"], table.source))
    return AuditRows(recipe, table, sides, called, beside, without, empty, fresh)


def _refuse_itself(source: str, against: Sequence[str]) -> None:
    own = source_path(source)
    for other in against:
        path = source_path(other)
        if other == source or (path.exists() and own.exists() and path.samefile(own)):
            raise RecipeError(
                "--against",
                "names the file that is audited, every row of which it would hold",
                other,
                "Name another file: copies within one are found without it.",
            )


def _source(recipe: Recipe) -> Table:
    """The rows, with their labels where there are some."""
    try:
        return _labelled(recipe)
    except DataError as error:
        if recipe.data.label is not None or recipe.task not in LABELLED_TEXTS:
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
        because = f"{error.rule}; what needs a class is not looked at (--label names a column)"
        notify(Decision("label column", "none", because, prominent=True))
        return table


def _labelled(recipe: Recipe) -> Table:
    """As ``train`` reads them, but no class is too small to be looked at."""
    data, task = recipe.data, recipe.task
    if task in LABELLED_TEXTS:
        return load_labelled(str(data.path), data.row_options(rare_below=1))
    return kind_of(task).read(str(data.path), data, None)


def _without_label(recipe: Recipe) -> Table:
    data = recipe.data
    options = data.row_options(label=None, labels="merged", need_label=False)
    return load_table(str(data.path), options)


def _other(recipe: Recipe, path: str, like: Table) -> Table:
    """Rows to be held against those of ``like``: its columns where they are there, labels and
    answers where they are known."""
    data, columns = recipe.data, like.columns
    text = None if columns.template else columns.text
    group = like.columns.group
    try:
        return _read_other(recipe, path, like, text, group)
    except DataError:
        # Another file may call its columns otherwise.
        if data.text is not None or data.template is not None:
            raise
        return _read_other(recipe, path, like, None, None)


def _read_other(
    recipe: Recipe, path: str, like: Table, text: tuple[str, ...] | None, group: str | None
) -> Table:
    data, columns, task = recipe.data, like.columns, recipe.task
    label = columns.label if text is not None else None
    if task in OF_PICTURES:
        options = RowOptions(classes=like.classes, labels=data.labels, links=data.links)
        return load_images(path, replace(options, need_label=False))
    if task in TAGGERS:
        return kind_of(task).read(path, data, like)
    there = _there(path, data, group)
    options = data.row_options(text=text, label=label, group=there, need_label=False)
    if task in WRITERS:
        return (load_pairs if task in ENCODER_DECODERS else load_chats)(path, options)
    classes = like.classes if columns.one_class else None
    return load_table(path, replace(options, template=columns.template, classes=classes or None))


def _there(path: str, data: DataPart, group: str | None) -> str | None:
    """The column of groups, where this file has it too."""
    from holdfast.data.source import read_first

    if group is None or group not in read_first(path, data.encoding, data.config).names:
        return None
    return group


def _empty(table: Table, path: str, data: DataPart) -> tuple[int, ...]:
    """The rows of the source without a text: they too are equal."""
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
    """The texts that wait for a label: those of ``data.unlabelled``, else those of the source that
    have none; ``None`` where there are none, or labels are no classes."""
    one_class = table.columns.label_kind == "class" and len(table.classes) > 1
    if recipe.task not in LABELLED_TEXTS or not one_class:
        return None
    encoding = recipe.data.encoding
    if recipe.data.unlabelled is not None:
        lot = read_unlabelled(recipe.data.unlabelled, table, encoding)
        return lot if len(lot) else None
    if not any(finding.check == "missing_label" for finding in table.findings):
        return None
    raw = read_source(path, encoding, recipe.data.config)
    lot = unlabelled(raw, table.columns)
    lot = lot.take(np.flatnonzero(~np.isin(lot.column("row"), table.column("row"))))
    return replace(lot, source=names.get(path, table.source)) if len(lot) else None


def _beside(table: Table, path: str, data: DataPart) -> tuple[OtherColumns, str]:
    """The other columns of a table's source, or why there are none."""
    place = source_path(path)
    if place.is_dir():
        return OtherColumns(), "a folder of pictures has no columns"
    if is_conll_file(path) or looks_like_conll(path, data.encoding) or is_text_file(path):
        return OtherColumns(), f"{Path(path).name} has no columns beside its texts"
    raw = read_source(path, data.encoding, data.config)
    refuse_changed(raw, table)
    used = {*table.columns.text, table.columns.label, table.columns.group}
    names = tuple(name for name in raw.names if name not in used)
    if not names:
        return OtherColumns(), "there are no other columns"
    at = pa.array(table.column("row"), pa.int64())
    return OtherColumns(names, lambda name: raw.table[name].take(at).to_pylist()), ""
