"""Metrics of generated texts against their references, and their registry: ROUGE, BLEU, chrF and
exact match, all in [0, 1].

ROUGE is the mean F1 over rows (rouge-score, with stemming); BLEU and chrF are computed on the whole
sample (sacrebleu, its defaults); exact match ignores differences in white space.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.discovery import Registry
from holdfast.core.packages import need_packages
from holdfast.core.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class Texts:
    """Generated ``texts`` and their ``references``; the ``sources`` that they were generated from,
    and the ``tables`` on which the code of a row runs, if there are any; all [n]."""

    references: Sequence[str]
    texts: Sequence[str]
    sources: Sequence[str] = ()
    tables: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.references)

    def take(self, rows: Ints) -> Texts:
        """The texts of these rows, in this order."""
        tables = None if self.tables is None else [self.tables[i] for i in rows]
        return replace(
            self,
            references=[self.references[i] for i in rows],
            texts=[self.texts[i] for i in rows],
            sources=[self.sources[i] for i in rows] if self.sources else (),
            tables=tables,
        )


@dataclass(frozen=True, slots=True)
class TextMetric:
    """A metric of generated texts; see ``Metric`` for that of classes.

    Either ``of_all`` gives the number of a whole sample, or ``of_rows`` one per row [n] (NaN for a
    row without one), of which the mean is taken. ``rate`` says that a row's number is 0 or 1.
    ``undefined`` is the reason for the user if ``compute`` returns ``None``.
    """

    name: str
    higher_is_better: bool
    low: float
    high: float
    of_all: Callable[[Texts], float | None] | None = None
    of_rows: Callable[[Texts], Floats] | None = None
    undefined: str = "there are no rows"
    rate: bool = False

    def compute(self, texts: Texts) -> float | None:
        """The value, or ``None`` if it is undefined; never NaN."""
        if not len(texts):
            return None
        if self.of_rows is not None:
            rows = self.of_rows(texts)
            # A row without a number (a reference that does not run) does not count.
            defined = rows[np.isfinite(rows)]
            return float(defined.mean()) if len(defined) else None
        value = self.of_all(texts) if self.of_all is not None else None
        return None if value is None or not math.isfinite(value) else float(value)


TEXT_METRICS: Registry[TextMetric] = Registry("text metric", "train.metric")


def add_text_metric(metric: TextMetric) -> TextMetric:
    """Register a metric of generated texts under its name."""
    return TEXT_METRICS.add(metric.name, metric)


ROUGES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l", "rougeLsum": "rouge_lsum"}
FOREIGN_SHARE = 0.02
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+")
_WHITE = re.compile(r"\s+")


class _AnyScript:
    """Words of every script, in lowercase; rouge-score's own tokenizer keeps only ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def need_score_packages() -> None:
    """Check that the packages that score texts are installed.

    Raises ``MachineError`` if rouge-score or sacrebleu is missing.
    """
    need_packages(
        "a score of generated texts",
        "rouge_score",
        "sacrebleu",
        install="'holdfast[generation]'",
        otherwise="skip generation: --set generate.rows=0",
    )


def rouge_rows(
    references: Sequence[str], generated: Sequence[str], names: Sequence[str] = tuple(ROUGES)
) -> tuple[Floats, bool]:
    """F1 of ROUGE-1, -2, -L and -Lsum per row [n, 4], and whether words of every script were used,
    without stemming (if over 2 % of the references' letters are not ASCII)."""
    rouge: Any = importlib.import_module("rouge_score.rouge_scorer")
    letters = "".join(word for text in references for word in _WORD.findall(text))
    foreign = sum(not letter.isascii() for letter in letters) > FOREIGN_SHARE * len(letters)
    # The stemmer knows only English endings.
    scorer = rouge.RougeScorer(
        list(names), use_stemmer=not foreign, tokenizer=_AnyScript() if foreign else None
    )
    rows = np.zeros((len(references), len(names)))
    for i, (reference, text) in enumerate(zip(references, generated, strict=True)):
        scores = scorer.score(_sentences(reference), _sentences(text))
        rows[i] = [scores[name].fmeasure for name in names]
    return rows, foreign


def same_rows(references: Sequence[str], generated: Sequence[str]) -> Floats:
    """1 for a text equal to its reference up to white space, else 0, [n]."""
    pairs = zip(references, generated, strict=True)
    return np.asarray([float(_plain(a) == _plain(b)) for a, b in pairs])


def sacrebleu_metric(name: str) -> Any:
    """sacrebleu's ``bleu`` or ``chrf``, whose scores are up to 100."""
    metrics: Any = importlib.import_module("sacrebleu.metrics")
    # ``force`` keeps sacrebleu from printing that the texts look tokenised.
    return metrics.BLEU(force=True) if name == "bleu" else metrics.CHRF()


def _sentences(text: str) -> str:
    # rouge-score treats lines as sentences.
    return _SENTENCE_END.sub("\n", text.strip())


def _plain(text: str) -> str:
    return _WHITE.sub(" ", text).strip()


def _rouge(rouge_type: str, name: str) -> TextMetric:
    def rows(texts: Texts) -> Floats:
        need_score_packages()
        return rouge_rows(texts.references, texts.texts, (rouge_type,))[0][:, 0]

    return add_text_metric(TextMetric(name, True, 0.0, 1.0, of_rows=rows))


def _corpus(name: str) -> TextMetric:
    def score(texts: Texts) -> float:
        need_score_packages()
        result = sacrebleu_metric(name).corpus_score(list(texts.texts), [list(texts.references)])
        return float(result.score) / 100

    return add_text_metric(TextMetric(name, True, 0.0, 1.0, of_all=score))


for _kind, _name in ROUGES.items():
    _rouge(_kind, _name)
for _name in ("bleu", "chrf"):
    _corpus(_name)


def _exact(texts: Texts) -> Floats:
    return same_rows(texts.references, texts.texts)


add_text_metric(TextMetric("exact_match", True, 0.0, 1.0, of_rows=_exact, rate=True))

EXECUTION_NAME = "execution_accuracy"


def _not_run(texts: Texts) -> Floats:
    return np.full(len(texts), np.nan)


NO_TABLE = "they have no table, or the reference's code does not run on it"
EXECUTION = add_text_metric(
    TextMetric(EXECUTION_NAME, True, 0.0, 1.0, of_rows=_not_run, rate=True, undefined=NO_TABLE)
)
