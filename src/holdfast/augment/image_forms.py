"""Image augmentation of training rows, including mixup and CutMix.

mixup (1710.09412): x = λ x₁ + (1 − λ) x₂. CutMix (1905.04899): a rectangle of 1 − λ of the area of
x₁ comes from x₂. λ ~ Beta(α, α); in both the loss is λ CE(y₁) + (1 − λ) CE(y₂), with λ the share of
the image that comes from x₁. The second image is drawn from the entire training set, with a random
generator of the row, not of its batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from holdfast.augment.registry import Chances, PictureEnrichment, enrichment
from holdfast.augment.source import RowTurn, check_train
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.settings import setting
from holdfast.data.table import TrainSplit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from holdfast.core.updates import ForwardPass

PARTNERS, SHARES = "partners", "shares"


@dataclass(frozen=True)
class Mixing(PictureEnrichment):
    """``share`` is the share of images that are mixed; ``alpha`` is α of the Beta distribution."""

    share: float = setting(0.5, above=0, most=1)
    alpha: float = setting(1.0, above=0, most=100)
    order: ClassVar[int] = 9

    def change(self, pixels: Tensor, chances: Chances) -> Tensor:
        """Return the images unchanged: a single image cannot be mixed."""
        return pixels

    @abstractmethod
    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """Images [n, channels, H, W] with about ``shares`` [n] from ``pixels`` and the rest from
        ``others``; and the exact shares."""


@enrichment("mixup", "pictures", "about one point on the full CIFAR-10 (1710.09412)")
@dataclass(frozen=True)
class ImageMixup(Mixing):
    """mixup: each value is the weighted sum of the two images' values."""

    alpha: float = setting(0.2, above=0, most=100)

    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """See ``Mixing.mixed``."""
        import torch

        by = torch.from_numpy(shares).float().view(-1, 1, 1, 1)
        return pixels * by + others * (1 - by), shares


