"""The memorization test as one block: ``probes.memorization`` of ``result.json``, which ``holdfast
probe`` prints; and the scores of single tokens by a generative model and its base model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.memory.blind import (
    FEATURE_WIDTH,
    IMAGE_COLUMN,
    blind_area,
    features_of,
    sets_differ,
    texts_of,
)
from holdfast.analyses.memory.membership import (
    MIN_ROWS,
    ExposedRow,
    Membership,
    Tokens,
    compare_attacks,
    conditioned_scores,
    error_zone_scores,
    loss_scores,
    membership,
    most_exposed,
    ratio_scores,
    rows_for_area,
    smallest_area,
)
from holdfast.analyses.memory.section import HARDLY, strength
from holdfast.core.decisions import tick
from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.tasks.generation.losses import ChunkedOutput
from holdfast.tasks.lm.losses import TokenOutput
from holdfast.tasks.seq2seq.losses import target_tokens
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    import torch

    from holdfast.contract.fit import FittedModel
    from holdfast.models.base import Network
    from holdfast.training.task import Batch, Examples, TrainingTask

# Features that the loss of a row is conditioned on: one per 15 other rows, at most 16.
ROWS_A_DIRECTION, MAX_DIRECTIONS = 15, 16
# An AUC that is large enough to matter.
RELEVANT_AREA = 0.6

# Measured by benchmarks/memory.py (null runs): how often a model that never saw its "members" is
# said to have memorized them.
FALSE_ALARMS: Mapping[str, Any] = {
    "what": "models that had seen neither set",
    "runs": 200,
    "alarms": 4,
}


@dataclass(frozen=True, slots=True, eq=False)
class SetScores:
    """A model's predictions for the rows of one set: ``losses`` [n] in nats; for generative models
    also the losses of the base model (``start``) and of single ``tokens``."""

    table: Table
    losses: Floats
    start: Floats | None = None
    tokens: tuple[Tokens, ...] | None = None

    def take(self, at: Ints) -> SetScores:
        return SetScores(
            self.table.take(at),
            self.losses[at],
            None if self.start is None else self.start[at],
            None if self.tokens is None else tuple(self.tokens[i] for i in at),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Risks:
    """A ``risk`` for each of the ``rows`` [n] of a ``table``, in its order, and its ``source``."""

    table: Table
    rows: Ints
    risk: Floats
    source: str


@dataclass(frozen=True, slots=True)
class MembershipProbe:
    """Whether membership inference finds the training rows, judged by ``attack``; the other
    ``attacks`` do not count for the verdict. ``blind`` is the area without the model."""

    attack: str
    attacks: tuple[Membership, ...]
    blind: Estimate
    members: int
    others: int
    exposed: tuple[ExposedRow, ...]
    risk_by: str | None
    single: bool = False
    against_loss: Mapping[str, float] | None = None
    extra_blocks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Membership:
        return next(one for one in self.attacks if one.attack == self.attack)

    @property
    def verdict(self) -> str:
        """``memorized``, ``not shown``, or ``undecided`` if the sets differ without the model or
        are too small."""
        if self.headline.auc.value is None or sets_differ(self.blind):
            return "undecided"
        return "memorized" if self.headline.above_chance else "not shown"

    @property
    def because(self) -> str:
        """The verdict in one or two sentences."""
        rows = f"{count_phrase(self.members, 'training row')} and {self.others:,} others"
        auc, blind = self.headline.auc, self.blind
        if auc.value is None:
            return f"Not tested: it needs {MIN_ROWS} rows of each set, and there are {rows}."
        if sets_differ(blind):
            return (
                "Inconclusive: the two sets differ. A classifier that does not use the model "
                f"separates them (AUC {blind.value:.2f}, 95 % CI {blind.low:.2f}–{blind.high:.2f}; "
                "chance 0.50)."
            )
        finding = (
            f"membership inference finds training rows with AUC {auc.value:.2f} (95 % CI "
            f"{auc.low:.2f}–{auc.high:.2f}; chance 0.50)"
        )
        if self.headline.above_chance:
            degree = strength(auc.value, auc.low)
            shown = f"The model {degree} memorized its training rows"
            if degree == HARDLY:
                shown = "Memorization is shown, but is very weak"
            return f"{shown}: {finding}.{self._single_rows}"
        smallest = smallest_area(self.members, self.others)
        larger = f"; {rows_for_area(RELEVANT_AREA):,} of each could show {RELEVANT_AREA:.2f}."
        tail = "." if smallest <= RELEVANT_AREA else larger
        return (
            f"No memorization of training rows can be shown: {finding}. "
            f"With {self.members:,} and {self.others:,} rows the test can show an AUC of "
            f"{smallest:.2f} or more{tail}"
        )

    @property
    def _single_rows(self) -> str:
        """A sentence where, at the largest false positive rate, the attack is not shown to find
        more training rows than other rows."""
        found = next((one for one in self.headline.tpr if one.share.value is not None), None)
        if found is None or found.share.low is None or found.share.low > found.at_fpr:
            return ""
        allowed, members = 100 * found.at_fpr, 100 * (found.share.value or 0.0)
        return (
            " The AUC is an average over all rows. Single rows cannot be shown to be identifiable: "
            f"at a false positive rate of at most {allowed:.0f} %, the attack finds "
            f"{members:.1f} % of the training rows."
        )

    def to_json(self) -> dict[str, Any]:
        headline = self.headline
        return {
            "auc": headline.auc.to_json(),
            "tpr": [one.to_json() for one in headline.tpr],
            "blind_auc": self.blind.to_json(),
            "exposed": to_json(self.exposed),
            "verdict": self.verdict,
            "because": self.because,
            "attack": self.attack,
            "attacks": {one.attack: one.to_json() for one in self.attacks},
            "against_loss": None if self.against_loss is None else dict(self.against_loss),
            "members": self.members,
            "others": self.others,
            "one_row_a_unit": self.single,
            "risk_by": self.risk_by,
            "false_alarms": dict(FALSE_ALARMS),
            **self.extra_blocks,
        }


def probe_membership(
    members: SetScores, others: SetScores, seed: int, risks: Risks | None = None
) -> MembershipProbe:
    """Test how well ``members`` can be separated from ``others``, which the model never saw.

    Rows that are duplicates or of one group were split together, and are not independent: one row
    of each unit is drawn, in both sets. If the sets still differ, the baseline without the model
    shows it. ``risks`` are those of all training rows; without them the attack ranks the members.
    """
    units = [_one_row_per_unit(scores_of_set.table, seed) for scores_of_set in (members, others)]
    single = any(len(at) < len(s.table) for at, s in zip(units, (members, others), strict=True))
    one, other = members.take(units[0]), others.take(units[1])
    finite = [np.flatnonzero(np.isfinite(scores_of_set.losses)) for scores_of_set in (one, other)]
    one, other = one.take(finite[0]), other.take(finite[1])
    enough_rows = min(len(one.table), len(other.table)) >= MIN_ROWS
    scores = {"loss": (loss_scores(one.losses), loss_scores(other.losses))}
    scores |= _further_scores(one, other, seed) if enough_rows else {}
    attacks = tuple(membership(name, *of_both) for name, of_both in scores.items())
    attack = "ratio" if "ratio" in scores else "loss"
    blind = Estimate(None, why="too few rows")
    if enough_rows:
        blind = blind_area(*features_of(one.table, other.table, FEATURE_WIDTH), seed)
    against_loss = None
    if attack != "loss":
        against_loss = compare_attacks(
            (scores[attack][0], scores["loss"][0]), (scores[attack][1], scores["loss"][1])
        )
    if risks is None:
        by = "conditioned" if attack == "loss" and "conditioned" in scores else attack
        rows = np.asarray(one.table.column("row"), dtype=np.int64)
        risks = Risks(one.table, rows, np.asarray(scores[by][0]), by)
    return MembershipProbe(
        attack,
        attacks,
        blind,
        len(one.table),
        len(other.table),
        _exposed_rows(risks),
        risks.source,
        single,
        against_loss,
    )


def _further_scores(
    one: SetScores, other: SetScores, seed: int
) -> dict[str, tuple[Floats, Floats]]:
    width = int(np.clip(len(other.table) // ROWS_A_DIRECTION, 1, MAX_DIRECTIONS))
    features = features_of(one.table, other.table, width)
    scores = {"conditioned": conditioned_scores(one.losses, other.losses, features, seed)}
    if one.start is not None and other.start is not None:
        scores["ratio"] = (
            ratio_scores(one.losses, one.start),
            ratio_scores(other.losses, other.start),
        )
    if one.tokens is not None and other.tokens is not None:
        scores["errors"] = (error_zone_scores(one.tokens), error_zone_scores(other.tokens))
    return scores


def _one_row_per_unit(table: Table, seed: int) -> Ints:
    """The positions of one row of each group, or of each text where no groups are given."""
    if table.has_groups:
        keys = [str(group) for group in table.column("group")]
    else:
        keys = [" ".join(text.casefold().split()) for text in texts_of(table)]
    order = generator(seed, "a row of each unit", table.source).permutation(len(keys))
    first: dict[str, int] = {}
    for at in order:
        first.setdefault(keys[at], int(at))
    return np.asarray(sorted(first.values()), dtype=np.int64)


def _exposed_rows(risks: Risks) -> tuple[ExposedRow, ...]:
    table = risks.table
    texts = None if IMAGE_COLUMN in table.rows.column_names else texts_of(table)
    if texts is None:
        texts = ["/".join(Path(path).parts[-2:]) for path in table.column(IMAGE_COLUMN)]
    labels, names = None, table.classes
    if len(names) > 1 and table.columns.one_class:
        labels = [
            names[k] if 0 <= k < len(names) else None
            for k in np.asarray(table.column("label")).tolist()
        ]
    return most_exposed(risks.rows, risks.risk, texts, labels)


TOKENS_AT_ONCE = 4096

ScoreRows = Callable[[Table], SetScores]


def row_scorer(fitted: FittedModel) -> ScoreRows:
    """A function that scores rows by the best checkpoint of a fit and by the network before its
    first step: two forward passes a row."""
    job, start = fitted.job, fitted.base_network()
    device = job.accelerator.device

    def score_rows(table: Table) -> SetScores:
        tuned = fitted.network.to(device)
        with job.accelerator.autocast():
            return token_scores(table, fitted.encode(table), job.task, tuned, start, device)

    return score_rows


def token_scores(
    table: Table,
    examples: Examples,
    task: TrainingTask,
    tuned: Network,
    start: Network | None,
    device: torch.device,
) -> SetScores:
    """The mean loss of each row's target tokens [n] by both networks (NaN for a row without target
    tokens), and the tokens' scores; ``start`` may be missing."""
    of_row = table.positions_of(np.asarray(examples.rows))
    by_tuned, correct = _tokens(tuned, task, examples, device)
    by_start = None if start is None else _tokens(start, task, examples, device)[0]
    lines: list[list[int]] = [[] for _ in range(len(table))]
    for at, row in enumerate(of_row):
        lines[row].append(at)
    empty = np.zeros(0)

    def row_values(parts: list[Floats], row: int) -> Floats:
        return np.concatenate([parts[at] for at in lines[row]] or [empty])

    def losses(parts: list[Floats]) -> Floats:
        by_row = [row_values(parts, row) for row in range(len(table))]
        return np.array([-float(one.mean()) if len(one) else np.nan for one in by_row])

    if by_start is None:
        return SetScores(table, losses(by_tuned))
    tokens = tuple(
        Tokens(
            row_values(by_tuned, row),
            row_values(by_start, row),
            row_values(correct, row).astype(bool),
        )
        for row in range(len(table))
    )
    return SetScores(table, losses(by_tuned), losses(by_start), tokens)


