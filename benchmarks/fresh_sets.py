"""Held-out accuracy on sets not used to choose defaults.

    python benchmarks/fresh_sets.py --part minilm --jobs 2    # or strong

The systems are those of ``quality.py``, the sets those of ``peers/sets.FRESH_SETS``: neither a
default nor a gain that ``auto`` expects was chosen on them. Every process has one thread. Cells
that are there are not run again.
"""

from __future__ import annotations

from typing import Any

from cells import grid, run_command
from claims import Claim, Gap, Lines, Metric, ReadmeRow, comparison, paired, pick
from peers.sets import FRESH_SETS

from quality import MINILM, NAMES, OURS, STRONG, by_set, possible, run_one, systems

NAME = "fresh_sets"
SIZES = (100, 400)
PAIRS = [(own, f"early stopping, {encoder}") for encoder, own in OURS.items()]
PARTS = (MINILM, STRONG)


def cells(part: str) -> list[dict[str, Any]]:
    """The cells of a part, seed by seed; from the strong encoder one seed."""
    encoder = [OURS[part], f"early stopping, {part}", f"probe, {part}"]
    seeds = range(2 if part == MINILM else 1)
    return possible(grid(seed=seeds, rows=SIZES, data=FRESH_SETS, arm=encoder))


def finding(lines: Lines) -> str:
    parts = [
        f"with {rows} labelled rows, {NAMES[own]} minus {NAMES[other]} is "
        f"{gap.words(100, 1, ' points')}"
        for rows in SIZES
        for own, other in PAIRS
        if (gap := _gap(lines, rows, own, other)) and gap.has_interval
    ]
    return f"Differences in test accuracy: {'; '.join(parts)}." if parts else ""


def _gap(lines: Lines, rows: int, own: str, other: str) -> Gap | None:
    return paired(pick(systems(lines), rows=rows), "accuracy", own, other)


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    return [
        (
            f"Accuracy, {rows} labelled texts cut to 20–64 words, data sets not used to choose "
            "defaults, MiniLM: "
            "Holdfast minus Trainer with early stopping (5e-5, at most 20 epochs)",
            f"{gap.short(100)} points, {gap.over}",
            gap.verdict(),
        )
        for rows in SIZES
        if (gap := _gap(lines, rows, *PAIRS[0])) and gap.has_interval
    ]


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Accuracy on sets not used to choose defaults",
    """\
The defaults were chosen on [ten other sets](quality.md), and this page compares some of the systems
described there. Sets: human or machine essays, one in five by a human (`essays`); which of 13
databases answers a question (`databases`, 250 test rows); how many conditions a question contains
(`conditions`); which of six novels a paragraph is from (`passages`); whether a text is a story,
news, from an encyclopedia or a medical abstract (`kinds`). Essays and paragraphs are cut to their
first 64 words, texts of `kinds` to 48, questions to 20. Intervals are over the means of sets where
at least five sets were measured, otherwise over pairs.""",
    lambda: [cell for part in PARTS for cell in cells(part)],
    finding,
    [
        lambda lines: comparison(
            [
                *PAIRS,
                *((own, f"probe, {encoder}") for encoder, own in OURS.items()),
                (OURS[STRONG], OURS[MINILM]),
            ],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Processor time, ratio": Metric("cpu_s", 1, 2, times=True),
            },
            "rows",
            names=NAMES,
        )(systems(lines)),
        lambda lines: by_set(systems(lines)),
    ],
    """\
Two of the sets are not wholly new: `conditions` has the questions of `queries`, and `kinds` the
texts of `ai_text`, with other labels. Training and test rows may contain essays on the same prompt.
`databases` has too few rows for 400 labelled ones.""",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one, PARTS)
