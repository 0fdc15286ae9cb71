"""What every registered enrichment promises, found by discovery."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.augment.image_forms import Redrawing
from holdfast.augment.registry import ENRICHMENTS, all_enrichments, check_enrich, count_of, make_all
from holdfast.augment.source import RowTurn
from holdfast.augment.text_forms import Rewriting
from holdfast.augment.texts.word_edits import lost, split
from holdfast.contract.fit import EncodedSplits
from holdfast.core.errors import Defect, HoldfastError, MachineError, ModelError, RecipeError
from holdfast.core.settings import SettingRule
from holdfast.data.table import TrainSplit, ValidSplit
from holdfast.fits.augmentation import enrich_plan, row_positions, text_forms
from holdfast.fits.fit import fit
from holdfast.prepare.model import prepare
from holdfast.recipe import override
from holdfast.training.plan import Plan

ALL = sorted(all_enrichments())
TEXTS = [name for name in ALL if ENRICHMENTS[name].of == "text"]
SEEDED = [name for name in TEXTS if name != "back_translation"]

ROWS = [
    {"text": "I bought two cheap movies in Berlin and watched them quickly.", "label": "good"},
    {"text": "it does n't play 3 of the films that my children like , sadly", "label": "bad"},
    {"text": "What terrible problem is said to follow the biggest cities ?", "label": "bad"},
    {"text": "They never studied the music that this old computer can play.", "label": "good"},
]
ODD = [
    "",
    " ",
    "a",
    "!!!",
    "…",
    "漢字かな",
    "🙂 🙂",
    "x\ty\r\n z",
    "A" * 300,
    "NOT 3 <b>[x]</b> ^y$",
]

OWN = """
import numpy as np

