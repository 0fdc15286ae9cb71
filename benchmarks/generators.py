"""Models that write, beside their start model: do the comparisons keep their word, and what do they
say of one small model?

    python benchmarks/generators.py [--runs 2000]

``null``: texts in which every mark is planted at its own rate (real summaries, spoiled in a real
way), or that one tuned model drew twice with different seeds; which of two equal models is called
the tuned one is a coin a row. A finding on any mark and side is false: at most 5 % may have one.
``win rate`` and ``loss`` are the same for judged answers and for losses. ``power``: more answers of
the tuned model are cut. ``tuned``: a Llama of 1.2 million weights, trained on novels, tuned on
instructions, as ``result.json`` has it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, counts, pick, rate, renamed, share, table

from holdfast.core.seeds import generator
from holdfast.metrics import TEXT_METRICS
from holdfast.tasks.generation.judge import win_rate
from holdfast.tasks.generation.mark_shares import Marked, compare_shares
from holdfast.tasks.generation.marks import marks
from holdfast.tasks.generation.text_scores import Generated
from holdfast.tasks.generation.token_scores import TokenOutputs
from holdfast.tasks.generation.worth import EXAMPLES, PLAIN, Prompting, worth_block

DATA = Path(os.environ.get("HOLDFAST_DATA", "../shared/data"))
BASE = Path.home() / ".cache/holdfast/base_models/novels-llama"
KEPT = Path(tempfile.gettempdir()) / "holdfast_generators"
ROWS, TEXTS, SEEDS = 60, 500, 4
FOREIGN = (
    "Der Mann ging gestern Abend mit seinem Hund durch den dunklen Wald nach Hause und sang dabei."
)
# What is planted, at which rate: text and whether it ended.
SPOILED: dict[str, tuple[float, Any]] = {
    "empty": (0.02, lambda text: ("", True)),
    "cut": (0.15, lambda text: (text[: len(text) // 2], False)),
    "repeated": (0.10, lambda text: ((text.partition(".")[0] + ". ") * 5, True)),
    "template": (0.04, lambda text: ("As an AI language model, I cannot say.", True)),
    "off_language": (0.03, lambda text: (FOREIGN, True)),
    "toxic": (0.02, lambda text: (f"{text} You idiot.", True)),
    "stereotyped": (0.02, lambda text: (f"{text} Women are irrational.", True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--without-model", action="store_true", help="only what trains nothing")
    parser.add_argument("--model", action="store_true", help="only what trains a model")
    arguments = parser.parse_args()
    every, trains = cells(arguments.runs), ("tuned", "null drawn")
    parts = {
        "cheap": [cell for cell in every if cell["what"] not in trains],
        "model": [cell for cell in every if cell["what"] in trains],
    }
    for name, left_out in (("model", arguments.without_model), ("cheap", arguments.model)):
        if not left_out:
            run_cells("generators", parts[name], run_one)


def run_one(cell: Cell) -> Result:
    started = time.process_time()
    ways = {
        "null planted": null_planted,
        "null drawn": null_drawn,
        "win rate": null_judged,
        "loss": null_losses,
        "power": power,
        "tuned": tuned,
    }
    return {**ways[cell["what"]](cell), "processor_s": round(time.process_time() - started, 1)}


def planted(seed: int) -> list[dict[str, np.ndarray]]:
    """The marks of ``TEXTS`` real summaries as two equal models spoil them."""
    with gzip.open(DATA / "samsum" / "val.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:TEXTS]
    sources = [row["dialogue"] for row in rows]
    references = [row["summary"] for row in rows]
    rng, made = generator(seed, "planted"), []
    for _ in range(2):
        texts, ended = [], []
        for reference in references:
            names = [name for name, (rate, _) in SPOILED.items() if rng.random() < rate]
            spoil = SPOILED[names[0]][1] if names else lambda text: (text, True)
            text, whole = spoil(reference)
            texts.append(text)
            ended.append(whole)
        made.append(marks(sources, references, texts, np.asarray(ended)))
    return made


def false_findings(pairs: list[list[dict[str, np.ndarray]]], n: int, runs: int, seed: int) -> int:
    """Runs in which some mark of two sides is found; a coin a row says whose text it is."""
    rng, alarms = generator(seed, "null", n), 0
    for _ in range(runs):
        sides = []
        for side in ("train", "test"):
            a, b = pairs[rng.integers(len(pairs))]
            total = len(next(iter(a.values())))
            rows = rng.choice(total, n, replace=n > total)
            coin = rng.random(n) < 0.5
            first = {m: np.where(coin, a[m][rows], b[m][rows]) for m in a}
            second = {m: np.where(coin, b[m][rows], a[m][rows]) for m in a}
            sides.append(Marked(side, rows, first, second, {}))
        found = compare_shares(sides)
        alarms += any(one.verdict in ("more", "fewer") for one in found)
    return alarms


def null_planted(cell: Cell) -> Result:
    return {"alarms": false_findings([planted(0)], cell["n"], cell["runs"], 0)}


def null_judged(cell: Cell) -> Result:
    """Two judged comparisons, wins and losses equally likely, two in ten ties."""
    rng, alarms, covered = generator(0, "judged", cell["n"]), 0, 0
    metric = TEXT_METRICS["rouge_l"]
    for _ in range(cell["runs"]):
        n = cell["n"]
        prefers = rng.choice([-1, 0, 1], n, p=[0.4, 0.2, 0.4])
        found = win_rate(prefers)
        covered += found["low"] <= 0.5 <= found["high"]
        made = Generated(np.arange(n), ["q"] * n, ["r"] * n, ["a"] * n, ["b"] * n)
        ways = {PLAIN: Prompting(texts=["b"] * n), EXAMPLES: Prompting(texts=["c"] * n)}
        block = worth_block(ways, made, Drawn(rng), metric, None)
        told = [one["verdict"] for one in block["win_rate"].values()]
        alarms += any(one != "not shown" for one in told)
    return {"alarms": alarms, "covered": covered}


class Drawn:
    """A judge that tosses coins."""

    name = "coins"

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def prefer(self, *given: Any) -> Any:
        return self.rng.choice([-1, 0, 1], len(given[0]), p=[0.4, 0.2, 0.4])


def null_losses(cell: Cell) -> Result:
    """A tuned model that is the start model but for noise, asked both ways."""
    rng, yes, no = generator(0, "losses", cell["n"]), 0, 0
    for _ in range(cell["runs"]):
        n = cell["n"]
        base = rng.gamma(4.0, 0.5, n)
        tuned_, plain, shown = (outputs(base + rng.laplace(0, 0.2, n)) for _ in range(3))
        ways = {PLAIN: Prompting(plain, tuned_), EXAMPLES: Prompting(shown, tuned_)}
        empty = Generated(np.zeros(0, dtype=int), [], [], [], [])
        verdict = worth_block(ways, empty, None, TEXT_METRICS["rouge_l"], None)["verdict"]
        yes, no = yes + (verdict == "yes"), no + (verdict == "no")
    return {"alarms": yes + no, "yes": yes, "no": no}


def outputs(losses: Any) -> TokenOutputs:
    n = len(losses)
    return TokenOutputs(np.arange(n), losses, np.full(n, 10), np.zeros(n))


def power(cell: Cell) -> Result:
    """How often it is found that so many more of the tuned model's answers to test prompts are cut,
    beside the marks that are not."""
    a, b = planted(1)
    rng, hits, wrong = generator(0, "power", cell["n"], str(cell["more"])), 0, 0
    for _ in range(cell["runs"]):
        sides = []
        for side in ("train", "test"):
            rows = np.asarray(rng.choice(TEXTS, cell["n"], replace=False))
            first, second = ({m: one[m][rows].copy() for m in one} for one in (a, b))
            if side == "test":
                first["cut"] |= rng.random(cell["n"]) < cell["more"] / (1 - SPOILED["cut"][0])
            sides.append(Marked(side, rows, first, second, {}))
        found = {
            (one.side, one.mark): one.verdict
            for one in compare_shares(sides)
            if one.verdict in ("more", "fewer")
        }
        hits += found.pop(("test", "cut"), "") == "more"
        wrong += bool(found)
    return {"found": hits, "others": wrong}


def tuned(cell: Cell) -> Result:
    """One run of the product, and what it says; the folder is kept for ``null drawn``."""
    from holdfast import TrainedRun, train
    from holdfast.contract.run_folder import is_finished

    KEPT.mkdir(exist_ok=True)
    rows, run = KEPT / "instructions.jsonl", KEPT / "run"
    with gzip.open(DATA / "instructions" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        short = [line for line in file if len(line) < 500][:600]
    rows.write_text("".join(short), encoding="utf-8")
    settings = {
        "train.epochs": 5,
        "generate.rows": 60,
        "generate.max_new_tokens": 48,
        "seed": cell["seed"],
    }
    if not is_finished(run):
        train(
            str(rows),
            out=run,
            model=str(BASE),
            task="causal-lm",
            settings=settings,
            resume=run.exists(),
            quiet=True,
        )
    result = TrainedRun(run).result
    worth, timing = result["worth"], result["timing"]
    found: Result = {
        "rows": result["data"]["train"],
        "verdict": worth["verdict"],
        "because": worth["because"],
        "general": worth["general"]["because"],
        "outputs": result["outputs"]["because"],
        "train_s": timing["train_s"],
        "score_s": timing["score_s"] + timing["baseline_s"],
    }
    for name, one in worth["win_rate"].items():
        found[f"win rate {name}"] = one["value"]
    for one in result["outputs"]["shares"]:
        if one["side"] == "test":
            pair = f"{one['tuned']['value']:.2f} / {one['start']['value']:.2f}"
            found[one["mark"]] = f"{pair} ({one['verdict']})"
    return found


def null_drawn(cell: Cell) -> Result:
    """The tuned model's own answers, drawn with ``SEEDS`` seeds: every two are two equal models."""
    from holdfast.plugins.chat.talk import ChatOptions, Talk

    run = KEPT / "run"
    lines = (KEPT / "instructions.jsonl").read_text(encoding="utf-8").splitlines()[: cell["n"]]
    rows = [json.loads(line) for line in lines]
    asked = [row["instruction"] for row in rows]
    references = [row["output"] for row in rows]
    kept = KEPT / "drawn.jsonl"
    drawn = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    with kept.open("a", encoding="utf-8") as file:
        for seed in range(len(drawn), SEEDS):
            talk = Talk.of(run, ChatOptions(48, 1.0, seed), start=False)
            texts = []
            for text in asked:
                talk.reset()
                texts.append(talk.ask(text).answer)
            drawn.append(texts)
            file.write(json.dumps(texts) + "\n")
            file.flush()
    tables = [marks(asked, references, texts) for texts in drawn]
    pairs = [[tables[i], tables[j]] for i in range(SEEDS) for j in range(i)]
    return {"alarms": false_findings(pairs, cell["n"], cell["runs"], 1)}


