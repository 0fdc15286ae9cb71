"""Which base model is best for rows? What ``choose`` measures against what fine-tuning gives.

    python benchmarks/choose.py [--minutes M] [--jobs N] [--out FILE]   # record; resumable; tables

Base models: MiniLM cut to 1 … 6 of its blocks, two of them read by their first token, MiniLM
fine-tuned on each of three sets, and with random weights (left out of the rankings). For each of
the ten sets of ``peers/sets.py`` 240 rows are drawn to train and validate on; 600 others are the
test, which only the truth reads. A cell is a base model on a set: what ``choose`` measures, a short
and a whole fine-tune, all scored on the test rows, and their processor seconds.

Two questions. Does the interval of the cross-validated probe hold the accuracy, on the test rows,
of the probe that learns from all 240? And could the accuracy after fine-tuning be predicted from
the probe? For each set the gain over the probe is taken from the other sets alone, with Student's
prediction interval over sets: how often it holds the truth, and how wide it is.

Needs HOLDFAST_DATA and the embedded model; ``--jobs`` are processes of one thread each.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, run_cells
from claims import Claim, Column, Line, Lines, average, mean_words, pick, share, table
from peers.rows import Rows, labelled_counts
from peers.sets import SETS, parts_of

from holdfast.core.packaged_models import EMBEDDED
from holdfast.models.loading.packaged import packaged_folder
from holdfast.recipe import Recipe, override

NAME = "choose"
FOLDER = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast")) / "choose"
ROWS, TESTED, TUNED_ON = 240, 600, 300
# A set on which fewer base models were run is left out of the tables.
LEAST_MODELS = 4
OWN = (3, 6)
TUNED = ("mr", "trec", "banking77")
MODELS = (
    "minilm-6",
    "minilm-3",
    "minilm-1",
    *(f"minilm on {name}" for name in TUNED),
    *(f"minilm-{depth}" for depth in (5, 4, 2)),
    *(f"minilm-{depth} own" for depth in OWN),
    "random-3",
)


def models_of(name: str) -> tuple[str, ...]:
    """The base models of a set: none that was tuned on it, nor on reviews for reviews."""
    own = {"cr": "minilm on mr"}.get(name, f"minilm on {name}")
    return tuple(model for model in MODELS if model != own)


def cells() -> list[dict[str, Any]]:
    return [
        {"data": name, "rows": ROWS, "seed": 0, "model": model}
        for model in MODELS
        for name in SETS
        if model in models_of(name)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="the file of results, instead of the project's")
    parser.add_argument("--only", help="the set of the cells to run")
    asked = parser.parse_args()
    some = [cell for cell in cells() if asked.only in (None, cell["data"])]
    for cell in some:
        # Before there are several processes, which would write the same files.
        rows_of(cell["data"], cell["seed"])
        folder_of(cell["model"])
    run_cells(NAME, some, record, asked.out, minutes=asked.minutes, jobs=asked.jobs)


def rows_of(name: str, seed: int) -> tuple[Path, Path]:
    """A file of rows to train and validate on, and one to test on, of different texts."""
    folder = FOLDER / "rows"
    files = folder / f"{name}_{ROWS}_{seed}.csv", folder / f"{name}_{ROWS}_{seed}_test.csv"
    if all(file.exists() for file in files):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    parts = parts_of(name, labelled_counts(ROWS), seed, TESTED)
    for file, rows in zip(files, ((parts.train, parts.valid), (parts.test,)), strict=True):
        _write(file, rows)
    return files


def _write(path: Path, parts: Sequence[Rows]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for part in parts:
            writer.writerows(zip(part.texts, part.labels, strict=True))


def folder_of(model: str) -> tuple[str, list[str]]:
    """The folder of a base model, made at the first call, and its settings."""
    from transformers import AutoModel, AutoTokenizer

    name, _, _ = model.partition(" own")
    settings = ["model.pooling=own"] if model.endswith(" own") else []
    folder = FOLDER / "models" / name.replace(" ", "-")
    if folder.exists():
        return str(folder), settings
    if model.startswith("minilm on "):
        _tune(model.removeprefix("minilm on "), folder)
        return str(folder), settings
    kind, _, depth = name.partition("-")
    source = packaged_folder(EMBEDDED)
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
    from holdfast.fits.fit import fit
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide

    parts = parts_of(name, labelled_counts(TUNED_ON), 9)
    path = FOLDER / f"tuned_on_{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, (parts.train, parts.valid))
    settings = [f"data.path={path}", "train.epochs=2", "data.rare=merge", "methods.contrast=false"]
    divided = load_and_divide(override(Recipe(), settings))
    prepared, train, valid = prepare_divided(divided.recipe, divided.splits)
    fitted: Any = fit(prepared, train, valid)
    fitted.network.cpu().backbone.save_pretrained(folder)
    fitted.training_plan.loaded.tokenizer.save_pretrained(folder)


def record(cell: Cell) -> Result:
    """What choosing measures of a base model, and what fine-tuning it gives on test rows."""
    from holdfast.fits.fit import fit
    from holdfast.prepare.probe_evidence import FOLDS, assign_folds, frozen_evidence
    from holdfast.prepare.rows import load_and_divide
    from holdfast.search.choice.candidate import ChoiceRows as ChosenRows
    from holdfast.search.choice.candidate import short_fit
    from holdfast.search.choice.order import estimate

    rows, tested = rows_of(cell["data"], cell["seed"])
    model, settings = folder_of(cell["model"])
    recipe = override(
        Recipe(), [f"data.path={rows}", f"data.test={tested}", "data.rare=merge", *settings]
    )
    divided = load_and_divide(recipe.with_changes(model={"name": model}))
    about, begun = ChosenRows.of(divided), time.process_time()
    prepared, train, valid = about.prepare(model)
    loaded = time.process_time()
    everything = np.union1d(train, valid)
    labels = np.asarray(prepared.rows.column("label"))[everything]
    folds = assign_folds(prepared.units[everything], labels, 0)
    frozen = frozen_evidence(prepared, everything, folds)
    interval = estimate(frozen.rows, frozen.units, "accuracy", FOLDS)
    seen = time.process_time()
    short = short_fit(about, about.extend(prepared, train, valid), train, valid)
    shorted = time.process_time()
    whole: Any = fit(about.extend(prepared, train, valid), train, valid)
    done = time.process_time()
    examples = whole.encode(divided.splits.test.open())
    _, logits = whole.measure(examples)
    right = logits.argmax(axis=1) == examples.labels
    return {
        "truth": float(right.mean()),
        "tested": len(right),
        "probe": frozen.score,
        "probe_low": interval.low,
        "probe_high": interval.high,
        "probe_truth": probe_accuracy(prepared, everything, labels, frozen.layer.name, examples),
        "layers": [layer.to_json() for layer in frozen.layers],
        "rows": "".join(str(int(one)) for one in frozen.rows),
        "short_rows": "".join(str(int(one)) for one in short.rows),
        "train": len(train),
        "valid": len(valid),
        "load_s": loaded - begun,
        "frozen_s": seen - loaded,
        "short_s": shorted - seen,
        "whole_s": done - shorted,
    }


def probe_accuracy(prepared: Any, rows: Any, labels: Any, layer: str, tested: Any) -> float:
    """On test rows: the accuracy of the probe on a layer that learns from all rows, its penalty the
    one that is best out of fold; by the normal equations, where the product decomposes them."""

    from holdfast.models.probes.transferability import ridge_out_of_fold
    from holdfast.prepare.probe_evidence import assign_folds, pass_layers

    states = pass_layers(prepared, prepared.examples.take(rows)).states[layer].astype(np.float64)
    others = pass_layers(prepared, tested).states[layer].astype(np.float64)
    present, classes = np.unique(labels, return_inverse=True)
    wanted = np.eye(len(present))[classes]
    folds = assign_folds(prepared.units[rows], labels, 0)
    share = ridge_out_of_fold(states, wanted, folds).share
    centre, level = states.mean(axis=0), wanted.mean(axis=0)
    x = states - centre
    penalty = share * len(x) * float((x**2).mean())
    square = x.T @ x + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(square, x.T @ (wanted - level))
    answers = present[((others - centre) @ weights + level).argmax(axis=1)]
    return float(np.mean(answers == np.asarray(tested.labels)))


def chosen(some: Sequence[Result]) -> int:
    """What ``choose`` takes first: by the probe, and by the short fine-tunes of the best two."""
    from holdfast.search.choice.order import rank_models

    rows = np.stack([_right(one["rows"]) for one in some])
    first = sorted(range(len(some)), key=lambda i: -rows[i].mean())[:2]
    short = {i: _right(some[i]["short_rows"]) for i in first}
    ends = np.arange(rows.shape[1]), np.arange(len(short[first[0]]))
    return rank_models(rows, ends[0], short, ends[1]).order[0]


def _right(text: str) -> Any:
    return np.array(list(map(float, text)))


def by_set(lines: Lines) -> dict[str, dict[str, Result]]:
    """The base models of each set that has enough of them; none drawn at random."""
    found: dict[str, dict[str, Result]] = {}
    for line in lines:
        if not line["model"].startswith("random"):
            found.setdefault(line["data"], {})[line["model"]] = dict(line)
    return {name: one for name, one in found.items() if len(one) >= LEAST_MODELS}


def regrets(lines: Lines) -> list[Line]:
    """Points below the best base model, by set and rule."""
    made: list[Line] = []
    for name, models in by_set(lines).items():
        some = list(models.values())
        truth = np.array([one["truth"] for one in some])
        ways = {
            "choose": chosen(some),
            "linear probe": int(np.argmax([one["probe"] for one in some])),
            "LogME": int(np.argmax([np.mean([p["logme"] for p in one["layers"]]) for one in some])),
            "H-score": int(
                np.argmax([np.mean([p["h_score"] for p in one["layers"]]) for one in some])
            ),
        }
        lost = {way: truth.max() - truth[at] for way, at in ways.items()}
        lost["at random"] = truth.max() - truth.mean()
        made += [{"data": name, "rule": way, "regret": float(one)} for way, one in lost.items()]
    return made


def regret_of(rule: str) -> Column:
    return lambda lines: average("regret", 100)(pick(lines, rule=rule))


def inside(lines: Lines) -> tuple[int, int]:
    some = [one for models in by_set(lines).values() for one in models.values()]
    held = sum(one["probe_low"] <= one["probe_truth"] <= one["probe_high"] for one in some)
    return held, len(some)


def finding(lines: Lines) -> str:
    lost = regrets(lines)
    chosen, random = (
        mean_words(pick(lost, rule=rule), "regret", 100, 1, " points", of="set")
        for rule in ("choose", "at random")
    )
    return (
        "Loss of test accuracy, after fine-tuning, compared with the best base model (lower is "
        f"better): {chosen} for the base model that `choose` picks, {random} for a random one."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Choosing a base model",
    """\
Ten sets, 240 rows for training and validation, 600 test rows, seed 0. Base models: MiniLM cut to
1 to 6 blocks, two of these that pool by the first token, and MiniLM fine-tuned on other sets. The
regret is how far the test accuracy after fine-tuning lies below that of the best base model.
LogME and H-score are published scores of transferability.""",
    cells,
    finding,
    [
        lambda lines: table({"rule": "Rule"}, {"Regret, points": average("regret", 100)})(
            regrets(lines)
        ),
        lambda lines: table(
            {"data": "Set"},
            {
                way: regret_of(way)
                for way in ("choose", "linear probe", "LogME", "H-score", "at random")
            },
            "Regret in points by set:",
        )(regrets(lines)),
    ],
    lambda lines: (
        "`choose` is not better than the linear probe by itself, and LogME loses less on average; "
        "differences between the rules are not tested. The probe's 95 % interval contains its "
        f"score on the test rows for {share(*inside(lines), long=True)} base models, but for none "
        "on `novels`, whose test rows are from other books than the labelled ones. The texts of "
        "the [sets](quality.md) are cut."
    ),
)


if __name__ == "__main__":
    main()
