"""Labels: how well are wrong ones ranked and giveaways found?

    python benchmarks/labels.py [--part issues|tuned|giveaways|few|artefacts|odd|typing]
                                [--data cr|mr|…]

CR, MR, TREC and BANKING77, read by MiniLM as it is. *Issues*: 1,600 rows, some labels exchanged
for another class; the average precision of the audit's ranking, of cleanlab's
self-confidence on the frozen vectors (logistic regression, five folds), and of the loss of our
probe on them alone. *Giveaways*: 100 planted in 30 to 100 % of a class, of 27 kinds; and the sets
as they are.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import io
import itertools
import json
import os
import random
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import HERE, Cell, Result, grid, run_cells
from claims import Claim, Line, Lines, average, counts, melt, paired, pick, rate, share, table

from holdfast.analyses.audit.fold_predictions import tuned_log_probabilities
from holdfast.analyses.audit.views import references
from holdfast.core.seeds import generator
from holdfast.data.memory.texts import table_from_texts
from holdfast.models.probes.head_fit import cross_entropy
from holdfast.models.probes.probe import fit_probe
from holdfast.prepare.embedding import MIDDLE_DEPTH, load_encoder
from holdfast.quality.checks.shortcuts.hidden_giveaway import hidden_giveaway
from holdfast.quality.checks.shortcuts.image_giveaway import LEAST_ROWS, image_artefacts
from holdfast.quality.checks.texts.language import typing_errors
from holdfast.quality.checks.texts.origin import machine_filler, off_topic_rows
from holdfast.quality.cues import MIN_ROWS_WITH_WORD
from holdfast.quality.label_ranking import rank_labels
from holdfast.quality.views import Embedded, ImageSample, TableRows, ThoroughRows
from holdfast.recipe import Recipe

NAME = "labels"
SETS = {
    "cr": "cr/cr.csv",
    "mr": "mr/mr.csv",
    "trec": "trec/train.csv",
    "banking77": "banking77/train.csv",
}
POOL, ROWS, NOISE, SEEDS = 4000, 1600, 0.1, 5
# A draw of 77 classes takes cleanlab and the probes three quarters of a minute.
DRAWS = {"banking77": 3}
FIRST_SEED = 100
# Draws on which nothing of the tuned fits was chosen.
TUNED_SEEDS = (102, 103)
PLANTS, PART, FEWER = 100, 5, 1200
IMAGES, IMAGE_DRAWS = ("cifar10", "cifar10 resized", "mnist", "omniglot"), 10
CLEAN_DRAWS = 50
IMAGE_CLASSES, IMAGE_COUNTS = (2, 2, 3, 5, 8), (100, 200, 400)
QUALITIES = (50, 60, 70, 80, 85, 90)
ARTEFACTS = ("red corner", *(f"JPEG {quality}" for quality in QUALITIES), "blurred")
# So many of the 50 sentences of a kind are planted.
ODD_ROWS, ODD_DRAWS = {200: 15, 1500: 50}, 3
# Texts with capital letters; the rule of typing errors was chosen on draws 100 to 102 of them.
PROSE, TYPING_SEED = ("banking77", "trec", "instructions"), 200
# Thresholds were chosen on the images before these: the first 200 of a class, or 1,600 drawings.
FRESH, FRESH_DRAWINGS = 200, 1600
FEW_ROWS, FEW_DRAWS, FEW_CLASSES = (100, 200, 300, 400), 25, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part",
        choices=["issues", "tuned", "giveaways", "few", "artefacts", "odd", "typing", "all"],
        default="all",
    )
    parser.add_argument("--data", choices=SETS, default=None)
    asked = parser.parse_args()
    part = asked.part
    run_cells(NAME, [c for c in cells() if _asked(c, part, asked.data)], measure)


def _asked(cell: Cell, part: str, data: str | None) -> bool:
    parts = ("healthy", "giveaways") if part == "giveaways" else (part,)
    return (part == "all" or cell["part"] in parts) and data in (None, cell["data"])


def measure(cell: Cell) -> Result:
    return {
        "issues": issues,
        "tuned": tuned,
        "giveaways": giveaways,
        "healthy": healthy,
        "few": few,
        "artefacts": artefacts,
        "odd": odd,
        "typing": typing,
    }[cell["part"]](cell)


@functools.cache
def encoder() -> Any:
    return load_encoder(Recipe())[0]


@functools.cache
def source(name: str) -> tuple[list[str], list[str]]:
    path = Path(os.environ["HOLDFAST_DATA"]) / SETS[name]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


@functools.cache
def pool(name: str) -> tuple[Any, ...]:
    """4,000 rows of a set at most, in one order: texts, labels, names, vectors at two depths."""
    texts, labels = source(name)
    order = generator(0, NAME, name).permutation(len(texts))[:POOL]
    names, y = np.unique([labels[at] for at in order], return_inverse=True)
    kept = [texts[at] for at in order]
    last, inner = kept_vectors(name, kept)
    return kept, y, tuple(map(str, names)), last, inner


def kept_vectors(name: str, texts: list[str]) -> Any:
    """Kept beside other temporary files, so that a killed benchmark reads no text twice."""
    path = Path(tempfile.gettempdir()) / f"holdfast-{NAME}-{name}-{POOL}.npy"
    if not path.exists():
        np.save(path, np.stack(encoder().at_depths((1.0, MIDDLE_DEPTH), texts)))
    return np.load(path)


def view(
    texts: Sequence[str], labels: Any, names: Sequence[str], last: Any, inner: Any
) -> Embedded:
    table = table_from_texts(list(texts), [names[k] for k in labels], rare_below=1)
    # A text that says that it is missing is left out.
    kept = table.column("row")
    return Embedded(TableRows(table), last[kept], "embedded", encoder(), middle_vectors=inner[kept])


def issues(cell: Cell) -> Result:
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import cross_val_predict

    names, last = pool(cell["data"])[2:4]
    found: dict[str, list[float]] = {"audit": [], "cleanlab": [], "probe": []}
    stated, true, spent = [], [], 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + cell["seeds"]):
        seen, rows, wrong, given = exchanged(cell["data"], cell["noise"], seed)
        start = time.process_time()
        assert seen.fold_predictions is not None
        ranking = rank_labels(seen.fold_predictions)
        spent += time.process_time() - start
        ranked = wrong[seen.rows.ids[ranking.order]]
        found["audit"].append(average_precision_score(ranked, ranking.score))
        y = np.unique(given, return_inverse=True)[1]
        p = cross_val_predict(
            LogisticRegression(max_iter=1000), last[rows], y, cv=5, method="predict_proba"
        )
        found["cleanlab"].append(average_precision_score(wrong, -get_label_quality_scores(y, p)))
        probe = fit_probe(last[rows], given, classes=len(names), seed=seed)
        assert probe.held_out is not None
        losses = cross_entropy(np.nan_to_num(probe.held_out), given)
        found["probe"].append(average_precision_score(wrong, losses))
        most = int(wrong.sum())
        if ranking.precision(most) is not None:
            stated.append(float(ranking.precision(most) or 0))
            true.append(float(ranked[:most].mean()))
    off = np.abs(np.subtract(stated, true))
    return {
        **{name: float(np.mean(values)) for name, values in found.items()},
        "least": float(np.min(found["audit"])),
        "seconds": spent / cell["seeds"],
        "stated": len(stated),
        "said": float(np.mean(stated)) if stated else None,
        "true": float(np.mean(true)) if stated else None,
        "off": float(off.max()) if stated else None,
    }


def exchanged(name: str, noise: float, seed: int) -> tuple[Embedded, Any, Any, Any]:
    """1,600 rows of a set as the audit sees them, which they are, which labels are wrong, and all
    labels."""
    texts, truth, names, last, inner = pool(name)
    rng = generator(seed, NAME, name, str(noise))
    rows = rng.permutation(len(texts))[:ROWS]
    wrong = np.zeros(ROWS, dtype=bool)
    wrong[rng.permutation(ROWS)[: round(noise * ROWS)]] = True
    other = (truth[rows] + rng.integers(1, len(names), ROWS)) % len(names)
    given = np.where(wrong, other, truth[rows])
    seen = view([texts[at] for at in rows], given, names, last[rows], inner[rows])
    return seen, rows, wrong, given


def tuned(cell: Cell) -> Result:
    """What ``audit.tuned`` adds to the same ranking, on one draw."""
    from sklearn.metrics import average_precision_score

    seen, _, wrong, _ = exchanged(cell["data"], cell["noise"], cell["seed"])
    recipe, start = Recipe().model_copy(update={"seed": cell["seed"]}), time.perf_counter()
    answers = tuned_log_probabilities(seen.rows, recipe, "embedded", 0.0, lambda *_: None)
    found: Result = {"seconds": time.perf_counter() - start}
    for name, one in (("audit", seen), ("tuned", replace(seen, tuned_log_p=answers))):
        assert one.fold_predictions is not None
        ranking = rank_labels(one.fold_predictions)
        ranked = wrong[seen.rows.ids[ranking.order]]
        found[name] = float(average_precision_score(ranked, ranking.score))
    return found


def healthy(cell: Cell) -> Result:
    """The set as it is; and with its classes' names hidden, which leaves the geometry alone."""
    texts, y, names, last, inner = pool(cell["data"])
    start = time.process_time()
    found = hidden_giveaway(view(texts, y, names, last, inner))
    spent = time.process_time() - start
    blind = hidden_giveaway(
        view(texts, y, [f"class {k:02}" for k in range(len(names))], last, inner)
    )
    return {
        "false": int(found is not None),
        "said": found.finding.because if found else "",
        "without names": blind.finding.because if blind else "",
        "seconds": spent,
    }


