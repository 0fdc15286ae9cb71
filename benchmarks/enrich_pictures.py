"""What other forms of pictures are worth to a small network with random weights.

    python benchmarks/enrich_pictures.py               # CIFAR-10 and MNIST, two seeds
    python benchmarks/enrich_pictures.py --minutes 3   # start no new cell after three minutes

1,200 training, 300 validation and 1,500 test pictures; a ResNet of 0.7 million parameters with a
rate of 1e-3, the rest by default. Two plans: ``early stopping``, up to 25 passes, and ``whole``, 20
passes in batches of 32 that nothing ends before. Arms of a seed begin with the same rows and
weights.
"""

from __future__ import annotations

import functools
import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, Metric, average, comparison, paired, pick, runs, table
from peers.rows import data_folder
from peers.script import options, results_path
from PIL import Image
from vs_trainer_tasks import small_resnet

NAME = "enrich_pictures"
SETS, SEEDS = ("cifar10", "mnist"), 2
SIZES = (1200, 300, 1500)
OFF, USUAL, BY_EVIDENCE = "none", "crop, flip", "usual"
# Of what is to be the default: seeds that nothing was chosen on.
FRESH = range(2, 5)
ARMS: dict[str, dict[str, Any]] = {
    OFF: {"enrich": {"crop": False}},
    USUAL: {"enrich": {"crop": True, "flip": True}},
    "crop": {"enrich.crop": True},
    BY_EVIDENCE: {"enrich.usual": True},
    "trivial_augment": {"enrich.trivial_augment": True},
    "crop, flip, erase": {"enrich": {"crop": True, "flip": True, "erase": True}},
    "crop, flip, cutmix": {"enrich": {"crop": True, "flip": True, "cutmix": True}},
}
PLANS: dict[str, dict[str, Any]] = {
    "early stopping": {"train.epochs": 25, "control.policy": "stop"},
    "whole": {"train.epochs": 20, "train.batch_size": 32, "control.policy": "off"},
}
SHORT = {"cifar10": (OFF, USUAL), "mnist": (OFF, "crop")}
OF = {"cifar10": tuple(arm for arm in ARMS if arm != BY_EVIDENCE), "mnist": (OFF, "crop")}


