"""Runs that are never stopped, with their logits on validation rows and on test rows at each
evaluation: what kept_state.py compares its rules on.

A recording is one ``.npz`` file, whole or absent, so recording goes on where it was. It holds the
logits and labels of the validation and test rows, the steps, and ``told``: the cell, the commit,
the seconds and the versions. Test rows choose nothing in a run.

| recipe | what is run |
|---|---|
| ``default`` | ``holdfast train``, its default recipe |
| ``long`` | the same, 30 epochs at 3e-4 without contrast |
| ``layer``, ``layer-hot`` | a residual layer over frozen features, 20 epochs at 1e-3, 60 at 3e-3 |
| ``trainer``, ``trainer-hot`` | ``transformers.Trainer``, a new head, 25 epochs at 2e-4, at 3e-3 |

All but the trainer's begin as a fitted linear probe. Of a trainer's the first state is a model that
has learned nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import machine
from peers.arms import write_recipe
from peers.process import commit, run_process
from peers.rows import Parts, data_folder, labelled_counts
from peers.sets import parts_of

from holdfast.core.events import Place
from recorded.from_probe import COURSES, job_of
from recorded.store import folder as recordings

if TYPE_CHECKING:
    from holdfast.training.run import Run

# Every run is scored by as many rows as a set can spare; more would make recordings large.
TESTED = 400
OURS: dict[str, list[str]] = {
    "default": [],
    # Fine-tuning from the probe alone, long enough to overfit, as a user might set it.
    "long": ["methods.contrast=false", "train.epochs=30", "train.learning_rate=3e-4"],
}
TRAINERS = {"trainer": 2e-4, "trainer-hot": 3e-3}
TRAINER = {"epochs": 25, "batch_size": 16}
RECIPES = (*OURS, *COURSES, *TRAINERS)
SOURCE = Path(__file__).resolve().parents[2] / "src"
Arrays = dict[str, Any]


def usual_folder() -> Path:
    """Where recordings lie unless a folder is given."""
    return recordings().parent / "kept_state"


def path_of(folder: Path, cell: Mapping[str, Any]) -> Path:
    name = "-".join(str(cell[key]) for key in ("recipe", "data", "rows", "seed"))
    return folder / f"{name}.npz"


def record_all(
    cells: Sequence[Mapping[str, Any]], folder: Path, script: Path, jobs: int, minutes: float | None
) -> int:
    """Record the cells that are not there yet, ``jobs`` at once, each in a process of one thread
    that ``script --child`` begins; none begins after ``minutes``. Returns how many failed."""
    # The processes have a folder of their own, from which a relative path would lead elsewhere.
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [str(Path(one).resolve()) for one in given if one]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *others])
    os.environ["HOLDFAST_DATA"] = str(data_folder().resolve())
    deadline = time.monotonic() + 60 * (minutes if minutes is not None else float("inf"))
    todo = [cell for cell in cells if not path_of(folder, cell).exists()]
    print(f"{len(cells) - len(todo)} of {len(cells)} are recorded in {folder}", flush=True)

    def one(cell: Mapping[str, Any]) -> bool:
        if time.monotonic() >= deadline:
            return True
        words = " ".join(f"{name}={value}" for name, value in cell.items())
        try:
            took = _in_process(cell, folder, script)
        except RuntimeError as error:
            print(f"{words}: failed, not recorded: {error}", flush=True)
            return False
        size = path_of(folder, cell).stat().st_size / 1e3
        print(f"{words}: {took:.0f} s, {size:.0f} kB", flush=True)
        return True

    with ThreadPoolExecutor(jobs) as pool:
        return sum(not done for done in pool.map(one, todo))


def _in_process(cell: Mapping[str, Any], folder: Path, script: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        place = Path(name)
        job = {"cell": dict(cell), "folder": str(folder)}
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, str(script), "--child", str(place)]
        return run_process(command, place, 1).command_s


def child(place: Path) -> None:
    """Record the cell of ``place/job.json``, in this process."""
    import torch

    torch.set_num_threads(1)
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    cell, start = job["cell"], time.perf_counter()
    parts = parts_of(cell["data"], labelled_counts(cell["rows"]), cell["seed"], TESTED)
    if cell["recipe"] in COURSES:
        found = _of_layer(cell, parts)
    elif cell["recipe"] in TRAINERS:
        found = _of_trainer(cell, parts, place)
    else:
        found = _of_recipe(cell, parts, place)
    seconds = round(time.perf_counter() - start, 1)
    told = {"cell": cell, "commit": commit(), "seconds": seconds, "machine": machine()}
    target = path_of(Path(job["folder"]), cell)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(scratch, told=np.array(json.dumps(told)), **found)
    scratch.rename(target)


class TestLogits:
    """A listener of our loop: the logits of ``tested`` at each evaluation."""

    name = "test logits"
    place: Place = "tell"

    def __init__(self, tested: Any = None) -> None:
        self.tested = tested
        self.found: list[Any] = []

    def snapshot_taken(self, run: Run) -> None:
        rows = np.arange(len(self.tested))
        self.found.append(run.observer.measure(run.network, self.tested, rows)[1])


def _of_recipe(cell: Mapping[str, Any], parts: Parts, place: Path) -> Arrays:
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import make_job
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from holdfast.training.machine.machine import make_accelerator

    write_recipe(parts, place, cell["seed"])
    settings = ["model.name=embedded", "control.policy=off", *OURS[cell["recipe"]]]
    recipe = override(read_recipe(place / "recipe.yaml"), settings)
    splits = load_and_divide(recipe).splits
    ready = make_training_plan(*prepare_divided(recipe, splits))
    logits = TestLogits(ready.definition.encode(splits.test.open(), ready.loaded, ready.recipe))
    work, _ = make_job(ready, make_accelerator(ready.recipe.train.precision), listeners=[logits])
    return _fitted(work, logits)


def _of_layer(cell: Mapping[str, Any], parts: Parts) -> Arrays:
    logits = TestLogits()
    return _fitted(job_of(cell, parts, logits), logits)


def _fitted(work: Any, logits: TestLogits) -> Arrays:
    from holdfast.training.loop import fit

    history = fit(work).history
    return {
        "steps": np.array([look.step for look in history]),
        "valid_logits": np.stack([np.asarray(look.valid_logits) for look in history]).astype("f4"),
        "test_logits": np.stack(logits.found).astype("f4"),
        "valid_labels": work.valid.labels,
        "test_labels": logits.tested.labels,
    }


def _of_trainer(cell: Mapping[str, Any], parts: Parts, place: Path) -> Arrays:
    from peers import trainer_arm
    from transformers import TrainerCallback

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.compute.processor import use_onednn
    from holdfast.models.loading.packaged import packaged_folder

    job = {
        "model": str(packaged_folder(EMBEDDED)),
        "seed": cell["seed"],
        "classes": parts.classes,
        "rows": {
            side: {"texts": part.texts, "labels": part.labels}
            for side, part in parts.named().items()
        },
        "settings": {**TRAINER, "learning_rate": TRAINERS[cell["recipe"]], "evaluates": False},
    }
    trainer, test = trainer_arm.build(job, place)
    use_onednn(trainer.model)  # The same numbers in less time.
    valid, steps = trainer.eval_dataset, []
    seen: tuple[list[Any], list[Any]] = ([], [])

    class EachEpoch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps.append(state.global_step)
            for found, rows in zip(seen, (valid, test), strict=True):
                found.append(_logits(trainer, rows))

        on_epoch_end = on_train_begin

    trainer.add_callback(EachEpoch())
    trainer.train()
    return {
        "steps": np.array(steps),
        "valid_logits": np.stack(seen[0]),
        "test_logits": np.stack(seen[1]),
        "valid_labels": np.array(valid["label"]),
        "test_labels": np.array(test["label"]),
    }


def _logits(trainer: Any, rows: Any) -> Any:
    """Of the trainer's model as it is, in evaluation mode, which is put back."""
    import torch

    trainer.model.eval()
    with torch.inference_mode():
        batches = [
            trainer.data_collator([rows[i] for i in range(start, min(start + 64, len(rows)))])
            for start in range(0, len(rows), 64)
        ]
        inputs = [{k: v for k, v in one.items() if k != "labels"} for one in batches]
        found = torch.cat([trainer.model(**one).logits for one in inputs]).float().numpy()
    trainer.model.train()
    return found
