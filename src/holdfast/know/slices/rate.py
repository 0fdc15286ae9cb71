"""How often a slice is said to fail where none does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What Holm's procedure promises.
FALSE_ALARMS: Mapping[str, Any] = {
    "value": 0.05,
    "low": None,
    "high": None,
    "what": "models without a slice that fails, at most",
}
