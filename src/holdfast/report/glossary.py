"""The glossary: terms are marked where the page uses them, and defined at the end of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from holdfast.report.numbers import NBSP


@dataclass(frozen=True, slots=True)
class GlossaryEntry:
    """A term. ``forms`` are regular expressions of its spellings; ``meaning`` is one sentence."""

    name: str
    forms: tuple[str, ...]
    meaning: str

    @property
    def key(self) -> str:
        """The id of the entry on the page."""
        return "word-" + re.sub(r"\W+", "-", self.name.lower()).strip("-")


GLOSSARY = (
    GlossaryEntry(
        "accuracy", ("accuracy",), "The share of rows that the model predicts correctly."
    ),
    GlossaryEntry(
        "average precision",
        ("average precision",),
        "Precision averaged over all thresholds; chance is the share of the class.",
    ),
    GlossaryEntry(
        "balanced accuracy",
        ("balanced accuracy",),
        "The share of correct predictions in each class, averaged over the classes.",
    ),
    GlossaryEntry(
        "base model", (r"base models?", "untuned model"), "The pretrained model before fine-tuning."
    ),
    GlossaryEntry(
        "baseline",
        (r"baselines?",),
        "A simple model or rule to compare with: a fine-tuned model that does not beat it is "
        "not worth its cost.",
    ),
    GlossaryEntry(
        "BLEU",
        ("BLEU",),
        "The overlap of sequences of one to four words between a generated text and its "
        "reference, from 0 to 1.",
    ),
    GlossaryEntry(
        "bootstrap",
        ("bootstrap", r"resamples?"),
        "Sampling the rows many times with replacement, to see how much a number depends on "
        "which rows were sampled.",
    ),
    GlossaryEntry(
        "calibrated loss",
        (
            r"calibrated (?:validation )?loss",
            "refined loss",
            "loss after its best temperature",
            "best-temperature loss",
            r"validation, (?:refined|calibrated)",
        ),
        "The validation loss after temperature scaling, so that overconfidence does not raise it.",
    ),
    GlossaryEntry(
        "calibration",
        (r"calibrat(?:ion|ed)",),
        "How well confidence agrees with accuracy: of the predictions with 80 % confidence, "
        "80 % should be correct.",
    ),
    GlossaryEntry(
        "calibration error (ECE)",
        (r"calibration error(?: \(ECE\))?", "ECE"),
        "The mean absolute difference between confidence and accuracy, over bins of rows; 0 "
        "is best.",
    ),
    GlossaryEntry(
        "checkpoint", (r"checkpoints?",), "The saved state of the model at one step of training."
    ),
    GlossaryEntry(
        "chrF",
        ("chrF",),
        "The overlap of character sequences between a generated text and its reference, from "
        "0 to 1.",
    ),
    GlossaryEntry(
        "class imbalance",
        ("class imbalance",),
        "Classes with very different numbers of rows, so that accuracy says little about the "
        "rare classes.",
    ),
    GlossaryEntry(
        "confidence", ("confidence",), "The predicted probability of the predicted class."
    ),
    GlossaryEntry(
        "confidence interval",
        (r"95\s?% (?:CI|intervals?|limits)", r"confidence intervals?"),
        "A range computed so that, in 95 of 100 repetitions with other rows of the same kind, "
        "it contains the true value; it is wide where rows are few.",
    ),
    GlossaryEntry(
        "confusion matrix",
        ("confusion matrix",),
        "A table that counts the rows by true class and predicted class.",
    ),
    GlossaryEntry(
        "cross-validation",
        (r"cross-validat(?:ion|ed)",),
        "Training on all folds of the rows but one and scoring the remaining fold, for each "
        "fold in turn.",
    ),
    GlossaryEntry(
        "data leakage",
        (r"(?:data )?leakage",),
        "Information in the training data that is not available at prediction time, which "
        "makes the test score too high.",
    ),
    GlossaryEntry(
        "early stopping",
        ("early stopping", r"stop(?:s|ped)? early"),
        "Ending the training when the validation score no longer improves.",
    ),
    GlossaryEntry("epoch", (r"epochs?",), "One pass over all training rows."),
    GlossaryEntry(
        "evaluation",
        (r"(?<=each )(?:evaluation|look)", r"(?<=\d )(?:evaluations|looks)"),
        "A measurement of the training sample and the validation rows at one step of training.",
    ),
    GlossaryEntry("exact duplicates", (r"exact duplicates?",), "Rows with the same text."),
    GlossaryEntry(
        "F1", (r"F1(?: (?:macro|micro))?",), "The harmonic mean of precision and recall."
    ),
    GlossaryEntry(
        "fine-tuning",
        (r"fine-tun(?:ing|ed)",),
        "Training a pretrained model further on the rows of a task.",
    ),
    GlossaryEntry(
        "forgetting",
        (r"(?:catastrophic )?forgetting",),
        "The loss of what the base model knew, caused by fine-tuning.",
    ),
    GlossaryEntry(
        "generalization gap",
        ("generalization gap",),
        "The difference between the scores on training rows and on validation rows; a large "
        "gap is a sign of overfitting.",
    ),
    GlossaryEntry(
        "Holm's adjustment",
        (r"Holm(?:'s adjustment)?",),
        "A correction of p-values for several tests at once, which bounds the probability of "
        "any false alarm.",
    ),
    GlossaryEntry(
        "hyperparameters",
        (r"hyperparameters?",),
        "Settings that are chosen before training, such as the learning rate and the batch size.",
    ),
    GlossaryEntry(
        "learning rate", (r"learning rates?",), "How far one training step moves the weights."
    ),
    GlossaryEntry(
        "linear probe",
        ("linear probe", "simple baseline"),
        "A linear classifier on the features of the base model, which stays unchanged: it "
        "takes seconds, so fine-tuning should beat it.",
    ),
    GlossaryEntry(
        "log-odds",
        ("log-odds",),
        "The logarithm of p ÷ (1 − p), where p is the predicted probability of the class.",
    ),
    GlossaryEntry(
        "loss",
        (r"(?:validation |training )?loss",),
        "Minus the logarithm of the probability that the model predicts for the true label; "
        "lower is better, and confident wrong predictions cost most.",
    ),
    GlossaryEntry(
        "macro",
        ("macro",),
        "The mean over classes, with the same weight for each class, however rare.",
    ),
    GlossaryEntry(
        "margin (AUM)",
        (r"margin \(AUM\)", "AUM"),
        "The score of a row's own label minus the highest other score, averaged over the "
        "epochs; below 0 the model prefers another label.",
    ),
    GlossaryEntry(
        "membership inference",
        ("membership inference",),
        "A test of how well the model's loss tells training rows from rows that it was not "
        "trained on.",
    ),
    GlossaryEntry(
        "memorization",
        (r"memoriz(?:ation|ed|es|ing)",),
        "Predicting training rows better than new rows.",
    ),
    GlossaryEntry(
        "micro",
        (r"micro(?:-averaged)?",),
        "Computed over all labels together, so that frequent classes count more.",
    ),
    GlossaryEntry(
        "most frequent answer",
        ("most frequent answer",),
        "A baseline that gives every input the most frequent training answer, without reading it.",
    ),
    GlossaryEntry(
        "most frequent class",
        ("most frequent class", "majority class", r"(?:guessing )?the commonest class"),
        "A baseline that always predicts the most frequent class, without reading the row.",
    ),
    GlossaryEntry(
        "nats",
        (r"nats?",),
        "The unit of the loss with natural logarithms: 0.69 is a coin toss between two "
        "classes, 0 is a probability of 1 for the correct class.",
    ),
    GlossaryEntry(
        "near-duplicates",
        (r"near-duplicates?", r"near-cop(?:y|ies)"),
        "Texts that differ in only a few words: in both training and test set they make the "
        "test score too high.",
    ),
    GlossaryEntry(
        "Newcombe's interval",
        (r"Newcombe(?:'s)?(?: paired)?(?: interval)?",),
        "A confidence interval of the difference of two shares (Newcombe 1998), in a paired form "
        "where both are of the same rows.",
    ),
    GlossaryEntry(
        "out of fold",
        ("out[- ]of[- ]fold",),
        "Predicted by a model that was not trained on the fold of the row.",
    ),
    GlossaryEntry(
        "overfitting",
        (r"overfit(?:ting|ted|s)?",),
        "Learning details of the training rows that do not hold for new rows.",
    ),
    GlossaryEntry(
        "paired test",
        (r"paired (?:test|bootstrap)", r"McNemar(?:'s)?(?: mid-p)?(?: test)?"),
        "A comparison of two models row by row on the same rows; p is the probability of a "
        "difference at least as large if both were equally good.",
    ),
    GlossaryEntry(
        "perplexity",
        ("perplexity",),
        "The number of equally likely next tokens among which the model hesitates on average; "
        "lower is better.",
    ),
    GlossaryEntry(
        "precision",
        ("precision",),
        "Of the rows predicted as this class, the share that belongs to it.",
    ),
    GlossaryEntry(
        "recall",
        ("recall",),
        "Of the rows that belong to this class, the share that is predicted as this class.",
    ),
    GlossaryEntry(
        "ROC-AUC",
        ("ROC-AUC", "AUC"),
        "The probability that a row of the class gets a higher score than another row; 50 % "
        "is chance.",
    ),
    GlossaryEntry(
        "ROUGE",
        (r"ROUGE-\w+", "ROUGE"),
        "The overlap of words, word pairs or word order between a generated text and its "
        "reference, from 0 to 1; it says little about factual accuracy.",
    ),
    GlossaryEntry(
        "selective prediction",
        (r"selective prediction", r"coverage"),
        "Predicting only from a threshold of confidence on, and leaving the other rows to an "
        "annotator; coverage is the share of rows with a prediction.",
    ),
    GlossaryEntry(
        "shortcut",
        (r"shortcuts?",),
        "A feature, such as a single word, that predicts the label in these rows but need not do "
        "so in new rows.",
    ),
    GlossaryEntry(
        "slice", (r"slices?",), "A group of rows with a common property, such as a long text."
    ),
    GlossaryEntry(
        "stratified",
        ("stratified",),
        "Split so that each set has about the same share of each class.",
    ),
    GlossaryEntry(
        "temperature",
        (r"temperature(?: scaling)?",),
        "One number by which the model's logits are divided before they become probabilities: "
        "above 1 it lowers the highest probability, and the predicted class stays the same.",
    ),
    GlossaryEntry(
        "test rows",
        (r"test (?:rows?|set)",),
        "Rows that took no part in any choice and are scored once, at the end.",
    ),
    GlossaryEntry(
        "training sample",
        ("training sample", "train probe"),
        "A fixed sample of the training rows, scored in the same way as the validation rows, "
        "so that the two can be compared.",
    ),
    GlossaryEntry(
        "underfitting",
        (r"underfit(?:ting|ted|s)?",),
        "Learning too little: the model predicts even the training rows poorly.",
    ),
    GlossaryEntry(
        "validation rows",
        (r"validation (?:rows?|set)",),
        "Rows on which every choice is made, such as early stopping and the best checkpoint. Their "
        "predictions are always by a model that was not trained on them (out of fold if the run is "
        "cross-fitted).",
    ),
    GlossaryEntry(
        "weighted", ("weighted",), "The mean over classes, each weighted by its number of rows."
    ),
    GlossaryEntry(
        "Wilson interval",
        (r"Wilson(?:'s)?(?: score)? intervals?", "Wilson", r"score intervals?"),
        "A confidence interval of a share that stays accurate for few rows and near 0 or 100 "
        "%, where “± two standard errors” fails (Wilson 1927).",
    ),
)


class Glossary:
    """Marks each term once in a section, and records which terms were marked."""

    def __init__(self, words: Sequence[GlossaryEntry] = GLOSSARY) -> None:
        self._words = words
        forms = [(form, word) for word in words for form in word.forms]
        # The longest form first: "calibration error (ECE)" is one term, not two.
        self._forms = sorted(forms, key=lambda pair: -len(pair[0]))
        every = "|".join(f"({form})" for form, _ in self._forms)
        self._pattern = re.compile(rf"(?<![\w.-])(?:{every})(?![\w=-])", re.IGNORECASE)
        self._here: set[str] = set()
        self._met: set[str] = set()

    def begin(self) -> str:
        """Begin a section: its terms are marked again. Returns an empty string for templates."""
        self._here = set()
        return ""

    def mark(self, text: object) -> Markup:
        """``text``, escaped, with the first use of each term in this section marked. ``Markup`` is
        returned unchanged."""
        if isinstance(text, Markup):
            return text
        full_text, parts, at = str(text), [], 0
        for match in self._pattern.finditer(full_text):
            word = self._forms[(match.lastindex or 1) - 1][1]
            if word.key in self._here:
                continue
            self._here.add(word.key)
            self._met.add(word.key)
            parts += [_escaped(full_text[at : match.start()]), _definition(match.group(), word)]
            at = match.end()
        return Markup("").join([*parts, _escaped(full_text[at:])])

    @property
    def met(self) -> tuple[GlossaryEntry, ...]:
        """The terms that were marked so far, in the order of ``GLOSSARY``."""
        return tuple(word for word in self._words if word.key in self._met)


def _escaped(text: str) -> Markup:
    """A number and its ``%`` stay on one line."""
    return escape(text.replace(" %", f"{NBSP}%"))


def _definition(written: str, word: GlossaryEntry) -> Markup:
    # As an attribute, the meaning is not part of the text that is read, copied or searched.
    return Markup(
        '<dfn class="term" tabindex="0" data-meaning="{}" aria-describedby="{}">{}</dfn>'
    ).format(word.meaning, word.key, _escaped(written))
