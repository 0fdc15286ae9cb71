"""The sizes of a search under way: which one is fitted next, and what came of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.search.capacity.rules import WHOLE, Capacity, judge_sizes
from holdfast.search.capacity.sizes import KEPT, Size
from holdfast.search.job import Done, FitJob
from holdfast.search.search_loop import TrialFold

# Of right answers in points ÷ 100; of losses a share of the whole model's.
MARGIN, SHARE = 0.01, 0.02
WORSE = "a larger one is proven worse"
WELL = "a smaller one is proven to do as well"


@dataclass(eq=False)
class Trying:
    """The sizes under way: which is fitted next, by what is known, and what came of each."""

    sizes: Sequence[Size]
    folds: Sequence[TrialFold]
    units: Ints | None = None
    done: dict[str, dict[int, Done]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def jobs(self) -> Iterator[FitJob]:
        """The fits, each asked for when a worker is free: half of the model after the whole, then
        what lies above it, then what lies below."""
        for size in in_turn(self.sizes):
            because = self._spared(size)
            if because is not None:
                self.skipped[size.key] = because
                continue
            for number, fold in enumerate(self.folds):
                none = fold.train[:0]
                key = f"{size.key}-f{number}"
                if size.key in self.skipped:
                    break
                may_fail = size.key != WHOLE
                yield FitJob(key, fold.train, fold.valid, none, size.settings, may_fail=may_fail)

    def take(self, done: Done) -> None:
        """What came of a fit."""
        key, _, fold = done.key.rpartition("-f")
        if done.failed is not None:
            self.skipped[key] = done.failed
        self.done.setdefault(key, {})[int(fold)] = done

    def whole(self, key: str) -> bool:
        """Whether every fold of a size is done, and none failed."""
        return key not in self.skipped and len(self.done.get(key, {})) == len(self.folds)

    def quality(self, key: str) -> Floats:
        """How good each row's answer is [n], more being better: right or wrong, else less loss."""
        folds = [self.done[key][number] for number in range(len(self.folds))]
        if all(one.correct is not None for one in folds):
            return np.concatenate([np.asarray(one.correct, np.float64) for one in folds])
        return np.concatenate([-one.losses for one in folds])

    @property
    def by_rights(self) -> bool:
        """Whether answers are right or wrong."""
        return all(one.correct is not None for one in self.done[WHOLE].values())

    @property
    def margin(self) -> float:
        """How much worse a size may be that does as well."""
        return MARGIN if self.by_rights else SHARE * float(-self.quality(WHOLE).mean())

    def judged(self) -> Capacity:
        """What all rows say of the sizes that were fitted."""
        known = [size for size in self.sizes if size.key != WHOLE and self.whole(size.key)]
        quality = self.quality(WHOLE)
        of_first = [size.key for size in known if size.settings.get(KEPT) != "spread"]
        others = [[size.key] for size in known if size.key not in of_first]
        labels = [str(one.verdict.get("label")) for one in self.done[WHOLE].values()]
        return judge_sizes(
            quality,
            {size.key: self.quality(size.key) for size in known},
            {size.key: float(size.large) for size in known},
            [of_first, *others],
            self.margin,
            self.units,
            max(set(labels), key=labels.count),
        )

    def _spared(self, size: Size) -> str | None:
        """Why a size need not be fitted, by what is known of the others."""
        if size.key == WHOLE or not self.whole(WHOLE):
            return None
        large = {one.key: one.large for one in self.sizes}
        # Blocks spread over the depth lose more than as many first ones: they say nothing of those.
        spread = {one.key for one in self.sizes if one.settings.get(KEPT) == "spread"}
        for one in self.judged().standings:
            verdict = one.found.verdict
            if verdict == "worse" and large[one.key] > size.large and one.key not in spread:
                return WORSE
            if verdict in ("equivalent", "better") and large[one.key] <= size.large:
                return WELL
        return None


def in_turn(sizes: Sequence[Size]) -> list[Size]:
    """The whole, the half (both forms of it), then from the largest down."""
    half = sizes[0].large // 2
    middle = [one for one in sizes if one.large == half]
    return [*sizes[:1], *middle, *(one for one in sizes[1:] if one not in middle)]