def flip(row, seed):
    words = row["text"].split()
    np.random.default_rng(seed).shuffle(words)
    return {**row, "text": " ".join(words)}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    return f"{path}:flip"


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model of some English words, drawn at random."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("masked")
    words = sorted({word for row in ROWS for word in row["text"].lower().split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *words]), encoding="utf-8")
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = BertConfig(vocab_size=len(words) + 5, intermediate_size=16, **sizes)
        BertForMaskedLM(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    logging.enable_progress_bar()
    return folder


@pytest.fixture
def needed(own: str, request: pytest.FixtureRequest) -> Any:
    """An enrichment with its usual settings, and those that it cannot do without."""

    def make(name: str, **more: Any) -> Any:
        given: dict[str, Any] = dict(more)
        if name == "own":
            given["function"] = own
        if name == "counterfactual":
            given["insert"] = True
        if name == "masked_model":
            given["model"] = str(request.getfixturevalue("masked"))
        one = make_all(check_enrich({name: given}))[name]
        try:
            one.ready()
        except HoldfastError as error:
            if shutil.which("apertium") is None or "wordnet" in str(error):
                pytest.skip(str(error))
            raise
        return one

    return make


def test_the_kit_sees_every_form_of_enrichment() -> None:
    assert {"aeda", "own", "back_translation", "masked_model", "synonyms"} <= set(TEXTS)
    assert {"crop", "flip", "trivial_augment", "cutmix"} <= set(PICTURES)


@pytest.mark.parametrize("name", ALL)
def test_its_settings_are_frozen_bounded_and_documented(name: str) -> None:
    settings = ENRICHMENTS[name].settings
    assert settings.__dataclass_params__.frozen
    assert settings.__doc__
    assert ENRICHMENTS[name].known
    for one in dataclasses.fields(settings):
        rule = one.metadata["rule"]
        assert isinstance(rule, SettingRule), one.name
        if one.default is not dataclasses.MISSING:
            assert rule.hold(one.default), one.name


@pytest.mark.parametrize("name", ALL)
def test_what_its_bounds_forbid_is_refused_with_the_rule(name: str) -> None:
    needs = {"function": "m:f", "model": "m"}
    for one in dataclasses.fields(ENRICHMENTS[name].settings):
        rule = one.metadata["rule"]
        wrong: list[Any] = [None, {"a": 1}]
        if rule.kind in ("number", "whole"):
            below = rule.above if rule.above is not None else rule.least - 1
            wrong += [below, rule.most * 2 + 1, "1", True, float("nan")]
            wrong += [rule.least + 0.5] if rule.kind == "whole" else []
        if rule.kind == "words":
            wrong += ["", 3, True]
        if rule.kind == "several":
            wrong += ["word", [1], [""]]
        if rule.kind == "truth":
            wrong += [1, "yes"]
        own = {f.name for f in dataclasses.fields(ENRICHMENTS[name].settings)}
        for value in wrong:
            given = {k: v for k, v in needs.items() if k in own} | {one.name: value}
            with pytest.raises(RecipeError, match="must be") as caught:
                check_enrich({name: given})
            assert caught.value.what == f"augment.{name}.{one.name}"


@pytest.mark.parametrize("name", ALL)
def test_a_setting_that_it_has_not_names_the_nearest(name: str) -> None:
    with pytest.raises(RecipeError, match="is not a setting of") as caught:
        check_enrich({name: {"shar": 1}})
    assert "Did you mean 'share'" in caught.value.remedy


@pytest.mark.parametrize("name", TEXTS)
def test_a_form_depends_on_row_and_seed_alone(name: str, needed: Any) -> None:
    one, before = needed(name), copy.deepcopy(ROWS)
    seeds = [11, 12, 13, 14]
    together = one.forms(ROWS, ["text"], seeds)
    assert before == ROWS, "the rows that it was given were changed"
    alone = [one.forms([r], ["text"], [s])[0] for r, s in zip(ROWS, seeds, strict=True)]
    backwards = one.forms(ROWS[::-1], ["text"], seeds[::-1])[::-1]
    assert together == alone == backwards == one.forms(ROWS, ["text"], seeds)
    assert [row["label"] for row in together] == [row["label"] for row in ROWS]
    assert all(isinstance(row["text"], str) for row in together)


@pytest.mark.parametrize("name", SEEDED)
def test_other_seeds_give_other_forms_without_the_chance_of_the_process(
    name: str, needed: Any
) -> None:
    one, state = needed(name), np.random.get_state()[1].tolist()
    rows = ROWS * 6
    forms = one.forms(rows, ["text"], list(range(len(rows))))
    of_first = {forms[k]["text"] for k in range(0, len(rows), len(ROWS))}
    changed = sum(a["text"] != b["text"] for a, b in zip(rows, forms, strict=True))
    assert changed >= len(rows) // 4
    assert len(of_first) > 1
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("name", TEXTS)
def test_odd_texts_come_out_as_texts(name: str, needed: Any) -> None:
    found = needed(name).changes(ODD, list(range(len(ODD))))
    assert len(found) == len(ODD)
    assert all(isinstance(text, str) for text in found)
    assert found[0] == ""


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "own"])
def test_most_forms_keep_numbers_negation_names_and_protected_terms(name: str, needed: Any) -> None:
    one = needed(name, protect=["cheap movies", "Films"])
    rows = ROWS * 10
    forms = one.forms(rows, ["text"], list(range(len(rows))))
    faults = [lost(a["text"], b["text"], one.protect) for a, b in zip(rows, forms, strict=True)]
    allowed = 0.5 if name in ("back_translation", "masked_model") else 0.1
    assert sum(fault is not None for fault in faults) <= allowed * len(rows), faults


def test_an_unknown_enrichment_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown augmentation") as caught:
        check_enrich({"synonym": {}})
    assert "Did you mean 'synonyms'" in caught.value.remedy


def test_one_of_other_rows_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RecipeError, match="is only for texts") as caught:
        check_enrich({"aeda": True}, "pictures")
    assert caught.value.what == "augment.aeda"


@pytest.mark.parametrize("given", [3, "yes", [1]])
def test_what_is_neither_a_switch_nor_settings_is_refused(given: Any) -> None:
    with pytest.raises(RecipeError, match="neither true nor false"):
        check_enrich({"aeda": given})


OF_TEXT = ["classes", "pairs of texts", "several labels", "numbers", "seq2seq", "chats"]


def forms_of(sample: Any, **settings: Any) -> Rewriting:
    table = sample.table
    sides = EncodedSplits(sample.examples, sample.examples, TrainSplit(table), ValidSplit(table))
    ways = make_all(check_enrich({"aeda": {"share": 1, **settings}}))
    return text_forms(ways, sample.definition, sample.loaded, sides, sample.recipe)


def wanted(examples: Any, k: int) -> list[Any]:
    """What is to be learned of an example."""
    if hasattr(examples, "target_ids"):
        at = examples.target_offsets
        return list(examples.target_ids[at[k] : at[k + 1]])
    if hasattr(examples, "targets"):
        here = slice(examples.offsets[k], examples.offsets[k + 1])
        return list(examples.ids[here][examples.targets[here]])
    return [np.asarray(examples.labels)[k].tolist()]


