"""``scripts/leave_one_group_out.py``: whole small runs, and its combinations against SciPy and
scikit-learn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import leave_one_group_out

    yield leave_one_group_out
    sys.modules.pop("leave_one_group_out", None)


@pytest.fixture
def recipe_files(
    tmp_path: Path, tiny_model: Path, marked_rows: Any, write_csv: Callable[..., Path]
) -> list[Path]:
    """Two recipes that differ in their rate, of the same 120 rows in three groups."""
    rows = [(text, label, "abc"[n % 3]) for n, (text, label) in enumerate(marked_rows(120))]
    write_csv(tmp_path / "rows.csv", rows, ("text", "label", "prompt"))
    paths = []
    for name, rate in (("slow", 1e-4), ("fast", 3e-3)):
        recipe = {
            "task": "text-classification",
            "model": {"name": str(tiny_model)},
            "data": {"path": "rows.csv", "text": "text", "label": "label", "group": "prompt"},
            "train": {
                "max_steps": 6,
                "learning_rate": rate,
                "evaluations": 1,
                "threads": 1,
                "precision": "float32",
                "matmul": "default",
            },
            "methods": {"contrast": False, "probe_first": False},
        }
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(recipe), "utf-8")
    return paths


@pytest.mark.slow
def test_every_row_is_answered_by_models_that_never_saw_its_group(
    script: Any, recipe_files: list[Path], tmp_path: Path, capsys: Any
) -> None:
    import pyarrow.parquet as parquet
    from sklearn.metrics import roc_auc_score

    out = tmp_path / "out"
    words = [*map(str, recipe_files), "--out", str(out)]
    assert script.main(words) == 0
    shown = capsys.readouterr().out
    for part in ("| slow |", "| fast |", "| averaged |", "| stacked |", "| a |", "| c |"):
        assert part in shown
    answers = parquet.read_table(out / "answers.parquet").to_pydict()
    assert sorted(zip(answers["group"], answers["row"], strict=True)) == [
        (group, row) for group in "abc" for row in range(40)
    ]
    for folder, group in zip(sorted(out.glob("group-*")), "abc", strict=True):
        rest = parquet.read_table(folder / "rest.parquet")["prompt"].to_pylist()
        assert (len(rest), set(rest)) == (80, set("abc") - {group})
    labels = np.array(answers["label"]) == "yes"
    mean = (np.array(answers["slow"]) + np.array(answers["fast"]))[:, 1] / 2
    told = json.loads((out / "scores.json").read_text("utf-8"))["systems"]
    assert told["averaged"]["accuracy"]["value"] == pytest.approx(((mean > 0.5) == labels).mean())
    assert told["averaged"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(labels, mean))
    assert told["stacked"]["accuracy"]["low"] < told["stacked"]["accuracy"]["high"]
    written = {run: run.stat().st_mtime_ns for run in out.glob("group-*/*/result.json")}
    assert len(written) == 6
    assert script.main(words) == 0
    assert {run: run.stat().st_mtime_ns for run in written} == written


def made_up(script: Any, rng: np.random.Generator, good: int = 1, models: int = 3) -> Any:
    """Models of which the first ``good`` know the label; the others are sure, and random."""
    labels = rng.integers(0, 2, 600)
    logits = 4.0 * rng.standard_normal((models, 600))
    logits[:good] = 1.5 * (2 * labels - 1) + rng.standard_normal((good, 600))
    share = 1 / (1 + np.exp(-logits))
    return script.Answers(
        tuple(f"m{k}" for k in range(models)),
        ("no", "yes"),
        np.array(list("abcd") * 150, dtype=object),
        np.arange(600),
        labels,
        np.stack([1 - share, share], axis=-1),
    )


def test_stacking_is_a_regression_on_the_other_groups_and_learns_whom_to_trust(script: Any) -> None:
    from scipy.optimize import minimize

    answers = made_up(script, np.random.default_rng(0))
    given = script.stacked(answers)
    logits = np.log(answers.probabilities[:, :, 1] / answers.probabilities[:, :, 0]).T
    held = answers.groups == "b"

    def loss(table: np.ndarray) -> float:
        signed = (2 * answers.labels[~held] - 1) * (logits[~held] @ table[:-1] + table[-1])
        return float(np.logaddexp(0, -signed).sum() + (table[:-1] ** 2).sum() / 2)

    table = minimize(loss, np.zeros(4), method="BFGS").x
    want = 1 / (1 + np.exp(-(logits[held] @ table[:-1] + table[-1])))
    assert given[held, 1] == pytest.approx(want, abs=1e-3)
    scores = script.scored(answers)
    stacked, averaged = scores["stacked"].metrics, scores["averaged"].metrics
    assert stacked["accuracy"].value > averaged["accuracy"].value + 0.1
    assert stacked["loss"].value < averaged["loss"].value


def test_the_answers_to_a_group_never_depend_on_its_labels(script: Any) -> None:
    from dataclasses import replace

    answers = made_up(script, np.random.default_rng(1))
    held = answers.groups == "c"
    turned = replace(answers, labels=np.where(held, 1 - answers.labels, answers.labels))
    assert np.array_equal(script.stacked(answers)[held], script.stacked(turned)[held])
    assert not np.array_equal(script.stacked(answers)[~held], script.stacked(turned)[~held])


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("data.group=null", "data.group"),
        ("data.test=rows.csv", "rows of its own"),
        ("data.group=absent", "no column absent"),
        ("data.group=text", "3 to 40 groups"),
    ],
)
def test_recipes_that_cannot_be_held_out_by_group_are_refused(
    script: Any, recipe_files: list[Path], tmp_path: Path, capsys: Any, setting: str, wrong: str
) -> None:
    words = [str(recipe_files[0]), "--out", str(tmp_path / "out"), "--set", setting]
    assert script.main(words) == 2
    assert wrong in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/*/result.json"))
