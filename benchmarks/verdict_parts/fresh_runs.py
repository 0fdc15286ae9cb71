"""The runs of ``fresh_verdicts.py``: one cell is one run of MiniLM, judged at its end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.arms import write_recipe
from peers.rows import Counts, Parts, Rows
from peers.sets import parts_of
from peers.trainer_arm import tokenised
from recorded.runs import planted, watched, with_noise

from holdfast._version import __version__
from holdfast.core.records import Snapshot, Verdict
from holdfast.core.seeds import generator
from holdfast.monitor.judge import judge
from holdfast.stats.temperature import losses_at
from holdfast.training.evaluation_file import read_evaluations, write_evaluations

Cell = Mapping[str, Any]
POOL_ROWS, EVALUATIONS, BATCH = 400, 12, 16
# A usual rate of the encoder, and of its training from a random head.
RATE, EARLY_RATE = 3e-5, 1e-4
# Rates of runs that overfit on purpose; the seed takes one.
HIGH_RATES = (2e-4, 3e-4, 5e-4)


@dataclass(frozen=True)
class Course:
    """Epochs, peak learning rate and schedule of a run."""

    epochs: float
    rate: float
    schedule: str = "linear"


@dataclass(frozen=True)
class Seen:
    """What is known at the end: the history, its verdict, the verdict of ``diagnose`` on what was
    stored, and of rows that the run never saw the logits [looks, rows, classes] and labels."""

    history: Sequence[Snapshot]
    verdict: Verdict
    stored: Verdict
    logits: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]


def run(cell: Cell) -> dict[str, Any]:
    """One run and what a person would see of it at its last evaluation."""
    torch.set_num_threads(1)
    sizes: Counts = {"train": int(cell["train"]), "valid": int(cell["valid"])}
    parts = without_leaks(parts_of(str(cell["data"]), sizes, int(cell["seed"]), POOL_ROWS))
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        made = guarded if cell["entry"] == "guard" else trained
        seen = made(cell, parts, Path(name))
    return figures(seen)


def without_leaks(parts: Parts) -> Parts:
    """Without training rows that stand among the others too: some texts of machines occur twice,
    and a leak that nobody planted is no wrong verdict."""
    others = {*parts.valid.texts, *parts.test.texts}
    kept = [place for place, text in enumerate(parts.train.texts) if text not in others]
    return replace(parts, train=parts.train.take(kept))


def course_of(cell: Cell) -> Course:
    """The plan of a cell."""
    way, guard = cell["way"], cell["entry"] == "guard"
    usual = EARLY_RATE if guard or cell["entry"] == "train new head" else RATE
    if way == "overfit":
        return Course(2000 / int(cell["train"]), HIGH_RATES[int(cell["seed"]) % 3], "constant")
    if way in ("shuffled", "noise 35"):
        # Wrong labels are harder to learn by heart than few rows.
        return Course(4000 / int(cell["train"]), HIGH_RATES[0], "constant")
    plans = {
        "early": Course(2, usual),
        "brief": Course(1, usual),
        "rate /30": Course(3, usual / 30),
        "short": Course(0.5, usual),
        "rate x100": Course(6, 100 * usual),
    }
    return plans.get(str(way), Course(8, usual))


def figures(seen: Seen) -> dict[str, Any]:
    last = seen.history[-1]
    pool = np.array([losses_at(look, seen.labels, 1.0).mean() for look in seen.logits])
    right = (seen.logits.argmax(axis=2) == seen.labels).mean(axis=1)
    assert last.train_correct is not None
    assert last.valid_correct is not None
    return {
        **words_of(seen.verdict),
        "label_of_stored_run": seen.stored.label,
        "train_accuracy": float(last.train_correct.mean()),
        "valid_accuracy": float(last.valid_correct.mean()),
        "pool_accuracy": float(right[-1]),
        "pool_best_accuracy": float(right.max()),
        "train_loss": float(last.train_losses.mean()),
        "valid_loss": float(last.valid_losses.mean()),
        "valid_least": float(min(s.valid_losses.mean() for s in seen.history)),
        "pool_loss": float(pool[-1]),
        "pool_least": float(pool.min()),
        "steps": last.step,
    }


def words_of(verdict: Verdict) -> dict[str, Any]:
    return {
        "label": verdict.label,
        "cause": verdict.cause,
        "confidence": round(verdict.confidence, 4),
        "because": verdict.because,
    }


def judged_again(cell: Cell, folder: Path) -> dict[str, Any]:
    """The verdict of this code on the kept looks of a run."""
    looks = read_evaluations(looks_of(cell, folder))
    verdict = judge(looks.history, looks.run_facts, looks.best_step)
    return {**words_of(verdict), "label_of_stored_run": verdict.label}


def looks_of(cell: Cell, folder: Path) -> Path:
    """Where the looks of a run are kept."""
    name = "-".join(str(value).replace(" ", "_").replace("/", "") for value in cell.values())
    return folder / f"{name}.npz"


# -- through train --------------------------------------------------------------------------------


def trained(cell: Cell, parts: Parts, folder: Path) -> Seen:
    """Through ``watched``. Faults of the data are planted after the split, which would refuse
    them."""
    from holdfast.recipe import override, read_recipe

    recipe = override(read_recipe(write_recipe(parts, folder, int(cell["seed"]))), settings(cell))
    seen = watched(
        recipe, lambda train, valid: _with_fault(train, valid, cell), stops=cell["group"] == "sound"
    )
    fitted = seen.fitted
    write_evaluations(
        folder / "looks.npz", fitted.history, seen.facts, fitted.best_step, __version__
    )
    # Averages of weights are measured after the last evaluation.
    logits = np.array([logits for _, logits in seen.pool.looks[: len(fitted.history)]])
    verdict, labels = fitted.verdict, seen.unseen.labels
    return _seen(cell, fitted.history, verdict, folder / "looks.npz", logits, labels)


def settings(cell: Cell) -> list[str]:
    course = course_of(cell)
    own = ["train.threads=1", "train.precision=float32"]
    if cell["group"] == "faults":
        # Class names as rows would be learned beside the planted rows, without their fault.
        own.append("train.added=[]")
    if cell["entry"] == "train new head":
        # A stage of contrast ends with a fitted head too.
        own += ["methods.probe_first=false", "methods.contrast=false"]
    else:
        own.append("methods.contrast=false")
    return [
        *own,
        f"train.epochs={course.epochs:g}",
        f"train.learning_rate={course.rate:g}",
        f"train.schedule={course.schedule}",
        f"train.evaluations={EVALUATIONS}",
        *(["train.weight_decay=0"] if course.schedule == "constant" else []),
    ]


def _with_fault(train: Any, valid: Any, cell: Cell) -> tuple[Any, Any]:
    fault = str(cell["way"])
    if fault != "shuffled":
        return planted(train, valid, {**cell, "fault": fault})
    mixed = (_shuffled(rows.labels, cell, side) for side, rows in enumerate((train, valid)))
    first, second = (replace(r, labels=y) for r, y in zip((train, valid), mixed, strict=True))
    return first, second


def _shuffled(labels: Any, cell: Cell, side: int) -> Any:
    order = generator(int(cell["seed"]), "benchmark", "shuffle", side).permutation(len(labels))
    return np.asarray(labels)[order]


# -- through Guard --------------------------------------------------------------------------------


def guarded(cell: Cell, parts: Parts, folder: Path) -> Seen:
    """``transformers.Trainer`` with the guard's callback, beside one that measures the unseen rows
    where the guard evaluates."""
    import transformers

    import holdfast
    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    transformers.utils.logging.set_verbosity_error()
    transformers.set_seed(int(cell["seed"]))
    classes = parts.classes
    tokenizer = transformers.AutoTokenizer.from_pretrained(packaged_folder(EMBEDDED))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        packaged_folder(EMBEDDED), num_labels=len(classes)
    )
    rows = {
        name: tokenised({"texts": list(r.texts), "labels": list(r.labels)}, classes, tokenizer)
        for name, r in faulty(cell, parts).named().items()
    }
    guard = holdfast.Guard(policy="off", log=lambda _: None)
    watch = unseen_callback(rows["test"], tokenizer)
    trainer = transformers.Trainer(
        model,
        arguments(cell, folder, len(rows["train"])),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=tokenizer,
        callbacks=[watch, guard.callback()],
    )
    trainer.pop_callback(transformers.PrinterCallback)
    trainer.train()
    assert guard.verdict is not None
    assert guard.folder is not None
    history = guard.history
    logits, labels = np.array(watch.logits)[-len(history) :], np.array(rows["test"]["label"])
    return _seen(cell, history, guard.verdict, guard.folder / "looks.npz", logits, labels)


def faulty(cell: Cell, parts: Parts) -> Parts:
    """The rows of a Trainer with the cell's fault in them, as ``trained`` plants it."""
    word, _, amount = str(cell["way"]).partition(" ")
    seed, classes = int(cell["seed"]), parts.classes
    sides = {"train": parts.train, "valid": parts.valid}
    if word in ("noise", "shuffled"):
        for place, (side, rows) in enumerate(sides.items()):
            found = np.array([classes.index(label) for label in rows.labels])
            if word == "noise":
                changed = with_noise(found, int(amount) / 100, (seed, side))
            else:
                changed = _shuffled(found, cell, place)
            sides[side] = Rows(rows.texts, tuple(classes[i] for i in changed))
    if word == "copies":
        rng = generator(seed, "benchmark", "copies")
        copied = rng.permutation(len(parts.valid))[: round(int(amount) / 100 * len(parts.valid))]
        kept = rng.permutation(len(parts.train))[: max(0, len(parts.train) - len(copied))]
        one, other = parts.train.take(np.sort(kept)), parts.valid.take(copied)
        sides["train"] = Rows(one.texts + other.texts, one.labels + other.labels)
    return Parts(sides["train"], sides["valid"], parts.test)


