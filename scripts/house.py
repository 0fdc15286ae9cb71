"""What it takes to read the code: sizes, names, signatures, imports, and what one command enters.

    python scripts/house.py            # by the source alone, seconds
    python scripts/house.py --runs     # and what a training of 160 rows enters, minutes

Lines are all lines; lines of code are those with a token that is neither a comment nor a docstring.
A statement is a node of the syntax tree that is one, docstrings left out. What `holdfast train` can
reach is every module of the package that an import, at any depth of a function, or a module's name
in a table leads to from its command, and each module of a package that finds its own; imports for
types alone count for nothing. Everything is a sign, nothing an aim.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gzip
import io
import json
import subprocess
import sys
import tempfile
import tokenize
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "holdfast"
# Where the command of a training begins.
TRAIN = f"{PACKAGE}.cli.train"
MOST_LINES, MOST_BODY, MOST_PARAMETERS, MOST_FLAT = 500, 50, 8, 25
# Participles without an ending that tells them, and words that have such an ending by chance.
IRREGULAR = """
begun born bought built caught chosen done drawn driven fed felt fitted found given gone grown
heard held kept known laid led left lent lost made meant met paid put read run said seen sent
set shown sold spent split spoken stood taken taught thought told torn understood won worn
written also apart aside away back behind beneath beside between beyond here near next once
onwards then there together where within
"""
NOUNS = """
embed feed seed need speed shed bed red thing string king ring spring wing evening training
encoding embedding pooling scaling loading padding clustering sampling smoothing stacking
scoring tokenizing matching binding family reply supply apply ply fly setting settings wording
warning meaning rating pairing run spelling masking pruning sharding boosting checkpointing
forgetting labelling learning lightning
"""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
BLANK = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass
class Source:
    """One file: its dotted name, its tree, and what stands in it."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    tokens: list[tokenize.TokenInfo] = field(default_factory=list)

    @cached_property
    def docstrings(self) -> list[ast.Expr]:
        """The statements that are docstrings."""
        return [
            node.body[0]
            for node in ast.walk(self.tree)
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
            if isinstance(node.body[0], ast.Expr)
        ]

    @cached_property
    def documented(self) -> set[int]:
        """The lines of docstrings."""
        return {n for one in self.docstrings for n in _lines(one)}

    @cached_property
    def code(self) -> set[int]:
        """The lines with code."""
        return {
            number for token in self.words for number in range(token.start[0], token.end[0] + 1)
        }

    @cached_property
    def words(self) -> list[tokenize.TokenInfo]:
        """The tokens that are neither layout, comment nor docstring."""
        return [
            token
            for token in self.tokens
            if token.type not in (*BLANK, tokenize.COMMENT)
            and not (token.type == tokenize.STRING and token.start[0] in self.documented)
        ]

    @property
    def package(self) -> str:
        """The package below the root that it is of, or its own name."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, FUNCTIONS):
                yield node


def _lines(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def read(root: Path) -> dict[str, Source]:
    """Every file of the package below ``root``, by its dotted name."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        found[name] = Source(name, path, text, ast.parse(text), tokens)
    return found


@dataclass(frozen=True)
class Import:
    """``by`` takes ``name`` from the module ``of``: in a statement that ``runs``, for ``types``
    alone, or because a ``table`` has its name."""

    by: str
    of: str
    name: str
    how: str


