"""The operators of ``faults.py``: each turns a node of the syntax tree into a faulty one.

Left alone are annotations, error and help texts, logging, assertions, and changes that no test
could be asked to see: a zip that no longer compares lengths, a random number equal to its limit.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
# What of a statement is other statements, and what of a node is not run or only shown.
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases", "decorator_list")
UNREAD = ("annotation", "returns", "type_params", "format_spec")
# Keywords whose value no result on one processor shows, or only a text.
QUIET = {"copy", "daemon", "device", "dtype", "encoding", "help", "indent", "memory_format"}
QUIET |= {"metavar", "non_blocking", "stacklevel", "strict", "timeout"}
# And those without which what is returned cannot be unpacked.
QUIET |= {"return_counts", "return_index", "return_inverse"}
LOGS = {"debug", "error", "exception", "info", "log", "warn", "warning", "collect"}
LOGS |= {"empty_cache", "flush"}
TYPES = {"Annotated", "Literal", "cast", "isinstance", "issubclass"}
# Calls that no swap of arguments changes, or that every swap breaks.
FIXED = TYPES | {"allclose", "array_equal", "gcd", "isclose", "getattr", "hasattr", "setattr"}
NAMES = {"min": "max", "minimum": "maximum", "any": "all"}
NAMES |= {new: old for old, new in NAMES.items()}
Table = dict[type[ast.AST], type[ast.AST]]
TURNED: Table = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
NEGATED: Table = {ast.Eq: ast.NotEq, ast.In: ast.NotIn, ast.Is: ast.IsNot}
NEGATED |= {new: old for old, new in NEGATED.items()}
SIGNS: Table = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
# A true division would mostly give the same, or a float where no float can be.
SIGNS |= {ast.FloorDiv: ast.Mult}
# A number above this is a size or a mark: one more or less is as good.
LARGEST = 100
# Numbers of one kind that nobody sees, or that are as good.
AS_GOOD = re.compile("seed|rng|most_common")
# Queries of a database have `all` as a method, and no other.
QUERY = re.compile(r"execute|scalars|mappings")
# Calls to which the order of what they are given means nothing.
NO_ORDER = {"Counter", "all", "any", "frozenset", "isin", "len", "max", "min", "set", "sum"}
NEVER_EQUAL = re.compile(r"random\(|monotonic|perf_counter|time\(")
TEXTUAL = re.compile(r"Path|str|bytes|list|tuple|Sequence")


def statements(node: ast.AST, loop: ast.AST | None = None) -> Iterator[tuple[Any, ast.AST | None]]:
    """A function's header and each statement that is its own, with the loop around it."""
    if isinstance(node, ast.stmt):
        yield node, loop
    for block in BLOCKS[:-1]:
        around = node if block == "body" and isinstance(node, LOOPS) else loop
        for child in getattr(node, block, []):
            if not isinstance(child, (*FUNCTIONS, ast.ClassDef)) and not for_types(child):
                yield from statements(child, around)


def for_types(node: ast.AST) -> bool:
    """Is this a block of imports for annotations?"""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def written(statement: ast.AST) -> str:
    """A statement in one form, however it is laid out; of a compound one the header."""
    blocks: dict[str, Any] = {block: [] for block in BLOCKS if block in statement._fields}
    if "body" not in blocks:
        return ast.unparse(statement)
    bare = changed(statement, **{**blocks, "body": [ast.Pass()]})
    return ast.unparse(bare).strip().rsplit("\n", 1)[0]


