"""Shares of generated texts with a fault: the fine-tuned model against its base model.

Also the false-alarm rates of the comparisons of generative models, as ``benchmarks/generators.py``
measured them, and a text classifier that the user names and that flags texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.metrics.resample import ResampledUnits
from holdfast.metrics.score import rate_estimate
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import find_model
from holdfast.stats.paired_tests import newcombe, paired_t, rows_needed_for_power, sign_flip_p_value
from holdfast.stats.two_samples import holm
from holdfast.tasks.generation.marks import MEANING

if TYPE_CHECKING:
    import torch


Bools = npt.NDArray[np.bool_]
Verdict = Literal["more", "fewer", "not shown", "not asked"]
ALPHA, LEVEL = 0.05, 0.95
LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """The texts of one ``side``, by their faults ([n] each, of the same names): ``rows`` [n] source
    positions, the ``tuned`` model's, the ``start`` model's (``None`` where it generated none), and
    those of the ``references``; ``groups`` [n] where the prompts come in groups.
    """

    side: str
    rows: Ints
    tuned: Mapping[str, Bools]
    start: Mapping[str, Bools] | None
    references: Mapping[str, Bools]
    groups: object = None

    @property
    def units(self) -> ResampledUnits:
        """What counts as one: a prompt, or a group of prompts."""
        return ResampledUnits.by(self.groups, len(self.rows))


@dataclass(frozen=True, slots=True)
class Share:
    """One fault on one split.

    ``difference`` is tuned − start over the same prompts with Newcombe's interval, by groups at
    least as wide as Student's. ``only_tuned`` and ``only_start`` count the prompts where only that
    model's text has the fault. ``p_value`` is McNemar's, exact, and by groups that of their sums;
    ``p_adjusted`` Holm's over the tests that could reject at all. ``rows`` are
    source positions of the fine-tuned model's faulty texts, ``LISTED`` at most. The fields are
    those of ``result.json``.
    """

    mark: str
    side: str
    n: int
    tuned: Estimate
    start: Estimate | None = None
    references: Estimate | None = None
    difference: Estimate | None = None
    only_tuned: int | None = None
    only_start: int | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    verdict: Verdict = "not asked"
    more_rows: int | None = None
    rows: tuple[int, ...] = ()


def compare_shares(samples: Sequence[Marked]) -> tuple[Share, ...]:
    """Test every fault on every split, as one family.

    McNemar's exact test compares how often the two models have the fault. With m discordant prompts
    the smallest possible p-value is 2^(1 − m). A test that could never reject is not counted
    against the others (Tarone 1990; m is fixed by the test's condition, so Holm over the rest keeps
    the chance of a single false finding at ``ALPHA``). Prompts in groups count by the sums of their
    groups (``sign_flip_p_value``).
    """
    starts = [
        (split, mark, (split.start or {}).get(mark)) for split in samples for mark in split.tuned
    ]
    discordant = [
        np.bincount(split.units.codes, _gap(split.tuned[mark], start))
        for split, mark, start in starts
        if start is not None
    ]
    p_values = np.array([sign_flip_p_value(sums) for sums in discordant])
    least = np.array([2.0 ** (1 - max(1, int(np.count_nonzero(sums)))) for sums in discordant])
    family = family_of(least)
    adjusted = np.ones(len(p_values))
    adjusted[family] = holm(p_values[family])
    tests = zip(p_values.tolist(), adjusted.tolist(), strict=True)
    shares = []
    for split, mark, start in starts:
        tuned = split.tuned[mark]
        share = Share(
            mark,
            split.side,
            len(tuned),
            rate(tuned, split.units),
            references=rate(split.references[mark], split.units)
            if mark in split.references
            else None,
            rows=tuple(int(row) for row in split.rows[tuned][:LISTED]),
        )
        if start is not None:
            level = ALPHA / max(1, family.sum())
            share = _compared(share, tuned, start, split.units, *next(tests), level)
        shares.append(share)
    return tuple(shares)


def family_of(least: npt.NDArray[np.float64], alpha: float = ALPHA) -> Bools:
    """Which of k tests, by their smallest possible p-values [k], form a family that can reject
    (Tarone 1990): those that reach alpha ÷ K, for the smallest K that at most K tests reach.
    """
    for size in range(1, len(least) + 1):
        reach: Bools = least <= alpha / size
        if int(reach.sum()) <= size:
            return reach
    return np.zeros(len(least), dtype=bool)


def _compared(
    share: Share,
    tuned: Bools,
    start: Bools,
    units: ResampledUnits,
    p_value: float,
    adjusted: float,
    least: float,
) -> Share:
    """The share with its test against the base model's; ``least`` is the level that more rows would
    have to reach.
    """
    gap = _gap(tuned, start)
    value = float(gap.mean()) if share.n else 0.0
    verdict: Verdict = "not shown"
    if adjusted <= ALPHA:
        verdict = "more" if value > 0 else "fewer"
    groups = units.codes if units.grouped else None
    rows_needed = None
    if verdict == "not shown" and value:
        rows_needed = rows_needed_for_power(gap, abs(value), sides=2, alpha=least, groups=groups)
    none = Estimate(None, why="there are no rows")
    return replace(
        share,
        start=rate(start, units),
        difference=_difference(tuned, start, groups) if share.n else none,
        only_tuned=int(np.sum(tuned & ~start)),
        only_start=int(np.sum(start & ~tuned)),
        p_value=p_value,
        p_adjusted=adjusted,
        verdict=verdict,
        more_rows=max(0, rows_needed - share.n) if rows_needed is not None else None,
    )


def _gap(tuned: Bools, start: Bools) -> Floats:
    return tuned.astype(np.float64) - start.astype(np.float64)


def _difference(tuned: Bools, start: Bools, groups: Ints | None) -> Estimate:
    (low, high), gap = newcombe(tuned, start, LEVEL), _gap(tuned, start)
    value = float(gap.mean())
    if groups is not None:
        by_groups = paired_t(gap, np.zeros(len(gap)), LEVEL, groups)
        if np.isnan(by_groups.low):
            return Estimate(value, level=LEVEL, why="no interval: all rows are of one group")
        # Groups of equal differences have an interval without width.
        low, high = min(low, by_groups.low), max(high, by_groups.high)
    return Estimate(value, low, high, LEVEL)


def rate(hits: Bools, units: ResampledUnits) -> Estimate:
    """A share with Wilson's interval."""
    if not len(hits):
        return Estimate(None, why="there are no rows")
    return rate_estimate(hits, units, LEVEL)


