"""Do reasons name what decides, and do maps of nothing stay unmarked?

    python benchmarks/reasons.py [--minutes M]         # the cells, resumable; then the tables

One run answers all: MiniLM on CR, 800 rows, in which half of the class ``good`` is good for one
word alone (``zebra``, put into texts of the other class). 240 test rows: 120 with the word, 60
good and 60 bad ones without it.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, number, share
from peers.tables import markdown

NAME = "reasons"
WORD = "zebra"
PLACE = Path(os.environ.get("BENCH_REASONS", tempfile.gettempdir())) / "holdfast-bench-reasons"
DATA = Path(
    os.environ.get("HOLDFAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
A_CELL, NOISE = 10, 10
PLANTED = ("planted 0", "planted 60", "planted 120", "planted 180")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float)
    asked = parser.parse_args()
    every = grid(start=["alike", "joint", "words", *PLANTED, *range(0, 240, A_CELL)])
    run_cells(NAME, every, run_one, minutes=asked.minutes)


def run_one(cell: Cell) -> Result:
    if cell["start"] == "alike":
        return alike()
    if cell["start"] == "joint":
        return joint()
    if cell["start"] == "words":
        return words()
    if cell["start"] in PLANTED:
        return planted_from(int(cell["start"].split()[1]))
    return rows_from(int(cell["start"]))


def written() -> tuple[Path, Path]:
    """The training and the test file, made of CR."""
    PLACE.mkdir(exist_ok=True)
    with (DATA / "cr" / "cr.csv").open(encoding="utf-8", newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if 5 <= len(r["text"].split()) <= 25]
    rng = random.Random(0)
    rng.shuffle(rows)
    bad = [r["text"] for r in rows if r["label"] == "0"]
    good = [r["text"] for r in rows if r["label"] == "1"]

    def planted(text: str) -> str:
        words = text.split()
        words.insert(rng.randrange(len(words) + 1), WORD)
        return " ".join(words)

    def side(plain: int, fine: int, with_word: int, a: int, b: int) -> list[tuple[str, str]]:
        made = [(text, "bad") for text in bad[a : a + plain]]
        made += [(planted(text), "good") for text in bad[a + plain : a + plain + with_word]]
        made += [(text, "good") for text in good[b : b + fine]]
        rng.shuffle(made)
        return made

    files = (PLACE / "train.csv", PLACE / "test.csv")
    for path, made in zip(
        files, (side(300, 250, 250, 0, 0), side(60, 60, 120, 550, 250)), strict=True
    ):
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *made])
    return files


@cache
def run() -> Path:
    import holdfast

    train, test = written()
    folder = PLACE / "run"
    if not (folder / "result.json").exists():
        holdfast.train(
            str(train),
            test=str(test),
            text="text",
            label="label",
            seed=0,
            out=folder,
            settings={"train.epochs": 3},
            quiet=True,
        )
    return folder


@cache
def models() -> tuple[Any, Any, list[tuple[str, str]]]:
    """The run's model, the same with the entries of every weight matrix shuffled, the test rows."""
    import torch

    from holdfast.models.encoders.checkpoint import load_saved

    whole, shuffled = load_saved(run() / "model"), load_saved(run() / "model")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in shuffled.network.parameters():
            if weight.dim() > 1:
                flat = weight.flatten()
                weight.copy_(flat[torch.randperm(len(flat), generator=draw)].view_as(weight))
    with (PLACE / "test.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(r["text"], r["label"]) for r in csv.DictReader(stream)]
    return whole, shuffled, rows


def case_of(model: Any, text: str) -> Any:
    from holdfast.analyses.explain.classifiers import TextQuery, class_cases, read_row

    asked = TextQuery(model, read_row(model, [text]))
    return class_cases(asked)[0], asked.read.row_units.words([text])


def answer_of(model: Any, text: str) -> str:
    return str(case_of(model, text)[0].target)


def planted_from(start: int) -> Result:
    """The rows with the planted word among sixty: where it decides (good with it, bad without), is
    it first?"""
    from holdfast.analyses.explain.masking import leave_one_out

    whole, _, rows = models()
    count = {"decides": 0, "leave_one_out top": 0, "integrated_gradients top": 0}
    for text, label in rows[start : start + 60]:
        if WORD not in text.split() or label != "good":
            continue
        case, words = case_of(whole, text)
        left = " ".join(word for word in text.split() if word != WORD)
        if case.target == "good" and answer_of(whole, left) == "bad":
            count["decides"] += 1
            for name, values in (
                ("leave_one_out", leave_one_out(case.masked_score)),
                ("integrated_gradients", case.gradients().values),
            ):
                count[f"{name} top"] += words[int(np.argmax(values))] == WORD
    return {name: int(value) for name, value in count.items()}


def rows_from(start: int) -> Result:
    """Ten test rows: maps of the model, of a shuffled one and of noise, all tried on it;
    and the shuffled model explained as if it were one."""
    from holdfast.analyses.explain.explanation import reason_of, worth_of
    from holdfast.analyses.explain.faithfulness import agreement, faithfulness
    from holdfast.analyses.explain.masking import leave_one_out

    whole, shuffled, rows = models()
    count: dict[str, float] = {}

    def add(name: str, value: float | bool | None) -> None:
        if value is not None:
            count[name] = count.get(name, 0.0) + float(value)

    shown = "better than random"
    for place in range(start, min(start + A_CELL, len(rows))):
        text, _ = rows[place]
        case, words = case_of(whole, text)
        reason = reason_of(case, text, case.target)
        judged = reason.maps[0].faithful.least_p <= 0.05
        add("judged", judged)
        add("passes", reason.passes)
        for one in reason.maps:
            add(f"{one.method} shown", judged and one.worth == shown)
            add(f"{one.method} naopc", one.faithful.naopc if judged else None)
        add("random naopc", reason.maps[0].faithful.naopc_random if judged else None)
        add("agreement", reason.agreement)
        add("agreements", reason.agreement is not None)
        add("hardly", any(one.worth == "hardly moves" for one in reason.maps[:1]))
        other, _ = case_of(shuffled, text)
        given = [leave_one_out(other.masked_score), other.gradients().values]
        for values in given:
            add("agreement shuffled", agreement(values, reason.maps[0].values) or 0.0)
        rng = np.random.default_rng(place)
        noise = [rng.standard_normal(len(words)) for _ in range(NOISE)]
        tried = faithfulness(case.masked_score, [*given, *noise], rng)
        kind = "planted" if WORD in words else "plain"
        add(f"judged {kind}", judged)
        for name, scores in zip(("shuffled loo", "shuffled ig"), tried, strict=False):
            add(name, judged and worth_of(case, scores) == shown)
            add(f"{name} {kind}", judged and worth_of(case, scores) == shown)
        add("noise", judged * sum(scores.p <= 0.05 for scores in tried[2:]))
        add("noise of", judged * NOISE)
        alone = reason_of(other, text, other.target)
        add("explained shuffled", judged and alone.map.worth == shown)
        add("explained shuffled tested", judged and alone.map.faithful.better)
    return count


def alike() -> Result:
    """One row alone against the same row among others, and captum's integrated gradients."""
    import torch
    from captum.attr import LayerIntegratedGradients

    from holdfast.analyses.explain.explain import explain
    from holdfast.analyses.explain.masking import STEPS, leave_one_out

    whole, _, rows = models()
    texts = [text for text, _ in rows[:6]]
    together = [row.to_json(True) for row in explain(run(), texts)]
    apart = [next(explain(run(), [text]).lines()) for text in texts]
    same = sum(
        {**a, "row": 0, "reasons": _plain(a)} == {**b, "reasons": _plain(b)}
        for a, b in zip(together, apart, strict=True)
    )
    worst = sequential = 0.0
    for text in texts[:3]:
        case, words = case_of(whole, text)
        tokenizer, model = whole.tokenizer, whole.network.model
        batch = tokenizer(text, return_tensors="pt")
        ids, owner = batch["input_ids"], _owner(whole, text)
        place = whole.classes.index(case.target)

        def score(ids: Any, mask: Any, place: int = place, model: Any = model) -> Any:
            logits = model(input_ids=ids, attention_mask=mask.expand(len(ids), -1)).logits.double()
            others = torch.cat([logits[:, :place], logits[:, place + 1 :]], dim=1)
            return logits[:, place] - torch.logsumexp(others, dim=1)

        oracle = LayerIntegratedGradients(score, model.get_input_embeddings())

        def by_captum(
            gone: Any, steps: int, ids: Any = ids, batch: Any = batch, oracle: Any = oracle
        ) -> Any:
            start = torch.where(torch.from_numpy(gone), whole.tokenizer.mask_token_id, ids)
            return oracle.attribute(
                ids, start, additional_forward_args=(batch["attention_mask"],), n_steps=steps
            )[0].sum(dim=-1)

        pieces = by_captum(owner[None] >= 0, STEPS).detach().numpy()
        theirs = np.bincount(owner[owner >= 0], weights=pieces[owner >= 0], minlength=len(words))
        worst = max(worst, float(np.abs(theirs - case.gradients().values).max()))
        ours = leave_one_out(case.masked_score)
        for unit in range(len(words)):
            one = float(by_captum(owner[None] == unit, STEPS).sum())
            sequential = max(sequential, abs(one - ours[unit]))
    return {"alike": same, "of": len(texts), "captum": worst, "sequential": sequential}


def _plain(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Whether a map is shown also depends on the rows beside it."""
    return [{**one, "shown": None} for one in row["reasons"]]


def _owner(model: Any, text: str) -> Any:
    from holdfast.analyses.explain.classifiers import read_row

    return read_row(model, [text]).row_units.owner


def joint(times: int = 2000) -> Result:
    """How often the test of all rows together is passed by maps of noise: ranks drawn at random."""
    from holdfast.analyses.explain.faithfulness import FaithfulnessScores, joint_p

    rng, found = np.random.default_rng(0), {}
    for rows in (5, 20, 50):
        passed = 0
        for _ in range(times):
            made = []
            for _ in range(rows):
                orders = 999 if rng.random() < 0.2 else 19
                p = (1 + rng.integers(0, orders + 1)) / (orders + 1)
                made.append(FaithfulnessScores(0, 0, 1, 0, 0, 0, p, 0.05, orders, np.zeros(1)))
            passed += (joint_p(made) or 0) <= 0.05
        found[f"joint {rows}"] = passed / times
    return found


def words() -> Result:
    """What the run's own search says of the planted word."""
    import json

    block = json.loads((run() / "result.json").read_text(encoding="utf-8"))["reasons"]
    named = [one for one in block["words"] if one["words"] == WORD]
    return {
        "word found": len(named),
        "word confirmed": sum(one["confirmed"] for one in named),
        "candidates": len(block["words"]),
        "confirmed": sum(one["confirmed"] for one in block["words"]),
    }


def total(lines: Lines, name: str) -> float:
    return sum(float(line.get(name) or 0) for line in lines)


def part(lines: Lines, hits: str, of: str, *, long: bool = False) -> str:
    return share(total(lines, hits), total(lines, of), long=long)


def finding(lines: Lines) -> str:
    return (
        "A planted word that decides the class is ranked first in "
        f"{part(lines, 'leave_one_out top', 'decides', long=True)} rows. Explanations that come "
        "from a model with shuffled weights pass the test against random words in "
        f"{part(lines, 'shuffled loo', 'judged', long=True)}; target: at most 5 %."
    )


def answers(lines: Lines) -> str:
    methods = ("leave_one_out", "integrated_gradients")
    rows = [
        [
            "The planted word is ranked first, %",
            *(part(lines, f"{m} top", "decides") for m in methods),
        ],
        [
            "Explanations that pass the test, % (higher is better)",
            *(part(lines, f"{m} shown", "judged") for m in methods),
        ],
        [
            "The same, taken from a model with shuffled weights, %",
            *(part(lines, f"shuffled {m}", "judged") for m in ("loo", "ig")),
        ],
        [
            "Faithfulness (mean NAOPC; higher is better)",
            *(number(total(lines, f"{m} naopc") / total(lines, "judged"), 2) for m in methods),
        ],
        ["Random explanations that pass, %", part(lines, "noise", "noise of"), ""],
        [
            "Explanations of the shuffled model itself that pass, %",
            part(lines, "explained shuffled", "judged"),
            "",
        ],
    ]
    return markdown(["Figure", "Leave one out", "Integrated gradients"], rows)


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Explanations",
    """\
One MiniLM run on CR in which half of the rows of class `good` are texts of the other class with
the word `zebra` put in: only the word decides. 240 test rows, of which some were explained in
full. An explanation passes the test if masking its words changes the prediction more than masking
random words does (5 %). Explanations from noise or from shuffled weights should not pass more
often than that.""",
    lambda: grid(start=["alike", "joint", "words", *PLANTED, *range(0, 240, A_CELL)]),
    finding,
    [answers],
    "One run, one planted word.",
)


if __name__ == "__main__":
    main()