def imports(sources: dict[str, Source]) -> list[Import]:
    """Every import of a module of the package by another."""
    found = []
    for source in sources.values():
        for node, typing in _statements(source.tree, False):
            if isinstance(node, ast.Import):
                pairs = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                pairs = [(str(node.module), alias.name) for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # A table of what is imported when it is asked for.
                pairs = [(node.value.partition(":")[0], "")]
            elif isinstance(node, ast.Call):
                inner = _searched(node, source.name)
                pairs = [(name, "") for name in sources if inner and name.startswith(inner)]
            else:
                continue
            written = isinstance(node, (ast.Import, ast.ImportFrom))
            how = "types" if typing else "runs" if written else "table"
            for module, name in pairs:
                whole = f"{module}.{name}"
                of, taken = (whole, "") if whole in sources else (module, name)
                if of in sources and of != source.name:
                    found.append(Import(source.name, of, taken, how))
    return found


def _searched(call: ast.Call, by: str) -> str:
    """How the names of all modules begin that a call imports, whatever they are; empty of others.
    A package finds its own, or a module in it does, or one beside it."""
    said, home = ast.unparse(call), by.rpartition(".")[0]
    if said.startswith("importlib.import_module(f'{__name__}."):
        return f"{by}."
    if not said.startswith("import_modules("):
        return ""
    if "rpartition" in said:
        return f"{home}."
    (given,) = call.args
    named = ast.unparse(given).removesuffix("__name__").removesuffix(".")
    return f"{home}.{named}." if named else f"{by}."


def _statements(node: ast.AST, typing: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        inner = typing
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = True
        yield child, inner
        yield from _statements(child, inner)


def reached(start: str, sources: dict[str, Source], found: Sequence[Import]) -> set[str]:
    """The modules that an import leads to from ``start`` when it runs, the packages that hold
    them among them."""
    leads: dict[str, set[str]] = defaultdict(set)
    for one in found:
        if one.how != "types":
            leads[one.by].add(one.of)
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in sources:
            continue
        seen.add(name)
        waiting += leads[name]
        waiting.append(name.rpartition(".")[0])
    return seen


def sizes(sources: Iterable[Source]) -> dict[str, int]:
    """Files, lines, statements, tokens."""
    every = list(sources)
    statements = [
        sum(isinstance(node, ast.stmt) for node in ast.walk(one.tree)) - len(one.docstrings)
        for one in every
    ]
    return {
        "files": len(every),
        "lines": sum(len(one.text.splitlines()) for one in every),
        "lines of code": sum(len(one.code) for one in every),
        "lines of docstrings": sum(len(one.documented) for one in every),
        "lines with a comment": sum(
            len({t.start[0] for t in one.tokens if t.type == tokenize.COMMENT}) for one in every
        ),
        "statements": sum(statements),
        "tokens": sum(len(one.words) for one in every),
        "tokens with docstrings": sum(
            sum(t.type not in (*BLANK, tokenize.COMMENT) for t in one.tokens) for one in every
        ),
    }


def limits(sources: dict[str, Source]) -> dict[str, Any]:
    """Files and functions that are too long, folders that are too flat."""
    flat = Counter(one.path.parent for one in sources.values() if one.path.stem != "__init__")
    long = {one.name: len(one.code) for one in sources.values()}
    bodies = {
        f"{one.name}.{node.name}": len(set(_lines(node)) & one.code)
        for one in sources.values()
        for node in one.functions()
    }
    return {
        f"files above {MOST_LINES} lines of code": _above(long, MOST_LINES),
        f"functions above {MOST_BODY} lines of code": _above(bodies, MOST_BODY),
        f"folders above {MOST_FLAT} modules": {
            folder.name: count for folder, count in flat.most_common() if count > MOST_FLAT
        },
    }


def _above(counts: dict[str, int], most: int) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count > most}


def signatures(sources: dict[str, Source]) -> dict[str, Any]:
    """Parameters, what is annotated with Any, what is documented."""
    total = loose = many = public = documented = 0
    for source in sources.values():
        for node in source.functions():
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            own = [one for one in arguments if one.arg not in ("self", "cls")]
            many += len(own) >= MOST_PARAMETERS
            for one in [*own, *filter(None, (node.args.vararg, node.args.kwarg))]:
                total += 1
                names = ast.walk(one.annotation) if one.annotation else ()
                loose += any(isinstance(n, ast.Name) and n.id == "Any" for n in names)
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
                public += 1
                documented += ast.get_docstring(node) is not None
    return {
        "parameters": total,
        "parameters that hold Any, %": round(100 * loose / max(1, total), 1),
        f"functions with {MOST_PARAMETERS} parameters or more": many,
        "public functions and classes": public,
        "of them with a docstring, %": round(100 * documented / max(1, public), 1),
    }


def names(sources: dict[str, Source]) -> dict[str, Any]:
    """Class names in several files, and files named by a participle or an adverb."""
    places: dict[str, set[str]] = defaultdict(set)
    for source in sources.values():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(source.name)
    files = [one.path.stem for one in sources.values()]
    return {
        "class names in several files": sum(len(where) > 1 for where in places.values()),
        "files named by a bare participle or adverb": sorted(n for n in files if _odd(n)),
        "files with one in their name": sum(any(map(_odd, n.split("_"))) for n in files),
    }


def _odd(word: str) -> bool:
    if word in NOUNS.split() or "_" in word:
        return False
    return word in IRREGULAR.split() or word.endswith(("ed", "ly", "ing"))


def drawing(sources: dict[str, Source], found: Sequence[Import]) -> dict[str, Any]:
    """Packages, arrows between them, circles, and what is taken past a package's public names."""
    runs = [one for one in found if one.how == "runs"]
    package = {name: source.package for name, source in sources.items()}
    arrows = {(package[one.by], package[one.of]) for one in runs}
    past, times = defaultdict(set), 0
    for one in runs:
        home = package[one.of]
        if package[one.by] == home or one.of in (f"{PACKAGE}.{home}", PACKAGE):
            continue
        exported = _exported(sources.get(f"{PACKAGE}.{home}"))
        if one.name not in exported:
            past[home].add(one.of)
            times += 1
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = [
        one["layers"]
        for one in settings["tool"]["importlinter"]["contracts"]
        if one["type"] == "layers"
    ]
    return {
        "packages and modules at the top": len(set(package.values()) - {PACKAGE}),
        "layers": len(layers),
        "arrows between them": sum(a != b and PACKAGE not in (a, b) for a, b in arrows),
        "circles of modules": circles({(one.by, one.of) for one in runs}),
        "modules taken past a package's public names": sum(map(len, past.values())),
        "by so many imports": times,
        "most of them of": {k: len(v) for k, v in sorted(past.items(), key=_many)[:5]},
    }


def _many(item: tuple[str, set[str]]) -> int:
    return -len(item[1])


def _exported(source: Source | None) -> set[str]:
    if source is None:
        return set()
    return {
        str(one.value)
        for node in source.tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for one in ast.walk(node.value)
        if isinstance(one, ast.Constant)
    }


def circles(pairs: set[tuple[str, str]]) -> int:
    """How many groups of modules import one another in a circle."""
    names = sorted({name for pair in pairs for name in pair})
    place = {name: at for at, name in enumerate(names)}
    rows, columns = zip(*((place[a], place[b]) for a, b in pairs), strict=True)
    arrows = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, groups = connected_components(arrows, directed=True, connection="strong")
    return int((np.bincount(groups) > 1).sum())


WATCHED = """
import json, sys, threading
from pathlib import Path
root, out, point = sys.argv[1], sys.argv[2], sys.argv[3]
entered, within, depth = set(), set(), [0]
def watch(frame, event, _):
    code = frame.f_code
    # What is optimised is a function, and no body of a module or a class.
    known = code.co_flags & 1 and not code.co_name.startswith("<")
    if event == "call" and known and code.co_filename.startswith(root):
        one = (code.co_filename, code.co_qualname)
        entered.add(one)
        if code.co_qualname == point:
            depth[0] += 1
        if depth[0]:
            within.add(one)
    elif event == "return" and code.co_qualname == point:
        depth[0] -= 1
threading.setprofile(watch)
sys.setprofile(watch)
from holdfast.cli.main import main
sys.argv = ["holdfast", *sys.argv[4:]]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
finally:
    sys.setprofile(None)
    Path(out).write_text(json.dumps([sorted(entered), sorted(within)]))
"""
ROWS = 160
# The function that takes one evaluation of a run.
POINT = "_evaluate"


def runs(root: Path) -> dict[str, Any]:
    """Files and functions that a training of 160 rows enters, one of its evaluations, and a
    prediction by what it made."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        head, made = Path(place) / "rows.csv", str(Path(place) / "run")
        _write_rows(root / PACKAGE / "demo" / "packages.csv.gz", head)
        entered, within = _entered(place, root, ["train", str(head), "--out", made])
        asked, _ = _entered(place, root, ["predict", made, str(head), "--out", f"{place}/a.jsonl"])
    for what, one in (("training", entered), ("evaluation", within), ("prediction", asked)):
        found[f"files with a function that a {what} enters"] = len({file for file, _ in one})
        found[f"functions that a {what} enters"] = len(one)
    return found


def _write_rows(packed: Path, to: Path) -> None:
    """The first rows of the two largest classes of the demo, half of each."""
    with gzip.open(packed, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = [name for name, _ in Counter(row["section"] for row in rows).most_common(2)]
    with to.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for name in classes:
            own = [row["text"] for row in rows if row["section"] == name]
            out.writerows([text, name] for text in own[: ROWS // 2])


def _entered(place: str, root: Path, command: list[str]) -> tuple[list[Any], list[Any]]:
    out = Path(place) / "entered.json"
    subprocess.run(
        [sys.executable, "-c", WATCHED, str(root), str(out), POINT, *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    entered, within = json.loads(out.read_text("utf-8"))
    return entered, within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", action="store_true", help="and what a training enters")
    parser.add_argument("--root", type=Path, default=ROOT / "src", help="the folder of the package")
    asked = parser.parse_args()
    sources = read(asked.root.resolve())
    found = imports(sources)
    core = reached(TRAIN, sources, found)
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("The whole", lambda: sizes(sources.values())),
        ("What holdfast train can reach", lambda: sizes(sources[name] for name in core)),
        ("Limits", lambda: limits(sources)),
        ("Signatures", lambda: signatures(sources)),
        ("Names", lambda: names(sources)),
        ("Drawing", lambda: drawing(sources, found)),
    ]
    if asked.runs:
        parts.append(("What runs", lambda: runs(asked.root.resolve())))
    for title, count in parts:
        print(f"\n{title}")
        for what, value in count().items():
            print(f"  {what}: {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return f"{len(value)}  " + ", ".join(f"{k} {v}" for k, v in list(value.items())[:12])
    if isinstance(value, list):
        return f"{len(value)}  " + " ".join(value)
    return str(value)


if __name__ == "__main__":
    main()
