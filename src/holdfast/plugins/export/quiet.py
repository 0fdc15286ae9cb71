"""What exporters print and warn of while they work, kept from the person who waits."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """No warning, no log line below an error, no bar and no line on standard output or standard
    error from the block. Errors pass as they are."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # OpenVINO's telemetry asks a server each time it is imported.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    try:
        nowhere = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