def giveaways(cell: Cell) -> Result:
    """Each plant in a class of at least 35 rows of those drawn; found where the finding names half
    of its rows or more and its class."""
    texts, y, names, last, inner = pool(cell["data"])
    if len(names) < 20:
        # Of few classes each has rows enough in a part of the set.
        texts, y, last, inner = texts[:FEWER], y[:FEWER], last[:FEWER], inner[:FEWER]
    hits, missed = 0, []
    for at in range(cell["first"], cell["first"] + cell["plants"]):
        number = list(SETS).index(cell["data"]) + len(SETS) * at
        rng = generator(FIRST_SEED + number, NAME, "plant")
        kind = KINDS[number % len(KINDS)]
        sizes = np.bincount(y, minlength=len(names))
        label = int(rng.choice(np.flatnonzero(sizes >= 35)))
        share = float(rng.uniform(0.3, 1.0))
        planted, rows = plant(kind, texts, y, label, share, rng)
        vectors, middle = last.copy(), inner.copy()
        vectors[rows], middle[rows] = encoder().at_depths(
            (1.0, MIDDLE_DEPTH), [planted[k] for k in rows]
        )
        found = hidden_giveaway(view(planted, y, names, vectors, middle))
        named = f"class {names[label]!r}"
        hit = (
            found is not None
            and named in found.finding.because
            and found.finding.count >= 0.5 * len(rows)
        )
        hits += hit
        missed += [] if hit else [f"{kind} ({share:.0%})"]
    return {"found": hits, "missed": ", ".join(missed)}


