"""Choice of the base model: every method trains on the same tasks and is scored on the same
validation episodes. One replaces the baseline only where a paired test shows that it is better.
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
from holdfast.core.wording import signed
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
    cached_vectors,
    score_episodes,
    with_scale,
)
from holdfast.plugins.episodes.rows import MetaRows
from holdfast.plugins.episodes.tasks import Episode, TaskPool
from holdfast.recipe import Recipe
from holdfast.stats.folds import mean_over_units
from holdfast.stats.paired_tests import Difference
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.machine.machine import make_accelerator, use_threads

FROZEN, TUNED = "frozen", "tuned"
# Validation episodes for each training episode that is scored.
VALID_PER_TRAIN_EPISODE = 4
SCALED_CLASSES, SCALED_ROWS = 40, 5
# By row of the table of defaults: a network with batch norms is small and tolerates more.
LEARNING_RATES: Mapping[str | None, float] = {"resnet": 1e-3, "vision": 1e-4}
TEXT_RATE = 5e-5
EPISODES: Mapping[str | None, int] = {"resnet": 1000, "vision": 300}
TEXT_EPISODES = 300
LEVEL = 0.95
EvaluationListener = Callable[[str, EpisodeEvaluation], None]


@dataclass(slots=True)
class ScoredStart:
    """A candidate: its method, its training (``None`` where it is frozen), and its scores on the
    validation episodes.
    """

    name: str
    method: StartMethod
    training: MethodResult | None
    validation: EpisodeScores

    @property
    def seconds(self) -> float:
        """Training time, summed over all processes of the run."""
        return self.training.evaluations[-1].seconds if self.training else 0.0

    @property
    def accuracy(self) -> float:
        return float(self.validation.accuracy.mean())


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """The ``selected`` candidate with the reason; the ``baseline`` that it was compared with
    (itself where nothing was better); all ``candidates``, the frozen and the tuned embedding first;
    and ``differences``, the paired differences of the others from the baseline by name.
    """

    selected: ScoredStart
    baseline: ScoredStart
    candidates: tuple[ScoredStart, ...]
    differences: Mapping[str, Difference]
    because: str

    @property
    def last_step(self) -> int:
        """The last step of the selected candidate; 0 for a frozen one."""
        return self.selected.training.evaluations[-1].step if self.selected.training else 0


@dataclass(frozen=True, slots=True)
class MetaBench:
    """What all candidates share: the encoded rows, the loaded network, and the ``folder`` of their
    checkpoints (``None``: none), stored under ``mark``, at most every ``every_s``.
    """

    prepared: PreparedData
    rows: MetaRows
    recipe: Recipe
    folder: Path | None
    mark: str
    every_s: float

    def reader(self, state: Mapping[str, Any] | None = None) -> FeatureReader:
        """A reader of the rows with the loaded network, or with a learned ``state``."""
        prepared, recipe = self.prepared, self.recipe
        use_threads(prepared.machine.threads)
        network: Any = copy_network(prepared.loaded.network)
        # Reported when the rows were prepared.
        with decisions_to(None):
            freeze_part(network, recipe.model.freeze)
        detach_trainable(network, prepared.loaded.network)
        if recipe.train.matmul == "onednn":
            use_onednn(network)
        device = make_accelerator("float32").device
        network.to(device).eval()
        task = prepared.definition.make_task(prepared.loaded, prepared.rows, recipe, None)
        reader = FeatureReader(network, task.collate, prepared.examples, device)
        # The scale is that of the base model, whatever state the network then gets.
        reader = with_scale(reader, *sample_rows(self.rows.pools[0], recipe.seed))
        if state is not None:
            network.load_state_dict(state)
        return reader

    def store(self, name: str) -> CheckpointStore:
        """Where the training state of a candidate is stored."""
        folder = None if self.folder is None else self.folder / name
        return CheckpointStore(folder, self.every_s, f"{self.mark} {name}")

    def validation_episodes(self) -> list[Episode]:
        """The validation episodes."""
        recipe, (_, valid, _) = self.recipe, self.rows.pools
        return valid.episodes(self.rows.shape, recipe.meta.judge_episodes, recipe.seed, "valid")

    def plan(self) -> EpisodePlan:
        """How a candidate is trained."""
        shape, train, judge = self.rows.shape, self.rows.pools[0], self.validation_episodes()
        meta, seed = self.recipe.meta, self.recipe.seed
        probe = train.episodes(shape, max(5, len(judge) // VALID_PER_TRAIN_EPISODE), seed, "probe")
        updates, rate = meta.episodes, self.recipe.train.learning_rate
        assert updates is not None
        assert rate is not None
        return EpisodePlan(train, shape, updates, rate, meta.looks, probe, judge, seed)


def fill_settings(recipe: Recipe, prepared: PreparedData) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with the training hyperparameters filled in, and the reasons."""
    architecture, decisions = prepared.loaded.defaults, []
    rate, episodes = recipe.train.learning_rate, recipe.meta.episodes
    if rate is None:
        rate = LEARNING_RATES.get(architecture, TEXT_RATE)
        because = "low enough for a pretrained network to keep what it knows"
        because = (
            "small networks with batch norms tolerate it" if architecture == "resnet" else because
        )
        decisions.append(Decision("train.learning_rate", f"{rate:g}", because))
    if episodes is None:
        episodes = EPISODES.get(architecture, TEXT_EPISODES)
        because = "updates of each trial; a randomly initialised network may need more"
        decisions.append(Decision("meta.episodes", str(episodes), because))
    train_settings = {"learning_rate": rate}
    return recipe.with_changes(train=train_settings, meta={"episodes": episodes}), tuple(decisions)


