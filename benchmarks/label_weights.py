"""Wrong labels in whole runs: what they cost, and how much of it `methods.label_weights` recovers.

    python benchmarks/label_weights.py --jobs 2

The weights are compared with other uses of the same predictions, which were not taken. In whole
runs, rows whose label is contradicted are left out or get the predicted class. By linear probes on
frozen vectors: contradicted rows left out, targets that are probabilities of the true class, and
targets that are the mean of label and prediction (self-distillation).

The sets, rows and runs are those of ``quality.py`` (the default with the embedded encoder, which
divides the labelled rows itself). A share of the labelled rows gets a wrong label: that of another
class drawn at random (``random``), or that of the class whose words are most similar
(``confused``). Test rows keep their labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, Metric, comparison, paired, pick, runs, share, table
from peers.arms import Arm, run_arm
from peers.rows import Parts, Rows
from peers.sets import SETS

from holdfast.core.seeds import generator
from holdfast.data.memory.texts import table_from_texts
from holdfast.fits.cross_fitting import fold_seed
from holdfast.fits.label_weights import find_wrong_labels, row_weights
from holdfast.prepare.embedding import last_layer_vectors
from holdfast.prepare.model import prepare
from holdfast.quality.fold_predictions import cross_fit
from holdfast.recipe import Recipe, override
from holdfast.split.folds import make_folds
from holdfast.stats.label_errors import label_errors
from quality import MINILM, possible, rows_of, vectors_of

NAME = "label_weights"
# Sets with classes that can be predicted from 400 rows, and two with few such classes.
WRONG_SETS = ("trec", "instructions", "packages", "clinic", "banking77", "cr", "queries")
ROWS, SEEDS, SHARE = 400, 3, 0.2
SHARES = (0.1, 0.2, 0.4)
PLAIN, WEIGHTED = "equal weights", "weighted rows"
EMBEDDED = {"model.name": "embedded", "control.policy": "stop"}
ARMS = {
    PLAIN: Arm("holdfast", EMBEDDED, whole=True),
    WEIGHTED: Arm("holdfast", {**EMBEDDED, "methods.label_weights": "true"}, whole=True),
}
KINDS = ("random", "confused")
# Whether labels as they are give evidence of mistakes, without a run.
EVIDENCE = "evidence"
FOLDS = 2
# What linear probes learn from, given wrong labels.
PROBES = "probes"
WITHOUT, TRUE, MEAN = "contradicted rows left out", "probable classes", "mean with predictions"
OTHER_USES = (WEIGHTED, WITHOUT, TRUE, MEAN)
# Other uses in whole runs.
RELABELLED = "contradicted rows relabelled"
CHANGED = (WITHOUT, RELABELLED)
LEAST_TARGET = 1e-4


def cells() -> list[dict[str, Any]]:
    """The right labels and a fifth of wrong ones on every set, then other shares; whether the
    labels of all ten sets, as they are, give evidence of mistakes; and the linear probes."""
    right = grid(seed=range(SEEDS), rows=[ROWS], data=WRONG_SETS, wrong=["none"], arm=list(ARMS))
    wrong = grid(
        seed=range(SEEDS),
        rows=[ROWS],
        data=WRONG_SETS,
        wrong=[f"{kind} {SHARE:g}" for kind in KINDS],
        arm=list(ARMS),
    )
    shares = [f"{kind} {share:g}" for share in SHARES if share != SHARE for kind in KINDS]
    others = grid(seed=[0], rows=[ROWS], data=WRONG_SETS[:5], wrong=shares, arm=list(ARMS))
    checked = [
        *grid(seed=range(5), rows=(100, ROWS), data=SETS, wrong=["none"], arm=[EVIDENCE]),
        *grid(
            seed=range(2),
            rows=[ROWS],
            data=WRONG_SETS,
            wrong=[f"{kind} {SHARE:g}" for kind in KINDS],
            arm=[EVIDENCE],
        ),
    ]
    probes = [{**cell, "arm": PROBES} for cell in wrong if cell["arm"] == PLAIN]
    changed = grid(
        seed=range(SEEDS),
        rows=[ROWS],
        data=WRONG_SETS[:5],
        wrong=[f"random {SHARE:g}"],
        arm=CHANGED,
    )
    return [*right, *wrong, *others, *possible(checked), *probes, *changed]


def run_one(cell: Cell) -> dict[str, Any]:
    if cell["arm"] == EVIDENCE:
        return evidence_of(cell)
    if cell["arm"] == PROBES:
        return probes_of(cell)
    if cell["arm"] in CHANGED:
        parts = with_contradicted(cell)
    else:
        parts = with_wrong_labels(rows_of(cell["data"], cell["rows"], cell["seed"]), cell)
    arm = ARMS.get(cell["arm"], ARMS[PLAIN])
    return run_arm(arm, parts, seed=cell["seed"], threads=1).result


def evidence_of(cell: Cell) -> dict[str, Any]:
    """Evidence of mistakes in the labels of all rows, and of each fold's training rows: Vuong's
    statistic and the expected share of wrong labels."""
    parts = with_wrong_labels(rows_of(cell["data"], cell["rows"], cell["seed"]), cell)
    labelled = parts.whole().train
    settings = ["model.name=embedded", f"seed={cell['seed']}", "train.threads=1"]
    recipe = override(Recipe(task="text-classification"), settings)
    prepared = prepare(recipe, table_from_texts(labelled.texts, labelled.labels))
    vectors = last_layer_vectors(prepared, prepared.examples)
    everything = np.arange(len(prepared))
    labels = np.asarray(prepared.rows.column("label"))
    folds = make_folds(prepared.units, labels, FOLDS, fold_seed(prepared))
    fits = [everything, *(fold.train for fold in folds)]
    found = [find_wrong_labels(vectors[at], prepared.rows.take(at), recipe.seed) for at in fits]
    known = [one for one in found if one is not None]
    return {
        "fits": len(fits),
        "weighted": sum(one.is_shown for one in known),
        "evidence": [round(one.evidence, 2) for one in known],
        "share": [round(one.share, 3) for one in known],
    }


@dataclass(frozen=True, slots=True)
class Predicted:
    """The labelled rows of a cell with their mistakes (``wrong``), what predictions on frozen
    vectors ``x`` [n, D] say of them, and the vectors of the test rows. ``labels`` [n] are positions
    in ``names``."""

    parts: Parts
    wrong: Rows
    x: np.ndarray
    x_test: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    found: Any
    predictions: Any


def predicted(cell: Cell) -> Predicted:
    parts = rows_of(cell["data"], cell["rows"], cell["seed"])
    known, wrong = parts.whole().train, with_wrong_labels(parts, cell).whole().train
    vectors = vectors_of(MINILM, cell["data"], (cell["rows"],))
    x, x_test = (np.stack([vectors[text] for text in one.texts]) for one in (known, parts.test))
    centre, length = x.mean(axis=0), np.sqrt(x.var(axis=0).mean())
    x, x_test = (x - centre) / length, (x_test - centre) / length
    names = np.unique(wrong.labels)
    labels = np.searchsorted(names, wrong.labels)
    found = find_wrong_labels(x, table_from_texts(wrong.texts, wrong.labels), cell["seed"])
    predictions = cross_fit(x, wrong.texts, labels, classes=len(names), seed=cell["seed"])
    assert found is not None
    assert predictions is not None
    return Predicted(parts, wrong, x, x_test, names, labels, found, predictions)


def with_contradicted(cell: Cell) -> Parts:
    """The rows of a cell without those whose label is contradicted, or with the predicted class as
    their label; all rows as they are where there is no evidence of mistakes."""
    seen = predicted(cell)
    contradicted = seen.found.contradicted & seen.found.is_shown
    rows = seen.wrong
    if cell["arm"] == RELABELLED:
        classes = np.where(contradicted, seen.predictions.log_p.argmax(axis=1), seen.labels)
        rows = replace(rows, labels=tuple(str(name) for name in seen.names[classes]))
    else:
        rows = rows.take(np.flatnonzero(~contradicted))
    return replace(seen.parts, train=rows, valid=rows.take([]))


def probes_of(cell: Cell) -> dict[str, Any]:
    """Test accuracy by what a linear probe learns from. Its penalty is the one chosen by
    cross-validation on the labels with mistakes; each target is a distribution over the classes."""
    from sklearn.linear_model import LogisticRegression

    seen = predicted(cell)
    names, labels, found, predictions = seen.names, seen.labels, seen.found, seen.predictions
    known = seen.parts.whole().train
    own = np.eye(len(names))[labels]
    targets = dict.fromkeys(OTHER_USES, own)
    if found.is_shown:
        errors = label_errors(predictions.log_p, labels)
        targets = {
            WEIGHTED: own * row_weights(found, labels)[:, None],
            WITHOUT: own * ~found.contradicted[:, None],
            TRUE: errors.true_classes(predictions.log_p, labels),
            MEAN: (own + np.exp(predictions.log_p)) / 2,
        }
    targets |= {PLAIN: own, RIGHT: np.eye(len(names))[np.searchsorted(names, known.labels)]}

    def accuracy(of_rows: np.ndarray) -> float:
        places, classes = np.nonzero(of_rows > LEAST_TARGET)
        model = LogisticRegression(C=predictions.c, max_iter=1000)
        model.fit(seen.x[places], classes, sample_weight=of_rows[places, classes])
        return float((names[model.predict(seen.x_test)] == seen.parts.test.labels).mean())

    return {
        "accuracies": {name: accuracy(of_rows) for name, of_rows in targets.items()},
        "evidence": round(found.evidence, 2),
    }


def with_wrong_labels(parts: Parts, cell: Cell) -> Parts:
    """The rows of a cell, its wrong labels among the training and validation rows."""
    kind, _, share = str(cell["wrong"]).partition(" ")
    if kind == "none":
        return parts
    labelled = parts.whole().train
    rng = generator(cell["seed"], "benchmark", "correction", cell["data"], cell["wrong"])
    names, labels = sorted(set(labelled.labels)), list(labelled.labels)
    similar = most_similar(labelled) if kind == "confused" else {}
    for place in rng.permutation(len(labels))[: round(float(share) * len(labels))]:
        others = [name for name in names if name != labels[place]]
        drawn = others[int(rng.integers(len(others)))]
        labels[place] = similar.get(labels[place], drawn)
    wrong = dict(zip(labelled.texts, labels, strict=True))
    return replace(
        parts, train=_relabelled(parts.train, wrong), valid=_relabelled(parts.valid, wrong)
    )


def _relabelled(rows: Rows, labels: dict[str, str]) -> Rows:
    return replace(rows, labels=tuple(labels[text] for text in rows.texts))


def most_similar(rows: Rows) -> dict[str, str]:
    """Each class and the one whose words are most like its own: by the cosine of their mean tf-idf
    vectors, which no encoder has a part in."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True).fit_transform(rows.texts)
    names, of = np.unique(rows.labels, return_inverse=True)
    means = np.stack([np.asarray(words[of == c].mean(axis=0)).ravel() for c in range(len(names))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -1)
    return {str(names[c]): str(names[int(cosines[c].argmax())]) for c in range(len(names))}


RUN = ("rows", "data", "seed", "wrong")
RIGHT = "right labels"


def with_faultless(lines: Lines, column: str, arm: str, name: str) -> list[Line]:
    """The lines; and for each fault in a column the runs of ``arm`` without one ("none"), as the
    arm ``name``."""
    without = pick(lines, **{column: "none"}, arm=arm)
    faults = dict.fromkeys(line[column] for line in lines if line[column] != "none")
    return [*lines, *({**line, column: one, "arm": name} for one in faults for line in without)]


def finding(lines: Lines) -> str:
    parts, lines = [], with_faultless(lines, "wrong", PLAIN, RIGHT)
    for kind in KINDS:
        some = pick(lines, wrong=f"{kind} {SHARE:g}")
        cost, gain = (paired(some, "accuracy", arm, PLAIN, RUN) for arm in (RIGHT, WEIGHTED))
        if cost and gain and gain.has_interval:
            lost = f"{100 * cost.value:.1f} points lost"
            parts.append(f"{kind}: {gain.words(100, 1, ' points')} of {lost}")
    if not parts:
        return ""
    return f"With a fifth of wrong labels, weighting rows recovers: {'; '.join(parts)}."


def _probe_lines(lines: Lines) -> list[Line]:
    """The lines of the linear probes, one for what each learned from."""
    return [
        {**line, "arm": name, "accuracy": accuracy}
        for line in pick(lines, arm=PROBES)
        for name, accuracy in line["accuracies"].items()
    ]


CLAIM = Claim(
    NAME,
    "Data",
    "Wrong labels",
    """\
400 labelled texts of each of seven sets, cut to 20–48 words ([the sets](quality.md)). A share of
the labels is exchanged, for a class drawn at random ("random") or for the class with the most
similar words ("confused"); test labels stay right. Both arms are the default with MiniLM, without
and with `methods.label_weights`. "Right labels" is the default on the same rows with the labels
as they are. In other whole runs the rows whose label the weights' predictions contradict are left
out, or get the predicted class ("relabelled").""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [(RIGHT, PLAIN), (WEIGHTED, PLAIN)],
            {"Accuracy, points": Metric("accuracy", 100)},
            "wrong",
            by=RUN,
        )(with_faultless(lines, "wrong", PLAIN, RIGHT)),
        lambda lines: comparison(
            [(RIGHT, PLAIN), (WEIGHTED, PLAIN)],
            {
                "Accuracy with a fifth of wrong labels of either kind, points": Metric(
                    "accuracy", 100
                )
            },
            "data",
            by=RUN,
        )(
            pick(
                with_faultless(lines, "wrong", PLAIN, RIGHT),
                wrong=tuple(f"{kind} {SHARE:g}" for kind in KINDS),
            )
        ),
        lambda lines: comparison(
            [(WEIGHTED, other) for other in CHANGED],
            {"Accuracy of whole runs, five sets, points": Metric("accuracy", 100)},
            "wrong",
            by=RUN,
        )(lines),
        lambda lines: comparison(
            [(name, PLAIN) for name in (RIGHT, *OTHER_USES)],
            {"Accuracy of a linear probe, points": Metric("accuracy", 100)},
            "wrong",
            by=RUN,
        )(_probe_lines(lines)),
        table(
            {"wrong": "Wrong", "rows": "Rows"},
            {
                "Draws": runs,
                "Fits with weights, %": lambda lines: share(
                    sum(line["weighted"] for line in lines), sum(line["fits"] for line in lines)
                ),
            },
            "Share of fits whose labels give enough evidence (of each draw: all rows, and each of "
            "two folds; by linear probes alone; the fits of a draw share rows):",
            arm=EVIDENCE,
        ),
    ],
    """\
With the labels as they are and 400 rows, 6 of 50 draws give enough evidence in at least one
fit; in the others nothing changes. The evidence threshold was chosen on these sets. Three uses of
the same predictions were tried in whole runs: weighting gains more than leaving rows out, and is
not shown to differ from relabelling them. Linear probes show no use that gains more with both kinds
of mistakes. `cr`, with two classes, gives
evidence in no run: a wrong label of two looks like a text that is hard to tell. The labels as they
are have mistakes of their own; their number is unknown. Most runs with a fifth of wrong labels
shared a GPU, the others ran on a CPU; a run without wrong labels was not repeated on each.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
