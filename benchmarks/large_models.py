"""Large models: memory by the estimate, the loss without all logits, two processes beside one.

    python benchmarks/large_models.py                     # the cells
    python benchmarks/large_models.py --config FOLDER     # the estimate for another model

Nothing of it needs a GPU. A loss is measured in a process of its own, by its highest resident
memory over that before the first pass. Two processes (gloo, on a processor) share one core with
each other here, so that their time says what spreading costs, not what it gains.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cells
from claims import Claim, Lines, average, pick, table

SHAPES: dict[str, dict[str, Any]] = {
    "7B": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "70B": {
        "vocab_size": 128_256,
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}
PLANS: dict[str, dict[str, Any]] = {
    "4bit, LoRA 16": {"bits": 4, "rank": 16, "rows": 4},
    "4bit, LoRA 16, all logits": {"bits": 4, "rank": 16, "rows": 4, "chunked": False},
    "bfloat16, LoRA 16": {"bits": 16, "rank": 16, "rows": 4},
    "bfloat16, LoRA 16, 8 devices": {"bits": 16, "rank": 16, "rows": 2, "devices": 8},
    "full, 8 devices": {"rows": 2, "devices": 8},
    "full, paged_adamw8bit, 1 device": {"rows": 2, "optimizer": "paged_adamw8bit"},
    "full, 32 devices": {"rows": 2, "devices": 32},
}
TARGETS, WIDTH = 1024, 512
LOSS = """
import json, sys, time
import psutil, torch, threading
from holdfast.models.generators.base import chunked_losses, targets_at_once
words, targets, width, way = json.loads(sys.argv[1])
torch.manual_seed(0)
head = torch.nn.Linear(width, words, bias=False)
head.weight.grad = torch.zeros_like(head.weight)
states = torch.randn(targets, width, requires_grad=True)
states.grad = torch.zeros_like(states)
expected = torch.randint(0, words, (targets,))
def losses():
    if way == "chunked":
        return chunked_losses(head, states, expected, targets_at_once(words))[0]
    return torch.nn.functional.cross_entropy(head(states).float(), expected, reduction="none")
process, peak, start = psutil.Process(), [0], psutil.Process().memory_info().rss
def watch():
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
times = []
for _ in range(3):
    began = time.perf_counter()
    found = losses()
    found.mean().backward()
    times.append(time.perf_counter() - began)