def choose(bench: MetaBench, on_evaluation: EvaluationListener = lambda *_: None) -> MethodChoice:
    """Train the baseline and the methods that the recipe names, and select one."""
    requested = bench.recipe.meta.method
    names = {"auto": tuple(METHODS), BASELINE: ()}.get(str(requested), (str(requested),))
    frozen, tuned = baselines(bench, on_evaluation)
    baseline, baseline_reason = _select_baseline(bench, tuned, frozen)
    notify(Decision("baseline", baseline.name, baseline_reason, prominent=True))
    candidates, differences = [frozen, tuned], {}
    for name in names:
        arm = train_candidate(bench, name, METHODS[name](), on_evaluation)
        candidates.append(arm)
        differences[name] = _paired_difference(
            bench, arm, baseline, 1 - 2 * (1 - LEVEL) / len(names)
        )
        notify(_comparison_decision(arm, differences[name], baseline))
    selected, because = _select(
        candidates[2:], differences, baseline, set_by_user=requested not in ("auto", BASELINE)
    )
    notify(Decision("meta.method", selected.name, because, prominent=True))
    return MethodChoice(selected, baseline, tuple(candidates), differences, because)


def baselines(
    bench: MetaBench, on_evaluation: EvaluationListener
) -> tuple[ScoredStart, ScoredStart]:
    """The features as loaded, and tuned on all training classes at once; each with the head that
    scores higher on the validation episodes.
    """
    reader, judge = bench.reader(), bench.validation_episodes()
    pool, width = bench.rows.pools[0], int(reader.network.head.in_features)

    def read_out(name: str, training: MethodResult | None) -> tuple[ScoredStart, str]:
        vectors = cached_vectors(reader, judge)
        methods = [Embedding(pool, width, readout) for readout in READOUTS]
        arms = [
            ScoredStart(name, one, training, score_episodes(one, reader, judge, vectors))
            for one in methods
        ]
        best = max(range(len(arms)), key=lambda k: arms[k].accuracy)
        return arms[best], READOUTS[best]

    frozen, readout = read_out(FROZEN, None)
    tuned = Embedding(pool, width, readout)
    tuned.head.to(reader.device)
    return frozen, read_out(TUNED, _train_method(bench, TUNED, tuned, reader, on_evaluation))[0]


def train_candidate(
    bench: MetaBench, name: str, method: StartMethod, on_evaluation: EvaluationListener
) -> ScoredStart:
    """A method trained on the training tasks, with its scores on the validation episodes."""
    reader = bench.reader()
    training = _train_method(bench, name, method, reader, on_evaluation)
    return ScoredStart(
        name, method, training, score_episodes(method, reader, bench.validation_episodes())
    )


def _train_method(
    bench: MetaBench,
    name: str,
    method: StartMethod,
    reader: FeatureReader,
    on_evaluation: EvaluationListener,
) -> MethodResult:
    training = learn(method, reader, bench.plan(), bench.store(name), partial(on_evaluation, name))
    last = training.evaluations[-1]
    if not np.isfinite(last.valid_loss):
        rule = "diverged: its loss is not a number"
        remedy = "Lower train.learning_rate."
        raise TrainingError(f"the method {name}", rule, last.valid_loss, remedy)
    return training


