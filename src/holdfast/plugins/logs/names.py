"""What the name of a logged number says: of which set it is, and whether less or more is better."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

VALID = ("val", "valid", "validation", "eval", "evaluation", "dev", "holdout", "test")
TRAIN = ("train", "training", "tr", "learn")
# In order of what best stands for the loss that was minimised.
LOSSES = (
    ("loss",),
    ("nll", "logloss", "mlogloss", "crossentropy", "xent", "ce", "deviance"),
    ("mse", "rmse", "mae", "mape", "rmsle", "l1", "l2", "huber"),
    ("perplexity", "ppl"),
    ("error", "err", "merror", "wer", "cer"),
)
# Of classes, of texts, of masks and numbers, and others; the place is the rank.
METRICS = (
    *("accuracy", "acc", "f1", "auc", "auroc", "aucpr", "map", "mcc", "matthews"),
    *("bleu", "sacrebleu", "rouge", "meteor", "chrf", "bertscore", "em", "match"),
    *("r2", "iou", "miou", "dice", "kappa", "pearson", "spearman", "spearmanr", "ndcg"),
    *("precision", "recall", "accuracies", "psnr", "ssim", "score", "scores", "reward", "rewards"),
)
# Two spellings of one metric: ``accuracy`` beside ``val_acc`` is the same on both sets.
SAME = {
    "acc": "accuracy",
    "accuracies": "accuracy",
    "auroc": "auc",
    "matthews": "mcc",
    "spearmanr": "spearman",
    "rewards": "reward",
    "scores": "score",
}
STEMS = re.compile(r"(rouge|bleu|map|top|f1|auc|ndcg|acc)(\w?\d*\w*)$")
# Set and kind in one word: ``valloss``, ``vacc``.
JOINED = re.compile(r"^(train|val|valid|test|eval|dev|v|t)(loss|acc|accuracy)$")
SHORT = {"v": "val", "t": "train"}
NEITHER = {
    *("scale", "scaler", "weight", "lr", "rate", "norm", "time", "runtime", "second", "seconds"),
    *("std", "stderr", "count", "num"),
}
PLAIN = {"epoch", "total", "step", "mean", "avg", "average", "metrics", "history", "running"}


@dataclass(frozen=True, slots=True)
class NameMeaning:
    """A name taken apart. ``rank`` orders the kinds of one direction, best first; ``extra`` are the
    words that neither name the set nor the kind; ``base`` is the name without its set, in one
    spelling."""

    name: str
    side: Literal["train", "valid"] | None
    rises: bool
    rank: int
    held_aside: bool
    per_step: bool
    extra: tuple[str, ...]
    base: str

    def cost(self) -> tuple[bool, int, int, bool]:
        """By what the plainest name comes first."""
        return self.held_aside, self.rank, len(self.extra), self.per_step


def meaning(name: str) -> NameMeaning | None:
    """What ``name`` measures, ``None`` when it is neither a loss nor a known metric."""
    words = _words(name)
    kinds = [(kind, word) for word in words if (kind := _kind(word)) is not None]
    # ``error_rate`` is a metric, ``loss_scale`` and ``reward_std`` are none.
    if not kinds or (NEITHER & set(words) and not {"error", "rate"} <= set(words)):
        return None
    (rises, rank), named = min(kinds)
    extra = tuple(w for w in words if w not in (*VALID, *TRAIN, *PLAIN, named))
    side: Literal["train", "valid"] | None = "train" if set(words) & set(TRAIN) else None
    if set(words) & set(VALID):
        side = "valid"
    return NameMeaning(
        name,
        side,
        rises,
        rank,
        "test" in words,
        "step" in words,
        extra,
        " ".join([SAME.get(named, named), *extra]),
    )


def _words(name: str) -> tuple[str, ...]:
    pieces = []
    for piece in re.split(r"[^0-9A-Za-z]+", name):
        joined = JOINED.match(piece.lower())
        if joined:
            pieces += [SHORT.get(joined[1], joined[1]), joined[2]]
        elif _kind(piece.lower()) is None and re.search(r"[a-z][A-Z]", piece):
            pieces += re.sub(r"([a-z])([A-Z])", r"\1 \2", piece).lower().split()
        else:
            pieces.append(piece.lower())
    return tuple(piece for piece in pieces if piece)


def _kind(word: str) -> tuple[bool, int] | None:
    """Whether it rises, and its rank; a loss sorts before a metric."""
    for rank, names in enumerate(LOSSES):
        if word in names:
            return False, rank
    if word in METRICS:
        return True, METRICS.index(word)
    stem = STEMS.match(word)
    if stem:
        return True, METRICS.index(stem[1]) if stem[1] in METRICS else len(METRICS)
    return None
