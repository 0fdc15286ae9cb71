"""``holdfast schema``: every document that a command prints has a JSON Schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from holdfast.cli.commands import Commands
from holdfast.cli.main import app
from holdfast.cli.schema import names, schema_of


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["schema", *arguments])


def test_every_command_with_json_has_a_document() -> None:
    commands = Commands()
    with_json = {
        name
        for name in commands
        if any("--json" in getattr(param, "opts", ()) for param in commands[name].params)
    }
    assert with_json <= {*names()}
    assert len(with_json) > 15
    listed = run().output
    assert all(f"  {name} " in listed for name in names())


@pytest.mark.parametrize("name", names())
def test_each_is_a_json_schema_with_its_required_fields(name: str) -> None:
    schema = json.loads(run(name).output)
    assert schema == schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    # An empty object is no document of any command.
    assert not jsonschema.Draft202012Validator(schema).is_valid({})
    assert schema["title"] == f"holdfast {name}"


def test_an_unknown_document_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run("compar")
    assert "is no document" in str(refused.exception)
    assert "Did you mean 'compare'?" in str(refused.exception)
