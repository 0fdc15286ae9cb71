"""The names of metrics for readers, and which are lower for a better model."""

from __future__ import annotations

from holdfast.core.wording import lower_first

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "f1_weighted": "Weighted F1",
    "precision_macro": "Macro precision",
    "recall_macro": "Macro recall",
    "precision_weighted": "Weighted precision",
    "recall_weighted": "Weighted recall",
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "loss": "Loss",
    "refined_loss": "Calibrated loss",
    "ece": "Calibration error (ECE)",
    "mcc": "Matthews correlation",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "balanced_accuracy": "Balanced accuracy",
    "token_loss": "Loss per token",
    "token_accuracy": "Token accuracy",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_lsum": "ROUGE-Lsum",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "Exact match",
    "entity_f1": "Entity F1",
    "entity_precision": "Entity precision",
    "entity_recall": "Entity recall",
    "f1_micro": "Micro F1",
    "precision_micro": "Micro precision",
    "recall_micro": "Micro recall",
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "r2": "R²",
    "spearman": "Rank correlation (Spearman)",
    "bits_per_byte": "Bits per byte",
}

LOWER_IS_BETTER = (
    "mae",
    "rmse",
    "loss",
    "refined_loss",
    "token_loss",
    "perplexity",
    "bits_per_byte",
    "ece",
)


def higher_is_better(name: str) -> bool:
    """Whether a higher value of the metric is that of a better model."""
    return name not in LOWER_IS_BETTER


def metric_name(name: str) -> str:
    """The metric's name as a heading: "Macro F1" for ``f1_macro``."""
    return METRIC_NAMES.get(name, name.replace("_", " ").capitalize())


def metric_words(name: str) -> str:
    """The metric's name in a sentence: "entity F1", "accuracy"; "ROUGE-1" and "R²" stay."""
    return lower_first(metric_name(name))
