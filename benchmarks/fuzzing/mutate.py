"""Bytes and values, changed at random: a pure function of a ``random.Random``."""

from __future__ import annotations

import gzip
import io
import json
import math
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

SPLINTERS = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b'"',
    b"'",
    b",,",
    b"\t",
    b"\x1b[2J",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"&a",
    b"*a",
    b"<<: *a",
    b"!!python/name:os.system",
    b"---",
    b"%s",
    b"../",
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e309",
    b"9" * 40,
    b"9" * 5000,
    b"0x",
    b"null",
    b"true",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    "\u202e".encode(),
    b"<script>",
    b"\x80",
    b"=cmd|' /C'!A1",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**64,
    -(2**63) - 1,
    10**20,
    10**400,
    0.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
    "",
    " ",
    "x",
    "0",
    "1e5",
    "NaN",
    "true",
    "\0",
    "\x1b[2J",
    "\ud800",
    "../../etc/passwd",
    "/dev/zero",
    "a" * 5000,
    "é" * 300,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [1, "a", None],
    {"a": {"b": [1]}},
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig", "utf-7", "cp500")


def mutated(data: bytes, random: Random) -> bytes:
    """One to four changes of the bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        data = random.choice(BYTEWISE)(data, random)
    return data[:LARGEST]


LARGEST = 4_000_000


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _drop(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 2, 10, 100, 1000)) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(SPLINTERS) * random.choice((1, 1, 1, 2, 50)) + data[at:]


def _repeat(data: bytes, random: Random) -> bytes:
    at, size = random.randrange(len(data) + 1), random.choice((1, 5, 50, 500))
    return data[:at] + data[at : at + size] * random.choice((2, 10, 300)) + data[at:]


def _noise(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 8, 200))) + data[at:]


def _overwrite(data: bytes, random: Random) -> bytes:
    """A number in the header or anywhere else as the largest, the smallest, or none."""
    at = random.randrange(min(len(data), random.choice((16, 200, len(data) + 1))) + 1)
    put = random.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * random.choice((1, 2, 4, 8))
    return data[:at] + put + data[at + len(put) :]


def _digits(data: bytes, random: Random) -> bytes:
    places = [i for i, byte in enumerate(data[:20_000]) if 48 <= byte <= 57]
    if not places:
        return data
    at = random.choice(places)
    put = random.choice((b"-1", b"1e400", b"9" * 30, b"nan", b"", b"0x1", b"1:30", b"''", b"true"))
    return data[:at] + put + data[at + 1 :]


def _lines(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    way = random.randrange(4)
    if way == 0:
        random.shuffle(lines)
    elif way == 1:
        lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    elif way == 2:
        del lines[random.randrange(len(lines))]
    else:
        lines = lines * random.choice((2, 20))
    return b"\n".join(lines)


def _encode(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    return text.encode(random.choice(ENCODINGS), errors="replace")


def _wrap(data: bytes, random: Random) -> bytes:
    packed = gzip.compress(data, mtime=0)
    return random.choice((packed, gzip.decompress(packed) + packed, packed[:-4], packed + b"x"))


BYTEWISE: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _drop,
    _insert,
    _insert,
    _repeat,
    _noise,
    _overwrite,
    _digits,
    _lines,
    _encode,
    _wrap,
)


def tree(value: Any, random: Random) -> Any:
    """A value of lists and tables with one to four of its parts changed."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = _one(value, random)
    return value


