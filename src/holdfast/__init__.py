"""Fine-tune pretrained models so that they hold up on data they have never seen."""

from holdfast._version import __version__

__all__ = ["__version__"]