def changed(node: Any, **fields: Any) -> Any:
    """A copy of the node with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def exchanged(tree: Any, old: ast.AST, new: ast.AST) -> Any:
    """A copy of the tree with ``new`` where ``old`` is."""
    if tree is old:
        return new
    if isinstance(tree, list):
        return [exchanged(one, old, new) for one in tree]
    if not isinstance(tree, ast.AST):
        return tree
    return changed(tree, **{name: exchanged(v, old, new) for name, v in ast.iter_fields(tree)})


def called(node: Any) -> str:
    """The last part of the name that is called or subscripted."""
    named = getattr(node, "func", getattr(node, "value", None))
    return str(getattr(named, "attr", getattr(named, "id", "")))


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node) if node else ""


class Code:
    """What the operators know of the whole package: signatures, errors, names of texts."""

    def __init__(self, trees: Iterable[ast.AST]) -> None:
        # By name, the parameters of each function or the fields of each class that has the name:
        # annotation and default.
        self.signatures: dict[str, list[dict[str, tuple[str, str]]]] = defaultdict(list)
        self.errors, self.texts = {"NoReturn"}, {"parent", "folder", "path", "root"}
        for node in (node for tree in trees for node in ast.walk(tree)):
            self._learn(node)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self.signatures[node.name].append(_parameters(node))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            self.errors.add(called(node.exc))
        elif isinstance(node, ast.Assign) and self.textual(node.value):
            self.texts |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.arg) and TEXTUAL.match(_text(node.annotation)):
            self.texts.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and TEXTUAL.match(_text(node.annotation)):
            self.texts.add(_text(node.target))

    def textual(self, node: Any) -> bool:
        """Is this a text, a path or a list, as far as the source tells?"""
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str | bytes)
        if isinstance(node, ast.BinOp):
            return self.textual(node.left) or self.textual(node.right)
        if isinstance(node, ast.Call):
            return called(node) in ("Path", "str", "join", "list", "sorted")
        known = getattr(node, "attr", getattr(node, "id", "")) in self.texts
        return known or isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp)

    def optional(self, call: ast.Call, keyword: ast.keyword) -> bool:
        """Does the call run without the keyword, and do something else?"""
        known = self.signatures.get(called(call))
        if known is None:
            return called(call) not in ("", "cls")
        defaults = {one[keyword.arg][1] for one in known if keyword.arg and keyword.arg in one}
        return bool(defaults) and not {"", _text(keyword.value)} & defaults

    def alike(self, call: ast.Call, at: int) -> bool:
        """Are the positional arguments ``at`` and the next of one type, as far as is known?"""
        known = self.signatures.get(called(call), [])
        types = [[annotated for annotated, _ in one.values()][at : at + 2] for one in known]
        return all(len(pair) == 2 and pair[0] == pair[1] for pair in types)


def _parameters(node: Any) -> dict[str, tuple[str, str]]:
    if isinstance(node, ast.ClassDef):
        made = [one for one in node.body if getattr(one, "name", "") == "__init__"]
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        typed = {_text(one.target): (_text(one.annotation), _text(one.value)) for one in fields}
        return _parameters(made[0]) if made else typed
    args, defaults = [*node.args.posonlyargs, *node.args.args], node.args.defaults
    defaults = [*[None] * (len(args) - len(defaults)), *defaults, *node.args.kw_defaults]
    pairs = zip([*args, *node.args.kwonlyargs], defaults, strict=True)
    found = {one.arg: (_text(one.annotation), _text(default)) for one, default in pairs}
    return {name: both for name, both in found.items() if name not in ("self", "cls")}


@dataclass(frozen=True)
class Spot:
    """A node, its parent, and the statement and the loop that it is in."""

    node: Any
    parent: Any
    statement: Any
    loop: ast.AST | None
    code: Code


def spots(function: ast.AST, code: Code) -> Iterator[Spot]:
    """Every node of a function's own statements in which a fault may be."""
    returned = _text(getattr(function, "returns", None))
    # What puts an error into words is left alone.
    makes_error = code.errors & set(re.findall(r"\w+", returned))
    for statement, loop in [] if makes_error else statements(function):
        if isinstance(statement, ast.Expr) and called(statement.value) in LOGS:
            continue
        yield Spot(statement, None, statement, loop, code)
        if not isinstance(statement, ast.Raise | ast.Assert):
            for node, parent in _nodes(statement, code):
                yield Spot(node, parent, statement, loop, code)


def _nodes(parent: ast.AST, code: Code) -> Iterator[tuple[ast.AST, ast.AST]]:
    if isinstance(parent, ast.Call | ast.Subscript) and called(parent) in TYPES:
        return
    skipped = (*UNREAD, *BLOCKS) if isinstance(parent, ast.stmt) else UNREAD
    for name, value in ast.iter_fields(parent):
        for node in value if isinstance(value, list) else [value]:
            quiet = isinstance(node, ast.keyword) and node.arg in QUIET
            message = isinstance(node, ast.Call) and called(node) in code.errors
            if isinstance(node, ast.AST) and not (name in skipped or quiet or message):
                yield node, parent
                yield from _nodes(node, code)


def _compared(node: Any, table: Table) -> Iterator[ast.AST]:
    for at, old in enumerate(node.ops if isinstance(node, ast.Compare) else []):
        if type(old) in table:
            yield changed(node, ops=[*node.ops[:at], table[type(old)](), *node.ops[at + 1 :]])


def boundary(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.node, ast.Compare) and not NEVER_EQUAL.search(_text(at.node)):
        yield from _compared(at.node, TURNED)


def comparison_negated(at: Spot) -> Iterator[ast.AST]:
    yield from _compared(at.node, NEGATED)


def arithmetic_swapped(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.node, ast.BinOp | ast.AugAssign) and type(at.node.op) in SIGNS:
        left = at.node.left if isinstance(at.node, ast.BinOp) else at.node.target
        right = at.node.right if isinstance(at.node, ast.BinOp) else at.node.value
        neutral = 0 if isinstance(at.node.op, ast.Add | ast.Sub) else 1
        same = isinstance(right, ast.Constant) and right.value == neutral
        if not (same or at.code.textual(left) or at.code.textual(right)):
            yield changed(at.node, op=SIGNS[type(at.node.op)]())


def and_or_swapped(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.node, ast.BoolOp):
        yield changed(at.node, op=ast.Or() if isinstance(at.node.op, ast.And) else ast.And())


