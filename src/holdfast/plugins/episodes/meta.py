"""``holdfast meta``: a start that adapts to a new task in a few steps.

load → treat → divide by task → refuse leaks → try the baseline and the methods on the training
tasks → keep what a paired test on validation episodes proves better, else the baseline → save →
score once on episodes of the test tasks → report.

It is no ordinary fit: what is learned has no classes of its own, and what is scored are tasks. So
the run folder is written here, in the contract's shape. Episodes of the test tasks stand where
``train`` has test rows, and ``test`` counts them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.contract import result as outcome
from holdfast.contract.run_folder import BEGUN, CHECKPOINTS, MODEL, RECIPE, claimed, is_finished
from holdfast.core.curves import Curves, Series
from holdfast.core.decisions import decisions_to, listener, notify
from holdfast.core.errors import Interrupted, MachineError, RecipeError, RunError
from holdfast.core.files import disk_errors, replace_folder, write_json, write_text
from holdfast.core.input_errors import door
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Floats, Verdict, to_json
from holdfast.core.run_files import read_result, seal_model, write_result
from holdfast.core.yaml_values import from_yaml
from holdfast.data.table import Table
from holdfast.models.probes.logistic import softmax_losses
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.episodes.choice import (
    MetaBench,
    MethodChoice,
    choose,
    settled,
    with_prototypes,
)
from holdfast.plugins.episodes.learn import EpisodeEvaluation
from holdfast.plugins.episodes.methods import BASELINE, METHODS
from holdfast.plugins.episodes.rows import SIDES, MetaRows, load_tasks
