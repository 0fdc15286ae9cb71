"""Are weights better than the mean, and are they kept only where they are?

    HOLDFAST_VECTORS=folder python benchmarks/ensembles.py           # heads on stored vectors
    HOLDFAST_VECTORS=folder python benchmarks/ensembles.py --runs    # tuned runs too

*Heads*: four classifiers of unlike kinds on MiniLM's vectors (a strong and a weak logistic
regression, one on a sixth of the dimensions, five nearest neighbours), fitted to 200 rows, weighed
by 40 to 300 others, and scored on the rest. MR chose how much the weights are drawn to the mean
(``stats/stacking.SHRINK``); the other sets measure it. ``kept`` is how often the paired test kept
the weights, ``product`` what ``predict.ensemble=stack`` then answers.

*Runs*: three tuned MiniLM runs on one division (seeds 0 to 2), put together by the command line;
600 rows of the set that no run has learned from score them.

``HOLDFAST_VECTORS`` names a folder of ``emb_{mr,cr,trec,banking77}.npz`` (``v`` [n, 384], ``y``,
``x`` the texts).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Line, Lines, average, paired, pick, table
from peers.script import options, results_path

NAME = "ensembles"
SETS = ("mr", "cr", "trec", "banking77")
SHRINKS = (0.0, 5.0, 20.0)
VALID, WAYS = (40, 100, 300), ("average", "stack", "soup")
TRAIN, MEMBERS = 200, 3


def vectors(name: str) -> Any:
    folder = Path(os.environ["HOLDFAST_VECTORS"])
    return np.load(folder / f"emb_{name}.npz", allow_pickle=True)


def heads(cell: Cell) -> dict[str, Any]:
    """One draw of rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    found, rng = vectors(cell["data"]), np.random.default_rng(cell["seed"])
    x, y = found["v"], np.unique(found["y"], return_inverse=True)[1]
    order = rng.permutation(len(y))
    train, valid, test = np.split(order, [TRAIN, TRAIN + cell["valid"]])
    some = rng.permutation(x.shape[1])[: x.shape[1] // 6]
    members = [
        (LogisticRegression(C=10, max_iter=300), slice(None)),
        (LogisticRegression(C=0.05, max_iter=300), slice(None)),
        (LogisticRegression(C=10, max_iter=300), some),
        (KNeighborsClassifier(5), slice(None)),
    ]
    chances = []
    for model, columns in members:
        model.fit(x[train][:, columns], y[train])
        made = np.full((len(y), y.max() + 1), 1e-3)
        made[:, model.classes_] += model.predict_proba(x[:, columns])
        chances.append(made / made.sum(axis=1, keepdims=True))
    return weighed(np.stack(chances, axis=-1), y, valid, test)


def weighed(chances: Any, y: Any, valid: Any, test: Any) -> dict[str, Any]:
    """What each way scores on ``test``, weighed by ``valid``."""
    from holdfast.analyses.compare.verdict import judge_pairs
    from holdfast.stats.stacking import PRIOR_ROWS, held_out_losses, mixture_weights

    members = chances.shape[-1]
    seen = chances[valid, y[valid]]

    def loss(weights: Any, rows: Any) -> Any:
        return -np.log(np.maximum(chances[rows, y[rows]] @ weights, 1e-12))

    def score(name: str, weights: Any) -> dict[str, float]:
        right = (chances[test] @ weights).argmax(axis=1) == y[test]
        made = {f"{name} accuracy": float(right.mean())}
        return {**made, f"{name} loss": float(loss(weights, test).mean())}

    equal = np.full(members, 1 / members)
    alone = [float(loss(one, valid).mean()) for one in np.eye(members)]
    result = {**score("mean", equal), **score("best one", np.eye(members)[int(np.argmin(alone))])}
    for shrink in SHRINKS:
        result |= score(f"stack {shrink:g}", mixture_weights(seen, shrink))
    at = np.arange(len(valid))
    held = held_out_losses(
        lambda rows: mixture_weights(seen[rows], PRIOR_ROWS),
        lambda weights, rows: -np.log(np.maximum(seen[rows] @ weights, 1e-12)),
        at,
        np.random.default_rng(0),
    )
    kept = judge_pairs(-np.log(seen @ equal) - held, 0.0).verdict == "better"
    chosen = mixture_weights(seen, PRIOR_ROWS) if kept else equal
    return {**result, "kept": float(kept), **score("product", chosen)}


def runs(cell: Cell) -> dict[str, Any]:
    """Tuned runs of one division, put together by the command line."""
    found, rng = vectors(cell["data"]), np.random.default_rng(cell["seed"])
    order = rng.permutation(len(found["y"]))
    train = order[:240]
    # Of a class with fewer rows a division has none left to learn from.
    names, counts = np.unique(found["y"][train], return_counts=True)
    known = names[counts >= 5]
    train = train[np.isin(found["y"][train], known)]
    rest = order[240:]
    test = rest[np.isin(found["y"][rest], known)][:600]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", train), ("test", test)):
            lines = [{"text": str(found["x"][i]), "label": f"c{found['y'][i]}"} for i in rows]
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        made = []
        for seed in range(MEMBERS):
            out = f"{folder}/{seed}"
            start = time.perf_counter()
            rows_of = f"{folder}/train.jsonl --test {folder}/test.jsonl --out {out} --quiet"
            holdfast(*f"train {rows_of} --seed {seed} --set data.split.seed=0".split())
            result[f"train {seed} s"] = time.perf_counter() - start
            whole = json.loads(Path(out, "result.json").read_text("utf-8"))
            result[f"run {seed}"] = whole["test"]["metrics"]["accuracy"]["value"]
            result[f"run {seed} loss"] = whole["test"]["metrics"]["loss"]["value"]
            made.append(out)
        for way in WAYS:
            start = time.perf_counter()
            asked = ["--json", "--quiet", "--set", f"predict.ensemble={way}"]
            block = json.loads(holdfast("evaluate", *made, f"{folder}/test.jsonl", *asked))
            result[way] = block["metrics"]["accuracy"]["value"]
            result[f"{way} loss"] = block["metrics"]["loss"]["value"]
            result[f"{way} s"] = time.perf_counter() - start
            result[f"{way} is"] = block["ensemble"]["kind"]
            result[f"{way} members"] = sum(m["weight"] > 0 for m in block["ensemble"]["members"])
    return result


def holdfast(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("holdfast")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def run_one(cell: Cell) -> dict[str, Any]:
    return runs(cell) if cell["part"] == "runs" else heads(cell)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--runs", action="store_true", help="tuned runs too")
    asked = parser.parse_args()
    path = results_path(NAME, asked.threads, asked.quick)
    draws = 2 if asked.quick else 20
    cells = grid(part=["heads"], data=SETS, valid=VALID, seed=range(draws))
    if asked.runs:
        cells += grid(part=["runs"], data=["trec", "cr"], seed=range(2))
    run_cells(NAME, cells, run_one, path, minutes=asked.minutes)


RULES = ("best one", "mean", *(f"stack {shrink:g}" for shrink in SHRINKS), "product")


def by_rule(lines: Lines) -> list[Line]:
    return [
        {
            **line,
            "arm": rule,
            "loss": line[f"{rule} loss"],
            "accuracy": line.get(f"{rule} accuracy"),
        }
        for line in pick(lines, part="heads")
        for rule in RULES
    ]


def finding(lines: Lines) -> str:
    by = ("data", "valid", "seed")
    measuring = [line for line in by_rule(lines) if line["data"] != "mr"]
    gaps = [paired(measuring, name, "product", "mean", by) for name in ("accuracy", "loss")]
    if not all(gaps):
        return ""
    accuracy, loss = gaps
    assert accuracy
    assert loss
    return (
        "With weights fitted on validation rows (`predict.ensemble=stack`) an ensemble has "
        f"{accuracy.words(100, 2, ' points')} of accuracy and "
        f"{loss.words(1, 3, ' nats')} of test loss (lower is better) compared with the plain mean "
        "of its models."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Ensembles of several models",
    """\
Four classifiers on MiniLM vectors (a strong and a weak logistic regression, one on a sixth of the
dimensions, nearest neighbours), 200 training rows, 20 draws of CR, TREC and BANKING77. "Mean":
equal weights. "Best one": the model with the lowest validation loss. "Stack": weights are fitted on
validation rows and shrunk to equal weights; the number is the strength of the shrinkage. "Holdfast"
(`predict.ensemble=stack`) uses these weights where a paired test shows that they are better than
the mean, and the mean otherwise. The shrinkage was chosen on MR, which is in no figure.""",
    lambda: grid(part=["heads"], data=SETS, valid=VALID, seed=range(20)),
    finding,
    [
        lambda lines: table(
            {"valid": "Validation rows", "arm": "Rule"},
            {
                "Test loss": average("loss", 1, 4, limits=False),
                "Accuracy, %": average("accuracy", 100, limits=False),
            },
        )(
            [
                {**line, "arm": line["arm"].replace("product", "Holdfast")}
                for line in by_rule(lines)
                if line["data"] != "mr"
            ]
        )
    ],
    "The gain is over the plain mean. Over the best single model (`best one`) the table shows 0.2 "
    "points of accuracy or less. The draws of a set share rows, so the intervals are too narrow. "
    "Ensembles of fine-tuned models were planned and have not been measured.",
    command="python benchmarks/ensembles.py --runs",
)


if __name__ == "__main__":
    main()