def arguments(cell: Cell, folder: Path, rows: int) -> Any:
    import transformers

    course = course_of(cell)
    steps = max(2, round(course.epochs * -(-rows // BATCH)))
    return transformers.TrainingArguments(
        str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=50,
        learning_rate=course.rate,
        lr_scheduler_type=course.schedule,
        weight_decay=0.0,
        eval_strategy="steps",
        eval_steps=max(1, steps // EVALUATIONS),
        save_strategy="no",
        seed=int(cell["seed"]),
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )


def unseen_callback(rows: Any, tokenizer: Any) -> Any:
    """A callback: logits of rows that the trainer never sees, at the guard's looks: before
    the first step, at each evaluation, after the last step."""
    import transformers

    class Unseen(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.logits: list[Any] = []
            self._step = -1

        def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            self._look(state, known["model"])

        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            self._look(state, known["model"])

        def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
            self._look(state, known["model"])

        def _look(self, state: Any, model: Any) -> None:
            if state.global_step == self._step:
                return
            self._step = state.global_step
            self.logits.append(measured(model, rows, tokenizer))

    return Unseen()


def measured(model: Any, rows: Any, tokenizer: Any) -> Any:
    """The logits of each row, in evaluation mode; the mode is put back."""
    training = model.training
    model.eval()
    logits = np.empty((len(rows), model.config.num_labels), dtype=np.float32)
    # Rows of a length together: less padding.
    order = np.argsort([len(ids) for ids in rows["input_ids"]], kind="stable")
    with torch.inference_mode():
        for start in range(0, len(order), 50):
            chosen = order[start : start + 50]
            part = rows[chosen.tolist()]
            del part["label"]
            logits[chosen] = model(**tokenizer.pad(part, return_tensors="pt")).logits.float()
    model.train(training)
    return logits


def _seen(
    cell: Cell,
    history: Sequence[Snapshot],
    verdict: Verdict,
    path: Path,
    logits: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
) -> Seen:
    """With the verdict on the stored looks, which are kept where ``HOLDFAST_FRESH_LOOKS`` says,
    beside the unseen rows' logits."""
    looks = read_evaluations(path)
    if folder := os.environ.get("HOLDFAST_FRESH_LOOKS"):
        kept = looks_of(cell, Path(folder))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
        np.savez_compressed(kept.with_suffix(".unseen.npz"), logits=logits, labels=labels)
    stored = judge(looks.history, looks.run_facts, looks.best_step)
    return Seen(history, verdict, stored, logits, np.asarray(labels))
