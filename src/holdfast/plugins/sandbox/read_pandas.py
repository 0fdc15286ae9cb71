"""Static checks of a pandas program: it is parsed before anything runs, and rewritten so that each
attribute access and each call goes through the checks of ``guard_pandas.py``. Standard library
only.

Parsing refuses what the text shows: kinds of nodes, names, attributes, assignment targets. It
trusts no name for the value behind it: that is checked when the program runs.

The words that a program may use are listed here: none of them reads, writes, loads or evaluates.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BUILTINS = _words(
    """
    abs all any bool dict enumerate float int len list max min range round set sorted str sum
    tuple zip
    """
)
PANDAS = _words(
    """
    DataFrame NA NaT Series Timedelta Timestamp concat crosstab cut isna isnull merge notna
    notnull pivot_table qcut to_datetime to_numeric unique
    """
)
NUMPY = _words(
    """
    abs array ceil exp floor log max maximum mean median min minimum nan percentile round sqrt
    std sum unique var where
    """
)
# Methods and functions that call their argument, which may be a text, and its position: as a
# method, and as a function of pandas.
BY_NAME: dict[str, tuple[int, int]] = {
    "agg": (0, 0),
    "aggregate": (0, 0),
    "apply": (0, 0),
    "transform": (0, 0),
    "pivot_table": (3, 4),
    "crosstab": (5, 5),
}
FUNCTION_KEYWORDS = ("func", "aggfunc")
# Names of an axis; no method has them.
AXES = ("index", "columns", "rows")
# Their keywords are columns of the result: ``agg(total=('points', 'sum'))``.
NAMED_AGGREGATIONS = ("agg", "aggregate")
# What may be called by a name in text.
CALLABLE_NAMES = frozenset(
    _words(
        """
        abs all any bfill count cummax cummin cumprod cumsum diff ffill first idxmax idxmin last
        max mean median min mode nunique pct_change prod quantile rank round shift size sqrt std
        sum unique value_counts var exp log floor ceil len str int float
        """
    )
)
# Keywords forbidden in every call: they choose what compiles or evaluates.
REFUSED_KEYWORDS = frozenset(
    _words(
        """
        engine engine_kwargs expr parser resolvers local_dict global_dict target
        """
    )
)
ATTRIBUTES = frozenset({*PANDAS, *NUMPY, *BY_NAME}).union(
    _words(
        """
        T abs map add all any argmax argmin astype at between bfill capitalize clip columns
        contains copy corr count cummax cummin cumsum date day days dayofweek describe diff div
        drop drop_duplicates dropna dt dtype dtypes duplicated empty endswith eq explode extract
        ffill fillna find first ge get get_group groupby groups gt head hour iat idxmax idxmin
        iloc index isdigit isin isnumeric items join keys last le len loc lower lstrip lt mask
        match max mean median melt min minute mode month month_name mul name ne nlargest
        nsmallest nth nunique pct_change pivot pow prod quantile query rank reindex rename
        replace reset_index rolling round rstrip sample second set_index shape shift size
        sort_index sort_values split squeeze stack startswith std str strip sub sum tail title
        to_dict to_frame to_list tolist unique unstack upper value_counts values var weekday
        where xs year
        """
    )
)


MAX_PROGRAM_LENGTH = 10_000


def _node_types(names: str) -> tuple[Any, ...]:
    """Kinds of nodes by their names in ``ast``."""
    return tuple(getattr(ast, name) for name in names.split())


NODES = _node_types(
    """
    Module Expr Assign Name Load Store Attribute Subscript Slice Tuple List Dict Set Constant
    Call keyword BinOp operator UnaryOp unaryop BoolOp boolop Compare cmpop IfExp Lambda
    arguments arg ListComp SetComp DictComp GeneratorExp comprehension JoinedStr FormattedValue
    """
)
IMPORTS = (("pandas", "pd"), ("numpy", "np"))
# A program cannot use these names, since they begin with an underscore.
ATTRIBUTE, METHOD, CALL, TABLE = "_attribute", "_method", "_call", "_table"
# A query may compare columns, constants and their sums; it may not call or access anything.
QUERY = _node_types(
    """
    Expression BoolOp boolop UnaryOp unaryop BinOp operator Compare cmpop Name Load Constant
    List Tuple
    """
)


class Refused(Exception):
    """The program uses something that is not on the lists."""


def read(
    program: str,
    columns: Iterable[str],
    is_method: Callable[[str], bool],
    tables: Iterable[str] = ("df",),
) -> ast.Module:
    """The program's tree without its imports of pandas and NumPy.

    ``columns`` may be written as ``df.column`` where no object of pandas has a method of that name.
    Raises ``Refused``.
    """
    if len(program) > MAX_PROGRAM_LENGTH:
        raise Refused("the program is too long")
    tree = ast.parse(program)
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.Import)
        or not all((alias.name, alias.asname) in IMPORTS for alias in node.names)
    ]
    if not tree.body:
        raise Refused("there is nothing to run")
    every_column = (*columns, *_assigned_columns(tree))
    plain_columns = {name for name in every_column if name.isidentifier() and not is_method(name)}
    # A program that could rebind them could replace a listed function.
    fixed = {*BUILTINS, "pd", "np"}
    for node in ast.walk(tree):
        _check(node, plain_columns, fixed)
    rewritten = _Rewriter(set(tables)).visit(tree)
    assert isinstance(rewritten, ast.Module)
    return ast.fix_missing_locations(rewritten)


def check_query(text: object) -> None:
    """Check a text that compares columns. Raises ``Refused``."""
    if not isinstance(text, str):
        raise Refused("query takes one text")
    without_columns = _without_backticks(text)
    if without_columns is None or "@" in without_columns:
        raise Refused("query compares columns, nothing more")
    try:
        tree = ast.parse(without_columns.strip().replace("\n", " "), mode="eval")
    except SyntaxError as error:
        raise Refused("query compares columns, nothing more") from error
    for node in ast.walk(tree):
        hidden = isinstance(node, ast.Name) and node.id.startswith("_")
        if hidden or not isinstance(node, QUERY):
            raise Refused("query compares columns, nothing more")


def _without_backticks(text: str) -> str | None:
    """The query with a plain word for each column in backticks, which may have any name and is one
    word to pandas.

    ``None`` where it is uncertain that pandas finds the same beginning and end. A backtick inside a
    text is a character to pandas: taken for the edge of a column, it would hide what stands before
    the next one (``"`" == @x or "`"``).
    """
    if "`" not in text:
        return text
    if any(mark in text for mark in ("\\", "'''", '"""', "\n", "\r")):
        return None
    plain, quote = [], ""
    for character in text:
        if quote == "`":
            if character == "`":
                plain.append(" column ")
                quote = ""
            continue
        if character == "`" and not quote:
            quote = character
            continue
        # Otherwise inside a text or a comment, which would hide it.
        if character == "`" or (character == "#" and not quote):
            return None
        if character in "'\"":
            quote = character if not quote else "" if quote == character else quote
        plain.append(character)
    return None if quote else "".join(plain)


