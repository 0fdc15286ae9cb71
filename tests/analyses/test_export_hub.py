"""The hub, but for its network: who may push, where, and what is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.plugins.export.export import Hub


class Fake:
    """What huggingface_hub's ``HfApi`` is asked, and what it was sent."""

    def __init__(self, who: str | None = "ada", there: dict[str, list[str]] | None = None) -> None:
        self.who, self.there = who, there or {}
        self.made: list[tuple[str, str, bool, str | None]] = []
        self.sent: dict[str, list[str]] = {}

    def whoami(self) -> dict[str, Any]:
        if self.who is None:
            raise OSError("Token is required")
        return {"name": self.who}

    def repo_exists(self, name: str, *, repo_type: str) -> bool:
        return f"{repo_type}:{name}" in self.there

    def list_repo_files(self, name: str, *, repo_type: str) -> list[str]:
        return self.there[f"{repo_type}:{name}"]

    def create_repo(
        self,
        name: str,
        *,
        repo_type: str,
        private: bool,
        exist_ok: bool,
        space_sdk: str | None = None,
    ) -> str:
        self.made.append((name, repo_type, private, space_sdk))
        return f"https://hub.example/{name}"

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: str,
        commit_message: str,
        ignore_patterns: list[str],
    ) -> None:
        if repo_id.endswith("/full"):
            raise OSError("413 too large")
        self.sent[repo_type] = sorted(path.name for path in Path(folder_path).iterdir())


def test_nobody_who_is_logged_in_is_told_how() -> None:
    with pytest.raises(RunError, match="nobody is logged in") as refused:
        Hub("ada/reviews", Fake(None)).login()
    assert "hf auth login" in refused.value.remedy


def test_a_name_alone_belongs_to_who_is_logged_in() -> None:
    assert Hub("reviews", Fake()).login() == "ada/reviews"
    assert Hub("team/reviews", Fake()).login() == "team/reviews"


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a b", "-x", "ada/re--views", "ada/"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="repository name"):
        Hub(name, Fake())


def test_a_repository_that_holds_something_is_never_overwritten() -> None:
    empty, full = [".gitattributes"], [".gitattributes", "model.onnx"]
    hub = Hub("ada/x", Fake(there={"model:ada/x": empty, "space:ada/x": full}))
    hub.check_free("ada/x", "model")
    hub.check_free("ada/new", "model")
    with pytest.raises(RunError, match="already has files"):
        hub.check_free("ada/x", "space")


def test_what_is_pushed_is_private_and_whole(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a card")
    fake = Fake()
    hub = Hub("ada/x", fake)
    assert hub.push(tmp_path, "ada/x", "space") == "https://hub.example/ada/x"
    assert fake.made == [("ada/x", "space", True, "docker")]
    assert fake.sent == {"space": ["README.md"]}


def test_a_push_that_breaks_off_says_what_is_whole(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="refused it: 413 too large") as broken:
        Hub("ada/full", Fake()).push(tmp_path, "ada/full", "model")
    assert "hf upload" in broken.value.remedy


def test_without_a_network_it_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MachineError, match="HF_HUB_OFFLINE forbids it"):
        Hub("ada/x")
