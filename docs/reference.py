"""Writes the references of the site from the code: every command, and the Python API."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import holdfast
from holdfast.cli.commands import GROUPS, Commands

# What is listed on the page of the Python API, by purpose.
API: dict[str, tuple[str, ...]] = {
    "Data": ("audit",),
    "Train": ("train", "dry_run", "choose", "lr", "cv", "meta", "tune", "distill", "update"),
    "Understand": ("errors", "explain", "compare", "fairness", "probe", "diagnose"),
    "Deploy": ("threshold", "export", "chat", "drift"),
    "Classes": ("TrainedRun", "TextClassifier", "Guard", "InputError"),
}


# scikit-learn adds the excluded ones, with references to its own pages.
MEMBERS = "\n   :members:\n   :exclude-members: set_fit_request, set_score_request"


def write_references(folder: Path) -> None:
    """Write ``commands.md`` and ``api.md`` to the folder."""
    folder.mkdir(exist_ok=True)
    for name, text in (("commands.md", commands_page()), ("api.md", api_page())):
        path = folder / name
        # An unchanged page is not built again.
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def commands_page() -> str:
    """Every command: what it does, its arguments and options, examples."""
    commands = Commands()
    parts = [
        "# Commands\n",
        "```shell\nholdfast --help\nholdfast train --help\n```\n",
        "This page is generated from the code. Options that many commands share: `--set KEY=VALUE` "
        "sets [a key of the recipe](../recipe.md), `--json` prints one JSON document (`holdfast "
        "schema` shows its fields), `--quiet` prints only the result.\n",
    ]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_command_section(name, commands) for name in names]
    return "\n".join(parts)


def _command_section(name: str, commands: Commands) -> str:
    command: Any = commands[name]
    examples = "\n".join(commands.entry(name).examples)
    context = command.make_context(name, [], resilient_parsing=True)
    records = [param.get_help_record(context) for param in command.params]
    rows = [
        f"| `{_cell(named)}` | {_cell(help_text)} |"
        for named, help_text in filter(None, records)
        if not named.startswith("--help")
    ]
    table = "\n".join(["| Argument or option | Meaning |", "|---|---|", *rows]) + "\n"
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return f"### holdfast {name}\n\n```shell\n{examples}\n```\n\n{text}\n\n{table}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def api_page() -> str:
    """The public names of the package."""
    listed = {name for names in API.values() for name in names}
    missing = set(holdfast.__all__) - listed - {"__version__"}
    if missing:
        raise SystemExit(f"docs/reference.py lists no place for {', '.join(sorted(missing))}")
    parts = [
        "# Python API\n",
        "```python\nimport holdfast\n```\n",
        "This page is generated from the code; [Python](../python.md) shows how to use it.\n",
    ]
    for title, names in API.items():
        parts.append(f"## {title}\n\n```{{eval-rst}}")
        for name in names:
            kind = "autoclass" if inspect.isclass(getattr(holdfast, name)) else "autofunction"
            members = MEMBERS if kind == "autoclass" else ""
            parts.append(f".. {kind}:: holdfast.{name}{members}\n")
        parts.append("```\n")
    return "\n".join(parts)
