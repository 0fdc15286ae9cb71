"""The rows' language against the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.plan.language import language_findings

SPANISH = "El producto llegó tarde y la caja estaba rota, no lo recomiendo a nadie."
ESPERANTO = "La produkto alvenis malfrue kaj la skatolo estis rompita, mi ne rekomendas ĝin."
ENGLISH = "The product came late and its box was broken, so I would not recommend it to anybody."


@pytest.mark.parametrize(("text", "code"), [(SPANISH, "es"), (ESPERANTO, "eo"), (ENGLISH, None)])
def test_texts_in_a_language_that_the_model_was_not_made_for_are_warned_of(
    text: str, code: str | None
) -> None:
    found = language_findings("embedded", [text] * 20)
    assert bool(found) == (code is not None)
    if found:
        assert found[0].severity == "warn"
        assert f"its card lists en, but the rows are in {code}" in found[0].because


def test_a_model_that_names_no_language_or_many_is_left_alone(tmp_path: Path) -> None:
    from shutil import copytree

    from holdfast.models.loading.source import find_model

    model = tmp_path / "model"
    copytree(find_model("embedded").folder, model)
    for head in ("language: [en, es]", "language: multilingual", "license: mit"):
        (model / "README.md").write_text(f"---\n{head}\n---\n# A model\n", "utf-8")
        assert language_findings(str(model), [SPANISH] * 20) == ()
    (model / "README.md").unlink()
    assert language_findings(str(model), [SPANISH] * 20) == ()
