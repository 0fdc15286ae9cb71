"""What a method makes of fixed episodes: which query rows it has right, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats
from holdfast.models.probes.logistic import softmax_losses
from holdfast.plugins.episodes.methods.base import StartMethod, Vectors
from holdfast.plugins.episodes.reader import FeatureReader
from holdfast.plugins.episodes.tasks import Episode


@dataclass(frozen=True, slots=True)
class EpisodeScores:
    """``accuracy`` and mean ``loss`` (nats) of the query rows of each episode [episodes];
    ``logits`` one table [ways · queries, ways] an episode."""

    accuracy: Floats
    loss: Floats
    logits: tuple[Floats, ...]


def score(
    method: StartMethod,
    reader: FeatureReader,
    episodes: Sequence[Episode],
    vectors: Vectors | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> EpisodeScores:
    """Meet each episode as a new task. Each row passes the network once, however many episodes it
    is in (``vectors``, where they are known)."""
    known = vectors or vectors_for(reader, episodes)
    accuracy, losses, kept = [], [], []
    for index, episode in enumerate(episodes):
        logits = np.asarray(method.answer(reader, episode, known), dtype=np.float64)
        labels = episode.query_labels
        accuracy.append(float((logits.argmax(axis=1) == labels).mean()))
        losses.append(float(softmax_losses(logits, labels).mean()))
        kept.append(logits)
        done(index + 1)
    return EpisodeScores(np.array(accuracy), np.array(losses), tuple(kept))


def vectors_for(reader: FeatureReader, episodes: Sequence[Episode]) -> Vectors:
    """The vectors of every row of these episodes, each row read once."""
    rows = np.unique(np.concatenate([np.r_[e.support.ravel(), e.query.ravel()] for e in episodes]))
    table = reader.vectors(rows)
    return lambda positions: table[np.searchsorted(rows, positions)]