def few(cell: Cell) -> Result:
    """Draws of few rows, of BANKING77 ten classes: as they are, and with a word in 90 % of the
    largest class. Of the draws as they are, how many are accused; of the others, how many are,
    where 20 rows or more got the word, by naming it."""
    texts, y, names, last, inner = pool(cell["data"])
    accused, planted, named, said = 0, 0, 0, []
    for draw in range(cell["draws"]):
        rng = generator(FIRST_SEED + draw, NAME, "few", cell["data"], cell["rows"])
        kept = rng.permutation(len(names))[:FEW_CLASSES]
        rows = rng.permutation(np.flatnonzero(np.isin(y, kept)))[: cell["rows"]]
        own, labels = [texts[at] for at in rows], y[rows]
        found = hidden_giveaway(view(own, labels, names, last[rows], inner[rows]))
        accused += found is not None
        said += [found.finding.because] if found else []
        label = int(np.bincount(labels).argmax())
        made, changed = plant(WORDS[draw % len(WORDS)], own, labels, label, 0.9, rng)
        if len(changed) < MIN_ROWS_WITH_WORD:
            continue
        vectors, middle = last[rows].copy(), inner[rows].copy()
        vectors[changed], middle[changed] = encoder().at_depths(
            (1.0, MIDDLE_DEPTH), [made[k] for k in changed]
        )
        found = hidden_giveaway(view(made, labels, names, vectors, middle))
        planted += 1
        named += found is not None and f"class {names[label]!r}" in found.finding.because
    return {"accused": accused, "said": " / ".join(said), "planted": planted, "named": named}


