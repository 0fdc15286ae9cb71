"""The guard in a ``transformers.Trainer`` of two processes: starts that hang, and what it costs.

    python benchmarks/guard_processes.py --part starts --jobs 1
    python benchmarks/guard_processes.py --part fsdp --jobs 1
    python benchmarks/guard_processes.py --part time --jobs 1

``starts``: a tiny classifier of two processes (gloo), each time with other rows; every tenth guard
fails in the main process at its second evaluation. ``fsdp``: the same with sharded weights (FSDP2),
where it fails after measuring, which needs all processes.
A start that takes more than two minutes counts as hung. ``time``: MiniLM on 400 questions of TREC
with and without the guard, in one and in two processes of one thread each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, average, mean_interval, number, pick, share, table
from peers.rows import clean_set

NAME = "guard_processes"
STARTS, LONGEST = 100, 120
ROWS, EVALUATED, EPOCHS, BATCH = 400, 100, 3, 16
FSDP = "fsdp"
PARTS = ("starts", FSDP, "time")


def cells(part: str = "") -> list[dict[str, Any]]:
    starts = {
        part: grid(part=[part], processes=[2], seed=range(STARTS)) for part in ("starts", FSDP)
    }
    seconds = grid(part=["time"], seed=range(12), processes=(1, 2), guard=(False, True))
    parts = {**starts, "time": seconds}
    return parts[part] if part else [cell for some in parts.values() for cell in some]


def run_one(cell: Cell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "told.json"
        many = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        count = cell["processes"]
        start = [*many, f"--nproc-per-node={count}"] if count > 1 else [sys.executable]
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        begun = time.perf_counter()
        try:
            done = subprocess.run(
                [*start, __file__, json.dumps(dict(cell)), str(told)],
                env=os.environ | quiet,
                timeout=None if cell["part"] == "time" else LONGEST,
                capture_output=True,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"hung": True}
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        seconds = time.perf_counter() - begun
        return {"hung": False, "wall_s": round(seconds, 1), **json.loads(told.read_text())}


def train(cell: Cell, told: Path) -> None:
    """In each process: train, and let the main one write what came of it."""
    from transformers import Trainer, TrainingArguments

    from holdfast import Guard

    tiny = cell["part"] != "time"
    guard = Guard(policy="stop" if tiny else "off", log=lambda line: None)
    main = int(os.environ.get("RANK", "0")) == 0
    if tiny and main and cell["seed"] % 10 == 9:
        _fail_once(sharded=cell["part"] == FSDP)
    model, train_rows, valid_rows = _tiny(cell["seed"]) if tiny else _questions(cell["seed"])
    if cell["part"] == FSDP:
        _shard(model)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(told.parent / "out"),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH // cell["processes"],
            learning_rate=5e-5,
            use_cpu=True,
            average_tokens_across_devices=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            seed=cell["seed"],
        ),
        train_dataset=train_rows,
        eval_dataset=valid_rows,
        callbacks=[guard.callback()] if tiny or cell["guard"] else [],
    )
    if cell["part"] == FSDP:
        # Accelerate shards on GPUs alone; here the model is sharded already.
        trainer.accelerator.prepare_model = lambda model, **kwargs: model
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    if not main:
        return
    watch = guard._watch
    engine = watch.engine if watch is not None else None
    told.write_text(
        json.dumps(
            {
                "train_s": round(seconds, 2),
                "evaluate_s": round(engine.evaluate_s, 2) if engine else 0.0,
                "evaluations": len(engine.snapshots) if engine else 0,
            }
        )
    )


def _shard(model: Any) -> None:
    """As Accelerate does on GPUs: each block, and then the rest."""
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo")
    for layer in model.bert.encoder.layer:
        fully_shard(layer)
    fully_shard(model, reshard_after_forward=False)


def _fail_once(*, sharded: bool) -> None:
    from holdfast.plugins.trainers.foreign import UserCodeError
    from holdfast.plugins.trainers.watch import TrainerRun

    known, count = TrainerRun.observe, 0

    def observe(self: TrainerRun) -> Any:
        nonlocal count
        count += 1
        if count != 2:
            return known(self)
        # With sharded weights every process measures, or the others would wait for this one.
        if sharded:
            known(self)
        raise UserCodeError("the folder is full")

    TrainerRun.observe = observe  # type: ignore[method-assign]


def _tiny(seed: int) -> tuple[Any, Any, Any]:
    import numpy as np
    from datasets import Dataset
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(  # type: ignore[call-arg]
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=2,
    )
    rng = np.random.default_rng(seed)
    rows = [
        {"input_ids": rng.integers(5, 45, 8).tolist(), "labels": int(rng.integers(2))}
        for _ in range(96)
    ]
    return BertForSequenceClassification(config), *map(Dataset.from_list, (rows[:64], rows[64:]))


def _questions(seed: int) -> tuple[Any, Any, Any]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.core.seeds import generator
    from holdfast.models.loading.packaged import packaged_folder

    folder, rows = str(packaged_folder(EMBEDDED)), clean_set("trec")
    names = sorted(set(rows.labels))
    order = generator(seed, "benchmark", NAME).permutation(len(rows))[: ROWS + EVALUATED]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = [
        {
            **tokenizer(rows.texts[i], padding="max_length", max_length=24, truncation=True),
            "labels": names.index(rows.labels[i]),
        }
        for i in order
    ]
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names))
    return model, *map(Dataset.from_list, (made[:ROWS], made[ROWS:]))


def finding(lines: Lines) -> str:
    told = []
    for part, words in (("starts", "in two processes"), (FSDP, "with sharded weights")):
        if starts := pick(lines, part=part):
            hung = share(sum(bool(line["hung"]) for line in starts), len(starts), long=True)
            told.append(f"{len(starts)} trainings {words}, {hung} hung")
    if not told:
        return ""
    hangs, costs = f"With the guard, of {'; of '.join(told)}.", _costs(lines)
    if len(costs) < 2:
        return hangs
    two, one = (costs[count] for count in (2, 1))
    runs = len({line["seed"] for line in pick(lines, part="time")})
    return (
        f"{hangs} Apart from its evaluations, the guard changes the training time by {two} in two "
        f"processes and {one} in one ({runs} runs each)."
    )


def _costs(lines: Lines) -> dict[int, str]:
    """What the guard adds beside its evaluations, in % of the time without it, by processes."""
    found = {}
    for count in (1, 2):
        some = pick(lines, part="time", processes=count)
        alone = {line["seed"]: line["train_s"] for line in some if not line["guard"]}
        rates = [
            100 * ((line["train_s"] - line["evaluate_s"]) / alone[line["seed"]] - 1)
            for line in some
            if line["guard"] and line["seed"] in alone
        ]
        if rates:
            middle, low, high = mean_interval(rates)
            ends = " to ".join(number(end, 1, sign=True) for end in (low, high))
            found[count] = f"{number(middle, 1, sign=True)} % (95 % CI {ends})"
    return found


def _named(lines: Lines) -> list[Line]:
    words = {True: "with the guard", False: "without"}
    return [{**line, "arm": words[line["guard"]]} for line in pick(lines, part="time")]


def _seconds(lines: Lines) -> str:
    if not (named := _named(lines)):
        return ""
    columns = {
        "Training, s": average("train_s", limits=False),
        "of it evaluation, s": average("evaluate_s", limits=False),
        "Evaluations": average("evaluations", digits=0, limits=False),
    }
    return table({"processes": "Processes", "arm": "Trainer"}, columns)(named)


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "The guard in two processes",
    f"""\
A `transformers.Trainer` on two processes (gloo) of one thread each. {STARTS} trainings of a tiny
classifier, each in new processes, and as many with its weights sharded (FSDP2); in every tenth, the
guard is made to fail in the main process.
One that took more than two minutes would count as hung. Time: MiniLM on {ROWS}
questions of TREC, {EPOCHS} epochs in batches of {BATCH}, with `Guard(policy="off")`, which
evaluates before the first step and after each epoch, and without.""",
    cells,
    finding,
    [_seconds],
)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].startswith("{"):
        train(json.loads(sys.argv[1]), Path(sys.argv[2]))
    else:
        run_command(NAME, __doc__, cells, run_one, PARTS)
