"""A model that is too large for its rows, the commonest case of full tuning, from the first step to
every use of the run: more than 40 million weights learn from some ten rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.monitor.detectors.data import TOO_LARGE
from holdfast.monitor.limits import MOST_A_ROW, SMALL
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

STEPS = 2


@pytest.fixture(scope="module")
def wide_llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny_llama``'s tokenizer, and one layer as wide as it takes, drawn at random."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("decoder") / "wide-llama"
    shutil.copytree(tiny_llama, folder)
    config = LlamaConfig.from_pretrained(tiny_llama)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 512, 26_500, 1
    config.head_dim = config.hidden_size // config.num_attention_heads
    config.initializer_range = 0.02
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    logging.enable_progress_bar()
    return folder


class EndsAt:
    """Ends the process, as far as the run can tell, once a step is done."""

    name = "ends"

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.left, self.error = step, error

    def step_done(self, run: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.mark.slow
def test_a_run_of_a_model_too_large_for_its_rows_is_resumed_reported_and_used(
    wide_llama: Path, tmp_path: Path, killed: type[BaseException], holdfast: Callable[..., Any]
) -> None:
    rows, run = tmp_path / "sums.jsonl", tmp_path / "run"
    sums = [{"instruction": f"{i}+{j}?", "output": f"{i + j}"} for i in range(4) for j in range(3)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in sums))
    settings = [
        "task=causal-lm",
        f"data.path={rows}",
        f"model.name={wide_llama}",
        f"train.max_steps={STEPS}",
        "train.evaluations=2",
        "train.threads=1",
        "train.precision=float32",
        "train.batch_size=4",
        "generate.rows=1",
        "generate.max_new_tokens=2",
        "model.max_length=40",
    ]
    with pytest.raises(killed):
        train(
            override(Recipe(), settings),
            run,
            listeners=[EndsAt(STEPS - 1, killed)],
            checkpoint_every_s=0.0,
        )
    assert not (run / "result.json").exists()
    resume = ("train", rows, "--model", wide_llama, "--out", run, "--resume", "--json", "--quiet")
    done = holdfast(*resume)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["model_facts"]["trainable"] > SMALL
    assert result["verdict"]["cause"] == TOO_LARGE
    (seen,) = [e for e in result["verdict"]["evidence"] if e["name"].endswith("_a_row")]
    assert (seen["low"], seen["high"]) == (None, float(MOST_A_ROW))
    assert seen["value"] > MOST_A_ROW
    before = (run / "result.json").read_bytes()
    again = holdfast(*resume)
    assert again.code == 0, again.err
    assert (run / "result.json").read_bytes() == before
    for command in (("report", run), ("errors", run), ("diagnose", run)):
        told = holdfast(*command)
        assert told.code == 0, (command, told.err)
    assert "at most 1.5e+05" in told.out
    assert "at most 150,000" in (run / "report.html").read_text("utf-8")
    written = holdfast("predict", run, rows, "--quiet")
    assert written.code == 0, written.err
    assert len(written.out.splitlines()) == len(sums)
