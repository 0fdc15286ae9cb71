"""An audit of texts in a model's space, and of a folder of pictures, from files to findings."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from holdfast.api.commands import audit

PLACES = ["the station", "our hotel", "the museum", "a small cafe", "the harbour", "my school"]
THINGS = ["ticket", "suitcase", "painting", "sandwich", "old boat", "exercise book"]
ENDS = ["in the morning", "before lunch", "last Sunday", "on a rainy day", "with my uncle"]
AGAIN = {
    "We waited a very long time for the train to come.": "We had to wait for the train for ages.",
    "The soup was so cold that nobody could eat it.": "No one could eat the soup, so cold was it.",
    "She was happy about the present from her brother.": "Her brother's present made her happy.",
}


def visits(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        f"I lost a {rng.choice(THINGS)} at {rng.choice(PLACES)} {rng.choice(ENDS)}, number {i}."
        for i in range(n)
    ]


def write(path: Path, texts: list[str], labels: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    return path


def test_texts_of_another_place_and_the_same_in_other_words(tmp_path: Path) -> None:
    here = [*visits(60, 0), *AGAIN, "For the train to come we waited a very long time."]
    train = write(tmp_path / "train.csv", here, ["lost", "found"] * 32)
    code = [
        f"def function_{i}(values): return [value + {i} for value in sorted(values)]"
        for i in range(40)
    ]
    other = write(tmp_path / "new.csv", [*code, *AGAIN.values()], ["lost", "found"] * 21 + ["lost"])
    found = {f.check: f for f in audit(train, against=[other]).findings}
    assert found["shift"].severity == "warn"
    assert found["shift"].score > 0.8
    assert "new.csv" in found["shift"].because
    assert set(found["semantic_copies"].rows) == {60, 63}
    assert found["semantic_conflicts"].rows == (60, 63)


def test_a_folder_of_pictures_with_marks_and_copies(tmp_path: Path) -> None:
    for at, name in enumerate(("cat", "dog")):
        for part, n in (("train", 50), ("test", 10)):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(n):
                # Three pictures of each test class stand in the training folder, larger.
                seed = 1000 * at + (i if part == "train" or i < 3 else 500 + i)
                rng = np.random.default_rng(seed)
                coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                side = 40 if part == "train" else 48
                image = coarse.resize((side, side), Image.Resampling.BICUBIC)
                mark = 60 if name == "dog" and part == "train" and i % 2 else 90
                image.save(tmp_path / part / name / f"{i:03}.jpg", quality=mark)
    found = {f.check: f for f in audit(tmp_path / "train", against=[tmp_path / "test"]).findings}
    assert "JPEG quality 60" in found["image_giveaway"].because
    assert found["image_leaks"].rows == (0, 1, 2, 50, 51, 52)
    assert found["image_leaks"].score == pytest.approx(6 / 20)
    assert "near_images" not in found
