"""Where the fits of a search are carried out: one after another here, or many on a Ray cluster."""

from __future__ import annotations

from holdfast.search.engines.base import ENGINES, FitEngine, engine_of

__all__ = ["ENGINES", "FitEngine", "engine_of"]
