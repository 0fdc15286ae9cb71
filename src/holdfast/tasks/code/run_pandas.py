"""One pandas program on tables in memory. Of Holdfast it knows ``pandas_words`` alone.

Before anything runs, the program is read as a tree: kinds of nodes, names, attributes and what is
called by name must all stand on lists. What slips through meets the limits of ``limits.py``.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterable
from typing import Any

Table = tuple[list[str], list[list[Any]]]

LONGEST_PROGRAM = 10_000
MOST_CELLS = 100_000
NODES = (
    ast.Module, ast.Expr, ast.Assign, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Subscript,
    ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Constant, ast.Call, ast.keyword,
    ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop, ast.Compare,
    ast.cmpop, ast.IfExp, ast.Lambda, ast.arguments, ast.arg, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.JoinedStr, ast.FormattedValue,
)  # fmt: skip
IMPORTS = (("pandas", "pd"), ("numpy", "np"))
RESULT = "result"


class Refused(Exception):
    """The program asks for something that is not on the lists."""


def check(program: str, words: Any, columns: Iterable[str] = ()) -> ast.Module:
    """The program's tree without its imports of pandas and NumPy; ``columns`` may be named as
    ``df.column``. Raises ``Refused``."""
    if len(program) > LONGEST_PROGRAM:
        raise Refused("the program is too long")
    tree = ast.parse(program)
    tree.body = [node for node in tree.body if not _known_import(node)]
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    plain_columns = {name for name in columns if name.isidentifier() and not _is_method(name)}
    for node in ast.walk(tree):
        _check_node(node, words, called, plain_columns)
    if not tree.body:
        raise Refused("there is nothing to run")
    return tree


def _known_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and all(
        (alias.name, alias.asname) in IMPORTS for alias in node.names
    )


def _check_node(node: ast.AST, words: Any, called: set[int], columns: set[str]) -> None:
    if not isinstance(node, NODES):
        raise Refused(f"{type(node).__name__} is refused")
    if isinstance(node, (ast.Name, ast.arg)):
        name = node.id if isinstance(node, ast.Name) else node.arg
        if name.startswith("_"):
            raise Refused(f"the name {name} is refused")
    if isinstance(node, ast.Attribute):
        column = isinstance(node.value, ast.Name) and node.attr in columns
        if node.attr.startswith("_") or not (column or node.attr in words.ATTRIBUTES):
            raise Refused(f"the attribute {node.attr} is refused")
        if node.attr in (*words.BY_NAME, "query") and id(node) not in called:
            raise Refused(f"{node.attr} is called or not named at all")
    if isinstance(node, ast.keyword) and node.arg is None:
        raise Refused("** is refused")
    if isinstance(node, ast.Assign) and not all(isinstance(t, ast.Name) for t in node.targets):
        _check_stores(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        _check_call(node, node.func.attr, words)


def _check_stores(node: ast.Assign) -> None:
    """A column may be set (``df['x'] = …``), an attribute may not."""
    if not all(isinstance(target, (ast.Name, ast.Subscript)) for target in node.targets):
        raise Refused("only names and columns are assigned")


def _check_call(call: ast.Call, method: str, words: Any) -> None:
    if method == "query":
        _check_query(call)
    if method not in words.BY_NAME:
        return
    for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
        _check_by_name(argument, words)


def _check_query(call: ast.Call) -> None:
    """A text that compares columns; ``@`` reaches variables and brackets call."""
    text = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    if not isinstance(text, str) or len(call.args) > 1 or call.keywords:
        raise Refused("query takes one written text")
    if any(mark in text for mark in ("@", "(", "__")):
        raise Refused("query compares columns, nothing more")


def _check_by_name(argument: ast.expr, words: Any) -> None:
    """pandas calls any method, and NumPy's functions, by a name that it is given as text."""
    if isinstance(argument, ast.Lambda):
        return
    if isinstance(argument, ast.Constant):
        name = argument.value
        if isinstance(name, str) and name not in words.ATTRIBUTES and _is_method(name):
            raise Refused(f"the method {name} is refused")
    elif isinstance(argument, (ast.List, ast.Tuple)):
        for inner in argument.elts:
            _check_by_name(inner, words)
    elif isinstance(argument, ast.Dict):
        for inner in argument.values:
            _check_by_name(inner, words)
    elif isinstance(argument, ast.Name) and argument.id in words.BUILTINS:
        return
    elif not _is_column(argument):
        raise Refused("what is called by name is written out")


