"""Remedies of errors, adapted to the entry point: an option of ``train`` may have another name
where a finished run is used, and is a parameter in a Python program.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

from holdfast.core.errors import ErrorMessage, InputError, Interrupted

# Text to type is left unchanged: a full command, in backticks or beginning with its name.
_COMMAND = re.compile(r"(`[^`]*`|\b(?:holdfast [a-z]+|pip install) [^.;]*)")
_SETTINGS = re.compile(r"--set [\w.]+=\S+(?: --set [\w.]+=\S+)*")
_SETTING = re.compile(r"--set (?P<key>[\w.]+)=(?P<value>'[^']*'|\S+?)(?P<end>[.,;:?)]*)(?=\s|$)")
# Options that no Python function has; a switch becomes ``True``.
_COMMAND_LINE = "dry-run|json|verbose|fail-on|help|version|html|page|fix|undo"
_NAMED = re.compile(
    rf"--(?!(?:{_COMMAND_LINE})\b)(?P<name>[a-z][a-z0-9-]*)"
    r"(?: (?P<value>'[^']*'|(?!(?:and|or|of|once|to|if|in|with|says|elsewhere)\b)"
    r"[\w./~…-]*[\w/~…-]))?"
    r"(?![\w=-])"
)
_SWITCHES = frozenset(
    [
        "resume",
        "quiet",
        "force",
        "nested",
        "learning_curve",
        "robustness",
        "topics",
        "insert",
        "int8",
        "space",
    ]
)
_AS_SETTING = {"download": 'settings={"model.download": True}', "set": "settings"}
# Series of a log, which ``diagnose`` accepts by these names.
_SERIES = ("train", "valid")


@contextlib.contextmanager
def advising() -> Iterator[None]:
    """Replace ``--set data.encoding=`` by ``--encoding`` in the remedies of errors, for commands
    with that option.
    """
    try:
        yield
    except InputError as error:
        remedy = error.remedy.replace("--set data.encoding=", "--encoding ")
        remedy = remedy.replace("Leave data.encoding out", "Leave --encoding out")
        setting = "--encoding" if error.what == "data.encoding" else error.what
        _raise_reworded(error, error.reworded(what=setting, remedy=remedy))


@contextlib.contextmanager
def in_python() -> Iterator[None]:
    """Replace options of the command line by parameters in the remedies of errors."""
    try:
        yield
    except (InputError, Interrupted) as error:
        setting = re.sub(r"^--set(?=$|: )", "settings", error.what)
        setting = re.sub(r"(?<!\S)--(?=\w)", "", setting)
        rule, remedy = parameters(error.rule), parameters(error.remedy)
        _raise_reworded(error, error.reworded(what=setting, rule=rule, remedy=remedy))


def parameters(advice: str) -> str:
    """Rewrite advice on options as advice on parameters.

    ``--label COLUMN`` becomes ``label="COLUMN"``, ``--set train.epochs=5`` becomes
    ``settings={"train.epochs": 5}``.
    """
    parts = _COMMAND.split(advice)
    parts[::2] = [_NAMED.sub(_named, _settings(part)) for part in parts[::2]]
    return "".join(parts).replace("the same command", "the same call")


def _settings(text: str) -> str:
    def together(match: re.Match[str]) -> str:
        each = list(_SETTING.finditer(match[0]))
        pairs = {one["key"]: _literal(one["value"]) for one in each}
        if pairs.keys() <= set(_SERIES):
            arguments = ", ".join(f"{key}={value}" for key, value in pairs.items())
        else:
            inside = ", ".join(f'"{key}": {value}' for key, value in pairs.items())
            arguments = f"settings={{{inside}}}"
        return arguments + each[-1]["end"]

    return _SETTINGS.sub(together, text)


def _named(match: re.Match[str]) -> str:
    name, value = match["name"].replace("-", "_"), match["value"]
    if switch := _AS_SETTING.get(name, f"{name}=True" if name in _SWITCHES else None):
        return switch if value is None else f"{switch} {value}"
    return f"{name}={'…' if value is None else _literal(value)}"


def _literal(value: str) -> str:
    """A value in Python syntax."""
    if value in ("true", "false"):
        return value.capitalize()
    try:
        float(value)
    except ValueError:
        bare = value.strip("'")
        return value if value == "…" else json.dumps(bare, ensure_ascii=False)
    return value


def _raise_reworded(error: ErrorMessage, other: ErrorMessage) -> None:
    """Raise the error in other words; the same object where nothing changes."""
    if other.args == error.args:
        raise error
    raise other from error
