"""The demo's data has what real data has, and stays small."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture(scope="module")
def rows(source: Path) -> list[dict[str, str]]:
    text = gzip.decompress((source / "demo" / "packages.csv.gz").read_bytes()).decode("utf-8")
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def maker(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("maker", root / "scripts" / "make_demo_data.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_demo_is_under_two_megabytes(source: Path) -> None:
    assert sum(path.stat().st_size for path in (source / "demo").iterdir()) < 2_000_000


def test_every_row_has_a_text_a_section_and_a_source(rows: list[dict[str, str]]) -> None:
    assert set(rows[0]) == {"package", "source", "section", "text"}
    assert all(all(value.strip() for value in row.values()) for row in rows)


def test_a_few_thousand_rows_in_skewed_classes(rows: list[dict[str, str]]) -> None:
    sizes = Counter(row["section"] for row in rows)
    assert 2_000 <= len(rows) <= 5_000
    assert 8 <= len(sizes) <= 12
    assert min(sizes.values()) >= 40
    assert max(sizes.values()) >= 5 * min(sizes.values())


def test_siblings_share_a_source(rows: list[dict[str, str]]) -> None:
    per_source = Counter(row["source"] for row in rows)
    assert sum(count for count in per_source.values() if count > 1) >= len(rows) // 4


def test_some_siblings_carry_different_labels(rows: list[dict[str, str]]) -> None:
    sections: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        sections[row["source"]].add(row["section"])
    assert sum(len(labels) > 1 for labels in sections.values()) >= 20


def test_the_recipe_names_columns_that_exist(rows: list[dict[str, str]], source: Path) -> None:
    recipe = yaml.safe_load((source / "demo" / "recipe.yaml").read_text("utf-8"))
    assert (source / "demo" / recipe["data"]["path"]).is_file()
    assert {recipe["data"][key] for key in ("text", "label", "group")} <= set(rows[0])


def test_the_maker_writes_the_same_bytes_twice(maker: ModuleType, tmp_path: Path) -> None:
    rows = [("a", "a", "games", 'A "game",\nwith dice'), ("b", "a", "doc", "Its manual")]
    files = [tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"]
    for file in files:
        maker.write(rows, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(list(csv.reader(io.StringIO(gzip.decompress(files[0].read_bytes()).decode())))) == 3


def test_the_maker_reads_control_files(maker: ModuleType) -> None:
    text = "Package: a\nDescription-en: short\n long\n .\n more\n\nPackage: b\nSource: c (1.0)\n"
    first, second = maker.stanzas(text)
    assert maker.plain(first["Description-en"]) == "short\nlong\n\nmore"
    assert second["Source"].split(" ")[0] == "c"


def test_the_maker_keeps_whole_sources_and_manuals_only_beside_a_program(maker: ModuleType) -> None:
    rows = [("a", "s", "games", "x"), ("a-doc", "s", "doc", "x"), ("b-doc", "t", "doc", "y")]
    assert maker.sample(iter(rows), 1) == rows[:2]
