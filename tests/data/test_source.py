"""What a source names, and what is said when it names nothing."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import datasets
import pytest

from holdfast.core.errors import DataError
from holdfast.data.load import load_table
from holdfast.data.options import RowOptions
from holdfast.data.readers import hub
from holdfast.data.readers.hub import HubName, hub_error, parse_hub_name
from holdfast.data.source import read_source


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"(?s)does not exist.*Did you mean .*reviews\.csv"):
        read_source(str(tmp_path / "review.csv"), None, None)


def test_a_missing_conll_file_is_no_name_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "entities.conll").write_text("Anna\tB-PER\n")
    with pytest.raises(DataError, match=r"(?s)does not exist.*Did you mean .*entities\.conll"):
        read_source(str(tmp_path / "entitis.conll"), None, None)
    with pytest.raises(DataError, match="does not exist"):
        read_source("entitis.conll", None, None)


def test_a_conll_file_that_another_task_reads_names_the_task(tmp_path: Path) -> None:
    (tmp_path / "entities.conll").write_text("Anna\tB-PER\n")
    with pytest.raises(DataError, match="only token-classification") as caught:
        read_source(str(tmp_path / "entities.conll"), None, None)
    assert "--task token-classification" in caught.value.remedy


def test_a_missing_file_that_a_readme_names_is_to_be_brought(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("Put essays.csv into data/.\n")
    with pytest.raises(DataError) as caught:
        read_source(str(tmp_path / "data" / "essays.csv"), None, None)
    for part in ("Put essays.csv into", str(tmp_path / "data"), str(readme)):
        assert part in caught.value.remedy
    with pytest.raises(DataError, match="does not exist either"):
        read_source(str(tmp_path / "data" / "other.csv"), None, None)


def test_a_missing_file_is_not_taken_for_a_hub_name(tmp_path: Path) -> None:
    for source in ("no/such/folder.csv", "./reviews", "~/reviews", "reviews.csv.gz", "a b"):
        with pytest.raises(DataError, match="does not exist"):
            read_source(source, None, None)


@pytest.mark.parametrize(
    "name",
    ["a\0b.csv", "a\ud800.csv", 5000 * "a" + ".csv"],
    ids=["a NUL", "half a surrogate pair", "too long"],
)
def test_a_name_that_no_system_accepts_is_not_called_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a valid path|name too long") as caught:
        read_source(str(tmp_path / name), None, None)
    assert "Check the name" in caught.value.remedy


def test_a_link_to_itself_is_not_called_missing(tmp_path: Path) -> None:
    loop = tmp_path / "reviews.csv"
    loop.symlink_to(loop)
    with pytest.raises(DataError, match="cannot be accessed"):
        read_source(loop, None, None)


def test_an_unknown_ending_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "reviews.doc").write_text("x")
    with pytest.raises(DataError, match=r"(?s)\.doc.*\.csv.*\.parquet"):
        read_source(tmp_path / "reviews.doc", None, None)


def test_a_folder_is_refused_with_what_could_be_meant(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"(?s)no subfolder.*reviews\.csv"):
        read_source(tmp_path, None, None)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="folder of images"):
        read_source(tmp_path, None, None)


def test_hub_names_are_told_from_files() -> None:
    assert parse_hub_name("imdb") == HubName("imdb")
    assert parse_hub_name("a/b:c@train[:10%]") == HubName("a/b", "c", "train[:10%]")
    assert parse_hub_name("a/b/c") is None
    assert parse_hub_name("two words") is None


def test_without_a_network_a_hub_name_is_refused_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'imdb' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "get_dataset_split_names", offline)
    with pytest.raises(DataError, match="the hub cannot be reached"):
        load_table("imdb")


def test_a_hub_that_does_not_resolve_is_refused_without_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "_resolves", lambda host: False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def waits(*_: object, **__: object) -> None:
        raise AssertionError("it waits for a hub that has no address")

    monkeypatch.setattr(time, "sleep", waits)
    monkeypatch.setattr(socket.socket, "connect", waits)
    with pytest.raises(DataError, match="hub cannot be reached"):
        load_table("someone/never-cached@train")
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_gated_data_set_names_the_licence_and_the_token() -> None:
    error = datasets.exceptions.DatasetNotFoundError("Dataset 'x/y' is a gated dataset on the Hub.")
    message = str(hub_error(HubName("x/y"), error))
    assert "licence" in message
    assert "HF_TOKEN" in message


def test_a_hub_data_set_gives_its_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    texts = [f"sentence number {n}" for n in range(12)]
    rows = datasets.Dataset.from_dict(
        {"sentence": texts, "label": [0, 1, 1, -1] * 3}, features=features
    )
    asked: list[Any] = []

    def load(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return rows

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    table = load_table("glue:sst2")
    assert asked == [("glue", "sst2", "train")]
    assert table.classes == ("neg", "pos")
    assert table.column("label").tolist() == [0, 1, 1] * 3
    assert table.columns.text == ("sentence",)
    assert load_table("glue@test", RowOptions(config="cola")).source == "glue@test"
    assert asked[-1] == ("glue", "cola", "test")
