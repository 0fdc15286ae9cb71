"""Trainer, Seq2SeqTrainer or TRL's SFTTrainer on the rows of ``job.json``: a script of its own
process.

Everything is the trainer's default but for what the job sets: epochs, batch size, rate, an
evaluation an epoch. In its favour rows are tokenised (pictures: decoded) before the clock starts,
and it writes no checkpoint. ``train_s`` is the wall time of ``trainer.train()``, ``train_cpu_s``
its processor time.
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
    start, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    train_s, train_cpu_s = time.perf_counter() - start, time.process_time() - cpu
    # The whole process of the other side scores its test rows too.
    trainer.evaluate(test)
    trainer.save_model(str(folder / "model"))
    rows = len(job["rows"]["train"]) * float(trainer.state.epoch)
    answer = {
        "train_s": round(train_s, 3),
        "train_cpu_s": round(train_cpu_s, 3),
        "steps": trainer.state.global_step,
        "examples_per_s": round(rows / train_s, 3),
        "precision": "bfloat16" if job["settings"].get("bf16") else "float32",
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def build(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import transformers

    transformers.set_seed(job["seed"])
    maker = {"summaries": seq2seq, "pictures": images}.get(job["job"], sft)
    return maker(job, folder)


def seq2seq(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(job["model"])
    model = hf.AutoModelForSeq2SeqLM.from_pretrained(job["model"])
    rows = datasets_of(job, ("input_ids", "labels"))
    trainer = hf.Seq2SeqTrainer(
        model,
        hf.Seq2SeqTrainingArguments(**arguments(job, folder)),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=tokenizer,
        data_collator=hf.DataCollatorForSeq2Seq(tokenizer, model),
    )
    return trainer, rows["test"]


def sft(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import peft
    import torch
    import transformers as hf
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = datasets_of(job, ("input_ids", "completion_mask"))
    trainer = SFTTrainer(
        hf.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32),
        SFTConfig(
            **arguments(job, folder),
            completion_only_loss=True,
            max_length=job["length"],
            # Its own default (on) would trade time for memory, and Holdfast's is off.
            gradient_checkpointing=False,
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=hf.AutoTokenizer.from_pretrained(job["model"]),
        peft_config=peft.LoraConfig(**job["settings"]["lora"], task_type="CAUSAL_LM"),
    )
    return trainer, rows["test"]


def images(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import transformers as hf

    classes = sorted({row["label"] for row in job["rows"]["train"]})
    model = hf.AutoModelForImageClassification.from_pretrained(
        job["model"],
        num_labels=len(classes),
        ignore_mismatched_sizes=True,
        id2label=dict(enumerate(classes)),
        label2id={n: i for i, n in enumerate(classes)},
    )
    rows = {side: decoded(job, side, classes) for side in job["rows"]}
    trainer = hf.Trainer(
        model,
        hf.TrainingArguments(**arguments(job, folder)),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
    )
    hf.AutoImageProcessor.from_pretrained(job["model"]).save_pretrained(folder / "model")
    return trainer, rows["test"]


def decoded(job: dict[str, Any], side: str, classes: list[str]) -> list[dict[str, Any]]:
    from peers_pixels import pixels

    rows = job["rows"][side]
    arrays = pixels(job["model"], [row["path"] for row in rows])
    return [
        {"pixel_values": array, "labels": classes.index(row["label"])}
        for array, row in zip(arrays, rows, strict=True)
    ]


def arguments(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    import torch

    settings = job["settings"]
    half = bool(settings.get("bf16"))
    return {
        "output_dir": str(folder / "trainer"),
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": settings["batch_size"],
        "eval_strategy": "epoch",
        "per_device_eval_batch_size": settings["batch_size"],
        "seed": job["seed"],
        "bf16": half,
        "learning_rate": settings["learning_rate"],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **settings.get("arguments", {}),
        "use_cpu": half and not torch.cuda.is_available(),
    }


def datasets_of(job: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    import datasets

    return {
        side: datasets.Dataset.from_list([{name: row[name] for name in names} for row in rows])
        for side, rows in job["rows"].items()
        if side != "general"
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main(Path(sys.argv[1]))
