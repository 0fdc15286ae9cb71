"""What ``holdfast serve --set`` may be told stands in its page of docs, each with its default."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from holdfast.plugins.service.settings import PREFIX, Serving, known_settings

PAGE = Path(__file__).parents[2] / "docs/serve.md"


def test_the_page_names_every_setting_with_its_default() -> None:
    cells = re.findall(
        r"`([a-z_.…]+)(?:=([^`]*))?`", PAGE.read_text("utf-8").partition("| `--set")[2]
    )
    told = dict(cells)
    names = {one.removeprefix(PREFIX).split(".")[0] for one in known_settings()}
    assert names <= {name.split(".")[0] for name in told}
    plain = Serving().model_dump()
    wrong = {
        name: text
        for name, text in cells
        if text and name in plain and yaml.safe_load(text) != plain[name]
    }
    assert not wrong
