"""A start that adapts in a few steps: every method of ``holdfast meta`` on tasks it never met.

Omniglot (242 characters of eight alphabets: 4 to learn from, 2 to decide by, 2 to score) with a
small ResNet that is drawn at random, five characters of one alphabet an episode; BANKING77 with the
embedded MiniLM, five intents an episode, 46 intents to learn from, 15 to decide by, 16 to score.
600 test episodes, the same for every method. ``coverage`` asks, of simulated classes, how often an
interval holds the accuracy over all classes.

    python benchmarks/meta.py episodes      # cells: resumable, also within a cell
    python benchmarks/meta.py vectors       # BANKING77 over frozen vectors, a network of two layers
    python benchmarks/meta.py coverage
    python benchmarks/meta.py unseen        # train on an unseen alphabet, from each start
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import grid, run_cells
from claims import Claim, Lines, average, counts, interval, number, pick, rate, share, table
from peers.tables import markdown

if TYPE_CHECKING:
    from holdfast.plugins.episodes.choice import MetaBench

SHARED = Path(os.environ.get("HOLDFAST_DATA", "../shared/data"))
PLACE = Path.home() / ".cache" / "holdfast" / "meta"
METHODS = ("frozen", "tuned", "prototypes")
BLOCK = 50
SETTINGS = {
    "omniglot": ["meta.episodes=600", "meta.queries=10", "meta.looks=5"],
    "banking77": ["meta.episodes=150", "meta.queries=5", "meta.looks=3"],
}


def pictures() -> Path:
    """Omniglot as ``alphabet/character/drawing.png``."""
    from PIL import Image

    folder = PLACE / "alphabets"
    if (folder / "done").exists():
        return folder / "pictures"
    with np.load(SHARED / "omniglot" / "omniglot28.npz") as file:
        data = {name: file[name] for name in file.files}
    for image, character, drawer in zip(
        data["images"], data["character"], data["drawer"], strict=True
    ):
        place = folder / "pictures" / str(data["character_names"][character])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{drawer:02d}.png")
    (folder / "done").touch()
    return folder / "pictures"


def resnet() -> Path:
    """A residual network for one channel of 28 x 28, drawn at random, with its processor."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification
    from transformers.models.vit import ViTImageProcessorPil

    folder = PLACE / "resnet28"
    if not folder.exists():
        torch.manual_seed(0)
        config = ResNetConfig(  # type: ignore[call-arg]
            num_channels=1,
            embedding_size=64,
            hidden_sizes=[64, 64, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=2,
        )
        ResNetForImageClassification(config).save_pretrained(folder)
        ViTImageProcessorPil(
            size={"height": 28, "width": 28}, image_mean=[0.5], image_std=[0.5]
        ).save_pretrained(folder)
    return folder


@functools.cache
def bench(name: str, shots: int) -> MetaBench:
    """What the cells of one set share."""
    from holdfast.plugins.episodes.choice import MetaBench, fill_settings
    from holdfast.plugins.episodes.meta import absolute_recipe, with_training_labels
    from holdfast.plugins.episodes.rows import load_tasks
    from holdfast.prepare.model import prepare
    from holdfast.recipe import Recipe, override

    source = SHARED / "banking77" / "train.csv" if name == "banking77" else pictures()
    settings = [
        f"data.path={source}",
        "meta.method=auto",
        f"meta.shots={shots}",
        "meta.judge_episodes=100",
        "train.threads=1",
        "train.precision=float32",
        *SETTINGS[name],
    ]
    if name == "omniglot":
        settings.append(f"model.name={resnet()}")
    rows = load_tasks(override(Recipe(), settings))
    prepared = prepare(absolute_recipe(rows), with_training_labels(rows))
    recipe, _ = fill_settings(prepared.recipe, prepared)
    into = PLACE / f"{name}-{shots}"
    return MetaBench(prepared, rows, recipe, into, f"{name} {shots}", 20.0)


def episodes_of(cell: Any) -> dict[str, Any]:
    """One method on the test episodes of one set."""
    from holdfast.plugins.episodes.choice import baselines, train_candidate
    from holdfast.plugins.episodes.methods import METHODS as ALL
    from holdfast.plugins.episodes.methods import cached_vectors, score_episodes
    from holdfast.stats.folds import mean_over_units

    shared, name = bench(cell["set"], cell["shots"]), cell["method"]
    if name in ("frozen", "tuned"):
        arm = baselines(shared, lambda *_: None)[name == "tuned"]
    else:
        arm = train_candidate(shared, name, ALL[name](), lambda *_: None)
    reader = shared.reader(arm.training.state if arm.training else None)
    test = shared.rows.pools[2]
    episodes = test.episodes(shared.rows.shape, 600, shared.recipe.seed, "test")
    vectors = cached_vectors(reader, episodes)
    parts, folder = [], shared.folder
    assert folder is not None
    for start in range(0, len(episodes), BLOCK):
        path = folder / f"{name}-{start}.npy"
        if not path.exists():
            block = episodes[start : start + BLOCK]
            np.save(path, score_episodes(arm.method, reader, block, vectors).accuracy)
        parts.append(np.load(path))
    accuracy = np.concatenate(parts)
    members, unit = test.unit_membership(episodes)
    found = mean_over_units(accuracy, members)
    half = 1.96 * float(accuracy.std(ddof=1)) / len(accuracy) ** 0.5
    told = {
        "accuracy": 100 * found.value,
        "low": 100 * found.low,
        "high": 100 * found.high,
        "plain_half": 100 * half,
        "narrower": (found.high - found.low) / 2 / half,
        "over": f"{members.shape[1]} {unit}",
        "valid": 100 * arm.accuracy,
        "best_step": arm.training.best_step if arm.training else 0,
        "seconds": arm.seconds,
    }
    tuned = folder / f"tuned-{len(episodes) - BLOCK}.npy"
    if name != "tuned" and tuned.exists():
        starts = range(0, len(episodes), BLOCK)
        other = np.concatenate([np.load(folder / f"tuned-{s}.npy") for s in starts])
        gap = mean_over_units(accuracy - other, members)
        told |= {
            "minus_tuned": 100 * gap.value,
            "gap_low": 100 * gap.low,
            "gap_high": 100 * gap.high,
        }
    return told


def coverage_of(cell: Any) -> dict[str, Any]:
    """Of simulated sets of classes: how often each interval holds the accuracy over all classes.

    A class is a Gaussian in 8 dimensions with a width of its own; a row is of the nearest mean of
    the support rows. Truth: the mean over 40,000 episodes of classes that are each met once."""
    from holdfast.stats.folds import mean_over_units

    units, shots, ways, width = cell["classes"], cell["shots"], 5, 8
    rng = np.random.default_rng(cell["seed"])

    def classes(n: int) -> tuple[Any, Any]:
        return 0.9 * rng.standard_normal((n, width)), np.exp(rng.normal(0, 0.35, n))

    def accuracy(centres: Any, deviations: Any) -> float:
        spread = deviations[None, :, None]
        support = centres + rng.standard_normal((shots, ways, width)) * spread
        query = centres + rng.standard_normal((10, ways, width)) * spread
        gaps = ((query[:, :, None] - support.mean(axis=0)[None, None]) ** 2).sum(axis=-1)
        return float((gaps.argmin(axis=-1) == np.arange(ways)).mean())

    truth = np.mean([accuracy(*classes(ways)) for _ in range(40_000)])
    held, plain, widths = 0, 0, []
    for _ in range(cell["sets"]):
        centres, deviations = classes(units)
        drawn = [rng.choice(units, ways, replace=False) for _ in range(600)]
        values = np.array([accuracy(centres[one], deviations[one]) for one in drawn])
        members = np.zeros((600, units))
        for at, one in enumerate(drawn):
            members[at, one] = 1
        found, half = mean_over_units(values, members), 1.96 * values.std(ddof=1) / 600**0.5
        held += bool(found.low <= truth <= found.high)
        plain += bool(abs(values.mean() - truth) <= half)
        widths.append((found.high - found.low) / 2 / half)
    n = cell["sets"]
    return {"over classes": held / n, "plain": plain / n, "times wider": float(np.mean(widths))}


@functools.cache
def projected(shots: int) -> Any:
    """BANKING77 as vectors of the frozen MiniLM, and what learns: a small network over them that
    begins as no change at all. Gives a function to a fresh reader, and the three pools."""
    import torch
    from torch import nn

    from holdfast.plugins.episodes.choice import sample_rows
    from holdfast.plugins.episodes.methods import FeatureReader, with_scale

    shared = bench("banking77", shots)
    path = PLACE / "vectors.npy"
    if not path.exists():
        np.save(path, shared.reader().vectors(np.arange(len(shared.rows.table))))
    vectors = torch.from_numpy(np.load(path))
    width = vectors.shape[1]

    class Projection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)
            self.head = nn.Linear(width, 2)

        def features(self, x: Any) -> Any:
            return x + self.outer(torch.relu(self.inner(x)))

    class Rows:
        lengths = np.ones(len(vectors), dtype=int)

    def collate(rows: Any, positions: Any) -> dict[str, Any]:
        return {"x": vectors[torch.as_tensor(positions)]}

    def fresh() -> Any:
        torch.manual_seed(0)
        reader = FeatureReader(Projection().eval(), collate, Rows(), torch.device("cpu"))
        return with_scale(reader, *sample_rows(shared.rows.pools[0], 0))

    return fresh, shared.rows.pools, width


