"""Methods that learn a base model for few-shot tasks, how they read rows, and their scores on fixed
episodes.

- *Embedding*, the baseline of meta-learning: features, frozen or tuned in the ordinary way, and a
  new head for each task (Chen et al. 2019, arXiv 1904.04232; Tian et al. 2020, arXiv 2003.11539).
- *Prototypes*: prototypical networks (Snell, Swersky and Zemel 2017, arXiv 1703.05175).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.core.records import Floats, Ints, unit_rows
from holdfast.core.seeds import derive_seed, generator
from holdfast.models.probes.logistic import first_softmax, fit_softmax, logits_of, softmax_losses
from holdfast.plugins.episodes.tasks import Episode, EpisodeShape, TaskPool
from holdfast.training.plan import batches_by_length

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class FeatureReader:
    """The encoded rows and the network that reads them.

    ``collate`` makes a batch of ``examples`` at some positions. Features are the exact input of the
    network's last linear layer. ``scale`` is a factor of squared distances between features, so
    that every method starts with distances of one size whatever the architecture: see
    ``distance_scale``.
    """

    network: Any
    collate: Callable[[Any, Ints], dict[str, Tensor]]
    examples: Any
    device: torch.device
    scale: float = 1.0

    def features(self, positions: Ints) -> Tensor:
        """[n, D] of these rows, in the network's current mode and with its gradients."""
        batch = self.collate(self.examples, np.asarray(positions).ravel())
        inputs = {k: v.to(self.device) for k, v in batch.items() if k != "labels"}
        features: Tensor = self.network.features(**inputs)
        return features.float()

    def vectors(self, positions: Ints) -> Floats:
        """[n, D] of these rows from the network in its current state, without gradients."""
        rows = np.asarray(positions)
        vectors = np.zeros((0, 0), dtype=np.float32)
        self.network.eval()
        with torch.no_grad():
            for part_rows in batches_by_length(
                self.examples.lengths[rows], np.arange(len(rows)), TOKENS_PER_BATCH
            ):
                part = self.features(rows[part_rows]).cpu().numpy()
                if not len(vectors):
                    vectors = np.zeros((len(rows), part.shape[1]), dtype=np.float32)
                vectors[part_rows] = part
        return vectors

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The trainable weights, without the head, since every task gets its own."""
        head = {id(p) for p in self.network.head.parameters()}
        return [p for p in self.network.parameters() if p.requires_grad and id(p) not in head]


# Between a query row and its nearest prototype at the start: softmax is neither flat nor saturated.
DISTANCE = 8.0


def distance_scale(vectors: Floats, labels: Ints) -> float:
    """The scale at which the mean squared distance of rows to the means of other classes is
    ``DISTANCE``. ``vectors`` [n, D], ``labels`` [n] of two classes or more.
    """
    classes = np.unique(labels)
    means = np.stack([vectors[labels == one].mean(axis=0) for one in classes])
    squared = ((vectors[:, None] - means[None]) ** 2).sum(axis=2)
    other = labels[:, None] != classes[None]
    mean = float(squared[other].mean())
    return DISTANCE / mean if mean > 0 else 1.0


def with_scale(reader: FeatureReader, positions: Ints, labels: Ints) -> FeatureReader:
    """The reader with the ``distance_scale`` of these rows before training.

    Batch norms normalise by these rows themselves: a randomly initialised network has no statistics
    of rows yet, and its features grow a hundredfold in the first updates.
    """
    network, batch_norm = reader.network, nn.modules.batchnorm._BatchNorm
    if not any(isinstance(module, batch_norm) for module in network.modules()):
        return replace(reader, scale=distance_scale(reader.vectors(positions), labels))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    network.train()
    with torch.no_grad():
        vectors = reader.features(positions).cpu().numpy()
        for name, value in network.named_buffers():
            value.copy_(buffers[name])
    network.eval()
    return replace(reader, scale=distance_scale(vectors, labels))


@contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """A block in which torch's random draws (dropout) depend only on this name; the outer random
    state does not change.

    A resumed run therefore draws the same numbers as an uninterrupted one.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, *names))
        yield


Vectors = Callable[[Ints], Floats]


@dataclass(frozen=True, slots=True)
class Step:
    """One update: the ``index``-th of its method."""

    reader: FeatureReader
    pool: TaskPool
    shape: EpisodeShape
    seed: int
    index: int

    def episode(self) -> Episode:
        """The training episode of this update."""
        return self.pool.draw(self.shape, self.seed, "train", self.index)


