"""The Hugging Face Trainer on the rows of ``job.json``: a script, run in a process of its own.

Everything is the Trainer's default but for what the job sets: epochs, batch size, learning rate,
warmup, an evaluation an epoch; with ``patience``, early stopping on the validation loss and the
best state at the end. In its favour it writes no checkpoint where none is needed, and no optimizer
state where one is. ``train_s`` is the wall time of ``trainer.train()``: tokenising and loading are
not in it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    trainer, test = build(job, folder)
    start = time.perf_counter()
    trainer.train()
    train_s = time.perf_counter() - start
    chosen = trainer.predict(test).predictions.argmax(axis=1)
    epochs = float(trainer.state.epoch)
    answer = {
        "predictions": [job["classes"][index] for index in chosen],
        "train_s": round(train_s, 3),
        "epochs": epochs,
        "steps": trainer.state.global_step,
        "examples_per_s": round(len(job["rows"]["train"]["texts"]) * epochs / train_s, 3),
        "precision": "bfloat16" if job["settings"].get("bf16") else "float32",
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def build(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """The trainer, and the tokenised test rows."""
    import transformers

    transformers.set_seed(job["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=len(job["classes"])
    )
    rows = {name: tokenised(rows, job["classes"], tokenizer) for name, rows in job["rows"].items()}
    patience = job["settings"].get("patience")
    callbacks: list[transformers.TrainerCallback] = []
    if patience:
        callbacks.append(transformers.EarlyStoppingCallback(patience))
    trainer = transformers.Trainer(
        model,
        arguments(job, folder),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    return trainer, rows["test"]


def arguments(job: dict[str, Any], folder: Path) -> Any:
    import torch
    import transformers

    settings = job["settings"]
    half = settings.get("bf16", False)
    best = {
        "load_best_model_at_end": True,
        "save_strategy": "epoch",
        "save_only_model": True,
        "save_total_limit": 1,
    }
    return transformers.TrainingArguments(
        str(folder / "trainer"),
        num_train_epochs=settings["epochs"],
        per_device_train_batch_size=settings["batch_size"],
        eval_strategy="epoch" if settings.get("evaluates", True) else "no",
        learning_rate=settings.get("learning_rate", 5e-5),
        # Below 1 it is a share of the updates.
        warmup_steps=settings.get("warmup", 0),
        seed=job["seed"],
        bf16=half,
        disable_tqdm=True,
        report_to="none",
        # It refuses bfloat16 on a processor unless it is told to stay there.
        use_cpu=half and not torch.cuda.is_available(),
        **(best if settings.get("patience") else {"save_strategy": "no"}),
    )


def tokenised(rows: dict[str, list[str]], classes: list[str], tokenizer: Any) -> Any:
    import datasets

    encoded = tokenizer(rows["texts"], truncation=True)
    labels = [classes.index(label) for label in rows["labels"]]
    return datasets.Dataset.from_dict({**encoded, "label": labels})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
