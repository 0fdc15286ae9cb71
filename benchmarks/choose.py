"""Which start is best for rows? What ``choose`` predicts against what fine-tuning gives.

    python benchmarks/choose.py --record [--minutes 5]     # train every start on every set
    python benchmarks/choose.py                            # judge and publish what is recorded

Starts: MiniLM cut to 1 … 6 of its blocks, two of them read by their first token, MiniLM fine-tuned
on each of three sets, and with random weights (left out of the correlations). For each set rows are
drawn once to train and validate on; others are the test, which only the truth reads. A cell is a
start on a set: the evidence of ``choose``, a short and a whole fine-tune, and their processor
seconds.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import HERE, RESULTS, Cell, Result, key, publish, run_cells, stored
from scipy.stats import pearsonr, spearmanr

from holdfast.core.seeds import generator
from holdfast.models.embedded import embedded_folder
from holdfast.pipeline.chosen import OF_CLASSES, cheapest_as_good
from holdfast.pipeline.fit import fit
from holdfast.pipeline.prepared import prepare_divided
from holdfast.pipeline.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.stats.predicted_score import predict_scores

NAME = "choose"
DATA = Path(os.environ.get("HOLDFAST_DATA", HERE.parents[1] / "shared" / "data"))
FOLDER = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast")) / "choose"
SETS = ("cr", "trec", "banking77")
CLASSES = {"cr": 2, "trec": 6, "banking77": 20}
FILES = {"cr": "cr.csv", "mr": "mr.csv", "trec": "train.csv", "banking77": "train.csv"}
ROWS, TESTED, TUNED_ON = 240, 600, 300
# A set of fewer starts that were run is left out of the table.
LEAST_STARTS = 8
DEPTHS = (1, 2, 3, 4, 5, 6)
STARTS = (
    *(f"minilm-{depth}" for depth in DEPTHS),
    "minilm-3 own",
    "minilm-6 own",
    *(f"minilm on {name}" for name in ("mr", "trec", "banking77")),
    "random-3",
)
# Of these a short fine-tune is recorded too.
SHORT = (
    "minilm-3",
    "minilm-4",
    "minilm-6",
    "minilm on mr",
    "minilm on trec",
    "minilm on banking77",
)


def starts_of(name: str) -> tuple[str, ...]:
    """The starts of a set: none that was tuned on it, nor on reviews for reviews."""
    own = {"cr": "minilm on mr"}.get(name, f"minilm on {name}")
    return tuple(start for start in STARTS if start != own)


def rows_of(name: str, seed: int) -> tuple[Path, Path]:
    """A file of rows to train and validate on, and one to test on, of different texts."""
    folder = FOLDER / "rows"
    files = folder / f"{name}_{seed}.csv", folder / f"{name}_{seed}_test.csv"
    if all(file.exists() for file in files):
        return files
    with (DATA / name / FILES[name]).open(encoding="utf-8", newline="") as file:
        lines = {line["text"].strip().lower(): line for line in csv.DictReader(file)}
    rows = [lines[key] for key in sorted(lines)]
    if name == "banking77":
        kept = sorted({row["label"] for row in rows})[::4]
        rows = [row for row in rows if row["label"] in kept]
    order = generator(seed, "rows", name).permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    parts = order[:ROWS], order[ROWS : ROWS + TESTED]
    for file, part in zip(files, parts, strict=True):
        _write(file, [rows[i] for i in part])
    return files


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([row["text"], row["label"]] for row in rows)


def start_of(start: str) -> tuple[str, list[str]]:
    """The model folder of a start, made at the first call, and its settings."""
    from transformers import AutoModel, AutoTokenizer

    name, _, _ = start.partition(" own")
    settings = ["model.pooling=own"] if start.endswith(" own") else []
    folder = FOLDER / "starts" / name.replace(" ", "-")
    if folder.exists():
        return str(folder), settings
    if start.startswith("minilm on "):
        _tune(start.removeprefix("minilm on "), folder)
        return str(folder), settings
    kind, _, depth = name.partition("-")
    source = embedded_folder()
    plain = AutoModel.from_pretrained(source, num_hidden_layers=int(depth))
    if kind == "random":
        import torch

        torch.manual_seed(0)
        plain = AutoModel.from_config(plain.config)
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    return str(folder), settings


def _tune(name: str, folder: Path) -> None:
    """MiniLM fine-tuned on rows of a set that is not the one it is tried on."""
    with (DATA / name / FILES[name]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = generator(9, "tuned on", name).permutation(len(rows))[:TUNED_ON]
    path = FOLDER / f"tuned_on_{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, [rows[i] for i in order])
    settings = [f"data.path={path}", "train.epochs=2", "data.rare=merge", "methods.contrast=false"]
    recipe = override(Recipe(), settings)
    divided = load_and_divide(recipe)
    prepared, train, valid = prepare_divided(divided.recipe, divided.splits)
    fitted: Any = fit(prepared, train, valid)
    fitted.network.cpu().backbone.save_pretrained(folder)
    fitted.ready.loaded.tokenizer.save_pretrained(folder)


def record(cell: Cell) -> Result:
    """What choosing sees of a start, and what fine-tuning it gives on test rows."""
    from holdfast.pipeline.frozen_evidence import FOLDS, deal, frozen_evidence

    rows, tested = rows_of(cell["data"], cell["seed"])
    model, settings = start_of(cell["start"])
    recipe = override(
        Recipe(), [f"data.path={rows}", f"data.test={tested}", "data.rare=merge", *settings]
    )
    recipe = recipe.changed(model={"name": model})
    divided = load_and_divide(recipe)
    begun = time.process_time()
    prepared, train, valid = prepare_divided(divided.recipe, divided.splits, divided.findings)
    loaded = time.process_time()
    everything = np.union1d(train, valid)
    labels = np.asarray(prepared.rows.column("label"))[everything]
    folds = deal(prepared.units[everything], labels, FOLDS, 0)
    frozen = frozen_evidence(prepared, everything, folds)
    seen = time.process_time()
    planned = _steps(prepared, train, valid)
    short: Any = None
    if cell["start"] in SHORT:
        settings = {"train.max_steps": max(5, round(planned / 10)), "control.policy": "off"}
        short = fit(prepared, train, valid, {**settings, "train.evaluations": 1})
    shorted = time.process_time()
    whole: Any = fit(prepared, train, valid)
    done = time.process_time()
    table = divided.splits.test.open()
    examples = whole.encode(table)
    _, logits = whole.measure(examples)
    right = logits.argmax(axis=1) == examples.labels
    return {
        "truth": float(right.mean()),
        "tested": len(right),
        "probe": [layer.to_json() for layer in frozen.layers],
        "rows": [float(one) for one in frozen.rows],
        "short_rows": _right(short) if short else None,
        "whole_rows": _right(whole),
        "train": len(train),
        "valid": len(valid),
        "planned": planned,
        "short_steps": short.trained.last_step if short else None,
        "load_s": loaded - begun,
        "frozen_s": seen - loaded,
        "short_s": shorted - seen,
        "whole_s": done - shorted,
    }


def _steps(prepared: Any, train: Any, valid: Any) -> int:
    from holdfast.pipeline.compose import make_ready

    return sum(phase.steps for phase in make_ready(prepared, train, valid).plan.phases)


def _right(fitted: Any) -> str:
    valid = fitted.ready.valid
    _, logits = fitted.measure(valid)
    return "".join(str(int(one)) for one in logits.argmax(axis=1) == valid.labels)


def cells(seeds: range) -> list[dict[str, Any]]:
    return [
        {"data": name, "seed": seed, "start": start}
        for seed in seeds
        for name in SETS
        for start in starts_of(name)
    ]


def judge(name: str, found: dict[str, Result]) -> dict[str, Any]:
    """One set: how what is predicted goes with the truth, and what the choice costs."""
    starts = [start for start in found if not start.startswith("random")]
    cells = [found[start] for start in starts]
    truth = np.array([cell["truth"] for cell in cells])
    best = np.array([max(layer["score"] for layer in cell["probe"]) for cell in cells])
    head = np.array([cell["probe"][-1]["score"] for cell in cells])
    # Cells were recorded while the rows were the mean of the best layer's and the head's, too.
    rows = np.stack([np.array(list(map(float, cell["rows"]))) for cell in cells])
    rows += (best - rows.mean(axis=1))[:, None]
    logme = np.array([np.mean([p["logme"] for p in cell["probe"]]) for cell in cells])
    nats = CLASSES[name] * logme
    first = predict_scores(rows, OF_CLASSES, evidence=nats)
    tried = [i for i in np.argsort(-first.mean)[:2] if cells[i]["short_rows"]]
    short = [np.array(list(map(float, cells[i]["short_rows"]))) for i in tried]
    last = first
    if tried:
        last = predict_scores(rows, OF_CLASSES, tried, np.stack(short), nats)
    means = {
        "predicted": last.mean,
        "probes alone": first.mean,
        "best layer": best,
        "what the head reads": head,
        "LogME, layer mean": logme,
        "H-score, layer mean": [np.mean([p["h_score"] for p in c["probe"]]) for c in cells],
    }
    inside = [low <= t <= high for t, (low, high) in _limits(last, truth, cells)]
    taken = int(np.argmax(last.mean))
    quickness = [1 / cell["frozen_s"] for cell in cells]
    cheap = cheapest_as_good(last, quickness)
    spent = sum(cell["load_s"] + cell["frozen_s"] for cell in found.values())
    whole = sum(cell["whole_s"] for cell in found.values())
    return {
        "set": name,
        "starts": len(starts),
        "correlations": {
            key: (float(spearmanr(truth, value)[0]), float(pearsonr(truth, value)[0]))
            for key, value in means.items()
        },
        "taken": starts[taken],
        "lost": float(truth.max() - truth[taken]),
        "cheaper": starts[cheap],
        "cheaper_lost": float(truth.max() - truth[cheap]),
        "truth": float(truth.max()),
        "by_probe": float(truth.max() - truth[int(np.argmax(best))]),
        "mean": float(truth.max() - truth.mean()),
        "error": float(np.abs(last.mean - truth).mean()),
        "inside": sum(inside),
        "evidence_s": spent,
        "short_s": sum(cells[i]["short_s"] for i in tried),
        "whole_s": whole,
        "left": float((1 - truth.mean()) / (1 - best.mean())),
        "random": {start: found[start]["truth"] for start in found if start not in starts},
    }


def _limits(last: Any, truth: Any, cells: list[Result]) -> list[Any]:
    """Each truth with the interval of its prediction, widened by the noise of its test rows."""
    noise = truth * (1 - truth) / np.array([cell["tested"] for cell in cells])
    half = 1.96 * np.sqrt(np.diag(last.covariance) + noise)
    return list(zip(truth, zip(last.mean - half, last.mean + half, strict=True), strict=True))


TEXT = """## Choosing a start

