"""CSV from which every reader gets the rows that were written."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest

from holdfast.data.cells import write_delimited

ODD = ["a\rb", "a\nb", "a\r\nb", 'a "quoted" b', "a,b", "a\tb", "\r", " a ", "ä\u2028b", "=1+1"]


def written(rows: list[list[object]], **given: object) -> str:
    text = io.StringIO(newline="")
    write_delimited(text, ["id", "text"], rows, **given)  # type: ignore[arg-type]
    return text.getvalue()


@pytest.mark.parametrize("mark", [",", "\t"])
def test_three_readers_get_the_rows_that_were_written(mark: str) -> None:
    rows: list[list[object]] = [[number, cell] for number, cell in enumerate(ODD)]
    text = written(rows, delimiter=mark)
    again = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    assert [cell for _, cell in again[1:]] == ODD
    for engine in ("c", "python"):
        # Bytes, in which pandas meets the ends of lines as they are.
        given = io.BytesIO(text.encode())
        found = pd.read_csv(given, sep=mark, engine=engine, keep_default_na=False)  # type: ignore[call-overload]
        assert found["text"].tolist() == ODD


def test_records_end_with_a_newline_alone() -> None:
    assert written([[1, "a"], [2, None], [True, ["b"]]]) == 'id,text\n1,a\n2,\ntrue,"[""b""]"\n'


def test_a_text_that_begins_like_a_formula_is_defused_where_that_is_asked() -> None:
    cells = ["=cmd()", "+1", "-x", "@a", "\tq", "\rq", "a=b", -3, "", None]
    rows: list[list[object]] = [[number, cell] for number, cell in enumerate(cells)]
    found = list(csv.reader(io.StringIO(written(rows, safe=True), newline="")))[1:]
    assert [cell for _, cell in found] == [
        "'=cmd()",
        "'+1",
        "'-x",
        "'@a",
        "'\tq",
        "'\rq",
        "a=b",
        "-3",
        "",
        "",
    ]
    assert "'" not in written(rows)