def _is_column(argument: ast.expr) -> bool:
    """``df['a']`` and ``df.a``, which ``crosstab`` takes."""
    inner = argument.value if isinstance(argument, (ast.Subscript, ast.Attribute)) else argument
    return isinstance(argument, (ast.Subscript, ast.Attribute)) and isinstance(inner, ast.Name) \
        and inner.id == "df"  # fmt: skip


def _is_method(name: str) -> bool:
    import numpy as np
    import pandas as pd

    kinds: tuple[Any, ...] = (pd.DataFrame, pd.Series, pd.Index, np, pd.core.groupby.GroupBy)
    return any(hasattr(kind, name) for kind in kinds)


def prepare() -> None:
    """Load pandas and use it once, so that what it loads late is there before the limits."""
    import pandas as pd

    frame = pd.DataFrame({"a": ["x", "y", "x"], "b": [1, 2, 3]})
    frame.groupby("a").agg({"b": "sum"}).sort_values("b").reset_index()
    frame.pivot_table(values="b", index="a", aggfunc="mean")
    frame.query("b > 1").merge(frame, on="a").drop_duplicates()
    pd.to_datetime(pd.Series(["2020-01-02"])).dt.year.tolist()
    frame["a"].str.contains("x").value_counts()
    pd.crosstab(frame["a"], frame["b"])


def run(program: str, tables: dict[str, Table], words: Any) -> Any:
    """What the last line gives: its value, or that of the name it assigns, in plain values."""
    import numpy as np
    import pandas as pd

    tree = check(program, words, {name for columns, _ in tables.values() for name in columns})
    frames = {n: pd.DataFrame(rows, columns=columns) for n, (columns, rows) in tables.items()}
    builtins = {name: getattr(__import__("builtins"), name) for name in words.BUILTINS}
    space: dict[str, Any] = {
        "__builtins__": builtins, "df": next(iter(frames.values())), **frames,
        "pd": types.SimpleNamespace(**{name: getattr(pd, name) for name in words.PANDAS}),
        "np": types.SimpleNamespace(**{name: getattr(np, name) for name in words.NUMPY}),
    }  # fmt: skip
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        name = ast.Name(RESULT, ast.Store())
        tree.body[-1] = ast.copy_location(ast.Assign([name], last.value), last)
    elif isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
        again = ast.Assign(
            [ast.Name(RESULT, ast.Store())], ast.Name(last.targets[0].id, ast.Load())
        )
        tree.body.append(ast.copy_location(again, last))
    exec(compile(ast.fix_missing_locations(tree), "program", "exec"), space)
    return plain(space[RESULT])


def plain(value: Any) -> Any:
    """Numbers, texts and lists. A table is the list of its rows; a named index stays with them, one
    of row numbers does not."""
    import numpy as np
    import pandas as pd

    if isinstance(value, (pd.DataFrame, pd.Series)):
        if value.size > MOST_CELLS:
            raise Refused("the result is too large")
        numbered = value.index.nlevels == 1 and pd.api.types.is_integer_dtype(value.index.dtype)
        whole = value if numbered else value.reset_index()
        return plain(whole.to_numpy(dtype=object).tolist())
    if isinstance(value, (pd.Index, np.ndarray, pd.api.extensions.ExtensionArray)):
        return plain(list(value)[:MOST_CELLS])
    if isinstance(value, dict):
        return [[plain(key), plain(item)] for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    import numpy as np
    import pandas as pd

    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)
