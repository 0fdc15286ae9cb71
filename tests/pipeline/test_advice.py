"""Advice on options becomes advice on parameters."""

from __future__ import annotations

import pytest

from holdfast.contract.advice import parameters

TABLE = {
    "Choose different columns with --text and --label.": (
        "Choose different columns with text=… and label=…."
    ),
    "--text PROMPT --label ANSWER; or --text COLUMN for plain text.": (
        'text="PROMPT" label="ANSWER"; or text="COLUMN" for plain text.'
    ),
    "E.g. --set generate.execute=sql --set generate.table=COLUMN.": (
        'E.g. settings={"generate.execute": "sql", "generate.table": "COLUMN"}.'
    ),
    "freeze the first layers (--set model.freeze=0.75), or": (
        'freeze the first layers (settings={"model.freeze": 0.75}), or'
    ),
    "Use --set model.adapter.merge=true, or": 'Use settings={"model.adapter.merge": True}, or',
    "say: --set data.label_separator='|'.": 'say: settings={"data.label_separator": "|"}.',
    "If it is right: --set data.limits.cell_mb=…": (
        'If it is right: settings={"data.limits.cell_mb": …}'
    ),
    "Did you mean --out runs/a-1? Leave --resume out.": (
        'Did you mean out="runs/a-1"? Leave resume=True out.'
    ),
    "go on with `holdfast train … --resume`. It needs another --out.": (
        "go on with `holdfast train … --resume`. It needs another out=…."
    ),
    "name it: holdfast diagnose LOG --set valid=COL": (
        "name it: holdfast diagnose LOG --set valid=COL"
    ),
    "Name a series, e.g. --set valid=valid_loss, to judge it": (
        'Name a series, e.g. valid="valid_loss", to judge it'
    ),
    "Continue it with the same command and --resume.": (
        "Continue it with the same call and resume=True."
    ),
    "Use --to static.": 'Use to="static".',
    "Choose --folds of at most 5, or --minutes and --trials.": (
        "Choose folds=… of at most 5, or minutes=… and trials=…."
    ),
    "use --model embedded.": 'use model="embedded".',
    "Use --task image-classification, or": 'Use task="image-classification", or',
    "add --group author.": 'add group="author".',
    "Nothing about options here.": "Nothing about options here.",
}


@pytest.mark.parametrize(("command", "python"), TABLE.items())
def test_an_option_is_a_parameter(command: str, python: str) -> None:
    assert parameters(command) == python
