"""The words of the trade, explained where they stand and once more at the end of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class GlossaryEntry:
    """``forms`` are regular expressions of how it is written; ``meaning`` one or two sentences."""

    name: str
    forms: tuple[str, ...]
    meaning: str

    @property
    def key(self) -> str:
        """The id of its entry on the page."""
        return "word-" + re.sub(r"\W+", "-", self.name.lower()).strip("-")


GLOSSARY = (
    GlossaryEntry("accuracy", (r"accuracy",), "The share of rows that are predicted correctly."),
    GlossaryEntry(
        "balanced accuracy",
        (r"balanced accuracy",),
        "The share of correct predictions in each class, averaged over the classes.",
    ),
    GlossaryEntry(
        "baseline",
        (r"baselines?",),
        "What can be had without fine-tuning. A model that does not beat it is not worth its cost.",
    ),
    GlossaryEntry(
        "linear probe",
        (r"linear probe", r"simple baseline"),
        "A linear classifier on the features of the base model, which is not trained. It takes "
        "seconds, so fine-tuning should beat it.",
    ),
    GlossaryEntry(
        "majority class",
        (r"majority class", r"(?:guessing )?the commonest class"),
        "Always predicting the most frequent class, without reading the row.",
    ),
    GlossaryEntry(
        "untuned model", (r"untuned model",), "The pretrained model before any training here."
    ),
    GlossaryEntry(
        "95 % interval",
        (r"95\s?% interval", r"95\s?% limits"),
        "A range that is computed so that, in 95 of 100 repetitions with other rows of the same "
        "kind, it holds the true score. It is wide where the rows are few.",
    ),
    GlossaryEntry(
        "Wilson interval",
        (r"Wilson(?:'s)?(?: score)? intervals?", r"Wilson", r"score intervals?"),
        "An interval of a share that stays right for few rows and near 0 or 100 %, where "
        "“± two standard errors” fails (Wilson 1927).",
    ),
    GlossaryEntry(
        "Newcombe's interval",
        (r"Newcombe(?:'s)?(?: paired)?(?: interval)?",),
        "An interval of the difference of two shares on the same rows (Newcombe 1998).",
    ),
    GlossaryEntry(
        "paired test",
        (r"paired (?:test|bootstrap)", r"McNemar(?:'s)?(?: mid-p)?(?: test)?"),
        "Both models predict the same rows, and their results are compared row by row. p is how "
        "often chance would give a difference at least as large if the models were equally good.",
    ),
    GlossaryEntry(
        "bootstrap",
        (r"bootstrap", r"resamples?"),
        "Drawing the same number of rows again and again with repeats, to see how much a number "
        "depends on which rows were there.",
    ),
    GlossaryEntry(
        "loss",
        (r"(?:validation |training )?loss",),
        "How surprised the model is by the true answers: minus the logarithm of the probability "
        "that it gave them. Lower is better; a sure and wrong answer costs most.",
    ),
    GlossaryEntry(
        "nats",
        (r"nats?",),
        "The unit of the loss with natural logarithms. 0.69 nats is a coin toss between two "
        "answers, 0 is certainty of the right one.",
    ),
    GlossaryEntry(
        "calibrated loss",
        (
            r"calibrated (?:validation )?loss",
            r"refined loss",
            r"loss after its best temperature",
            r"best-temperature loss",
            r"validation, (?:refined|calibrated)",
        ),
        "The validation loss after temperature scaling, so that overconfidence does not raise it.",
    ),
    GlossaryEntry(
        "temperature",
        (r"temperature",),
        "One number that the model's logits are divided by before they become probabilities. Above "
        "1 it lowers the highest probability; the predicted class stays the same.",
    ),
    GlossaryEntry(
        "perplexity",
        (r"perplexity",),
        "Between how many equally likely next tokens the model hesitates on average. Lower is "
        "better.",
    ),
    GlossaryEntry(
        "training sample",
        (r"training sample", r"train probe"),
        "A fixed sample of the training rows, measured in the same way as the validation rows, so "
        "that the two can be compared.",
    ),
    GlossaryEntry(
        "validation rows",
        (r"validation rows?",),
        "Rows that the model is not trained on. Every choice is made on them: when to stop, which "
        "checkpoint to keep.",
    ),
    GlossaryEntry(
        "test rows",
        (r"test rows?",),
        "Rows that took no part in any choice. They are scored once, at the end.",
    ),
    GlossaryEntry(
        "evaluation",
        (r"(?<=each )(?:evaluation|look)", r"(?<=\d )(?:evaluations|looks)"),
        "One measurement of the training sample and of the validation rows during training.",
    ),
    GlossaryEntry(
        "macro", (r"macro",), "The mean over classes, each weighing the same, however rare."
    ),
    GlossaryEntry(
        "weighted", (r"weighted",), "The mean over classes, each weighing as many rows as it has."
    ),
    GlossaryEntry(
        "precision", (r"precision",), "Of the rows given this class, the share that has it."
    ),
    GlossaryEntry(
        "recall", (r"recall",), "Of the rows that have this class, the share that was found."
    ),
    GlossaryEntry(
        "F1",
        (r"F1(?: (?:macro|micro))?",),
        "Precision and recall in one number (their harmonic mean).",
    ),
    GlossaryEntry(
        "ROC-AUC",
        (r"ROC-AUC",),
        "How often a row of the class gets a higher score than a row without it. 50 % is chance.",
    ),
    GlossaryEntry(
        "average precision",
        (r"average precision",),
        "Precision averaged over all thresholds; chance is the share of the class.",
    ),
    GlossaryEntry(
        "calibration error (ECE)",
        (r"calibration error(?: \(ECE\))?", r"ECE"),
        "How far the model's confidence is from how often it is right, on average. 0 is best.",
    ),
    GlossaryEntry(
        "ROUGE",
        (r"ROUGE-\w+", r"ROUGE"),
        "How much of the words, pairs or order of words a written text shares with its reference, "
        "0 to 1. It says little about truth.",
    ),
    GlossaryEntry(
        "BLEU", (r"BLEU",), "Shared word sequences of one to four words with the reference."
    ),
    GlossaryEntry("chrF", (r"chrF",), "Shared sequences of letters with the reference, 0 to 1."),
    GlossaryEntry(
        "margin (AUM)",
        (r"margin \(AUM\)", r"AUM"),
        "The score of a row's own label minus the highest other score, averaged over the passes. "
        "Below 0 the model would rather have given another label.",
    ),
    GlossaryEntry(
        "near-copies",
        (r"near-cop(?:y|ies)", r"near-duplicates?"),
        "Texts that differ in a few words only. On both sides of the division they make the score "
        "too good.",
    ),
)


class Glossary:
    """Marks each word once a section; remembers which were met, in the order of ``GLOSSARY``."""

    def __init__(self, words: Sequence[GlossaryEntry] = GLOSSARY) -> None:
        self._words = words
        forms = [(form, word) for word in words for form in word.forms]
        # The longest form first: "calibration error (ECE)" is one word, not two.
        self._forms = sorted(forms, key=lambda pair: -len(pair[0]))
        every = "|".join(f"({form})" for form, _ in self._forms)
        self._pattern = re.compile(rf"(?<![\w.-])(?:{every})(?![\w=-])", re.IGNORECASE)
        self._here: set[str] = set()
        self._met: set[str] = set()

    def begin(self) -> str:
        """A section begins: its words are marked anew. Writes nothing."""
        self._here = set()
        return ""

    def mark(self, text: object) -> Markup:
        """``text``, escaped, with the first of each word of this section marked. What is ``Markup``
        already is left as it is."""
        if isinstance(text, Markup):
            return text
        full_text, parts, at = str(text), [], 0
        for match in self._pattern.finditer(full_text):
            word = self._forms[(match.lastindex or 1) - 1][1]
            if word.key in self._here:
                continue
            self._here.add(word.key)
            self._met.add(word.key)
            parts += [escape(full_text[at : match.start()]), _definition(match.group(), word)]
            at = match.end()
        return Markup("").join([*parts, escape(full_text[at:])])

    @property
    def met(self) -> tuple[GlossaryEntry, ...]:
        """The words that were marked so far."""
        return tuple(word for word in self._words if word.key in self._met)


def _definition(written: str, word: GlossaryEntry) -> Markup:
    # The meaning is an attribute: it is no part of the text that is read, copied or searched.
    return Markup(
        '<dfn class="term" tabindex="0" data-meaning="{}" aria-describedby="{}">{}</dfn>'
    ).format(word.meaning, word.key, written)