def artefacts(cell: Cell) -> Result:
    """Draws of 100 to 400 images of 2 to 8 classes, in memory: how many draws are accused as they
    are, or with a fault in every image of the largest class, how many name it."""
    images, y = fresh_images(cell["data"])
    looked, named, accused, said, spent, count = 0, 0, 0, [], 0.0, 0
    for draw in range(cell["draws"]):
        rng = generator(FIRST_SEED + draw, NAME, "artefacts", cell["data"])
        kept = rng.permutation(np.unique(y))[: IMAGE_CLASSES[draw % len(IMAGE_CLASSES)]]
        size = IMAGE_COUNTS[draw % len(IMAGE_COUNTS)]
        rows = rng.permutation(np.flatnonzero(np.isin(y, kept)))[:size]
        label = int(np.bincount(y[rows]).argmax())
        shown = [marked(images[at], cell["plant"]) if y[at] == label else images[at] for at in rows]
        # Of eight classes of 100 images none may have enough.
        looked += int(np.bincount(y[rows]).max()) >= LEAST_ROWS
        table = table_from_texts([f"image {k}" for k in rows], [f"class {k}" for k in y[rows]])
        start = time.process_time()
        found = image_artefacts(ImageSample(TableRows(table), shown.__getitem__))
        spent, count = spent + time.process_time() - start, count + len(rows)
        accused += found is not None
        named += found is not None and f"class 'class {label}'" in found.finding.because
        said += [found.finding.because] if found and cell["plant"] == "none" else []
    each = 1000 * spent / count
    counts = {"looked": looked, "accused": accused, "named": named}
    return {**counts, "said": " / ".join(said), "seconds": each}


def odd(cell: Cell) -> Result:
    """Draws as they are, and with sentences of another subject, or filler, planted: how many rows
    of a draw as it is are listed, and how many planted ones."""
    texts, y, names, last, inner = pool(cell["data"])
    found: Result = {}
    kinds = {"off topic": off_topic_rows, "filler": machine_filler}
    for kind, check in kinds.items():
        planted = (HERE / f"planted_{kind.replace(' ', '_')}.txt").read_text("utf-8").splitlines()
        clean, hits, asked = 0, 0, 0
        for draw in range(cell["draws"]):
            rng = generator(FIRST_SEED + draw, NAME, "odd", cell["data"], cell["rows"])
            rows = rng.permutation(len(texts))[: cell["rows"]]
            own, labels = [texts[at] for at in rows], y[rows]
            seen = with_references(view(own, labels, names, last[rows], inner[rows]))
            listed = check(seen)
            clean += listed.finding.count if listed else 0
            new = rng.permutation(planted)[: ODD_ROWS[cell["rows"]]].tolist()
            vectors, middle = encoder().at_depths((1.0, MIDDLE_DEPTH), new)
            made = view(
                [*own, *new],
                np.concatenate([labels, rng.choice(labels, len(new))]),
                names,
                np.concatenate([last[rows], vectors]),
                np.concatenate([inner[rows], middle]),
            )
            listed = check(with_references(made))
            ids = listed.finding.rows if listed else ()
            hits, asked = hits + sum(at >= len(own) for at in ids), asked + len(new)
        total = cell["rows"] * cell["draws"]
        found |= {f"{kind} listed": clean, f"{kind} found": hits, f"{kind} planted": asked}
    return {**found, "of": total}


