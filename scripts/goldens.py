"""What Holdfast does and says, kept from one commit and compared with another.

    python scripts/goldens.py make OUT [--root SRC] [--only WORD]
    python scripts/goldens.py compare OLD NEW

`make` runs every command on small real rows of every task (`HOLDFAST_DATA`, by default the folder
`shared/data` beside the checkout), one thread, in one working folder, and keeps two layers of each
step. *Facts*: exit code, the files that it wrote, SHA-256 of weights, every number, key and label
of JSON, YAML and tables. *Sentences*: what it printed, texts within JSON, pages. Times, places,
memory and what a clock gives are taken out of both. Public signatures and the help of every command
are steps too, and so are old runs of each task. The two commits that are compared run on one
machine, one after the other, in one place: another processor rounds otherwise, and what is drawn at
random for a picture hangs on its path.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import gzip
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("HOLDFAST_DATA", ROOT.parent / "shared" / "data"))
OLD_RUNS = ROOT / "tests" / "journeys" / "old_runs" / "runs.tar.xz"
# Keys of what a clock, a process or a machine gives.
CLOCK = re.compile(
    r"(^|_)(s|ms|mb|at|pid|when|date|time|seconds|speed|per_s|created|host|memory)$|timing|peak_|^id$|^bytes$"
)
TIMES = re.compile(
    r"\b\d[\d,.]*\s?(?:ms|s|min|h|MB|GB|kB|rows/s|tokens/s)\b(?:\s\d+\s(?:s|min)\b)?"
)
# What is free on the machine, and how fast it is.
OF_MACHINE = re.compile(
    r"(TIME of|rows a second\n|tokens a second\n| at 0x|oneDNN at|accuracy at|^at)"
    r" ?[\d.,a-f]+(?: times the default's| times its speed)?",
    re.M,
)
# Progress that is shown only where it takes seconds.
STAGES = re.compile(
    r"^  (?:analysing|asking the model about) training and validation rows.*\n"
    r"|^  (?:reading the texts|rows explained): .*\n",
    re.M,
)
STAMPS = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*(?:Z|[+-]\d\d:\d\d)?|\d{4}-\d\d-\d\d")
DIGESTS = re.compile(r"\b[0-9a-f]{16,64}\b")
PROSE = (".html", ".md", ".txt", ".svg", ".css", ".js")
TABLES = (".parquet",)
PLAIN = (".json", ".jsonl", ".yaml", ".csv")
FAST = ("train.threads=1", "train.precision=float32", "train.matmul=default")


@dataclass(frozen=True)
class Step:
    """One command: its ``name``, its arguments, and what it is given on its standard input."""

    name: str
    arguments: tuple[str, ...]
    given: str = ""


@dataclass
class Task:
    """The rows of a task, the settings of a short run, and the commands that it has."""

    name: str
    source: str
    new: str
    settings: tuple[str, ...]
    commands: tuple[str, ...] = field(default=())

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(part for one in (*FAST, *self.settings) for part in ("--set", one))


NUMBERS = ("data.label=words", "data.label_kind=number")
SIX = ("train.max_steps=6",)
EVERY = ("predict", "evaluate", "explain", "errors", "diagnose", "report", "drift", "probe")
TASKS = (
    Task("classes", "classes.csv", "classes-new.csv", ("train.max_steps=12",), EVERY),
    Task(
        "pairs",
        "pairs.csv",
        "pairs-new.csv",
        ("train.max_steps=6", "data.text=[question,answer]"),
        ("predict", "evaluate"),
    ),
    Task("labels", "labels.jsonl", "labels-new.jsonl", (*SIX, "data.label=kinds"), EVERY),
    Task("number", "number.csv", "number-new.csv", (*SIX, *NUMBERS), EVERY),
    Task(
        "tags",
        "tags.conll",
        "tags-new.conll",
        ("train.max_steps=6", "task=token-classification"),
        EVERY,
    ),
    Task(
        "seq2seq",
        "dialogues.jsonl",
        "dialogues-new.jsonl",
        (
            "task=seq2seq",
            "model.name=models/t5",
            "train.max_steps=6",
            "generate.rows=4",
            "generate.max_new_tokens=6",
            "data.text=[dialogue]",
            "data.target=summary",
        ),
        EVERY,
    ),
    Task(
        "causal",
        "instructions.jsonl",
        "instructions-new.jsonl",
        (
            "task=causal-lm",
            "model.name=models/llama",
            "train.max_steps=6",
            "generate.rows=4",
            "generate.max_new_tokens=6",
        ),
        EVERY,
    ),
    Task(
        "pictures",
        "pictures",
        "pictures-new",
        ("task=image-classification", "model.name=models/vit", "train.max_steps=6"),
        EVERY,
    ),
)


def steps() -> Iterator[Step]:
    """All steps, in the order in which they run."""
    for task in TASKS:
        rows, new, run = f"rows/{task.source}", f"rows/{task.new}", f"runs/{task.name}"
        yield Step(f"{task.name} dry run", ("train", rows, *task.sets, "--dry-run"))
        yield Step(f"{task.name} audit", ("audit", rows, "--json", *_asked(task)))
        yield Step(f"{task.name} train", ("train", rows, *task.sets, "--out", run))
        for command in task.commands:
            yield _of_run(task.name, command, run, new)
    yield from _of_classes()
    for task in TASKS:
        if task.name in ("classes", "number", "seq2seq", "causal", "pictures"):
            yield from _of_old(task.name)
    yield from _of_old("several")
    yield from (Step(f"refused {n}", one) for n, one in enumerate(REFUSED))


def _asked(task: Task) -> tuple[str, ...]:
    named = [one for one in task.settings if one.startswith(("task=", "data."))]
    return tuple(part for one in named for part in ("--set", one))


def _of_run(name: str, command: str, run: str, new: str) -> Step:
    arguments: dict[str, tuple[str, ...]] = {
        "predict": ("predict", run, new, "--out", f"said/{name}.jsonl"),
        "evaluate": ("evaluate", run, new, "--json"),
        "explain": ("explain", run, new, "--json", "--rows", "2"),
        "errors": ("errors", run, "--json"),
        "diagnose": ("diagnose", run, "--json"),
        "report": ("report", run),
        "drift": ("drift", run, new, "--json"),
        "probe": ("probe", run, "--json"),
    }
    return Step(f"{name} {command}", arguments[command])


def _of_classes() -> Iterator[Step]:
    """The commands that one task shows as well as another."""
    rows, run = "rows/classes.csv", "runs/classes"
    (classes,) = (one for one in TASKS if one.name == "classes")
    other = ("--set", "methods.contrast=false", "--set", "seed=1")
    methods = (
        "label_smoothing",
        "rdrop",
        "ema",
        "mixup",
        "sam",
        "l2_sp",
        "focal",
        "swa",
        "neftune",
    )
    yield Step("audit", ("audit", rows, "--html", "said/audit.html"))
    yield Step("audit fix", ("audit", rows, "--fix", "said/fixed.csv"))
    yield Step("another", ("train", rows, *classes.sets, *other, "--out", "runs/another"))
    for name in methods:
        sets = ("--set", f"methods.{name}=true", "--out", f"runs/{name}")
        yield Step(f"method {name}", ("train", rows, *classes.sets, *sets))
    yield Step("compare", ("compare", run, "runs/another", "--json"))
    yield Step("several", ("predict", run, "runs/another", "rows/classes-new.csv"))
    yield Step("lines", ("predict", run, "-"), "where is it ?\nwho was it ?\n")
    yield Step("threshold", ("threshold", run, "--coverage", "0.5", "--json"))
    yield Step("fairness", ("fairness", run, "--json"))
    yield Step("cv", ("cv", rows, *classes.sets, "--set", "cv.folds=3", "--out", "runs/cv"))
    yield Step("tune", ("tune", rows, *classes.sets, "--trials", "3", "--out", "runs/tune"))
    yield Step("lr", ("lr", rows, *classes.sets, "--json"))
    yield Step("choose", ("choose", rows, "--models", "embedded,embedded", "--json"))
    yield Step("distill", ("distill", run, *classes.sets, "--out", "runs/distilled"))
    meta = ("meta.episodes=4", "meta.judge_episodes=10", "meta.test_episodes=10", "meta.ways=2")
    sets = tuple(part for one in meta for part in ("--set", one))
    yield Step("meta", ("meta", "rows/intents.csv", *sets, *classes.sets[:6], "--out", "runs/meta"))
    yield Step("forget", ("forget", "--store", "said/none.db", "--user", "anna"))
    yield Step("chat", ("chat", "runs/causal"), "What is it?\n")


def _of_old(name: str) -> Iterator[Step]:
    run, new = f"old/runs/{name}", f"old/rows/{name}-new"
    new += "" if name == "pictures" else ".jsonl"
    for command in ("predict", "evaluate", "diagnose", "report"):
        step = _of_run(name, command, run, new)
        yield Step(
            f"old {name} {command}",
            tuple(one.replace("said/", "said/old-") for one in step.arguments),
        )


REFUSED: tuple[tuple[str, ...], ...] = (
    ("train",),
    ("train", "rows/none.csv"),
    ("train", "rows/classes.csv", "--lable", "label"),
    ("train", "rows/classes.csv", "--set", "train.epoch=3"),
    ("train", "rows/classes.csv", "--set", "train.epochs=-1"),
    ("train", "rows/classes.csv", "--label", "kind"),
    ("train", "rows/classes.csv", "--task", "seq2seq"),
    ("predict", "runs/none", "rows/classes.csv"),
    ("meta", "rows/intents.csv", "--set", "meta.method=maml"),
    ("tarin",),
)


def write_rows(folder: Path) -> None:
    """Small real rows of every task; labels, tags and numbers that no set here has are read off
    the texts."""
    folder.mkdir(parents=True)
    trec = _csv(DATA / "trec" / "train.csv")
    few = [row for row in trec if row["label"] in ("HUM", "LOC", "NUM")]
    for name, rows in (("", few[:160]), ("-new", few[160:200])):
        _write_csv(folder / f"classes{name}.csv", ("text", "label"), rows)
        pairs = [
            {"question": row["text"], "answer": kind, "label": str(kind == row["label"])}
            for at, row in enumerate(rows)
            for kind in [("HUM", "LOC", "NUM")[at % 3]]
        ]
        _write_csv(folder / f"pairs{name}.csv", ("question", "answer", "label"), pairs)
        words = [{"text": row["text"], "words": len(row["text"].split())} for row in rows]
        _write_csv(folder / f"number{name}.csv", ("text", "words"), words)
        several = [{"text": row["text"], "kinds": _kinds(row["text"])} for row in rows]
        _write_lines(folder / f"labels{name}.jsonl", several)
        tags = ["\n".join(_tagged(row["text"])) for row in rows]
        (folder / f"tags{name}.conll").write_text("\n\n".join(tags) + "\n", "utf-8")
    bank = _csv(DATA / "banking77" / "train.csv")
    kinds = sorted({row["label"] for row in bank})[:12]
    own = [row for kind in kinds for row in [r for r in bank if r["label"] == kind][:12]]
    _write_csv(folder / "intents.csv", ("text", "label"), own)
    for name, source, n in (
        ("dialogues", "samsum/val", 60),
        ("instructions", "instructions/val", 60),
    ):
        with gzip.open(DATA / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line, _ in zip(file, range(n + 12), strict=False)]
        _write_lines(folder / f"{name}.jsonl", rows[:n])
        _write_lines(folder / f"{name}-new.jsonl", rows[n:])
    with zipfile.ZipFile(DATA / "cifar10" / "cifar10.zip") as packed:
        for kind in ("airplane", "frog"):
            names = [n for n in packed.namelist() if f"/train/{kind}/" in n][:52]
            for at, name in enumerate(sorted(names)):
                to = folder / ("pictures" if at < 40 else "pictures-new") / kind
                to.mkdir(parents=True, exist_ok=True)
                (to / Path(name).name).write_bytes(packed.read(name))


def _kinds(text: str) -> list[str]:
    words = set(text.lower().split())
    found = [kind for kind in ("who", "where", "many", "first", "name") if kind in words]
    return [*found, "long" if len(words) > 9 else "short"]


def _tagged(text: str) -> Iterator[str]:
    words = text.split()
    for at, word in enumerate(words):
        name = at and word[:1].isupper()
        before = at > 1 and words[at - 1][:1].isupper()
        yield f"{word} {('I-NAME' if before else 'B-NAME') if name else 'O'}"


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, names: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, names, extrasaction="ignore")
        out.writeheader()
        out.writerows(rows)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_models(folder: Path) -> None:
    """A T5, a Llama and a vision transformer of a few thousand weights, drawn at random."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
        ViTConfig,
        ViTForImageClassification,
    )
    from transformers.models.vit import ViTImageProcessorPil

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", *letters])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    size = len(vocabulary)
    torch.manual_seed(0)
    llama = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    t5 = T5Config(
        vocab_size=size,
        d_model=32,
        d_ff=64,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    vit = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=2,
    )
    for name, model in (
        ("llama", LlamaForCausalLM(llama)),
        ("t5", T5ForConditionalGeneration(t5)),
        ("vit", ViTForImageClassification(vit)),
    ):
        model.save_pretrained(folder / name)
        if name == "vit":
            ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / name)
        else:
            tokenizer.save_pretrained(folder / name)