def read(examples: Any, k: int) -> list[Any]:
    """What is read of an example."""
    ids, at = (
        (examples.source_ids, examples.source_offsets)
        if hasattr(examples, "source_ids")
        else (examples.ids, examples.offsets)
    )
    return list(ids[at[k] : at[k + 1]])


@pytest.mark.parametrize("name", OF_TEXT)
def test_rows_of_every_kind_change_and_what_is_to_be_learned_does_not(
    name: str, make_sample: Callable[[str], Any]
) -> None:
    sample = make_sample(name)
    forms, own = forms_of(sample), sample.examples
    rows = np.array([3, 0, 3, len(own) - 1])
    turns = [RowTurn(0, 0), RowTurn(0, 0), RowTurn(1, 0), RowTurn(5, 0)]
    examples, places = forms(rows, turns)
    for row, place in zip(rows, places, strict=True):
        assert wanted(examples, place) == wanted(own, row)
    assert any(read(examples, p) != read(own, r) for r, p in zip(rows, places, strict=True))
    again, other = forms(rows[::-1], turns[::-1])
    for place, same in zip(places, other[::-1], strict=True):
        assert read(examples, place) == read(again, same)


@pytest.mark.parametrize("name", ["tags", "plain texts, adapter"])
def test_rows_whose_words_are_bound_are_refused(
    name: str, make_sample: Callable[[str], Any]
) -> None:
    with pytest.raises(RecipeError, match="does not apply to these rows") as caught:
        forms_of(make_sample(name))
    assert caught.value.what == "augment.aeda"


