"""Every recipe: its keys exist, and its first steps run on its task's real rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from holdfast.recipe import Recipe, read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
QUICK = {
    "max_steps": 2,
    "threads": 1,
    "precision": "float32",
    "matmul": "default",
    "evaluations": 1,
}


def small(recipe: Recipe, data: dict[str, str], model: Path) -> Recipe:
    """The recipe with other rows and another model, two steps long; the rest is its own."""
    texts = {"rows": 2, "max_new_tokens": 4}
    return recipe.with_changes(
        data=data, model={"name": str(model)}, train=QUICK, generate=texts
    ).model_copy(update={"methods": {"contrast": False}})


def texts_in(path: str) -> Iterable[str]:
    if not Path(path).is_file():
        return []
    rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    return [str(value) for row in rows for value in row.values()]


def test_a_recipe_holds_only_keys_that_exist(recipe_file: Path) -> None:
    recipe = read_recipe(recipe_file)
    assert recipe.data.path
    assert recipe.model.name != "embedded"


def test_a_recipe_says_what_it_needs(recipe_file: Path) -> None:
    head = recipe_file.read_text("utf-8").partition("\ntask:")[0]
    assert "of GPU memory" in head
    assert "estimates" in head
    assert f"recipes/{recipe_file.name}" in head


def test_a_rate_or_a_length_out_of_the_usual_region_has_its_reason_beside_it(
    recipe_file: Path,
) -> None:
    """A comment right above the line; usual are 1e-5 to 5e-5, and 3 to 10 epochs."""
    train, lines = read_recipe(recipe_file).train, recipe_file.read_text("utf-8").splitlines()
    for key, low, high in (("learning_rate", 1e-5, 5e-5), ("epochs", 3, 10)):
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"  {key}:")]
        unusual = not low <= getattr(train, key) <= high
        assert lines[at - 1].lstrip().startswith("#") == unusual, key


BROUGHT = [p.name for p in sorted(RECIPES.glob("*.yaml")) if "./data/" in p.read_text("utf-8")]


@pytest.mark.parametrize("recipe_name", BROUGHT)
def test_rows_that_must_be_brought_are_asked_for_with_file_folder_and_readme(
    recipe_name: str, tmp_path: Path
) -> None:
    import shutil

    from holdfast.core.errors import DataError
    from holdfast.pipeline.main import train

    for name in (recipe_name, "README.md"):
        shutil.copy(RECIPES / name, tmp_path / name)
    recipe = read_recipe(tmp_path / recipe_name)
    with pytest.raises(DataError) as caught:
        train(recipe, tmp_path / "run")
    missing = Path(str(recipe.data.path))
    assert missing.parent == tmp_path / "data"
    for part in (missing.name, str(missing.parent), str(tmp_path / "README.md")):
        assert part in caught.value.remedy


def test_the_list_names_every_recipe(recipe_file: Path) -> None:
    assert f"`{recipe_file.name}`" in (recipe_file.parent / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_the_first_steps_run(
    recipe_file: Path,
    real_rows: Callable[[str], dict[str, str]],
    tmp_path: Path,
    tiny_of: Callable[[str, Iterable[str]], Path],
) -> None:
    from holdfast.pipeline.main import train

    recipe = read_recipe(recipe_file)
    if recipe.model.adapter.kind:
        pytest.importorskip("peft")
    if recipe.task == "image-classification":
        pytest.importorskip("PIL")
    data = dict(real_rows(recipe_file.stem.partition("-")[0]))
    rendered = data.pop("rendered", None)
    if rendered and recipe.data.text:
        data["path"] = rendered
    model = tiny_of(recipe.model.name, texts_in(data["path"]))
    result = train(small(recipe, data, model), tmp_path / "run")
    check(result, recipe)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"), [("ai-text-bert", "held_out"), ("summaries-flan-t5-base", "dialogsum")]
)
def test_other_test_rows_can_be_given(
    name: str,
    rows: str,
    real_rows: Callable[[str], dict[str, str]],
    tmp_path: Path,
    tiny_of: Callable[[str, Iterable[str]], Path],
) -> None:
    """A generator that was never learned from; dialogues of another collection."""
    from holdfast.pipeline.main import train

    recipe = read_recipe(RECIPES / f"{name}.yaml")
    data = real_rows(rows)
    model = tiny_of(recipe.model.name, texts_in(data["path"]))
    result = train(small(recipe, data, model), tmp_path / "run")
    assert result["test"]["n"] == len(Path(data["test"]).read_text("utf-8").splitlines())


def check(result: dict[str, Any], recipe: Recipe) -> None:
    """Two steps were taken, with the recipe's own settings, and test rows were scored."""
    settings = result["settings"]
    assert result["last_step"] == 2
    assert result["test"]["metrics"]["loss"]["low"] is not None
    assert result["baseline"]["what"]
    for part in ("model", "train", "generate"):
        for key, value in getattr(recipe, part).model_dump(exclude_defaults=True).items():
            if key in QUICK or key in ("name", "rows", "max_new_tokens"):
                continue
            found = settings[part][key]
            given = {k: v for k, v in value.items() if v} if isinstance(value, dict) else value
            kept = {k: found[k] for k in given} if isinstance(given, dict) else found
            assert kept == given, f"{part}.{key}"
    if recipe.data.group:
        assert result["settings"]["data"]["group"] == recipe.data.group


@pytest.mark.slow
def test_the_four_ai_text_recipes_are_averaged(
    real_rows: Callable[[str], dict[str, str]],
    tmp_path: Path,
    tiny_of: Callable[[str, Iterable[str]], Path],
) -> None:
    """Four architectures with tokenizers of their own: the mean of what plain Transformers gives
    for each. (Quick: tests/journeys/test_use_run.py, with two runs of one architecture.)"""
    import numpy as np
    import torch
    import transformers
    from tests.predicted import predict_lines

    from holdfast.pipeline.main import train

    data = real_rows("ai")
    runs = [tmp_path / path.stem for path in sorted(RECIPES.glob("ai-text-*.yaml"))]
    assert len(runs) == 4
    for run in runs:
        recipe = read_recipe(RECIPES / f"{run.name}.yaml")
        train(small(recipe, data, tiny_of(recipe.model.name, texts_in(data["path"]))), run)
    texts = [json.loads(line)["text"] for line in Path(data["path"]).read_text().splitlines()[:6]]
    means = []
    for run in runs:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(run / "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
        inputs = tokenizer(
            texts, padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        taken = {k: v for k, v in inputs.items() if k != "token_type_ids"}
        with torch.no_grad():
            means.append(model.eval()(**taken).logits.softmax(-1).numpy())
    want = np.mean(means, axis=0)
    lines = [json.loads(line) for line in predict_lines(runs, texts)]
    assert [line["prediction"] for line in lines] == [
        ("ai", "human")[k] for k in want.argmax(axis=1)
    ]
    assert [line["confidence"] for line in lines] == pytest.approx(want.max(axis=1), abs=1e-5)