@functools.lru_cache(maxsize=1)
def prepared_images(data: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Images and model, and which are training, validation and test images."""
    from holdfast.core.seeds import generator
    from holdfast.prepare.model import prepare
    from holdfast.recipe import Recipe, override
    from holdfast.tasks import task_definition

    folder = Path(tempfile.gettempdir()) / f"holdfast-enrich-{data}"
    if not folder.exists():
        for class_name, name, image in (drawings if data == "omniglot" else packed_images)(data):
            (folder / class_name).mkdir(parents=True, exist_ok=True)
            (folder / class_name / name).write_bytes(image)
    task = "task=image-classification"
    model = f"model.name={small_resnet()}"
    recipe = override(Recipe(), [task, f"data.path={folder}", f"seed={seed}", model])
    table = task_definition("image-classification").read(str(folder), recipe.data, None)
    order = generator(0, "benchmark", "pictures").permutation(len(table))
    train, valid, test = SIZES
    held, rest = order[:test], order[test:]
    rest = rest[generator(seed, "benchmark", "pictures").permutation(len(rest))]
    used = np.concatenate([rest[: train + valid], held])
    prepared = prepare(recipe, table.take(used))
    of_train, of_valid, of_test = np.split(np.arange(len(used)), [train, train + valid])
    return prepared, of_train, of_valid, of_test


def packed_images(data: str) -> Iterator[tuple[str, str, bytes]]:
    """Class, file name and file of each image of a zip file with a folder for each class."""
    with zipfile.ZipFile(data_folder() / data / f"{data}.zip") as packed:
        for name in packed.namelist():
            if name.endswith((".jpg", ".png")):
                yield Path(name).parent.name, name.replace("/", "-"), packed.read(name)


def drawings(data: str) -> Iterator[tuple[str, str, bytes]]:
    """The same of Omniglot's drawn letters; the class is the alphabet."""
    with np.load(data_folder() / data / "omniglot28.npz") as held:
        names = held["alphabet_names"]
        for number, (pixels, alphabet) in enumerate(
            zip(held["images"], held["alphabet"], strict=True)
        ):
            file = io.BytesIO()
            Image.fromarray(pixels).convert("RGB").save(file, "PNG")
            yield str(names[alphabet]), f"{number}.png", file.getvalue()


def run_one(cell: Cell) -> dict[str, Any]:
    """Accuracy on the test pictures, and how long the training took."""
    from holdfast.fits.fit import fit

    prepared, train, valid, test = prepared_images(cell["data"], cell["seed"])
    start = time.perf_counter()
    fitted = fit(
        prepared,
        train,
        valid,
        {"train.learning_rate": 1e-3, **PLANS[cell["plan"]], **ARMS[cell["arm"]]},
    )
    seconds = time.perf_counter() - start
    losses, logits = fitted.measure(prepared.examples, test)
    right = logits.argmax(axis=1) == np.asarray(prepared.examples.labels)[test]
    last = fitted.trained.last_step
    told = {"accuracy": float(right.mean()), "loss": float(losses.mean()), "seconds": seconds}
    shown = [one.chosen for one in fitted.training_plan.decisions if one.what == "enrich"]
    print(f"  {told} {last} {shown}", flush=True)
    return {**told, "steps": last}


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    run_cells(NAME, cells(), run_one, results_path(NAME, 1, False), minutes=asked.minutes)


def cells() -> list[dict[str, Any]]:
    found = [
        cell
        for plan, arms in (("early stopping", SHORT), ("whole", OF))
        for seed in range(SEEDS)
        for data in SETS
        for cell in grid(plan=[plan], seed=[seed], data=[data], arm=arms[data])
    ]
    # What decides about the default comes first.
    first = sorted(found, key=lambda cell: cell["arm"] not in (OFF, USUAL, "crop"))
    fresh = grid(plan=["early stopping"], seed=FRESH, data=SETS, arm=(OFF, BY_EVIDENCE))
    return [*fresh, *first]


BY = ("plan", "data", "seed")


def finding(lines: Lines) -> str:
    gaps = {
        name: paired(pick(lines, data=data), "accuracy", arm, OFF, BY)
        for data, arm, name in (
            ("cifar10", USUAL, "crops and flips on CIFAR-10"),
            ("mnist", "crop", "crops on MNIST"),
            ("cifar10", BY_EVIDENCE, "`usual` on CIFAR-10, on fresh seeds"),
            ("mnist", BY_EVIDENCE, "`usual` on MNIST, on fresh seeds"),
        )
    }
    parts = [f"{name} {gap.words(100, 1, ' points')}" for name, gap in gaps.items() if gap]
    shown = ", ".join(parts)
    return (
        f"Test accuracy that augmentation adds to a network trained from random weights: {shown}."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Data augmentation of images",
    """\
A ResNet of 0.7 million parameters with random weights, 1,200 training and 1,500 test images.
Two plans: "early stopping" (at most 25 epochs) and "whole" (always 20 epochs, batches of 32). The
first table has the runs of both plans.""",
    cells,
    finding,
    [
        comparison(
            [(arm, OFF) for arm in ARMS if arm != OFF],
            {"Accuracy, points": Metric("accuracy", 100)},
            "data",
            by=BY,
        ),
        table(
            {"plan": "Plan", "data": "Images", "arm": "Augmentation"},
            {"Runs": runs, "Accuracy, %": average("accuracy", 100, limits=False)},
        ),
    ],
    """\
Two seeds, and three fresh ones for `enrich.usual` (crops, and flips where the images allow them).
It is not on by default: on MNIST two of three runs with it stopped early and lost 7 and 8 points.
Pretrained networks were not measured.""",
)


if __name__ == "__main__":
    main()
