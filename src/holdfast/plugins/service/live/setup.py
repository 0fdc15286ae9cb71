"""What is compared and how: the settings of a live comparison, and its mark."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from holdfast.core.errors import RecipeError
from holdfast.plugins.service.records import EngineFacts

Way = Literal["shadow", "ab"]
REMEDY = "Train the challenger on the same task and classes, or compare the two on a file: "


@dataclass(frozen=True, slots=True)
class Setup:
    """Two models (``NAME@MARK``) of one ``task``, and how they are compared.

    ``margin`` is a share: of rows, or of the range of outcomes. ``budget`` are labels (shadow) or
    users (ab). Of ab alone: the challenger's ``share`` of users, how long each is watched
    (``window_s``), within which values are held, and the ``salt`` of the hash that parts them.
    ``lag_s`` is how long a request or label may take to stand in the store: younger ones wait, so
    that every replica counts the same rows in the same order.
    """

    shown: str
    challenger: str
    task: str
    way: Way = "shadow"
    margin: float = 0.01
    budget: int | None = None
    share: float = 0.5
    window_s: float = 86_400.0
    least: float = 0.0
    most: float | None = None
    salt: str = ""
    lag_s: float = 30.0

    @property
    def key(self) -> str:
        """The name of its state in the store: another comparison has another."""
        plain = {name: value for name, value in asdict(self).items() if name != "lag_s"}
        if self.way == "shadow":
            plain = {
                name: plain[name] for name in ("shown", "challenger", "way", "margin", "budget")
            }
        mark = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
        return f"comparison: {mark}"

    @property
    def secret(self) -> str:
        """The salt; another pair parts the users anew unless one is given, so that who was together
        in an earlier comparison is not again."""
        return self.salt or f"{self.shown} {self.challenger}"


def refuse_unlike(shown: EngineFacts, challenger: EngineFacts) -> None:
    """Raise ``RecipeError`` where two models cannot stand for one another: another task, classes or
    columns, or the same model twice."""
    what = f"the challenger {challenger.model}"
    again = f"{REMEDY}holdfast compare {challenger.run} {shown.run} DATA"
    if shown.model == challenger.model:
        raise RecipeError(what, "is the model that is served", None, "Name another run.")
    if shown.task != challenger.task:
        rule = f"is of another task than the served {shown.model} ({shown.task})"
        raise RecipeError(what, rule, challenger.task, again)
    one, two = set(shown.classes or ()), set(challenger.classes or ())
    if one != two:
        less, more = sorted(one - two)[:5], sorted(two - one)[:5]
        rule = f"has other classes than the served {shown.model}"
        found = "; ".join(
            [f"without {', '.join(less)}"] * bool(less) + [f"with {', '.join(more)}"] * bool(more)
        )
        raise RecipeError(what, rule, found, again)
    if lacking := [name for name in challenger.columns if name not in shown.columns]:
        rule = f"reads columns that requests to {shown.model} need not have"
        raise RecipeError(what, rule, lacking, again)
