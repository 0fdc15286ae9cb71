"""The state of a live comparison, updated with what the store received since the last update.

The evidence is computed only from the store's rows, in the order of their names and numbers, and a
cursor stores how far was read. So any replica may update at any time: all compute the same numbers,
and a restarted one continues.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.plugins.live.arms import Arms
from holdfast.plugins.live.shadow import Shadow, closer_prediction
from holdfast.plugins.live.summary import comparison_summary
from holdfast.plugins.service.live.router import ComparisonSetup
from holdfast.plugins.store.records import Event, Feedback, FirstRequest, StoredRequest, new_id
from holdfast.stats.paired_tests import Bools

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

STARTED, VERDICT, LATEST = "comparison started", "verdict", "comparison"
REQUESTS_PER_PAGE, LABELS_PER_PAGE, USERS_PER_PAGE = 500, 1000, 500
# The leading digits of a request's id are its time in milliseconds.
TIME_DIGITS = 12
# Draw methods that depend only on chance.
RANDOM_DRAWS = ("uniform", "unlike")


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """The state of a comparison. ``since`` is when it began. Of shadow: ``request`` and ``label``
    are cursors, ``counted`` the (hashed) rows whose label counts already, and ``without`` the
    labels of rows that not both models predicted. Of ab: ``came`` and ``matured`` are the last
    users that were counted, and ``late`` the outcomes that were reported after the user's
    window."""

    setup: ComparisonSetup
    evidence: Shadow | Arms
    since: float
    request: str = ""
    label: int = 0
    counted: tuple[str, ...] = ()
    without: int = 0
    came: FirstRequest | None = None
    matured: FirstRequest | None = None
    late: int = 0

    def summary(self) -> dict[str, Any]:
        """The summary that ``/comparison`` and the dashboard show."""
        details: dict[str, Any] = {"shown": self.setup.shown, "challenger": self.setup.challenger}
        details |= {"since": self.since}
        if isinstance(self.evidence, Shadow):
            details["labels_without_both_answers"] = self.without
        else:
            details |= {"window_s": self.setup.window_s, "late_outcomes": self.late}
        return {**comparison_summary(self.evidence), **details}

    def to_json(self) -> dict[str, Any]:
        plain = {**asdict(self), "counted": list(self.counted)}
        return {"schema": 1, **plain, "evidence": self.evidence.to_json()}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> ComparisonState:
        """The state from ``to_json``."""
        setup = ComparisonSetup(**stored["setup"])
        evidence_class = Shadow if setup.way == "shadow" else Arms
        fields = {name: value for name, value in stored.items() if name in cls.__slots__}
        for name in ("came", "matured"):
            fields[name] = None if stored[name] is None else FirstRequest(**stored[name])
        fields |= {"setup": setup, "evidence": evidence_class.from_json(stored["evidence"])}
        return cls(**fields | {"counted": tuple(stored["counted"])})


def load_comparison(store: Store, setup: ComparisonSetup, now: float) -> ComparisonState:
    """The stored comparison, or a new one. The first replica stores when it began: users who came
    before were answered only by the shown model."""
    if (stored := store.state(setup.key)) is not None:
        return replace(ComparisonState.of(stored), setup=setup)

    def start_events() -> list[Event]:
        events = store.events(STARTED, limit=None)
        return [one for one in events if one.body.get("key") == setup.key]

    if not start_events():
        store.append(Event(STARTED, now, {"key": setup.key, **_pair(setup)}))
    evidence: Shadow | Arms = Shadow(setup.margin, setup.budget)
    if setup.way == "ab":
        evidence = Arms(setup.share, setup.margin, setup.budget, setup.least, setup.most)
    return ComparisonState(setup, evidence, start_events()[0].at)


def update_comparison(store: Store, setup: ComparisonSetup, now: float) -> ComparisonState:
    """The comparison with all rows that have come; saved in the store. Raises ``StoreError``."""
    before = load_comparison(store, setup, now)
    after = (
        _update_shadow(store, before, now)
        if setup.way == "shadow"
        else _update_arms(store, before, now)
    )
    if after == before and (store.state(LATEST) or {}).get("key") == setup.key:
        return after
    summary = after.summary()
    if summary["verdict"] != before.evidence.verdict:
        verdict_body = {name: summary[name] for name in ("verdict", "because", "difference")}
        # Before the state, which would say that the event is stored already: promotions read the
        # event.
        store.append(Event(VERDICT, now, {**_pair(setup), **verdict_body}))
    store.save_state(setup.key, after.to_json(), now)
    store.save_state(LATEST, {"key": setup.key, "at": now, **summary}, now)
    return after


def _pair(setup: ComparisonSetup) -> dict[str, str]:
    return {"shown": setup.shown, "challenger": setup.challenger, "way": setup.way}


def _update_shadow(store: Store, state: ComparisonState, now: float) -> ComparisonState:
    evidence = state.evidence
    assert isinstance(evidence, Shadow)
    setup, last_request = state.setup, state.request
    models = setup.shown, setup.challenger
    until = new_id(now - setup.lag_s)[:TIME_DIGITS]
    while page := store.requests(after=last_request, limit=REQUESTS_PER_PAGE):
        settled = [one for one in page if one.id[:TIME_DIGITS] < until]
        pairs = [pair for one in settled for pair in both_answers(one, *models).values()]
        evidence = evidence.add_rows(len(pairs), sum(a != b for a, b in pairs))
        last_request = settled[-1].id if settled else last_request
        if len(settled) < REQUESTS_PER_PAGE:
            break
    state = replace(state, evidence=evidence, request=last_request)
    while labels_page := store.feedback(after=state.label, limit=LABELS_PER_PAGE):
        # Up to the first label that is too young: later ones wait, to keep the order.
        settled_labels = list(takewhile(lambda one: one.at <= now - setup.lag_s, labels_page))
        state = _add_labels(store, state, settled_labels)
        if len(settled_labels) < LABELS_PER_PAGE:
            break
    return state


def both_answers(request: StoredRequest, shown: str, challenger: str) -> dict[int, tuple[Any, Any]]:
    """The rows of a request that both models predicted: the challenger's prediction and the shown
    model's, by position."""
    predictions: dict[str, dict[int, Any]] = {shown: {}, challenger: {}}
    for one in request.predictions:
        if one.model in predictions:
            predictions[one.model][one.index] = one.prediction
    first, second = predictions[challenger], predictions[shown]
    return {place: (first[place], second[place]) for place in second if place in first}


