"""Columns of a program's memory: whatever stands beside the texts, it is kept or named."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from holdfast.core.errors import DataError
from holdfast.data.memory.frames import frame_table, write_frame
from holdfast.data.memory.texts import rows_in_memory
from holdfast.data.source import read_source

N = 6
RING: list[Any] = []
RING.append(RING)
DEEP: Any = None
for _ in range(5_000):
    DEEP = [DEEP]


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("says nothing")


BESIDE = {
    "ranges": pd.cut(np.arange(N), 3),
    "intervals": pd.interval_range(0, N),
    "uuids": [uuid.UUID(int=7)] * N,
    "arrays": [np.zeros((2, 2))] * N,
    "empty objects": [[{}]] * N,
    "decimals": [decimal.Decimal("1e5000")] * N,
    "spans": pd.to_timedelta(np.arange(N), unit="s"),
    "mixed": [1, "a", None, 2.5, b"x", (1, 2)],
    "complex": [1j] * N,
    "functions": [len] * N,
    "long numbers": [10**30] * N,
    "dates": [datetime.date(2020, 1, 1)] * N,
    "periods": pd.period_range("2020", periods=N, freq="D"),
    "keys": [{1: 2, "a": 3}] * N,
}
SPELLED = {
    "arrays": "[[0.0, 0.0], [0.0, 0.0]]",
    "empty objects": "[{}]",
    "long numbers": str(10**30),
    "uuids": str(uuid.UUID(int=7)),
    "keys": '{"1": 2, "a": 3}',
    "intervals": "(0, 1]",
    "periods": "2020-01-01",
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("form", ["frame", "columns", "records"])
def test_what_stands_beside_the_texts_is_kept(kind: str, form: str, tmp_path: Path) -> None:
    values = list(BESIDE[kind])
    whole = BESIDE[kind] if not isinstance(BESIDE[kind], list) else pd.Series(values, dtype=object)
    given: Any = {
        "frame": pd.DataFrame({"text": ["a"] * N}).assign(x=whole),
        "columns": {"text": ["a"] * N, "x": values},
        "records": [{"text": "a", "x": value} for value in values],
    }[form]
    table = rows_in_memory(given, None, None) if form != "columns" or kind != "keys" else None
    if table is None:
        return  # a list of dictionaries beside a list of texts is several tables
    write_frame(table, tmp_path / "f.parquet")
    raw = read_source(tmp_path / "f.parquet", None, None)
    assert len(raw) == N
    if kind in SPELLED:
        assert raw.table["x"][0].as_py() == SPELLED[kind]


@pytest.mark.parametrize("values", [[RING] * N, [DEEP] * N, [Mute()] * N, ["\ud800"] * N])
def test_what_cannot_be_written_is_named(values: list[Any]) -> None:
    with pytest.raises(DataError, match="column 'x'"):
        frame_table(pd.DataFrame({"text": ["a"] * N, "x": pd.Series(values, dtype=object)}))


def test_no_cell_is_lost_to_its_name() -> None:
    table = frame_table([{"text": "a", 3: "cell"}, {"text": "b", 3: "other"}])
    assert table["3"].to_pylist() == ["cell", "other"]
    with pytest.raises(DataError, match="same name"):
        frame_table([{"text": "a", 3: "cell", "3": "other"}])
    with pytest.raises(DataError, match="same name"):
        frame_table({"text": ["a"], 3: ["cell"], "3": ["other"]})


@pytest.mark.parametrize(
    "odd",
    [
        pa.array([{}] * N, pa.struct([])),
        pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()),
        pa.UnionArray.from_sparse(pa.array([0] * N, pa.int8()), [pa.array(range(N))]),
        pa.DictionaryArray.from_arrays(pa.array([0] * N, pa.int32()), pa.array([{"a": 1}])),
    ],
)
def test_types_that_no_parquet_file_holds_become_texts(odd: pa.Array, tmp_path: Path) -> None:
    table = frame_table(pa.table({"text": ["a"] * N, "x": odd}))
    parquet.write_table(table, tmp_path / "f.parquet")
    assert table["x"].type == pa.string()
    assert table["x"].null_count == 0


@pytest.mark.parametrize("values", [5, "abc", object()])
def test_what_is_no_column_is_refused(values: Any) -> None:
    with pytest.raises(DataError, match="must be a list, an array or a column"):
        rows_in_memory(["a"], values, None)
