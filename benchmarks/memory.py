"""What a model remembers of its training rows, and whether the probe says so.

    python benchmarks/memory.py --part null       # 200 runs that saw neither set (2 minutes)
    python benchmarks/memory.py --part trec       # real runs on wrong labels, 4 minutes each
    python benchmarks/memory.py --part novelist   # a small language model, a minute each

**null**: a logistic regression on frozen vectors is fitted to rows of TREC, CR or BANKING77 that
are in neither set; 300 others are called members, 200 more others. Whatever is found is a false
alarm.

**trec**: 300 training rows (and 66 validation rows), 500 test rows drawn from the same file, since
the official test file differs in itself; 30 % of the labels of both are drawn at random. ``heart``:
50 epochs, control.policy=off, train.keep=last; ``guard``: the default. Measured on the rows whose
labels were drawn, and on all. ``untrained`` is the same encoder with a random last layer. The
precision is that of the 5 % of the training rows with the largest range of loss: whether their
label was drawn at random (and, more strictly, differs from the true one).

**novelist**: the language model of ``forgetting.py`` tuned on 240 paragraphs (197 of them training
rows) of a novelist whom it never read, against 150 others of his: ``heart`` 15 epochs, off, last;
``short`` 4 of the same; ``guard``: the default.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Column, Lines, average, counts, number, pick, renamed, share, table, text
from labels import pool, source
from make_base_models import cache_folder

from holdfast.analyses.memory.membership import membership
from holdfast.analyses.memory.probe import SetScores, probe_membership
from holdfast.core.records import Estimate
from holdfast.core.run_files import read_result
from holdfast.core.seeds import generator
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, as_settings, override
from holdfast.runs.finished_run import FinishedRun

NAME = "memory"
SEEDS, EACH = 8, 25
HEART = {"control.policy": "off", "train.keep": "last"}
WAYS = ("heart", "guard")
TREC_ROWS, TEST_ROWS, DRAWN = 366, 500, 0.3
NOVEL_ROWS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("null", "trec", "novelist"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    parts = [given.part] if given.part else ["null", "trec", "novelist"]
    for part in parts:
        run_cells(NAME, cells_of(part, given.seeds), run_one, minutes=given.minutes)


def cells_of(part: str, seeds: int = 2) -> list[dict[str, Any]]:
    if part == "null":
        return grid(part=["null"], data=["trec", "cr"], seed=list(range(SEEDS // 2)))
    ways = [*WAYS, "short"] if part == "novelist" else list(WAYS)
    return grid(part=[part], seed=list(range(seeds)), way=ways)


def run_one(cell: Cell) -> Result:
    return {"null": null, "trec": trec, "novelist": novelist}[cell["part"]](cell)


def null(cell: Cell) -> Result:
    """How often 25 models that saw neither set are said to remember one."""
    from holdfast.data.memory.texts import table_from_texts
    from holdfast.models.probes.probe import fit_probe

    texts, y, names, last, _ = pool(cell["data"])
    table = table_from_texts(texts, [names[k] for k in y], rare_below=1)
    kept = np.asarray(table.column("row"))
    y, last, found = y[kept], last[kept], []
    for draw in range(EACH):
        order = generator(cell["seed"], NAME, cell["data"], draw).permutation(len(table))
        seen, one, other = order[:300], order[300:600], order[600:800]
        head = fit_probe(last[seen], y[seen], classes=len(names), seed=draw, c=1.0)

        def heard(at: Any, head: Any = head) -> SetScores:
            logits = head.logits(last[at])
            total = np.logaddexp.reduce(logits, axis=1)
            return SetScores(table.take(at), total - logits[np.arange(len(at)), y[at]])

        found.append(probe_membership(heard(one), heard(other), draw))
    return {
        "runs": EACH,
        "alarms": sum(one.verdict == "memorized" for one in found),
        "refused": sum(one.verdict == "undecided" for one in found),
        "conditioned_alarms": sum(one.attacks[1].above_chance for one in found),
        "auc": float(np.mean([one.headline.auc.value for one in found])),
        "auc_low": min(float(one.headline.auc.value or 0) for one in found),
        "auc_high": max(float(one.headline.auc.value or 1) for one in found),
    }


def kept() -> Path:
    """Where finished runs stay, so that a killed benchmark trains none twice."""
    folder = cache_folder() / NAME
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trec(cell: Cell) -> Result:
    run = kept() / f"{cell['way']}_{cell['seed']}"
    files, drawn, wrong = noisy_trec(kept(), cell["seed"])
    settings: dict[str, Any] = {
        "data.path": str(files["train"]),
        "data.test": str(files["test"]),
        "data.text": ["text"],
        "data.label": "label",
        "seed": cell["seed"],
    }
    if cell["way"] == "heart":
        settings |= {"train.epochs": 50, **HEART}
    recipe = override(Recipe(), as_settings(settings))
    train(recipe, run, resume=run.exists())
    return {**measured(run, drawn, wrong), **untrained(run, drawn)}


def noisy_trec(folder: Path, seed: int) -> tuple[dict[str, Path], Any, Any]:
    """The two files, and which of their rows have a label that was drawn, or that is wrong."""
    texts, labels = source("trec")
    random, names = np.random.default_rng([seed, 14]), sorted(set(labels))
    seen: set[str] = set()
    kept_rows = []
    for at in random.permutation(len(texts)):
        if texts[at].lower() not in seen:
            seen.add(texts[at].lower())
            kept_rows.append(int(at))
    files, drawn, wrong = {}, {}, {}
    parts = {"train": kept_rows[:TREC_ROWS], "test": kept_rows[TREC_ROWS : TREC_ROWS + TEST_ROWS]}
    for side, rows in parts.items():
        lot = np.zeros(len(rows), bool)
        lot[random.permutation(len(rows))[: round(DRAWN * len(rows))]] = True
        given = [
            names[random.integers(len(names))] if lot[i] else labels[at]
            for i, at in enumerate(rows)
        ]
        files[side], drawn[side] = folder / f"{side}_{seed}.csv", lot
        wrong[side] = np.array([a != labels[at] for a, at in zip(given, rows, strict=True)])
        with files[side].open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(
                [("text", "label"), *zip([texts[at] for at in rows], given, strict=True)]
            )
    return files, drawn, wrong


def heard_of(run: Path) -> dict[str, SetScores]:
    """What the kept model says of training and test rows."""
    again = FinishedRun(run)
    test = again.predictions_of("test")
    if again.has("train"):
        learned = again.predictions_of("train")
        return {
            "train": SetScores(learned.table, learned.losses),
            "test": SetScores(test.table, test.losses),
        }
    table = again.table("train")
    answers: Any = again.predictor.predict_table(table)
    return {
        "train": SetScores(table, answers.outputs.losses),
        "test": SetScores(test.table, test.losses),
    }


def measured(run: Path, drawn: Any, wrong: Any) -> Result:
    """The areas on rows with drawn labels, and what the loss traces point at."""
    import pyarrow.parquet as parquet

    heard = heard_of(run)
    train, test = (
        heard[side].take(np.flatnonzero(drawn[side][np.asarray(heard[side].table.column("row"))]))
        for side in ("train", "test")
    )
    on_drawn = probe_membership(train, test, 0)
    on_all = probe_membership(heard["train"], heard["test"], 0)
    traces = parquet.read_table(run / "examples.parquet").to_pylist()
    traces = [one for one in traces if one["split"] == "train"]
    traces.sort(key=lambda one: -one["loss_range"])
    top = [one["row"] for one in traces[: round(0.05 * len(traces))]]
    return {
        **_area("drawn", on_drawn.headline.auc),
        **_area("all", on_all.headline.auc),
        "conditioned": on_drawn.attacks[1].auc.value,
        "blind": on_all.blind.value,
        "verdict": on_all.verdict,
        "top": len(top),
        "top_drawn": float(drawn["train"][top].mean()),
        "top_wrong": float(wrong["train"][top].mean()),
        "accuracy": read_result(run)["test"]["metrics"]["accuracy"]["value"],
        "scores": {s: [float(f"{x:.6g}") for x in one.losses] for s, one in heard.items()},
    }


def _area(name: str, auc: Any) -> Result:
    return {f"{name}_auc": auc.value, f"{name}_low": auc.low, f"{name}_high": auc.high}


def untrained(run: Path, drawn: Any) -> Result:
    """The area on the same rows by the encoder with a random last layer."""
    from holdfast.models.encoders.classifier import load_classifier
    from holdfast.models.loading.options import LoadOptions
    from holdfast.tasks.classes.encoding import forward

    heard = heard_of(run)
    classes = heard["train"].table.classes
    loaded = load_classifier("embedded", classes, LoadOptions(seed=FinishedRun(run).recipe.seed))
    found = []
    for side, one in heard.items():
        part = one.table.take(np.flatnonzero(drawn[side][np.asarray(one.table.column("row"))]))
        said = forward(loaded.network.eval(), loaded.tokenizer, loaded.max_length, classes, part)
        found.append(-said.losses)
    return _area("untrained", membership("loss", *found).auc)


def novelist(cell: Cell) -> Result:
    from forgetting_parts import rows
    from forgetting_parts.base import base

    run = kept() / f"novelist_{cell['way']}_{cell['seed']}"
    folder = kept() / f"novelist_{cell['seed']}"
    folder.mkdir(exist_ok=True)
    file, held = rows.own("novelist", folder, cell["seed"])
    texts = file.read_text("utf-8").strip().split("\n\n")
    for side, part in {"train": texts[:NOVEL_ROWS], "test": texts[-held:]}.items():
        (folder / f"{side}.txt").write_text("\n\n".join(part) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {
        "task": "causal-lm",
        "data.path": str(folder / "train.txt"),
        "data.test": str(folder / "test.txt"),
        "model.name": str(base()),
        "model.max_length": 128,
        "train.learning_rate": 1e-3,
        "generate.rows": 4,
        "generate.max_new_tokens": 8,
        "seed": cell["seed"],
    }
    if cell["way"] != "guard":
        settings |= {"train.epochs": 15 if cell["way"] == "heart" else 4, **HEART}
    train(override(Recipe(), as_settings(settings)), run, resume=run.exists())
    block = read_result(run)["probes"]["memorization"]
    found: Result = {"blind": block["blind_auc"]["value"], "verdict": block["verdict"]}
    for name, one in block["attacks"].items():
        found |= _area(name, Estimate(*(one["auc"].get(k) for k in ("value", "low", "high"))))
        found[f"{name}_tpr"] = one["tpr"][0]["value"]
    found |= {f"gain_{name}": value for name, value in block["against_loss"].items()}
    return {
        **found,
        "verbatim": block["extraction"]["completed"],
        "asked": block["extraction"]["n"],
    }


def area(name: str) -> Column:
    return lambda lines: "; ".join(
        f"{line[f'{name}_auc']:.3f} ({line[f'{name}_low']:.3f}–{line[f'{name}_high']:.3f})"
        for line in lines
        if line.get(f"{name}_auc") is not None
    )


def by_training(lines: Lines) -> Lines:
    return renamed(lines, way={"heart": "long", "guard": "defaults"})


def finding(lines: Lines) -> str:
    null = pick(lines, part="null")
    parts = [
        f"{' and '.join(number(l['drawn_auc'], 2) for l in pick(lines, part='trec', way=way))} "
        f"{name}"
        for way, name in (("heart", "after long training"), ("guard", "with the defaults"))
    ]
    return (
        "The memorization test raises a false alarm for "
        f"{share(*counts(null, 'alarms', 'runs'), long=True)} models that saw none of the tested "
        "rows. Membership inference finds training rows with random labels with an AUC of "
        f"{', and of '.join(parts)} (chance: 0.50; two seeds)."
    )


CLAIM = Claim(
    NAME,
    "Data",
    "Memorization",
    """\