def _add_labels(store: Store, state: ComparisonState, labels: list[Feedback]) -> ComparisonState:
    evidence = state.evidence
    assert isinstance(evidence, Shadow)
    setup = state.setup
    requests = {one.id: one for one in store.requests_by_id(one.request for one in labels)}
    counted, without, alike = dict.fromkeys(state.counted), state.without, 0
    signs: list[int] = []
    for one in labels:
        request = requests.get(one.request)
        pairs = {} if request is None else both_answers(request, setup.shown, setup.challenger)
        if (pair := pairs.get(one.index)) is None:
            without += 1
            continue
        row_digest = hashlib.blake2b(
            f"{one.request} {one.index}".encode(), digest_size=8
        ).hexdigest()
        reason = exclusion_reason(one)
        if reason is None and row_digest in counted:
            reason = "a second label of a row that already counts"
        if pair[0] == pair[1]:
            alike += reason is None
            continue
        sign = closer_prediction(setup.task, one.label, *pair)
        if reason is not None:
            evidence = evidence.exclude_label(reason, sign)
            continue
        counted[row_digest] = None
        signs.append(sign)
    evidence = replace(evidence.add_labels(np.array(signs, np.int64)), alike=evidence.alike + alike)
    last = labels[-1].id if labels else None
    label = state.label if last is None else last
    return replace(state, evidence=evidence, label=label, counted=tuple(counted), without=without)


def _update_arms(store: Store, state: ComparisonState, now: float) -> ComparisonState:
    from holdfast.plugins.store.users import first_requests, user_outcomes

    setup, evidence = state.setup, state.evidence
    assert isinstance(evidence, Arms)
    settled_until = now - setup.lag_s
    came, matured, late = state.came, state.matured, state.late
    while page := first_requests(
        store, since=state.since, after=came, until=settled_until, limit=USERS_PER_PAGE
    ):
        evidence = evidence.add_users(_is_challengers(setup, _compared_users(setup, page)))
        came = page[-1]
    while page := first_requests(
        store,
        since=state.since,
        after=matured,
        until=settled_until - setup.window_s,
        limit=USERS_PER_PAGE,
    ):
        matured = page[-1]
        if users := _compared_users(setup, page):
            # The outcomes of each user within the observation window.
            entered_at, totals = {one.user: one.at for one in users}, Counter[str]()
            for one in user_outcomes(store, list(entered_at), users[0].at):
                window_end = entered_at[one.user] + setup.window_s
                if one.at <= window_end:
                    totals[one.user] += one.value  # type: ignore[assignment]
                elif one.asked_at <= window_end:
                    late += 1
            values = np.array([float(totals[one.user]) for one in users])
            evidence = evidence.add_outcomes(_is_challengers(setup, users), values)
    return replace(state, evidence=evidence, came=came, matured=matured, late=late)


def _compared_users(setup: ComparisonSetup, users: list[FirstRequest]) -> list[FirstRequest]:
    """Users who were answered by one of the two models."""
    return [one for one in users if one.model in (setup.shown, setup.challenger)]


def _is_challengers(setup: ComparisonSetup, users: list[FirstRequest]) -> Bools:
    """Whether the challenger answered each user first. This follows the hash, except while a
    service runs without its challenger: then the shares differ from the requested ones."""
    return np.array([one.model == setup.challenger for one in users], bool)


def exclusion_reason(feedback: Feedback) -> str | None:
    """Why a label does not count, as text; ``None`` where it does.

    People correct visible errors and pass over correct predictions. Rows that an annotator chose
    are therefore more often errors of the shown model, and a challenger that is no better would
    win. Annotators who see a prediction first are biased towards it, and the shown model would win.
    """
    if feedback.source == "model":
        return "labelled by a model"
    if feedback.drawn == "volunteered":
        return "chosen by the annotator, which depends on the shown prediction"
    if feedback.drawn not in RANDOM_DRAWS:
        return "chosen by the shown model's low confidence"
    if feedback.suggestion == "seen":
        return "labelled after seeing the shown prediction"
    if feedback.suggestion == "unknown":
        return "unknown whether the annotator saw the shown prediction"
    return None
