"""Where the fits of a search are carried out: one after another here, or many on a Ray cluster."""

from holdfast.search.engines.base import ENGINES, Engine, engine_of

__all__ = ["ENGINES", "Engine", "engine_of"]