def _paired_difference(
    bench: MetaBench, candidate: ScoredStart, baseline: ScoredStart, level: float = LEVEL
) -> Difference:
    """Accuracy of ``candidate`` minus that of ``baseline`` on the validation episodes of both."""
    members, _ = bench.rows.pools[1].unit_membership(bench.validation_episodes())
    gaps: Floats = candidate.validation.accuracy - baseline.validation.accuracy
    return mean_over_units(gaps, members, level)


def _select_baseline(
    bench: MetaBench, tuned: ScoredStart, frozen: ScoredStart
) -> tuple[ScoredStart, str]:
    gap = _paired_difference(bench, tuned, frozen, 1 - 2 * (1 - LEVEL))
    if gap.low > 0:
        return tuned, (
            "on the validation episodes, the features tuned on the training classes "
            f"have an accuracy {_signed_points(gap)} above those of the base model "
            f"({_interval_words(gap)})"
        )
    return frozen, (
        "tuning the features on the training classes is not shown to be better than "
        f"the base model ({_signed_points(gap)} on the validation episodes, "
        f"{_interval_words(gap)})"
    )


def _comparison_decision(
    candidate: ScoredStart, gap: Difference, baseline: ScoredStart
) -> Decision:
    because = (
        f"accuracy {100 * candidate.accuracy:.1f} % on "
        f"{len(candidate.validation.accuracy)} validation episodes, "
        f"{_signed_points(gap)} compared with the {baseline.name} embedding "
        f"({_interval_words(gap)})"
    )
    verdict = "better" if gap.low > 0 else "not shown to be better"
    return Decision(f"tried {candidate.name}", verdict, because, prominent=True)


def _signed_points(gap: Difference) -> str:
    return f"{signed(100 * gap.value)} points"


def _interval_words(gap: Difference) -> str:
    if not np.isfinite(gap.low):
        return "too few classes for an interval"
    return f"95 % CI over classes {signed(100 * gap.low)} to {signed(100 * gap.high)}"


def _select(
    candidates: Sequence[ScoredStart],
    differences: Mapping[str, Difference],
    baseline: ScoredStart,
    set_by_user: bool,
) -> tuple[ScoredStart, str]:
    if set_by_user:
        gap = differences[candidates[0].name]
        beats = "beats" if gap.low > 0 else "is not shown to be better than"
        return candidates[0], (
            f"set in the recipe; it {beats} the {baseline.name} embedding with a new "
            f"head ({_signed_points(gap)}, {_interval_words(gap)})"
        )
    winners = [arm for arm in candidates if differences[arm.name].low > 0]
    if not winners:
        return baseline, (
            f"no method is shown to be better than the {baseline.name} embedding with "
            "a new head fitted to each task"
            if candidates
            else "set in the recipe: the baseline"
        )
    best = max(winners, key=lambda arm: differences[arm.name].value)
    gap = differences[best.name]
    return best, (
        f"it beats the {baseline.name} embedding with a new head by "
        f"{_signed_points(gap)} on the validation episodes ({_interval_words(gap)})"
    )


def sample_rows(pool: TaskPool, seed: int) -> tuple[Any, Any]:
    """Sample rows of some training classes, with their classes."""
    rng = generator(seed, "scale")
    classes = [rows for task in pool.tasks for rows in task.rows]
    sample = rng.permutation(len(classes))[:SCALED_CLASSES]
    parts = [rng.permutation(classes[c])[:SCALED_ROWS] for c in sorted(sample.tolist())]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def with_prototypes(bench: MetaBench, reader: FeatureReader) -> Any:
    """The network with a last layer that predicts the training class of the nearest mean."""
    network, pool = reader.network, bench.rows.pools[0]
    means = np.stack([reader.vectors(rows).mean(axis=0) for t in pool.tasks for rows in t.rows])
    with torch.no_grad():
        weights = torch.from_numpy(means).to(network.head.weight.device)
        network.head.weight.copy_(2 * reader.scale * weights)
        network.head.bias.copy_(-reader.scale * (weights**2).sum(dim=1))
    return network
