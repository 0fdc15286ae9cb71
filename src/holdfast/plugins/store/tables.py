"""The tables of the store, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

# Increased with every change of a table; a store with a higher number is refused.
SCHEMA = 1

metadata = MetaData()
# SQLite assigns numbers automatically only for INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

facts = Table(
    "facts", metadata, Column("name", String(64), primary_key=True), Column("value", JSON)
)

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("model", String(256), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("user", String(128)),
    Index("requests_at", "at"),
    Index("requests_user", "user"),
)

answers = Table(
    "answers",
    metadata,
    Column("request", String(64), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("model", String(256), primary_key=True),
    Column("shown", Boolean, nullable=False),
    Column("prediction", JSON),
    Column("confidence", Float),
    Column("probabilities", JSON),
    Column("because", String),
)

texts = Table(
    "texts",
    metadata,
    Column("request", String(64), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("row", JSON, nullable=False),
    Column("vector", LargeBinary),
    Column("expires_at", Float),
    Index("texts_expire", "expires_at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("request", String(64), nullable=False),
    Column("index", Integer, nullable=False),
    Column("label", JSON, nullable=False),
    Column("who", String(256), nullable=False),
    Column("at", Float, nullable=False),
    Column("model", String(256)),
    Column("source", String(16), nullable=False),
    Column("drawn", String(16), nullable=False),
    Column("suggestion", String(16), nullable=False),
    Column("row", JSON),
    Index("feedback_request", "request"),
    Column("expires_at", Float),
    Index("feedback_who", "who"),
    Index("feedback_expire", "expires_at"),
    # The number of a deleted row is never used again.
    sqlite_autoincrement=True,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("request", String(64), nullable=False),
    Column("value", Float, nullable=False),
    Column("at", Float, nullable=False),
    Index("outcomes_request", "request"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("body", JSON, nullable=False),
    Index("events_kind", "kind", "id"),
    sqlite_autoincrement=True,
)

states = Table(
    "states",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("at", Float, nullable=False),
    Column("body", JSON, nullable=False),
)

# What was deleted, by keys that identify nobody, so that it does not come back.
tombstones = Table(
    "tombstones",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("at", Float, nullable=False),
)

# Who is labelling a row now; below, who skipped it.
claims = Table(
    "claims",
    metadata,
    Column("request", String(64), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("who", String(256), nullable=False),
    Column("until", Float, nullable=False),
    # Whether the annotator has seen the model's prediction.
    Column("seen", Boolean, nullable=False),
)

skips = Table(
    "skips",
    metadata,
    Column("request", String(64), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("who", String(256), primary_key=True),
    Column("at", Float, nullable=False),
)