print(json.dumps({"mb": (peak[0] - start) / 1e6, "s": min(times), "loss": float(found.mean())}))
"""
RUN = """
import json, sys, time
from pathlib import Path
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
train(override(Recipe(), json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


def foretold(cell: cells.Cell) -> cells.Result:
    from transformers import LlamaConfig

    from holdfast.plan.memory_forecast import LargeRun, foretell

    config = LlamaConfig(**SHAPES[cell["model"]])
    need = foretell(config, LargeRun(tokens=512, **PLANS[cell["plan"]]))
    parts = ("weights", "gradients", "optimizer", "activations")
    return {"GB a device": need.total / 1e3, **{one: getattr(need, one) / 1e3 for one in parts}}


def loss(cell: cells.Cell) -> cells.Result:
    given = json.dumps([cell["vocabulary"], TARGETS, WIDTH, cell["way"]])
    return _said([sys.executable, "-W", "ignore", "-c", LOSS, given])


def spread(cell: cells.Cell) -> cells.Result:
    """One process and two on the same run; the largest differences between them."""
    import numpy as np
    import pyarrow.parquet as parquet
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(Path(folder), cell["way"])
        runs = {}
        for count in (1, 2):
            run = Path(folder) / str(count)
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            (Path(folder) / "run.py").write_text(RUN)
            command = [
                sys.executable,
                *(launcher if count == 2 else []),
                str(Path(folder) / "run.py"),
                json.dumps([*settings, *(["train.shard=full"] if count == 2 else [])]),
                str(run),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            runs[count] = run
        losses = [
            parquet.read_table(runs[n] / "predictions.parquet")["loss"].to_numpy() for n in runs
        ]
        looks = [
            [
                line["valid_loss"]
                for text in (runs[n] / "events.jsonl").read_text("utf-8").splitlines()
                if (line := json.loads(text))["event"] == "snapshot"
            ]
            for n in runs
        ]
        weights = [load_file(next((runs[n] / "model").glob("*.safetensors"))) for n in runs]
        results = [json.loads((runs[n] / "result.json").read_text("utf-8")) for n in runs]
        return {
            "test loss of a row": float(np.abs(losses[0] - losses[1]).max()),
            "validation loss at a look": float(np.abs(np.subtract(looks[0], looks[1])).max()),
            "weight": max(float(np.abs(weights[0][k] - weights[1][k]).max()) for k in weights[0]),
            "same step kept": results[0]["best_step"] == results[1]["best_step"],
            "train_s of one": results[0]["timing"]["train_s"],
            "train_s of two": results[1]["timing"]["train_s"],
        }


def _settings(folder: Path, way: str) -> list[str]:
    model = os.environ.get("BENCH_LLAMA")
    if model is None:
        raise RuntimeError("set BENCH_LLAMA to the folder of a small Llama")
    rows = [
        {"instruction": f"Add {i} and {j}{' please' * (i % 3)}.", "output": str(i + j)}
        for i in range(10)
        for j in range(10)
    ]
    data = folder / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapter = ["model.adapter.kind=lora", "model.adapter.dropout=0"]
    return [
        "task=causal-lm",
        f"data.path={data}",
        f"model.name={model}",
        "train.max_steps=20",
        "train.batch_size=8",
        "train.threads=1",
        "train.precision=float32",
        "train.matmul=default",
        "generate.rows=1",
        "probes.shots=0",
        *(adapter if way == "lora" else ["model.freeze=none"]),
    ]


def _said(command: list[str]) -> cells.Result:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: cells.Result = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--config", help="the folder of a config.json")
    given = asked.parse_args()
    if given.config:
        from holdfast.plan.memory_forecast import LargeRun, foretell

        for name, plan in PLANS.items():
            need = foretell(given.config, LargeRun(tokens=512, **plan))
            print(f"{name}: {need.total / 1e3:.1f} GB a device ({need} MB)")
        return
    tables: dict[str, Any] = {
        "large_models": (cells.grid(model=SHAPES, plan=PLANS), foretold),
        "large_models_loss": (
            cells.grid(vocabulary=[32_000, 128_256], way=["whole", "chunked"]),
            loss,
        ),
        "large_models_spread": (cells.grid(way=["lora", "whole"]), spread),
    }
    for name, (grid, run) in tables.items():
        cells.run_cells(name, grid, run)


def finding(lines: Lines) -> str:
    one = next(iter(pick(lines, model="7B", plan="4bit, LoRA 16")), None)
    if not one:
        return ""
    return (
        "By Holdfast's estimate, training a model of 7 billion parameters with 4-bit LoRA needs "
        f"{one['GB a device']:.1f} GB of device memory (batches of 4 rows of 512 tokens, "
        "activation checkpointing)."
    )


CLAIM = Claim(
    "large_models",
    "Speed and memory",
    "Memory of large models, estimated",
    """\
The estimate of `holdfast train --dry-run` for models of the shapes of Llama 2 7B and Llama 3 70B:
512 tokens a row, activation checkpointing; batches of 4 rows with LoRA on one device, otherwise
of 2 a device. Figures in GB for each device. "LoRA 16": rank 16; "full": every weight is trained;
"all logits": the loss is not computed in chunks.""",
    lambda: cells.grid(model=SHAPES, plan=PLANS),
    finding,
    [
        table(
            {"model": "Model", "plan": "Plan"},
            {
                "GB a device": average("GB a device", 1, 1),
                "Weights": average("weights", 1, 1),
                "Gradients": average("gradients", 1, 1),
                "Optimizer": average("optimizer", 1, 1),
                "Activations": average("activations", 1, 1),
            },
        )
    ],
    (
        "An estimate: no such model was trained here. The loss in chunks and two processes were "
        "measured too little to report."
    ),
)


if __name__ == "__main__":
    main()