def projected_of(cell: Any) -> dict[str, Any]:
    """One method over the frozen vectors of BANKING77: 600 updates, 600 test episodes."""
    from holdfast.plugins.episodes.learn import EpisodePlan, learn
    from holdfast.plugins.episodes.methods import METHODS as ALL
    from holdfast.plugins.episodes.methods import Embedding, cached_vectors, score_episodes
    from holdfast.plugins.episodes.tasks import EpisodeShape
    from holdfast.stats.folds import mean_over_units
    from holdfast.training.checkpoint import CheckpointStore

    fresh, pools, width = projected(5)
    reader, shape, name = fresh(), EpisodeShape(5, cell["shots"], 5), cell["method"]
    judge = pools[1].episodes(shape, 100, 0, "valid")
    episodes = pools[2].episodes(shape, 600, 0, "test")
    probe = pools[0].episodes(shape, 25, 0, "probe")
    if name in ("frozen", "tuned"):
        method: Any = Embedding(pools[0], width, "logistic")
    else:
        method = ALL[name]()
    best, seconds = 0, 0.0
    if name != "frozen":
        course = EpisodePlan(pools[0], shape, 600, 3e-4, 6, probe, judge, 0)
        learned = learn(method, reader, course, CheckpointStore(None))
        best, seconds = learned.best_step, learned.evaluations[-1].seconds
    vectors = cached_vectors(reader, episodes)
    accuracy = score_episodes(method, reader, episodes, vectors).accuracy
    place = PLACE / f"vectors-{cell['shots']}"
    place.mkdir(exist_ok=True)
    np.save(place / f"{name}.npy", accuracy)
    members, unit = pools[2].unit_membership(episodes)
    found = mean_over_units(accuracy, members)
    half = 1.96 * float(accuracy.std(ddof=1)) / len(accuracy) ** 0.5
    told = {
        "accuracy": 100 * found.value,
        "low": 100 * found.low,
        "high": 100 * found.high,
        "plain_half": 100 * half,
        "narrower": (found.high - found.low) / 2 / half,
        "over": f"{members.shape[1]} {unit}",
        "best_step": best,
        "seconds": seconds,
    }
    if name != "frozen":
        gap = mean_over_units(accuracy - np.load(place / "frozen.npy"), members)
        told |= {"minus_frozen": 100 * gap.value, "gap_low": 100 * gap.low}
        told |= {"gap_high": 100 * gap.high}
    return told


