"""Files of rows that are broken, foreign or meant to harm: each is refused with exit 2, by its
name and with a remedy, or read right; and none costs much."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import os
import random
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from holdfast.core.errors import DataError
from holdfast.data.labels.texts import load_labelled
from holdfast.data.options import RowOptions
from holdfast.data.source import read_source
from holdfast.data.table import Table

ROWS = [
    (f"text number {i} on thing {i * 7 % 31}, said so", ("no", "yes")[i % 2]) for i in range(60)
]
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


def csv(rows: Any = ROWS, header: str = "text,label") -> str:
    return "\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n"


def jsonl(**beside: str) -> str:
    """The rows as JSON lines; ``beside`` are further cells, as JSON."""
    more = "".join(f', "{name}": {value}' for name, value in beside.items())
    return "".join(
        json.dumps({"text": text, "label": label})[:-1] + more + "}\n" for text, label in ROWS
    )


def load(path: Path, **asked: Any) -> Table:
    return load_labelled(str(path), RowOptions(**asked))


Make = Callable[[Path], Path]


def file(name: str, content: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def columns(name: str, table: pa.Table, change: Callable[[bytes], bytes] = lambda b: b) -> Make:
    def make(folder: Path) -> Path:
        parquet.write_table(table, folder / name)
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        return folder / name

    return make


def workbook(name: str, change: Callable[[str, bytes], bytes | None]) -> Make:
    """A good workbook whose parts are changed one by one; ``None`` takes a part away."""

    def make(folder: Path) -> Path:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in [("text", "label"), *ROWS]:
            book.active.append(row)
        book.save(folder / "good.xlsx")
        with (
            zipfile.ZipFile(folder / "good.xlsx") as parts,
            zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as changed,
        ):
            for part in parts.namelist():
                content = change(part, parts.read(part))
                if content is not None:
                    changed.writestr(part, content)
        return folder / name

    return make


def within(place: str, old: bytes, new: bytes) -> Callable[[str, bytes], bytes | None]:
    return lambda part, content: content.replace(old, new) if place in part else content


def without(place: str) -> Callable[[str, bytes], bytes | None]:
    return lambda part, content: None if place in part else content


def packed(name: str, *pieces: tuple[bytes, int]) -> Make:
    """A gzip file of pieces, each so many times."""

    def make(folder: Path) -> Path:
        with gzip.open(folder / name, "wb", 1) as target:
            for piece, times in pieces:
                for _ in range(times):
                    target.write(piece)
        return folder / name

    return make


def special(kind: str) -> Make:
    def make(folder: Path) -> Path:
        path = folder / f"{kind}.csv"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(path))
        else:
            path.symlink_to({"loop": path.name, "dangling": "nowhere", "device": "/dev/zero"}[kind])
        return path

    return make


def deep(levels: int, begin: str = "[", end: str = "]") -> str:
    return begin * levels + end * levels


N = len(ROWS)
NESTED = {
    "struct": pa.array([{"a": 1}] * N),
    "list": pa.array([[1, 2]] * N),
    "map": pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
    "binary": pa.array([b"\xff"] * N),
    "fixed": pa.array([b"abcd"] * N, pa.binary(4)),
    "inner": pa.array([[{"a": [datetime.date(2020, 1, 1)]}]] * N),
}
RUINED = pa.Array.from_buffers(pa.string(), N, pa.array([b"\xff\xfe"] * N).buffers())
GOOD = pa.table({"text": TEXTS, "label": LABELS})
RUBBISH = random.Random(0).randbytes(4_000)
MILLION = b"a" * 1_000_000

# (what stands in the message, how it is made)
REFUSED: dict[str, tuple[str, Make]] = {
    **{
        f"only {kind} in Parquet": ("plain values", columns("n.parquet", pa.table({"a": held})))
        for kind, held in NESTED.items()
    },
    "no plain column at all": ("plain values", columns("n.parquet", pa.table(NESTED))),
    "Parquet without columns": ("no columns", columns("n.parquet", pa.table({}))),
    "Parquet of bad bytes": (
        "column 'label'",
        columns("n.parquet", pa.table({"text": TEXTS, "label": RUINED})),
    ),
    "a footer that lies": (
        "Parquet",
        columns("n.parquet", GOOD, lambda b: b[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"),
    ),
    "half of a Parquet file": ("Parquet", columns("n.parquet", GOOD, lambda b: b[: len(b) // 2])),
    "an encrypted Parquet file": (
        "encrypted",
        columns("n.parquet", GOOD, lambda b: b[:-4] + b"PARE"),
    ),
    "two columns of one name": (
        "same name",
        columns("n.parquet", pa.table([pa.array(TEXTS), pa.array(LABELS)], names=["text", "text"])),
    ),
    **{
        f"rubbish as {ending}": ("rows", file(f"rows{ending}", RUBBISH))
        for ending in (
            ".csv",
            ".tsv",
            ".json",
            ".jsonl",
            ".parquet",
            ".xlsx",
            ".csv.gz",
            ".parquet.gz",
            ".xlsx.gz",
        )
    },
    "gzip of gzip": ("gzip", file("r.csv.gz", gzip.compress(gzip.compress(csv().encode())))),
    "gzip with more behind it": ("gzip", file("r.csv.gz", gzip.compress(csv().encode()) + b"more")),
    "gzip cut short": ("truncated", file("r.csv.gz", gzip.compress(csv().encode())[:-20])),
    "a sheet that is missing": ("empty", workbook("b.xlsx", without("sheet1.xml"))),
    "no book in the book": ("workbook", workbook("b.xlsx", without("xl/workbook.xml"))),
    "a sheet cut short": (
        "cannot be read",
        workbook("b.xlsx", within("sheet1", b"</sheetData>", b"")),
    ),
    "styles that are no XML": ("workbook", workbook("b.xlsx", within("styles", b'"', b"<"))),
    "a cell beyond all columns": (
        "cannot be read",
        workbook("b.xlsx", within("sheet1", b'r="A3"', b'r="ZZZZZZ99999"')),
    ),
    "a row below the last": (
        "below row",
        workbook("b.xlsx", within("sheet1", b'<row r="9"', b'<row r="999999999"')),
    ),
    "a protected workbook": ("password", file("b.xlsx", b"\xd0\xcf\x11\xe0" + bytes(600))),
    "JSON lines 100,000 deep": ("line 1", file("r.jsonl", jsonl(x=deep(100_000)))),
    "JSON lines 500 deep": ("100 levels", file("r.jsonl", jsonl(x=deep(500)))),
    "a JSON list 100,000 deep": ("deep", file("r.json", deep(100_000))),
    "a JSON object 500 deep": ("plain values", file("r.json", '{\n"a": ' + deep(50) + "}")),
    "half of a surrogate pair": ("surrogate", file("r.jsonl", jsonl(x='"\\ud800"'))),
    "a number of 5,000 digits": ("4,300 digits", file("r.jsonl", jsonl(x="7" * 5_000))),
    "a label of 5,000 digits": (
        "texts, not classes",
        file(
            "r.csv", csv([(text, ("7" if label == "no" else "8") * 5_000) for text, label in ROWS])
        ),
    ),
    "a NUL in a text": ("NUL", file("r.csv", csv().replace("thing", "th\0ng"))),
    "UTF-16 without a mark": ("NUL", file("r.csv", csv().encode("utf-16-le"))),
    "a name of a million characters": ("column 1", file("r.csv", csv(header="t" * 10**6 + ",l"))),
    "a header alone": ("no rows", file("r.csv", "text,label\n")),
    "a million commas": ("2,000 columns", file("r.csv", "," * 10**6 + "a\n")),
    "columns of one name, by thousands": ("columns", file("r.csv", ",".join("ab" * 50_000))),
    "one new column a row": (
        "2,000 columns",
        file("r.jsonl", "".join(f'{{"c{n}": 1, "text": "a b"}}\n' for n in range(5_000))),
    ),
    "one key 100,000 times": ("repeated", file("r.jsonl", "{" + '"a": 1,' * 10**5 + '"a": 1}\n')),
    "objects without keys": ("empty", file("r.json", "[" + "{}," * 10**5 + "{}]")),
    "a class a row": (
        "identifiers",
        file("r.csv", csv([(f"text {n} of many words", f"class {n}") for n in range(12_000)])),
    ),
    "too many classes": (
        "10,000 classes",
        file(
            "r.csv",
            csv([(f"text {n} of many words {n * 7}", f"class {n // 3}") for n in range(33_000)]),
        ),
    ),
    **{
        f"one cell of 40 MB in {ending}.gz": (
            "8 million",
            packed(f"r.{ending}.gz", (head, 1), (MILLION, 40), (tail, 1)),
        )
        for ending, head, tail in (
            ("csv", b"text,label\n", b",yes\n"),
            ("tsv", b"text\tlabel\n", b"\tyes\n"),
            ("jsonl", b'{"text": "', b'"}'),
            ("json", b'[{"text": "', b'"}]'),
        )
    },
    "a quotation mark that never closes": (
        "line 2",
        packed("r.csv.gz", (b'text,label\n"', 1), (b"some words, and\n" * 1_000, 1_500)),
    ),
    "gzip of 90 MB of nothing": ("100 times", packed("r.parquet.gz", (bytes(10**6), 90))),
    "a workbook of 90 MB": (
        "100 times",
        workbook(
            "b.xlsx",
            within("sheet1", b"</sheetData>", b"<row></row>" * 8_500_000 + b"</sheetData>"),
        ),
    ),
    "a Parquet cell of 90 MB": (
        "8 million",
        columns("n.parquet", pa.table({"text": ["a" * 90_000_000, "b"], "label": ["x", "y"]})),
    ),
    "a Parquet dictionary of 90 MB": (
        "100 times",
        columns(
            "n.parquet",
            pa.table({"text": TEXTS * 30, "label": LABELS * 30, "x": ["ab" * 25_000] * 1_800}),
        ),
    ),
    "a column of two million lists": (
        "2,000,000 lists",
        packed("r.json.gz", (b'{"text": [[]', 1), (b",[]" * 1_000, 2_100), (b"]}", 1)),
    ),
    "a column of 600,000 ones": (
        "more rows than bytes",
        packed("r.json.gz", (b'{"text": [1', 1), (b",1" * 1_000, 600), (b"]}", 1)),
    ),
    "ten million rows of nothing": (
        "more rows than bytes",
        columns(
            "n.parquet",
            pa.table({"text": pa.nulls(10**7, pa.string()), "label": pa.nulls(10**7, pa.string())}),
        ),
    ),
    **{
        f"a {kind} in place of a file": ("", special(kind))
        for kind in ("fifo", "socket", "loop", "dangling", "device")
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file_is_refused_by_name(case: str, tmp_path: Path, holdfast: Any) -> None:
    words, make = REFUSED[case]
    path = make(tmp_path)
    done = holdfast("train", path, "--dry-run")
    assert done.code == 2, done.err
    assert path.name in done.err
    assert words in done.err
    assert "defect" not in done.err
    assert len(done.err) < 2_000
    assert not list(tmp_path.glob("runs*"))


NAMES = (
    "a\0b.csv",
    "a\0b/c.csv",
    "x" * 5_000 + ".csv",
    "/".join("a" * 2_500) + ".csv",
    "~nobody/x.csv",
    "a\nb.csv",
    "a\x1b[31mred.csv",
    "a\udcff.csv",
    "",
    " ",
    ":::@@@",
    "a/b/c",
    "%00",
    "http://a/b.csv",
    "/dev/zero",
    "/proc/self/mem",
)


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
@pytest.mark.parametrize("option", ["--dry-run", "--test"])
def test_a_name_that_can_be_no_file_is_refused(
    name: str, option: str, tmp_path: Path, holdfast: Any
) -> None:
    good = file("good.csv", csv())(tmp_path)
    arguments = [name, option] if option == "--dry-run" else [good, "--dry-run", option, name]
    done = holdfast("train", *arguments)
    assert done.code == 2, done.err
    assert "defect" not in done.err
    assert "\x1b" not in done.err
    assert len(done.err) < 12_000


ENCODINGS = (
    "undefined",
    "idna",
    "punycode",
    "base64",
    "hex",
    "rot13",
    "zlib",
    "unicode_escape",
    "utf\0-8",
    "x" * 5_000,
    "\udcff",
    "",
    "__init__",
)


@pytest.mark.parametrize("name", ENCODINGS, ids=[ascii(name)[:20] for name in ENCODINGS])
def test_what_is_no_encoding_of_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a text encoding"):
        load(file("good.csv", csv())(tmp_path), encoding=name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.parametrize("closed", ["file", "folder", "class"])
def test_what_may_not_be_read_is_refused(closed: str, as_nobody: Any) -> None:
    def prepare(place: Path) -> None:
        folder = place / "rows"
        (folder / "cat").mkdir(parents=True)
        path = file("good.csv", csv())(folder)
        {"file": path, "folder": folder, "class": folder / "cat"}[closed].chmod(0)

    def act(place: Path) -> None:
        folder = place / "rows"
        read_source(folder if closed == "class" else folder / "good.csv", None, None)

    with pytest.raises(DataError, match=r"(?i)permission denied"):
        as_nobody(prepare, act)


READ = {
    "nested beside": columns("n.parquet", pa.table({"text": TEXTS, "label": LABELS, **NESTED})),
    "several members": file(
        "r.csv.gz",
        gzip.compress(csv(ROWS[:30]).encode())
        + gzip.compress("\n".join(f'"{a}","{b}"' for a, b in ROWS[30:]).encode()),
    ),
    "a mark in the middle": file("r.csv", csv().replace("thing", "\ufeffthing")),
    "names that are ours": file(
        "r.csv",
        csv(
            [("1", "2", "3", "4", *row) for row in ROWS],
            "row,prediction,confidence,__index_level_0__,text,label",
        ),
    ),
    "numbers beyond all numbers": file("r.jsonl", jsonl(x="1e400", y="[1e400, NaN]", z="NaN")),
    "100 deep": file("r.jsonl", jsonl(x=deep(100))),
    "a cell of lists that is a text": file(
        "r.csv", csv([(text, label, deep(50_000)) for text, label in ROWS[:40]], "text,label,x")
    ),
    "a sheet that claims to be wide": workbook(
        "b.xlsx", within("sheet1", b'"A1:B61"', b'"A1:XFD99999"')
    ),
    "one line of JSON": file(
        "r.json", json.dumps([dict(zip(("text", "label"), row, strict=True)) for row in ROWS])
    ),
    "one sentence, packed a thousandfold": packed(
        "r.csv.gz",
        (csv().encode(), 1),
        (b'"the same words again and again, in every row of it","yes"\n' * 1_000, 100),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", READ)
def test_an_odd_file_that_is_right_is_read(case: str, tmp_path: Path) -> None:
    table = load(READ[case](tmp_path))
    assert len(table) >= 40
    assert set(table.classes) == {"no", "yes"}


def test_a_bound_is_a_setting(tmp_path: Path, holdfast: Any, quick: list[str]) -> None:
    path = file(
        "r.csv", csv([(text, label, "x" * 30_000) for text, label in ROWS], "text,label,beside")
    )(tmp_path)
    sets = [part for setting in quick for part in ("--set", setting)]
    tight = holdfast("train", path, "--dry-run", *sets, "--set", "data.limits.cell_mb=0.02")
    assert tight.code == 2
    assert "line 2: holds more than 0.02 million characters" in tight.err
    assert "--set data.limits.cell_mb=" in tight.err
    wide = holdfast("train", path, "--dry-run", *sets, "--set", "data.limits.cell_mb=0.04")
    assert wide.code == 0, wide.err


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_bound_of_a_finished_run_is_raised_as_its_refusal_says(
    command: str, tmp_path: Path, holdfast: Any, finished_run: Path
) -> None:
    """Its recipe is sealed: advice to edit that would lead into the next refusal."""
    rows = [(f"a new text {number}", "no", "x" * 30_000) for number in range(5)]
    path = file("r.csv", csv(rows, "text,label,beside"))(tmp_path)
    tight = holdfast(command, finished_run, path, "--set", "data.limits.cell_mb=0.02")
    assert tight.code == 2
    assert "raise the limit: --set data.limits.cell_mb=" in tight.err
    wide = holdfast(command, finished_run, path, "--set", "data.limits.cell_mb=0.04")
    assert wide.code == 0, wide.err
    other = holdfast(command, finished_run, path, "--set", "train.epochs=2")
    assert other.code == 2
    assert f"names a key that {command} does not have" in other.err


def test_what_is_predicted_is_json(tmp_path: Path, holdfast: Any, finished_run: Path) -> None:
    """A number that JSON has none for comes back as the text that it was read as."""
    path = file("r.jsonl", jsonl(x="1e400", y="[1e400, -1e400, NaN]"))(tmp_path)
    done = holdfast("predict", finished_run, path, "--quiet")
    assert done.code == 0, done.err

    def none(name: str) -> None:
        raise AssertionError(name)

    first = json.loads(done.out.splitlines()[0], parse_constant=none)
    assert (first["x"], first["y"]) == ("inf", ["inf", "-inf", None])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    "case",
    [
        "one cell of 40 MB in csv.gz",
        "a quotation mark that never closes",
        "no plain column at all",
        "gzip cut short",
    ],
)
def test_other_commands_refuse_the_same(
    command: str, case: str, tmp_path: Path, holdfast: Any, finished_run: Path
) -> None:
    path = REFUSED[case][1](tmp_path)
    done = holdfast(command, finished_run, path)
    assert done.code == 2, done.err
    assert path.name in done.err
    # The only keys that these commands take.
    assert all(rest.startswith("data.limits.") for rest in done.err.split("--set ")[1:])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"one\ntwo\0\n", "line 2"),
        (b"\xff\xfe\n", "UTF-8"),
        (b"", "empty"),
        (b"a" * 17_000_000, "8 million"),
    ],
)
def test_standard_input_is_bounded_too(
    given: bytes, words: str, holdfast: Any, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    done = holdfast("predict", finished_run, "-")
    assert done.code == 2, done.err
    assert words in done.err


WORST = """
import resource, sys
from holdfast.core.errors import DataError
from holdfast.data.source import read_source
import pyarrow.parquet, holdfast.data.readers.parquet, holdfast.data.readers.xlsx
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        read_source(path, None, None)
        sys.exit(f"{path} was read")
    except DataError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_the_worst_take_little_memory(tmp_path: Path) -> None:
    cases = (
        "a quotation mark that never closes",
        "one cell of 40 MB in csv.gz",
        "one cell of 40 MB in json.gz",
        "ten million rows of nothing",
        "a column of 600,000 ones",
    )
    paths = []
    for number, case in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        paths.append(REFUSED[case][1](tmp_path / str(number)))
    done = subprocess.run(
        [sys.executable, "-c", WORST, *paths],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) < 300


