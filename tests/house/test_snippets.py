"""Every snippet of README.md and docs/ is run by a test, or says why it cannot be."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import itertools
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

Parse = Callable[[list[str]], None]
ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("holdfast_pages", ROOT / "tests" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages = load()
ALL = [snippet for page in pages.PAGES for snippet in pages.snippets(page)]


def test_every_fence_of_a_page_is_found() -> None:
    for page in pages.PAGES:
        fences = len(re.findall(r"^\s*```", page.read_text("utf-8"), re.MULTILINE))
        found = [snippet for snippet in pages.snippets(page) if snippet.kind != "setup"]
        assert fences == 2 * len(found), "a fence begins at the left edge and ends with a fence"


def test_a_snippet_has_a_language_that_the_tests_know() -> None:
    for snippet in ALL:
        assert snippet.kind in (*pages.KINDS, "setup"), (
            f"{snippet.name}: begin the fence with ```shell, ```python or ```yaml where it can be "
            "run, and with ```text where it is output, a drawing or a synopsis"
        )


def test_a_comment_above_a_snippet_is_a_reason_that_holds() -> None:
    for snippet in ALL:
        if not snippet.mark or snippet.mark == pages.OUTPUT:
            continue
        assert snippet.reason or snippet.elsewhere, (
            f"{snippet.name}: a comment above a snippet begins with {pages.NOT_RUN!r} or "
            f"{pages.ELSEWHERE!r}, or is {pages.OUTPUT!r}"
        )
        if snippet.reason:
            start = next((r for r in pages.REASONS if snippet.reason.startswith(r)), None)
            assert start, f"the reason begins with one of {list(pages.REASONS)}"
            assert pages.REASONS[start].search(snippet.code), f"nothing in it {start}"


def test_an_output_is_below_python_that_a_test_runs() -> None:
    """Where that test is another one than that of the page, it compares the output."""
    for before, snippet in itertools.pairwise(ALL):
        if snippet.mark == pages.OUTPUT:
            assert (before.page, before.kind, snippet.kind) == (snippet.page, "python", "text")
            assert not before.reason
            assert not before.elsewhere or "check_output" in (ROOT / before.elsewhere).read_text()


def test_a_snippet_that_is_run_elsewhere_stands_in_that_test() -> None:
    """By the page's name, or by the last name of every call that the snippet makes."""
    for snippet in ALL:
        if not snippet.elsewhere:
            continue
        test = (ROOT / snippet.elsewhere).read_text("utf-8")
        if snippet.page.name in test:
            continue
        calls = [
            node.func for node in ast.walk(ast.parse(snippet.code)) if isinstance(node, ast.Call)
        ]
        names = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        assert {name for name in names if name in test} >= names - {"fit", "train", "callback"}


def test_what_is_not_run_is_at_least_well_formed(parse: Parse) -> None:
    """Python compiles; a command of Holdfast has options that exist; a target is in the
    Makefile."""
    for snippet in ALL:
        if not snippet.reason or snippet.kind == "text":
            continue
        if snippet.kind == "python":
            compile(snippet.code, snippet.name, "exec")
            continue
        for words in pages.commands(snippet.code):
            if words[0] == "holdfast":
                parse(words[1:])
            if words[0] == "make":
                targets = {word for word in words[1:] if "=" not in word}
                made = re.findall(
                    r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
                )
                assert targets <= set(made)


def text_commands() -> Iterator[tuple[str, str]]:
    """The page, and the rest of each line that shows a command of Holdfast without being run: in
    ``text``, or indented by four spaces. Lines that continue it are joined."""
    shown = re.compile(r"^(?:    |\$ )?holdfast +([a-z](?!.*→).*(?:\n {9,}.*)*)$", re.MULTILINE)
    for page in pages.PAGES:
        parts = [snippet.code for snippet in pages.snippets(page) if snippet.kind == "text"]
        prose = pages.PART.sub("", page.read_text("utf-8"))
        for part in [*parts, *re.findall(r"(?:^    \S.*\n)+", prose, re.MULTILINE)]:
            for line in shown.findall(part.replace("\\\n", " ")):
                yield page.name, re.sub(r"\s+(?:#.*|&$)", "", line)


# What only a synopsis has: choices, parts that may be left out, names to be replaced.
SYNOPSIS = re.compile(r"[\[\]()|…]|\.\.\.|(?<![\w.])[A-Z]+\b")


def test_commands_that_are_only_shown_exist_with_their_options(
    parse: Parse, options: Callable[[str], set[str]]
) -> None:
    shown = list(text_commands())
    assert len(shown) > 60
    for page, line in shown:
        name = line.split()[0]
        unknown = set(re.findall(r"(?<![\w-])--[\w-]+", line)) - options(name)
        assert not unknown, f"{page}: holdfast {name} has no {', '.join(unknown)}"
        if not SYNOPSIS.search(line):
            parse(shlex.split(line))
            check_settings(shlex.split(line))


def check_settings(words: list[str]) -> None:
    """The settings that a command line gives a recipe are settings of a recipe."""
    from holdfast.recipe import Recipe, override

    given = [after for word, after in itertools.pairwise(words) if word == "--set"]
    override(Recipe(), [one for one in given if one.partition(".")[0] in Recipe.model_fields])


def test_calls_that_are_only_shown_are_of_functions_with_these_parameters() -> None:
    import holdfast

    found = 0
    for snippet in ALL:
        if snippet.kind != "text" or "holdfast." not in snippet.code:
            continue
        with contextlib.suppress(SyntaxError):
            for call in ast.walk(ast.parse(snippet.code)):
                match call:
                    case ast.Call(ast.Attribute(ast.Name("holdfast"), name), _, keywords):
                        known = inspect.signature(getattr(holdfast, name)).parameters
                        assert {one.arg for one in keywords} <= {*known}, snippet.name
                        found += 1
    assert found >= 5


def test_an_option_or_a_setting_that_does_not_exist_would_be_found(parse: Parse) -> None:
    with pytest.raises(Exception, match="is not an option of"):
        parse(["train", "x.csv", "--modle", "y/z"])
    with pytest.raises(Exception, match="epcohs"):
        check_settings(["train", "x.csv", "--set", "train.epcohs=3"])


def test_the_reader_of_pages_reads_marks_and_preparations(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorial.md"
    text = "a\n\n<!-- setup\nx = 1\n-->\n\n<!-- not run: needs a GPU -->\n```python\ny = x\n```\n"
    path = tmp_path / "page.md"
    path.write_text(text + "\n```shell\nls\n```\n", "utf-8")
    setup, skipped, shell = pages.snippets(path)
    assert (setup.kind, setup.code) == ("setup", "x = 1\n")
    assert (skipped.kind, skipped.reason) == ("python", "needs a GPU")
    assert (shell.code, shell.mark, shell.reason) == ("ls\n", "", "")
    assert page in pages.PAGES