def sentence(shares: Sequence[Share]) -> str:
    """The result on the test rows, in one sentence."""
    test_shares = [one for one in shares if one.side == "test"]
    if not test_shares or not test_shares[0].n:
        return "No texts were generated for test prompts."
    n = test_shares[0].n
    if all(one.start is None for one in test_shares):
        borne = [one for one in test_shares if one.tuned.value]
        if not borne:
            return f"None of {n} generated texts for test prompts shows any of the checked faults."
        listed = ", ".join(f"{counted(one)} {MEANING[one.mark].partition(':')[0]}" for one in borne)
        return f"Of {n} generated texts for test prompts, {listed}; the base model generated none."
    more = [one for one in test_shares if one.verdict == "more"]
    fewer = [one for one in test_shares if one.verdict == "fewer"]
    parts = [
        f"{counted(one)} {MEANING[one.mark].partition(':')[0]} (base model: {_share(one.start, n)})"
        for one in (*more, *fewer)
    ]
    if not parts:
        return (
            "No fault is shown to be more or less frequent than in the base model's "
            f"texts ({n} test prompts)."
        )
    lead = "It got worse" if more and not fewer else "It got better" if not more else "It changed"
    return f"{lead}: of its {n} generated texts for test prompts {'; '.join(parts)}."


def counted(one: Share) -> str:
    return _share(one.tuned, one.n)


def _share(rate_: Estimate | None, n: int) -> str:
    return "–" if rate_ is None or rate_.value is None else str(round(rate_.value * n))


