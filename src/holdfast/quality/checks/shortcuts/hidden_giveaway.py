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
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.cues import (
    DOMINANT_CLASS_SHARE,
    MIN_ROWS_WITH_WORD,
    CueCandidate,
    find_cue_candidates,
    is_in_class_name,
    remove_cue,
)
from holdfast.quality.fold_predictions import log_softmax
from holdfast.quality.views import Embedded, Vectors

MOST_ROWS = 20_000
# Of the cues that are asked about, the broadest first; each costs a second at most.
MAX_CANDIDATES = 40
# Of the rows with the cue, and of each of the classes that are most alike.
ROWS_WITH_CUE, ROWS_PER_RIVAL, RIVALS = 30, 60, 12
# Rows of the class without the cue, from which on those with it are not needed.
MIN_ROWS_WITHOUT_CUE = 30
# The likeliest, of many classes the second too.
CLASSES_PER_RANK = 6
# In nats of log odds, above the class's own share; and how much more than any other word.
MIN_LOG_ODDS, MIN_PULL_AT_TOP, MIN_PULL, MIN_PULL_RATIO = 1.5, 0.3, 1.0, 1.5
MIN_PLAIN_PULL = 0.6
# Of fewer rows no probe knows what a word means: question words of TREC were accused at 250.
LEAST_ROWS = 500
# What cross-validation chose on sets of six classes and of 77.
FEW_CLASSES, C_OF_FEW, C_OF_MANY = 8, 0.01, 0.1
SHOWN = 4
SERIOUS_SHARE = 0.5


