"""An arm of a task comparison: a system with its settings, run and scored in processes of its
own."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from cells import processor

from peers.arms import told_by_holdfast
from peers.process import Ended, commit, run_process
from peers.task_rows import LENGTH, SIDES, TARGET_LENGTH, TaskParts, write_lines

HERE = Path(__file__).resolve().parent
TASKS = {
    "summaries": "seq2seq",
    "instructions": "causal-lm",
    "dialogues": "causal-lm",
    "novel": "causal-lm",
    "pictures": "image-classification",
}
COLUMNS: dict[str, dict[str, str]] = {
    "summaries": {"text": "source", "target": "target"},
    "instructions": {},
    "dialogues": {},
    "novel": {"text": "text"},
    "pictures": {"text": "path", "label": "label"},
}
LENGTHS = {
    "summaries": {"max_length": LENGTH, "max_target_length": TARGET_LENGTH},
    "instructions": {"max_length": LENGTH},
    "dialogues": {"max_length": LENGTH},
    "novel": {"max_length": LENGTH},
    "pictures": {},
}
TOLD = ("steps", "best_step", "precision", "verdict", "trials")


@dataclass(frozen=True, slots=True)
class TaskArm:
    """``settings`` are recipe keys for Holdfast, the script's own for a peer. ``fit`` is Holdfast's
    training alone; ``none`` leaves the model as it is."""

    system: Literal["holdfast", "fit", "peer", "none"]
    settings: Mapping[str, Any] = field(default_factory=dict)


def adapter_settings(rank: int | None) -> dict[str, Any]:
    """Recipe keys for LoRA of this rank; without one for all weights, which is no default for a
    large language model."""
    if rank is None:
        return {"model.adapter.kind": "none"}
    return {"model.adapter.kind": "lora", "model.adapter.rank": rank}


def run_task_arm(
    arm: TaskArm, job: str, model: Path, parts: TaskParts, *, seed: int, threads: int
) -> dict[str, Any]:
    """Run one arm from a cold start, then score what it saved; raises when a process fails."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        told = {
            "job": job,
            "model": str(model),
            "seed": seed,
            "settings": dict(arm.settings),
            "rows": parts.encoded,
            "length": LENGTH,
        }
        (folder / "job.json").write_text(json.dumps(told), encoding="utf-8")
        if arm.system == "none":
            return _score(folder, model, threads)
        run = {"holdfast": _holdfast, "fit": _fit, "peer": _peer}[arm.system]
        ended, saved, found = run(arm, job, model, parts, folder, seed, threads)
        score = _score(folder, saved, threads)
    tokens = parts.tokens_a_row
    speed = {"tokens_per_s": round(tokens * found["examples_per_s"], 1)} if tokens else {}
    rows = found["examples_per_s"] * found["train_s"]
    speed["examples_per_cpu_s"] = round(rows / found["train_cpu_s"], 3)
    surroundings = {
        "threads": threads,
        "load_before": round(load, 2),
        "commit": commit(),
        "cpu": processor(),
    }
    return {**score, **found, **speed, **asdict(ended), **surroundings}


def _score(folder: Path, saved: Path, threads: int) -> dict[str, Any]:
    script = [sys.executable, str(HERE / "task_score.py"), str(folder), str(saved)]
    run_process(script, folder, threads)
    told: dict[str, Any] = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    return told


def _holdfast(
    arm: TaskArm, job: str, model: Path, parts: TaskParts, folder: Path, seed: int, threads: int
) -> tuple[Ended, Path, dict[str, Any]]:
    recipe = write_task_recipe(job, model, parts, folder, seed)
    settings = [f"--set={key}={value}" for key, value in arm.settings.items()]
    words = ["train", str(recipe), "--out", str(folder / "run"), "--json", "--quiet", *settings]
    script = HERE / "task_holdfast_arm.py"
    try:
        ended = run_process([sys.executable, str(script), str(folder), *words], folder, threads)
    finally:
        _remove_tables(job, folder, parts)
    result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
    for side in SIDES:
        used, given = result["data"][side], len(parts.raw[side])
        if used != given:
            raise ValueError(f"Holdfast used {used} {side} rows of {given}: not the same rows")
    seconds = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return ended, folder / "run" / "model", {**_told(result), **seconds}


def _fit(
    arm: TaskArm, job: str, model: Path, parts: TaskParts, folder: Path, seed: int, threads: int
) -> tuple[Ended, Path, dict[str, Any]]:
    write_task_recipe(job, model, parts, folder, seed)
    script = HERE / "task_fit_arm.py"
    ended = run_process([sys.executable, str(script), str(folder)], folder, threads)
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return ended, folder / "model", answer


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    told = told_by_holdfast({**result, "baseline": {"all": []}})
    timing = ("train_s", "examples_per_s", "evaluate_s")
    return {name: told[name] for name in (*timing, *TOLD)}


def write_task_recipe(job: str, model: Path, parts: TaskParts, folder: Path, seed: int) -> Path:
    """Three files and a recipe that names them; no texts are generated, for a peer makes none."""
    data: dict[str, Any] = dict(COLUMNS[job])
    for side in SIDES:
        key = "path" if side == "train" else side
        data[key] = str(_write_side(job, folder, side, parts))
    recipe = {
        "task": TASKS[job],
        "seed": seed,
        "data": data,
        "generate": {"rows": 0},
        "model": {"name": str(model), **LENGTHS[job]},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def _write_side(job: str, folder: Path, side: str, parts: TaskParts) -> Path:
    """JSON lines; for pictures a table of paths in the folder that holds them."""
    rows = parts.raw[side]
    if job != "pictures":
        return write_lines(folder / f"{side}.jsonl", rows)
    base = _pictures(parts)
    named = [{"path": os.path.relpath(row["path"], base), "label": row["label"]} for row in rows]
    return write_lines(base / f"{folder.name}-{side}.jsonl", named)


def _pictures(parts: TaskParts) -> Path:
    """The folder that holds every picture: a table's paths may not lead out of its own."""
    return Path(os.path.commonpath([row["path"] for side in SIDES for row in parts.raw[side]]))


def _remove_tables(job: str, folder: Path, parts: TaskParts) -> None:
    if job == "pictures":
        for path in _pictures(parts).glob(f"{folder.name}-*.jsonl"):
            path.unlink()


def _peer(
    arm: TaskArm, job: str, model: Path, parts: TaskParts, folder: Path, seed: int, threads: int
) -> tuple[Ended, Path, dict[str, Any]]:
    script = HERE / "task_trainer_arm.py"
    ended = run_process([sys.executable, str(script), str(folder)], folder, threads)
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return ended, folder / "model", answer
