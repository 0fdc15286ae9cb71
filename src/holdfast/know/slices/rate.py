"""How often a slice is said to fail where none does, as measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FALSE_ALARMS: Mapping[str, Any] = {"value": 0.03, "low": 0.02, "high": 0.05, "what": ""}
