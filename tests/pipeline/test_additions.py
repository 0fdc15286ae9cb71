"""What joins a run under way: each registered method and each notch of enrichment in a whole small
fit, undone by going back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.core.actions import Action, RollBack, StrengthenAugmentation, SwitchOn
from holdfast.core.errors import RunError
from holdfast.core.records import Snapshot, Verdict
from holdfast.fits import fit as job_module
from holdfast.fits.additions import FitAdditions
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import fit
from holdfast.fits.policies import checkpoint_rule
from holdfast.methods.registry import METHODS, Method
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition

WHY = "a test wants it"
TRAIN, VALID = np.arange(30), np.arange(30, 44)
PLAIN = {
    "train.epochs": 4,
    "train.learning_rate": 3e-3,
    "train.keep": "last",
    "methods.contrast": False,
}


class Script:
    """Takes each action at the n-th look of its life; may go back to the third look."""

    def __init__(self, actions: dict[int, tuple[Action, ...]]) -> None:
        self.actions, self.looks = actions, 0

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        self.looks += 1
        return self.actions.get(self.looks, ())

    def restore_points(self, history: Sequence[Snapshot]) -> tuple[int, ...]:
        return (history[min(2, len(history) - 1)].step,)

    def rolled_back(self, state: dict[str, Any]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.looks = state["looks"]


@pytest.fixture(scope="module")
def prepared(
    tiny_model: Path, marked_rows: Any, write_csv: Any, tmp_path_factory: Any
) -> PreparedData:
    path = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", marked_rows(44))
    given = [
        "task=text-classification",
        f"data.path={path}",
        f"model.name={tiny_model}",
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
        "train.cache_frozen=off",
        "train.evaluations=8",
    ]
    recipe = override(Recipe(), given)
    rows = task_definition(recipe.task).read(recipe.data.path, recipe.data, None)
    return prepare(recipe, rows)


Scripted = Callable[..., FittedModel]


@pytest.fixture
def scripted(prepared: PreparedData, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A fit that takes these actions at its looks."""

    def make(actions: dict[int, tuple[Action, ...]], **settings: Any) -> FittedModel:
        def by_script(ready: Any, of_kind: Any, _: object, **__: object) -> Any:
            return checkpoint_rule(ready, of_kind), Script(actions)

        monkeypatch.setattr(job_module, "deciders", by_script)
        return fit(prepared, TRAIN, VALID, {**PLAIN, **settings})

    return make


def same(one: FittedModel, two: FittedModel) -> bool:
    first, second = one.network.state_dict(), two.network.state_dict()
    return all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def possible(prepared: PreparedData) -> list[str]:
    return sorted(FitAdditions(make_training_plan(prepared, TRAIN, VALID, PLAIN)).possible)


def test_what_can_join_is_named_with_its_settings(prepared: PreparedData) -> None:
    ready = make_training_plan(prepared, TRAIN, VALID, PLAIN)
    found = FitAdditions(ready).possible
    assert {"balance", "focal", "label_smoothing", "sam"} <= found.keys()
    # One has a phase of its own, the other is the head's start and brings no part.
    assert not {"contrast", "probe_first"} & found.keys()
    assert found["label_smoothing"] == {"share": 0.1}


def test_what_the_recipe_has_on_or_excludes_cannot_join(prepared: PreparedData) -> None:
    on = {**PLAIN, "methods": {"contrast": False, "sam": True}, "train.label_smoothing": 0.1}
    additions = FitAdditions(make_training_plan(prepared, TRAIN, VALID, on))
    assert not {"sam", "label_smoothing"} & additions.possible.keys()
    for name, told in (
        ("sam", "is already on by the recipe"),
        ("label_smoothing", "is already on by the recipe"),
        ("contrast", "has its own phase"),
        ("smooth", "is not a known method"),
    ):
        with pytest.raises(RunError, match=told):
            additions.complete_settings(name, {}, {})
    with pytest.raises(RunError, match="must be a number above 0"):
        additions.complete_settings("focal", {"gamma": 0}, {})


def test_two_that_make_the_gradient_cannot_both_join(prepared: PreparedData) -> None:
    entry = METHODS["sam"]
    METHODS.add("other_sam", Method(entry.settings, entry.parts))
    try:
        additions = FitAdditions(make_training_plan(prepared, TRAIN, VALID, PLAIN))
        with pytest.raises(RunError, match="exclude each other"):
            additions.complete_settings(
                "other_sam", {}, {"sam": additions.complete_settings("sam", {}, {})}
            )
    finally:
        del METHODS._entries["other_sam"]


@pytest.fixture(scope="module")
def plain(prepared: PreparedData) -> FittedModel:
    return fit(prepared, TRAIN, VALID, {**PLAIN, "control.policy": "off"})


@pytest.mark.slow
def test_each_method_joins_a_run_and_going_back_leaves_nothing_of_it(
    scripted: Scripted, prepared: PreparedData, plain: FittedModel
) -> None:
    for name in possible(prepared):
        on = SwitchOn(WHY, name)
        changed = scripted({3: (on,)})
        # An average that is no better than its members is tried, and changes nothing.
        assert not same(changed, plain) or changed.trained.offers, name
        assert all(np.isfinite(s.valid_losses).all() for s in changed.trained.history), name
        step = plain.trained.history[2].step
        undone = scripted({3: (on,), 5: (RollBack(WHY, step),)})
        assert same(undone, plain), name


@pytest.mark.slow
def test_rows_are_enriched_by_a_notch_and_plain_again(
    scripted: Scripted, prepared: PreparedData, plain: FittedModel
) -> None:
    assert FitAdditions(make_training_plan(prepared, TRAIN, VALID, PLAIN)).notches == 2
    more, step = StrengthenAugmentation(WHY), plain.trained.history[2].step
    assert not same(scripted({3: (more,)}), plain)
    assert same(scripted({3: (more,), 5: (RollBack(WHY, step),)}), plain)


@pytest.mark.slow
def test_what_the_recipe_enriches_with_becomes_stronger(prepared: PreparedData) -> None:
    given = {**PLAIN, "enrich": {"delete": {"strength": 0.4, "share": 0.5}}}
    additions = FitAdditions(make_training_plan(prepared, TRAIN, VALID, given))
    assert additions.notches == 3
    forms = additions._forms(2)[-1].source.forms.enrichments["delete"]
    assert (forms.share, forms.strength) == pytest.approx((1.0, 0.9))


def test_a_plan_without_fine_tuning_takes_nothing(prepared: PreparedData) -> None:
    contrast = {"methods.contrast": True, "train.epochs": 1.0, "train.learning_rate": 3e-3}
    ready = make_training_plan(prepared, TRAIN, VALID, contrast)
    assert [phase.name for phase in ready.plan.phases] == ["contrast"]
    assert FitAdditions(ready).notches == 0
    assert not any(FitAdditions(ready).accepts(phase) for phase in ready.plan.phases)
