"""The run folder: names, states, and whom it is kept from."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.contract.run_folder import claim_folder, default_folder, is_finished, need_run
from holdfast.core.errors import RunError


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("reviews.csv", "reviews-1"),
        ("/a/b/reviews.tsv.gz", "reviews-1"),
        ("r.jsonl", "r-1"),
        ("entities.conll", "entities-1"),
        ("entities.conll.gz", "entities-1"),
        ("imdb", "imdb-1"),
        ("org/set:config@train[:10%]", "set-config-1"),
        ("recipe.yaml", "recipe-1"),
        ("my rows.csv", "my-rows-1"),
        ("données.csv", "données-1"),
        (".csv", "run-1"),
    ],
)
def test_the_default_name(tmp_path: Path, source: str, name: str) -> None:
    assert default_folder(source, False, tmp_path) == tmp_path / name


def test_numbers_count_up_as_numbers(tmp_path: Path) -> None:
    for name in ("r-1", "r-2", "r-10", "r-x", "other-44"):
        (tmp_path / name).mkdir()
    assert default_folder("r.csv", False, tmp_path).name == "r-11"
    assert default_folder("r.csv", True, tmp_path).name == "r-10"
    assert default_folder("new.csv", True, tmp_path).name == "new-1"


def test_a_claimed_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with claim_folder(tmp_path / "runs" / "r-1", False):
        assert (tmp_path / "runs" / "r-1").is_dir()
    assert (tmp_path / "runs" / "r-1").is_dir()


def test_what_was_made_for_nothing_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="bad data"), claim_folder(tmp_path / "runs/a/b", False):
        raise ValueError("bad data")
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_holds_something_stays(tmp_path: Path) -> None:
    def begin() -> None:
        with claim_folder(tmp_path / "r", False):
            (tmp_path / "r" / "recipe.yaml").write_text("x")
            raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        begin()
    assert (tmp_path / "r" / "recipe.yaml").exists()


def test_an_empty_folder_of_the_user_s_stays_on_failure(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(ValueError, match="x"), claim_folder(tmp_path / "r", False):
        raise ValueError("x")
    assert (tmp_path / "r").is_dir()


@pytest.mark.parametrize("left", [".recipe.yaml.partial", "checkpoints"])
@pytest.mark.parametrize("resume", [True, False])
def test_what_a_kill_left_before_the_recipe_is_no_run(tmp_path, left: str, resume: bool) -> None:
    run = tmp_path / "r"
    run.mkdir()
    (run / left).mkdir() if left == "checkpoints" else (run / left).write_text("half")
    with claim_folder(run, resume):
        pass


def test_another_process_of_the_launch_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with claim_folder(tmp_path / "r", False):
        pass
    assert not (tmp_path / "r").exists()


def test_a_folder_that_is_no_run_is_not_to_be_continued(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run") as caught:
        need_run(tmp_path)
    assert "--resume" not in caught.value.remedy


def test_states_of_a_run(tmp_path: Path) -> None:
    for name in ("result.json", "report.html", "recipe.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunError, match="is not finished"):
        need_run(tmp_path)
    (tmp_path / "model").mkdir()
    need_run(tmp_path)
    assert is_finished(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert not is_finished(tmp_path)


def test_a_folder_that_is_not_there_is_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "reviews-1").mkdir()
    (tmp_path / "reviews-1" / "recipe.yaml").write_text("x")
    with (
        pytest.raises(RunError, match=r"Did you mean --out .*reviews-1\?"),
        claim_folder(tmp_path / "reveiws-1", True),
    ):
        pass
    with pytest.raises(RunError, match="To start a run"), claim_folder(tmp_path / "a" / "b", True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["reviews-1"]


def test_what_another_process_wrote_before_it_let_go_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended between our look at the folder and our lock."""
    import holdfast.contract.run_folder as folder

    held = folder.locked

    def late(run: Path) -> object:
        (run / "recipe.yaml").write_text("theirs")
        return held(run)

    monkeypatch.setattr(folder, "locked", late)
    with pytest.raises(RunError, match="is not empty"), claim_folder(tmp_path / "r", False):
        pass
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["recipe.yaml"]


def test_a_folder_whose_name_ends_in_no_number_is_passed_over(tmp_path: Path) -> None:
    """``"²".isdigit()``, and no number."""
    for name in ("t-²", "t-7", "t-x"):
        (tmp_path / name).mkdir()
    assert default_folder("t.csv", False, tmp_path) == tmp_path / "t-8"


def test_a_run_that_does_not_exist_is_told_by_its_neighbours(tmp_path: Path) -> None:
    for name in ("reviews-1", "chats-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    with pytest.raises(RunError, match=r"Did you mean .*reviews-1"):
        need_run(tmp_path / "review-1")
    with pytest.raises(RunError, match="Name the folder of a finished run"):
        need_run(tmp_path / "nowhere" / "review-1")
