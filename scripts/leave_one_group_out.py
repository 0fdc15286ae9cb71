"""How recipes do on a group that no training saw, one group after the other; their answers also
averaged and stacked.

    python scripts/leave_one_group_out.py recipes/ai-text-*.yaml --out runs/prompts
    python scripts/leave_one_group_out.py RECIPE [RECIPE]... --out DIR [--set KEY=VALUE]...

For recipes of text classification that share their data and its group column. Each value of that
column is held out once, as a test file, and every recipe is trained on the rest: groups × recipes
trainings, of which those that are finished in DIR are not repeated. Then every row has been
answered by models that never saw its group:

- each model alone;
- ``averaged``: the mean of the models' probabilities, as ``holdfast predict RUN RUN`` gives it;
- ``stacked``: a logistic regression on the models' log-odds, fitted for each group on the answers
  to all other groups (Wolpert 1992, stacked generalization).

The rows that the regression is fitted on were answered by models that had trained on the group it
then answers; to leave that out too would take a training for every pair of groups. It has one
number a model (and class) and a constant to learn, so little can pass that way.

Written to DIR: a folder a training, ``answers.parquet`` and ``scores.json``; printed: a table with
intervals over groups, and the accuracy of each group.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.errors import DataError, HoldfastError, RecipeError
from holdfast.core.files import write_json
from holdfast.core.records import Estimate, Outputs, Scores
from holdfast.recipe import Recipe, override, read_recipe

SHOWN = ("accuracy", "f1_macro", "roc_auc", "loss")
# Beyond this many groups a fold of several groups would do, at a fraction of the time.
MOST_GROUPS = 40
TINIEST = 1e-12


@dataclass(frozen=True)
class Answers:
    """What each of the models said of every row: ``probabilities`` [models, rows, classes], by
    models that never saw the row's group; ``labels`` [rows] are indices of ``classes``."""

    models: tuple[str, ...]
    classes: tuple[str, ...]
    groups: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any]


def recipes_of(paths: Sequence[Path], settings: Sequence[str]) -> dict[str, Recipe]:
    """The recipes by their files' names; refused where they do not belong together."""
    found = {path.stem: override(read_recipe(path), settings) for path in paths}
    for name, recipe in found.items():
        if recipe.task not in (None, "text-classification") or recipe.data.group is None:
            raise RecipeError(
                name,
                "must be of text-classification with a data.group",
                recipe.data.group,
                "Name the column in the recipe, or add --set data.group=COLUMN.",
            )
        if recipe.data.test or recipe.data.valid:
            raise RecipeError(
                name,
                "has test or validation rows of its own, and groups are held out instead",
                recipe.data.test or recipe.data.valid,
                "Take data.test and data.valid out.",
            )
    sources = {(r.data.path, r.data.group, r.data.label) for r in found.values()}
    if len(sources) > 1:
        raise RecipeError(
            "the recipes",
            "must name the same data, label and group",
            len(sources),
            "Give recipes of one task.",
        )
    return found


def hold_out(recipe: Recipe, out: Path, most: int = MOST_GROUPS) -> list[tuple[str, Path]]:
    """A folder a group, with ``rest.parquet`` to train on and ``held_out.parquet`` to answer."""
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    from holdfast.data.source import read_source

    data = recipe.data
    assert data.path is not None
    assert data.group is not None
    table = read_source(data.path, data.encoding, data.config).table
    if data.group not in table.column_names:
        raise DataError(
            data.path,
            f"has no column {data.group}",
            ", ".join(table.column_names),
            "Name its column of groups with --set data.group=COLUMN.",
        )
    names = sorted(name for name in pc.unique(table[data.group]).to_pylist() if name is not None)
    if not 3 <= len(names) <= most:
        raise DataError(
            f"column {data.group} of {data.path}",
            f"must hold 3 to {most} groups",
            len(names),
            "Each group is a training of every recipe; --most allows more of them.",
        )
    folders = [(name, out / f"group-{number:02d}") for number, name in enumerate(names)]
    for name, folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        held = pc.fill_null(pc.equal(table[data.group], name), False)
        for file, rows in (("held_out", held), ("rest", pc.invert(held))):
            parquet.write_table(table.filter(rows), folder / f"{file}.parquet")
    return folders


def train_all(
    recipes: dict[str, Recipe], folders: Sequence[tuple[str, Path]]
) -> dict[tuple[str, str], Path]:
    """The finished run of every (group, recipe); one that is there is not repeated."""
    from holdfast.pipeline.main import train

    runs = {}
    for at, (group, folder) in enumerate(folders, 1):
        for name, recipe in recipes.items():
            run = runs[group, name] = folder / name
            say(f"group {at} of {len(folders)} ({group}), {name}")
            data = {"path": str(folder / "rest.parquet"), "test": str(folder / "held_out.parquet")}
            train(recipe.with_changes(data=data), run, resume=run.exists())
    return runs


