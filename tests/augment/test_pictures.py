"""Forms of pictures, against another library and what can be counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.augment.image_forms import CutMix, ImageMixup, MixedLabels
from holdfast.augment.pictures.colours import (
    OPERATIONS,
    Erase,
    autocontrasted,
    blurred,
    brighter,
    contrasted,
    equalized,
    grey,
    posterized,
    saturated,
    sharpened,
    solarized,
)
from holdfast.augment.pictures.warp import Resize, in_a_mirror, shifted, turns, unit, warped


def pictures(count: int = 4, side: int = 17, seed: int = 0) -> torch.Tensor:
    values = torch.rand(count, 3, side, side + 4, generator=torch.Generator().manual_seed(seed))
    return torch.round(values * 255) / 255


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, k]) for k in range(count)]


@pytest.fixture
def kornia() -> Any:
    return pytest.importorskip("kornia", reason="needs the extra: pip install 'holdfast[dev]'")


def test_a_matrix_that_changes_nothing_changes_nothing() -> None:
    ours = pictures()
    assert torch.allclose(warped(ours, unit(4)), ours, atol=1e-5)


def test_a_shift_by_whole_pixels_moves_them() -> None:
    ours, matrices = pictures(1), unit(1)
    matrices[0, :, 2] = (3, -2)
    moved = warped(ours, matrices)
    # A point of the new picture shows the old one three to its right and two above it.
    assert torch.allclose(moved[..., 2:, :-3], ours[..., :-2, 3:], atol=1e-5)


def test_a_quarter_turn_is_a_transpose_and_a_mirror() -> None:
    square = pictures(1)[..., :17, :17]
    assert torch.allclose(
        warped(square, turns(np.array([90.0]))), square.rot90(1, (2, 3)), atol=1e-4
    )


def test_a_turn_is_that_of_another_library(kornia: Any) -> None:
    ours = pictures(2)[..., :17, :17]
    angles = np.array([20.0, -35.0])
    theirs = kornia.geometry.transform.rotate(
        ours, torch.tensor(angles, dtype=torch.float32), padding_mode="reflection"
    )
    inner = (slice(None), slice(None), slice(5, 12), slice(5, 12))
    assert torch.allclose(warped(ours, turns(angles))[inner], theirs[inner], atol=0.02)


def test_crops_are_shifts_each_as_likely() -> None:
    ours = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(400, -1, -1, -1)
    moved = shifted(ours, rngs(400), 0.125)
    middle = moved[:, 0, 8, 8]
    around = ours[0, 0, 6:11, 6:11].flatten()
    nearest = (middle[:, None] - around[None]).abs().argmin(dim=1)
    counts = np.bincount(nearest.numpy(), minlength=25)
    assert counts.min() >= 4
    assert float((middle[:, None] - around[None]).abs().amin(dim=1).max()) < 1e-4


def test_a_part_is_shown_at_full_size() -> None:
    slope = torch.linspace(0, 1, 32).view(1, 1, 1, 32).expand(200, 3, 32, 32)
    spans = Resize(least=0.35).change(slope, rngs(200))
    widths = (spans[:, 0, 16, -1] - spans[:, 0, 16, 0]).numpy()
    assert 0.4 < widths.min() < 0.65
    assert widths.max() <= 1.0 + 1e-5


@pytest.mark.parametrize("way", ["brightness", "contrast", "saturation"])
def test_colours_change_as_in_another_library(kornia: Any, way: str) -> None:
    ours, factors = pictures(), torch.tensor([0.3, 1.0, 1.4, 0.0])
    enhance = kornia.enhance
    if way == "brightness":
        assert torch.allclose(
            brighter(ours, factors),
            enhance.adjust_brightness_accumulative(ours, factors),
            atol=1e-6,
        )
    elif way == "contrast":
        theirs = enhance.adjust_contrast_with_mean_subtraction(ours, factors)
        assert torch.allclose(contrasted(ours, factors), theirs, atol=1e-5)
    else:
        theirs = enhance.adjust_saturation_with_gray_subtraction(ours, factors)
        assert torch.allclose(saturated(ours, factors), theirs, atol=2e-3)


def test_grey_is_that_of_another_library(kornia: Any) -> None:
    assert torch.allclose(grey(pictures()), kornia.color.rgb_to_grayscale(pictures()), atol=1e-6)


def test_a_blur_is_that_of_another_library(kornia: Any) -> None:
    ours = pictures(2)
    reach = 2 * 4 + 1
    theirs = kornia.filters.gaussian_blur2d(ours, (reach, reach), (1.3, 1.3))
    assert torch.allclose(blurred(ours, torch.tensor([1.3, 1.3])), theirs, atol=1e-5)


@pytest.mark.parametrize("way", ["solarize", "equalize", "sharpness", "posterize"])
def test_operations_are_those_of_another_library(kornia: Any, way: str) -> None:
    ours, strengths = pictures(3), np.array([0.0, 0.5, 1.0])
    if way == "solarize":
        theirs = kornia.enhance.solarize(ours, torch.tensor([1.0, 0.5, 0.0]))
        close = (solarized(ours, strengths) - theirs).abs() < 1e-5
        assert close.float().mean() > 0.99
    elif way == "posterize":
        theirs = kornia.enhance.posterize(ours, torch.tensor([8, 5, 2]))
        assert torch.allclose(posterized(ours, strengths), theirs, atol=1e-5)
    elif way == "sharpness":
        theirs = kornia.enhance.sharpness(ours, torch.tensor([1.0, 1.5, 0.4]))
        assert torch.allclose(sharpened(ours, torch.tensor([1.0, 1.5, 0.4])), theirs, atol=1e-5)
    else:
        # Its table is of whole steps, which is coarse where there are few pixels.
        large = pictures(2, 300)
        theirs, found = kornia.enhance.equalize(large), equalized(large, strengths[:2])
        assert (found - theirs).abs().max() < 3 / 255 + 1e-6


def test_contrast_is_stretched_to_the_whole_range() -> None:
    dull = pictures(2) * 0.3 + 0.2
    dull[1, 0] = 0.5
    bright = autocontrasted(dull, np.zeros(2))
    assert torch.allclose(bright[0].amin(dim=(1, 2)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(bright[0].amax(dim=(1, 2)), torch.ones(3), atol=1e-6)
    assert torch.equal(bright[1, 0], dull[1, 0])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_shape_and_range(name: str) -> None:
    for strength in (-1.0, 0.0, 1.0):
        found = OPERATIONS[name](pictures(2), np.full(2, strength))
        assert found.shape == pictures(2).shape
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1


def test_the_strongest_shift_is_a_third_of_its_side() -> None:
    ours = pictures(1)[..., :9, :12]
    across, along = (OPERATIONS[name](ours, np.ones(1)) for name in ("shift_x", "shift_y"))
    assert torch.allclose(across[..., :-4], ours[..., 4:], atol=1e-5)
    assert torch.allclose(along[..., :-3, :], ours[..., 3:, :], atol=1e-5)


def test_the_strongest_shear_moves_each_line_by_nearly_a_pixel_more() -> None:
    ours = pictures(1)[..., :9, :9]
    found = OPERATIONS["shear_x"](ours, np.ones(1))
    for k in range(4):
        assert torch.allclose(found[..., 4 + k, : 9 - k], ours[..., 4 + k, k:], atol=0.04)


def test_a_square_is_blanked_with_the_mean() -> None:
    ours = pictures(50, 16)
    found = Erase(strength=0.25).change(ours, rngs(50))
    changed = (found != ours).any(dim=1)
    sizes = changed.sum(dim=(1, 2))
    assert int(sizes.max()) == 16
    assert int(sizes.min()) >= 4
    k = int(sizes.argmax())
    mean = ours[k].mean(dim=(1, 2))
    assert torch.allclose(found[k][:, changed[k]], mean[:, None].expand(-1, 16), atol=1e-6)


def test_mixup_is_the_weighted_sum() -> None:
    ones, others, shares = pictures(3), pictures(3, seed=1), np.array([0.0, 0.25, 1.0])
    found, came_to = ImageMixup().mixed(ones, others, shares, rngs(3))
    for k, share in enumerate(shares):
        assert torch.allclose(found[k], share * ones[k] + (1 - share) * others[k], atol=1e-6)
    assert came_to.tolist() == shares.tolist()


def test_the_share_of_a_cut_mix_is_that_of_its_pixels() -> None:
    ones, others = torch.zeros(60, 1, 16, 20), torch.ones(60, 1, 16, 20)
    wanted = np.random.default_rng(0).uniform(size=60)
    found, came_to = CutMix().mixed(ones, others, wanted, rngs(60))
    assert np.allclose(1 - found.mean(dim=(1, 2, 3)).numpy(), came_to, atol=1e-6)
    assert (came_to >= wanted - 1e-9).all(), "no more is cut than was drawn"


def test_the_loss_of_a_mixed_picture_is_that_of_soft_targets() -> None:
    from holdfast.core.updates import ForwardPass

    class Output:
        logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    labels, partners = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 1, 0, 0])
    shares = torch.tensor([0.2, 0.7, 1.0, 0.5], dtype=torch.float64)
    batch = {"labels": labels, "partners": partners, "shares": shares}
    cross = torch.nn.functional.cross_entropy
    plain = cross(Output.logits, labels, reduction="none")
    found = MixedLabels()(ForwardPass(np.arange(4), batch, Output()), plain)
    soft = torch.zeros(4, 3)
    for k in range(4):
        soft[k, labels[k]] += float(shares[k])
        soft[k, partners[k]] += float(1 - shares[k])
    assert torch.allclose(found, cross(Output.logits, soft, reduction="none"), atol=1e-6)
    bare = {"labels": labels}
    assert torch.equal(MixedLabels()(ForwardPass(np.arange(4), bare, Output()), plain), plain)


def bars(count: int, sided: bool, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Pictures with a bright bar: its side is the class, or its height is."""
    rng = np.random.default_rng(seed)
    labels, values = rng.integers(0, 2, count), rng.uniform(0, 0.3, (count, 1, 16, 16))
    for k, label in enumerate(labels):
        at = 2 + 10 * label
        if sided:
            values[k, 0, 4:12, at : at + 3] += 0.6
        else:
            values[k, 0, at : at + 3, rng.integers(0, 10) :][:, :6] += 0.6
    return torch.from_numpy(values).float(), labels


def test_a_mirror_is_refused_where_the_side_is_the_class_and_nowhere_else() -> None:
    for seed in range(5):
        assert not in_a_mirror(*bars(120, True, seed), seed).alike
        assert in_a_mirror(*bars(120, False, seed), seed).alike


def test_where_nothing_is_known_nothing_is_mirrored() -> None:
    values, labels = bars(80, False)
    seen = in_a_mirror(values, np.random.default_rng(0).permutation(labels), 0)
    assert not seen.alike
    assert "too small for a decision" in seen.because
