"""Which start is kept: every method learns from the same tasks and meets the same validation
episodes, and one is kept in the place of the baseline only where a paired test says that it is
better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import TrainingError
from holdfast.core.records import Decision, Floats
from holdfast.core.seeds import generator
from holdfast.fits.frozen import freeze_part
from holdfast.models.compute.processor import use_onednn
from holdfast.models.network_copy import copy_network, detach_trainable
from holdfast.plugins.episodes.learn import EpisodeEvaluation, EpisodePlan, MethodResult, learn
from holdfast.plugins.episodes.methods import (
    BASELINE,
    METHODS,
    READOUTS,
    Embedding,
    EpisodeScores,
    FeatureReader,
    StartMethod,
    scaled,
    score,
    vectors_for,
)
from holdfast.plugins.episodes.rows import MetaRows
from holdfast.plugins.episodes.tasks import Episode, TaskPool
from holdfast.recipe import Recipe
from holdfast.stats.folds import mean_over_units
from holdfast.stats.paired_tests import Difference
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.machine.machine import make_accelerator, use_threads

FROZEN, TUNED = "frozen", "tuned"
# Validation episodes for each probe episode.
PROBE = 4
SCALED_CLASSES, SCALED_ROWS = 40, 5
# By the row of the table of defaults: a network with batch norms is small and bears more.
RATES: Mapping[str | None, float] = {"resnet": 1e-3, "vision": 1e-4}
TEXT_RATE = 5e-5
EPISODES: Mapping[str | None, int] = {"resnet": 1000, "vision": 300}
TEXT_EPISODES = 300
LEVEL = 0.95
Hear = Callable[[str, EpisodeEvaluation], None]


@dataclass(slots=True)
class Arm:
    """A candidate: its method, what it learned (nothing where it is frozen), and what it made of
    the validation episodes."""

    name: str
    method: StartMethod
    learned: MethodResult | None
    judged: EpisodeScores

    @property
    def seconds(self) -> float:
        """How long it learned, over all its processes in time."""
        return self.learned.looks[-1].seconds if self.learned else 0.0

    @property
    def accuracy(self) -> float:
        return float(self.judged.accuracy.mean())


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The candidate that is ``kept``, and why; the ``baseline`` that it was held against (itself
    where nothing beat it); all ``arms`` that were tried, the frozen and the tuned embedding first,
    and the paired differences of others from the baseline by name (``against``)."""

    kept: Arm
    baseline: Arm
    arms: tuple[Arm, ...]
    against: Mapping[str, Difference]
    because: str

    @property
    def last_step(self) -> int:
        """Of the kept candidate; 0 of one that is frozen."""
        return self.kept.learned.looks[-1].step if self.kept.learned else 0


