"""General tasks before and after fine-tuning: which of two English sentences a model finds more
probable.

The small sets of sentence pairs were written for Holdfast. The sentences of a pair differ in a word
or two, so that only their probabilities are compared (Warstadt et al., 1912.00582). In ``facts``
and ``opposites`` every wrong word is another pair's correct one, so that a word's own frequency
decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate
from holdfast.core.wording import count_phrase
from holdfast.data.texts.evaluation_tasks import EvaluationTask, Question
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import mcnemar, newcombe
from holdfast.stats.two_samples import holm

Pair = tuple[str, str]

_AGREEMENT = (
    "The keys to the cabinet|are|is|on the table.",
    "The label on the bottles|is|are|torn.",
    "The boys near the river|were|was|laughing.",
    "The picture of the mountains|hangs|hang|in the hall.",
    "The letters from my sister|arrive|arrives|on Monday.",
    "The teacher of the children|was|were|ill.",
    "The roads around the town|need|needs|repair.",
    "The owner of the horses|lives|live|nearby.",
    "The books that she wrote|sell|sells|well.",
    "The man with two dogs|walks|walk|here daily.",
    "The results of the test|show|shows|a change.",
    "A box of old coins|was|were|found.",
    "The windows of the house|are|is|open.",
    "The sound of the bells|wakes|wake|him early.",
    "The players on the team|train|trains|every day.",
    "The price of these shoes|has|have|risen.",
    "Many people in the city|work|works|at night.",
    "Each of the rooms|has|have|a bed.",
    "Those apples on the tree|look|looks|ripe.",
    "The leaves of the plant|turn|turns|yellow.",
    "The boy hurt|himself|herself|with the knife.",
    "The woman saw|herself|himself|in the mirror.",
    "The children washed|themselves|himself|in the lake.",
    "My father taught|himself|themselves|to cook.",
    "This|house|houses|is very old.",
    "These|trees|tree|are very tall.",
    "That|car|cars|belongs to her.",
    "Those|clouds|cloud|bring rain.",
    "She has|eaten|ate|her breakfast.",
    "They have|gone|went|to the market.",
    "He has|written|wrote|three letters.",
    "We have|seen|saw|that film before.",
    "The dog was|bitten|bit|by a snake.",
    "The window was|broken|broke|by a stone.",
    "Nobody has|ever|always|seen such a thing.",
    "She is taller|than|then|her brother.",
    "There|were|was|many birds in the field.",
    "Yesterday he|came|comes|home late.",
    "Tomorrow we|will go|went|to the coast.",
    "He did not|know|knew|the answer.",
)
_CAPITALS = (
    "France|Paris",
    "Italy|Rome",
    "Spain|Madrid",
    "Germany|Berlin",
    "Japan|Tokyo",
    "Russia|Moscow",
    "Egypt|Cairo",
    "Greece|Athens",
    "England|London",
    "Ireland|Dublin",
    "Austria|Vienna",
    "Portugal|Lisbon",
    "China|Beijing",
    "Cuba|Havana",
    "Norway|Oslo",
    "Poland|Warsaw",
    "Hungary|Budapest",
    "Turkey|Ankara",
    "Canada|Ottawa",
    "Kenya|Nairobi",
)
_PLACES = (
    "Fish live in|water",
    "Birds build|nests",
    "Bees make|honey",
    "Cows give|milk",
    "Hens lay|eggs",
    "Spiders spin|webs",
    "Bread is made from|flour",
    "Wine is made from|grapes",
    "Paper is made from|wood",
    "Cheese is made from|cream",
    "Sheep give us|wool",
    "Snow falls in|winter",
    "The sun rises in the|east",
    "A triangle has three|sides",
    "A week has seven|days",
    "An hour has sixty|minutes",
    "A cat has four|legs",
    "A doctor works in a|hospital",
    "A pilot flies a|plane",
    "A farmer works in the|fields",
)
_OPPOSITES = (
    "hot|cold",
    "big|small",
    "old|young",
    "fast|slow",
    "light|dark",
    "rich|poor",
    "long|short",
    "happy|sad",
    "early|late",
    "strong|weak",
    "open|closed",
    "wet|dry",
    "full|empty",
    "loud|quiet",
    "hard|soft",
    "clean|dirty",
    "high|low",
    "left|right",
    "up|down",
    "day|night",
    "begin|end",
    "buy|sell",
    "give|take",
    "love|hate",
    "win|lose",
    "laugh|cry",
    "push|pull",
    "remember|forget",
    "ask|answer",
    "arrive|leave",
    "friend|enemy",
    "war|peace",
    "north|south",
    "summer|winter",
    "life|death",
    "black|white",
    "good|bad",
    "true|false",
    "first|last",
    "near|far",
)
_SENSE = (
    "He cut the bread with a|knife|spoon|.",
    "She opened the door with a|key|shoe|.",
    "He wrote the letter with a|pen|hammer|.",
    "They put out the fire with|water|paper|.",
    "It was raining, so she took her|umbrella|sunglasses|.",
    "He was hungry, so he ate some|soup|sand|.",
    "She was thirsty, so she drank some|water|bread|.",
    "He was tired, so he went to|bed|work|.",
    "It was dark, so they lit a|candle|book|.",
    "It was cold, so he put on a|coat|plate|.",
    "The glass fell on the floor and|broke|sang|.",
    "The ice stood in the sun and|melted|froze|.",
    "The baby was sad and began to|cry|drive|.",
    "The dog saw the cat and began to|bark|read|.",
    "She read the book in the|library|oven|.",
    "He baked the cake in the|oven|river|.",
    "They swam in the|lake|bottle|.",
    "The ship sailed across the|sea|table|.",
    "The train stopped at the|station|pillow|.",
    "The plane landed at the|airport|kitchen|.",
    "The king lived in a|castle|basket|.",
    "The bird flew over the|roof|soup|.",
    "He kicked the|ball|cloud|.",
    "She combed her|hair|soup|.",
    "He brushed his|teeth|tea|.",
    "The cook added some|salt|chairs|to the soup.",
    "The teacher wrote on the|board|apple|.",
    "The judge sent the thief to|prison|breakfast|.",
    "The doctor gave the sick man some|medicine|furniture|.",
    "The farmer fed the|pigs|gates|.",
    "He paid for the bread with|money|rain|.",
    "She hung the picture on the|wall|soup|.",
    "They sat down on the|chairs|lamps|.",
    "He drove to work in his|car|cup|.",
    "She kept the milk in the|fridge|fire|.",
    "He climbed the ladder to the|roof|spoon|.",
    "The clock on the wall showed the|time|smell|.",
    "We saw the stars at|night|noon|.",
    "The flowers grow in the|garden|mirror|.",
    "He wore a hat on his|head|elbow|.",
)


def general_items() -> dict[str, tuple[Pair, ...]]:
    """The sets by name: pairs of the right sentence and the wrong one."""
    return {
        "grammar": tuple(_framed(line) for line in _AGREEMENT),
        "facts": (*_crossed(_CAPITALS, "The capital of {} is {}."), *_crossed(_PLACES, "{} {}.")),
        "opposites": _crossed(_OPPOSITES, "The opposite of {} is {}."),
        "sense": tuple(_framed(line) for line in _SENSE),
    }


def _framed(line: str) -> Pair:
    before, right, wrong, after = line.split("|")
    gap = "" if after == "." else " "
    return f"{before} {right}{gap}{after}", f"{before} {wrong}{gap}{after}"


def _crossed(lines: tuple[str, ...], form: str) -> tuple[Pair, ...]:
    """Each with the right word of the one after it as the wrong one."""
    pairs = [line.split("|") for line in lines]
    wrong = [word for _, word in (*pairs[1:], pairs[0])]
    return tuple(
        (form.format(name, word), form.format(name, other))
        for (name, word), other in zip(pairs, wrong, strict=True)
    )


Bools = npt.NDArray[np.bool_]
LEVEL, ALPHA = 0.95, 0.05


def general_tasks() -> list[EvaluationTask]:
    """The sets as tasks: of two sentences without a context the correct one is chosen."""
    return [
        EvaluationTask(name, tuple(Question("", pair, (0,)) for pair in pairs), delimiter="")
        for name, pairs in general_items().items()
    ]


def compare_general(before: Mapping[str, Bools], after: Mapping[str, Bools]) -> dict[str, Any]:
    """``general`` of ``worth``: every set, and all sets together, whose interval shows how much
    loss this number of sentences can exclude."""
    sets = compare_tasks(before, after)
    all_scores = tuple(np.concatenate(list(state.values())) for state in (before, after))
    everything = _line("all", *all_scores)
    p = mcnemar(*all_scores, mid=False)
    everything |= {"p_value": p, "verdict": _verdict(everything["difference"]["value"], p)}
    return {"sets": sets, "all": everything, "because": _sentence(everything, sets)}


def compare_tasks(before: Mapping[str, Bools], after: Mapping[str, Bools]) -> list[dict[str, Any]]:
    """A line for each task: the shares of right answers before and after, item by item. McNemar's
    exact test for each, Holm over the tasks."""
    p_values = np.array([mcnemar(before[name], after[name], mid=False) for name in before])
    adjusted = holm(p_values)
    lines = [
        {**_line(name, before[name], after[name]), "p_value": float(p), "p_adjusted": float(q)}
        for name, p, q in zip(before, p_values, adjusted, strict=True)
    ]
    for line, q in zip(lines, adjusted, strict=True):
        line["verdict"] = _verdict(line["difference"]["value"], float(q))
    return lines


def tasks_block(
    tasks: Sequence[EvaluationTask], before: Mapping[str, Bools], after: Mapping[str, Bools]
) -> dict[str, Any]:
    """``tasks`` of ``worth``: the user's evaluation tasks by the base and the fine-tuned model."""
    sets = compare_tasks(before, after)
    metrics = {task.name: task.metric for task in tasks}
    for line in sets:
        line["metric"] = metrics[line["name"]]
    changed = [
        f"on {line['name']} {line['verdict']} from {100 * line['before']['value']:.1f} to "
        f"{100 * line['after']['value']:.1f} %"
        for line in sets
        if line["verdict"] in ("fell", "rose")
    ]
    summary = f"Accuracy {', '.join(changed)}"
    if not changed:
        summary = f"No change can be shown on {count_phrase(len(sets), 'evaluation task')}"
    return {"sets": sets, "because": f"{summary} (McNemar's exact test, Holm)."}


