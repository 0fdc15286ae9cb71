"""Does the content of a text explain a cue, or does the cue give the label away?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.quality.cues import LEAST_WITH, MOST_OF_CLASS, CueCandidate, is_named, without
from holdfast.quality.fold_answers import log_softmax
from holdfast.quality.views import Vectors

# Of the rows with the cue, and of each of the classes that are most alike.
ASKED, EACH, RIVALS = 30, 60, 12
# Rows of the class without the cue, from which on those with it are not needed.
ENOUGH = 30
# The likeliest, of many classes the second too.
FIRST = 6
# In nats of log odds, above the class's own share; and how much more than any other word.
ODDS, LEAST_PULL, PULL, MORE = 1.5, 0.3, 1.0, 1.5
PLAIN_PULL = 0.6
# Of fewer rows no probe knows what a word means: question words of TREC were accused at 250.
LEAST_ROWS = 500
# What cross-validation chose on sets of six classes and of 77.
FEW, C_OF_FEW, C_OF_MANY = 8, 0.01, 0.1


@dataclass(frozen=True)
class Content:
    """What is asked: ``texts``, their ``vectors`` [n, d] and ``labels`` [n], the names of the
    ``classes`` and the
    encoder."""

    texts: Sequence[str]
    vectors: Vectors
    labels: Ints
    classes: tuple[str, ...]
    embed: Callable[[Sequence[str]], Vectors]
    seed: int

    def explains(self, found: CueCandidate) -> bool:
        """Whether a model that never saw the cue expects it in this class.

        A probe is fitted on rows without the cue, against the eleven classes most like its own;
        where fewer than 30 rows of its class lack it, rows with the cue taken out join them. The
        content explains the cue where the name of the class has it; or the cue alone has the class
        as its likeliest (of six classes or more also as its second), by 1.5 nats of log odds beyond
        the class's share, and taking it out of a text lowers them by 0.3 nats on average; or by
        0.6 where it is a word of letters alone, and else by 1 and half as much again as taking out
        any one word does.

        A word of fewer than 20 rows is taken for content, and of fewer than 500 rows in all one
        that less than 80 % of the class have: no probe knows better. A form or a length is never
        explained: no content can be taken out.
        """
        if not found.cue.is_content:
            return False
        few = (self.labels >= 0).sum() < LEAST_ROWS and found.share < MOST_OF_CLASS
        if is_named(self.classes[found.label], found.cue.value) or (
            found.cue.is_word and (few or found.count < LEAST_WITH)
        ):
            return True
        if not found.cue.value:
            return False
        rng = generator(self.seed, "content", str(found.cue))
        rows = found.rows[self.labels[found.rows] == found.label]
        asked = rng.permutation(rows)[: 2 * ASKED]
        taught, told = asked[: len(asked) // 2], asked[len(asked) // 2 :]
        masked = [without(self.texts[at], found.cue) or " " for at in asked]
        vectors = self.embed([*masked, found.cue.value])
        probe, share = self._probe(found, vectors[: len(taught)], rng)

        def odds(features: Vectors) -> Floats:
            log_p = log_softmax(probe.logits(features.astype(np.float64)))[:, 0]
            return np.asarray(log_p - np.log1p(-np.exp(np.minimum(log_p, -1e-9))))

        before = odds(self.vectors[told])
        pull = float((before - odds(vectors[len(taught) : -1])).mean())
        alone = log_softmax(probe.logits(vectors[-1:].astype(np.float64)))[0]
        above = int((alone > alone[0]).sum())
        said = float(odds(vectors[-1:])[0] - np.log(share / (1 - share)))
        if above <= len(alone) // FIRST and said >= ODDS and pull >= LEAST_PULL:
            return True
        if found.cue.is_plain:
            return pull >= PLAIN_PULL
        if pull < PULL:
            return False
        other = self.embed([_one_less(self.texts[at], rng) for at in told])
        return pull >= MORE * float(np.abs(before - odds(other)).mean())

    def _probe(
        self, found: CueCandidate, masked: Vectors, rng: np.random.Generator
    ) -> tuple[Probe, float]:
        """A probe of the class, which is its first, against those most like it, and its share."""
        lacks = self.labels >= 0
        lacks[found.rows] = False
        present = [k for k in np.unique(self.labels[lacks]) if k != found.label]
        own = self.vectors[lacks & (self.labels == found.label)]
        own = own[rng.permutation(len(own))[: 4 * EACH]]
        if len(own) < ENOUGH:
            own = np.concatenate([masked, own])
        middle = own.mean(axis=0)
        near = {
            k: float(self.vectors[lacks & (self.labels == k)].mean(axis=0) @ middle)
            for k in present
        }
        rivals = sorted(present, key=lambda k: (-near[k], k))[: RIVALS - 1]
        parts, marks = [own], [np.zeros(len(own), dtype=np.int64)]
        # Of one rival as many rows as of the class itself.
        most = EACH if len(rivals) > 2 else 4 * EACH
        for place, k in enumerate(rivals, 1):
            rows = rng.permutation(np.flatnonzero(lacks & (self.labels == k)))[:most]
            parts.append(self.vectors[rows])
            marks.append(np.full(len(rows), place))
        y = np.concatenate(marks)
        features = np.concatenate(parts).astype(np.float64)
        c = C_OF_FEW if len(parts) <= FEW else C_OF_MANY
        probe = fit_probe(features, y, classes=len(parts), seed=self.seed, c=c)
        return probe, float((y == 0).mean())


def _one_less(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    at = int(rng.integers(0, max(1, len(words))))
    return " ".join(words[:at] + words[at + 1 :]) or " "
