"""One place for settings: frozen, strict, the same when it is written and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from holdfast.core.errors import RecipeError
from holdfast.recipe import Recipe, known_keys, override, parse, read_recipe, resolve_paths


def test_a_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    made = override(
        Recipe(),
        [
            "train.epochs=2.5",
            "data.text=[a, b]",
            "methods.contrast.steps=7",
            "control.policy=off",
            "model.freeze=words",
            "seed=7",
            "train.learning_rate=3e-5",
            "methods.probe_first=false",
            "data.template='{q} [SEP] {c}'",
        ],
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(made.to_yaml(), encoding="utf-8")
    assert read_recipe(path) == made


def test_names_in_any_letters_can_be_read_in_the_file() -> None:
    made = override(Recipe(), ["data.path=größe/отзывы.csv", "data.label=評価"])
    assert "path: größe/отзывы.csv\n" in made.to_yaml()
    assert "label: 評価\n" in made.to_yaml()


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Recipe().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_the_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert read_recipe(tmp_path / "r.yaml") == Recipe()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=2E-5", 2e-5),
        ("train.learning_rate=0.001", 0.001),
        ("train.epochs=3", 3.0),
    ],
)
def test_numbers_are_read_as_a_person_means_them(setting: str, value: float) -> None:
    part, key = setting.split("=")[0].split(".")
    assert getattr(getattr(override(Recipe(), [setting]), part), key) == value


def test_numbers_without_a_dot_are_read_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("train:\n  learning_rate: 1e-4\n")
    assert read_recipe(tmp_path / "r.yaml").train.learning_rate == 1e-4


@pytest.mark.parametrize("policy", ["off", "false", "False"])
def test_off_is_yaml_s_false(tmp_path: Path, policy: str) -> None:
    assert override(Recipe(), [f"control.policy={policy}"]).control.policy == "off"
    (tmp_path / "r.yaml").write_text(f"control: {{policy: {policy}}}\n")
    read = read_recipe(tmp_path / "r.yaml")
    assert read.control.policy == "off"
    assert yaml.safe_load(read.to_yaml())["control"]["policy"] in ("off", False)


def test_a_later_setting_wins_and_its_neighbours_stay() -> None:
    made = override(Recipe(), ["train.epochs=1", "train.batch_size=4", "train.epochs=2"])
    assert (made.train.epochs, made.train.batch_size) == (2, 4)


def test_every_known_key_may_be_set_to_what_it_is() -> None:
    for key in known_keys():
        value: object = Recipe().model_dump(mode="json")
        for step in key.split("."):
            value = value[step]  # type: ignore[index]
        assert override(Recipe(), [f"{key}={yaml.safe_dump(value)}"]) == Recipe()


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("train: {epoch: 3}", "train.epochs"),
        ("dta: {path: x}", "data"),
        ("data: {split: {trian: 0.5}}", "data.split.train"),
        ("sed: 3", "seed"),
    ],
)
def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path, text, nearest: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert f"Did you mean {nearest!r}" in caught.value.remedy
    assert "r.yaml" in caught.value.what


CHOICES = [
    ({"task": "text-clasification"}, "text-classification"),
    ({"control": {"policy": "stpo"}}, "stop"),
    ({"data": {"rare": "dropp"}}, "drop"),
    ({"model": {"adapter": {"kind": "lorra"}}}, "lora"),
]


@pytest.mark.parametrize(("plain", "near"), CHOICES)
def test_a_value_that_is_no_choice_names_the_nearest(plain: dict[str, object], near: str) -> None:
    with pytest.raises(RecipeError, match=f"Did you mean '{near}'"):
        parse(plain, "a test")


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1",
        b"- 1\n- 2\n",
        b"just words",
        b"\xff\xfe\x00a: 1",
        b"a: !!python/object:os.system {}",
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError):
        read_recipe(tmp_path / "r.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="does not exist"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    "plain",
    [
        {"data": {"split": {"train": 0.5, "valid": 0.1, "test": 0.1}}},
        {"seed": -1},
        {"train": {"epochs": 0}},
        {"train": {"epochs": "many"}},
        {"control": {"policy": "adaptt"}},
        {"control": {"policy": "mine.py:not a name"}},
        {"task": "poetry"},
        {"enrich": {"swap": [1]}},
        {"model": {"max_length": 2}},
    ],
)
def test_values_out_of_range_are_refused(plain: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        parse(plain, "a test")


def test_set_needs_an_equals_sign() -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        override(Recipe(), ["train.epochs"])


def test_paths_in_a_recipe_are_relative_to_its_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("rows.csv", "held.csv", "metric.py"):
        (tmp_path / name).write_text("x")
    (tmp_path / "deep" / "r.yaml").write_text(
        "data: {path: ../rows.csv, test: ../held.csv, valid: ../absent.csv}\n"
        "model: {name: embedded}\ntrain: {metric: '../metric.py:f:lower'}\n"
    )
    monkeypatch.chdir("/")
    read = read_recipe(tmp_path / "deep" / "r.yaml")
    assert read.data.path == str(tmp_path / "rows.csv")
    assert read.data.test == str(tmp_path / "held.csv")
    assert read.data.valid == str(tmp_path / "absent.csv")
    assert read.train.metric == f"{tmp_path / 'metric'}.py:f:lower"


@pytest.mark.parametrize(
    ("value", "is_path"),
    [
        ("./pictures", True),
        ("rows.csv.gz", True),
        ("data/rows.CSV", True),
        ("entities.conll", True),
        ("rows.xlsx", True),
        ("~/rows.csv", False),
        ("stanfordnlp/imdb", False),
        ("name:config@train[:10%]", False),
    ],
)
def test_what_can_only_be_a_path_is_one_even_where_nothing_is(
    tmp_path: Path, value: str, is_path: bool
) -> None:
    (tmp_path / "r.yaml").write_text(f"data: {{path: '{value}'}}\n")
    found = read_recipe(tmp_path / "r.yaml").data.path
    assert found == (str(tmp_path / value) if is_path else value)


@pytest.mark.parametrize("name", ["auto", "embedded"])
def test_a_model_of_that_name_is_never_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    recipe = override(Recipe(), [f"model.name={name}"])
    assert resolve_paths(recipe, tmp_path).model.name == name


def test_candidates_are_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    recipe = override(Recipe(), ["model.candidates=[mine,owner/name]"])
    found = resolve_paths(recipe, tmp_path).model.candidates
    assert found == (str(tmp_path / "mine"), "owner/name")


@pytest.mark.parametrize("template", ["summarize: {dialogue}", "{a} {b}", "{a}"])
def test_a_template_on_the_command_line_is_text_whatever_yaml_makes_of_it(template: str) -> None:
    assert override(Recipe(), [f"data.template={template}"]).data.template == template


@pytest.mark.parametrize("name", ["Comment #", "# replies", "a #b", "#"])
def test_a_column_on_the_command_line_may_have_a_hash_sign(name: str) -> None:
    data = override(Recipe(), [f"data.text={name}", f"data.label='{name}'"]).data
    assert (data.text, data.label) == ((name,), name)
    assert override(Recipe(), ["train.epochs=5 # as before"]).train.epochs == 5
    assert override(Recipe(), ["methods.mix.way=a #b"]).methods["mix"] == {"way": "a #b"}


@pytest.mark.parametrize("mark", ["|", ">", ";", " / "])
def test_what_stands_between_labels_is_what_was_typed(mark: str) -> None:
    found = override(Recipe(), [f"data.label_separator={mark}"]).data.label_separator
    assert found == mark.strip()


@pytest.mark.parametrize("value", ["5", "null", "[1]", "word"])
def test_what_a_method_cannot_be_set_to_is_named_in_the_users_words(value: str) -> None:
    with pytest.raises(RecipeError, match="neither true nor false") as raised:
        override(Recipe(), [f"methods.sam={value}"])
    assert "methods.sam: " in str(raised.value)
    assert "methods.sam=true" in raised.value.remedy


def test_a_key_of_a_section_that_may_be_left_out_is_known() -> None:
    made = override(Recipe(), ["data.synthesize.recombine=true", "data.synthesize.share=0.2"])
    assert made.data.synthesize is not None
    assert (made.data.synthesize.recombine, made.data.synthesize.share) == (True, 0.2)
    named = override(Recipe(), ["data.synthesize.templates=2024"]).data.synthesize
    assert named is not None
    assert named.templates == "2024"
    with pytest.raises(RecipeError, match="unknown key"):
        override(Recipe(), ["data.synthesize.recombined=true"])


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (["model.adapter.rank=16"], "lora"),
        (["model.adapter.dropout=0"], "lora"),
        (["model.adapter.targets=[q_proj]"], "lora"),
        (["model.adapter.rate_ratio=8"], "lora+"),
        (["model.quantize=4bit"], "lora"),
        (["model.quantize=8bit", "model.adapter.rate_ratio=8"], "lora+"),
        (["model.dtype=bfloat16"], "lora"),
        (["model.adapter.kind=dora", "model.adapter.rank=16"], "dora"),
        (["model.adapter.merge=false"], None),
        ([], None),
    ],
)
def test_a_setting_of_an_adapter_implies_one(settings: list[str], kind: str | None) -> None:
    recipe = override(Recipe(), settings)
    assert recipe.model.adapter.kind == kind
    # So does the recipe that a run writes.
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_no_adapter_has_no_settings() -> None:
    with pytest.raises(
        RecipeError, match=r"rank needs an adapter, but model\.adapter\.kind is none"
    ):
        override(Recipe(), ["model.adapter.kind=none", "model.adapter.rank=16"])
