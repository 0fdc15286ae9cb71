"""A door, a seed and a number → an input in a folder, and what is done with it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml

from fuzzing import mutate
from fuzzing.seeds import files_in
from holdfast.core.run_shapes import SEAL

KEYS = (
    "seed",
    "train.epochs",
    "train.batch_size",
    "train.learning_rate",
    "train.warmup",
    "train.pack",
    "train.metric",
    "model.max_length",
    "model.freeze",
    "model.dropout",
    "data.label",
    "data.text",
    "data.template",
    "data.split.train",
    "methods.contrast",
    "methods.contrast.steps",
    "control.policy",
    "generate.rows",
    "alert.on",
    "data.encoding",
    "model.adapter.rank",
    "enrich.x",
)
STRANGE = (
    "",
    " ",
    "0",
    "-1",
    "1e309",
    "nan",
    ".inf",
    "true",
    "null",
    "[",
    "[[]]",
    "{a: 1}",
    "*a",
    "1:30",
    "010",
    "9" * 400,
    "x" * 3000,
    "\x1b[2J",
    "é",
    "../../etc/passwd",
    "undefined",
    "utf-16",
    "zlib",
    "text",
    "label",
    "2024-01-31",
    "!!python/name:os.system",
    "text,label",
    "idna",
    "hex",
    "a\tb",
)


@dataclass(frozen=True)
class Case:
    """What to do in the case's folder: a way of ``doors.WAYS`` and its arguments. ``writes`` are
    the names there that may be new afterwards."""

    way: str
    arguments: tuple[str, ...]
    writes: tuple[str, ...] = ()


Maker = Callable[[Random, Path, Path], Case]


def make_case(door: str, seed: int, number: int, root: Path, folder: Path) -> Case:
    """The case, always the same for the same door, seed and number; its input lies in ``folder``,
    made of the seeds below ``root``."""
    random = Random(f"{seed}/{door}/{number}")
    folder.mkdir(parents=True)
    return DOORS[door](random, root, folder)


def rows(random: Random, root: Path, folder: Path) -> Case:
    seed = random.choice(sorted((root / "rows").iterdir()))
    _write(folder / seed.name, seed.read_bytes(), random)
    way = "dry run" if random.random() < 0.15 else "load"
    return Case(way, (seed.name, *_options(random), "--model", str(root / "model")))


def pictures(random: Random, root: Path, folder: Path) -> Case:
    shutil.copytree(root / "pictures", folder / "pictures")
    for _ in range(random.choice((1, 2, 6))):
        _spoil(folder / "pictures", random)
    return Case("load", ("pictures", "--task", "image-classification", "--model", "x"))


def recipes(random: Random, root: Path, folder: Path) -> Case:
    seed = random.choice(sorted((root / "recipes").iterdir()))
    content = seed.read_bytes()
    if random.random() < 0.5:
        content = mutate.mutated(content, random)
    else:
        made = mutate.tree(yaml.safe_load(content), random)
        content = mutate.dumped(made)
    (folder / "r.yaml").write_bytes(content)
    settings: list[str] = []
    for _ in range(random.choice((0, 0, 1, 3))):
        settings += ["--set", f"{random.choice(KEYS)}={random.choice(STRANGE)}"]
    return Case("recipe", ("r.yaml", *settings))


def logs(random: Random, root: Path, folder: Path) -> Case:
    if random.random() < 0.15:
        shutil.copytree(root / "run", folder / "run")
        for _ in range(random.choice((1, 2))):
            _spoil(folder / "run", random)
        name = "run"
    else:
        seed = random.choice(sorted((root / "logs").iterdir()))
        name = seed.name
        _write(folder / name, seed.read_bytes(), random)
    arguments = ["diagnose", name]
    if random.random() < 0.1:
        arguments += ["--set", f"{random.choice(('train', 'valid', 'x'))}={random.choice(STRANGE)}"]
    if random.random() < 0.3:
        arguments += random.choice((["--json"], ["--html", "page.html"]))
    return Case("command", tuple(arguments), ("page.html",))


def reports(random: Random, root: Path, folder: Path) -> Case:
    _spoilt_run(random, root, folder)
    return Case("command", ("report", "run"), ("report.html", "README.md"))


def evaluations(random: Random, root: Path, folder: Path) -> Case:
    name = _run_or_rows(random, root, folder)
    options = ("--label", random.choice(STRANGE)) if random.random() < 0.1 else ()
    return Case("command", ("evaluate", "run", name, "--quiet", *options))


def predictions(random: Random, root: Path, folder: Path) -> Case:
    name = _run_or_rows(random, root, folder)
    out = random.choice(("", "out.jsonl", "out.csv", "out.parquet"))
    options = ("--out", out) if out else ()
    return Case("command", ("predict", "run", name, "--quiet", *options), (out,))


def models(random: Random, root: Path, folder: Path) -> Case:
    kind = random.choice(("model", "model", "causal", "seq2seq", "vision"))
    shutil.copytree(root / kind, folder / kind)
    for _ in range(random.choice((1, 1, 2))):
        _spoil(folder / kind, random)
    return Case("model", (kind,))


def arguments(random: Random, root: Path, folder: Path) -> Case:
    """Command lines of nobody."""
    (folder / "rows.csv").write_bytes((root / "rows" / "rows.csv").read_bytes())
    words = [
        "rows.csv",
        "runs",
        "-",
        "--set",
        "--out",
        "--json",
        "--test",
        "--label",
        "--text",
        "--seed",
        "--task",
        "--help",
        "--version",
        "--fail-on",
        "--quiet",
        "--resume",
        "/dev/zero",
        "/dev/null",
        ".",
        "..",
        "/",
        *STRANGE,
    ]
    command = random.choice(("train", "diagnose", "evaluate", "predict", "report", "trian", ""))
    given = [command, *random.choices(words, k=random.randrange(1, 6))]
    return Case("command", (*given, "--dry-run") if command == "train" else tuple(given))


DOORS: dict[str, Maker] = {
    "rows": rows,
    "pictures": pictures,
    "recipes": recipes,
    "logs": logs,
    "reports": reports,
    "evaluate": evaluations,
    "predict": predictions,
    "models": models,
    "arguments": arguments,
}


def _options(random: Random) -> list[str]:
    if random.random() < 0.8:
        return []
    option = random.choice(("--text", "--label", "--group", "--task", "--encoding", "--test"))
    if option == "--encoding":
        return ["--set", f"data.encoding={random.choice(STRANGE)}"]
    if option == "--task":
        return ["--task", random.choice(("seq2seq", "causal-lm", "text-classification"))]
    return [option, random.choice(STRANGE)]


def _run_or_rows(random: Random, root: Path, folder: Path) -> str:
    """A spoilt run and good rows, or a good run and spoilt rows."""
    names = ["rows.csv", "rows.jsonl", "rows.parquet", "rows.json"]
    name = random.choice(names)
    content = (root / "rows" / name).read_bytes()
    if random.random() < 0.6:
        _spoilt_run(random, root, folder)
        (folder / name).write_bytes(content)
    else:
        shutil.copytree(root / "run", folder / "run")
        _write(folder / name, content, random)
    return name


def _spoilt_run(random: Random, root: Path, folder: Path) -> None:
    shutil.copytree(root / "run", folder / "run")
    if random.random() < 0.5:
        _unseal(folder / "run" / "result.json")
    for _ in range(random.choice((1, 1, 2, 3))):
        _spoil(folder / "run", random)


def _unseal(result: Path) -> None:
    """A run of an older version, which kept no digests: what is spoilt is found out by reading."""
    told = json.loads(result.read_bytes())
    told.pop(SEAL, None)
    result.write_text(json.dumps(told))


def _spoil(folder: Path, random: Random) -> None:
    """One file below the folder changed, gone, or no file any more."""
    path = random.choice(list(files_in(folder)) or [folder / "x"])
    if not path.is_file():
        return
    way = random.random()
    if way < 0.8:
        _write(path, path.read_bytes(), random)
        return
    path.unlink()
    if way < 0.85:
        path.mkdir()
    elif way < 0.9:
        path.symlink_to(random.choice((path.name, "nowhere", folder, "/dev/zero", "/etc/passwd")))
    elif way < 0.93:
        os.mkfifo(path)
    elif way < 0.95:
        path.write_bytes(b"")


def _write(path: Path, content: bytes, random: Random) -> None:
    """The content changed by its parts, where the ending says what they are, or by its bytes."""
    structural = PARTS.get(path.suffix)
    if structural is not None and random.random() < 0.6:
        try:
            content = structural(content, random)
        except Exception:  # it was spoilt before, and has no such parts any more
            content = mutate.mutated(content, random)
    else:
        content = mutate.mutated(content, random)
    path.write_bytes(content)


def _yaml(content: bytes, random: Random) -> bytes:
    return mutate.dumped(mutate.tree(yaml.safe_load(content), random))


def _safetensors(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = mutate.dumped(mutate.tree(json.loads(content[8 : 8 + length]), random))
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _parquet(content: bytes, random: Random) -> bytes:
    """A table of the same rows whose columns are of other types."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    n = table.num_rows
    kinds: list[Callable[[], object]] = [
        lambda: pa.nulls(n),
        lambda: pa.array([[i] for i in range(n)]),
        lambda: pa.array([{"a": [{"b": i}]} for i in range(n)]),
        lambda: pa.array([b"\xff\0"] * n),
        lambda: pa.array(range(n), pa.date64()),
        lambda: pa.array(range(n), pa.duration("us")),
        lambda: pa.array([i % 2 == 0 for i in range(n)]),
        lambda: pa.array([""] * n),
        lambda: pa.array([float("nan")] * n),
        lambda: pa.array([2**63 - 1] * n),
        lambda: pa.array(range(n), pa.decimal128(38, 10)),
        lambda: pa.array(["a\0\x1b[2J"] * n),
        lambda: pa.array([[("k", i)] for i in range(n)], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array(["x"] * n).dictionary_encode(),
        lambda: pa.array(["y" * 20_000] * n),
        lambda: pa.array([[f"t{i}"] * (i % 3) for i in range(n)]),
    ]
    for _ in range(random.choice((1, 1, 2, 5))):
        name = random.choice([*table.column_names, "new", "", "text", "\x1b[2J"])
        column = random.choice(kinds)()
        place = table.column_names.index(name) if name in table.column_names else 0
        if name in table.column_names and random.random() < 0.9:
            table = table.set_column(place, name, column)
        else:
            table = table.add_column(place, name, column)
    if random.random() < 0.15:
        table = table.slice(0, random.choice((0, 1, 2)))
    target = io.BytesIO()
    pq.write_table(table, target)
    made = target.getvalue()
    return mutate.mutated(made, random) if random.random() < 0.15 else made


PARTS: dict[str, Callable[[bytes, Random], bytes]] = {
    ".json": mutate.document,
    ".jsonl": mutate.lines,
    ".csv": mutate.table,
    ".tsv": mutate.table,
    ".yaml": _yaml,
    ".xlsx": mutate.archive,
    ".npz": mutate.archive,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}
