"""What a metric of written texts is, and the registry of all of them.

Written texts against their references: ROUGE, BLEU, chrF and exact match, all in [0, 1].

ROUGE is the mean F1 over rows (rouge-score, with stemming); BLEU and chrF are of the whole sample
(sacrebleu, its defaults); exact match reads texts as equal that differ in white space alone.
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
from holdfast.core.errors import MachineError
from holdfast.core.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that a model wrote, ``texts``, and what was wanted, ``references``; ``sources`` they
    were written from and ``tables`` that code of a row runs on, where there are any; all [n]."""

    references: Sequence[str]
    texts: Sequence[str]
    sources: Sequence[str] = ()
    tables: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.references)

    def take(self, rows: Ints) -> Texts:
        """These rows, in this order."""
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
    """A number that says how good written texts are; see ``Metric`` for that of classes.

    Either ``of_all`` gives the number of a whole sample, or ``of_rows`` one a row [n] (NaN where a
    row has none), whose mean it is. ``rate`` says that a row's number is 0 or 1. ``undefined`` is
    the sentence for a user when ``compute`` gives ``None``.
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
        """The value, or ``None`` where it is undefined; NaN never escapes."""
        if not len(texts):
            return None
        if self.of_rows is not None:
            rows = self.of_rows(texts)
            # A row that has no number (a reference that does not run) is no row of this metric.
            defined = rows[np.isfinite(rows)]
            return float(defined.mean()) if len(defined) else None
        value = self.of_all(texts) if self.of_all is not None else None
        return None if value is None or not math.isfinite(value) else float(value)


TEXT_METRICS: Registry[TextMetric] = Registry("text metric", "train.metric")


def add_text_metric(metric: TextMetric) -> TextMetric:
    """Register a metric of written texts under its name."""
    return TEXT_METRICS.add(metric.name, metric)


ROUGES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l", "rougeLsum": "rouge_lsum"}
FOREIGN_SHARE = 0.02
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_WORD = re.compile(r"\w+")
_WHITE = re.compile(r"\s+")


class _AnyScript:
    """Words of every script, lower-case; rouge-score's own tokenizer keeps ASCII alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def need_packages() -> None:
    """Refuse a machine without the packages that score texts.

    Raises ``MachineError`` where rouge-score or sacrebleu is absent.
    """
    for package in ("rouge_score", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise MachineError(
                "the scores of generated texts",
                f"need the package {package}",
                None,
                "pip install 'holdfast[text]', or generate nothing: --set generate.rows=0.",
            )


def rouge_rows(
    references: Sequence[str], generated: Sequence[str], names: Sequence[str] = tuple(ROUGES)
) -> tuple[Floats, bool]:
    """F1 of ROUGE-1, -2, -L and -Lsum a row [n, 4], and whether the words of every script were
    read, without stemming (where over 2 % of the references' letters are not ASCII)."""
    rouge: Any = importlib.import_module("rouge_score.rouge_scorer")
    letters = "".join(word for text in references for word in _WORD.findall(text))
    foreign = sum(not letter.isascii() for letter in letters) > FOREIGN_SHARE * len(letters)
    # The stemmer knows English endings alone.
    scorer = rouge.RougeScorer(
        list(names), use_stemmer=not foreign, tokenizer=_AnyScript() if foreign else None
    )
    rows = np.zeros((len(references), len(names)))
    for i, (reference, text) in enumerate(zip(references, generated, strict=True)):
        scores = scorer.score(_sentences(reference), _sentences(text))
        rows[i] = [scores[name].fmeasure for name in names]
    return rows, foreign


def same_rows(references: Sequence[str], generated: Sequence[str]) -> Floats:
    """1 where a text is its reference but for white space, else 0, [n]."""
    pairs = zip(references, generated, strict=True)
    return np.asarray([float(_plain(a) == _plain(b)) for a, b in pairs])


def sacrebleu_metric(name: str) -> Any:
    """sacrebleu's ``bleu`` or ``chrf``, whose scores are up to 100."""
    metrics: Any = importlib.import_module("sacrebleu.metrics")
    # ``force`` keeps sacrebleu from printing that the texts look tokenised.
    return metrics.BLEU(force=True) if name == "bleu" else metrics.CHRF()


def _sentences(text: str) -> str:
    # rouge-score takes lines for sentences.
    return _SENTENCE_END.sub("\n", text.strip())


def _plain(text: str) -> str:
    return _WHITE.sub(" ", text).strip()


def _rouge(rouge_type: str, name: str) -> TextMetric:
    def rows(texts: Texts) -> Floats:
        need_packages()
        return rouge_rows(texts.references, texts.texts, (rouge_type,))[0][:, 0]

    return add_text_metric(TextMetric(name, True, 0.0, 1.0, of_rows=rows))


def _corpus(name: str) -> TextMetric:
    def score(texts: Texts) -> float:
        need_packages()
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


NO_TABLE = "there is no table beside them, or the reference's code does not run on it"
EXECUTION = add_text_metric(
    TextMetric(EXECUTION_NAME, True, 0.0, 1.0, of_rows=_not_run, rate=True, undefined=NO_TABLE)
)