def unseen_of(cell: Any) -> dict[str, Any]:
    """``holdfast train`` on five drawings of each character of an alphabet that no start has met,
    scored on the other fifteen."""
    import shutil

    import holdfast

    shared = bench("omniglot", 5)
    task = shared.rows.pools[2].tasks[cell["alphabet"]]
    paths, rng = shared.rows.table.column("path"), np.random.default_rng(cell["seed"])
    folder = PLACE / "unseen" / f"{cell['alphabet']}-{cell['seed']}"
    if not folder.exists():
        for name, rows in zip(task.classes, task.rows, strict=True):
            for place, row in enumerate(rng.permutation(rows)):
                to = folder / ("few" if place < 5 else "rest") / name
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(paths[row], to / Path(paths[row]).name)
    model = resnet() if cell["start"] == "random" else saved(cell["start"])
    out = PLACE / "runs" / f"{cell['start']}-{cell['alphabet']}-{cell['seed']}-{os.getpid()}"
    run = holdfast.train(
        folder / "few",
        test=str(folder / "rest"),
        model=str(model),
        seed=cell["seed"],
        out=out,
        settings={"train.threads": 1},
    )
    found = run.result["test"]["metrics"]["accuracy"]
    told = {name: 100 * found[name] for name in ("value", "low", "high")}
    return {"characters": len(task.classes), **told, "seconds": run.result["timing"]["train_s"]}


