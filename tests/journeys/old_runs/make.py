"""How ``runs.tar.xz`` was made, by the version of Holdfast before prediction became one thing.

    python make.py FOLDER MODELS

``FOLDER`` gets one recipe and one finished run a task, the rows, and under ``said/`` what the
commands of then said of each run; ``MODELS`` holds the tiny models. Packed without the reports and
the models. It is not made again: its worth is that an older version made it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

WORDS = [f"w{i}" for i in range(40)]
MARKS = ["bad", "good", "odd"]


def rows_of(n: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        mark = index % 2
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(6, 12))]
        words.insert(int(rng.integers(0, len(words))), MARKS[mark])
        extra = "odd" in words or bool(rng.random() < 0.4)
        if extra and "odd" not in words:
            words.append("odd")
        labels = [["no", "yes"][mark], *(["rare"] if extra else [])]
        rows.append(
            {
                "text": " ".join(words),
                "label": labels[0],
                "labels": labels,
                "stars": round(1.0 + 3 * mark + float(rng.random()), 2),
                "target": MARKS[mark] + " " + words[0],
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def pictures(folder: Path, n: int, seed: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(seed)
    for index in range(n):
        name = ["dark", "light"][index % 2]
        pixels = np.clip(rng.normal(60 + 120 * (index % 2), 40, (16, 16, 3)), 0, 255)
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:03d}.png")


# Of each task the columns of its rows, its model and its settings.
WRITES = ["data.text=[text]", "data.target=target", "generate.max_new_tokens=6"]
TASKS: dict[str, tuple[str, str, list[str]]] = {
    "classes": ("text label", "tiny-bert", ["methods.contrast=false"]),
    "several": ("text labels", "tiny-bert", ["data.label=labels"]),
    "number": ("text stars", "tiny-bert", ["data.label=stars"]),
    "seq2seq": ("text target", "tiny-t5", ["task=seq2seq", "generate.rows=8", *WRITES]),
    "causal": ("text target", "tiny-llama", ["task=causal-lm", "generate.rows=4", *WRITES]),
    "pictures": ("", "vit/tiny", ["task=image-classification"]),
}
ALWAYS = {
    "max_steps": 12,
    "threads": 1,
    "precision": "float32",
    "matmul": "default",
    "learning_rate": 1e-3,
}


def run(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from holdfast.cli.main import run; run()", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}")
    return done.stdout


def nested(source: str, model: str, settings: list[str]) -> dict[str, Any]:
    """A recipe as a person writes it."""
    recipe: dict[str, Any] = {
        "data": {"path": f"rows/{source}"},
        "model": {"name": f"models/{model}"},
        "train": dict(ALWAYS),
    }
    for setting in settings:
        key, _, value = setting.partition("=")
        place = recipe
        *parts, last = key.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = yaml.safe_load(value)
    return recipe


def main(folder: Path, models: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copytree(models, folder / "models")
    pictures(folder / "rows" / "pictures", 60, 0)
    pictures(folder / "rows" / "pictures-new", 12, 1)
    for task, (columns, model, settings) in TASKS.items():
        source, new = f"{task}.jsonl", f"{task}-new.jsonl"
        if columns:
            for name, n, seed in ((source, 90, 0), (new, 12, 1)):
                rows = [{k: row[k] for k in columns.split()} for row in rows_of(n, seed)]
                write(folder / "rows" / name, rows)
        else:
            source, new = "pictures", "pictures-new"
        recipe = folder / f"{task}.yaml"
        recipe.write_text(yaml.safe_dump(nested(source, model, settings)), "utf-8")
        out = folder / "runs" / task
        run("train", recipe, "--out", out, "--quiet", cwd=folder)
        said = folder / "said" / task
        said.mkdir(parents=True)
        rows_new = f"rows/{new}"
        for name, arguments in {
            "predict.jsonl": ["predict", out, rows_new, "--quiet"],
            "evaluate.json": ["evaluate", out, rows_new, "--json", "--quiet"],
            "diagnose.json": ["diagnose", out, "--json"],
        }.items():
            (said / name).write_text(run(*arguments, cwd=folder), "utf-8")
        print(task, "done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
