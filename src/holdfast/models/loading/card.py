"""What a model's card says of its licence and its languages: the head of README.md in its
folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.models.loading.source import Source

CARD = "README.md"
LARGEST = 2_000_000
# Of a card that names many, so many are listed.
MOST = 100


@dataclass(frozen=True, slots=True)
class Card:
    """``licence`` as the card names it, ``None`` where it says nothing; ``languages`` as it lists
    them, none where it says nothing."""

    licence: str | None = None
    languages: tuple[str, ...] = ()


def card_of(source: Source) -> Card:
    """The card in the model's folder; of a fetched one also the hub's, where it can be reached.
    One that cannot be read says nothing."""
    here = source.folder / CARD
    path = here if here.is_file() else _fetched(source)
    return Card() if path is None else _read(path)


def card_here(source: Source) -> Card:
    """The card in the model's folder alone."""
    path = source.folder / CARD
    return _read(path) if path.is_file() else Card()


def _read(path: Path) -> Card:
    with contextlib.suppress(Exception):
        if path.stat().st_size <= LARGEST:
            return read_card(path.read_text(encoding="utf-8", errors="replace"))
    return Card()


def read_card(text: str) -> Card:
    """The card in a README: its head is YAML between two lines of ``---``."""
    from holdfast.core.yaml_values import from_yaml

    lines = text.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in map(str.strip, lines[1:]):
        return Card()
    end = next(i for i, line in enumerate(lines[1:], 1) if line.strip() == "---")
    head: Any = from_yaml("\n".join(lines[1:end]))
    if not isinstance(head, Mapping):
        return Card()
    licence = head.get("license")
    # "other" is explained by a name of its own.
    named = head.get("license_name") if licence == "other" else None
    listed = head.get("language")
    languages = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return Card(_word(named) or _word(licence), tuple(filter(None, map(_word, languages[:MOST]))))


def _word(value: object) -> str | None:
    # YAML reads the language "no" as a truth.
    if value is False:
        return "no"
    return value.strip() or None if isinstance(value, str) else None


def _fetched(source: Source) -> Path | None:
    """The card of a model of the hub, which the loader does not need and so does not fetch."""
    if source.commit is None:
        return None
    from huggingface_hub import hf_hub_download

    with contextlib.suppress(Exception):
        return Path(hf_hub_download(source.name, CARD, revision=source.commit))
    return None
