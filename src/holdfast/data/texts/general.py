"""A small general text of our own words, in the public domain (CC0): what a model of English knows
before it is tuned. Four passages each on twelve matters."""

from __future__ import annotations

from pathlib import Path

BUILT_IN = "built-in"
GENERAL = Path(__file__).with_name("general.txt")
# Tokens of a text on which no loss is read: a model of language guesses at what it is about first.
SKIPPED = 8


def passages() -> list[str]:
    """The 48 passages."""
    return GENERAL.read_text("utf-8").strip().split("\n\n")
