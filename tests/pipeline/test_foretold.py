"""The memory of a run by its configuration alone, against a process that makes such steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import RecipeError
from holdfast.plan.memory_forecast import OVERHEAD_MB, LargeRun, foretell

SMALL: dict[str, Any] = {
    "vocab_size": 4000,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "max_position_embeddings": 512,
}
SEVEN: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}
# Three steps of plain PyTorch, and the highest private memory meanwhile: pages of programs, which
# are read as they are first used, are no part of a run.
STEPS = """
import json, sys, threading, time
import torch
from transformers import LlamaConfig, LlamaForCausalLM
shape, rows, tokens, checkpoints = json.loads(sys.argv[1])
def private():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1e6
torch.ones(8, 8) @ torch.ones(8, 8)
start, peak = private(), [0.0]
def watch():
    while True:
        peak[0] = max(peak[0], private())
        time.sleep(0.01)
model = LlamaForCausalLM(LlamaConfig(**shape)).train()
if checkpoints:
    model.gradient_checkpointing_enable({"use_reentrant": False})
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, shape["vocab_size"], (rows, tokens))
threading.Thread(target=watch, daemon=True).start()
for _ in range(3):
    logits = model(input_ids=ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
print(peak[0] - start)
"""


def config_of(shape: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**shape)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("checkpoints", [pytest.param(False, marks=pytest.mark.slow), True])
def test_it_is_what_a_process_that_makes_such_steps_holds(checkpoints: bool) -> None:
    rows, tokens = 6, 256
    given = json.dumps([SMALL, rows, tokens, checkpoints])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STEPS, given],
        capture_output=True,
        text=True,
        check=False,
        # What is let go is given back, and does not count as used.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    plan = LargeRun(rows=rows, tokens=tokens, pass_bits=32, checkpoints=checkpoints, chunked=False)
    foretold = foretell(config_of(SMALL), plan).total - OVERHEAD_MB
    assert foretold == pytest.approx(float(done.stdout), rel=0.15)


def test_weights_are_counted_by_hand() -> None:
    import transformers

    config = transformers.LlamaConfig(**SMALL)
    numbers = sum(p.numel() for p in transformers.LlamaForCausalLM(config).parameters())
    need = foretell(config, LargeRun())
    assert need.weights == pytest.approx(4e-6 * numbers)
    assert need.gradients == pytest.approx(4e-6 * numbers)
    assert need.optimizer == pytest.approx(8e-6 * numbers)
    half = foretell(config, LargeRun(bits=16, rank=4))
    lora = need_of_lora(rank=4)
    assert half.weights == pytest.approx(2e-6 * numbers + 4e-6 * lora)
    assert half.gradients == pytest.approx(4e-6 * lora)
    spread = foretell(config, LargeRun(devices=4))
    assert spread.optimizer == pytest.approx(need.optimizer / 4)
    assert need.weights / 4 < spread.weights < need.weights


def need_of_lora(rank: int) -> int:
    """The numbers of an adapter on every linear layer of a block: rank · (in + out) each."""
    width, inner, layers = (
        SMALL["hidden_size"],
        SMALL["intermediate_size"],
        SMALL["num_hidden_layers"],
    )
    return int(layers * rank * (4 * 2 * width + 3 * (width + inner)))


@pytest.mark.slow
def test_seven_billion_in_four_bits_fit_16_gb(tmp_path: Path) -> None:
    config_of(SEVEN).save_pretrained(tmp_path)
    need = foretell(tmp_path, LargeRun(bits=4, rank=16, rows=4, tokens=512))
    assert 5_000 < need.total < 16_000
    whole = foretell(tmp_path, LargeRun(rows=1))
    assert whole.weights == pytest.approx(26_954, rel=1e-3)
    assert whole.total > 80_000


def test_more_rows_or_no_checkpoints_take_more() -> None:
    config = config_of(SMALL)
    one, four = (foretell(config, LargeRun(rows=rows)).activations for rows in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.05)
    assert foretell(config, LargeRun(checkpoints=False)).activations > 1.5 * one


@pytest.mark.parametrize("checkpoints", [False, True])
def test_attention_takes_no_table_of_tokens_by_tokens(checkpoints: bool) -> None:
    few, many = (
        foretell(config_of(SMALL), LargeRun(tokens=n, checkpoints=checkpoints)) for n in (256, 512)
    )
    assert many.activations == pytest.approx(2 * few.activations, rel=0.01)


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (LargeRun(bits=4), "an adapter must be trained"),
        (LargeRun(bits=4, rank=8, devices=2), "cannot be sharded"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan: LargeRun, rule: str) -> None:
    with pytest.raises(RecipeError, match=rule):
        foretell(config_of(SMALL), plan)
