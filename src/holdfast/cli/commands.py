"""The list of commands: one line each, so that a command is found without importing the others;
and the nearest command or option for a name that was mistyped.

Commands of plug-ins are entry points of the group ``holdfast.commands``: a command's name and its
``Entry``.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import typer.core

from holdfast.cli.options import flatten_options
from holdfast.core.discovery import Entry, entry_points_by_name, load_entry_point, path_exists
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.printable import printable

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

GROUP = "holdfast.commands"
LONGEST = 400  # characters kept of Typer's message
SOURCES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".gz", ".yaml", ".yml")
# What the list shows, in the order in which people need it. Commands that other distributions bring
# come after it.
GROUPS = {
    "Data": ("audit",),
    "Train": ("train", "demo", "choose", "lr", "cv", "meta"),
    "Understand": (
        "evaluate",
        "report",
        "errors",
        "explain",
        "compare",
        "fairness",
        "probe",
        "diagnose",
    ),
    "Improve": ("tune", "distill", "update"),
    "Deploy": (
        "predict",
        "threshold",
        "export",
        "chat",
        "serve",
        "promote",
        "drift",
        "dashboard",
        "forget",
        "schema",
    ),
}
OTHERS = "Plug-ins"

TorchEntry = functools.partial(Entry, imports="torch")
COMMANDS = {
    "train": TorchEntry(
        "holdfast.cli.train",
        "Fine-tune a model, score it on test rows, and write a report",
        "holdfast train reviews.csv",
        "holdfast train reviews.csv --text body --label stars --group author",
        "holdfast train reviews.csv --dry-run",
        "holdfast train images/ --model microsoft/resnet-50 --set train.epochs=5",
        "holdfast train runs/reviews-1/recipe.yaml --seed 1 --fail-on overfit",
    ),
    "audit": TorchEntry(
        "holdfast.cli.audit",
        "Check a data set for problems before training",
        "holdfast audit reviews.csv",
        "holdfast audit reviews.csv --against test.csv --html audit.html",
        "holdfast audit reviews.csv --label stars --group author --json",
        "holdfast audit reviews.csv --quiet --fail-on error",
    ),
    "distill": TorchEntry(
        "holdfast.cli.distill",
        "Train a smaller model to predict as a run does",
        "holdfast distill runs/reviews-1 --layers 3",
        "holdfast distill runs/reviews-1 --layers 3 --unlabelled more.csv",
        "holdfast distill runs/seed-0 runs/seed-1 --student distilbert-base-uncased",
    ),
    "evaluate": TorchEntry(
        "holdfast.cli.evaluate",
        "Score a run on other labelled rows",
        "holdfast evaluate runs/reviews-1 march.csv",
        "holdfast evaluate runs/seed-0 runs/seed-1 march.csv --text body --json",
    ),
    "fairness": TorchEntry(
        "holdfast.cli.fairness",
        "Compare a run's errors between groups of rows",
        "holdfast fairness runs/reviews-1",
        "holdfast fairness runs/reviews-1 --group country --insert",
        "holdfast fairness runs/reweighed --against runs/reviews-1 --group country",
    ),
    "predict": TorchEntry(
        "holdfast.cli.predict",
        "Predict new rows with one run or several",
        "holdfast predict runs/reviews-1 new.csv --out predictions.csv",
        "echo 'It broke after a week.' | holdfast predict runs/reviews-1 -",
        "holdfast predict runs/seed-0 runs/seed-1 new.csv",
    ),
    "threshold": TorchEntry(
        "holdfast.cli.threshold",
        "Set the confidence below which a run makes no prediction",
        "holdfast threshold runs/reviews-1 --precision 0.95",
        "holdfast threshold runs/reviews-1 --coverage 0.8 --json",
        "holdfast threshold runs/reviews-1 --cost costs.csv --force",
    ),
    "compare": TorchEntry(
        "holdfast.cli.compare",
        "Test whether one model is better than another",
        "holdfast compare runs/reviews-2 runs/reviews-1 march.csv",
        "holdfast compare runs/small runs/large --margin 0.5",
        "holdfast compare runs/reviews-2 old_predictions.jsonl march.csv --json",
    ),
    "explain": TorchEntry(
        "holdfast.cli.explain",
        "Show which words or image regions decide a prediction",
        "holdfast explain runs/reviews-1 new.csv --out why.html",
        "echo 'It broke after a week.' | holdfast explain runs/reviews-1 -",
    ),
    "cv": TorchEntry(
        "holdfast.cli.cv",
        "Cross-validate, then train a model on all rows",
        "holdfast cv reviews.csv",
        "holdfast cv reviews.csv --folds 10 --repeats 2 --group author",
        "holdfast cv chats.jsonl --model my-llama --set model.adapter.kind=lora",
    ),
    "lr": TorchEntry(
        "holdfast.cli.lr",
        "Find a learning rate with a range test",
        "holdfast lr reviews.csv",
        "holdfast lr reviews.csv --model bert-base-uncased --json",
    ),
    "choose": TorchEntry(
        "holdfast.cli.choose",
        "Compare base models for your data",
        "holdfast choose reviews.csv --models embedded,bert-base-uncased",
        "holdfast choose chats.jsonl --models gpt2,HuggingFaceTB/SmolLM2-135M --json",
    ),
    "tune": TorchEntry(
        "holdfast.cli.tune",
        "Search hyperparameters, and keep the chosen model",
        "holdfast tune reviews.csv --trials 16",
        "holdfast tune recipe.yaml --minutes 30 --set search.folds=5",
        "holdfast tune reviews.csv --set 'train.epochs={range: [2, 12], step: 2}'",
    ),
    "probe": TorchEntry(
        "holdfast.cli.probe",
        "Measure memorization of training rows, and forgetting",
        "holdfast probe runs/reviews-1",
        "holdfast probe my-model/ --members train.csv --others new.csv --json",
    ),
    "errors": TorchEntry(
        "holdfast.cli.errors",
        "List a run's weak slices, confused classes and hardest rows",
        "holdfast errors runs/reviews-1",
        "holdfast errors runs/reviews-1 --robustness --json",
    ),
    "report": Entry(
        "holdfast.cli.report",
        "Write a run's report again, or a page of its predictions",
        "holdfast report runs/reviews-1",
        "holdfast report runs/reviews-1 --page predictions.html",
        imports="numpy",
    ),
    "schema": Entry(
        "holdfast.cli.schema",
        "Print the JSON Schema of result.json or of a command's --json",
        "holdfast schema",
        "holdfast schema result",
        "holdfast schema audit > audit.schema.json",
    ),
    "demo": TorchEntry(
        "holdfast.cli.demo",
        "Train on data that ships with Holdfast, to see a whole run",
        "holdfast demo",
        "holdfast demo --out runs/first",
    ),
}


EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)


class Command(typer.core.TyperCommand):
    """A command that suggests the nearest option for an unknown one, and says what to do with an
    argument too many."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        try:
            return super().make_context(*args, **more)
        # Its class moved between the packages that Typer stands on; the name and field did not.
        except Exception as error:
            extra = EXTRA_ARGUMENTS.match(str(getattr(error, "message", "")))
            if extra:
                several = (
                    "To train on several files, list them in a recipe (data: {path: [A, B]})."
                    if self.name == "train"
                    else f"`holdfast {self.name} --help` shows the arguments."
                )
                rule = f"is one argument more than holdfast {self.name} takes"
                remedy = f"{several} Put a path with spaces in quotes."
                raise RecipeError(extra[1], rule, None, remedy) from None
            if type(error).__name__ != "NoSuchOption":
                raise without_control_characters(error) from None
            name = str(error.option_name)  # type: ignore[attr-defined]
            known = [
                option
                for param in self.params
                for option in getattr(param, "opts", ())
                if option.startswith("--")
            ]
            rule = f"is not an option of holdfast {self.name}"
            raise RecipeError(name, rule, None, suggestion(name, known, "--set" in known)) from None


