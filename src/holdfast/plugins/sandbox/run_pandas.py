"""Runs one pandas program on tables in memory. Imports only the files of this folder.

The program is parsed and rewritten (``read_pandas.py``), and checked while it runs
(``guard_pandas.py``). The limits and the fence of ``fence.py`` stop what passes these checks.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Any

Table = tuple[list[str], list[list[Any]]]

MAX_CELLS = 100_000
RESULT = "result"
# What pandas loads late, by the word of a program that triggers it: a fenced process loads nothing.
NOT_LOADED = ("numba_", "_numba", "style", "style_render")
LATE_MODULES = {
    "kendall": "scipy.stats",
    "spearman": "scipy.stats",
    "win_type": "scipy.signal.windows",
}

_SIBLINGS: dict[str, Any] = {}


def prepare(load_sibling: Callable[[str], Any]) -> None:
    """Load pandas and use it once, so that its late imports happen before the limits.
    ``load_sibling`` loads the files of this folder.
    """
    import pandas as pd
    import pandas.core
    import pandas.io.formats

    reader = load_sibling("read_pandas")
    _SIBLINGS.update(reader=reader, guard=load_sibling("guard_pandas").ProgramGuard(reader))
    frame = pd.DataFrame({"a": ["x", "y", "x"], "b": [1, 2, 3]})
    frame.groupby("a").agg({"b": "sum"}).sort_values("b").reset_index()
    frame.pivot_table(values="b", index="a", aggfunc="mean")
    frame.query("b > 1").merge(frame, on="a").drop_duplicates()
    pd.to_datetime(pd.Series(["2020-01-02"])).dt.year.tolist()
    frame["a"].str.contains("x").value_counts()
    pd.crosstab(frame["a"], frame["b"])
    # What pandas loads when a method is first called: a few files, some milliseconds. Programs
    # cannot use what needs another library (a compiler, a style's templates).
    for package in (pd.core, pd.io.formats):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] not in NOT_LOADED:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    # Codecs and formats that Python looks up by name.
    "a".encode("unicode_escape")


def load_for(program: str) -> None:
    """Load what this program will need and most programs do not."""
    for word, module in LATE_MODULES.items():
        if word in program and importlib.util.find_spec(module.partition(".")[0]) is not None:
            importlib.import_module(module)


def run(program: str, tables: dict[str, Table], seconds: float) -> Any:
    """The value of the last line, or of the name it assigns, in plain values."""
    import pandas as pd

    reader, guard = _SIBLINGS["reader"], _SIBLINGS["guard"]
    columns = {name for columns, _ in tables.values() for name in columns}
    tree = reader.read(program, columns, is_method, {"df", *tables})
    frames = {n: pd.DataFrame(rows, columns=columns) for n, (columns, rows) in tables.items()}
    space = guard.namespace(frames)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        name = ast.Name(RESULT, ast.Store())
        tree.body[-1] = ast.copy_location(ast.Assign([name], last.value), last)
    elif isinstance(last, ast.Assign) and isinstance(last.targets[0], ast.Name):
        value = ast.Name(last.targets[0].id, ast.Load())
        result_assignment = ast.Assign([ast.Name(RESULT, ast.Store())], value)
        tree.body.append(ast.copy_location(result_assignment, last))
    exec(compile(ast.fix_missing_locations(tree), "program", "exec"), space)
    return plain_values(space[RESULT])


def is_method(name: str) -> bool:
    """Whether an object of pandas or NumPy has an attribute of this name that is not a column."""
    import numpy as np
    import pandas as pd

    types: tuple[Any, ...] = (pd.DataFrame, pd.Series, pd.Index, np, pd.core.groupby.GroupBy)
    return any(hasattr(one_type, name) for one_type in types)


def plain_values(value: Any) -> Any:
    """Numbers, texts and lists. A table is the list of its rows; a named index stays with them, an
    index of row numbers does not.
    """
    import numpy as np
    import pandas as pd

    if isinstance(value, (pd.DataFrame, pd.Series)):
        if value.size > MAX_CELLS:
            raise ValueError("the result is too large")
        has_row_numbers = value.index.nlevels == 1 and pd.api.types.is_integer_dtype(
            value.index.dtype
        )
        frame = value if has_row_numbers else value.reset_index()
        return plain_values(frame.to_numpy(dtype=object).tolist())
    if isinstance(value, (pd.Index, np.ndarray, pd.api.extensions.ExtensionArray)):
        return plain_values(list(value)[:MAX_CELLS])
    if isinstance(value, dict):
        return [[plain_values(key), plain_values(item)] for key, item in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_values(item) for item in value]
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    # NaN is the only number that does not equal itself.
    if isinstance(value, float) and value != value:
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)
