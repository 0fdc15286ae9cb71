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
    maker = {"summaries": seq2seq, "pictures": images}.get(job["job"], causal)
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


def causal(job: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    import torch
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(job["model"])
    model = hf.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    if job["settings"].get("trainer") == "sft":
        return sft(job, folder, model, tokenizer)
    rows = datasets_of(job, ("input_ids", "labels"))
    trainer = hf.Trainer(
        model,
        hf.TrainingArguments(**arguments(job, folder)),
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=tokenizer,
        data_collator=hf.DataCollatorForSeq2Seq(tokenizer),
    )
    return trainer, rows["test"]


def sft(job: dict[str, Any], folder: Path, model: Any, tokenizer: Any) -> tuple[Any, Any]:
    import trl

    rows = datasets_of(job, ("input_ids", "completion_mask"))
    if job["settings"].get("packing"):
        job = {**job, "settings": {**job["settings"], "batch_size": packed_lines(job)}}
    settings = trl.SFTConfig(
        **arguments(job, folder),
        completion_only_loss=True,
        max_length=job["length"],
        packing=bool(job["settings"].get("packing")),
        eval_packing=False,
        # Its own default (on) would trade time for memory, and Holdfast's is off.
        gradient_checkpointing=False,
    )
    trainer = trl.SFTTrainer(
        model,
        settings,
        train_dataset=rows["train"],
        eval_dataset=rows["valid"],
        processing_class=tokenizer,
        peft_config=lora(job),
    )
    return trainer, rows["test"]


def packed_lines(job: dict[str, Any]) -> int:
    """Packed lines that hold about as many rows as a batch without packing, so that both systems
    take as many updates: Holdfast packs the rows of a batch, TRL those of the whole set."""
    rows = job["rows"]["train"]
    tokens = sum(len(row["input_ids"]) for row in rows) / len(rows)
    return max(1, round(job["settings"]["batch_size"] * tokens / job["length"]))


def lora(job: dict[str, Any]) -> Any:
    """The job's LoRA; where it says no more, rank 8, alpha 16, dropout 0.05, every linear layer of
    a block."""
    wanted = job["settings"].get("lora")
    if not wanted:
        return None
    import peft

    own = wanted if isinstance(wanted, dict) else {}
    usual = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all-linear"}
    return peft.LoraConfig(**{**usual, **own}, task_type="CAUSAL_LM")


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