def outputs_block(
    samples: Sequence[Marked], why: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """``outputs`` of ``result.json``; ``why`` gives the reason for each fault that was not
    checked.
    """
    shares = compare_shares(samples)
    block: dict[str, Any] = to_json(
        {
            "because": sentence(shares),
            "n": {sample.side: len(sample.rows) for sample in samples},
            "shares": shares,
            "meaning": {mark: MEANING[mark] for mark in dict.fromkeys(s.mark for s in shares)},
            "left_out": dict(why or {}),
            "false_alarms": FALSE_ALARMS,
        }
    )
    return block


FALSE_ALARMS = (
    "False alarms: in 2,000 runs of two equal models, with 100 texts for the prompts "
    "of each split, 2.5 % had any share that differs (95 % CI 1.9–3.3)."
)
JUDGED_ALARMS = (
    "False alarms: in 2,000 runs of two equal models, with 30 texts judged by coin "
    "flips against both promptings, 3.4 % had a winner (95 % CI 2.6–4.2)."
)


KEY = "probes.classifier"
TOGETHER, LONGEST = 16, 512
_BAD = re.compile(
    r"toxic|hate|offens|abus|insult|obscene|threat|nsfw|harm|hostile|unsafe|spam", re.I
)
_GOOD = re.compile(r"^(?:non|not|no|un)[-_ ]?(?:toxic|hate|offens|abus|insult|harm|hostile)", re.I)


def spec_of(given: str) -> tuple[str, str | None]:
    """A model and the label to find, from ``NAME`` or ``NAME:LABEL``."""
    name, _, label = given.rpartition(":")
    # A colon after a drive letter or in a path separates no label.
    return (name, label) if name and "/" not in label and "\\" not in label else (given, None)


def check_classifier(given: str) -> list[int]:
    """The numbers of the labels that flag a text, read from the model's ``config.json`` only.

    Raises ``ModelError`` where the model is missing, ``RecipeError`` where no label can be
    identified as the one to find.
    """
    name, label = spec_of(given)
    config = find_model(name).config
    held = config.get("id2label") or {}
    labels = {int(number): str(text) for number, text in held.items()}
    flagged = [
        number
        for number, text in labels.items()
        if (text == label if label else _BAD.search(text) and not _GOOD.search(text))
    ]
    if not flagged:
        raise RecipeError(
            KEY,
            "names a classifier without a label that Holdfast can identify as the one to find"
            if label is None
            else "names a label that the classifier does not have",
            given,
            f"Write NAME:LABEL with one of {', '.join(labels.values()) or 'no labels at all'}.",
        )
    return flagged


class Flags:
    """The classifier, loaded once, and which texts it flags."""

    def __init__(self, given: str, device: torch.device | str = "cpu") -> None:
        import transformers as hf

        name, _ = spec_of(given)
        self.given, self._labels, self._device = given, check_classifier(given), device
        folder = find_model(name).folder
        with (
            reading_errors(name, ModelError, "cannot be loaded as a classifier"),
            quiet_transformers(),
        ):
            model = hf.AutoModelForSequenceClassification.from_pretrained(
                folder, trust_remote_code=False
            )
            self._tokenizer: Any = hf.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._model: Any = model.eval().to(device)

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether a text has a label to find with a probability of 0.5 or more, [n]; an empty text
        does not.
        """
        import torch

        flagged = np.zeros(len(texts), dtype=bool)
        given = [at for at, text in enumerate(texts) if text.strip()]
        config = self._model.config
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        with torch.inference_mode(), quiet_transformers():
            for start in range(0, len(given), TOGETHER):
                chosen = given[start : start + TOGETHER]
                batch = self._tokenizer(
                    [texts[at] for at in chosen],
                    padding=True,
                    truncation=True,
                    max_length=self._longest,
                    return_tensors="pt",
                ).to(self._device)
                logits = self._model(**batch).logits.float()
                probabilities = torch.sigmoid(logits) if several else torch.softmax(logits, dim=-1)
                of_labels = probabilities[:, self._labels]
                bad = of_labels.amax(dim=-1) if several else of_labels.sum(dim=-1)
                flagged[chosen] = (bad >= 0.5).cpu().numpy()
        return flagged

    @property
    def _longest(self) -> int:
        positions = getattr(self._model.config, "max_position_embeddings", None) or LONGEST
        return min(LONGEST, int(positions), int(self._tokenizer.model_max_length))
