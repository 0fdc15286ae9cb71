"""What is mutated: small real files of every kind that a door takes, made once in a folder."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

ROWS = 60
WORDS = [f"w{i}" for i in range(40)] + ["bad", "good"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_seeds(root: Path) -> None:
    """Rows, logs, recipes, pictures, a model and a finished run of it, below ``root``."""
    for name in ("rows", "logs", "recipes", "pictures"):
        (root / name).mkdir(parents=True, exist_ok=True)
    _rows(root / "rows")
    _logs(root / "logs")
    _models(root)
    _pictures(root / "pictures")
    _recipes(root / "recipes", root)
    _run(root)


def _texts() -> list[dict[str, object]]:
    random = Random(0)
    rows: list[dict[str, object]] = []
    for i in range(ROWS):
        words = [*random.choices(WORDS[:40], k=8), ("bad", "good")[i % 2]]
        rows.append({"text": " ".join(words), "label": ("no", "yes")[i % 2], "n": i / 7})
    return rows


def _rows(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    rows = _texts()
    lines = ["text,label,n"] + [f"{r['text']},{r['label']},{r['n']:.3f}" for r in rows]
    plain = ("\n".join(lines) + "\n").encode()
    jsonl = "".join(json.dumps(r) + "\n" for r in rows).encode()
    (folder / "rows.csv").write_bytes(plain)
    (folder / "rows.tsv").write_bytes(plain.replace(b",", b"\t"))
    (folder / "rows.csv.gz").write_bytes(gzip.compress(plain, mtime=0))
    (folder / "rows.jsonl").write_bytes(jsonl)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(jsonl, mtime=0))
    (folder / "rows.json").write_bytes(json.dumps(rows).encode())
    turns = (("user", "text"), ("assistant", "label"))
    chats = [{"messages": [{"role": who, "content": r[key]} for who, key in turns]} for r in rows]
    (folder / "chats.jsonl").write_bytes("".join(json.dumps(c) + "\n" for c in chats).encode())
    several = [{"text": r["text"], "labels": ["a", "b"][: i % 3]} for i, r in enumerate(rows)]
    (folder / "several.jsonl").write_bytes("".join(json.dumps(c) + "\n" for c in several).encode())
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(several), folder / "several.parquet")
    odd = {
        "text": pa.array([r["text"] for r in rows]).dictionary_encode(),
        "label": pa.array([r["label"] for r in rows]),
        "when": pa.array(range(ROWS), pa.timestamp("ns")),
        "bytes": pa.array([b"\0\xff"] * ROWS),
        "nothing": pa.nulls(ROWS),
        "inner": pa.array([{"a": [i]} for i in range(ROWS)]),
    }
    pq.write_table(pa.table(odd), folder / "odd.parquet")
    with contextlib.suppress(ImportError):
        import openpyxl

        book = openpyxl.Workbook()
        for line in lines:
            book.active.append(line.split(","))
        target = io.BytesIO()
        book.save(target)
        (folder / "rows.xlsx").write_bytes(target.getvalue())


def _logs(folder: Path) -> None:
    course = [(i, math.exp(-i / 3) + 0.01 * i, math.exp(-i / 4) + 0.02 * i) for i in range(1, 25)]
    log = [{"step": i, "epoch": i / 4, "loss": a} for i, a, _ in course]
    log += [
        {"step": i, "epoch": i / 4, "eval_loss": b, "eval_accuracy": 1 - b / 9}
        for i, _, b in course
    ]
    log.sort(key=lambda one: one["step"])
    state = {"log_history": log, "max_steps": 24, "best_metric": None}
    keras = ["epoch,accuracy,loss,val_accuracy,val_loss"]
    keras += [f"{i},{1 - a / 9},{a},{1 - b / 9},{b}" for i, a, b in course]
    light = ["epoch,step,train_loss,val_loss"]
    light += [f"{i // 4},{i},{a},\n{i // 4},{i},,{b}" for i, a, b in course]
    fastai = ["epoch,train_loss,valid_loss,accuracy,time"]
    fastai += [f"{i},{a},{b},{1 - b / 9},00:0{i % 9}" for i, a, b in course]
    yolo = ["epoch,train/box_loss,train/cls_loss,val/box_loss,val/cls_loss"]
    yolo += [f"{i},{a},{a},{b},{b}" for i, a, b in course]
    losses = {"loss": [a for _, a, _ in course], "val_loss": [b for _, _, b in course]}
    boost = {f"validation_{k}": {"logloss": v} for k, v in enumerate(losses.values())}
    llama = [
        {
            "current_steps": i,
            "total_steps": 30,
            "loss": a,
            "eval_loss": b,
            "elapsed_time": "0:00:09",
        }
        for i, a, b in course
    ]
    own = [
        {
            "event": "snapshot",
            "step": i,
            "epoch": i / 4,
            "train_loss": a,
            "valid_loss": b,
            "train_rows": 9,
            "valid_rows": 9,
            "seconds": i,
            "train_metrics": {"accuracy": 0.5},
            "valid_metrics": {"accuracy": 0.5},
        }
        for i, a, b in course
    ]
    wandb = [
        {"_step": i, "_runtime": i, "train": {"loss": a}, "val": {"loss": b}} for i, a, b in course
    ]
    files = {
        "trainer_state.json": json.dumps(state),
        "keras.csv": "\n".join(keras),
        "history.json": json.dumps(losses),
        "metrics.csv": "\n".join(light),
        "fastai.csv": "\n".join(fastai),
        "results.csv": "\n".join(yolo),
        "boosting.json": json.dumps(boost),
        "sk.json": json.dumps({"loss_curve_": losses["loss"]}),
        "trainer_log.jsonl": "\n".join(map(json.dumps, llama)),
        "events.jsonl": "\n".join(map(json.dumps, own)),
        "wandb-history.jsonl": "\n".join(map(json.dumps, wandb)),
        "plain.jsonl": "\n".join(map(json.dumps, log)),
        "list.json": json.dumps(log),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    with contextlib.suppress(ImportError):
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        with (folder / "events.out.tfevents.1.host").open("wb") as file:
            writer = RecordWriter(file)
            for i, a, b in course:
                event = event_pb2.Event(wall_time=float(i), step=i)
                event.summary.value.add(tag="train/loss", simple_value=a)
                event.summary.value.add(tag="val/loss", simple_value=b)
                writer.write(event.SerializeToString())


def _models(root: Path) -> None:
    """One of each kind, of one block, drawn at random."""
    import torch
    import transformers as hf

    words = len(SPECIAL + WORDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {
            "model": hf.BertModel(
                hf.BertConfig(
                    vocab_size=words,
                    hidden_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=16,
                    max_position_embeddings=32,
                )
            ),
            "causal": hf.GPT2LMHeadModel(
                hf.GPT2Config(
                    vocab_size=words,
                    n_embd=16,
                    n_layer=1,
                    n_head=2,
                    n_positions=32,
                    bos_token_id=3,
                    eos_token_id=3,
                )
            ),
            "seq2seq": hf.T5ForConditionalGeneration(
                hf.T5Config(  # type: ignore[call-arg]
                    vocab_size=words,
                    d_model=16,
                    d_kv=8,
                    d_ff=16,
                    num_layers=1,
                    num_heads=2,
                    decoder_start_token_id=0,
                )
            ),
        }
        for name, model in made.items():
            model.save_pretrained(root / name)
            _tokenizer(root / name)
        hf.ViTForImageClassification(
            hf.ViTConfig(
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=8,
                patch_size=4,
            )
        ).save_pretrained(root / "vision")
    scaled = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (root / "vision" / "preprocessor_config.json").write_text(json.dumps(scaled))


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word: index for index, word in enumerate(SPECIAL + WORDS)}
    inner = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{key}_token": token for key, token in names.items()}
    ).save_pretrained(folder)


def _pictures(folder: Path) -> None:
    from PIL import Image

    for shade, name in ((60, "dark"), (180, "light")):
        (folder / name).mkdir(exist_ok=True)
        for i in range(6):
            picture = Image.new("RGB", (12, 12), (shade + i, shade, 2 * i))
            picture.save(folder / name / f"{i}.{('png', 'jpg', 'gif')[i % 3]}")


def _recipes(folder: Path, root: Path) -> None:
    small = f"data: {{path: {root}/rows/rows.csv, text: text, label: label}}\nseed: 3\n"
    (folder / "small.yaml").write_text(small)
    (folder / "anchors.yaml").write_text(
        "x: &a {epochs: 2, batch_size: 8}\n".replace("x:", "train:")
        + "model: {name: embedded, max_length: 64}\ncontrol: {policy: off}\n"
        "methods: {contrast: {steps: 7, tau: 0.1}, probe_first: false}\n"
        "generate: {rows: 3, beams: 2}\nalert: {on: [overfit]}\n"
    )


def _run(root: Path) -> None:
    from holdfast import train

    settings = {
        "train.epochs": 2,
        "train.batch_size": 8,
        "train.threads": 1,
        "train.evaluations": 3,
        "train.precision": "float32",
        "methods.contrast": False,
    }
    run = train(
        root / "rows" / "rows.csv",
        out=root / "run",
        model=str(root / "model"),
        seed=0,
        settings=settings,
        quiet=True,
    ).folder
    (root / "recipes" / "resolved.yaml").write_bytes((run / "recipe.yaml").read_bytes())


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below, in order."""
    return iter(sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names))