@check(
    Embedded,
    cannot_see="A cue in less than a quarter of a class, one that two classes share or wrong "
    "labels blur, one that also looks like content; a word, of fewer than 500 rows or 20 that "
    "have it.",
    error_rate="Of 100 planted in 30 to 100 % of a class, of 27 kinds, 96 were found (25 of "
    "CR, 25 of MR, 24 of TREC, 22 of BANKING77). Nothing on these sets as they are, nor on 600 "
    "to 2,500 rows of TREC and BANKING77; with the names of BANKING77's classes hidden it took "
    "two words of their content for giveaways.",
    applies_to=has_classes,
)
def hidden_giveaway(view: Embedded) -> CheckResult | None:
    """Reports cues (``quality/cues.py``) that stand in at least a quarter of a class and, to 97 %,
    in no other, and that its content does not explain (``ContentModel.explains``); and classes
    whose texts have an even number of characters far more, or less, often than the others'. An
    error where a cue gives away more than half of all rows. Score: the share of rows given away.
    """
    table, labels = view.rows.table, view.rows.labels
    texts = view.rows.texts
    if len(texts) > MOST_ROWS:
        stride = -(-len(texts) // MOST_ROWS)
        labels = np.where(np.arange(len(texts)) % stride == 0, labels, -1)
    content = ContentModel(texts, view.vectors, labels, table.classes, view.embed, view.seed)
    candidates_ = find_cue_candidates(texts, labels, len(table.classes))[:MAX_CANDIDATES]
    unexplained = [one for one in candidates_ if not content.explains(one)]
    if not unexplained:
        return None
    rows = np.unique(np.concatenate([one.rows for one in unexplained]))
    share = len(rows) / max(1, int((labels >= 0).sum()))
    shown = list_phrase([_shown(one, table.classes) for one in unexplained], SHOWN)
    ids = view.rows.ids
    examples = tuple(
        CheckExample(int(ids[at]), f"{one.cue}: class {table.classes[one.label]!r}")
        for one in unexplained
        for at in one.rows[:2]
    )
    return result(
        ids[rows],
        f"something beside the content tells the class: {shown}",
        "A model would read it off and fail where it is missing: take it out of the texts, or "
        "write it into those of every class.",
        score=share,
        severity="error" if share > SERIOUS_SHARE else "warn",
        examples=examples,
    )


def _shown(one: CueCandidate, classes: tuple[str, ...]) -> str:
    if one.cue.cue_type == "even":
        return f"{one.cue} in {one.share:.0%} of class {classes[one.label]!r}, unlike the others"
    return (
        f"{one.cue} in {one.count} of {one.count / one.share:.0f} texts of class "
        f"{classes[one.label]!r} and in {len(one.rows) - one.count} others"
    )


@dataclass(frozen=True)
class ContentModel:
    """What is asked: ``texts``, their ``vectors`` [n, d] and ``labels`` [n], the names of the
    ``classes`` and the
    encoder."""

    texts: Sequence[str]
    vectors: Vectors
    labels: Ints
    classes: tuple[str, ...]
    embed: Callable[[Sequence[str]], Vectors]
    seed: int

    def explains(self, candidate: CueCandidate) -> bool:
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
        if not candidate.cue.is_content:
            return False
        too_few = (self.labels >= 0).sum() < LEAST_ROWS and candidate.share < DOMINANT_CLASS_SHARE
        if is_in_class_name(self.classes[candidate.label], candidate.cue.value) or (
            candidate.cue.is_word and (too_few or candidate.count < MIN_ROWS_WITH_WORD)
        ):
            return True
        if not candidate.cue.value:
            return False
        rng = generator(self.seed, "content", str(candidate.cue))
        rows = candidate.rows[self.labels[candidate.rows] == candidate.label]
        rows_with_cue = rng.permutation(rows)[: 2 * ROWS_WITH_CUE]
        training, scored = (
            rows_with_cue[: len(rows_with_cue) // 2],
            rows_with_cue[len(rows_with_cue) // 2 :],
        )
        masked = [remove_cue(self.texts[at], candidate.cue) or " " for at in rows_with_cue]
        vectors = self.embed([*masked, candidate.cue.value])
        probe, share = self._probe(candidate, vectors[: len(training)], rng)

        def odds(features: Vectors) -> Floats:
            log_p = log_softmax(probe.logits(features.astype(np.float64)))[:, 0]
            return np.asarray(log_p - np.log1p(-np.exp(np.minimum(log_p, -1e-9))))

        before = odds(self.vectors[scored])
        mean_change = float((before - odds(vectors[len(training) : -1])).mean())
        cue_log_p = log_softmax(probe.logits(vectors[-1:].astype(np.float64)))[0]
        rank = int((cue_log_p > cue_log_p[0]).sum())
        cue_log_odds = float(odds(vectors[-1:])[0] - np.log(share / (1 - share)))
        if (
            rank <= len(cue_log_p) // CLASSES_PER_RANK
            and cue_log_odds >= MIN_LOG_ODDS
            and mean_change >= MIN_PULL_AT_TOP
        ):
            return True
        if candidate.cue.is_plain:
            return mean_change >= MIN_PLAIN_PULL
        if mean_change < MIN_PULL:
            return False
        other = self.embed([_without_random_word(self.texts[at], rng) for at in scored])
        return mean_change >= MIN_PULL_RATIO * float(np.abs(before - odds(other)).mean())

    def _probe(
        self, candidate: CueCandidate, masked: Vectors, rng: np.random.Generator
    ) -> tuple[Probe, float]:
        """A probe of the class, which is its first, against those most like it, and its share."""
        without_cue = self.labels >= 0
        without_cue[candidate.rows] = False
        present = [k for k in np.unique(self.labels[without_cue]) if k != candidate.label]
        class_vectors = self.vectors[without_cue & (self.labels == candidate.label)]
        class_vectors = class_vectors[rng.permutation(len(class_vectors))[: 4 * ROWS_PER_RIVAL]]
        if len(class_vectors) < MIN_ROWS_WITHOUT_CUE:
            class_vectors = np.concatenate([masked, class_vectors])
        centre = class_vectors.mean(axis=0)
        similarity = {
            k: float(self.vectors[without_cue & (self.labels == k)].mean(axis=0) @ centre)
            for k in present
        }
        rivals = sorted(present, key=lambda k: (-similarity[k], k))[: RIVALS - 1]
        parts, marks = [class_vectors], [np.zeros(len(class_vectors), dtype=np.int64)]
        # Of one rival as many rows as of the class itself.
        max_rival_rows = ROWS_PER_RIVAL if len(rivals) > 2 else 4 * ROWS_PER_RIVAL
        for place, k in enumerate(rivals, 1):
            rows = rng.permutation(np.flatnonzero(without_cue & (self.labels == k)))[
                :max_rival_rows
            ]
            parts.append(self.vectors[rows])
            marks.append(np.full(len(rows), place))
        y = np.concatenate(marks)
        features = np.concatenate(parts).astype(np.float64)
        c = C_OF_FEW if len(parts) <= FEW_CLASSES else C_OF_MANY
        probe = fit_probe(features, y, classes=len(parts), seed=self.seed, c=c)
        return probe, float((y == 0).mean())


def _without_random_word(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    at = int(rng.integers(0, max(1, len(words))))
    return " ".join(words[:at] + words[at + 1 :]) or " "