SIGNATURES = """
import inspect, json
import holdfast
found = {}
def seen(name, thing):
    if inspect.isclass(thing):
        for key in sorted(vars(thing)):
            if not key.startswith("_"):
                seen(f"{name}.{key}", getattr(thing, key))
    try:
        found[name] = str(inspect.signature(thing))
    except (TypeError, ValueError):
        found[name] = type(thing).__name__
for name in sorted(holdfast.__all__):
    seen(name, getattr(holdfast, name))
print(json.dumps(found))
"""


def make(out: Path, source: Path, only: str) -> None:
    """Run the steps with the package below ``source`` and keep what they do in ``out``."""
    place = Path(tempfile.gettempdir()) / "holdfast-goldens"
    place.mkdir()
    shutil.rmtree(out, ignore_errors=True)
    for folder in (
        out / "facts",
        out / "sentences",
        place / "said",
        place / "runs",
        place / "home",
    ):
        folder.mkdir(parents=True)
    try:
        _make(out, place, source, only)
    finally:
        shutil.rmtree(place)


def _make(out: Path, place: Path, source: Path, only: str) -> None:
    write_rows(place / "rows")
    write_models(place / "models")
    with tarfile.open(OLD_RUNS) as packed:
        packed.extractall(place / "old", filter="data")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST")},
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TZ": "UTC",
        "HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(place / "home" / "cache"),
    }

    def ran(command: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=place, env=environment, input=given, capture_output=True, text=True
        )

    told = ran([sys.executable, "-c", SIGNATURES])
    _keep(out, "signatures", json.loads(OF_MACHINE.sub(r"\1 AMOUNT", told.stdout)), "")
    listed = ran([sys.executable, "-m", "holdfast", "--help"]).stdout
    # Options begin with a dash; every other line of two columns is a command.
    commands = sorted(re.findall(r"^  ([a-z]+)  ", listed, re.M))
    texts = [listed]
    texts += [ran([sys.executable, "-m", "holdfast", one, "--help"]).stdout for one in commands]
    _keep(out, "help", {"commands": commands}, "\n".join(texts))
    before = _files(place)
    for step in steps():
        if only not in step.name:
            continue
        done = ran([sys.executable, "-m", "holdfast", *step.arguments], step.given)
        after = _files(place)
        changed = {name for name in after if before.get(name) != after[name]}
        facts: dict[str, Any] = {"exit": done.returncode, "gone": sorted(set(before) - set(after))}
        facts["stdout"], said = _document(done.stdout, place)
        # JSON is told apart; what was printed for a reader is kept as it is.
        said = done.stdout if facts["stdout"] is None else said
        sentences = ["$ holdfast " + " ".join(step.arguments), said, "----", done.stderr]
        facts["files"] = {}
        for name in sorted(changed):
            facts["files"][name], text = _content(place / name, place)
            sentences += [f"==== {name}", text] if text else []
        _keep(out, step.name, facts, _scrubbed("\n".join(sentences), place))
        print(f"{step.name}: {done.returncode}", flush=True)
        before = after


