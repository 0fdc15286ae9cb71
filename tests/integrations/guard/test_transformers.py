"""The guard in ``transformers.Trainer``: it sees right, leaves no trace, stops and restores."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import Guard
from holdfast.core.errors import DataError, MachineError, RecipeError, RunError
from holdfast.core.records import Action, Snapshot
from tests.integrations.guard.conftest import marked, tiny_classifier


def weights(model: Any) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
