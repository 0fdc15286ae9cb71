"""Copies of pictures: the hash by its definition, and the pixels of what was changed a little."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from holdfast.duplicates.images import (
    THUMBNAIL_PIXELS,
    Thumbnails,
    aligned_correlation,
    near_duplicate_images,
    thumbnail_of,
)


def scenes(n: int, seed: int = 0, side: int = 96) -> list[Image.Image]:
    """Blobs of colour with some grain: no two alike."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        grain = smooth + rng.normal(0, 6, smooth.shape)
        made.append(Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)))
    return made


def small(images) -> Thumbnails:
    made = [thumbnail_of(image) for image in images]
    return Thumbnails(np.stack([p for p, _ in made]), np.array([s for _, s in made]))


def jpeg(image, quality):
    with io.BytesIO() as target:
        image.save(target, "JPEG", quality=quality)
        target.seek(0)
        return Image.open(target).convert("RGB")


CHANGES = {
    "recompressed": lambda image: jpeg(image, 40),
    "half as large": lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "cut at the edges": lambda image: image.crop((1, 2, 94, 95)).resize((96, 96)),
}


def test_the_hash_is_the_signs_of_the_lowest_frequencies() -> None:
    from scipy.fft import dct

    found = small(scenes(3))
    for at in range(3):
        grey = np.asarray(found.grey[at], dtype=np.float64)
        # Row by row, then column by column: the definition of a transform in two dimensions.
        low = dct(dct(grey, axis=0, norm="ortho"), axis=1, norm="ortho")[:8, :8].reshape(-1)
        bits = low > np.median(low[1:])
        bits[0] = False
        read = np.unpackbits(found.hashes[at : at + 1].view(np.uint8)).astype(bool)
        assert (read == bits).all()


@pytest.mark.parametrize("change", CHANGES)
def test_a_small_change_is_found(change: str) -> None:
    images = scenes(80)
    changed = [CHANGES[change](image) for image in images[:20]]
    found = near_duplicate_images(small([*images, *changed]))
    truth = {(at, 80 + at) for at in range(20)}
    pairs = {*zip(found.first.tolist(), found.second.tolist(), strict=True)}
    assert pairs <= truth
    assert len(pairs) >= 19


def test_other_pictures_are_no_copies() -> None:
    assert len(near_duplicate_images(small(scenes(200)))) == 0
    assert len(near_duplicate_images(small(scenes(100)), small(scenes(100, seed=1)))) == 0


def test_pictures_that_are_all_alike_need_more() -> None:
    """Forms of one drawing: near each other, and no copies."""
    rng = np.random.default_rng(0)
    base = np.asarray(scenes(1)[0].resize((32, 32)), dtype=float)
    # A slow change of brightness over the picture, other for each.
    waves = rng.normal(0, 12, (150, 4, 4, 3))
    forms = [
        Image.fromarray(np.clip(base + np.kron(wave, np.ones((8, 8, 1))), 0, 255).astype(np.uint8))
        for wave in waves
    ]
    table = small(forms)
    assert np.median(table.crowding) > 0.9
    assert len(near_duplicate_images(table)) == 0
    copied = small([*forms, *(jpeg(form, 90) for form in forms[:10])])
    assert len(near_duplicate_images(copied)) >= 8


def test_the_correlation_is_that_of_the_overlap_at_the_best_shift() -> None:
    rng = np.random.default_rng(0)
    field = rng.integers(0, 256, (THUMBNAIL_PIXELS + 4, THUMBNAIL_PIXELS + 4, 3), dtype=np.uint8)
    one, other = (
        field[:THUMBNAIL_PIXELS, :THUMBNAIL_PIXELS],
        field[2 : THUMBNAIL_PIXELS + 2, 1 : THUMBNAIL_PIXELS + 1],
    )
    pixels = np.stack([one, other])
    assert aligned_correlation(pixels, pixels, np.array([0]), np.array([1]))[0] == pytest.approx(
        1, abs=1e-5
    )
    far = np.stack([one, field[4:, 4:]])
    assert aligned_correlation(far, far, np.array([0]), np.array([1]))[0] < 0.5
    still = np.corrcoef(one.reshape(-1).astype(float), one.reshape(-1).astype(float) ** 2)[0, 1]
    square = (one.astype(float) ** 2 / 255).astype(np.uint8)
    pair = np.stack([one, square])
    assert aligned_correlation(pair, pair, np.array([0]), np.array([1]))[0] == pytest.approx(
        still, abs=2e-3
    )


def test_pictures_of_one_colour_are_left_out() -> None:
    plain = [Image.new("RGB", (20, 20), shade) for shade in ("white", "white", "red")]
    table = small([*plain, *scenes(5)])
    assert table.flat.tolist() == [True] * 3 + [False] * 5
    assert len(near_duplicate_images(table)) == 0


def test_candidates_of_a_model_are_confirmed_by_the_pixels() -> None:
    table = small(scenes(30))
    vectors = np.ones((30, 4), np.float32) / 2  # a model that finds all alike
    assert len(near_duplicate_images(table, vectors=vectors)) == 0
