"""New texts of a class: from templates, from parts of its texts, or written by a language model;
and which of them may be learned from. And texts without a class, for a teacher to answer.

A text that nobody wrote for its class may be of another one, a copy, or the same as a hundred
others. So each must pass (``sift``): it is no near-copy of any known text, held-out ones among
them, nor of one that was taken before it (which also keeps private rows from coming back); a
classifier that had not seen its parents gives it its class; and it is not too near to what was
taken.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats, Ints
from holdfast.duplicates.duplicates import find_duplicates

SLOT = re.compile(r"\{([^{}]*)\}")
# Where a text may be parted: after a sentence or a clause.
JOINT = re.compile(
    r"(?<=[.!?;:,])\s+|\s+(?=(?:but|and|because|although|while|so)\b)", re.IGNORECASE
)
LEAST_WORDS = 6
LONGEST_WORDS = 400
LEAST_CHANCE = 0.5
ALIKE = 0.95
SHOTS = 5


@dataclass(frozen=True, slots=True)
class NewText:
    """A new text: its ``label``, an index of a class; ``by`` which way; the ``fold`` that its
    parents are of, −1 where it has none."""

    text: str
    label: int
    by: str
    fold: int = -1


def from_templates(
    templates: Mapping[int, Sequence[str]], count: Mapping[int, int], rng: np.random.Generator
) -> list[NewText]:
    """Texts of templates by class. ``{great|lovely}`` is a slot with its fillings; each combination
    is made once at most, ``count`` of a class, in an order of chance.

    Raises ``RecipeError`` for a slot with fewer than two fillings.
    """
    found = []
    for label, lines in templates.items():
        texts: dict[str, None] = {}
        row_count = count.get(label, 0)
        for line in lines:
            parts = SLOT.split(line)
            choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
            for index, fillings in enumerate(choices):
                if index % 2 and len(fillings) < 2:
                    rule = "has a slot with fewer than two fillings"
                    remedy = "Write {one|another}; a text without slots is a plain text."
                    raise RecipeError("data.synthesize.templates", rule, line, remedy)
            # All combinations, or some times as many as are asked for where there are more.
            most = 4 * row_count
            drawn: Iterable[Sequence[str]] = itertools.product(*choices)
            if math.prod(map(len, choices)) > max(most, 1):
                drawn = [[one[int(rng.integers(len(one)))] for one in choices] for _ in range(most)]
            texts |= dict.fromkeys(" ".join("".join(one).split()) for one in drawn)
        order = rng.permutation(len(texts))[:row_count].tolist()
        every = list(texts)
        found += [NewText(every[i], label, "template") for i in order]
    return found


def recombined(
    texts: Sequence[str],
    labels: Ints,
    folds: Ints,
    count: Mapping[int, int],
    rng: np.random.Generator,
) -> list[NewText]:
    """The first part of one text and the last of another, both of one class and one fold.

    A text is parted at the clause that is nearest to its middle; one without a clause, or of fewer
    than ``LEAST_WORDS`` words, is not.
    """
    found = []
    for label, row_count in sorted(count.items()):
        halves: dict[int, list[tuple[str, str]]] = {}
        for index in np.flatnonzero(labels == label).tolist():
            if parted := halves_of(texts[index]):
                halves.setdefault(int(folds[index]), []).append(parted)
        pairs = [
            (fold, one, other)
            for fold, parts in sorted(halves.items())
            for one, other in itertools.permutations(range(len(parts)), 2)
        ]
        for place in rng.permutation(len(pairs))[:row_count].tolist():
            fold, one, other = pairs[place]
            text = f"{halves[fold][one][0]} {halves[fold][other][1]}"
            found.append(NewText(text, label, "recombination", fold))
    return found


def halves_of(text: str) -> tuple[str, str] | None:
    """A text parted at the clause nearest to its middle; ``None`` where there is none."""
    if len(text.split()) < LEAST_WORDS:
        return None
    inside = text.strip()
    joints = [m for m in JOINT.finditer(inside) if m.start() > 0 and m.end() < len(inside)]
    if not joints:
        return None
    nearest = min(joints, key=lambda m: abs(m.start() - len(inside) / 2))
    return inside[: nearest.start()], inside[nearest.end() :]


def written(
    write: Callable[[Sequence[str]], Sequence[str]],
    names: Sequence[str],
    texts: Sequence[str],
    labels: Ints,
    folds: Ints,
    count: Mapping[int, int],
    rng: np.random.Generator,
) -> list[NewText]:
    """Texts that a language model writes after a few of a class, all of one fold (``prompt_of``).

    ``write`` continues prompts; the first line of what it gives is the text. ``names`` [classes]
    are the classes in words.
    """
    prompts, of = [], []
    for label, row_count in sorted(count.items()):
        here = np.flatnonzero(labels == label)
        for _ in range(row_count if len(here) else 0):
            fold = int(folds[rng.choice(here)])
            among = here[folds[here] == fold]
            examples = rng.permutation(among)[:SHOTS]
            prompts.append(prompt_of(names[label], [texts[i] for i in examples]))
            of.append((label, fold))
    lines = [one.strip().split("\n")[0].strip(" -\"'") for one in write(prompts)]
    return [
        NewText(text, label, "model", fold)
        for text, (label, fold) in zip(lines, of, strict=True)
        if text
    ]


def prompt_of(name: str, texts: Sequence[str]) -> str:
    """A list of examples of a class, its last line begun."""
    lines = [f"- {' '.join(text.split())}" for text in texts]
    return "\n".join([f"More texts about {name}:", *lines, "-"])


@dataclass(frozen=True, slots=True)
class Sifted:
    """What passed, as positions among what was made, and how many did not, by reason."""

    kept: Ints
    refused: Mapping[str, int]


def sift(
    candidates: Sequence[NewText], known: Sequence[str], vectors: Floats, chances: Floats, most: int
) -> Sifted:
    """Which of the new texts may be learned from.

    Parameters
    ----------
    made : the new texts [m], in the order in which they are taken.
    known : every text that is known: training, validation and test rows.
    vectors : of the new texts [m, width].
    chances : [m, classes], by a classifier that had not seen their parents.
    most : how many are taken at most.
    """
    groups = find_duplicates([*known, *(one.text for one in candidates)]).groups
    old, rejected = set(groups[: len(known)].tolist()), Counter[str]()
    accepted: list[int] = []
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    used: set[int] = set()
    for index, one in enumerate(candidates):
        group = int(groups[len(known) + index])
        same = [k for k in accepted if candidates[k].label == one.label]
        if group in old:
            rejected["near-copy of a row"] += 1
        elif group in used:
            rejected["near-copy of another"] += 1
        elif chances[index].argmax() != one.label or chances[index, one.label] < LEAST_CHANCE:
            rejected["classifier disagrees"] += 1
        elif same and float((unit[same] @ unit[index]).max()) > ALIKE:
            rejected["too much alike"] += 1
        elif len(accepted) >= most:
            rejected["beyond the share"] += 1
        else:
            accepted.append(index)
            used.add(group)
    return Sifted(np.array(accepted, dtype=np.int64), dict(rejected))


def crossed(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` different texts, none of them one of ``texts`` (fewer where chance gives no more):
    some first words of one and some last words of another, at least one of each. Of a text the
    first ``LONGEST_WORDS`` words take part.

    What such a text means nobody knows, and nobody has to: a teacher's answer to it is learned,
    which says where the teacher draws its lines between the rows it knew (after the augmentation
    of 1909.10351, without a language model).
    """
    words = [one.split()[:LONGEST_WORDS] for one in texts]
    words = [one for one in words if one]
    known, crossings = set(texts), dict[str, None]()
    if len(words) < 2:
        return []
    for _ in range(4 * count):
        if len(crossings) == count:
            break
        first, second = (words[int(i)] for i in rng.choice(len(words), 2, replace=False))
        begin = int(rng.integers(1, len(first) + 1))
        end = int(rng.integers(0, len(second)))
        text = " ".join([*first[:begin], *second[end:]])
        if text not in known:
            crossings[text] = None
    return list(crossings)