def _assigned_columns(tree: ast.Module) -> list[str]:
    """``df['name'] = …`` and ``agg(name=…)``."""
    names: list[Any] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            names.append(node.arg)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names.append(node.slice.value if isinstance(node.slice, ast.Constant) else None)
    return [name for name in names if isinstance(name, str)]


def _check(node: ast.AST, columns: set[str], fixed: set[str]) -> None:
    if not isinstance(node, NODES):
        raise Refused(f"{type(node).__name__} is refused")
    if isinstance(node, (ast.Name, ast.arg)):
        name = node.id if isinstance(node, ast.Name) else node.arg
        # The names of the checks, and every access to the interpreter's internals, begin like this.
        if name.startswith("_"):
            raise Refused(f"the name {name} is refused")
        if name in fixed and not isinstance(getattr(node, "ctx", None), ast.Load):
            raise Refused(f"the name {name} keeps its meaning")
    if isinstance(node, ast.Attribute):
        if not isinstance(node.ctx, ast.Load):
            raise Refused("only names and columns are assigned")
        if node.attr.startswith("_") or node.attr not in ATTRIBUTES | columns:
            raise Refused(f"the attribute {node.attr} is refused")
    if isinstance(node, ast.keyword):
        if node.arg is None:
            raise Refused("** is refused")
        if node.arg.startswith("_"):
            raise Refused(f"the keyword {node.arg} is refused")
    # A column may be set (``df['x'] = …``), an attribute may not.
    if isinstance(node, ast.Assign) and not all(
        isinstance(target, (ast.Name, ast.Subscript)) for target in node.targets
    ):
        raise Refused("only names and columns are assigned")
    if isinstance(node, ast.comprehension):
        _check_target(node.target)


def _check_target(target: ast.expr) -> None:
    """Check the targets of ``for x in`` and ``for name, (a, b) in``: only names."""
    if isinstance(target, ast.Tuple):
        for inner in target.elts:
            _check_target(inner)
    elif not isinstance(target, ast.Name):
        raise Refused("a comprehension iterates over names")


class _Rewriter(ast.NodeTransformer):
    """``x.a`` → ``_attribute(x, 'a')``, ``x.m(…)`` → ``_method(x, 'm', …)``, ``f(…)`` →
    ``_call(f, …)``, ``df = x`` → ``df = _table(x)``."""

    def __init__(self, tables: set[str]) -> None:
        self.tables = tables

    def visit_Call(self, node: ast.Call) -> ast.Call:
        arguments = [self.visit(one) for one in node.args]
        keywords = [self.visit(one) for one in node.keywords]
        if isinstance(node.func, ast.Attribute):
            first = [self.visit(node.func.value), ast.Constant(node.func.attr)]
            return _call_node(METHOD, node, [*first, *arguments], keywords)
        return _call_node(CALL, node, [self.visit(node.func), *arguments], keywords)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Call:
        return _call_node(ATTRIBUTE, node, [self.visit(node.value), ast.Constant(node.attr)])

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        self.generic_visit(node)
        if names & self.tables:
            node.value = _call_node(TABLE, node.value, [node.value])
        return node


def _call_node(
    name: str, like: ast.expr, arguments: list[Any], keywords: list[Any] | None = None
) -> ast.Call:
    call = ast.Call(ast.Name(name, ast.Load()), arguments, keywords or [])
    return ast.copy_location(call, like)
