"""The tree drawn in core/errors.py is the tree of its classes."""

from __future__ import annotations

import re

from holdfast.core import errors

LINE = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)(?:\s+exit (?P<code>\d+):)?")


def drawn() -> dict[str, tuple[str | None, int]]:
    """Class name → (parent, exit code) as the docstring draws it; a code is inherited."""
    assert errors.__doc__ is not None
    lines = errors.__doc__[errors.__doc__.index("\nErrorMessage") :].strip().splitlines()
    path: list[str] = []
    found: dict[str, tuple[str | None, int]] = {}
    for line in lines:
        match = LINE.match(line)
        assert match, f"not a line of the tree: {line!r}"
        depth = len(match["indent"]) // 4
        path = [*path[:depth], match["name"]]
        parent = path[-2] if depth else None
        inherited = found[parent][1] if parent else errors.ErrorMessage.exit_code
        found[match["name"]] = (parent, int(match["code"] or inherited))
    return found


def defined() -> dict[str, tuple[str | None, int]]:
    classes = {
        name: thing
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.ErrorMessage)
    }
    return {
        name: (None if name == "ErrorMessage" else thing.__bases__[0].__name__, thing.exit_code)
        for name, thing in classes.items()
    }


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert drawn() == defined()


def test_every_exit_code_is_one_of_the_contract() -> None:
    assert {code for _, code in defined().values()} <= {1, 2, 130}
