"""Pixels are those of the model's own processor, kept decoded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.convnext import ConvNextImageProcessorPil
from transformers.models.vit import ViTImageProcessorPil

from holdfast.core.errors import ModelError
from holdfast.tasks.images.pixels import PixelTensors

PROCESSORS = {
    "vit": ViTImageProcessorPil(size={"height": 16, "width": 16}),
    "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.875),
    "no normalising": ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False),
    "no rescaling": ViTImageProcessorPil(
        size={"height": 16, "width": 16},
        do_rescale=False,
        image_mean=[99.0] * 3,
        image_std=[50.0] * 3,
    ),
}


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for index in range(6):
        noise = rng.integers(0, 256, (20 + index, 30 - index, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    return [str(tmp_path / f"{index}.png") for index in range(6)]


@pytest.mark.parametrize("limit", [10**9, 0])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_what_the_processor_gives(paths: list[str], name: str, limit: int) -> None:
    processor: Any = PROCESSORS[name]
    pixels = PixelTensors(paths, processor, 3, limit)
    chosen = [4, 0, 4, 2]
    expected = processor([Image.open(paths[i]) for i in chosen], return_tensors="pt")
    assert pixels.cached == (limit > 0)
    assert pixels.affine is not None
    assert torch.allclose(pixels(chosen), expected["pixel_values"].float(), atol=2e-5)


def test_kept_and_decoded_each_time_are_equal(paths: list[str]) -> None:
    kept, fresh = (PixelTensors(paths, PROCESSORS["vit"], 3, limit) for limit in (10**9, 0))
    assert torch.equal(kept(range(6)), fresh(range(6)))


def test_a_processor_that_does_something_else_runs_whole(paths: list[str]) -> None:
    inner: Any = PROCESSORS["vit"]

    class Odd:
        do_rescale = do_normalize = True
        rescale_factor, image_mean, image_std = 1 / 255, [0.5] * 3, [0.5] * 3

        def __call__(self, images: Any, **settings: Any) -> Any:
            given = inner(images, **settings)
            return {"pixel_values": given["pixel_values"] ** 2}

    pixels = PixelTensors(paths, Odd(), 3)
    expected = inner([Image.open(paths[1])], return_tensors="pt")["pixel_values"] ** 2
    assert pixels.affine is None
    assert torch.allclose(pixels([1]), expected)


def test_pictures_of_unlike_size_are_refused(paths: list[str]) -> None:
    processor = ViTImageProcessorPil(do_resize=False)
    with pytest.raises(ModelError, match="different sizes"):
        PixelTensors(paths, processor, 3)


def test_a_grey_model_gets_one_channel(paths: list[str]) -> None:
    processor = ViTImageProcessorPil(
        size={"height": 16, "width": 16}, image_mean=[0.5], image_std=[0.5]
    )
    pixels = PixelTensors(paths, processor, 1)
    grey = Image.open(paths[2]).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    expected = (np.asarray(grey) / 255 - 0.5) / 0.5
    assert pixels([2]).shape == (1, 1, 16, 16)
    assert np.abs(pixels([2]).numpy()[0, 0] - expected).max() < 0.02