def gather(runs: dict[tuple[str, str], Path]) -> Answers:
    """The test rows of all runs side by side; a row that a model left out is left out of all."""
    import json

    import pyarrow.parquet as parquet

    models = tuple(dict.fromkeys(name for _, name in runs))
    classes: tuple[str, ...] = ()
    said: dict[tuple[str, int], dict[str, Any]] = {}
    for (group, name), run in runs.items():
        found = tuple(json.loads((run / "result.json").read_text("utf-8"))["classes"])
        if classes and found != classes:
            raise DataError(
                str(run),
                "has other classes than the runs before it",
                found,
                f"Every group's rest must hold all of {classes}.",
            )
        classes = found
        for line in parquet.read_table(run / "predictions.parquet").to_pylist():
            key = (group, line["row"])
            said.setdefault(key, {"label": classes.index(line["label"])})[name] = line[
                "probabilities"
            ]
    whole = {key: row for key, row in said.items() if len(row) == 1 + len(models)}
    if len(whole) < len(said):
        say(f"{len(said) - len(whole)} rows are left out: not every model could read them")
    return Answers(
        models,
        classes,
        np.array([group for group, _ in whole], dtype=object),
        np.array([row for _, row in whole]),
        np.array([r["label"] for r in whole.values()]),
        np.array([[r[name] for r in whole.values()] for name in models]),
    )


def averaged(answers: Answers) -> np.ndarray[Any, Any]:
    """The mean of the models' probabilities [rows, classes]."""
    return np.asarray(answers.probabilities.mean(axis=0))


def stacked(answers: Answers) -> np.ndarray[Any, Any]:
    """Probabilities [rows, classes] of a regression on the models' log-odds, of each group from
    one fitted on all other groups."""
    features, result = log_odds(answers.probabilities), np.zeros(answers.probabilities.shape[1:])
    for group in np.unique(answers.groups):
        held = answers.groups == group
        result[held] = _regressed(
            features[~held], answers.labels[~held], features[held], result.shape[1]
        )
    return result


def _regressed(
    x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], new: np.ndarray[Any, Any], classes: int
) -> np.ndarray[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(max_iter=1000).fit(x, y)
    given = np.zeros((len(new), classes))
    given[:, fitted.classes_] = fitted.predict_proba(new)
    return given


def log_odds(probabilities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """log p ÷ p of the first class, of every model and further class [rows, models·(classes − 1)];
    bounded, for a model may be entirely sure."""
    logs = np.log(np.clip(probabilities, TINIEST, 1.0))
    against = logs[:, :, 1:] - logs[:, :, :1]
    return np.asarray(np.moveaxis(against, 0, 1).reshape(against.shape[1], -1))


def scored(answers: Answers) -> dict[str, Scores]:
    """The scores of every model alone, then of both combinations; intervals over groups."""
    from holdfast.metrics.score import score

    systems = dict(zip(answers.models, answers.probabilities, strict=True))
    if len(answers.models) > 1:
        systems |= {"averaged": averaged(answers), "stacked": stacked(answers)}
    found = {}
    for name, given in systems.items():
        logits = np.log(np.clip(given, TINIEST, 1.0))
        losses = -logits[np.arange(len(logits)), answers.labels]
        outputs = Outputs(answers.rows, answers.labels, logits, losses, answers.groups)
        found[name] = score(outputs, answers.classes)
    return found


def by_group(answers: Answers) -> dict[str, dict[str, float]]:
    """The accuracy in each group of every system."""
    systems = dict(zip(answers.models, answers.probabilities, strict=True))
    if len(answers.models) > 1:
        systems |= {"averaged": averaged(answers), "stacked": stacked(answers)}
    right = {name: given.argmax(axis=1) == answers.labels for name, given in systems.items()}
    return {
        str(group): {
            name: float(hits[answers.groups == group].mean()) for name, hits in right.items()
        }
        for group in np.unique(answers.groups)
    }


def table(scores: dict[str, Scores], groups: dict[str, dict[str, float]]) -> str:
    """Markdown: a line a system, then a line a group."""
    names = [name for name in SHOWN if name in next(iter(scores.values())).metrics]
    lines = [_line(["", *names]), "|" + "---|" * (len(names) + 1)]
    lines += [
        _line([system, *(_shown(found.metrics[name]) for name in names)])
        for system, found in scores.items()
    ]
    lines += ["", _line(["accuracy of", *scores]), "|" + "---|" * (len(scores) + 1)]
    lines += [
        _line([group, *(f"{one[name]:.3f}" for name in scores)]) for group, one in groups.items()
    ]
    return "\n".join(lines)


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"– ({estimate.why})"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_answers(path: Path, answers: Answers) -> None:
    """A line a row: its group, its place in it, its label, every model's probabilities."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    names = np.array(answers.classes, dtype=object)
    columns = {
        "group": answers.groups.tolist(),
        "row": answers.rows.tolist(),
        "label": names[answers.labels].tolist(),
    }
    for model, given in zip(answers.models, answers.probabilities, strict=True):
        columns[model] = given.tolist()
    parquet.write_table(pa.table(columns), path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--most", type=int, default=MOST_GROUPS, help="groups at most")
    chosen = parser.parse_args(words)
    try:
        recipes = recipes_of(chosen.recipes, chosen.set)
        first = next(iter(recipes.values()))
        answers = gather(train_all(recipes, hold_out(first, chosen.out, chosen.most)))
    except HoldfastError as error:
        say(str(error))
        return error.exit_code
    scores, groups = scored(answers), by_group(answers)
    write_answers(chosen.out / "answers.parquet", answers)
    write_json(
        chosen.out / "scores.json",
        {
            "schema": 1,
            "rows": len(answers.labels),
            "groups": groups,
            "systems": {name: found.metrics for name, found in scores.items()},
        },
    )
    print(table(scores, groups))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
