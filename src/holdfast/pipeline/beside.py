"""The columns of a source that are neither read nor learned, beside rows of it."""

from __future__ import annotations

from holdfast.data.beside import refuse_changed
from holdfast.data.paths import source_path
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.tagged import from_conll, read_tagged
from holdfast.pipeline.using import read_columns
from holdfast.recipe import DataPart


class Beside:
    """The columns beside rows, by the ``part`` of the recipe that names the others. Each source is
    read once, however many questions ask about its rows."""

    def __init__(self, part: DataPart) -> None:
        self._part = part
        self._read: dict[str, Raw] = {}

    def __call__(self, table: Table) -> dict[str, list[str | None]]:
        """Every column of the table's source but those of its text, label and group, by name and in
        the order of the rows; a folder and a CoNLL file have none.

        Raises ``DataError`` where the source is gone, or has another number of rows than it had.
        """
        if source_path(table.source).is_dir():
            return {}
        raw, part = self._raw(table), self._part
        refuse_changed(raw, table)
        if from_conll(raw):
            return {}
        known = {*(read_columns(part) or ()), *table.columns.text, table.columns.label, part.group}
        names = [name for name in raw.names if name not in known]
        taken = raw.table.select(names).take(table.column("row"))
        return {name: taken[name].to_pylist() for name in names}

    def _raw(self, table: Table) -> Raw:
        if table.source not in self._read:
            read = read_tagged if "tags" in table.rows.column_names else read_source
            found = read(table.source, self._part.encoding, self._part.config)
            self._read[table.source] = found
        return self._read[table.source]