def test_answers_are_rewritten_where_they_are_asked_for(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("seq2seq")
    forms = forms_of(sample, answers=True)
    examples, places = forms(np.arange(6), [RowTurn(0, 0)] * 6)
    assert any(wanted(examples, p) != wanted(sample.examples, r) for r, p in enumerate(places))


def test_a_row_has_so_many_forms_as_copies(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("classes")
    forms = forms_of(sample, copies=2)
    row = np.flatnonzero(sample.examples.lengths > 12)[:1]
    seen = {
        tuple(read(*(lambda made: (made[0], made[1][0]))(forms(row, [RowTurn(k, 0)]))))
        for k in range(8)
    }
    assert len(seen) == 2


def test_only_training_rows_are_taken(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("classes")
    forms = forms_of(sample)
    for other in (ValidSplit(sample.table), sample.table):
        with pytest.raises(Defect, match="training rows only"):
            dataclasses.replace(forms, train=other)


def test_of_rows_that_were_left_out_the_places_are_known(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("chats")
    assert len(sample.examples) < len(sample.table)
    rows = np.asarray(sample.table.column("row"))
    assert (rows[row_positions(sample.examples, len(rows))] == sample.examples.rows).all()


def test_nothing_asked_for_leaves_the_plan_as_it_is(make_sample: Callable[[str], Any]) -> None:
    sample, plan = make_sample("classes"), Plan((), (0,), 1, 0)
    sides = EncodedSplits(
        sample.examples, sample.examples, TrainSplit(sample.table), ValidSplit(sample.table)
    )
    for given in ({}, {"aeda": False}):
        recipe = sample.recipe.with_changes(enrich=given)
        assert enrich_plan(plan, sample.definition, sample.loaded, sides, recipe).plan is plan


def test_added_rows_are_passed_as_they_are_with_their_weights(
    make_sample: Callable[[str], Any],
) -> None:
    sample = make_sample("classes")
    own, count = sample.examples, len(sample.examples)
    both = own.extended(own.take(np.arange(3)), np.array([0.5, 2.0, 3.0]))
    added = both.take(np.arange(count, count + 3))
    forms = dataclasses.replace(forms_of(sample), added=added)
    rows = np.array([count + 2, 0, count, 5])
    examples, places = forms(rows, [RowTurn(0, 0)] * 4)
    assert np.asarray(examples.weights)[places].tolist() == [3.0, 1.0, 0.5, 1.0]
    assert read(examples, places[0]) == read(added, 2)
    assert read(examples, places[2]) == read(added, 0)
    assert np.asarray(examples.labels)[places].tolist() == both.labels[rows].tolist()
    alone, at = forms(np.array([count + 1]), [RowTurn(0, 0)])
    assert read(alone, at[0]) == read(added, 1)


PICTURES = [name for name in ALL if ENRICHMENTS[name].of == "pictures"]


def colours(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 16, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PICTURES)
def test_a_form_of_a_picture_depends_on_it_and_its_chance_alone(name: str) -> None:
    one = make_all(check_enrich({name: {"share": 0.9}}))[name]
    before, state = colours(), torch.get_rng_state()
    rngs = [np.random.default_rng(k) for k in range(6)]
    together = one.forms(colours(), rngs)
    for k in range(6):
        alone = one.forms(colours()[k : k + 1], [np.random.default_rng(k)])
        assert torch.equal(alone[0], together[k])
    assert torch.equal(colours(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert together.shape == before.shape
    assert together.dtype == torch.float32
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_any_size_and_of_one_channel_come_out(name: str) -> None:
    one = make_all(check_enrich({name: {}}))[name]
    for shape in ((2, 1, 8, 8), (1, 3, 3, 40), (3, 3, 31, 5)):
        found = one.forms(
            torch.full(shape, 0.5), [np.random.default_rng(k) for k in range(shape[0])]
        )
        assert found.shape == shape
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ["pictures", "pictures, batch norms"])
def test_pictures_in_other_forms_keep_their_labels_unless_they_are_mixed(
    name: str, make_sample: Callable[[str], Any]
) -> None:
    sample = make_sample(name)
    own = sample.examples
    rows, turns = (
        np.array([3, 0, 3, 1]),
        [RowTurn(0, 0), RowTurn(0, 0), RowTurn(1, 0), RowTurn(0, 0)],
    )

    def forms(**asked: Any) -> Redrawing:
        ways = make_all(check_enrich(asked))
        return Redrawing(
            TrainSplit(sample.table),
            own,
            ways,
            lambda at: own.pixels.colours(own.places[at]),
            own.pixels.from_colours,
            0,
        )

    made, places = forms(crop=True, jitter=True)(rows, turns)
    batch = sample.task.collate(made, places)
    plain = sample.task.collate(own, rows)
    assert torch.equal(batch["labels"], plain["labels"])
    assert batch["pixel_values"].shape == plain["pixel_values"].shape
    assert not torch.equal(batch["pixel_values"][0], batch["pixel_values"][2])
    again, at = forms(crop=True, jitter=True)(rows[::-1].copy(), turns[::-1])
    other = sample.task.collate(again, at)["pixel_values"].flip(0)
    assert torch.equal(other, batch["pixel_values"])
    mixed, places = forms(cutmix={"share": 1.0}, mixup={"share": 1.0})(rows, turns)
    batch = sample.task.collate(mixed, places)
    assert torch.equal(batch["labels"], plain["labels"])
    assert set(batch) == {"pixel_values", "labels", "partners", "shares"}
    assert (batch["shares"] < 1).any()
    # Without a way that changes anything the model reads what it read.
    still, places = forms(flip={"share": 1e-9})(rows, turns)
    same = sample.task.collate(still, places)["pixel_values"]
    assert torch.allclose(same, plain["pixel_values"], atol=1e-5)
    with pytest.raises(Defect, match="training rows only"):
        dataclasses.replace(forms(crop=True), train=ValidSplit(sample.table))


def test_the_partner_of_a_mixed_picture_is_the_class_of_what_is_mixed_in(
    make_sample: Callable[[str], Any],
) -> None:
    own = make_sample("pictures").examples
    forms = Redrawing(
        TrainSplit(make_sample("pictures").table),
        own,
        make_all(check_enrich({"mixup": {"share": 1.0, "alpha": 5.0}})),
        lambda at: own.pixels.colours(own.places[at]),
        lambda values: values,
        0,
    )
    rows, every = np.arange(8), own.pixels.colours(own.places)
    made, places = forms(rows, [RowTurn(0, 0)] * 8)
    for k, row in enumerate(rows):
        share = float(made.shares[k])
        other = (made.pixels(places[k : k + 1])[0] - share * every[row]) / (1 - share)
        nearest = int((every - other).abs().amax(dim=(1, 2, 3)).argmin())
        assert torch.allclose(every[nearest], other, atol=1e-4)
        assert made.partners[k] == own.labels[nearest]


def test_a_translation_model_can_be_named_for_each_way(tiny_t5: Path, tmp_path: Path) -> None:
    back = Path(shutil.copytree(tiny_t5, tmp_path / "back"))
    ways = {"there": str(tiny_t5), "back": str(back), "similarity": 0.0}
    one = make_all(check_enrich({"back_translation": ways}))["back_translation"]
    one.ready()
    texts = ["w1 w2 w3", "w4", "w1 w2 w3"]
    found = one.changes(texts, [0, 1, 2])
    assert found == one.changes(texts[::-1], [2, 1, 0])[::-1]
    assert found[0] == found[2]
    assert all(isinstance(text, str) for text in found)


@pytest.mark.parametrize("name", ["back_translation", "masked_model"])
def test_a_model_that_is_not_there_is_told_before_the_run(name: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    given = {"there": nowhere} if name == "back_translation" else {"model": nowhere}
    with pytest.raises(ModelError, match="is not a folder") as caught:
        make_all(check_enrich({name: given}))[name].ready()
    assert f"augment.{name}" in caught.value.remedy


def test_a_pair_of_languages_that_is_not_there_is_told() -> None:
    if shutil.which("apertium") is None:
        pytest.skip("needs Apertium")
    given = {"there": "apertium:xx-yy"}
    with pytest.raises(MachineError, match="not installed") as caught:
        make_all(check_enrich({"back_translation": given}))["back_translation"].ready()
    assert caught.value.value == "xx-yy"


def test_a_masked_model_fills_in_other_words_than_were_there(needed: Any) -> None:
    one = needed("masked_model", strength=0.5)
    for row, form in zip(ROWS, one.forms(ROWS, ["text"], [1, 2, 3, 4]), strict=True):
        old, new = split(row["text"]), split(form["text"])
        assert len(old) == len(new)
        assert old.gaps == new.gaps
        places = [k for k in range(len(old)) if old.words[k] != new.words[k]]
        assert places
        assert len(places) <= count_of(0.5, len(old))
        assert all(new.words[k].casefold() != old.words[k].casefold() for k in places)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pairs of texts", "numbers", "seq2seq", "chats"])
def test_a_fit_learns_from_other_forms(name: str, make_sample: Callable[[str], Any]) -> None:
    sample = make_sample(name)
    machine = ["train.threads=1", "train.precision=float32", "train.matmul=default"]
    prepared = prepare(override(sample.recipe, machine), sample.table)
    steps = {"train.max_steps": 3, "train.learning_rate": 1e-3, "train.keep": "last"}
    train, valid = np.arange(9), np.arange(9, len(sample.table))

    def learned(**more: Any) -> list[bytes]:
        fitted = fit(prepared, train, valid, {**steps, **more})
        return [tensor.numpy().tobytes() for tensor in fitted.network.state_dict().values()]

    other = learned(**{"enrich.aeda.share": 1})
    assert other == learned(**{"enrich.aeda.share": 1})
    assert other != learned()


def test_a_row_is_changed_in_its_share_of_turns(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("classes")
    forms = forms_of(sample, share=0.5, copies=1)
    row = int(np.flatnonzero(sample.examples.lengths > 12)[0])
    examples, places = forms(np.full(60, row), [RowTurn(k, 0) for k in range(60)])
    changed = sum(read(examples, place) != read(sample.examples, row) for place in places)
    assert 15 <= changed <= 45


def test_two_pictures_of_a_turn_have_chances_of_their_own(
    make_sample: Callable[[str], Any],
) -> None:
    sample = make_sample("pictures")
    own = sample.examples
    forms = Redrawing(
        TrainSplit(sample.table),
        own,
        make_all(check_enrich({"crop": True})),
        lambda at: own.pixels.colours(own.places[at]),
        own.pixels.from_colours,
        0,
    )
    drawn = [rng.random() for rng in forms._chances("crop", np.arange(8), [RowTurn(0, 0)] * 8)]
    assert len(set(drawn)) == 8


def test_a_form_that_is_too_unlike_its_text_is_not_used(make_sample: Callable[[str], Any]) -> None:
    sample = make_sample("classes")
    for similarity, used in ((0.01, True), (1.0, False)):
        forms = forms_of(sample, similarity=similarity)
        rows = [{"text": "the film was a joy to watch", "label": "a"}] * 6
        made = forms._rewrite("aeda", rows, list(range(6)))
        assert {one.kept for one in made} == ({None} if used else {"similarity"})
        assert all((one.row != rows[0]) is used for one in made)
