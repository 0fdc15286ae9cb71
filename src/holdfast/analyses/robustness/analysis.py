"""Whether answers survive changes that mean nothing: the test rows once more, each as somebody else
might have written it, and what that costs, paired by row.

The changes are a fixed list that is alike for every run, so that nothing is chosen by what comes
out. Of a finished run it is another pass over the test rows, written into ``openings.jsonl``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session
from holdfast.analyses.robustness.perturbations import (
    PICTURES,
    TEXTS,
    WORD_BY_WORD,
    missing,
    perturbed,
)
from holdfast.analyses.row_scores import (
    ABSOLUTE,
    ENTITIES,
    WRONG,
    badness,
    rate_estimate,
    sentence_f1,
)
from holdfast.analyses.row_texts import given_labels
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import IMAGE_TASKS, GENERATIVE_TASKS
from holdfast.data.table import Table
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.paired_tests import Difference, newcombe, paired_bootstrap
from holdfast.stats.two_samples import holm

MOST_ROWS = 500
TEXT_PARTS = ("text", "text_pair")
EXAMPLES = 3
ALPHA = 0.05
ONE_GROUP = "no interval: all rows are of one group"


def refuse_task(task: str) -> None:
    """Raises ``RecipeError`` for models that write texts."""
    if task in GENERATIVE_TASKS:
        raise RecipeError(
            "holdfast errors --robustness",
            "asks whether an answer flips, which is not defined for a model that writes texts",
            task,
            "Leave it out, and compare what it writes with `holdfast evaluate`.",
        )


def robustness(run: FinishedRun) -> dict[str, Any]:
    """``robustness`` of ``errors --json``, which opens the test rows of a finished run again."""
    # What refuses the run does so before the test rows are opened.
    names, test = find(run), run.test
    opened = run.reopen("errors --robustness", names)
    found = confirm(names, run, test)
    rows = {"what": found["what"], "n": found["n"], "of": len(opened.table)}
    return {**rows, "openings": opened.count, **found}


def find(session: Session) -> tuple[str, ...]:
    """The changes that are made of such rows."""
    return tuple(PICTURES if session.recipe.task in IMAGE_TASKS else TEXTS)


def confirm(names: tuple[str, ...], session: Session, test: Predictions) -> dict[str, Any]:
    """What each change costs, on at most 500 of the test rows (a fixed sample), and which were not
    made and why.

    Only rows that a change did change are asked again; the answers before are those that are known.
    """
    seed, n = session.recipe.seed, len(test)
    if n > MOST_ROWS:
        order = generator(seed, "robustness rows").permutation(n)
        test = test.take(np.sort(order[:MOST_ROWS]))
    left_out = not_made(names, test.table)
    bad = badness(test)
    pairs: dict[str, Pair] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        for name in (one for one in names if one not in left_out):
            table, changed = changed_rows(name, test.table, seed, Path(folder))
            notify(Decision(name, f"{len(changed)} of {len(test)} rows", "asked again as changed"))
            part = test.take(changed)
            said = session.predictor.answer(table).predictions if len(changed) else ()
            after = _values(part, said, bad.what)
            flipped = flipped_answers(part, said)
            pairs[name] = Pair(bad.values[changed], after, flipped, part.groups)
            examples[name] = _examples(part, table, said, flipped)
    found = judged(pairs, seed=seed)
    return {
        "what": bad.what,
        "n": len(test),
        "changes": {name: {**found[name], "examples": examples[name]} for name in found},
        "not_made": left_out,
        "false_alarm_rate": {"value": 0.05, "what": "at most, by Holm, for all changes together"},
    }


# Of the command alone: each change costs a pass over the test rows.
ANALYSIS = Analysis("robustness", ("robustness",), find, confirm)


def not_made(names: Sequence[str], table: Table) -> dict[str, str]:
    """Why some of the changes are not made of these rows."""
    columns = table.rows.column_names
    found: dict[str, str] = {}
    for name in names if "path" not in columns else ():
        why = missing(name)
        if "tokens" in columns and name not in WORD_BY_WORD:
            why = "words would move, and with them their tags"
        if why is not None:
            found[name] = why
    return found


def changed_rows(name: str, table: Table, seed: int, folder: Path) -> tuple[Table, Ints]:
    """The rows that a change does change, as changed, and their places; pictures are painted into
    ``folder``."""
    columns, rows = table.rows.column_names, table.column("row")
    new: dict[str, list[Any]] = {}
    if "path" in columns:
        new["path"] = []
        for path, row in zip(table.column("path"), rows, strict=True):
            to = folder / f"{name}-{int(row)}.png"
            _repaint(path, to, name, generator(seed, name, int(row)))
            new["path"].append(str(to))
    elif "tokens" in columns:
        new["tokens"] = [
            _same_words(name, list(words), generator(seed, name, int(row)))
            for words, row in zip(table.column("tokens"), rows, strict=True)
        ]
    else:
        for part in TEXT_PARTS:
            if part in columns:
                new[part] = [
                    perturbed(name, text, generator(seed, name, part, int(row)))
                    for text, row in zip(table.column(part), rows, strict=True)
                ]
    old = {part: table.column(part) for part in new}
    if "tokens" in old:
        old["tokens"] = list(map(list, old["tokens"]))
    at = [k for k in range(len(table)) if any(new[p][k] != old[p][k] for p in new)]
    taken = table.take(np.asarray(at, dtype=np.int64))
    for part, values in new.items():
        taken = taken.with_column(part, [values[k] for k in at])
    return taken, np.asarray(at, dtype=np.int64)


def _same_words(name: str, words: list[str], rng: np.random.Generator) -> list[str]:
    """The words of a sentence changed in their places, or as they are where that cannot be."""
    new = perturbed(name, " ".join(words), rng).split(" ")
    return new if len(new) == len(words) else words


def _repaint(path: str, to: Path, name: str, rng: np.random.Generator) -> None:
    import torch
    from PIL import Image

    from holdfast.data.images.decode import read_image

    image = read_image(path).image.convert("RGB")
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    changed = PICTURES[name](pixels, rng)[0].permute(1, 2, 0).numpy()
    Image.fromarray(np.rint(changed * 255).astype(np.uint8)).save(to)


def _values(told: Predictions, said: Sequence[object], what: str) -> Floats:
    """What is bad about other answers to the same rows, as ``badness`` has it."""
    if not len(said):
        return np.zeros(0)
    if what == ABSOLUTE:
        given = np.asarray(told.table.column("value"), dtype=np.float64)
        return np.asarray(np.abs(np.array([float(str(one)) for one in said]) - given))
    if what == ENTITIES:
        return 1.0 - sentence_f1(given_labels(told.table), said)
    assert what == WRONG
    labels: list[Any] = given_labels(told.table)
    answers: list[Any] = list(said)
    if "labels" in told.table.rows.column_names:
        labels, answers = list(map(set, labels)), list(map(set, answers))
    return np.array([one != own for one, own in zip(answers, labels, strict=True)], np.float64)


def flipped_answers(told: Predictions, said: Sequence[object]) -> Bools:
    """Which answers are other ones; of numbers those that moved by more than the model's usual
    (median) error on these rows, since every number moves a little."""
    before = told.predictions or ()
    if told.errors is not None:
        one, other = (np.array([float(str(x)) for x in side]) for side in (before, said))
        usual = float(np.median(np.abs(told.errors))) if len(told) else 0.0
        return np.asarray(np.abs(other - one[: len(other)]) > usual)
    pairs = zip(before[: len(said)], said, strict=True)
    return np.array([not same(_plain(one), _plain(other)) for one, other in pairs], dtype=np.bool_)


def _plain(answer: object) -> object:
    return float(answer) if isinstance(answer, (float, np.floating)) else answer


def _examples(
    told: Predictions, table: Table, said: Sequence[object], flipped: Bools
) -> list[dict[str, Any]]:
    """Up to three rows whose answer flipped, as they are and as they were changed."""
    columns = table.rows.column_names
    part = next((name for name in ("text", "tokens") if name in columns), None)
    before = told.predictions or ()
    found = []
    for place in np.flatnonzero(flipped)[:EXAMPLES]:
        entry: dict[str, Any] = {
            "row": int(told.rows[place]),
            "answer": before[place],
            "then": said[place],
        }
        if part is not None:
            entry["text"] = told.table.column(part)[place]
            entry["changed"] = table.column(part)[place]
        found.append(entry)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Rows that a perturbation changed: what is bad about the answers ``before`` and ``after`` [n],
    which answers are other ones (``flipped`` [n]), and ``groups`` [n] where they exist."""

    before: Floats
    after: Floats
    flipped: Bools
    groups: Ints | None = None

    @property
    def is_rate(self) -> bool:
        return bool(np.isin(np.concatenate([self.before, self.after]), (0.0, 1.0)).all())


