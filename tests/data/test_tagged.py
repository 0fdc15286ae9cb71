"""Sentences of words and tags: CoNLL and lists, and what is refused with its line or row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.core.errors import DataError
from holdfast.data.options import RowOptions
from holdfast.data.source import read_source
from holdfast.data.tags.conll import has_conll_content, read_conll
from holdfast.data.tags.sentences import load_tagged, read_tagged, tagged_shape

ROWS = [
    (["Anna", "lives", "in", "New", "York"], ["B-PER", "O", "O", "B-LOC", "I-LOC"]),
    (["It", "rains"], ["O", "O"]),
    (["Oslo", ",", "again"], ["B-LOC", "O", "O"]),
]
TAGS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def conll(path: Path, mark: str = "\t", middle: str = "", end: str = "\n") -> Path:
    lines = []
    for words, tags in ROWS:
        lines += [f"{w}{mark}{middle}{t}{end}" for w, t in zip(words, tags, strict=True)] + [end]
    path.write_bytes("".join(lines).encode())
    return path


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def check(path: Path) -> None:
    table = load_tagged(str(path))
    assert table.names == TAGS
    assert table.column("tokens") == [words for words, _ in ROWS]
    assert [[TAGS[i] for i in line] for line in table.column("tags")] == [tags for _, tags in ROWS]
    assert table.column("text") == [" ".join(words) for words, _ in ROWS]
    assert table.column("row").tolist() == [0, 1, 2]


@pytest.mark.parametrize("options", [RowOptions(text=("",)), RowOptions(label="")])
def test_an_empty_name_of_a_column_is_refused(tmp_path: Path, options: RowOptions) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"tokens": words, "tags": tags} for words, tags in ROWS])
    with pytest.raises(DataError, match="has no column ''"):
        load_tagged(str(path), options)


@pytest.mark.parametrize("mark", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_conll_is_read_with_tabs_or_spaces(tmp_path: Path, mark: str, end: str) -> None:
    check(conll(tmp_path / "a.conll", mark, end=end))


def test_a_space_that_does_not_break_belongs_to_its_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("10\u00a0000 B-NUM\nships O\n", encoding="utf-8")
    table = load_tagged(str(tmp_path / "a.txt"))
    assert table.column("tokens") == [["10\u00a0000", "ships"]]


def test_tags_without_a_type_are_one_type(tmp_path: Path) -> None:
    tags = ["B", "I", "O", "B"]
    rows: list[dict[str, object]] = [
        {"tokens": ["deep", "learning", "of", word], "tags": tags} for word in "abcdef"
    ]
    table = load_tagged(str(jsonl(tmp_path / "a.jsonl", rows)))
    assert table.names == ("O", "B", "I")
    assert table.classes == ("_",)
    (told,) = [made for made in table.decisions if made.what == "scheme of the tags"]
    assert (told.chosen, told.because) == ("IOB2", "one unnamed entity type in 24 words")


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.conll"])
def test_the_ending_does_not_matter_where_the_lines_say_what_they_are(
    tmp_path: Path, name: str
) -> None:
    check(conll(tmp_path / name, "\t"))


def test_packed_conll_is_read(tmp_path: Path) -> None:
    plain = conll(tmp_path / "a.conll")
    packed = tmp_path / "b.conll.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    check(packed)


def test_the_last_column_is_the_tag_and_others_can_be_named(tmp_path: Path) -> None:
    path = conll(tmp_path / "a.conll", " ", middle="NN B-NP ")
    check(path)
    with pytest.raises(DataError, match="same tag on every word"):
        load_tagged(str(path), RowOptions(label="column_3"))


def test_documents_comments_and_lines_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text(
        "-DOCSTART- -X- O\n\n# id 1\nAnna NN B-PER\nruns VB O\n\n"
        "-DOCSTART- -X- O\n# NN O\nsleeps VB O\n",
        encoding="utf-8",
    )
    raw = read_conll(path, None)
    assert raw.table["tokens"].to_pylist() == ['["Anna", "runs"]', '["#", "sleeps"]']
    assert raw.table["document"].to_pylist() == ["1", "2"]
    assert raw.table["line"].to_pylist() == ["4", "8"]
    table = load_tagged(str(path), RowOptions(group="document"))
    assert table.column("group") == ["1", "2"]
    assert not [one for one in table.findings if one.check == "documents"]
    found = {one.check: one for one in load_tagged(str(path)).findings}
    assert found["documents"].count == 2
    assert "--group document" in found["documents"].remedy


def test_lists_are_read_from_jsonl_and_parquet(tmp_path: Path) -> None:
    rows = [{"tokens": w, "tags": t} for w, t in ROWS]
    check(jsonl(tmp_path / "a.jsonl", rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet")


def test_numbers_that_a_feature_names_come_as_their_names(tmp_path: Path) -> None:
    import datasets

    feature = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=list(TAGS))),
        }
    )
    rows = {
        "tokens": [words for words, _ in ROWS],
        "ner_tags": [[TAGS.index(tag) for tag in tags] for _, tags in ROWS],
    }
    made = datasets.Dataset.from_dict(rows, features=feature)
    made.to_parquet(tmp_path / "a.parquet")
    check(tmp_path / "a.parquet")

    from holdfast.data.memory.frames import frame_file

    check(frame_file(made))


def test_a_file_of_words_alone_is_told_where_a_tag_stands(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Anna\nlives\n")
    with pytest.raises(DataError, match="words without tags") as caught:
        load_tagged(str(tmp_path / "a.conll"))
    assert "behind it" in caught.value.remedy


def test_rows_with_lists_are_known_by_their_names_and_lengths(tmp_path: Path) -> None:
    good = read_source(jsonl(tmp_path / "a.jsonl", [{"tokens": ["a"], "tags": ["O"]}]), None, None)
    assert "as many tags" in str(tagged_shape(good))
    # One row that differs is refused by its place, and does not make a table of classes of it.
    torn = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O"]}]
    assert tagged_shape(read_source(jsonl(tmp_path / "d.jsonl", torn), None, None)) is not None
    unlike = [{"tokens": ["a", "b"], "tags": ["news"]}]
    assert tagged_shape(read_source(jsonl(tmp_path / "b.jsonl", unlike), None, None)) is None
    (tmp_path / "e.csv").write_text('tokens,tags\n"[""a"", ""b""]","[""O"", ""B-X""]"\n', "utf-8")
    assert "as many tags" in str(tagged_shape(read_source(tmp_path / "e.csv", None, None)))
    (tmp_path / "f.csv").write_text("tokens,tags\na b,O B-X\nnull,null\n[],[]\n", "utf-8")
    assert tagged_shape(read_source(tmp_path / "f.csv", None, None)) is None
    plain = [{"text": "a b", "label": "x"}]
    assert tagged_shape(read_source(jsonl(tmp_path / "c.jsonl", plain), None, None)) is None


@pytest.mark.parametrize(
    ("text", "is_it"),
    [
        ("Anna B-PER\nruns O\n\nOslo B-LOC\n", True),
        ("Anna NOUN\nruns VERB\n", False),
        ("A text of words.\n\nAnother one.\n", False),
        ("text label\nfine pos\n", False),
        ("Anna O\nruns O\n", False),
        ("Anna B-PER\nruns fast O\n", False),
        ("", False),
    ],
)
def test_a_text_is_taken_for_conll_by_its_tags_alone(
    tmp_path: Path, text: str, is_it: bool
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    assert has_conll_content(path) is is_it


def test_a_tsv_with_a_header_of_lists_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('tokens\ttags\n["a", "b"]\t["O", "B-X"]\n["c"]\t["O"]\n', encoding="utf-8")
    assert load_tagged(str(path)).column("tokens") == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("text", "where", "rule"),
    [
        ("Anna B-PER\nruns\n", "line 2", "has 1 column, but line 1 has 2"),
        ("Anna B-PER\nruns fast O\n", "line 2", "has 3 columns, but line 1 has 2"),
        ("a O\n\nb O\nc I-X\nd B-X\ne O\nf B-X\n", "line 4", "has I-X after O, which IOB2"),
        ("a S-X\n\nb O\nc B-X\nd O\n", "line 5", "has O after B-X, which BIOES"),
        ("a S-X\n\nb O\nc B-X\n\nd O\n", "line 4", "ends with B-X, which BIOES"),
        ("a B-X\nb 0\n", "line 2", "has 0 after B-X, which IOB2"),
        ("\n\n", "", "holds no words"),
        ("a O\nb O\n", "", "same tag on every word"),
    ],
)
def test_what_is_broken_is_refused_with_its_line(
    tmp_path: Path, text: str, where: str, rule: str
) -> None:
    path = tmp_path / "a.conll"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_tagged(str(path))
    assert where in caught.value.what
    assert rule in caught.value.rule


def test_broken_tags_are_read_as_they_are_where_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("a O\nb I-X\n\nc B-X\n\nd B-X\n", encoding="utf-8")
    table = load_tagged(str(path), RowOptions(labels="exact"))
    assert table.names == ("O", "B-X", "I-X")
    assert "1 tags break the scheme" in table.decisions[-1].because


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "has 1 tag but 2 words"),
        ({"tokens": ["a"], "tags": [3]}, "is a number without a name"),
        ({"tokens": ["a"], "tags": [""]}, "not a valid tag"),
        ({"tokens": ["a", 5], "tags": ["O", "O"]}, "is not a text"),
        ({"tokens": ["a", "b\0"], "tags": ["O", "O"]}, "NUL"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, "does not hold a list"),
    ],
)
def test_a_row_is_refused_by_its_number(tmp_path: Path, row: dict[str, object], rule: str) -> None:
    first = {"tokens": ["a", "b"], "tags": ["O", "B-X"]}
    path = jsonl(tmp_path / "a.jsonl", [first, row])
    with pytest.raises(DataError, match=rule) as caught:
        load_tagged(str(path))
    assert "row 1" in caught.value.what


def test_a_column_called_line_is_no_line_of_a_file(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["O", "B-X"], "line": 70}]
    rows.append({"tokens": ["a"], "tags": [3], "line": 90})
    with pytest.raises(DataError) as caught:
        load_tagged(str(jsonl(tmp_path / "a.jsonl", rows)))
    assert "row 1" in caught.value.what


def test_rows_without_words_or_tags_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["a", "b"], "tags": ["O", "B-X"]},
        {"tokens": [], "tags": []},
        {"tokens": ["  ", ""], "tags": ["O", "O"]},
        {"tokens": ["a"], "tags": None},
        {"tokens": ["a", " "], "tags": ["O", "O"]},
    ]
    table = load_tagged(str(jsonl(tmp_path / "a.jsonl", rows)))
    assert table.column("row").tolist() == [0, 4]
    found = {finding.check: finding.rows for finding in table.findings}
    assert found["missing_text"] == (1, 2)
    assert found["missing_label"] == (3,)
    assert found["empty_words"] == (4,)


def test_given_rows_take_the_tags_of_the_source_and_others_are_refused(tmp_path: Path) -> None:
    table = load_tagged(str(conll(tmp_path / "a.conll")))
    other = jsonl(tmp_path / "b.jsonl", [{"tokens": ["x", "y"], "tags": ["I-PER", "O"]}])
    like = load_tagged(str(other), RowOptions(like=table))
    assert (like.names, like.classes) == (table.names, table.classes)
    assert like.column("tags") == [[4, 0]]
    bad = jsonl(tmp_path / "c.jsonl", [{"tokens": ["x", "y"], "tags": ["O", "B-ORG"]}])
    with pytest.raises(DataError, match="not one of the classes") as caught:
        load_tagged(str(bad), RowOptions(like=table))
    assert "row 0" in caught.value.what
    assert "word 2" in caught.value.what


def test_the_strata_are_sets_of_types(tmp_path: Path, tagged: Any) -> None:
    table = load_tagged(str(tagged.write_lists(tmp_path / "a.jsonl", tagged.sentences(100))))
    assert set(table.classes) <= {"LOC + PER", "NUM + PER", "LOC + NUM + PER", "no label"} | {
        "PER",
        "LOC + NUM",
        "other sets",
    }
    assert len(np.unique(table.column("label"))) == len(table.classes)


def test_tables_of_a_tsv_and_plain_files_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfine,pos\n", encoding="utf-8")
    assert read_tagged(str(path), None).names == ["text", "label"]
