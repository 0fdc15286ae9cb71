"""Every pair of the table: it is found when it is asked for, and not otherwise."""

from __future__ import annotations

import pytest

from holdfast.core.errors import RecipeError
from holdfast.methods.conflicts import (
    CONFLICTS,
    ConflictQuery,
    MethodConflict,
    check_conflicts,
    useless_settings,
)
from holdfast.methods.registry import all_methods
from holdfast.recipe import known_keys

# What makes each line of the table hold, by what it names.
ASKED = {
    ("methods.elastic_net", "methods.l1"): {"methods": {"elastic_net": {}, "l1": {}}},
    ("methods.elastic_net", "methods.l2"): {"methods": {"elastic_net": {}, "l2": {}}},
    ("methods.l2", "methods.l2_sp"): {"methods": {"l2": {}, "l2_sp": {}}},
    ("methods.l2", "train.weight_decay"): {"methods": {"l2": {}}, "weight_decay": 0.1},
    ("methods.l2_sp", "train.weight_decay"): {"methods": {"l2_sp": {}}, "weight_decay": 0.1},
    ("methods.l2", "train.weight_decay", "train.optimizer"): {
        "methods": {"l2": {}},
        "weight_decay": 0.01,
        "optimizer": "adam",
    },
    ("methods.l1",): {"methods": {"l1": {"place": "head"}}, "head_learns": False},
    ("methods.elastic_net",): {"methods": {"elastic_net": {}}, "head_learns": False},
    ("methods.focal", "train.label_smoothing"): {"methods": {"focal": {}}, "label_smoothing": 0.1},
    ("methods.ewc", "methods.l2_sp"): {"methods": {"ewc": {}, "l2_sp": {}}},
    ("methods.focal", "methods.gce"): {"methods": {"focal": {}, "gce": {}}},
    ("methods.gce", "methods.mixup"): {"methods": {"gce": {}, "mixup": {}}},
    ("methods.focal", "methods.mixup"): {"methods": {"focal": {}, "mixup": {}}},
    ("methods.balance", "methods.mixup"): {"methods": {"balance": {"by": "weights"}, "mixup": {}}},
    ("methods.mixup", "train.label_smoothing"): {"methods": {"mixup": {}}, "label_smoothing": 0.1},
    ("methods.gce", "train.label_smoothing"): {"methods": {"gce": {}}, "label_smoothing": 0.1},
    ("methods.pairing", "enrich"): {"methods": {"pairing": {}}},
    ("methods.mixup", "enrich"): {"methods": {"mixup": {}}, "enrich": frozenset({"cutmix"})},
    ("methods.dropconnect", "methods.dropout"): {
        "methods": {"dropconnect": {}, "dropout": {"hidden": 0.2}}
    },
    ("methods.progressive", "methods.unfreeze"): {"methods": {"progressive": {}, "unfreeze": {}}},
    ("methods.reinit", "methods.reset_head"): {"methods": {"reinit": {}, "reset_head": {}}},
    ("methods.probe_first", "methods.progressive"): {
        "methods": {"probe_first": {}, "progressive": {}}
    },
    ("methods.reinit", "methods.wise"): {"methods": {"reinit": {}, "wise": {}}},
    ("methods.kl_start", "methods.mixup"): {"methods": {"kl_start": {}, "mixup": {}}},
    **{
        (f"methods.{name}", "enrich"): {"methods": {name: {}}, "enrich": frozenset({"mixup"})}
        for name in ("focal", "gce")
    },
    **{
        (f"methods.{name}", "methods.reinit"): {"methods": {name: {}, "reinit": {}}}
        for name in ("ewc", "l2_sp")
    },
    **{
        (f"methods.{name}",): {"methods": {name: {}}, "head_learns": False}
        for name in ("unfreeze", "progressive", "reset_head")
    },
}
# Near to each: one thing less.
SPARED = [
    {"methods": {"l1": {}, "l2": {}}},
    {"methods": {"l2": {}}, "weight_decay": 0.01},
    {"methods": {"l2_sp": {}}, "weight_decay": 0.01},
    {"methods": {"focal": {}}},
    {"methods": {"pairing": {}}, "enrich": frozenset({"counterfactual"})},
    {"methods": {"balance": {"by": "draw"}, "mixup": {}}},
    {"methods": {"balance": {"by": "none", "target": "even"}, "mixup": {}}},
    {"methods": {"l1": {"place": "all"}}, "head_learns": False},
    {"methods": {"l1": {"place": "head"}}},
    {"methods": {"dropconnect": {}, "dropout": {"hidden": "model", "head": 0.2}}},
    {"label_smoothing": 0.1, "weight_decay": 0.1},
    {"methods": {"mixup": {}}, "enrich": frozenset({"usual"})},
    {"methods": {"progressive": {}, "reset_head": {}, "wise": {}}},
    {"methods": {"probe_first": {}, "unfreeze": {}, "reinit": {}}},
]


@pytest.mark.parametrize("clash", CONFLICTS, ids=lambda clash: " and ".join(clash.keys))
def test_a_line_names_what_exists_and_is_found_when_it_is_asked_for(clash: MethodConflict) -> None:
    assert clash.methods
    assert set(clash.methods) <= set(all_methods())
    assert set(clash.other_keys) <= set(known_keys())
    assert clash.because.strip()
    assert clash.remedy.endswith(".")
    asked = ConflictQuery(**ASKED[clash.keys])
    assert clash.applies(asked)
    assert not clash.applies(ConflictQuery())
    if clash.is_error:
        with pytest.raises(RecipeError) as caught:
            check_conflicts(asked)
        assert caught.value.what == " and ".join(clash.keys)
        assert clash.remedy in caught.value.remedy
    else:
        check_conflicts(asked)
        (found,) = [one for one in useless_settings(asked) if one.remedy == clash.remedy]
        assert found.because.startswith(" and ".join(clash.keys))
        assert found.check == "useless_setting"


@pytest.mark.parametrize("asked", SPARED)
def test_what_goes_together_is_left_alone(asked: dict) -> None:
    check_conflicts(ConflictQuery(**asked))
    assert useless_settings(ConflictQuery(**asked)) == ()


def test_a_pair_is_found_whatever_else_is_on() -> None:
    everything = {name: {} for name in all_methods()}
    with pytest.raises(RecipeError):
        check_conflicts(ConflictQuery(everything))
