"""Generated texts against their references: ROUGE, BLEU, chrF and exact match, with intervals.

All are in [0, 1]. ROUGE is the mean F1 over rows (rouge-score, with stemming); BLEU and chrF are
of the whole sample (sacrebleu, its defaults), so that a resample adds the counts of its rows.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.errors import MachineError
from holdfast.core.records import Estimate, Floats
from holdfast.core.seeds import generator
from holdfast.evaluate.resample import Units, bootstrap_notes, to_estimate, undefined
from holdfast.evaluate.score import rate_estimate
from holdfast.stats.bootstrap import bootstrap, group_codes

ROUGES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l", "rougeLsum": "rouge_lsum"}
OVERLAPS = (*ROUGES.values(), "bleu", "chrf", "exact_match")
RESAMPLES = 1000
FOREIGN_SHARE = 0.02
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+")
_WHITE = re.compile(r"\s+")


class _AnyScript:
    """Words of every script, lower-case; rouge-score's own tokenizer keeps ASCII alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def overlap_scores(
    references: Sequence[str], generated: Sequence[str], *, groups: object = None, seed: int = 0,
    level: float = 0.95, resamples: int = RESAMPLES,
) -> dict[str, Estimate]:  # fmt: skip
    """ROUGE-1/2/L/Lsum, BLEU, chrF and exact match of ``generated`` [n] against ``references`` [n].

    Intervals: BCa over rows, or over whole ``groups`` [n]; Wilson's for exact match, which reads
    texts as equal that differ in white space alone. ROUGE-Lsum takes sentences as its units, which
    end at ``.``, ``!`` or ``?`` before white space. No rows: every number is undefined.
    """
    if not len(references):
        return dict.fromkeys(OVERLAPS, undefined("there are no rows"))
    codes = group_codes(groups, len(references))
    units = Units(codes, int(codes.max()) + 1, groups is not None)
    scores = _rouge(references, generated, units, seed, level, resamples)
    for name in ("bleu", "chrf"):
        scores[name] = _corpus(name, references, generated, units, seed, level, resamples)
    same = [_plain(a) == _plain(b) for a, b in zip(references, generated, strict=True)]
    scores["exact_match"] = rate_estimate(np.asarray(same), units, level)
    return scores


def need_packages() -> None:
    """Refuse, before anything is trained, a machine without the packages that score texts.

    Raises ``MachineError`` where rouge-score or sacrebleu is absent.
    """
    for package in ("rouge_score", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(
                "the scores of generated texts", f"need the package {package}", None,
                "pip install 'holdfast[text]', or generate nothing: --set generate.rows=0.",
            )  # fmt: skip


def rouge_rows(references: Sequence[str], generated: Sequence[str]) -> tuple[Floats, bool]:
    """F1 of ROUGE-1, -2, -L and -Lsum a row [n, 4], and whether the words of every script were
    read, without stemming (where over 2 % of the references' letters are not ASCII)."""
    rouge: Any = importlib.import_module("rouge_score.rouge_scorer")
    foreign = not _mostly_ascii(references)
    scorer = rouge.RougeScorer(
        list(ROUGES), use_stemmer=not foreign, tokenizer=_AnyScript() if foreign else None
    )
    rows = np.zeros((len(references), len(ROUGES)))
    for i, (reference, text) in enumerate(zip(references, generated, strict=True)):
        found = scorer.score(_sentences(reference), _sentences(text))
        rows[i] = [found[name].fmeasure for name in ROUGES]
    return rows, foreign


def _rouge(
    references: Sequence[str], generated: Sequence[str], units: Units, seed: int, level: float,
    resamples: int,
) -> dict[str, Estimate]:  # fmt: skip
    rows, foreign = rouge_rows(references, generated)

    def means(weights: Floats) -> Floats:
        spread = units.spread(weights)
        total = spread.sum(axis=1, keepdims=True)
        return np.asarray(spread @ rows / np.where(total > 0, total, np.nan))

    result = bootstrap(
        means, units.multiplicity, seed=generator(seed, "bootstrap", "rouge"), level=level,
        resamples=resamples, blocks=300,
    )  # fmt: skip
    notes = bootstrap_notes(units) + (["words of every script, unstemmed"] if foreign else [])
    names = ROUGES.values()
    return {name: to_estimate(result, i, level, notes) for i, name in enumerate(names)}


def _corpus(
    name: str, references: Sequence[str], generated: Sequence[str], units: Units, seed: int,
    level: float, resamples: int,
) -> Estimate:  # fmt: skip
    """BLEU or chrF: the counts of the rows are added, then the score is computed."""
    metric = _sacrebleu(name)
    # The counts of each row have no public name in sacrebleu; its own bootstrap reads them here.
    counts = np.asarray(metric._extract_corpus_statistics(list(generated), [list(references)]))

    def scores(weights: Floats) -> Floats:
        totals = (units.spread(weights) @ counts).round().astype(int)
        made = [metric._compute_score_from_stats(line.tolist()).score / 100 for line in totals]
        return np.asarray(made, dtype=np.float64)

    result = bootstrap(
        scores, units.multiplicity, seed=generator(seed, "bootstrap", name), level=level,
        resamples=resamples, blocks=200,
    )  # fmt: skip
    return to_estimate(result, 0, level, bootstrap_notes(units))


def _sacrebleu(name: str) -> Any:
    metrics: Any = importlib.import_module("sacrebleu.metrics")
    return metrics.BLEU(force=True) if name == "bleu" else metrics.CHRF()


def _mostly_ascii(texts: Sequence[str]) -> bool:
    letters = "".join(word for text in texts for word in _WORD.findall(text))
    foreign = sum(not letter.isascii() for letter in letters)
    return foreign <= FOREIGN_SHARE * len(letters)


def _sentences(text: str) -> str:
    return _SENTENCE_END.sub("\n", text.strip())


def _plain(text: str) -> str:
    return _WHITE.sub(" ", text).strip()
