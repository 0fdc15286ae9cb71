"""A look at a live comparison: what the store knows since the last look joins the evidence.

The evidence is made of the store's rows alone, in the order of their names and numbers, and how far
was read is remembered (a cursor). So any replica may look at any time: each comes to the same
numbers, and one that was restarted goes on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.plugins.live.arms import Arms
from holdfast.plugins.live.shadow import Shadow, nearer
from holdfast.plugins.live.summary import told
from holdfast.plugins.service.live.lineup import Setup
from holdfast.plugins.store.records import Event, Feedback, FirstRequest, StoredRequest, new_id
from holdfast.stats.paired_tests import Bools

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

STARTED, VERDICT, LATEST = "comparison started", "verdict", "comparison"
REQUESTS, LABELS, USERS = 500, 1000, 500
# The digits of a request's name that are its time, in milliseconds.
TIME_DIGITS = 12
# How a row was drawn, where chance alone drew it.
BY_CHANCE = ("uniform", "unlike")


@dataclass(frozen=True, slots=True)
class LiveState:
    """What a comparison has come to. ``since`` is when it began. Of shadow: ``request`` and
    ``label`` are how far was read, ``counted`` the rows whose label counts already (hashes), and
    ``without`` labels of rows that not both had answered. Of ab: ``came`` and ``matured`` are the
    last users who were counted, and ``late`` outcomes that were told when the user's time was
    over."""

    setup: Setup
    evidence: Shadow | Arms
    since: float
    request: str = ""
    label: int = 0
    counted: tuple[str, ...] = ()
    without: int = 0
    came: FirstRequest | None = None
    matured: FirstRequest | None = None
    late: int = 0

    def said(self) -> dict[str, Any]:
        """What ``/comparison`` and the dashboard show."""
        more: dict[str, Any] = {"shown": self.setup.shown, "challenger": self.setup.challenger}
        more |= {"since": self.since}
        if isinstance(self.evidence, Shadow):
            more["labels_without_both_answers"] = self.without
        else:
            more |= {"window_s": self.setup.window_s, "late_outcomes": self.late}
        return {**told(self.evidence), **more}

    def to_json(self) -> dict[str, Any]:
        plain = {**asdict(self), "counted": list(self.counted)}
        return {"schema": 1, **plain, "evidence": self.evidence.to_json()}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> LiveState:
        """What ``to_json`` wrote down."""
        setup = Setup(**stored["setup"])
        form = Shadow if setup.way == "shadow" else Arms
        plain = {name: value for name, value in stored.items() if name in cls.__slots__}
        for name in ("came", "matured"):
            plain[name] = None if stored[name] is None else FirstRequest(**stored[name])
        plain |= {"setup": setup, "evidence": form.of(stored["evidence"])}
        return cls(**plain | {"counted": tuple(stored["counted"])})


def begun(store: Store, setup: Setup, now: float) -> LiveState:
    """The comparison as it was last left, or a new one. Whoever begins it first says since when: a
    user who came before was answered by the shown model alone."""
    if (kept := store.state(setup.key)) is not None:
        return replace(LiveState.of(kept), setup=setup)

    def mine() -> list[Event]:
        found = store.events(STARTED, limit=None)
        return [one for one in found if one.body.get("key") == setup.key]

    if not mine():
        store.append(Event(STARTED, now, {"key": setup.key, **_pair(setup)}))
    evidence: Shadow | Arms = Shadow(setup.margin, setup.budget)
    if setup.way == "ab":
        evidence = Arms(setup.share, setup.margin, setup.budget, setup.least, setup.most)
    return LiveState(setup, evidence, mine()[0].at)


def look(store: Store, setup: Setup, now: float) -> LiveState:
    """The comparison with all that has come, kept in the store. Raises ``StoreError``."""
    before = begun(store, setup, now)
    after = _shadow(store, before, now) if setup.way == "shadow" else _arms(store, before, now)
    if after == before and (store.state(LATEST) or {}).get("key") == setup.key:
        return after
    said = after.said()
    if said["verdict"] != before.evidence.verdict:
        told_ = {name: said[name] for name in ("verdict", "because", "difference")}
        # Before the state, which would say that it is written down already: promotions go by it.
        store.append(Event(VERDICT, now, {**_pair(setup), **told_}))
    store.save_state(setup.key, after.to_json(), now)
    store.save_state(LATEST, {"key": setup.key, "at": now, **said}, now)
    return after


def _pair(setup: Setup) -> dict[str, str]:
    return {"shown": setup.shown, "challenger": setup.challenger, "way": setup.way}


def _shadow(store: Store, looked: LiveState, now: float) -> LiveState:
    evidence = looked.evidence
    assert isinstance(evidence, Shadow)
    setup, at = looked.setup, looked.request
    models = setup.shown, setup.challenger
    until = new_id(now - setup.lag_s)[:TIME_DIGITS]
    while page := store.requests(after=at, limit=REQUESTS):
        old = [one for one in page if one.id[:TIME_DIGITS] < until]
        pairs = [pair for one in old for pair in both_answers(one, *models).values()]
        evidence = evidence.answered(len(pairs), sum(a != b for a, b in pairs))
        at = old[-1].id if old else at
        if len(old) < REQUESTS:
            break
    looked = replace(looked, evidence=evidence, request=at)
    while page_of := store.feedback(after=looked.label, limit=LABELS):
        # As far as the first that is too young: those behind it come in their order.
        ready = list(takewhile(lambda one: one.at <= now - setup.lag_s, page_of))
        looked = _labelled(store, looked, ready)
        if len(ready) < LABELS:
            break
    return looked


def both_answers(request: StoredRequest, shown: str, challenger: str) -> dict[int, tuple[Any, Any]]:
    """The rows of a request that both models answered: the challenger's answer and the shown one's
    by place."""
    said: dict[str, dict[int, Any]] = {shown: {}, challenger: {}}
    for one in request.predictions:
        if one.model in said:
            said[one.model][one.index] = one.prediction
    first, second = said[challenger], said[shown]
    return {place: (first[place], second[place]) for place in second if place in first}


def requests_named(store: Store, names: Iterable[str]) -> Iterator[StoredRequest]:
    """The requests of these names that the store has, read some hundreds at a time."""
    found = sorted(set(names))
    for start in range(0, len(found), REQUESTS):
        part = found[start : start + REQUESTS]
        yield from store.requests(ids=part, limit=len(part))


def _labelled(store: Store, looked: LiveState, labels: list[Feedback]) -> LiveState:
    evidence = looked.evidence
    assert isinstance(evidence, Shadow)
    setup = looked.setup
    asked = {one.id: one for one in requests_named(store, (one.request for one in labels))}
    counted, without, alike = dict.fromkeys(looked.counted), looked.without, 0
    signs: list[int] = []
    for one in labels:
        request = asked.get(one.request)
        pairs = {} if request is None else both_answers(request, setup.shown, setup.challenger)
        if (pair := pairs.get(one.index)) is None:
            without += 1
            continue
        place = hashlib.blake2b(f"{one.request} {one.index}".encode(), digest_size=8).hexdigest()
        because = why_apart(one)
        if because is None and place in counted:
            because = "a second label of a row that counts already"
        if pair[0] == pair[1]:
            alike += because is None
            continue
        sign = nearer(setup.task, one.label, *pair)
        if because is not None:
            evidence = evidence.set_apart(because, sign)
            continue
        counted[place] = None
        signs.append(sign)
    evidence = replace(evidence.labelled(np.array(signs, np.int64)), alike=evidence.alike + alike)
    last = labels[-1].id if labels else None
    label = looked.label if last is None else last
    return replace(looked, evidence=evidence, label=label, counted=tuple(counted), without=without)


def _arms(store: Store, looked: LiveState, now: float) -> LiveState:
    from holdfast.plugins.store.users import first_requests, user_outcomes

    setup, evidence = looked.setup, looked.evidence
    assert isinstance(evidence, Arms)
    settled = now - setup.lag_s
    came, matured, late = looked.came, looked.matured, looked.late
    while page := first_requests(store, since=looked.since, after=came, until=settled, limit=USERS):
        evidence = evidence.came(_second(setup, _own(setup, page)))
        came = page[-1]
    while page := first_requests(
        store, since=looked.since, after=matured, until=settled - setup.window_s, limit=USERS
    ):
        matured = page[-1]
        if users := _own(setup, page):
            # Of each user what came of it within the time that all have.
            entry, totals = {one.user: one.at for one in users}, Counter[str]()
            for one in user_outcomes(store, list(entry), users[0].at):
                over = entry[one.user] + setup.window_s
                if one.at <= over:
                    totals[one.user] += one.value  # type: ignore[assignment]
                elif one.asked_at <= over:
                    late += 1
            values = np.array([float(totals[one.user]) for one in users])
            evidence = evidence.matured(_second(setup, users), values)
    return replace(looked, evidence=evidence, came=came, matured=matured, late=late)


def _own(setup: Setup, users: list[FirstRequest]) -> list[FirstRequest]:
    """Those whom one of the two answered."""
    return [one for one in users if one.model in (setup.shown, setup.challenger)]


def _second(setup: Setup, users: list[FirstRequest]) -> Bools:
    """Whether the challenger answered each first. That is what the hash says, but while a service
    runs without its challenger: then the shares are no more those that were asked for."""
    return np.array([one.model == setup.challenger for one in users], bool)


def why_apart(feedback: Feedback) -> str | None:
    """Why a label does not count, in words; ``None`` where it does.

    A person corrects what looks wrong and passes over what looks right, so rows that somebody chose
    to label are more often ones that the shown model has wrong: a challenger no better would win.
    Who sees an answer first is drawn towards it, and the shown model would win.
    """
    if feedback.source == "model":
        return "labelled by a model"
    if feedback.drawn == "volunteered":
        return "labelled by whoever wished to, which depends on the answer that was shown"
    if feedback.drawn not in BY_CHANCE:
        return "chosen by what the shown model was unsure of"
    if feedback.suggestion == "seen":
        return "labelled with the shown answer in sight"
    if feedback.suggestion == "unknown":
        return "it is not known whether the shown answer was in sight"
    return None