def without_control_characters(error: Exception) -> Exception:
    """Remove control characters from the message of Typer's error, which repeats what was typed:
    they could move the cursor of the terminal."""
    if isinstance(getattr(error, "message", None), str):
        error.message = printable(error.message, LONGEST)  # type: ignore[attr-defined]
    return error


def suggestion(name: str, known: list[str], settable: bool) -> str:
    """The remedy for an unknown option: the nearest option and the recipe key of the same name;
    where there is neither, a key with a similar name."""
    keys = list(_keys_like(name)) if settable else []
    exact = [key for key in keys if key.rpartition(".")[2] == _option_as_key(name)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    guesses = [*close, *(f"--set {key}=…" for key in exact or ([] if close else keys))]
    if guesses:
        return f"Did you mean {' or '.join(guesses[:3])}?"
    return "`--help` lists the options" + (
        "; --set KEY=VALUE takes every key of a recipe." if settable else "."
    )


def _keys_like(name: str) -> Iterator[str]:
    """Recipe keys whose last part equals the option's name or is close to it."""
    from holdfast.recipe import key_names

    key_name = _option_as_key(name)
    keys = {key.rpartition(".")[2]: key for key in key_names()}
    for last in difflib.get_close_matches(key_name, keys, n=2, cutoff=0.8):
        yield keys[last]


def _option_as_key(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _grouped(known: Iterable[str]) -> dict[str, list[str]]:
    """The known commands by the title of their group, in the order of the list."""
    names = {*known}
    groups = {title: [one for one in group if one in names] for title, group in GROUPS.items()}
    listed = {name for group in groups.values() for name in group}
    return {**groups, OTHERS: sorted(names - listed)}


class Commands(Mapping[str, Any]):
    """Every command by its name. Looking a command up imports its module."""

    def __getitem__(self, name: str) -> Any:
        entry = self.entry(name)
        lines = "\n".join(f"  {example}" for example in entry.examples)
        info = typer.models.CommandInfo(
            name=name,
            callback=flatten_options(importlib.import_module(entry.module).command, entry.imports),
            cls=Command,
            short_help=entry.short,
            epilog=f"\b\nExamples:\n{lines}",
        )
        return typer.main.get_command_from_info(
            info, pretty_exceptions_short=False, rich_markup_mode=None
        )

    def entry(self, name: str) -> Entry:
        """Raises ``KeyError`` for an unknown command."""
        entry: Entry = COMMANDS[name] if name in COMMANDS else load_entry_point(GROUP, name)
        return entry

    def __iter__(self) -> Iterator[str]:
        known = {**COMMANDS, **entry_points_by_name(GROUP)}
        return itertools.chain.from_iterable(_grouped(known).values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in entry_points_by_name(GROUP)


class Group(typer.core.TyperGroup):
    """The program. A data file where a command belongs is an error that suggests ``train``."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.commands: Any = Commands()

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        # Their lines are enough: listing imports no command.
        # One width for all groups, so that their second columns are aligned.
        column = max(map(len, self.commands))
        for title, names in _grouped(self.commands).items():
            if names:
                with formatter.section(title):
                    lines = [(f"{name:<{column}}", self._line(name)) for name in names]
                    formatter.write_dl(lines)

    def _line(self, name: str) -> str:
        try:
            return str(self.commands.entry(name).short)
        except MachineError as error:
            # A broken plug-in must not hide the other commands.
            return error.rule

    def resolve_command(self, ctx: Context, args: list[str]) -> Any:
        name = args[0]
        is_data = Path(name).suffix.lower() in SOURCES or (
            path_exists(Path(name)) and Path(name).is_dir()
        )
        if name not in self.commands and is_data:
            raise RecipeError(
                name, "is not a command", None, f"Did you mean holdfast train {name}?"
            )
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            raise without_control_characters(error) from None
