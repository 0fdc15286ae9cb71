"""Record the arena: 64 settings on three sets, each look's losses and answers row by row.

    python benchmarks/arena/record.py --minutes 5    # record more cells; resumable
    python benchmarks/arena/record.py --ship         # what is there as arena.npz

A cell is one setting on one set: ``fits.fit.fit`` on prepared rows, never stopped, 160 training
rows, and at about five looks the losses and answers of 440 rows that the run does not learn from.
A replay draws its validation rows from these. The model is the embedded one's first two layers and
texts are cut to their first twelve words, so that a cell takes five seconds of one core. Cells lie
beside the base models until they are shipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from peers.rows import Parts, clean_set, draw, without_copies
from peers.rows import Rows as Texts
from peers.sets import banking, first_words
from recorded.store import folder as recordings

from arena.space import PREPARED, settings
from arena.table import SHIPPED, pack

SETS = ("cr", "trec", "banking77")
LAYERS, WORDS, TRAIN, POOL, LOOKS = 2, 12, 160, 440, 4
# Of a cell that was begun and not finished, in seconds: its process was killed.
STALE = 180


def parts_of(name: str) -> Parts:
    """Training rows, and the pool as test rows; validation rows are none of their own."""
    rows = banking() if name == "banking77" else clean_set(name)
    cut = Texts(tuple(first_words(text, WORDS) for text in rows.texts), rows.labels)
    return draw(without_copies(cut), seed=0, train=TRAIN, valid=30, pool=POOL)


def cells() -> list[tuple[int, str]]:
    """Setting by setting, so that what is there is always balanced over the sets."""
    return [(number, name) for number in range(len(settings())) for name in SETS]


def model_folder() -> Path:
    """The embedded model's first layers, as a model of its own."""
    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    place = recordings().parent / "arena" / "model"
    if not (place / "model.safetensors").exists():
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(packaged_folder(EMBEDDED))
        model.encoder.layer = model.encoder.layer[:LAYERS]
        model.config.num_hidden_layers = LAYERS
        AutoTokenizer.from_pretrained(packaged_folder(EMBEDDED)).save_pretrained(place)
        model.save_pretrained(place)
    return place


def place_of(number: int, name: str) -> Path:
    return recordings().parent / "arena" / f"{name}-{number}.npz"


class SearchContext:
    """What the cells of one set share, prepared once a process."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def prepared(self, name: str, setting: Mapping[str, Any]) -> Any:
        own = {key: setting[key] for key in PREPARED if key in setting}
        key = (name, *sorted(own.items()))
        if key not in self._known:
            self._known = {k: v for k, v in self._known.items() if k[0] == name}
            self._known[key] = _prepared(name, own)
        return self._known[key]


def _prepared(name: str, own: Mapping[str, Any]) -> Any:
    import polars

    from holdfast.prepare.model import prepare
    from holdfast.recipe import DataPart, Recipe, as_settings, override
    from holdfast.tasks import task_definition

    parts = parts_of(name)
    place = recordings().parent / "arena" / f"{name}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    both = (parts.train, parts.test)
    polars.DataFrame(
        {
            "text": [text for rows in both for text in rows.texts],
            "label": [label for rows in both for label in rows.labels],
        }
    ).write_csv(place)
    data = DataPart(path=str(place), names=False)
    recipe = Recipe(task="text-classification", data=data)
    of_all = {"model.name": str(model_folder()), "model.pooling": "mean", "train.threads": 1}
    recipe = override(recipe, as_settings({**of_all, **own}))
    rows = task_definition(recipe.task).read(str(place), recipe.data, None)
    return prepare(recipe, rows)


def run_one(number: int, name: str, bench: SearchContext) -> dict[str, Any]:
    """One cell: what each look saw of the pool, and what it cost."""
    from holdfast.fits.fit import fit
    from holdfast.monitor.evidence import validation_losses

    setting = settings()[number]
    prepared = bench.prepared(name, setting)
    own = {key: value for key, value in setting.items() if key not in PREPARED}
    start = time.perf_counter()
    fitted = fit(
        prepared,
        np.arange(TRAIN),
        np.arange(TRAIN, TRAIN + POOL),
        {**own, "control.policy": "off", "train.evaluations": LOOKS},
    )
    history = fitted.trained.history
    losses = validation_losses(history)
    phases = fitted.job.plan.phases
    return {
        "losses": losses.T.astype(np.float16),
        "correct": np.stack([np.asarray(look.valid_correct) for look in history]),
        "train_loss": np.array([look.train_loss for look in history], dtype=np.float32),
        "steps": np.array([look.step for look in history]),
        "rows_passed": np.array([look.examples_seen for look in history]),
        "work": np.array(sum(phase.rows_passed for phase in phases)),
        "train_s": np.array(fitted.trained.train_s),
        "seconds": np.array(time.perf_counter() - start),
    }


def record(minutes: float) -> None:
    deadline, bench = time.monotonic() + 60 * minutes, SearchContext()
    todo = [cell for cell in cells() if not place_of(*cell).exists()]
    print(f"{len(cells()) - len(todo)} of {len(cells())} cells are there", flush=True)
    for number, name in todo:
        if time.monotonic() >= deadline:
            return
        target = place_of(number, name)
        if target.exists() or not claimed(target.with_suffix(".claim")):
            continue
        try:
            found = run_one(number, name, bench)
        except Exception:
            traceback.print_exc()
            print(f"{name} {number}: failed, not recorded", flush=True)
            continue
        scratch = target.with_suffix(".tmp.npz")
        np.savez_compressed(scratch, **found)
        scratch.rename(target)
        looks, right = found["steps"].tolist(), found["correct"].mean(axis=1)
        print(
            f"{name} {number} {found['seconds']:.1f} s (training {found['train_s']:.1f}), looks "
            f"{looks}, right {right.round(3).tolist()} {json.dumps(settings()[number])}",
            flush=True,
        )


def claimed(mark: Path) -> bool:
    """Whether this process may record the cell: no other one began it in the last minutes."""
    try:
        mark.open("x").close()
    except FileExistsError:
        if time.time() - mark.stat().st_mtime < STALE:
            return False
        mark.touch()
    return True


def ship() -> None:
    """All recorded cells, of each set up to the first that is missing, as one file."""
    found = {}
    for number, name in cells():
        if place_of(number, name).exists():
            with np.load(place_of(number, name)) as file:
                found[number, name] = {key: file[key] for key in file.files}
    np.savez_compressed(SHIPPED, **pack(found))
    print(f"{len(found)} cells, {SHIPPED.stat().st_size / 1e6:.2f} MB in {SHIPPED.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--ship", action="store_true", help="what is there as one file")
    asked = parser.parse_args()
    ship() if asked.ship else record(asked.minutes)


if __name__ == "__main__":
    main()
