"""Which base model is best for rows? What ``choose`` measures against what fine-tuning gives.

    python benchmarks/choose.py [--minutes M] [--jobs N] [--out FILE]   # record; resumable; tables
    python benchmarks/choose.py --tables [--out FILE]                   # of what is there

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import NOT_RUN, RESULTS, Cell, Result, key, machine, publish, run_cells, stored
from peers.rows import Rows, labelled_counts
from peers.sets import SETS, parts_of
from peers.tables import markdown
from scipy.special import stdtrit
from scipy.stats import spearmanr

from holdfast.models.loading.source import embedded_folder
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
TEXT = """## Choosing a base model

`benchmarks/choose.py`: {rows} rows to train and validate on, {tested} to test on, seed 0. Base
models are MiniLM cut to 1 to 6 blocks, two read by their first token, and MiniLM fine-tuned on
other sets. Regret: points of test accuracy after fine-tuning below the best base model. The test
rows of `novels` are of other books than the 240, which no division of these can foresee. {machine}
"""


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
    parser.add_argument("--tables", action="store_true", help="of what is there, run nothing")
    asked = parser.parse_args()
    if not asked.tables:
        some = [cell for cell in cells() if asked.only in (None, cell["data"])]
        for cell in some:
            # Before there are several processes, which would write the same files.
            rows_of(cell["data"], cell["seed"])
            folder_of(cell["model"])
        run_cells(NAME, some, record, asked.out, minutes=asked.minutes, jobs=asked.jobs)
    text = published(stored(asked.out or RESULTS / f"{NAME}.jsonl"))
    if asked.out is None:
        publish(NAME, text)
    print(text)


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
    folds = assign_folds(prepared.units[everything], labels, FOLDS, 0)
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
    from holdfast.prepare.probe_evidence import FOLDS, assign_folds, pass_layers

    states = pass_layers(prepared, prepared.examples.take(rows)).states[layer].astype(np.float64)
    others = pass_layers(prepared, tested).states[layer].astype(np.float64)
    present, classes = np.unique(labels, return_inverse=True)
    wanted = np.eye(len(present))[classes]
    folds = assign_folds(prepared.units[rows], labels, FOLDS, 0)
    share = ridge_out_of_fold(states, wanted, folds).share
    centre, level = states.mean(axis=0), wanted.mean(axis=0)
    x = states - centre
    penalty = share * len(x) * float((x**2).mean())
    square = x.T @ x + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(square, x.T @ (wanted - level))
    answers = present[((others - centre) @ weights + level).argmax(axis=1)]
    return float(np.mean(answers == np.asarray(tested.labels)))


def published(known: Mapping[str, Result]) -> str:
    """The tables of what is there."""
    found: dict[str, dict[str, Result]] = {}
    for cell in cells():
        if (one := known.get(key(cell))) is not None and not cell["model"].startswith("random"):
            found.setdefault(cell["data"], {})[cell["model"]] = one
    told = machine()
    lines = [TEXT.format(rows=ROWS, tested=TESTED, machine=f"{told['cpu']}, torch {told['torch']}")]
    count = sum(len(models) for models in found.values())
    lines.append(f"{count} of {sum(not c['model'].startswith('random') for c in cells())} cells.")
    some = {name: one for name, one in found.items() if len(one) >= LEAST_MODELS}
    lines += [choices(some), probes(some), predictions(some)]
    return "\n\n".join(lines)


def choices(found: Mapping[str, Mapping[str, Result]]) -> str:
    """What each way to choose costs, a line a set."""
    head = ["set", "models", "rank correlation", "chosen", "regret", "probe", "LogME", "H-score"]
    lines, regrets = [], []
    for name, models in found.items():
        names, some = list(models), list(models.values())
        truth = np.array([one["truth"] for one in some])
        taken = chosen(some)
        ways = [
            np.array([one["probe"] for one in some]),
            np.array([np.mean([p["logme"] for p in one["layers"]]) for one in some]),
            np.array([np.mean([p["h_score"] for p in one["layers"]]) for one in some]),
        ]
        lost = [truth.max() - truth[taken], *(truth.max() - truth[int(w.argmax())] for w in ways)]
        regrets.append([*lost, truth.max() - truth.mean()])
        shown = [f"{100 * value:.1f}" for value in [*lost, truth.max() - truth.mean()]]
        rho = float(spearmanr(truth, ways[0])[0])
        lines.append([name, str(len(some)), f"{rho:.2f}", names[taken], *shown])
    if regrets:
        mean = [f"{100 * value:.1f}" for value in np.mean(regrets, axis=0)]
        lines.append(["mean", "", "", "", *mean])
    return markdown([*head, "at random"], lines)


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


def probes(found: Mapping[str, Mapping[str, Result]]) -> str:
    """How often the probe's interval holds what the probe has on test rows."""
    head = ["set", "probe, cross-validated", "probe, test rows", "interval holds", "mean width"]
    lines = []
    total = [0, 0]
    for name, models in found.items():
        some = list(models.values())
        inside = sum(one["probe_low"] <= one["probe_truth"] <= one["probe_high"] for one in some)
        total = [total[0] + inside, total[1] + len(some)]
        means = [np.mean([one[k] for one in some]) for k in ("probe", "probe_truth")]
        width = np.mean([one["probe_high"] - one["probe_low"] for one in some])
        shown = [f"{100 * value:.1f}" for value in means]
        lines.append([name, *shown, f"{inside} of {len(some)}", f"{100 * width:.1f}"])
    lines.append(["all", "", "", f"{total[0]} of {total[1]}", ""])
    return markdown(head, lines)