@dataclass(frozen=True, slots=True)
class MetaBench:
    """What all candidates share: rows, encoded, and the network as it was loaded; the folder
    ``into`` which their courses are kept (none where it is ``None``), under ``mark``, at most every
    ``every_s``."""

    prepared: PreparedData
    rows: MetaRows
    recipe: Recipe
    into: Path | None
    mark: str
    every_s: float

    def reader(self, state: Mapping[str, Any] | None = None) -> FeatureReader:
        """The network as it was loaded, or with a learned ``state``, and the rows."""
        prepared, recipe = self.prepared, self.recipe
        use_threads(prepared.machine.threads)
        network: Any = copy_network(prepared.loaded.network)
        # Said of what was prepared.
        with decisions_to(None):
            freeze_part(network, recipe.model.freeze)
        detach_trainable(network, prepared.loaded.network)
        if recipe.train.matmul == "onednn":
            use_onednn(network)
        device = make_accelerator("float32").device
        network.to(device).eval()
        task = prepared.kind.make_task(prepared.loaded, prepared.rows, recipe, None)
        reader = FeatureReader(network, task.collate, prepared.examples, device)
        # The scale is that of the start, whatever state the network is then put into.
        reader = scaled(reader, *some_rows(self.rows.pools[0], recipe.seed))
        if state is not None:
            network.load_state_dict(state)
        return reader

    def store(self, name: str) -> CheckpointStore:
        """Where the course of a candidate is kept."""
        folder = None if self.into is None else self.into / name
        return CheckpointStore(folder, self.every_s, f"{self.mark} {name}")

    def judge(self) -> list[Episode]:
        """The validation episodes."""
        recipe, (_, valid, _) = self.recipe, self.rows.pools
        return valid.episodes(self.rows.shape, recipe.meta.judge_episodes, recipe.seed, "valid")

    def course(self) -> EpisodePlan:
        """How a candidate learns."""
        shape, train, judge = self.rows.shape, self.rows.pools[0], self.judge()
        meta, seed = self.recipe.meta, self.recipe.seed
        probe = train.episodes(shape, max(5, len(judge) // PROBE), seed, "probe")
        updates, rate = meta.episodes, self.recipe.train.learning_rate
        assert updates is not None
        assert rate is not None
        return EpisodePlan(train, shape, updates, rate, meta.looks, probe, judge, seed)


def settled(recipe: Recipe, prepared: PreparedData) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with the numbers of the learning filled in, and why."""
    row, decisions = prepared.loaded.defaults, []
    rate, episodes = recipe.train.learning_rate, recipe.meta.episodes
    if rate is None:
        rate = RATES.get(row, TEXT_RATE)
        because = "small enough for a pretrained network to keep what it knows"
        because = "what small networks with batch norms bear" if row == "resnet" else because
        decisions.append(Decision("train.learning_rate", f"{rate:g}", because))
    if episodes is None:
        episodes = EPISODES.get(row, TEXT_EPISODES)
        because = "updates of each method that is tried; more may help a network drawn anew"
        decisions.append(Decision("meta.episodes", str(episodes), because))
    fixed = {"learning_rate": rate}
    return recipe.changed(train=fixed, meta={"episodes": episodes}), tuple(decisions)


def choose(bench: MetaBench, hear: Hear = lambda *_: None) -> MethodChoice:
    """Try the baseline and the methods that the recipe names, and keep one."""
    wanted = bench.recipe.meta.method
    names = {"auto": tuple(METHODS), BASELINE: ()}.get(str(wanted), (str(wanted),))
    frozen, tuned = baselines(bench, hear)
    baseline, words = _better(bench, tuned, frozen)
    notify(Decision("baseline", baseline.name, words, prominent=True))
    arms, against = [frozen, tuned], {}
    for name in names:
        arm = learned_arm(bench, name, METHODS[name](), hear)
        arms.append(arm)
        against[name] = _paired(bench, arm, baseline, 1 - 2 * (1 - LEVEL) / len(names))
        notify(_told(arm, against[name], baseline))
    kept, because = _kept(arms[2:], against, baseline, asked=wanted not in ("auto", BASELINE))
    notify(Decision("meta.method", kept.name, because, prominent=True))
    return MethodChoice(kept, baseline, tuple(arms), against, because)


def baselines(bench: MetaBench, hear: Hear) -> tuple[Arm, Arm]:
    """The features as they were loaded, and tuned on all training classes at once; each with the
    head that does better on the validation episodes."""
    reader, judge = bench.reader(), bench.judge()
    pool, width = bench.rows.pools[0], int(reader.network.head.in_features)

    def read_out(name: str, learned: MethodResult | None) -> tuple[Arm, str]:
        vectors = vectors_for(reader, judge)
        methods = [Embedding(pool, width, how) for how in READOUTS]
        arms = [Arm(name, one, learned, score(one, reader, judge, vectors)) for one in methods]
        best = max(range(len(arms)), key=lambda k: arms[k].accuracy)
        return arms[best], READOUTS[best]

    frozen, how = read_out(FROZEN, None)
    tuned = Embedding(pool, width, how)
    tuned.head.to(reader.device)
    return frozen, read_out(TUNED, _learned(bench, TUNED, tuned, reader, hear))[0]


def learned_arm(bench: MetaBench, name: str, method: StartMethod, hear: Hear) -> Arm:
    """A method that learned from the training tasks, on the validation episodes."""
    reader = bench.reader()
    learned = _learned(bench, name, method, reader, hear)
    return Arm(name, method, learned, score(method, reader, bench.judge()))


def _learned(
    bench: MetaBench, name: str, method: StartMethod, reader: FeatureReader, hear: Hear
) -> MethodResult:
    learned = learn(method, reader, bench.course(), bench.store(name), partial(hear, name))
    last = learned.looks[-1]
    if not np.isfinite(last.valid_loss):
        raise TrainingError(
            f"the method {name}",
            "diverged: its loss is not a number",
            last.valid_loss,
            "Use a smaller --set train.learning_rate.",
        )
    return learned


def _paired(bench: MetaBench, arm: Arm, baseline: Arm, level: float = LEVEL) -> Difference:
    """Accuracy of ``arm`` less that of ``baseline`` on the validation episodes that both met."""
    members, _ = bench.rows.pools[1].members(bench.judge())
    gaps: Floats = arm.judged.accuracy - baseline.judged.accuracy
    return mean_over_units(gaps, members, level)


def _better(bench: MetaBench, tuned: Arm, frozen: Arm) -> tuple[Arm, str]:
    gap = _paired(bench, tuned, frozen, 1 - 2 * (1 - LEVEL))
    if gap.low > 0:
        return tuned, (
            f"the features tuned on the training classes are right on {_points(gap)} more of the "
            f"validation episodes' rows than those of the model as it is ({_span(gap)})"
        )
    return frozen, (
        "tuning the features on the training classes was not proven better than the model as it is "
        f"({_points(gap)} on the validation episodes, {_span(gap)})"
    )


def _told(arm: Arm, gap: Difference, baseline: Arm) -> Decision:
    because = (
        f"{100 * arm.accuracy:.1f} % right on {len(arm.judged.accuracy)} validation episodes, "
        f"{_points(gap)} against the {baseline.name} embedding ({_span(gap)})"
    )
    verdict = "better" if gap.low > 0 else "not proven better"
    return Decision(f"tried {arm.name}", verdict, because, prominent=True)


def _points(gap: Difference) -> str:
    return f"{100 * gap.value:+.1f} points"


def _span(gap: Difference) -> str:
    if not np.isfinite(gap.low):
        return "the classes are too few for an interval"
    return f"interval over classes {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"


def _kept(
    arms: Sequence[Arm], against: Mapping[str, Difference], baseline: Arm, asked: bool
) -> tuple[Arm, str]:
    if asked:
        gap = against[arms[0].name]
        beats = "beats" if gap.low > 0 else "is not proven better than"
        return arms[0], (
            f"set by you; it {beats} the {baseline.name} embedding with a head fitted anew "
            f"({_points(gap)}, {_span(gap)})"
        )
    winners = [arm for arm in arms if against[arm.name].low > 0]
    if not winners:
        return baseline, (
            f"no method is proven better than the {baseline.name} embedding with a head fitted "
            "anew to each task"
            if arms
            else "set by you: the baseline"
        )
    best = max(winners, key=lambda arm: against[arm.name].value)
    gap = against[best.name]
    return best, (
        f"it beats the {baseline.name} embedding with a head fitted anew by {_points(gap)} on the "
        f"validation episodes ({_span(gap)})"
    )


def some_rows(pool: TaskPool, seed: int) -> tuple[Any, Any]:
    """Some rows of some training classes, and their classes."""
    rng = generator(seed, "scale")
    classes = [rows for task in pool.tasks for rows in task.rows]
    chosen = rng.permutation(len(classes))[:SCALED_CLASSES]
    parts = [rng.permutation(classes[c])[:SCALED_ROWS] for c in sorted(chosen.tolist())]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def with_prototypes(bench: MetaBench, reader: FeatureReader) -> Any:
    """The network with a last layer that names the training class of the nearest mean."""
    network, pool = reader.network, bench.rows.pools[0]
    means = np.stack([reader.vectors(rows).mean(axis=0) for t in pool.tasks for rows in t.rows])
    with torch.no_grad():
        found = torch.from_numpy(means).to(network.head.weight.device)
        network.head.weight.copy_(2 * reader.scale * found)
        network.head.bias.copy_(-reader.scale * (found**2).sum(dim=1))
    return network
