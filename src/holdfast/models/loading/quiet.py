"""Silence Transformers' progress bars, reports and warnings during one call."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

NAMES = ("transformers", "huggingface_hub", "bitsandbytes")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars, loading reports and warnings of Transformers, the hub client and
    bitsandbytes, which PEFT imports if it is installed.

    The caller checks and reports what matters (missing weights, another head). Everything is
    restored afterwards, including the logging set-up.
    """
    hf_logging: Any = importlib.import_module("transformers.utils.logging")
    loggers = [logging.getLogger(name) for name in NAMES]
    levels = [logger.level for logger in loggers]
    bars = hf_logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if bars:
            hf_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            hf_logging.enable_progress_bar()