def predictions(found: Mapping[str, Mapping[str, Result]]) -> str:
    """The accuracy after fine-tuning, predicted by what fine-tuning added on the other sets."""
    head = ["set left out", "predicted", "after fine-tuning", "interval holds", "mean width"]
    lines, total = [], [0, 0]
    for name, models in found.items():
        others = [list(one.values()) for other, one in found.items() if other != name]
        if len(others) < 2:
            return f"Predictions by the other sets: {NOT_RUN} (three sets are needed)."
        made = [predicted(one, others) for one in models.values()]
        truth = [one["truth"] for one in models.values()]
        inside = sum(low <= t <= high for t, (_, low, high) in zip(truth, made, strict=True))
        total = [total[0] + inside, total[1] + len(made)]
        means = [f"{100 * np.mean(v):.1f}" for v in ([one[0] for one in made], truth)]
        width = f"{100 * np.mean([high - low for _, low, high in made]):.1f}"
        lines.append([name, *means, f"{inside} of {len(made)}", width])
    lines.append(["all", "", "", f"{total[0]} of {total[1]}", ""])
    return markdown(head, lines)


def predicted(one: Result, others: Sequence[Sequence[Result]]) -> tuple[float, float, float]:
    """The accuracy after fine-tuning with its 95 % prediction interval: the probe's logit, and the
    gain over it of models on other sets, whose means are Student's sample of sets."""
    gains = [np.array([_logit(x, "truth") - _logit(x, "probe") for x in some]) for some in others]
    means = np.array([gain.mean() for gain in gains])
    within = float(np.mean([gain.var(ddof=1) for gain in gains]))
    error = np.sqrt(means.var(ddof=1) * (1 + 1 / len(means)) + within)
    half = float(stdtrit(len(means) - 1, 0.975)) * float(error)
    centre = _logit(one, "probe") + float(means.mean())
    value, low, high = (float(1 / (1 + np.exp(-x))) for x in (centre, centre - half, centre + half))
    return value, low, high


def _logit(one: Result, name: str) -> float:
    """Of a share of rows, half a row from its ends at the least."""
    n = one["tested"] if name == "truth" else len(one["rows"])
    share = min(max(one[name], 0.5 / n), 1 - 0.5 / n)
    return float(np.log(share / (1 - share)))


if __name__ == "__main__":
    main()