def _line(name: str, before: Bools, after: Bools) -> dict[str, Any]:
    low, high = newcombe(after, before, LEVEL)
    value = float(np.mean(after)) - float(np.mean(before))
    return {
        "name": name,
        "n": len(before),
        "before": _rate(before),
        "after": _rate(after),
        "difference": Estimate(value, low, high, LEVEL).to_json(),
    }


def _rate(hits: Bools) -> dict[str, Any]:
    low, high = wilson(float(np.sum(hits)), len(hits), LEVEL)
    return Estimate(float(np.mean(hits)), low, high, LEVEL).to_json()


def _verdict(value: float, p_value: float) -> str:
    if p_value > ALPHA:
        return "no change shown"
    return "fell" if value < 0 else "rose"


def _sentence(everything: dict[str, Any], sets: Sequence[Mapping[str, Any]]) -> str:
    n, gap = everything["n"], everything["difference"]
    counts = [round(everything[state]["value"] * n) for state in ("before", "after")]
    text = (
        f"The fine-tuned model prefers the correct sentence in {counts[1]} of {n} pairs of short "
    )
    text += f"English sentences (base model: {counts[0]})"
    fell = [line["name"] for line in sets if line["verdict"] == "fell"]
    if everything["before"]["low"] <= 0.5:
        chance = "the base model may be no better than chance"
        return f"{text}. No drop in accuracy can be measured: {chance}."
    if fell or everything["verdict"] == "fell":
        return f"{text}. Its accuracy fell: {', '.join(fell) or 'over all pairs'}."
    lost = max(0.0, -100 * gap["low"])
    excluded = f"a drop of more than {lost:.0f} points is excluded"
    return f"{text}: no drop in accuracy is shown, and {excluded}."