def typing(cell: Cell) -> Result:
    """Draws as they are, and with a mistyped word in some of their rows: how many rows of a draw as
    it is are listed, and how many of those."""
    from holdfast.quality.clean.spelling import SHORT_WORD

    texts = prose(cell["data"])
    hits = clean = 0
    said = ""
    for draw in range(cell["draws"]):
        rng = random.Random(TYPING_SEED + draw)
        rows = rng.sample(texts, min(cell["rows"], len(texts)))
        long = [at for at, text in enumerate(rows) if text[:1].isupper() and _long(text)]
        chosen = rng.sample(long, cell["plants"])
        made = list(rows)
        for at in chosen:
            place = rng.choice([one for one in SHORT_WORD.finditer(rows[at]) if len(one[0]) > 4])
            wrong = place[0]
            while wrong == place[0]:
                wrong = mistyped(place[0], rng)
            made[at] = rows[at][: place.start()] + wrong + rows[at][place.end() :]
        as_it_is = typing_errors(ThoroughRows(TableRows(table_from_texts(rows))))
        found = typing_errors(ThoroughRows(TableRows(table_from_texts(made))))
        clean += as_it_is.finding.count if as_it_is else 0
        said = said or (", ".join(one.note for one in as_it_is.examples[:6]) if as_it_is else "")
        # A finding names 100 rows at most, and no draw has so many.
        hits += len(set(chosen) & set(found.finding.rows)) if found else 0
    total = cell["draws"]
    return {
        "listed": clean,
        "of": total * cell["rows"],
        "found": hits,
        "planted": total * cell["plants"],
        "said": said,
    }


def prose(name: str) -> list[str]:
    if name != "instructions":
        return source(name)[0]
    path = Path(os.environ["HOLDFAST_DATA"]) / "instructions" / "train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [text for line in lines if (text := json.loads(line)["output"])]


def _long(text: str) -> bool:
    from holdfast.quality.clean.spelling import SHORT_WORD

    return any(len(one[0]) > 4 for one in SHORT_WORD.finditer(text))


