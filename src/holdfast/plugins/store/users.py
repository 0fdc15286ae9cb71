"""Users of a service: their first requests, and the outcomes of their requests, for a comparison
whose unit is the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select

from holdfast.plugins.store.records import FirstRequest
from holdfast.plugins.store.store import Store
from holdfast.plugins.store.tables import outcomes, requests


@dataclass(frozen=True, slots=True)
class UserOutcome:
    """An outcome of one of a user's requests: the time of the request and the time of the
    outcome."""

    user: str
    asked_at: float
    at: float
    value: float


def first_requests(
    store: Store, *, since: float, after: FirstRequest | None, until: float, limit: int = 1000
) -> list[FirstRequest]:
    """Users in the order of their first request at or after ``since``, following ``after`` and up
    to ``until``; users with the same time in the order of their names."""
    first = func.min(requests.c.at)
    query = (
        select(requests.c.user, first.label("first"))
        .where(requests.c.user.is_not(None), requests.c.at >= since)
        .group_by(requests.c.user)
        .having(first <= until)
        .order_by(first, requests.c.user)
        .limit(limit)
    )
    if after is not None:
        behind = or_(first > after.at, and_(first == after.at, requests.c.user > after.user))
        query = query.having(behind)
    first_times = {row.user: row.first for row in store.select(query)}
    columns = requests.c
    models_query = (
        select(columns.user, columns.at, columns.model)
        .where(columns.user.in_(list(first_times)), columns.at.in_(list(first_times.values())))
        .order_by(columns.id.desc())
    )
    # Of two requests at the same time, the one with the smaller id, which comes last here.
    models = {(row.user, row.at): row.model for row in store.select(models_query)}
    return [FirstRequest(user, at, models.get((user, at), "")) for user, at in first_times.items()]


def user_outcomes(store: Store, users: Sequence[str], since: float) -> list[UserOutcome]:
    """The outcomes of these users' requests that were sent at ``since`` or later."""
    query = (
        select(requests.c.user, requests.c.at.label("asked"), outcomes.c.at, outcomes.c.value)
        .join(outcomes, outcomes.c.request == requests.c.id)
        .where(requests.c.user.in_(list(users)), requests.c.at >= since)
        .order_by(outcomes.c.id)
    )
    return [UserOutcome(row.user, row.asked, row.at, row.value) for row in store.select(query)]