False alarms: logistic regressions on frozen vectors; two sets of rows that they never saw are
compared. TREC: 30 % of the training labels are drawn at random; MiniLM is trained for 50 epochs
("long", last checkpoint) or with the defaults. Novelist: a small Llama, tuned on texts of one
novelist for 15 epochs ("long"), for 4 ("short"), or with the defaults; texts of the same novelist
are the new rows, and the attack uses the loss, the loss minus the base model's, or the share of
wrong tokens. AUC with DeLong's 95 % interval. "Base model" is the same attack on the model before
training, "no model" an attack that sees the rows only (both should be near 0.5).""",
    lambda: [cell for part in ("null", "trec", "novelist") for cell in cells_of(part)],
    finding,
    [
        lambda lines: table(
            {"way": "TREC", "seed": "Seed"},
            {
                "AUC, rows with random labels": area("drawn"),
                "AUC, all rows": area("all"),
                "AUC, base model": area("untrained"),
                "AUC, no model": average("blind", 1, 2),
                "Test accuracy, %": average("accuracy", 100),
            },
            part="trec",
        )(by_training(lines)),
        lambda lines: table(
            {"way": "Novelist", "seed": "Seed"},
            {
                "AUC, loss": area("loss"),
                "AUC, loss minus the base model's": area("ratio"),
                "AUC, wrong tokens": area("errors"),
                "AUC, no model": average("blind", 1, 2),
                "Texts repeated verbatim": text("verbatim"),
            },
            part="novelist",
        )(by_training(lines)),
    ],
    "The defaults do not prevent memorization of wrong labels or of the novelist's texts. Two "
    "seeds.",
)


if __name__ == "__main__":
    main()