def judged(pairs: Mapping[str, Pair], *, seed: int) -> dict[str, dict[str, Any]]:
    """For each perturbation the rows that it changed, what is bad before and after, the paired
    difference with its interval (Newcombe's of rates; by bootstrap of numbers and in groups), the
    share of flipped answers, and whether it is worse: one-sided p (McNemar's exact test, or the
    bootstrap), adjusted by Holm for all perturbations, at 5 %."""
    names = list(pairs)
    p_values = np.array([_p_value(pairs[name], seed, name) for name in names])
    adjusted = holm(p_values) if len(names) else p_values
    found = {}
    for name, p in zip(names, adjusted, strict=True):
        pair = pairs[name]
        difference = _difference(pair, seed, name)
        flipped = Estimate(None, why="no row was changed")
        if len(pair.flipped):
            flipped = rate_estimate(pair.flipped, pair.groups, ONE_GROUP)
        found[name] = {
            "n": len(pair.before),
            "before": _mean(pair.before),
            "after": _mean(pair.after),
            "difference": difference.to_json(),
            "flipped": flipped.to_json(),
            "p_value": float(p),
            "worse": bool(p <= ALPHA and (difference.value or 0.0) > 0),
        }
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _p_value(pair: Pair, seed: int, name: str) -> float:
    if not len(pair.before):
        return 1.0
    if pair.is_rate and pair.groups is None:
        # P(X ≥ rows that got worse), X ~ Binomial(all that changed, ½).
        from scipy.special import bdtrc

        worse = pair.after > pair.before
        better = pair.after < pair.before
        b, c = int(worse.sum()), int(better.sum())
        return 1.0 if b == 0 else float(bdtrc(b - 1, b + c, 0.5))
    above = _boot(pair, seed, name).above
    return 1.0 if math.isnan(above) else 1.0 - above


def _boot(pair: Pair, seed: int, name: str) -> Difference:
    return paired_bootstrap(
        pair.after, pair.before, seed=generator(seed, "robustness", name), groups=pair.groups
    )


def _difference(pair: Pair, seed: int, name: str) -> Estimate:
    if not len(pair.before):
        return Estimate(None, why="no row was changed")
    value = float((pair.after - pair.before).mean())
    if pair.is_rate and pair.groups is None:
        return Estimate(value, *newcombe(pair.after > 0, pair.before > 0))
    made = _boot(pair, seed, name)
    if math.isnan(made.low):
        return Estimate(value, why="no interval: too few rows or groups")
    return Estimate(value, made.low, made.high)


def same(one: object, other: object) -> bool:
    """Whether two answers are the same: numbers to one part in a million."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return list(one) == list(other)  # type: ignore[call-overload, no-any-return]
    return one == other