def saved(name: str) -> Path:
    """The start that a method learned from the training alphabets, as a plain folder."""
    from holdfast.plugins.episodes.choice import baselines, train_candidate, with_prototypes
    from holdfast.plugins.episodes.methods import METHODS as ALL

    shared, folder = bench("omniglot", 5), PLACE / "starts" / name
    if not folder.exists():
        if name == "tuned":
            arm = baselines(shared, lambda *_: None)[1]
        else:
            arm = train_candidate(shared, name, ALL[name](), lambda *_: None)
        assert arm.training is not None
        network = with_prototypes(shared, shared.reader(arm.training.state))
        network.save(folder, shared.prepared.loaded.tokenizer)
    return folder


def main() -> None:
    part, chosen = sys.argv[1], sys.argv[2:]
    if part == "episodes":
        cells = grid(set=["omniglot", "banking77"], shots=[1, 5], method=METHODS)
        wanted = [c for c in cells if not chosen or f"{c['set']}-{c['shots']}" in chosen]
        run_cells("meta_episodes", wanted, episodes_of)
    elif part == "vectors":
        run_cells("meta_vectors", VECTORS, projected_of)
    elif part == "coverage":
        run_cells("meta_coverage", COVERAGE, coverage_of)
    else:
        cells = grid(alphabet=[0, 1], seed=[0, 1], start=["random", "tuned", "prototypes"])
        run_cells("meta_unseen", cells, unseen_of)


VECTORS = grid(shots=[1, 5], method=METHODS)
COVERAGE = grid(classes=[10, 15, 30, 60], shots=[1, 5], seed=[1], sets=[300])


def scores(lines: Lines) -> str:
    rows = [
        [
            line["method"],
            str(line["shots"]),
            f"{number(line['accuracy'])} ({interval(line['low'], line['high'])})",
            f"{number(line['minus_frozen'], 1, True)} "
            f"({interval(line['gap_low'], line['gap_high'], 1, True)})"
            if line.get("minus_frozen") is not None
            else "",
        ]
        for line in lines
        if line.get("method")
    ]
    return markdown(["Method", "Shots", "Accuracy, % (95 % CI)", "Minus `frozen`, points"], rows)


def finding(lines: Lines) -> str:
    best = next(iter(pick(lines, method="prototypes", shots=1)), None)
    coverage = [line for line in lines if line.get("over classes") is not None]
    if not best or not coverage:
        return ""
    gain = interval(best["gap_low"], best["gap_high"], 1, True)
    return (
        "With one example a class, prototypes have an accuracy "
        f"{number(best['minus_frozen'], 1, True)} points (95 % CI {gain}, BANKING77) above that of "
        "the frozen model. Holdfast's 95 % interval, over classes, contains the true accuracy in "
        f"{share(*counts(coverage, 'over classes', 'sets', shares=True), long=True)} simulated "
        "sets, the usual one, over episodes, in "
        f"{share(*counts(coverage, 'plain', 'sets', shares=True), long=True)}."
    )


CLAIM = Claim(
    "meta",
    "Accuracy",
    "Few-shot classification",
    """\
BANKING77 on frozen MiniLM vectors, five classes an episode, 600 test episodes of 16 intents that
no method was trained on: the frozen model, the same trained as an ordinary classifier of all
training classes ("tuned"), and prototypes. Coverage: 300 simulated sets of classes with 600
episodes each, and how often an interval contains the accuracy over all classes. The usual interval
treats the episodes as independent.""",
    lambda: [*VECTORS, *COVERAGE],
    finding,
    [
        scores,
        lambda lines: table(
            {"classes": "Classes", "shots": "Shots"},
            {
                "Coverage, over classes, %": rate("over classes", "sets", shares=True),
                "Coverage, usual, %": rate("plain", "sets", shares=True),
                "Width ÷ that of the usual": average("times wider", 1, 0),
            },
        )([line for line in lines if line.get("classes")]),
    ],
    "Five examples a class on BANKING77, and images, have not been measured.",
    files=("meta_vectors", "meta_coverage"),
    command="python benchmarks/meta.py vectors && python benchmarks/meta.py coverage",
)


if __name__ == "__main__":
    main()