@pytest.mark.parametrize("seed", range(25))
def test_a_damaged_parquet_file_is_refused_or_read(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(1 + seed % 4):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        return bytes(changed)

    path = columns("n.parquet", GOOD, flip)(tmp_path)
    with contextlib.suppress(DataError):
        load(path)


def test_digits_are_ordered_by_value_however_many() -> None:
    from holdfast.data.labels.classes import sort_classes

    long = "9" * 5_000
    assert sort_classes([f"q{long}", "q10", f"q1{long}", "q9", "q09"]) == (
        "q09",
        "q9",
        "q10",
        f"q{long}",
        f"q1{long}",
    )


def test_chats_without_an_end_take_linear_time() -> None:
    from holdfast.data.chats.turns import parse_rendered

    assert parse_rendered("[/INST]" + "[INST]" * 200_000, "llama2") is None
    turns = parse_rendered("[INST] a [/INST] b " * 20_000, "llama2")
    assert turns is not None
    assert turns[:2] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert len(turns) == 40_000


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_a_readme_beside_missing_rows_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    """It is looked into for where the rows come from."""
    readme = tmp_path / "README.md"
    if kind == "pipe":
        os.mkfifo(readme)
    else:
        with readme.open("wb") as stream:
            stream.truncate(1 << 40)
    with pytest.raises(DataError, match=r"rows\.csv: does not exist"):
        read_source(tmp_path / "rows.csv", None, None)


def test_what_a_runs_limits_are_is_not_advised_to_be_edited(
    tmp_path: Path, holdfast: Any, finished_run: Path
) -> None:
    """The recipe of a finished run is checked by its hash: a change makes the run unusable."""
    (tmp_path / "long.csv").write_text("text\n" + "a " * 4_500_000 + "\n")
    done = holdfast("predict", finished_run, "long.csv")
    assert done.code == 2
    assert "raise the limit: --set data.limits.cell_mb=" in done.err
    assert "recipe.yaml" not in done.err


@pytest.mark.parametrize("kind", ["messages", "labels"])
def test_half_a_character_inside_a_cell_is_refused(
    kind: str, tmp_path: Path, holdfast: Any
) -> None:
    """A cell's JSON may write out what no text can hold; in a cell of its own it is refused too."""
    half = "\ud83d"
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": f"{n}{half}"},
                {"role": "assistant", "content": f"to {n}"},
            ]
        }
        if kind == "messages"
        else {"text": f"the text {n}", "label": ["a", f"b{half}"][: 1 + n % 2]}
        for n in range(60)
    ]
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "r.jsonl").write_text(lines)
    task = "causal-lm" if kind == "messages" else "text-classification"
    done = holdfast("train", "r.jsonl", "--task", task, "--dry-run")
    assert done.code == 2, done.err
    assert "a defect" not in done.err
