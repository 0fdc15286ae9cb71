"""An arm of a comparison: a system with its settings, run on given rows in its own process."""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cells import gpu, processor

from holdfast.models.loading.source import short_name
from peers.process import Ended, commit, run_process
from peers.rows import Parts

HERE = Path(__file__).resolve().parent
COMMAND = "from holdfast.cli.main import main; main()"
SCRIPTS = {"trainer": "trainer_arm.py", "setfit": "setfit_arm.py"}


@dataclass(frozen=True, slots=True)
class Arm:
    """``settings`` are recipe keys for Holdfast, the script's own for a peer. With ``whole`` the
    validation rows are training rows too: for a system that would not use them otherwise, and for
    Holdfast where it is to divide the labelled rows itself."""

    system: Literal["holdfast", "trainer", "setfit"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """``result`` goes into the cell; ``right`` says of each test row whether it was right."""

    result: dict[str, Any]
    right: list[bool]


def run_arm(arm: Arm, parts: Parts, *, seed: int, threads: int) -> Answer:
    """Run one arm from a cold start; raises when its process fails or loses a row."""
    load = os.getloadavg()[0]
    given = parts.whole() if arm.whole else parts
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        run = _holdfast if arm.system == "holdfast" else _peer
        ended, predictions, told = run(arm, given, folder, seed, threads)
    right = [one == other for one, other in zip(predictions, parts.test.labels, strict=True)]
    accuracy = sum(right) / len(right)
    surroundings = {
        "threads": threads,
        "load_before": round(load, 2),
        "commit": commit(),
        "cpu": processor(),
        **gpu(),
    }
    return Answer({"accuracy": accuracy, **told, **asdict(ended), **surroundings}, right)


def write_recipe(parts: Parts, folder: Path, seed: int, *, whole: bool = False) -> Path:
    """Three CSV files and a recipe that names them; for ``parts.whole()`` (``whole``) two, since
    its training rows are all labelled rows. Everything else is Holdfast's own choice."""
    files = {name: rows for name, rows in parts.named().items() if not (whole and name == "valid")}
    for name, rows in files.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            lines = zip(rows.texts, rows.labels, strict=True)
            csv.writer(file).writerows([("text", "label"), *lines])
    recipe = folder / "recipe.yaml"
    valid = "" if whole else "valid: valid.csv, "
    recipe.write_text(
        f"seed: {seed}\nmodel: {{name: embedded}}\ndata: {{path: train.csv, {valid}"
        "test: test.csv, text: text, label: label}\n",
        encoding="utf-8",
    )
    return recipe


def _holdfast(
    arm: Arm, parts: Parts, folder: Path, seed: int, threads: int
) -> tuple[Ended, list[str], dict[str, Any]]:
    recipe = write_recipe(parts, folder, seed, whole=arm.whole)
    settings = [f"--set={key}={value}" for key, value in arm.settings.items()]
    words = ["train", str(recipe), "--out", str(folder / "run"), "--json", "--quiet", *settings]
    ended = run_process([sys.executable, "-c", COMMAND, *words], folder, threads)
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    check_rows(result, parts, whole=arm.whole)
    return ended, _predictions(folder / "run" / "predictions.parquet"), told_by_holdfast(result)


def check_rows(result: Mapping[str, Any], parts: Parts, *, whole: bool = False) -> None:
    """Refuse a run that did not use exactly the rows that the peers had; with ``whole`` all of
    ``parts.train`` may be training or validation rows.

    Of the training rows one in a hundred, or one, may be missing: duplicates of test rows, which
    Holdfast leaves out and the peers learn from. Which rows are duplicates depends on the others.
    """
    for name, rows in parts.named().items():
        if whole and name == "valid":
            continue
        found = result["data"][name] + (result["data"]["valid"] if whole and name == "train" else 0)
        spare = -(-len(rows) // 100) if name == "train" else 0
        if not len(rows) - spare <= found <= len(rows):
            raise ValueError(f"Holdfast used {found} {name} rows of {len(rows)}: not the same rows")


def told_by_holdfast(result: Mapping[str, Any]) -> dict[str, Any]:
    """The flat figures of a ``result.json``."""
    timing = result["timing"]
    others = {
        entry["what"]: entry["test"]["metrics"]["accuracy"]["value"]
        for entry in result["baseline"]["all"]
    }
    metrics = result["test"]["metrics"]
    decided = {one["what"]: one["chosen"] for one in result["decisions"]}
    trained = result["model_facts"]["trainable"] > 0
    return {
        "model": short_name(str(result["model_facts"]["name"])) + ("" if trained else ", frozen"),
        "class_names": decided.get("class names"),
        "unlabelled": decided.get("unlabelled rows"),
        "probe_accuracy": others.get("linear probe"),
        **{name: metrics[name]["value"] for name in ("loss", "ece") if name in metrics},
        "train_s": timing["train_s"],
        "examples_per_s": timing["examples_per_s"],
        "evaluate_s": timing["evaluate_s"],
        "steps": result["last_step"],
        "best_step": result["best_step"],
        "precision": result["model_facts"]["precision"],
        "train_rows": result["data"]["train"],
        "told_peak_mb": result["peak_memory_mb"],
        **_control(result),
    }


def _control(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the policy tried, as words, and the optimism of selection, expected and observed."""
    control = result["control"]
    optimism = control["optimism"] or {}
    return {
        "verdict": result["verdict"]["label"],
        "trials": trials_in_words(control["trials"]),
        "optimism": optimism.get("expected", {}).get("value"),
        "optimism_seen": optimism.get("seen", {}).get("value"),
        "optimism_metric": optimism.get("metric"),
    }


def steps_and_trials(policy: str, trained: Any, advisor: object, seed: int) -> dict[str, Any]:
    """The updates of a fit in all its branches (``steps``), and its ``trials`` as words."""
    from holdfast.control.record import control_block

    control = control_block(
        policy,
        trained.history,
        advisor,
        None,
        last_step=trained.last_step,
        planned_steps=None,
        seed=seed,
        history=trained.history,
    )
    return {"steps": control["steps"], "trials": trials_in_words(control["trials"])}


def trials_in_words(trials: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{one['name']}: {'kept' if one['kept'] else 'undone'}" for one in trials)


def _predictions(path: Path) -> list[str]:
    import pyarrow.parquet as parquet

    table = parquet.read_table(path, columns=["row", "prediction"]).sort_by("row")
    predictions: list[str] = table["prediction"].to_pylist()
    return predictions


def _peer(
    arm: Arm, parts: Parts, folder: Path, seed: int, threads: int
) -> tuple[Ended, list[str], dict[str, Any]]:
    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    rows = {name: asdict(rows) for name, rows in parts.named().items()}
    settings = dict(arm.settings)
    job = {
        # By default what Holdfast starts from.
        "model": settings.pop("model", None) or str(packaged_folder(EMBEDDED)),
        "seed": seed,
        "classes": parts.classes,
        "rows": rows,
        "settings": settings,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = HERE / SCRIPTS[arm.system]
    ended = run_process([sys.executable, str(script), str(folder)], folder, threads)
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return ended, answer.pop("predictions"), {**answer, "train_rows": len(parts.train)}
