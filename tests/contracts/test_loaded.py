"""What every loader gives keeps what ``models.base.LoadedModel`` promises."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch

import holdfast
from holdfast.core.records import Decision
from holdfast.models.base import LoadedModel
from holdfast.plan.adapters import adapter_settings, with_adapter
from holdfast.plan.defaults import DEFAULTS_TABLE
from holdfast.recipe import known_keys

PROMISED = ("network", "tokenizer", "max_length", "decisions", "facts", "settings", "defaults")
NEEDED = {"network", "tokenizer", "decisions"}
FACTS = {"name", "architecture", "parameters", "trainable", "weights", "commit", "layers"}


def loaded_classes() -> set[type]:
    """Every dataclass of the house with a network and decisions about it."""
    found = set()
    for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not module.name.startswith(("holdfast.models.", "holdfast.tasks.")):
            continue
        for _, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            fields = getattr(thing, "__dataclass_fields__", {})
            if thing is not LoadedModel and is_dataclass(thing) and set(fields) >= NEEDED:
                found.add(thing)
    return found


def test_every_loaded_class_has_a_sample(
    make_sample: Callable[[str], Any], samples: list[str]
) -> None:
    assert {type(make_sample(name).loaded) for name in samples} == loaded_classes()


def test_it_has_all_that_is_promised(sample: Any) -> None:
    assert [name for name in PROMISED if not hasattr(sample.loaded, name)] == []


def test_decisions_have_reasons_and_facts_are_plain(sample: Any) -> None:
    loaded = sample.loaded
    assert all(isinstance(d, Decision) and d.because for d in loaded.decisions)
    assert set(loaded.facts) >= FACTS
    assert json.loads(json.dumps(loaded.facts)) == loaded.facts
    assert loaded.facts["parameters"] >= loaded.facts["trainable"] > 0


def test_defaults_name_a_row_of_the_table(sample: Any) -> None:
    assert sample.loaded.defaults in {None, *(default.model_type for default in DEFAULTS_TABLE)}


def test_settings_are_keys_of_the_recipe_that_repeat_what_was_loaded(sample: Any) -> None:
    loaded, recipe = sample.loaded, sample.recipe
    assert {f"model.{key}" for key in loaded.settings} <= set(known_keys())
    chosen = {"max_length": loaded.max_length, **loaded.settings}
    kept = recipe.with_changes(model={**chosen, **adapter_settings(loaded.network)})
    again = with_adapter(sample.definition.load(kept, sample.table), kept)
    assert again.max_length == loaded.max_length
    # What the recipe says by now need not be said again.
    assert again.settings.items() <= loaded.settings.items()
    first, second = loaded.network.state_dict(), again.network.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_no_example_is_longer_than_the_limit(sample: Any) -> None:
    limit = sample.loaded.max_length
    if limit is None:
        return
    batch = sample.task.collate(sample.examples, range(len(sample.examples)))
    assert batch["input_ids"].shape[1] <= limit
