"""README.md and docs/ do what they say: their snippets are run in order, page by page."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.resources
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "pages.py"
    spec = importlib.util.spec_from_file_location("holdfast_pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pages = load()
RUN = ("shell", "python", "yaml", "setup")
# What stands in the user's folder on each page beside `reviews.csv`: the columns of that file.
COLUMNS = {"tasks.md": ("review", "stars", "author")}
# The page that is run with the embedded model itself, which takes a quarter of a minute.
REAL = ("python.md",)
RUNS = [
    page
    for page in pages.PAGES
    if any(s.kind in RUN and not s.reason and not s.elsewhere for s in pages.snippets(page))
]


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str]]:
    """First words of the descriptions of packages, class, and the source that they are built from;
    few words, so that a training with every setting left out takes seconds."""
    packed = importlib.resources.files("holdfast") / "demo" / "packages.csv.gz"
    text = gzip.decompress(packed.read_bytes()).decode("utf-8")
    found: dict[str, list[tuple[str, str, str]]] = {"games": [], "mail": []}
    for row in csv.DictReader(text.splitlines(keepends=True)):
        if row["section"] in found and len(found[row["section"]]) < 50:
            line = (" ".join(row["text"].split())[:40], row["section"], row["source"])
            found[row["section"]].append(line)
    return [row for pair in zip(*found.values(), strict=True) for row in pair]


@pytest.fixture
def folder(request: Any, tmp_path: Path, rows: list[tuple[str, str, str]], write_csv: Any) -> Path:
    """The user's folder: his file, later rows of the same kind, new texts and somebody's log."""
    header = COLUMNS.get(request.param.name, ("text", "label", "source"))
    write_csv(tmp_path / "reviews.csv", rows[:80], header)
    write_csv(tmp_path / "later.csv", rows[80:], header)
    write_csv(
        tmp_path / "new.csv", [(i, row[0]) for i, row in enumerate(rows[80:])], ("id", "text")
    )
    history = [{"loss": 2.0 / (e + 1), "epoch": e, "step": 10 * e} for e in range(1, 13)]
    history += [
        {"eval_loss": 0.9 - 0.1 * min(e, 4) + 0.08 * max(0, e - 4), "epoch": e, "step": 10 * e}
        for e in range(1, 13)
    ]
    state = {"log_history": history, "global_step": 120, "epoch": 12.0}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state), "utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the embedded one's tokenizer and architecture, two narrow blocks
    drawn at random: what a page shows does not depend on what the model knows."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, BertModel
    from transformers.utils import logging

    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.loading.packaged import packaged_folder

    real, folder = packaged_folder(EMBEDDED), tmp_path_factory.mktemp("embedded") / "model"
    small = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = AutoConfig.from_pretrained(real, **small)
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    logging.enable_progress_bar()
    AutoTokenizer.from_pretrained(real).save_pretrained(folder)
    return folder


@pytest.fixture
def embedded(page: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On every page but one the stand-in comes along in the embedded model's place."""
    from holdfast.core.packaged_models import EMBEDDED, PACKAGED_MODELS
    from holdfast.models.loading import packaged

    if page.name in REAL:
        yield
        return
    minilm = PACKAGED_MODELS[EMBEDDED]
    file = stand_in / minilm.file
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(packaged, "_installed_file", lambda *_: file)
    monkeypatch.setitem(PACKAGED_MODELS, EMBEDDED, replace(minilm, sha256=digest))
    packaged.packaged_folder.cache_clear()
    yield
    monkeypatch.undo()
    packaged.packaged_folder.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("embedded")
@pytest.mark.timeout(900)  # seconds of one core for each page; minutes where others have the cores
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # pages for people: `open` without `with`
@pytest.mark.parametrize(
    ("page", "folder"),
    [(page, page) for page in RUNS],
    indirect=["folder"],
    ids=[page.name for page in RUNS],
)
def test_a_page_runs_from_top_to_bottom(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    done = list(pages.run_page(page, folder, monkeypatch))
    assert done
    if page.name == "tutorial.md":
        assert (folder / "runs" / "first" / "report.html").is_file()
        assert (folder / "runs" / "second" / "result.json").is_file()


def test_the_pages_that_matter_are_run() -> None:
    assert {"README.md", "tutorial.md", "python.md", "guard.md"} <= {page.name for page in RUNS}