@enrichment("cutmix", "pictures", "about one point on the full CIFAR-10 (1905.04899)")
@dataclass(frozen=True)
class CutMix(Mixing):
    """CutMix: a rectangle with the image's aspect ratio comes from the other image."""

    def mixed(
        self, pixels: Tensor, others: Tensor, shares: np.ndarray, chances: Chances
    ) -> tuple[Tensor, np.ndarray]:
        """See ``Mixing.mixed``; the part of the rectangle beyond the edge does not count."""
        height, width = pixels.shape[-2:]
        result, came_to = pixels.clone(), np.empty(len(chances))
        for k, rng in enumerate(chances):
            cut = np.sqrt(1 - shares[k])
            half = int(cut * height) // 2, int(cut * width) // 2
            middle = int(rng.integers(height)), int(rng.integers(width))
            rows, columns = (
                slice(max(0, middle[axis] - half[axis]), min(length, middle[axis] + half[axis]))
                for axis, length in enumerate((height, width))
            )
            result[k, :, rows, columns] = others[k, :, rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            came_to[k] = 1 - area / (height * width)
        return result, came_to


@dataclass(frozen=True, slots=True)
class MixedLabels:
    """The loss term: the loss of a mixed image is that of its two labels, weighted by share."""

    name: ClassVar[str] = "mixed_labels"
    compares_rows: ClassVar[bool] = False

    def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
        import torch

        if PARTNERS not in passed.batch:
            return losses
        share = passed.batch[SHARES].to(losses.dtype).to(losses.device)
        logits = passed.output.logits.float()
        others = torch.nn.functional.cross_entropy(logits, passed.batch[PARTNERS], reduction="none")
        return share * losses + (1 - share) * others


# Fewer updates at a time than for texts: images are large, and no tokenizer call is saved.
STEPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class ImageArrays:
    """Images ready for the model [n, channels, H, W], read by position."""

    values: Tensor

    def __call__(self, positions: Sequence[int] | Ints) -> Tensor:
        import torch

        return self.values[torch.as_tensor(np.asarray(positions, dtype=np.int64))]


@dataclass(frozen=True, slots=True, eq=False)
class FormedPictures:
    """Examples of augmented images, used for batches like other image examples. ``partners`` [n]
    are the classes of the second images, and ``shares`` [n] the shares of the first ones; ``None``
    without mixing."""

    pixels: ImageArrays
    places: Ints
    rows: Ints
    labels: Ints
    lengths: Ints
    partners: Ints | None = None
    shares: Floats | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Redrawing:
    """Augmented images of the training set: ``enrichments`` are applied in their order; one of
    those that mix images is drawn at random and applied last.

    ``examples`` are the training examples, ``read`` gives the images at some positions as values in
    [0, 1], ``finish`` converts such values to the model's input.
    """

    train: TrainSplit
    examples: Any
    enrichments: Mapping[str, PictureEnrichment]
    read: Callable[[Ints], Tensor]
    finish: Callable[[Tensor], Tensor]
    seed: int
    steps: int = STEPS

    def __post_init__(self) -> None:
        check_train(self.train)

    @property
    def mixing(self) -> tuple[Mixing, ...]:
        """The enrichments that mix two images."""
        return tuple(one for one in self.enrichments.values() if isinstance(one, Mixing))

    def __call__(self, rows: Ints, turns: Sequence[RowTurn]) -> tuple[Any, Ints]:
        """See ``MakesForms``."""
        places = np.arange(len(rows))
        labels = np.asarray(self.examples.labels)[rows]
        pixels = self.changed(rows, turns, "")
        partners = shares = None
        if self.mixing:
            pixels, partners, shares = self._mixed(pixels, rows, turns)
        pictures = FormedPictures(
            ImageArrays(self.finish(pixels)),
            places,
            self.examples.rows[rows],
            labels,
            self.examples.lengths[rows],
            partners,
            shares,
        )
        return pictures, places

    def changed(self, rows: Ints, turns: Sequence[RowTurn], purpose: str) -> Tensor:
        """The images after every enrichment of single images. ``purpose`` gives second images of a
        mix other random numbers than first ones."""
        pixels = self.read(rows)
        transforms = [
            (n, one) for n, one in self.enrichments.items() if not isinstance(one, Mixing)
        ]
        for name, one in sorted(transforms, key=lambda way: (way[1].order, way[0])):
            pixels = one.forms(pixels, self._chances(name + purpose, rows, turns))
        return pixels

    def _mixed(
        self, pixels: Tensor, rows: Ints, turns: Sequence[RowTurn]
    ) -> tuple[Tensor, Ints, Floats]:
        import torch

        labels = np.asarray(self.examples.labels)
        partners, shares = labels[rows].copy(), np.ones(len(rows))
        chances = self._chances("mixing", rows, turns)
        drawn = [self.mixing[int(rng.integers(len(self.mixing)))] for rng in chances]
        others = np.array([int(rng.integers(len(labels))) for rng in chances])
        is_mixed = [rng.random() < one.share for rng, one in zip(chances, drawn, strict=True)]
        for one in self.mixing:
            here = np.array(
                [k for k in range(len(rows)) if is_mixed[k] and drawn[k] is one], dtype=int
            )
            if not len(here):
                continue
            mine = [chances[k] for k in here]
            wanted = np.array([rng.beta(one.alpha, one.alpha) for rng in mine])
            second = self.changed(others[here], [turns[k] for k in here], " mixed in")
            where = torch.from_numpy(here)
            mixed, came_to = one.mixed(pixels[where], second, wanted, mine)
            pixels = pixels.index_copy(0, where, mixed)
            partners[here], shares[here] = labels[others[here]], came_to
        return pixels, partners, shares

    def _chances(
        self, name: str, rows: Ints, turns: Sequence[RowTurn]
    ) -> list[np.random.Generator]:
        source = self.examples.rows[rows]
        return [
            generator(self.seed, "enrich", name, int(row), turn.epoch, turn.again)
            for row, turn in zip(source, turns, strict=True)
        ]
