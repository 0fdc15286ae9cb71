"""What the text readers refuse, and how they say it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import DataError
from holdfast.data.raw import Raw
from holdfast.data.readers.text import likely_encodings
from holdfast.data.source import read_source


def read(folder: Path, name: str, content: bytes | str, encoding: str | None = None) -> Raw:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(path, encoding, None)


def rows(raw: Raw) -> list[dict[str, str]]:
    return raw.table.to_pylist()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\na,1\nb,2,3\n", "line 3.*3 cells, but the header names 2"),
        ("A survey\ntext,label\na,1\n", "line 2.*2 cells, but.* names 1(.|\n)*is a title, remove"),
        ('text,label\n"a\nb",1\nc\n', "line 4.*1 cells, but the header names 2"),
        ('text,label\na,1\n"b,2\nc,3\n', "line 3.*never closes"),
        ('text,label\n"b" c,2\n', "line 2.*after the closing quotation mark"),
        ("text,text\na,1\n", "same name.*'text'"),
        ("text, text\na,1\n", "same name.*'text'"),
        (b"text,label\na,1\nb\x00b,2\n", "line 3.*NUL"),
        (b"\xef\xbb\xbf", "is empty"),
        (" \n\n", "is empty"),
        (b"\x1f\x8btext", "gzip"),
        (b"PK\x03\x04....", "Excel"),
    ],
)
def test_a_malformed_csv_is_refused_with_its_line(
    content: bytes | str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, "a.csv", content)


def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    plain = "text,label\na b,1\n\nc,2\n"
    expected = [{"text": "a b", "label": "1"}, {"text": "c", "label": "2"}]
    for content in (plain, plain.replace("\n", "\r\n"), "\ufeff" + plain, plain.rstrip()):
        assert rows(read(tmp_path, "a.csv", content)) == expected


def test_semicolons_are_taken_and_said(tmp_path: Path) -> None:
    raw = read(tmp_path, "a.csv", "text;label\na, b;1\n")
    assert rows(raw) == [{"text": "a, b", "label": "1"}]
    assert [(d.what, d.chosen) for d in raw.decisions] == [("delimiter", "semicolon")]


@pytest.mark.parametrize("mark", [";", ",", "\t"])
def test_the_line_that_excel_writes_above_the_header_is_named(mark: str, tmp_path: Path) -> None:
    text = f"sep={mark}\ntext{mark}label\na b{mark}1\n"
    with pytest.raises(DataError, match="only Excel reads") as refused:
        read(tmp_path, "a.csv", text)
    assert "Delete this line" in refused.value.remedy


def test_a_tsv_with_loose_quotes_is_read_plainly_and_said(tmp_path: Path) -> None:
    raw = read(tmp_path, "a.tsv", 'text\tlabel\n"so" good\tpos\n" half\tneg\n')
    assert [row["text"] for row in rows(raw)] == ['"so" good', '" half']
    assert raw.decisions[0].what == "quotes in the TSV"


def test_a_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    text = "word " * 250_000
    assert rows(read(tmp_path, "a.csv", f"text,label\n{text},1\n"))[0]["text"] == text


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=20))
@settings(max_examples=60)
def test_what_the_csv_writer_wrote_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    kept = [(a.replace("\0", ""), b.replace("\0", "")) for a, b in pairs]
    target = io.StringIO()
    csv.writer(target).writerows([("text", "label"), *kept])
    raw = read(tmp_path_factory.mktemp("csv"), "a.csv", target.getvalue())
    assert [(row["text"], row["label"]) for row in rows(raw)] == kept


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Das Café war schön – “très bien” für fünf Euro"),
        ("cp1251", "Этот фильм мне очень понравился и отличная игра актёров и музыка"),
        ("shift_jis", "この映画はとても面白かったです。俳優の演技も素晴らしい。"),
    ],
)
def test_another_encoding_is_named_and_asked_for(encoding: str, text: str, tmp_path: Path) -> None:
    content = "text,label\nfine,1\n" + "".join(f"{text} {n},{n % 2}\n" for n in range(30))
    with pytest.raises(DataError, match=r"line 3: is not UTF-8") as refused:
        read(tmp_path, "a.csv", content.encode(encoding))
    assert f"'{text} 0,0'" in refused.value.remedy
    assert "--set data.encoding=" in refused.value.remedy
    assert rows(read(tmp_path, "a.csv", content.encode(encoding), encoding))[1]["text"][:-2] == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "L'été dernier, la façade de l'hôtel était très abîmée ; déçu, à l'accueil"),
        ("cp1252", "The café’s “special” – I’d say it was quite good, and so was the rest of it"),
        ("cp1252", "Das Frühstück war schön, das Zimmer größer als erwartet – über die Straße"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, ale řeka je daleko"),
        ("cp1250", "Zażółć gęślą jaźń; książka była świetna, ale dość długa"),
        ("cp1251", "Это очень хороший отель, персонал вежливый и номера чистые"),
    ],
)
def test_the_encoding_that_is_named_first_is_that_of_the_file(encoding: str, text: str) -> None:
    assert likely_encodings((text + ". ").encode(encoding) * 30)[0] == encoding


def test_one_odd_byte_is_named_windows_1252(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)line 3.*data\.encoding=cp1252"):
        read(tmp_path, "a.csv", "text,label\na,1\nthe café was good,2\n".encode("cp1252"))


def test_the_odd_bytes_are_shown_with_their_places(tmp_path: Path) -> None:
    content = "text,label\na,1\nthe café was good,2\n".encode("cp1252")
    with pytest.raises(DataError) as refused:
        read(tmp_path, "a.csv", content)
    place = content.index(b"\xe9")
    in_line = place - content.index(b"the")
    assert f"byte 0xE9 at position {in_line + 1} of the line, {place + 1} of the file" in str(
        refused.value
    )
    assert b"caf\xe9 was" in refused.value.value


def test_utf_16_is_named_and_read_when_asked(tmp_path: Path) -> None:
    content = "text,label\nGröße,1\n".encode("utf-16")
    with pytest.raises(DataError, match=r"data\.encoding=utf-16"):
        read(tmp_path, "a.csv", content)
    assert rows(read(tmp_path, "a.csv", content, "utf-16")) == [{"text": "Größe", "label": "1"}]


def test_a_wrong_or_unknown_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a text encoding"):
        read(tmp_path, "a.csv", "text,label\na,1\n", "utf-9")
    with pytest.raises(DataError, match="is not in utf-16"):
        read(tmp_path, "a.csv", "text,label\na,1\n", "utf-16")
    with pytest.raises(DataError, match="is not in ascii") as refused:
        read(tmp_path, "a.csv", "text,label\né,1\n", "ascii")
    assert "é,1".encode() in refused.value.value


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: is not JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "line 2: is not an object"),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "'text' is repeated"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "surrogate"),
        ("a.json", '[{"text": "a"}, {"text": "b"\n', "is not JSON"),
        ("a.json", '[{"text": "a"}]\n\n{"text": "b"}', "line 3: has content after the end"),
        ("a.json", '[{"text": "a"} {"text": "b"}]', "where ',' is expected"),
        ("a.json", '{"text": ["a"], "label": [1, 2]}', "different lengths"),
        ("a.json", "[]", "empty list"),
        ("a.json", "3", "not a table"),
    ],
)
def test_malformed_json_is_refused_with_its_place(
    name: str, content: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, name, content)


def test_json_comes_in_many_shapes(tmp_path: Path) -> None:
    expected = [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]
    values = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
    lines = "\n".join(map(json.dumps, values))
    for content in (
        json.dumps(values),
        json.dumps(values, indent=2),
        json.dumps({"data": values, "n": 2}),
        '{"text": ["a", "b"], "label": [1, 2]}',
        lines,
        '{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 2}}',
    ):
        assert rows(read(tmp_path, "a.json", content)) == expected


def test_a_long_list_of_json_is_read_whole(tmp_path: Path) -> None:
    values = [{"text": "word " * (n % 60), "n": n} for n in range(12_000)]
    raw = read(tmp_path, "a.json", json.dumps(values))
    assert raw.table["n"].to_pylist() == [str(n) for n in range(12_000)]


def test_a_key_that_comes_late_is_missing_before(tmp_path: Path) -> None:
    lines = ['{"text": "a"}'] * 10_001 + ['{"text": "b", "label": true}']
    raw = read(tmp_path, "a.jsonl", "\n".join(lines))
    assert raw.table["label"].to_pylist() == [None] * 10_001 + ["true"]


def test_typed_values_are_spelled_alike_in_json_and_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [{"b": True, "i": -3, "f": 2.0, "g": 2.5}, {"b": None, "i": 7, "f": 3.0, "g": None}]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "a.parquet")
    parquet = rows(read_source(tmp_path / "a.parquet", None, None))
    assert parquet == rows(read(tmp_path, "a.json", json.dumps(values)))
    assert parquet[0] == {"b": "true", "i": "-3", "f": "2", "g": "2.5"}
