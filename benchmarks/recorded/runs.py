"""A listener that measures a pool of rows at every look, and faults that are planted in rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import Cell

from holdfast.core.events import Place
from holdfast.core.seeds import generator

if TYPE_CHECKING:
    from holdfast.training.run import Run


class Pool:
    """A listener: the pool's losses (and logits) at each snapshot, and who was seen when."""

    name = "pool"
    place: Place = "tell"

    def __init__(self, examples: Any, classifies: bool) -> None:
        self._examples = examples
        self._classifies = classifies
        self.looks: list[tuple[Any, Any]] = []
        self.first_seen: dict[int, int] = {}

    def snapshot_taken(self, run: Run) -> None:
        rows = np.arange(len(self._examples))
        losses, kept = run.observer.measure(run.network, self._examples, rows)
        self.looks.append((losses, kept if self._classifies else None))

    def batch_ready(self, run: Run) -> None:
        from holdfast.training.step import draw_of_step

        for row in draw_of_step(run).rows:
            self.first_seen.setdefault(int(row), run.step)


@dataclass(frozen=True)
class Watched:
    """A finished fit with its facts, and its unseen rows with what was measured on them."""

    fitted: Any
    facts: Any
    unseen: Any
    pool: Pool


def watched(recipe: Any, change: Callable[..., tuple[Any, Any]], *, stops: bool) -> Watched:
    """The job that ``train`` builds of a recipe with test rows, which a listener measures at each
    evaluation. ``change`` makes its training and validation rows of those of the split; without
    ``stops`` nothing ends it early."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import make_job
    from holdfast.fits.run_facts import make_run_facts, with_probe
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.training.loop import fit
    from holdfast.training.machine.machine import make_accelerator

    splits = load_and_divide(recipe).splits
    ready = make_training_plan(*prepare_divided(recipe, splits))
    unseen = ready.definition.encode(splits.test.open(), ready.loaded, ready.recipe)
    train, valid = change(ready.train, ready.valid)
    ready = replace(ready, splits=replace(ready.splits, train=train, valid=valid))
    pool = Pool(unseen, classifies=True)
    job, own = make_job(
        ready, make_accelerator(str(ready.recipe.train.precision)), listeners=(pool,)
    )
    fitted = fit(job if stops else replace(job, advisor=None))
    return Watched(fitted, with_probe(make_run_facts(ready), own), unseen, pool)


def planted(train: Any, valid: Any, cell: Cell) -> tuple[Any, Any]:
    """Wrong labels on both sides, or validation rows copied over training rows."""
    word, _, amount = str(cell["fault"]).partition(" ")
    if word == "noise":
        share = int(amount) / 100
        first, second = (
            replace(rows, labels=with_noise(rows.labels, share, (cell["seed"], side)))
            for side, rows in (("train", train), ("valid", valid))
        )
        return first, second
    if word == "copies":
        return with_copies(train, valid, int(amount) / 100, cell["seed"]), valid
    return train, valid


def with_noise(labels: Any, share: float, seed: Any) -> Any:
    """Exactly this share of the labels changed to another class."""
    rng = generator(seed[0], "benchmark", "noise", seed[1])
    noisy, classes = labels.copy(), int(labels.max()) + 1
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy[chosen] = (noisy[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return noisy


def with_copies(train: Any, valid: Any, share: float, seed: int) -> Any:
    """Training rows, of which some stand in for copies of this share of the validation rows."""
    rng = generator(seed, "benchmark", "copies")
    copied = rng.permutation(len(valid))[: round(share * len(valid))]
    kept = np.sort(rng.permutation(len(train))[: len(train) - len(copied)])
    return joined(train, kept, valid, copied)


def joined(one: Any, first: Any, other: Any, second: Any) -> Any:
    """Encoded texts of rows ``first`` of one set and ``second`` of another."""
    pieces = [(one, int(i)) for i in first] + [(other, int(i)) for i in second]
    cut = [slice(rows.offsets[i], rows.offsets[i + 1]) for rows, i in pieces]
    lengths = [piece.stop - piece.start for piece in cut]
    types = None
    if one.types is not None:
        types = np.concatenate([rows.types[c] for (rows, _), c in zip(pieces, cut, strict=True)])
    return replace(
        one,
        types=types,
        ids=np.concatenate([rows.ids[c] for (rows, _), c in zip(pieces, cut, strict=True)]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.arange(len(pieces)),
        labels=np.array([rows.labels[i] for rows, i in pieces]),
    )
