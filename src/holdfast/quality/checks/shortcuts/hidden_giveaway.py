"""Spurious features that predict the label (a symbol, an id, a format, a length) although the
content of the texts does not explain them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import DROPPED_TERMS, list_option, list_phrase, percent_phrase
from holdfast.models.probes.probe import Probe, fit_probe
from holdfast.quality.check import CheckExample, CheckResult, check, has_classes, result
from holdfast.quality.clean.terms import Terms, drop_terms
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
# Most candidates that are examined, the most frequent first; each takes a second at most.
MAX_CANDIDATES = 40
# Most rows with the cue, most rows of each similar class, and most classes.
ROWS_WITH_CUE, ROWS_PER_RIVAL, RIVALS = 30, 60, 12
# With this many rows of the class without the cue, the rows with it are not needed.
MIN_ROWS_WITHOUT_CUE = 30
# The cue's class may have rank 1; one more rank for every six classes.
CLASSES_PER_RANK = 6
# In nats of log odds above the class's share; the ratio is to removing any other word.
MIN_LOG_ODDS, MIN_PULL_AT_TOP, MIN_PULL, MIN_PULL_RATIO = 1.5, 0.3, 1.0, 1.5
MIN_PLAIN_PULL = 0.6
# On fewer rows a probe cannot learn what a word means: at 250 rows, question words of TREC were
# reported.
LEAST_ROWS = 500
# Chosen by cross-validation on data sets of 6 and of 77 classes.
FEW_CLASSES, C_OF_FEW, C_OF_MANY = 8, 0.01, 0.1
SHOWN = 4
# The share of a cue's rows that the cleaning step must change.
MIN_DROPPED = 0.9
SERIOUS_SHARE = 0.5


@check(
    Embedded,
    cannot_see="A cue in less than a quarter of a class, one that two classes share or that wrong "
    "labels obscure, and one that looks like content. A word in fewer than 20 rows; in a table of "
    "fewer than 500 rows, a word in less than 80 % of a class.",
    error_rate="Of 100 shortcuts of 27 kinds, planted in 30 to 100 % of a class, it found 96 (25 "
    "in CR, 25 in MR, 24 in TREC, 22 in BANKING77). It reports nothing on the unmodified sets, nor "
    "on 600 to 2,500 rows of TREC and BANKING77. With 100 to 400 rows it reported a shortcut where "
    "none was planted in 8 of 100 draws of BANKING77, and in none of 300 of CR, MR and TREC. With "
    "the class names of BANKING77 hidden, it reported two words that are real content.",
    applies_to=has_classes,
)
def hidden_giveaway(view: Embedded) -> CheckResult | None:
    """Reports shortcuts: cues (``quality/cues.py``) that occur in at least a quarter of a class and
    are not explained by the content (``ContentModel.explains``). At least 97 % of the rows with the
    cue must be of that class. It also reports classes whose texts have an even number of characters
    far more or less often than the others'. It is an error if the cues mark more than half of all
    rows. Score: the share of marked rows.
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
        f"shortcut: a feature that is not content predicts the class: {shown}",
        _remedy(texts, unexplained),
        score=share,
        severity="error" if share > SERIOUS_SHARE else "warn",
        examples=examples,
    )


def _remedy(texts: Sequence[str], found: Sequence[CueCandidate]) -> str:
    remedy = (
        "Remove it from the texts, or add it to the texts of every class. Otherwise the model may "
        "rely on it and fail where it is missing."
    )
    terms = [one.cue.value for one in found if _is_dropped(texts, one)]
    if not terms:
        return remedy
    option = list_option(DROPPED_TERMS, terms)
    return (
        f"{remedy} holdfast train with {option} deletes it from the texts of all splits and from "
        "every text that is predicted later."
    )


def _is_dropped(texts: Sequence[str], one: CueCandidate) -> bool:
    """Whether the cleaning step ``terms`` deletes the cue from nearly all rows that have it."""
    if not one.cue.is_deletable:
        return False
    settings = Terms((one.cue.value,))
    changed = sum(drop_terms(texts[at], settings) != texts[at] for at in one.rows.tolist())
    return bool(changed >= MIN_DROPPED * len(one.rows))


def _shown(one: CueCandidate, classes: tuple[str, ...]) -> str:
    if one.cue.cue_type == "even":
        return (
            f"{one.cue} in {percent_phrase(one.share)} of class {classes[one.label]!r}, "
            "unlike other classes"
        )
    return (
        f"{one.cue} in {one.count} of {one.count / one.share:.0f} texts of class "
        f"{classes[one.label]!r} and in {len(one.rows) - one.count} others"
    )


@dataclass(frozen=True)
class ContentModel:
    """Decides whether the content of the texts explains a cue: from the ``texts``, their
    ``vectors`` [n, d] and ``labels`` [n] (−1 if unknown), the names of the ``classes`` and the
    encoder ``embed``."""

    texts: Sequence[str]
    vectors: Vectors
    labels: Ints
    classes: tuple[str, ...]
    embed: Callable[[Sequence[str]], Vectors]
    seed: int

    def explains(self, candidate: CueCandidate) -> bool:
        """Whether a model that never saw the cue expects it in this class.

        A probe is fitted on rows without the cue, to separate its class from the eleven most
        similar classes. If fewer than 30 rows of its class lack the cue, rows with the cue removed
        are added. The content explains the cue in any of these cases:

        - the class name contains the cue;
        - the probe ranks the class first for the cue as a text (with six classes or more also
          second), by 1.5 nats of log odds above the class's share, and removing the cue from a text
          lowers the log odds by 0.3 nats on average;
        - removing the cue lowers the log odds by 0.6 nats, if it is a word of letters only;
        - for any other cue, by 1 nat and by 1.5 times what removing a random word does.

        A word in fewer than 20 rows counts as content. So does, in a table of fewer than 500 rows,
        a word that less than 80 % of the class have: no probe can decide these cases. A format or a
        length is never explained: it has no content to remove.
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
        """A probe that separates the class (its class 0) from the most similar classes, and the
        class's share of the training rows."""
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
        # With one or two rivals, as many rows of each as of the class.
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
