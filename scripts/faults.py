"""A hundred faults, drawn at random from the code, to ask whether the tests find them.

    python scripts/faults.py draw OUT [--root SRC] [--seed N] [--count 100]
    python scripts/faults.py plant FILE ID [--root SRC]     # git takes it out again
    python scripts/faults.py check FILE [--root SRC]        # which can still be planted

A fault is one small change within one statement of a function, or within the header of a compound
statement; ``fault_operators.py`` has the changes. Each package gets a share in proportion to the
square root of its statements, and at least one fault. An operator is drawn among those that the
package has a place for, then one of its places. A function gets one fault at most.

`plant` finds a fault by module, function and statement, however the lines are laid out. Where the
code was moved, edit the record so that it says where the fault is now.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fault_operators import (
    BLOCKS,
    FUNCTIONS,
    OPERATORS,
    Code,
    Spot,
    exchanged,
    for_types,
    spots,
    statements,
    written,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "holdfast"
Record = dict[str, Any]


class Lost(Exception):
    """A fault cannot be planted; the message says why."""


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    name: str
    path: Path
    text: bytes

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]


Sources = dict[str, Source]


def read(root: Path) -> Sources:
    """Every file of the package below ``root`` by its dotted name, in order."""
    sources = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        sources[name] = Source(name, path, path.read_bytes())
    return sources


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every function below ``node``, with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield prefix + child.name, child
            yield from functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}{child.name}.")
        elif not for_types(child):
            yield from functions(child, prefix)


def planted(text: bytes, statement: ast.stmt, new: str) -> bytes:
    """The text with ``new`` where the statement, or the header of a compound one, is."""
    lines = [0, *(found.end() for found in re.finditer(rb"\n", text))]
    start = lines[statement.lineno - 1] + statement.col_offset
    whole = "body" not in statement._fields
    parts: list[Any] = [statement] if whole else _header(statement)
    end = max(lines[one.end_lineno - 1] + one.end_col_offset for one in parts) if parts else start
    if not whole and (colon := re.match(rb"(?:[^:#]|#[^\n]*)*:", text[end:])):
        end += colon.end()
    # The tree calls both `if`.
    kept = b"el" if text.startswith(b"elif", start) else b""
    return text[:start] + kept + new.encode() + text[end:]


def _header(statement: ast.stmt) -> list[Any]:
    fields = [value for name, value in ast.iter_fields(statement) if name not in BLOCKS]
    nodes = [one for value in fields for one in (value if isinstance(value, list) else [value])]
    inner = [deep for one in nodes if isinstance(one, ast.AST) for deep in ast.walk(one)]
    return [one for one in inner if hasattr(one, "end_lineno")]


def located(record: Record, sources: Sources) -> tuple[Source, bytes]:
    """The file of a fault, and its text with the fault in it."""
    module, name = record["module"], record["function"]
    source = sources.get(module)
    if source is None:
        raise Lost(f"There is no module {module}.")
    bodies = [body for found, body in functions(source.tree) if found == name]
    if not bodies:
        raise Lost(f"{module} has no function {name}.")
    before = normal(record["before"])
    found = [one for body in bodies for one, _ in statements(body) if written(one) == before]
    if len(found) != 1:
        count = f"the statement {len(found)} times" if found else "no statement"
        raise Lost(f"{module}.{name} has {count}: {before}")
    return source, _compiled(source, planted(source.text, found[0], record["after"]))


def _compiled(source: Source, text: bytes) -> bytes:
    try:
        compile(text, source.path, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Lost(f"{source.name} does not compile with the fault: {error}.") from None
    if ast.dump(ast.parse(text)) == ast.dump(source.tree):
        raise Lost(f"{source.name} is the same with the fault.")
    return text


def normal(text: str) -> str:
    """What ``written`` makes of a statement or a header."""
    for whole in (text, f"{text} pass"):
        try:
            return written(ast.parse(whole).body[0])
        except (SyntaxError, IndexError):
            continue
    raise Lost(f"This is no statement and no header: {text}.")


@dataclass(frozen=True)
class Place:
    """Where a fault may be, and what is there then."""

    source: Source
    function: str
    operator: str
    at: Spot
    new: ast.AST

    def record(self) -> Record:
        """The fault as it is written down, but for its name and commit."""
        return {
            "package": self.source.package,
            "module": self.source.name,
            "function": self.function,
            "operator": self.operator,
            "line": self.at.statement.lineno,
            "before": written(self.at.statement),
            "after": written(exchanged(self.at.statement, self.at.node, self.new)),
        }


Places = dict[str, dict[str, list[Place]]]


def places(sources: Sources) -> Places:
    """Every possible fault by package and operator, in the order of the files."""
    code = Code(source.tree for source in sources.values())
    found: Places = defaultdict(lambda: defaultdict(list))
    for source in sources.values():
        for name, function in functions(source.tree):
            for at in spots(function, code):
                for operator, make in OPERATORS.items():
                    for new in make(at):
                        found[source.package][operator].append(
                            Place(source, name, operator, at, new)
                        )
    return found


def shares(sources: Sources, free: Sequence[str], count: int) -> dict[str, int]:
    """How many faults each package gets: one, and the rest by the roots of their statements."""
    sizes = dict.fromkeys(free, 0)
    for source in sources.values():
        if source.package in sizes:
            sizes[source.package] += sum(isinstance(n, ast.stmt) for n in ast.walk(source.tree))
    given = dict.fromkeys(free, 1)
    if count < len(given):
        raise Lost(f"Each of the {len(given)} packages gets a fault: draw {len(given)} or more.")
    while sum(given.values()) < count:
        # Sainte-Laguë: the next goes to the package that is furthest from its share.
        given[max(given, key=lambda one: math.sqrt(sizes[one]) / (2 * given[one] + 1))] += 1
    return given


def drawn(sources: Sources, seed: int, count: int) -> list[Record]:
    """The faults, by package and line."""
    rng, found = random.Random(seed), places(sources)
    used: set[tuple[str, str]] = set()
    records = []
    for package, share in shares(sources, sorted(found), count).items():
        for _ in range(share):
            record = _one(found[package], used, sources, rng)
            used.add((record["module"], record["function"]))
            records.append(record)
    return sorted(records, key=lambda one: (one["package"], one["module"], one["line"]))


def _one(
    left: dict[str, list[Place]], used: set[tuple[str, str]], sources: Sources, rng: random.Random
) -> Record:
    while operators := [name for name in OPERATORS if left.get(name)]:
        here = left[rng.choice(operators)]
        place = here.pop(rng.randrange(len(here)))
        if (place.source.name, place.function) not in used:
            record = place.record()
            try:
                located(record, sources)
            except Lost:
                # Equal, or not the only one of its kind in the function: drawn again.
                continue
            return record
    raise Lost("A package has fewer functions than its share of faults: draw fewer.")


def commit(root: Path) -> str:
    """The commit that ``root`` is at; changes that are not committed are refused."""
    git = ["git", "-C", str(root)]
    status = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, check=True)
    if status.stdout:
        raise Lost(f"{root} has changes that are not committed; commit them before a draw.")
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True)
    return head.stdout.strip()


def draw(options: argparse.Namespace) -> int:
    head = commit(options.root)
    records = drawn(read(options.root), options.seed, options.count)
    lines = [
        json.dumps({"id": f"F{n:03}", **one, "commit": head}, ensure_ascii=False)
        for n, one in enumerate(records, 1)
    ]
    options.file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return 0


def plant(options: argparse.Namespace) -> int:
    chosen = [one for one in _records(options.file) if one["id"] == options.id]
    if len(chosen) != 1:
        raise Lost(f"{options.file} has {len(chosen)} faults with the id {options.id}.")
    source, text = located(chosen[0], read(options.root))
    source.path.write_bytes(text)
    return 0


def check(options: argparse.Namespace) -> int:
    records, sources, lost = _records(options.file), read(options.root), 0
    for record in records:
        try:
            located(record, sources)
            print(f"{record['id']}  can be planted")
        except Lost as error:
            lost += 1
            print(f"{record['id']}  {error}")
    print(f"{len(records) - lost} of {len(records)} faults can be planted.")
    return 1 if lost else 0


def _records(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    for run in (draw, plant, check):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("file", type=Path)
        command.add_argument("--root", type=Path, default=ROOT / "src")
        if run is plant:
            command.add_argument("id")
        if run is draw:
            command.add_argument("--seed", type=int, default=28)
            command.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    try:
        return int(options.run(options))
    except Lost as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