def _keep(out: Path, name: str, facts: Any, sentences: str) -> None:
    name = name.replace(" ", "-")
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    (out / "facts" / f"{name}.json").write_text(text, "utf-8")
    (out / "sentences" / f"{name}.txt").write_text(sentences, "utf-8")


def _files(place: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(place)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(place.rglob("*"))
        if path.is_file() and "home" not in path.relative_to(place).parts
    }


def _content(path: Path, place: Path) -> tuple[Any, str]:
    """The facts of a file and its sentences."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            told = {name: arrays[name] for name in sorted(arrays.files)}
        return {name: _array(one, place) for name, one in told.items()}, ""
    if path.suffix == ".journal":
        # Optuna's, with the times of its trials.
        return "journal", ""
    if path.suffix not in (*PROSE, *TABLES, *PLAIN):
        return hashlib.sha256(path.read_bytes()).hexdigest(), ""
    if path.suffix in TABLES:
        import pyarrow.parquet as parquet

        table = parquet.read_table(path)
        return _document(json.dumps(table.to_pylist(), default=str), place)
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        return _document(json.dumps(lines), place)
    if path.suffix == ".json":
        return _document(text, place)
    if path.suffix == ".html":
        text = re.sub(r"<style.*?</style>|<script.*?</script>", "", text, flags=re.S)
        text = "\n".join(
            filter(None, map(str.strip, html.unescape(re.sub(r"<[^>]*>", "\n", text)).splitlines()))
        )
    if path.suffix in (".yaml", ".csv"):
        return _scrubbed(text, place).splitlines(), ""
    return "", _scrubbed(text, place)


def _array(values: Any, place: Path) -> Any:
    """An array by its digest; one that holds a document, by what it says."""
    if values.dtype.kind == "U" and not values.ndim:
        return _document(str(values), place)[0]
    return f"{values.dtype} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"


def _document(text: str, place: Path) -> tuple[Any, str]:
    """JSON apart: what is a fact, and its sentences, a line each by its place."""
    try:
        document = json.loads(text)
    except ValueError:
        return None, ""
    said: list[str] = []
    return _facts(document, "", said, place), "\n".join(said)


def _facts(value: Any, where: str, said: list[str], place: Path) -> Any:
    if isinstance(value, dict):
        return {
            key: "clock" if CLOCK.search(str(key)) else _facts(one, f"{where}.{key}", said, place)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_facts(one, f"{where}[{at}]", said, place) for at, one in enumerate(value)]
    if isinstance(value, str):
        text = _scrubbed(value, place)
        if " " in text.strip():
            said.append(f"{where}: {text}")
            return "sentence"
        return text
    return value


def _scrubbed(text: str, place: Path) -> str:
    text = STAGES.sub("", text.replace(str(place), "WORK"))
    text = re.sub(r"/tmp/[^\s'\",)]+", "TEMP", text)
    text = DIGESTS.sub("DIGEST", STAMPS.sub("DATE", TIMES.sub("TIME", text)))
    return OF_MACHINE.sub(r"\1 AMOUNT", text)


def compare(old: Path, new: Path) -> int:
    """Print what differs, facts first; gives how many files do."""
    different = 0
    for layer in ("facts", "sentences"):
        ours, theirs = ({p.name: p for p in (one / layer).iterdir()} for one in (old, new))
        for name in sorted({*ours, *theirs}):
            texts = [
                found[name].read_text("utf-8").splitlines() if name in found else []
                for found in (ours, theirs)
            ]
            lines = list(difflib.unified_diff(*texts, lineterm="", n=0))[2:]
            if lines:
                different += 1
                print(f"{layer}: {name}: {sum(one[:1] in '+-' for one in lines)} lines")
                print("\n".join(f"    {one[:160]}" for one in lines[:12]))
        print(f"{layer}: {len({*ours, *theirs})} steps, {different} different so far")
    return different


def _read(path: Path | None) -> list[str]:
    return path.read_text("utf-8").splitlines() if path else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make")
    made.add_argument("out", type=Path)
    made.add_argument("--root", type=Path, default=ROOT / "src", help="the folder of the package")
    made.add_argument("--only", default="", help="steps with this in their name")
    compared = commands.add_parser("compare")
    compared.add_argument("old", type=Path)
    compared.add_argument("new", type=Path)
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.out.resolve(), asked.root.resolve(), asked.only)
    else:
        sys.exit(min(1, compare(asked.old, asked.new)))


if __name__ == "__main__":
    main()