`benchmarks/choose.py`: {rows} rows to train and validate on, {tested} to test on, seed 0; starts
are MiniLM cut to 1 to 6 blocks, two read by their first token, and MiniLM fine-tuned on other sets.
What the prediction makes of probe and evidence (`OF_CLASSES`) was chosen on CR and TREC, on which
the slope of accuracy by summed LogME is nearly the same (1.3 and 1.2): no figure of these two is of
a fresh set. Correlations (Spearman / Pearson) are those
with the test accuracy after a whole fine-tune, without the start of random weights. Seconds are the
processor's, one thread. {machine}
"""


def published(judged: list[dict[str, Any]]) -> str:
    """The tables."""
    from cells import machine

    told = machine()
    lines = [
        TEXT.format(rows=ROWS, tested=TESTED, machine=f"{told['cpu']}, torch {told['torch']}.")
    ]
    names = [one["set"] for one in judged]
    rule = "|---|" + "---|" * len(names)
    lines += ["| | " + " | ".join(names) + " |", rule]

    def line(what: str, value: Any) -> None:
        lines.append(f"| {what} | " + " | ".join(value(one) for one in judged) + " |")

    line("starts", lambda one: f"{one['starts']}")
    for name in judged[0]["correlations"]:
        line(name, lambda one, n=name: "{:.2f} / {:.2f}".format(*one["correlations"][n]))
    line("taken by the prediction", lambda one: one["taken"])
    line("points below the best start", lambda one: f"{100 * one['lost']:.1f}")
    line("taken where a cheaper one is as good", lambda one: one["cheaper"])
    line("points below the best start", lambda one: f"{100 * one['cheaper_lost']:.1f}")
    line("… by the best layer alone", lambda one: f"{100 * one['by_probe']:.1f}")
    line("… of a start drawn at random", lambda one: f"{100 * one['mean']:.1f}")
    line("mean error of the prediction, points", lambda one: f"{100 * one['error']:.1f}")
    line("intervals that hold the truth", lambda one: f"{one['inside']} of {one['starts']}")
    line("seconds, evidence of all", lambda one: f"{one['evidence_s']:.0f}")
    line("seconds, short fine-tunes", lambda one: f"{one['short_s']:.0f}")
    line("seconds, all fine-tuned", lambda one: f"{one['whole_s']:.0f}")
    line(
        "share of the time",
        lambda one: f"{(one['evidence_s'] + one['short_s']) / one['whole_s']:.1%}",
    )
    line("share of a probe's error that is left", lambda one: f"{one['left']:.2f}")
    line(
        "random weights, test accuracy",
        lambda one: ", ".join(f"{value:.3f}" for value in one["random"].values()) or "not run",
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    args = parser.parse_args()
    if args.record:
        os.environ["BENCH_MINUTES"] = str(args.minutes or 1e9)
        run_cells(NAME, cells(range(args.seeds)), record)
        return
    known = stored(RESULTS / f"{NAME}.jsonl")
    judged = []
    for name in SETS:
        asked = [{"data": name, "seed": 0, "start": start} for start in starts_of(name)]
        found = {cell["start"]: known[key(cell)] for cell in asked if key(cell) in known}
        missing = len(asked) - len(found)
        print(f"{name}: {missing} of {len(asked)} starts not run" if missing else f"{name}: whole")
        if len(found) >= LEAST_STARTS:
            judged.append(judge(name, found))
    publish(NAME, published(judged))


if __name__ == "__main__":
    main()