def condition_negated(at: Spot) -> Iterator[ast.AST]:
    node = at.node
    tested = getattr(at.parent, "test", None) is node or node in getattr(at.parent, "ifs", [])
    # A comparison that is negated is an operator of its own.
    if tested and not isinstance(node, ast.Constant) and not any(_compared(node, NEGATED)):
        negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        yield node.operand if negative else ast.UnaryOp(ast.Not(), node)


def number_off_by_one(at: Spot) -> Iterator[ast.AST]:
    if not isinstance(at.node, ast.Constant) or type(at.node.value) is not int:
        return
    around = f"{getattr(at.parent, 'arg', '')} {called(at.parent)}"
    fixed = AS_GOOD.search(around) or re.search("version", written(at.statement), re.I)
    if at.node.value <= LARGEST and not fixed and not isinstance(at.parent, ast.Slice):
        yield _integer(at.node.value + 1)
        yield _integer(at.node.value - 1)


def _integer(value: int) -> ast.expr:
    number = ast.Constant(abs(value))
    return number if value >= 0 else ast.UnaryOp(ast.USub(), number)


def slice_bound_shifted(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.parent, ast.Slice) and at.node is not at.parent.step:
        known = re.fullmatch(r"-?\d+", _text(at.node))
        more = ast.BinOp(at.node, ast.Add(), ast.Constant(1))
        yield _integer(int(known[0]) + 1) if known else more


def keyword_left_out(at: Spot) -> Iterator[ast.AST]:
    for one in at.node.keywords if isinstance(at.node, ast.Call) else []:
        if one.arg and one.arg not in QUIET and at.code.optional(at.node, one):
            yield changed(at.node, keywords=[k for k in at.node.keywords if k is not one])


def arguments_swapped(at: Spot) -> Iterator[ast.AST]:
    if not isinstance(at.node, ast.Call) or called(at.node) in (*FIXED, *NAMES):
        return
    args = at.node.args
    for n, (one, two) in enumerate(pairwise(args)):
        apart = type(one) is type(two) and not isinstance(one, ast.Starred)
        if apart and at.code.alike(at.node, n):
            yield changed(at.node, args=[*args[:n], two, one, *args[n + 2 :]])


def statement_left_out(at: Spot) -> Iterator[ast.AST]:
    node = at.node
    # A counter that stands still would keep its loop running for ever.
    counts = isinstance(node, ast.AugAssign) and not isinstance(at.loop, ast.While)
    raises = isinstance(node, ast.Raise) and "NotImplemented" not in _text(node.exc)
    value = node.value if isinstance(node, ast.Expr) else None
    value = value.value if isinstance(value, ast.Await) else value
    if counts or raises or isinstance(value, ast.Call):
        yield ast.Pass()


def first_branch_left_out(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.parent, ast.Return) and isinstance(at.node, ast.IfExp):
        yield at.node.orelse


def extreme_swapped(at: Spot) -> Iterator[ast.AST]:
    """``min`` for ``max``, ``any`` for ``all``."""
    swapped = isinstance(at.node, ast.Call) and called(at.node) in NAMES
    if swapped and not QUERY.search(_text(at.node.func)):
        part = "id" if isinstance(at.node.func, ast.Name) else "attr"
        yield changed(at.node, func=changed(at.node.func, **{part: NAMES[called(at.node)]}))


def flag_swapped(at: Spot) -> Iterator[ast.AST]:
    given = isinstance(at.parent, ast.Call | ast.keyword | ast.arguments)
    if given and isinstance(at.node, ast.Constant) and isinstance(at.node.value, bool):
        yield ast.Constant(not at.node.value)


def sorting_left_out(at: Spot) -> Iterator[ast.AST]:
    # A list as before, so that the order alone is wrong.
    ordered = isinstance(at.node, ast.Call) and _text(at.node.func) == "sorted"
    if ordered and called(at.parent) not in NO_ORDER and "__all__" not in _text(at.node):
        yield ast.Call(ast.Name("list"), at.node.args, [])


def break_continue_swapped(at: Spot) -> Iterator[ast.AST]:
    if isinstance(at.node, ast.Continue):
        yield ast.Break()
    elif isinstance(at.node, ast.Break) and not isinstance(at.loop, ast.While):
        yield ast.Continue()


OPERATORS: dict[str, Callable[[Spot], Iterator[ast.AST]]] = {
    "comparison turned to its boundary": boundary,
    "comparison negated": comparison_negated,
    "arithmetic operator swapped": arithmetic_swapped,
    "and/or swapped": and_or_swapped,
    "condition negated": condition_negated,
    "number off by one": number_off_by_one,
    "slice bound shifted": slice_bound_shifted,
    "keyword argument left out": keyword_left_out,
    "positional arguments swapped": arguments_swapped,
    "statement left out": statement_left_out,
    "first branch of a return left out": first_branch_left_out,
    "min/max or any/all swapped": extreme_swapped,
    "True/False swapped": flag_swapped,
    "sorted left out": sorting_left_out,
    "break/continue swapped": break_continue_swapped,
}