def _one(value: Any, random: Random) -> Any:
    """One part changed, found by going down at random."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(min(len(value), 1000)))
    if not keys or random.random() < 0.15:
        return strange(value, random)
    key = random.choice(keys)
    way = random.random()
    if way < 0.1:
        del value[key]
    elif way < 0.2 and isinstance(value, dict):
        value[
            random.choice(("", "x" * 300, "\x1b[1m", f"{key} ", str(key).upper(), "__class__"))
        ] = value.pop(key) if random.random() < 0.5 else value[key]
    elif way < 0.25 and isinstance(value, list):
        value.extend([value[key]] * random.choice((1, 5, 200)))
    else:
        value[key] = _one(value[key], random)
    return value


def strange(value: Any, random: Random) -> Any:
    """Something else in the place of a value."""
    way = random.random()
    if way < 0.55:
        chosen = random.choice(VALUES)
        return json.loads(json.dumps(chosen)) if isinstance(chosen, (dict, list)) else chosen
    if way < 0.65:
        return [value] * random.choice((1, 2, 100))
    if way < 0.75:
        return {"a": value}
    if way < 0.85:
        return deep(random.choice((20, 60, 300, 2000)), random)
    if type(value) is float or (type(value) is int and abs(value) < 2**63):
        return random.choice((-value, value * 1e6, str(value), value + 0.5))
    if isinstance(value, str):
        return value * random.choice((0, 2, 200))
    return str(value) if not isinstance(value, (dict, list)) else len(value)


def deep(levels: int, random: Random) -> Any:
    """Lists or tables inside each other."""
    made: Any = 1
    for _ in range(levels):
        made = [made] if random.random() < 0.5 else {"a": made}
    return made


def dumped(value: Any) -> bytes:
    """As JSON, whatever it holds: deeper than ``json`` itself writes, and numbers of 400 digits.
    Cut off where it would be larger than anything here."""
    parts: list[str] = []
    waiting: list[Any] = [value]
    closing = object()
    written = 0
    while waiting and written < LARGEST:
        one = waiting.pop()
        written += len(parts[-1]) if parts else 0
        if isinstance(one, tuple) and one and one[0] is closing:
            parts.append(one[1])
        elif isinstance(one, dict):
            parts.append("{")
            inner: list[Any] = []
            for place, (key, item) in enumerate(one.items()):
                inner += [(closing, (", " if place else "") + json.dumps(str(key)) + ": "), item]
            waiting += [(closing, "}"), *reversed(inner)]
        elif isinstance(one, list):
            parts.append("[")
            inner = []
            for place, item in enumerate(one):
                inner += [(closing, ", ")] if place else []
                inner.append(item)
            waiting += [(closing, "]"), *reversed(inner)]
        else:
            parts.append(json.dumps(one))
    return "".join(parts).encode("utf-8", errors="surrogatepass")


def document(data: bytes, random: Random) -> bytes:
    """A JSON document changed in its parts, now and then in its bytes too."""
    made = dumped(tree(json.loads(data), random))
    return mutated(made, random) if random.random() < 0.2 else made


def lines(data: bytes, random: Random) -> bytes:
    """JSON one a line, some of them changed in their parts."""
    rows = data.split(b"\n")
    for _ in range(random.choice((1, 1, 3, 10))):
        at = random.randrange(len(rows))
        if rows[at].strip():
            rows[at] = _try_document(rows[at], random)
    made = b"\n".join(rows)
    return mutated(made, random) if random.random() < 0.2 else made


def _try_document(row: bytes, random: Random) -> bytes:
    try:
        return dumped(tree(json.loads(row), random))
    except (ValueError, RecursionError):
        return mutated(row, random)


def table(data: bytes, random: Random) -> bytes:
    """A delimited table changed in its cells, columns and rows."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(random.choice((1, 2, 5, 30))):
        row = random.choice(rows)
        way = random.randrange(6)
        if way == 0:
            row[random.randrange(len(row))] = random.choice(SPLINTERS)
        elif way == 1:
            row.append(random.choice(SPLINTERS))
        elif way == 2:
            del row[random.randrange(len(row)) :]
            row.append(b"")
        elif way == 3:
            row[random.randrange(len(row))] = b'"' + b"x" * random.choice((1, 5000)) + b'"'
        elif way == 4:
            column = random.randrange(len(row))
            put = random.choice((b"", b"same", b"1", b"nan"))
            for other in rows[1:]:
                if column < len(other):
                    other[column] = put
        else:
            rows[0] = row
    mark = random.choice((b",", b",", b",", b";", b"\t", b"|"))
    return b"\n".join(mark.join(row) for row in rows)


def archive(data: bytes, random: Random) -> bytes:
    """A zip (a workbook) with one of its files changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        files = {name: old.read(name) for name in old.namelist()}
    name = random.choice(sorted(files))
    way = random.random()
    if way < 0.15:
        del files[name]
    elif way < 0.25:
        files[f"../{name}"] = files[name]
    else:
        files[name] = mutated(files[name], random)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for one, content in files.items():
            new.writestr(zipfile.ZipInfo(one), content)
    return target.getvalue()
