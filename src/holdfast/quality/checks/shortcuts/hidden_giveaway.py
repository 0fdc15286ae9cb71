"""Something beside the content that tells the label (a mark, an id, a form, a length), where the
content of a text does not explain it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import list_phrase
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.cues import (
    LEAST_WITH,
    MOST_OF_CLASS,
    CueCandidate,
    candidates,
    is_named,
    without,
)
from holdfast.quality.fold_answers import log_softmax
from holdfast.quality.views import Embedded, Vectors

MOST_ROWS = 20_000
# Of the cues that are asked about, the broadest first; each costs a second at most.
MOST_ASKED = 40
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
SHOWN = 4
SERIOUS = 0.5


@check(
    Embedded,
    cannot_see="A cue in less than a quarter of a class, one that two classes share or wrong "
    "labels blur, one that also looks like content; a word, of fewer than 500 rows or 20 that "
    "have it.",
    error_rate="Of 100 planted in 30 to 100 % of a class, of 27 kinds, 96 were found (25 of "
    "CR, 25 of MR, 24 of TREC, 22 of BANKING77). Nothing on these sets as they are, nor on 600 "
    "to 2,500 rows of TREC and BANKING77; with the names of BANKING77's classes hidden it took "
    "two words of their content for giveaways.",
    holds_for=with_classes,
)
def hidden_giveaway(view: Embedded) -> CheckResult | None:
    """Reports cues (``quality/cues.py``) that stand in at least a quarter of a class and, to 97 %,
    in no other, and that its content does not explain (``Content.explains``); and classes
    whose texts have an even number of characters far more, or less, often than the others'. An
    error where a cue gives away more than half of all rows. Score: the share of rows given away.
    """
    table, labels = view.rows.table, view.rows.labels
    texts = view.rows.texts
    if len(texts) > MOST_ROWS:
        every = -(-len(texts) // MOST_ROWS)
        labels = np.where(np.arange(len(texts)) % every == 0, labels, -1)
    content = Content(texts, view.vectors, labels, table.classes, view.embed, view.seed)
    asked = candidates(texts, labels, len(table.classes))[:MOST_ASKED]
    found = [one for one in asked if not content.explains(one)]
    if not found:
        return None
    rows = np.unique(np.concatenate([one.rows for one in found]))
    share = len(rows) / max(1, int((labels >= 0).sum()))
    shown = list_phrase([_shown(one, table.classes) for one in found], SHOWN)
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[at]), f"{one.cue}: class {table.classes[one.label]!r}")
        for one in found
        for at in one.rows[:2]
    )
    return result(
        ids[rows],
        f"something beside the content tells the class: {shown}",
        "A model would read it off and fail where it is missing: take it out of the texts, or "
        "write it into those of every class.",
        score=share,
        severity="error" if share > SERIOUS else "warn",
        examples=examples,
    )


def _shown(one: CueCandidate, classes: tuple[str, ...]) -> str:
    if one.cue.kind == "even":
        return f"{one.cue} in {one.share:.0%} of class {classes[one.label]!r}, unlike the others"
    return (
        f"{one.cue} in {one.count} of {one.count / one.share:.0f} texts of class "
        f"{classes[one.label]!r} and in {len(one.rows) - one.count} others"
    )


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