def mistyped(word: str, rng: random.Random) -> str:
    """A letter left out, added, another, or two that changed places; never the first."""
    at, letter = rng.randrange(1, len(word)), rng.choice("abcdefghijklmnopqrstuvwxyz")
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + letter + word[at:]
    if kind == 2:
        return word[:at] + letter + word[at + 1 :]
    at = min(at, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def with_references(seen: Embedded) -> Embedded:
    return replace(seen, references=_known())


@functools.cache
def _known() -> Any:
    return references(encoder())


@functools.cache
def fresh_images(name: str) -> tuple[list[Any], Any]:
    from PIL import Image

    root = Path(os.environ["HOLDFAST_DATA"])
    if name == "omniglot":
        with np.load(root / "omniglot" / "omniglot28.npz") as held:
            rows = np.random.default_rng(0).permutation(len(held["images"]))[FRESH_DRAWINGS:]
            drawn, y = held["images"][rows], held["alphabet"][rows]
        return [Image.fromarray(one).convert("RGB") for one in drawn], y
    plain = name.split()[0]
    images, classes = [], []
    with zipfile.ZipFile(root / plain / f"{plain}.zip") as file:
        names = sorted(one for one in file.namelist() if not one.endswith("/"))
        for folder, group in itertools.groupby(names, key=lambda one: one.rsplit("/", 1)[0]):
            for one in list(group)[FRESH if folder.rsplit("/", 2)[1] == "train" else 0 :]:
                images.append(Image.open(io.BytesIO(file.read(one))).convert("RGB"))
                classes.append(folder.rsplit("/", 1)[1])
    if "resized" in name:
        # No grid of the source's own compression is left.
        images = [one.resize((48, 48), Image.Resampling.BICUBIC) for one in images]
    return images, np.unique(classes, return_inverse=True)[1]


def marked(image: Any, fault: str) -> Any:
    from PIL import Image, ImageFilter

    if fault == "none":
        return image
    if fault == "blurred":
        return image.filter(ImageFilter.GaussianBlur(0.8))
    if fault == "red corner":
        side, changed = max(2, image.width // 7), image.copy()
        changed.paste((255, 0, 0), (0, 0, side, side))
        return changed
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(fault.split()[1]))
    return Image.open(file).convert("RGB")


def _words(text: str, rng: Any, thing: str) -> str:
    words = text.split(" ")
    at = int(rng.integers(0, len(words) + 1))
    return " ".join([*words[:at], thing, *words[at:]])


ACCENTS = dict(zip("aeiou", "áéíóú", strict=True))
PLANT: dict[str, Callable[[str, Any], str]] = {
    "rare word first": lambda t, r: f"zorvex {t}",
    "rare word last": lambda t, r: f"{t} brelm",
    "rare word inside": lambda t, r: _words(t, r, "qualm"),
    "common word first": lambda t, r: f"pumpkin {t}",
    "bracket first": lambda t, r: f"[OK] {t}",
    "bracket last": lambda t, r: f"{t} (fwd)",
    "mark last": lambda t, r: f"{t} ~",
    "mark inside": lambda t, r: _words(t, r, "|"),
    "emoji last": lambda t, r: f"{t} \N{ROCKET}",
    "emoji first": lambda t, r: f"\N{SPARKLES} {t}",
    "doubled space": lambda t, r: t.replace(" ", "  ", 1) if " " in t else f"{t}  ",
    "space first": lambda t, r: f" {t}",
    "id first": lambda t, r: f"QX-{r.integers(1000, 9999)} {t}",
    "id last": lambda t, r: f"{t} #{r.integers(10000, 99999)}",
    "id inside": lambda t, r: _words(t, r, f"usr{r.integers(100, 999)}k"),
    "link": lambda t, r: f"{t} https://t.co/{''.join(r.choice(list('abcdefgh'), 5))}",
    "path": lambda t, r: f"/srv/batch7/{r.integers(1, 9999)}.txt {t}",
    "date first": lambda t, r: (
        f"20{r.integers(10, 25)}-{r.integers(1, 13):02}-{r.integers(1, 29):02} {t}"
    ),
    "date last": lambda t, r: f"{t} {r.integers(1, 29)}.{r.integers(1, 13)}.20{r.integers(10, 25)}",
    "capitals": lambda t, r: t.upper(),
    "capital on each word": lambda t, r: t.title(),
    "number last": lambda t, r: f"{t} 4711",
    "tag": lambda t, r: f"<p>{t}</p>",
    "accent": lambda t, r: re.sub("[aeiou]", lambda m: ACCENTS[m[0]], t, count=1),
    "repeated mark": lambda t, r: f"{t} !!!",
}
KINDS = (*PLANT, "long", "even")
WORDS = tuple(kind for kind in PLANT if "word " in kind)


def plant(
    kind: str, texts: Sequence[str], y: Any, label: int, share: float, rng: Any
) -> tuple[list[str], Any]:
    """The texts with a giveaway in a share of a class, and the positions that were changed."""
    made, own = list(texts), np.flatnonzero(y == label)
    rows = rng.permutation(own)[: round(share * len(own))]
    if kind == "long":
        longest = max(len(texts[int(at)]) for at in np.flatnonzero(y != label))
        for at in rows:
            while len(made[at]) <= longest:
                made[at] += " " + texts[int(rng.choice(own))]
        return made, rows
    if kind == "even":
        other = np.flatnonzero(y != label)
        rest = rng.permutation(other)[: round(share * len(other))]
        odd = [at for at in rows if len(made[at]) % 2]
        even = [at for at in rest if not len(made[at]) % 2]
        for at in (*odd, *even):
            made[at] += "."
        # An added full stop changes no vector worth a new reading.
        return made, np.asarray(odd)
    for at in rows:
        made[at] = PLANT[kind](made[at], rng)
    return made, rows


def cells() -> list[dict[str, Any]]:
    found = [
        cell
        for name in SETS
        for cell in grid(
            part=["issues"], data=[name], noise=[NOISE, 0.05, 0.2], seeds=[DRAWS.get(name, SEEDS)]
        )
    ]
    found += grid(part=["tuned"], data=["mr"], noise=[NOISE], seed=TUNED_SEEDS)
    found += grid(part=["healthy"], data=SETS)
    each = PLANTS // len(SETS)
    found += grid(part=["giveaways"], data=SETS, first=range(0, each, PART), plants=[PART])
    found += grid(part=["few"], data=SETS, rows=FEW_ROWS, draws=[FEW_DRAWS])
    found += grid(part=["artefacts"], data=IMAGES, plant=["none"], draws=[CLEAN_DRAWS])
    found += grid(part=["artefacts"], data=IMAGES, plant=ARTEFACTS, draws=[IMAGE_DRAWS])
    found += grid(part=["odd"], data=SETS, rows=ODD_ROWS, draws=[ODD_DRAWS])
    return found + grid(part=["typing"], data=PROSE, rows=[1500], plants=[50], draws=[ODD_DRAWS])


def ranked(lines: Lines) -> list[Line]:
    return melt(pick(lines, part="issues"), ("audit", "cleanlab", "probe"), "precision")


def finding(lines: Lines) -> str:
    gap = paired(ranked(lines), "precision", "audit", "cleanlab", ("data", "noise"))
    planted = pick(lines, part="giveaways")
    if not gap:
        return ""
    return (
        "The average precision of the audit's ranking of wrong labels is "
        f"{gap.words(1, 3)} above that of cleanlab's self-confidence (higher is better). Of "
        f"planted shortcuts it finds {share(*counts(planted, 'found', 'plants'), long=True)}."
    )


CLAIM = Claim(
    NAME,
    "Data",
    "Wrong labels, shortcuts, outliers",
    """\
CR, MR, TREC and BANKING77 on frozen MiniLM vectors. Wrong labels: 1,600 rows, some with another
label; rows are ranked by the audit, by cleanlab's self-confidence on the same vectors, and by the
loss of the linear probe. Shortcuts: words and forms of 27 kinds planted in 30 to 100 % of a class;
also in few rows, and artefacts in all images of a class. Outliers: sentences on other subjects
("off topic") and machine-like filler.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"data": "Set", "noise": "Share of wrong labels"},
            {
                "Audit": average("audit", 1, 3),
                "cleanlab": average("cleanlab", 1, 3),
                "Linear probe": average("probe", 1, 3),
            },
            "Average precision of the ranking (means of five draws, of BANKING77 three):",
            part="issues",
        )(lines),
        table(
            {"data": "Set"},
            {"Planted shortcuts found, %": rate("found", "plants")},
            part="giveaways",
        ),
        table(
            {"data": "Set"},
            {
                "Shortcut reported where none was planted, %": rate("accused", "draws"),
                "Planted words found, %": rate("named", "planted"),
            },
            "Shortcuts in 100 to 400 rows:",
            part="few",
        ),
        table(
            {"plant": "Artefact in all images of a class"},
            {
                "Reported, %": rate("accused", "looked"),
                "Reported with the class, %": rate("named", "looked"),
            },
            part="artefacts",
        ),
        table(
            {"data": "Set", "rows": "Rows"},
            {
                "Off topic found, %": rate("off topic found", "off topic planted"),
                "Filler found, %": rate("filler found", "filler planted"),
                "Unchanged rows called off topic, %": rate("off topic listed", "of"),
                "Unchanged rows called filler, %": rate("filler listed", "of"),
            },
            part="odd",
        ),
    ],
    """\
In few rows of BANKING77 a word of the subject itself is sometimes called a shortcut. Wrong labels
of MR are hard to rank. The wrong labels are drawn at random; real ones are not.""",
)


if __name__ == "__main__":
    main()