def _target_log_probabilities(
    output: ChunkedOutput | TokenOutput | torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of each target token of a batch, and whether it was the most probable one."""
    if isinstance(output, ChunkedOutput):
        return -output.losses, output.right
    logits = (output.logits if isinstance(output, TokenOutput) else output).float()
    targets = batch["expected"] if "expected" in batch else target_tokens(batch)
    log_probabilities = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)
    return log_probabilities, logits.argmax(dim=1) == targets


def _tokens(
    network: Network, task: TrainingTask, examples: Examples, device: torch.device
) -> tuple[list[Floats], list[Floats]]:
    """log p of each example's target tokens, and whether each was the most probable one."""
    from holdfast.models.base import evaluating

    log_probabilities: list[Floats] = [np.zeros(0)] * len(examples)
    correct: list[Floats] = [np.zeros(0)] * len(examples)
    done = 0
    with evaluating(network):
        for positions in batches_by_length(
            examples.lengths, np.arange(len(examples)), TOKENS_AT_ONCE
        ):
            batch = device_batch(task, examples, positions, device)
            output = task.forward(network, batch)
            sure, is_correct = _target_log_probabilities(output, batch)
            ends = np.cumsum(batch["counts"].cpu().numpy())[:-1]
            for at, one, other in zip(
                positions,
                np.split(sure.cpu().numpy().astype(np.float64), ends),
                np.split(is_correct.cpu().numpy().astype(np.float64), ends),
                strict=True,
            ):
                log_probabilities[at], correct[at] = one, other
            done += len(positions)
            tick(done, len(examples))
    return log_probabilities, correct
