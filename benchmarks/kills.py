"""100 kills at random moments: every continued run ends with the bytes of an undisturbed one.

    python benchmarks/kills.py                 # 25 kills a task
    python benchmarks/kills.py --minutes 3     # start no new kill after this time
    python benchmarks/kills.py --quick         # one kill a task, nothing is kept

A cell is one kill of one of four tiny runs (text classification, sequence to sequence, causal
language model, pictures). The run gets SIGKILL at a moment drawn evenly from the time that the
undisturbed run took; a moment after its end is drawn again. Every fifth run is a new Python process
whose first import is part of that time; the others are forked after the imports, so that moments
fall into the work itself. Every fourth is killed a second time while it is continued. Checkpoints
are written after every step.

The continued run is then held against the undisturbed one: the SHA-256 of every file, and of those
that hold clocks (``result.json``, ``events.jsonl``, ``looks.npz``, the report and the card) the
contents without them.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, Cell, grid, run_cells
from claims import Claim, Lines, runs, share, table

from holdfast.plugins.sandbox.fork import ENVIRONMENT, fork

NAME = "kills"
TASKS = ("text-classification", "seq2seq", "causal-lm", "image-classification")
KILLS = 25
NEW_PROCESS, TWICE = 5, 4
# What differs between any two runs: times, and decisions from a measurement of the machine.
TIMES = {"timing", "peak_memory_mb", "created"}
MEASURED = {"train.matmul", "train.threads", "memory", "train.cache_frozen"}
CLOCKS = {"result.json", "events.jsonl", "looks.npz", "report.html", "model/README.md"}
WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WAIT_S = 300


def train(settings: Sequence[str], folder: Path, resume: bool) -> None:
    from holdfast.pipeline.main import train as run
    from holdfast.recipe import Recipe, override

    run(override(Recipe(), list(settings)), folder, resume=resume, checkpoint_every_s=0.0)


def warm_up() -> None:
    """Everything that a run imports, so that a fork begins with its work."""
    from typing import get_args

    import datasets  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import transformers.models.bert.modeling_bert
    import transformers.models.llama.modeling_llama
    import transformers.models.t5.modeling_t5
    import transformers.models.vit.modeling_vit  # noqa: F401

    import holdfast.pipeline.main  # noqa: F401
    from holdfast.recipe.parts import Task
    from holdfast.tasks import task_definition

    for task in get_args(Task):
        task_definition(task)


def started(settings: Sequence[str], folder: Path, resume: bool, new: bool) -> int:
    """The process of a run: a new one, or a fork of this one."""
    if new:
        told = json.dumps([list(settings), str(folder), resume])
        return subprocess.Popen([sys.executable, __file__, "--one", told]).pid
    sys.stdout.flush()
    child = fork()
    if child == 0:
        try:
            train(settings, folder, resume)
        except BaseException as error:
            print(f"{folder.name}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def ended(process: int, within_s: float) -> int | None:
    """The wait status of a process, ``None`` where it still runs after this time."""
    end = time.perf_counter() + within_s
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        if time.perf_counter() >= end:
            return None
        time.sleep(0.001)


def whole(settings: Sequence[str], folder: Path, resume: bool, new: bool) -> float:
    """Let a run come to its end; how long it took. Raises where it fails."""
    start = time.perf_counter()
    process = started(settings, folder, resume, new)
    status = ended(process, WAIT_S)
    if status is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    if status != 0:
        raise RuntimeError(f"{folder}: the run ended with {status}")
    return time.perf_counter() - start


def killed(settings: Sequence[str], folder: Path, resume: bool, new: bool, after_s: float) -> bool:
    """Kill a run after this time; whether it was still there to be killed."""
    process = started(settings, folder, resume, new)
    if ended(process, after_s) is not None:
        return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def run_one(cell: Cell, work: Path) -> dict[str, Any]:
    task, number = str(cell["task"]), int(cell["kill"])
    settings = made(task, work)
    new, twice = number % NEW_PROCESS == 0, number % TWICE == 0
    reference, took = undisturbed(task, work, new)
    random = np.random.default_rng([TASKS.index(task), number])
    for attempt in range(50):
        folder = work / f"{task}-{number}-{attempt}"
        shutil.rmtree(folder, ignore_errors=True)
        moment = float(random.uniform(0, took))
        if killed(settings, folder, False, new, moment):
            break
    else:
        raise RuntimeError("no moment fell into the run")
    again = None
    if twice and begun(folder):
        again = float(random.uniform(0, took))
        again = again if killed(settings, folder, True, new, again) else None
    found = state(folder)
    whole(settings, folder, begun(folder), new)
    differ = differences(reference, folder)
    if not differ:
        shutil.rmtree(folder)
    return {
        "share": round(moment / took, 4),
        "at": found,
        "process": "new" if new else "forked",
        "killed_again": again is not None,
        "identical": not differ,
        "differ": ", ".join(differ) or None,
        "took_s": round(took, 2),
    }


def begun(folder: Path) -> bool:
    """Whether there is a run to be continued: before it there is nothing, not even a folder."""
    return folder.is_dir()


def state(folder: Path) -> str:
    """How far the killed run had come, by what it left."""
    if not (folder / "recipe.yaml").exists():
        return "before the recipe"
    if (folder / "report.html").exists():
        return "after the report"
    if (folder / "result.json").exists():
        return "after the result"
    if (folder / "model").exists():
        return "after the model"
    found = len(list((folder / "checkpoints").glob("step-*.pt")))
    return "training" if found else "before the first checkpoint"


def differences(reference: Path, folder: Path) -> list[str]:
    """The files that are not the same."""
    names = {
        str(p.relative_to(x)) for x in (reference, folder) for p in x.rglob("*") if p.is_file()
    }
    return sorted(name for name in names if mark(reference, name) != mark(folder, name))


def mark(run: Path, name: str) -> str:
    """The SHA-256 of a file, of one with clocks without them; of the report and the card, which
    show those, that they are there."""
    path = run / name
    if not path.is_file():
        return "absent"
    if name not in CLOCKS:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".html", ".md"):
        return "there" if path.stat().st_size else "empty"
    told = {"result.json": _result, "events.jsonl": _events, "looks.npz": _looks}[name](path)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _result(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text("utf-8"))
    found["test"].pop("opened_at", None)
    found["decisions"] = [_unmeasured(decision) for decision in found["decisions"]]
    sealed = found.pop("seal", None)
    if sealed:
        found["seal"] = {k: v for k, v in sealed["files"].items() if k not in CLOCKS}
    return {key: value for key, value in found.items() if key not in TIMES}


def _events(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kept = [{k: v for k, v in line.items() if k not in ("seconds", "at")} for line in lines]
    for line in kept:
        if line.get("what") == "test rows opened":
            line["because"] = line["because"].split(";")[0]
    return [_unmeasured(line) for line in kept]


def _looks(path: Path) -> list[Any]:
    with np.load(path, allow_pickle=False) as kept:
        told = json.loads(str(kept["told"]))
        told["looks"].pop("seconds")
        rows = {n: hashlib.sha256(kept[n].tobytes()).hexdigest() for n in kept.files if n != "told"}
    return [told, rows]


def _unmeasured(told: dict[str, Any]) -> dict[str, Any]:
    """A decision without the times and sizes that the machine gave this once."""
    return {
        key: re.sub(r"[\d.,]+", "#", value)
        if key in ("chosen", "because") and told.get("what") in MEASURED
        else value
        for key, value in told.items()
    }


@functools.cache
def undisturbed(task: str, work: Path, new: bool) -> tuple[Path, float]:
    """A run that was left alone, and the mean time that two such runs took."""
    folder = work / f"{task}-undisturbed-{'new' if new else 'forked'}"
    told = folder.with_suffix(".json")
    if told.exists():
        return folder, float(json.loads(told.read_text()))
    took = []
    for run in (Path(f"{folder}-again"), folder):
        shutil.rmtree(run, ignore_errors=True)
        took.append(whole(made(task, work), run, False, new))
    told.write_text(json.dumps(statistics.mean(took)))
    return folder, statistics.mean(took)


@functools.cache
def made(task: str, work: Path) -> tuple[str, ...]:
    """The rows and the tiny model of a task; the settings of its run."""
    make = {
        "text-classification": _texts,
        "seq2seq": _pairs,
        "causal-lm": _chats,
        "image-classification": _pictures,
    }[task]
    return (
        f"task={task}",
        *make(work),
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
    )


def _texts(work: Path) -> list[str]:
    from transformers import BertConfig, BertModel

    random = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(160):
        words = [*random.choice(WORDS[2:], int(random.integers(6, 14))), WORDS[i % 2]]
        lines.append(f"{' '.join(random.permutation(words))},{('no', 'yes')[i % 2]}")
    (work / "texts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = work / "bert"
    _drawn(
        lambda: BertModel(
            BertConfig(
                vocab_size=len(SPECIAL + WORDS),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                max_position_embeddings=64,
            )
        ),
        folder,
    )
    _tokenizer("[CLS] $A [SEP]", {"cls_token": "[CLS]", "sep_token": "[SEP]"}, folder)
    return [
        f"data.path={work / 'texts.csv'}",
        f"model.name={folder}",
        "train.epochs=3",
        "train.learning_rate=1e-3",
        "methods.contrast.steps=3",
    ]


def _pairs(work: Path) -> list[str]:
    from transformers import T5Config, T5ForConditionalGeneration

    random = np.random.default_rng(1)
    rows = [random.choice(WORDS, 8).tolist() for _ in range(120)]
    lines = [json.dumps({"dialogue": " ".join(r), "summary": f"{r[0]} {r[3]}"}) for r in rows]
    (work / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = work / "t5"
    _drawn(
        lambda: T5ForConditionalGeneration(
            T5Config(  # type: ignore[call-arg]
                vocab_size=64,
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                pad_token_id=0,
                eos_token_id=3,
                decoder_start_token_id=0,
            )
        ),
        folder,
    )
    _tokenizer("$A [SEP]", {"eos_token": "[SEP]"}, folder)
    return [
        f"data.path={work / 'pairs.jsonl'}",
        f"model.name={folder}",
        "train.epochs=2",
        "train.learning_rate=3e-3",
        "generate.rows=4",
        "generate.max_new_tokens=6",
    ]


def _chats(work: Path) -> list[str]:
    from transformers import LlamaConfig, LlamaForCausalLM

    rows = [
        {"instruction": f"{WORDS[i]} {WORDS[j]}", "output": WORDS[i + j]}
        for i in range(10)
        for j in range(8)
    ]
    lines = [json.dumps(row) for row in rows]
    (work / "chats.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = work / "llama"
    _drawn(
        lambda: LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(SPECIAL + WORDS),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=128,
                bos_token_id=2,
                eos_token_id=3,
            )
        ),
        folder,
    )
    _tokenizer("[CLS] $A", {"bos_token": "[CLS]", "eos_token": "[SEP]"}, folder)
    return [
        f"data.path={work / 'chats.jsonl'}",
        f"model.name={folder}",
        "train.epochs=2",
        "train.batch_size=8",
        "generate.rows=2",
        "generate.max_new_tokens=4",
    ]


def _pictures(work: Path) -> list[str]:
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    random = np.random.default_rng(3)
    for i in range(90):
        pixels = random.integers(0, 160, (16, 16, 3), dtype=np.uint8)
        pixels[:8] += np.uint8(90 * (i % 2))
        path = work / "pictures" / ("light", "dark")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    folder = work / "vit"
    _drawn(
        lambda: ViTForImageClassification(
            ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                image_size=16,
                patch_size=4,
            )
        ),
        folder,
    )
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return [f"data.path={work / 'pictures'}", f"model.name={folder}", "train.epochs=2"]


def _drawn(make: Any, folder: Path) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make().save_pretrained(folder)


def _tokenizer(template: str, special: dict[str, str], folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", **special
    ).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--task", choices=TASKS, action="append", help="these tasks alone")
    parser.add_argument("--work", type=Path, help="keep the undisturbed runs here for another go")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{NAME}.jsonl")
    asked = parser.parse_args()
    if asked.one:
        settings, folder, resume = json.loads(asked.one)
        train(settings, Path(folder), resume)
        return
    if not ENVIRONMENT.items() <= os.environ.items():
        # This process will be forked: its libraries must start no thread, NumPy's first of all.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    cells = grid(task=asked.task or TASKS, kill=[1] if asked.quick else range(KILLS))
    with tempfile.TemporaryDirectory(prefix="holdfast-kills-") as name:
        work = asked.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        warm_up()
        out = Path(name) / "quick.jsonl" if asked.quick else asked.out
        results = run_cells(
            NAME, cells, lambda cell: run_one(cell, work), out, minutes=asked.minutes
        )
    lost = [r for r in results if r and not r["identical"]]
    print(f"{sum(r is not None for r in results)} kills, {len(lost)} not identical")
    sys.exit(int(bool(lost)))


def finding(lines: Lines) -> str:
    same = sum(line["identical"] for line in lines)
    return (
        "Of runs that were killed at a random moment and resumed, "
        f"{share(same, len(lines), long=True)} end with the same files, byte for byte apart from "
        "recorded times, as a run that was not killed."
    )


CLAIM = Claim(
    NAME,
    "Other",
    "Runs that are killed",
    """\
SIGKILL at a moment drawn evenly from the time of an undisturbed run, then `--resume`. The SHA-256
of every file is compared (of files with clocks: of their contents without them). Every fifth run
is a new process, killed from its first import on; the others are forked after the imports.""",
    lambda: grid(task=TASKS, kill=range(KILLS)),
    finding,
    [
        table(
            {"task": "Task"},
            {
                "Kills": runs,
                "Identical": lambda lines: str(sum(line["identical"] for line in lines)),
                "Killed again": lambda lines: str(sum(line["killed_again"] for line in lines)),
            },
        ),
        table({"at": "Stage at the kill, by the files written"}, {"Runs": runs}),
    ],
    "The runs are tiny and take seconds.",
)


if __name__ == "__main__":
    main()
