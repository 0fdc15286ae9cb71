"""Whether every hub name in ``recipes/`` still leads somewhere: what ``make recipes`` runs.

For each recipe it asks the hub, fetching no weights and no rows but the first:

- the model: is it there, is it gated, which format have its weights, which file its tokenizer;
- the data set: is it there without a script, has it the split, has it every column that the recipe
  names, has it a validation and a test split of its own;
- a file or folder that the user must bring: is it there yet.

Exit code 1 where something is missing; 0 where all is well, and where there is no network, which
it says.

    python scripts/check_recipes.py            # all of them
    python scripts/check_recipes.py NAME.yaml  # one
"""

from __future__ import annotations

import string
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from holdfast.core.errors import HoldfastError
from holdfast.data.chats.turns import is_template
from holdfast.data.readers.hub import HubName, parse_hub_name, split_names
from holdfast.models.loading.source import HUB_TIMEOUT_S, TOKENIZER_FILES
from holdfast.recipe import DataPart, Recipe, read_recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
PROCESSOR = ("preprocessor_config.json",)
WEIGHTS = (("safetensors", ".safetensors"), ("pytorch", ".bin"))


class Hub(Protocol):
    """What is asked of the hub; each raises where the name leads nowhere. ``files`` also says
    whether the model is gated."""

    def files(self, model: str, revision: str | None) -> tuple[list[str], bool]: ...
    def splits(self, data: HubName) -> list[str]: ...
    def columns(self, data: HubName) -> list[str]: ...


class RealHub:
    """The Hugging Face hub through its own clients."""

    def files(self, model: str, revision: str | None) -> tuple[list[str], bool]:
        from huggingface_hub import HfApi

        told = HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT_S)
        return [file.rfilename for file in told.siblings or []], bool(told.gated)

    def splits(self, data: HubName) -> list[str]:
        return split_names(data)

    def columns(self, data: HubName) -> list[str]:
        import datasets

        rows = datasets.load_dataset(data.name, data.config, split=data.split, streaming=True)
        return list(rows.column_names or next(iter(rows)))


@dataclass
class Checked:
    """What was found of one recipe: ``good`` and ``bad`` lines."""

    name: str
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"{self.name}: {'wrong' if self.bad else 'ok'}"
        yield from (f"  {line}" for line in self.good)
        yield from (f"  WRONG: {line}" for line in self.bad)


def check(path: Path, hub: Hub) -> Checked:
    """Ask ``hub`` for everything that the recipe at ``path`` names."""
    recipe, found = read_recipe(path), Checked(path.name)
    for part in (_model, _data):
        try:
            part(recipe, path, hub, found)
        except HoldfastError as error:
            found.bad.append(" ".join(str(error).split()))
        except Exception as error:
            found.bad.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return found


def _model(recipe: Recipe, path: Path, hub: Hub, found: Checked) -> None:
    name = recipe.model.name
    named, gated = hub.files(name, recipe.model.revision)
    files = [file for file in named if "/" not in file]
    kinds = [kind for kind, end in WEIGHTS if any(file.endswith(end) for file in files)]
    wanted = PROCESSOR if recipe.task == "image-classification" else TOKENIZER_FILES
    reads = [file for file in wanted if file in files]
    if not kinds:
        found.bad.append(f"model {name}: no weights in safetensors or PyTorch's own format")
    elif not reads:
        found.bad.append(f"model {name}: none of {', '.join(wanted)}")
    else:
        licence = "; GATED: accept its licence, set HF_TOKEN" if gated else ""
        found.good.append(f"model {name}: weights {kinds[0]}, read through {reads[0]}{licence}")


def _data(recipe: Recipe, path: Path, hub: Hub, found: Checked) -> None:
    source = str(recipe.data.path)
    name = parse_hub_name(source)
    if name is None or source.startswith("data/") or Path(source).exists():
        there = "is there" if (path.parent / source).exists() else "is for you to bring: README.md"
        found.good.append(f"data {source}: {there}")
        return
    splits = hub.splits(HubName(name.name, name.config or recipe.data.config))
    split = (name.split or "train").partition("[")[0]
    if split not in splits:
        found.bad.append(f"data {source}: no split {split!r}, it has {', '.join(splits)}")
        return
    columns = hub.columns(HubName(name.name, name.config or recipe.data.config, split))
    missing = [column for column in named_columns(recipe.data) if column not in columns]
    if missing:
        found.bad.append(
            f"data {source}: no column {', '.join(missing)}; it has {', '.join(columns)}"
        )
        return
    found.good.append(f"data {source}: splits {', '.join(splits)}; columns {', '.join(columns)}")


def named_columns(data: DataPart) -> list[str]:
    """Every column that a recipe names, in its template too."""
    given = [*(data.text or ()), data.label, data.target, data.group, data.messages]
    if data.template and not is_template(data.template):
        given += [name for _, name, _, _ in string.Formatter().parse(data.template)]
    return list(dict.fromkeys(name for name in given if name))


def reachable() -> bool:
    """Whether the hub answers at all."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info("google-bert/bert-base-uncased", timeout=10)
    except Exception as error:
        print(f"the hub cannot be reached ({type(error).__name__}): no name was checked")
        return False
    return True


def main(wanted: Iterable[str], hub: Hub | None = None) -> int:
    paths = [RECIPES / name for name in wanted] or sorted(RECIPES.glob("*.yaml"))
    if hub is None and not reachable():
        return 0
    checked = [check(path, hub or RealHub()) for path in paths]
    print("\n".join(line for one in checked for line in one.lines()))
    return int(any(one.bad for one in checked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