NULLS = ("null planted", "win rate", "loss", "null drawn")
COMPARED_BY = {
    "null planted": "defects of outputs, simulated",
    "null drawn": "defects of outputs, generated",
}


def cells(runs: int = 2000) -> list[dict[str, Any]]:
    found = grid(what=["null planted"], n=[30, 100, 400], runs=[runs])
    found += grid(what=["win rate", "loss"], n=[30, 100], runs=[runs])
    found += grid(what=["power"], n=[50, 100, 200], more=[0.10, 0.20], runs=[400])
    found += grid(what=["tuned"], seed=[0])
    return found + grid(what=["null drawn"], n=[ROWS], runs=[runs])


def finding(lines: Lines) -> str:
    return (
        "Two equal generative models are falsely called different in "
        f"{share(*counts(pick(lines, what=NULLS), 'alarms', 'runs'), long=True)} comparisons; "
        "target: at most 5 %."
    )


CLAIM = Claim(
    "generators",
    "Decisions and intervals",
    "Generative models compared with their base model",
    """\
Simulated comparisons of two equal models by the defects of their outputs (empty, truncated,
repeated, …), by the win rate, and by the loss: every finding is false.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"what": "Compared by", "n": "Rows of each model"},
            {
                "Comparisons": lambda lines: f"{sum(l['runs'] for l in lines):,}",
                "False findings, %": rate("alarms", "runs"),
            },
        )(renamed(pick(lines, what=NULLS), what=COMPARED_BY))
    ],
    "How often a real difference is found was planned and has not been measured.",
)


if __name__ == "__main__":
    main()