class StartMethod(Protocol):
    """A method that learns a base model from training tasks and classifies the rows of a new task
    by their vectors, which episodes share.

    ``hyperparameters`` are recorded in the result; ``head`` is trained together with the network.
    """

    name: str

    @property
    def head(self) -> nn.Module | None: ...

    @property
    def hyperparameters(self) -> dict[str, Any]: ...

    def update(self, step: Step) -> float:
        """The loss in nats of one draw of the training tasks, and its gradient in the weights."""

    def query_logits(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        """Logits [ways · queries, ways] of the query rows, given only the support rows.

        The network is unchanged afterwards. ``vectors`` returns what ``reader.vectors`` would.
        """


# The penalty on unit vectors: the weaker of two usual ones, since classes have only a few rows.
RIDGE_STRENGTH = 10.0
READOUTS = ("logistic", "centroid")


def readout_logits(readout: str, support: Floats, labels: Ints, query: Floats) -> Floats:
    """Logits [m, ways] of query vectors [m, D] by a head fitted to support vectors [n, D]:
    ``logistic`` regression with a ridge, or minus the squared distance to each class's mean times
    ``RIDGE_STRENGTH`` (``centroid``); both on vectors of unit length."""
    x, q = (np.asarray(unit_rows(rows), dtype=np.float64) for rows in (support, query))
    if readout == "logistic":
        table = fit_softmax(
            x, labels, RIDGE_STRENGTH, first_softmax(x, labels), tolerance=1e-3, steps=50
        )
        return logits_of(table, q)
    n_classes = int(labels.max()) + 1
    means = np.stack([x[labels == one].mean(axis=0) for one in range(n_classes)])
    return np.asarray(-RIDGE_STRENGTH * ((q[:, None] - means[None]) ** 2).sum(axis=2))


class Embedding:
    """A classifier of all training classes at once, whose features are kept.

    A batch has as many rows as an episode of the other methods, so that all see equally many. Where
    the tasks have classes of their own, a row's loss covers only the classes of its task. The last
    layer learns from zero at ``HEAD_RATE``. ``readout`` names the head of new tasks.
    """

    name = "embedding"
    HEAD_RATE = 5e-3

    def __init__(self, pool: TaskPool, width: int, readout: str = "logistic") -> None:
        self.readout = readout
        self._rows = np.concatenate([r for task in pool.tasks for r in task.rows])
        counts = [len(r) for task in pool.tasks for r in task.rows]
        self._labels = np.repeat(np.arange(len(counts)), counts)
        sizes = [len(task.classes) for task in pool.tasks]
        task_of_class = np.repeat(np.arange(len(sizes)), sizes)
        self._same_task = torch.from_numpy(task_of_class[:, None] == task_of_class[None])
        self.head = nn.Linear(width, len(counts))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {"readout": self.readout}

    def update(self, step: Step) -> float:
        reader = step.reader
        size = min(step.shape.ways * step.shape.rows, len(self._rows))
        rng = generator(step.seed, "batch", step.index)
        sample = rng.choice(len(self._rows), size, replace=False)
        reader.network.train()
        features = reader.features(self._rows[sample])
        labels = torch.from_numpy(self._labels[sample])
        logits = self.head(reader.scale**0.5 * features)
        other_tasks = ~self._same_task[labels]
        masked = logits.masked_fill(other_tasks.to(logits.device), -torch.inf)
        loss = nn.functional.cross_entropy(masked, labels.to(logits.device))
        torch.autograd.backward(loss)
        return float(loss.detach())

    def query_logits(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        support, query = vectors(episode.support.ravel()), vectors(episode.query.ravel())
        return readout_logits(self.readout, support, episode.support_labels, query)


def distances(support: Tensor, query: Tensor) -> Tensor:
    """‖query − mean of a class‖² of support [ways, shots, D] and query [n, D] → [n, ways]."""
    means = support.mean(dim=1)
    return ((query[:, None] - means[None]) ** 2).sum(dim=2)


class Prototypes:
    """A class is the mean of its support rows, and a row belongs to the nearest class:

        p(c | x) = softmax_c(−s ‖f(x) − mean_k f(x_ck)‖²),

    trained on training episodes as it is used on new ones. ``s`` is fixed by the features before
    training (``distance_scale``), since architectures differ in the size of their features.
    """

    name = "prototypes"
    head: nn.Module | None = None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return {}

    def update(self, step: Step) -> float:
        episode, reader = step.episode(), step.reader
        reader.network.train()
        rows = np.concatenate([episode.support.ravel(), episode.query.ravel()])
        features = reader.features(rows)
        support = features[: episode.support.size].view(*episode.support.shape, -1)
        logits = -reader.scale * distances(support, features[episode.support.size :])
        labels = torch.as_tensor(episode.query_labels, device=logits.device)
        loss = nn.functional.cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        return float(loss.detach())

    def query_logits(self, reader: FeatureReader, episode: Episode, vectors: Vectors) -> Floats:
        support = torch.from_numpy(vectors(episode.support.ravel()))
        query = torch.from_numpy(vectors(episode.query.ravel()))
        squared_distances = distances(support.view(*episode.support.shape, -1), query)
        return (-reader.scale * squared_distances).numpy()


# The methods that ``auto`` compares with the baseline.
METHODS = {Prototypes.name: Prototypes}
BASELINE = Embedding.name


@dataclass(frozen=True, slots=True)
class EpisodeScores:
    """``accuracy`` and mean ``loss`` (nats) of the query rows of each episode [episodes];
    ``logits`` one table [ways · queries, ways] an episode."""

    accuracy: Floats
    loss: Floats
    logits: tuple[Floats, ...]


def score_episodes(
    method: StartMethod,
    reader: FeatureReader,
    episodes: Sequence[Episode],
    vectors: Vectors | None = None,
) -> EpisodeScores:
    """Score each episode as a new task.

    Each row passes the network once, however many episodes contain it (``vectors``, where they are
    known).
    """
    vectors_of = vectors or cached_vectors(reader, episodes)
    accuracy, losses, all_logits = [], [], []
    for episode in episodes:
        logits = np.asarray(method.query_logits(reader, episode, vectors_of), dtype=np.float64)
        labels = episode.query_labels
        accuracy.append(float((logits.argmax(axis=1) == labels).mean()))
        losses.append(float(softmax_losses(logits, labels).mean()))
        all_logits.append(logits)
    return EpisodeScores(np.array(accuracy), np.array(losses), tuple(all_logits))


def cached_vectors(reader: FeatureReader, episodes: Sequence[Episode]) -> Vectors:
    """The vectors of every row of these episodes, each row read once."""
    rows = np.unique(np.concatenate([np.r_[e.support.ravel(), e.query.ravel()] for e in episodes]))
    table = reader.vectors(rows)
    return lambda positions: table[np.searchsorted(rows, positions)]
