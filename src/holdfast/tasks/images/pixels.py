"""Image files to pixel tensors: the output of the model's own processor, computed once.

A processor resizes and crops to bytes, then rescales and normalises to floats. The bytes are kept
in a memory-mapped file, where they are few enough; the floats are computed for each batch:

    pixel = (byte · rescale − mean) ÷ deviation
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.errors import DataError, ModelError
from holdfast.core.records import Floats, Ints
from holdfast.data.images.decode import UnreadableImage, read_image
from holdfast.data.scratch import remove_with, scratch_file

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from transformers import BaseImageProcessor


# One file holds the training and validation rows of a run.
CACHE_BYTES = 5_000_000_000
FREE_SHARE = 0.5
TOLERANCE = 1e-5
PATCH = 256
"""Pixels that cost about as much as one token."""


@dataclass(frozen=True, slots=True)
class Affine:
    """Map bytes to the model's input: per channel a factor, a mean and a deviation."""

    rescale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Bytes [B, channels, H, W] → float32 of the same shape."""
        import torch

        shape = (1, -1, 1, 1)
        values = torch.from_numpy(np.ascontiguousarray(pixels)).float().mul_(self.rescale)
        mean, deviation = (torch.tensor(v).view(shape) for v in (self.mean, self.deviation))
        return values.sub_(mean).div_(deviation)

    def of_colours(self, values: torch.Tensor) -> torch.Tensor:
        """The same of values in [0, 1], a byte's 255 being 1."""
        import torch

        shape = (1, -1, 1, 1)
        mean, deviation = (torch.tensor(v).view(shape) for v in (self.mean, self.deviation))
        return values.mul(255 * self.rescale).sub_(mean).div_(deviation)


class PixelTensors:
    """The pixels of image files, by position.

    ``affine`` is ``None`` where the processor does more than resize, crop, rescale and normalise:
    then the full processor runs for each batch. ``shape`` is (channels, H, W) of one image.
    ``cached`` tells whether the bytes are in a memory-mapped file.
    """

    def __init__(
        self,
        paths: Sequence[str],
        processor: BaseImageProcessor,
        channels: int,
        limit: int = CACHE_BYTES,
    ) -> None:
        self._paths = paths
        self._processor: Any = processor
        self._mode = "L" if channels == 1 else "RGB"
        self.affine = _affine(processor, channels)
        self.shape: tuple[int, ...] = (channels, 1, 1)
        self._bytes: Any = None
        if len(paths):
            self._begin(limit)

    @property
    def cached(self) -> bool:
        return self._bytes is not None

    @property
    def cost(self) -> int:
        """The cost of one image, in units of 16 × 16 pixels."""
        return max(1, int(self.shape[1] * self.shape[2]) // PATCH)

    def __call__(self, positions: Sequence[int] | Ints) -> torch.Tensor:
        """float32 [len(positions), channels, H, W], ready for the model."""
        import torch

        if self.affine is None:
            return torch.from_numpy(
                np.stack([self._exact_tensor(int(i)) for i in positions])
            ).float()
        if self._bytes is not None:
            return self.affine(self._bytes[np.asarray(positions, dtype=np.int64)])
        return self.affine(np.stack([self._part(int(i)) for i in positions]))

    def colours(self, positions: Sequence[int] | Ints) -> torch.Tensor:
        """float32 [len(positions), channels, H, W] in [0, 1], before the model's own scaling.

        Where the processor does more than scale (``affine`` is ``None``), the model's input itself.
        """
        import torch

        if self.affine is None:
            return self(positions)
        indices = np.asarray(positions, dtype=np.int64)
        if self._bytes is not None:
            bytes_ = self._bytes[indices]
        else:
            bytes_ = np.stack([self._part(int(i)) for i in indices])
        return torch.from_numpy(np.ascontiguousarray(bytes_)).float().div_(255)

    def from_colours(self, values: torch.Tensor) -> torch.Tensor:
        """The model's input for images as ``colours`` returns them."""
        return values if self.affine is None else self.affine.of_colours(values)

    def _begin(self, limit: int) -> None:
        reference = self._exact_tensor(0)
        self.shape = reference.shape
        if self.affine is None or not self._affine_holds(reference):
            self.affine = None
            return
        size = len(self._paths) * int(np.prod(self.shape))
        file = scratch_file("pixels", ".u8")
        if size > min(limit, FREE_SHARE * shutil.disk_usage(file.parent).free):
            return
        # Bytes, a quarter of the floats, in pages that the system may drop.
        memory = np.memmap(file, np.uint8, "w+", shape=(len(self._paths), *self.shape))
        for position in range(len(self._paths)):
            memory[position] = self._part(position)
        memory.flush()
        # Read-only from here on: a batch that wrote into it would change the data.
        self._bytes = np.memmap(file, np.uint8, "r", shape=memory.shape)
        remove_with(self, file)

    def _affine_holds(self, reference: Floats) -> bool:
        part = self._run(0, do_rescale=False, do_normalize=False)
        if part.dtype != np.uint8 or self.affine is None:
            return False
        # Tested on the processor with the first image: its settings do not tell what its code does.
        return bool(np.abs(self.affine(part[None]).numpy()[0] - reference).max() <= TOLERANCE)

    def _exact_tensor(self, position: int) -> Any:
        return self._checked(self._run(position), position)

    def _part(self, position: int) -> Any:
        return self._checked(self._run(position, do_rescale=False, do_normalize=False), position)

    def _run(self, position: int, **settings: bool | str) -> Any:
        path = self._paths[position]
        try:
            image: Any = read_image(path).image
        except UnreadableImage as error:
            raise DataError(
                path, f"can no longer be read: {error}", None, "Restore the file."
            ) from error
        image = image if image.mode == self._mode else image.convert(self._mode)
        if self._mode == "L":
            # Processors need the channel of a greyscale image to be named.
            settings["input_data_format"] = "channels_first"
            image = np.asarray(image)[None]
        return self._processor([image], return_tensors="np", **settings)["pixel_values"][0]

    def _checked(self, values: npt.NDArray[np.generic], position: int) -> npt.NDArray[np.generic]:
        if position and values.shape != self.shape:
            rule = "returns images of different sizes"
            remedy = "Set do_resize, and height and width in size, in its preprocessor_config.json."
            raise ModelError("the image processor", rule, (self.shape, values.shape), remedy)
        return values


def _affine(processor: Any, channels: int) -> Affine | None:
    rescale = float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 1.0
    mean, deviation = (0.0,) * channels, (1.0,) * channels
    if getattr(processor, "do_normalize", False):
        mean = tuple(float(v) for v in np.broadcast_to(processor.image_mean, (channels,)))
        deviation = tuple(float(v) for v in np.broadcast_to(processor.image_std, (channels,)))
    return Affine(rescale, mean, deviation)
