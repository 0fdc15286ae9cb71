"""The test loss of a language model, against TRL's on the same rows."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from holdfast.models.loading.quiet import quiet_transformers
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

# The end token of the tiny model.
END = 1
WORDS = ("red", "blue", "green", "old", "new", "big")


def without_what_follows_the_end(row: dict[str, Any]) -> dict[str, Any]:
    """TRL trains the template's line breaks after the end token too, which no generation reaches;
    Holdfast does not."""
    end = row["input_ids"].index(END)
    return {"labels": [*row["labels"][: end + 1], *[-100] * (len(row["labels"]) - end - 1)]}


@pytest.mark.slow
def test_the_test_loss_is_that_of_trls_evaluate(tiny_llama: Path, tmp_path: Path) -> None:
    """Over the tokens of the completions, ends included, of chats of very different lengths."""
    import transformers as hf
    from datasets import Dataset

    with warnings.catch_warnings():
        # What TRL says on import of packages that are newer than it.
        warnings.simplefilter("ignore")
        from trl import SFTConfig, SFTTrainer
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{a} {b}?"}],
            "completion": [{"role": "assistant", "content": f"{b} {a} " * (1 + k % 5) + f"{k}."}],
        }
        for k, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)
    ]
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    settings = ["task=causal-lm", f"data.path={source}", f"model.name={tiny_llama}"]
    settings += ["train.max_steps=8", "train.learning_rate=0.01", "train.precision=float32"]
    settings += [
        "generate.rows=0",
        "probes.skip=all",
        "data.split.train=0.45",
        "data.split.test=0.4",
    ]
    run = tmp_path / "run"
    result = train(override(Recipe(), settings), run)
    tested = pq.read_table(run / "predictions.parquet")["row"].to_pylist()
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(
            hf.AutoModelForCausalLM.from_pretrained(run / "model"),
            SFTConfig(
                str(tmp_path / "trl"),
                completion_only_loss=True,
                max_length=None,
                # One batch: TRL's loss is a mean over batches.
                per_device_eval_batch_size=len(tested),
                report_to=[],
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list([rows[k] for k in tested]),
            processing_class=hf.AutoTokenizer.from_pretrained(run / "model"),
        )
        every = trainer.evaluate()["eval_loss"]
        trainer.eval_dataset = trainer.eval_dataset.map(without_what_follows_the_end)
        theirs = trainer.evaluate()["eval_loss"]
    assert result["test"]["metrics"]["loss"]["value"] == pytest.approx(theirs, abs=1e-5)
    assert every != pytest.approx(theirs, abs=1e-3)
