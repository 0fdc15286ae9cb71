"""SetFit on the rows of ``job.json``: a script, run in a process of its own.

One epoch over the pairs of 20 iterations in batches of 16, then logistic regression, as its paper
(2209.11055) has it; the rest is its defaults. It uses no validation rows. ``train_s`` is the wall
time of ``trainer.train()``, both stages.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    model, trainer = build(job, folder)
    start = time.perf_counter()
    trainer.train()
    train_s = time.perf_counter() - start
    chosen = [int(index) for index in model.predict(job["rows"]["test"]["texts"])]
    rows = len(job["rows"]["train"]["texts"])
    pairs = 2 * job["settings"]["num_iterations"] * rows
    answer = {
        "predictions": [job["classes"][index] for index in chosen],
        "train_s": round(train_s, 3),
        "precision": "float32",
        "examples_per_s": round(2 * pairs / train_s, 3),
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def build(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import datasets
    import setfit
    import transformers

    transformers.set_seed(job["seed"])
    model = setfit.SetFitModel.from_pretrained(job["model"])
    rows, classes = job["rows"]["train"], job["classes"]
    train = datasets.Dataset.from_dict(
        {"text": rows["texts"], "label": [classes.index(label) for label in rows["labels"]]}
    )
    arguments = setfit.TrainingArguments(
        output_dir=str(folder / "setfit"),
        batch_size=16,
        num_epochs=1,
        seed=job["seed"],
        save_strategy="no",
        show_progress_bar=False,
        report_to="none",
        **job["settings"],
    )
    # Its own metrics are downloaded; a function needs no network.
    trainer = setfit.Trainer(model, arguments, train_dataset=train, metric=accuracy)
    return model, trainer


def accuracy(predictions: Any, labels: Any) -> float:
    return float((predictions == labels).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
