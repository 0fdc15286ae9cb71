"""Recipes and settings of somebody who means no good, or typed in a hurry: exit 2 with the key, the
rule, the value and the remedy, in little time and memory."""

from __future__ import annotations

import contextlib
import math
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.core.errors import RecipeError
from holdfast.core.printable import bounded_repr
from holdfast.recipe import Recipe, override, read_recipe

ROWS = "text,label\n" + "\n".join(f"words {i},{'ab'[i % 2]}" for i in range(40)) + "\n"


def bomb() -> str:
    """Nine lists of nine of the one before: 9⁹ words in some 500 bytes."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    return "\n".join(lines)


FILES: dict[str, bytes] = {
    "deep lists": b"data: " + b"[" * 5000 + b"]" * 5000,
    "deep tables": b"data: " + b"{a: " * 5000 + b"}" * 5000,
    "deep lists left open": b"[" * 300_000,
    "deep by lines": b"".join(b" " * i + b"a:\n" for i in range(1000)),
    "deep JSON": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a bomb": bomb().encode(),
    "a bomb in a key that is known": b"x: &x [1,1,1,1,1,1,1,1,1,1]\n"
    + b"".join(
        b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % ((a + 1, a + 1) + (a,) * 9)
        for a in range(ord("x"), ord("x") + 1)
    )
    + bomb().replace("a8:", "methods:").encode(),
    "a bomb of merges": b"a: &a {k: v}\nb: &b {<<: [*a, *a, *a]}\n"
    + b"".join(
        b"c%d: &c%d {<<: [%s]}\n" % (i, i, b", ".join([b"*c%d" % (i - 1) if i else b"*b"] * 9))
        for i in range(8)
    ),
    "an alias of itself": b"data: &d\n  path: *d\n",
    "an alias of nothing": b"data: *nowhere\n",
    "a key twice": b"seed: 1\nseed: 2\n",
    "a key of a part twice": b"train: {epochs: 1, epochs: 9}\n",
    "an object": b"seed: !!python/object/apply:os.system [id]\n",
    "a name": b"seed: !!python/name:os.system\n",
    "bytes": b"data: {path: !!binary aGVsbG8=}\n",
    "a set": b"train: !!set {a, b}\n",
    "ordered pairs": b"train: !!omap [a: 1]\n",
    "a day": b"seed: 2024-01-31\n",
    "a tag of nobody": b"seed: !mine 3\n",
    "5,000 digits": b"seed: " + b"9" * 5000,
    "5,000 digits in quotes": b"seed: '" + b"9" * 5000 + b"'",
    "sixty to one": b"train: {epochs: 1:30}\n",
    "octal": b"train: {epochs: 010}\n",
    "a truth for a number": b"seed: true\n",
    "a truth for a fraction": b"train: {epochs: yes}\n",
    "a truth for a share": b"train: {warmup: true}\n",
    "a number for a truth": b"train: {pack: 1}\n",
    "a number for a word": b"data: {label: 3}\n",
    "a word for a number": b"train: {epochs: many}\n",
    "a list for a number": b"train: {epochs: [1]}\n",
    "a table for a word": b"data: {label: {a: b}}\n",
    "no part": b"train: null\n",
    "a list": b"- 1\n- 2\n",
    "a word": b"just words\n",
    "a number": b"42\n",
    "a key that is a list": b"? [a, b]\n: 1\n",
    "a key that is a number": b"1: 2\n",
    "a key that is nothing": b"~: 2\n",
    "a key with an escape": b'"\\e[2Jtrain": {epochs: 1}\n',
    "an empty key": b"'': 1\n",
    "a key of 100,000 characters": b"x" * 100_000 + b": 1\n",
    "5,000 unknown keys": b"".join(b"k%d: 1\n" % i for i in range(5_000)),
    "30,000 settings": b"methods: {" + b"".join(b"k%d: {}, " % i for i in range(30_000)) + b"}\n",
    "NUL": b'data: {path: "a\\0b.csv"}\n',
    "NUL in a folder's name": b'model: {name: "/a\\0b"}\n',
    "half a character": b'data: {path: "\\uD800.csv"}\n',
    "NUL as a byte": b"seed: 1\0\n",
    "UTF-16": "seed: 1\n".encode("utf-16"),
    "Latin-1": "data: {label: \xe9}\n".encode("latin-1"),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a tab": b"train:\n\tepochs: 1\n",
    "two documents": b"seed: 1\n---\nseed: 2\n",
    "a directive": b"%YAML 9.9\n---\nseed: 1\n",
    "too large": b"# " + b"x" * 1_100_000,
    "a path of 5,000 characters": b"data: {path: " + b"x" * 5000 + b".csv}\n",
    "methods that are not finite": b"methods: {contrast: {tau: .inf}}\n",
    "methods deep in lists": b"methods: {contrast: " + b"[" * 100 + b"]" * 100 + b"}\n",
}

NUMBERS = [
    "seed=-1",
    "seed=1.5",
    "seed=true",
    "seed=10**9",
    "seed=9223372036854775808",
    "seed=.inf",
    "seed=1e400",
    "train.epochs=0",
    "train.epochs=-3",
    "train.epochs=1e9",
    "train.epochs=.inf",
    "train.epochs=.nan",
    "train.epochs=-.inf",
    "train.epochs=inf",
    "train.epochs=true",
    "train.epochs=1:30",
    "train.epochs=010",
    "train.epochs=off",
    "train.epochs=null:",
    "train.learning_rate=.inf",
    "train.learning_rate=nan",
    "train.learning_rate=1e39",
    "train.learning_rate=-1e-4",
    "train.learning_rate=0x1p3",
    "train.batch_size=1000000000",
    "train.batch_size=-1",
    "train.batch_size=1.5",
    "train.batch_size=false",
    "train.max_steps=1e30",
    "train.max_minutes=.inf",
    "train.max_minutes=1e300",
    "train.accumulate=1000000000000",
    "train.weight_decay=.nan",
    "train.warmup=.nan",
    "train.warmup=1",
    "train.clip=.inf",
    "train.huber=.inf",
    "train.layer_decay=0",
    "train.patience=1000000000000000",
    "train.evaluations=1000000000",
    "train.pack=2",
    "train.label_smoothing=.nan",
    "model.max_length=1000000000000",
    "model.max_length=-8",
    "model.max_target_length=10000000000000",
    "model.dropout=.nan",
    "model.freeze=true",
    "model.freeze=.inf",
    "model.freeze=.nan",
    "model.adapter.rank=1000000000",
    "model.adapter.alpha=.inf",
    "model.adapter.dropout=.nan",
    "data.split.train=.nan",
    "data.split.test=true",
    "generate.rows=-1",
    "generate.beams=1000000000",
    "generate.max_new_tokens=1000000000000",
    "generate.code_seconds=.inf",
    "generate.code_memory_mb=1000000000000000",
    "control.worth=.nan",
    "control.chance=true",
    "methods.contrast.tau=.nan",
    "methods.contrast=2024-01-31x: [",
    "=5",
    "train.=5",
    ".=5",
    "a.b.c.d.e.f.g=1",
    "\x1b[2Jtrain.epochs=1",
    "train=5",
    "data=x",
    "train.epochs.x=1",
    "methods" + ".a" * 500 + "=1",
    "k" * 100_000 + "=1",
    "train.epochs=" + "9" * 5000,
    "train.epochs=" + "[" * 5000,
    "methods.x=" + "[" * 5000 + "]" * 5000,
    "methods.x=\ud800",
    "data.path=a\0b",
    "data.label=\udcff",
    "train.epochs",
    "",
]


@contextlib.contextmanager
def cheap(memory: bool = True) -> Iterator[None]:
    """What is done within it comes to its end, and takes little memory where that is asked."""
    if memory:
        tracemalloc.start()
    yield
    if memory:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(FILES[name])
    if name == "a path of 5,000 characters":
        assert read_recipe(path).data.path is not None  # whoever opens it refuses it
        return
    with cheap("bomb" in name or "deep" in name), pytest.raises(RecipeError) as caught:
        read_recipe(path)
    _is_good(str(caught.value))
    assert "r.yaml" in caught.value.what


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda text: ascii(text)[:40])
def test_a_setting_out_of_all_bounds_is_refused(setting: str) -> None:
    with cheap(len(setting) > 1000), pytest.raises(RecipeError) as caught:
        override(Recipe(), [setting])
    _is_good(str(caught.value))


def test_three_thousand_settings_are_read_once_each() -> None:
    settings = [f"train.epochs={i + 1}" for i in range(3_000)]
    with cheap(memory=False):
        assert override(Recipe(), settings).train.epochs == 3_000


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("data.label=2024", "label", "2024"),
        ("data.label=yes", "label", "yes"),
        ("data.label=2024-01-31", "label", "2024-01-31"),
        ("data.label=1:30", "label", "1:30"),
        ("data.group=null", "group", None),
        ("data.label=[a]", "label", "[a]"),
        ("data.text=[a, b]", "text", ("a", "b")),
        ("data.label='3'", "label", "3"),
        ("data.template={q} and {c}", "template", "{q} and {c}"),
        ("data.label=on", "label", "on"),
    ],
)
def test_words_stay_the_words_that_were_typed(setting: str, key: str, value: object) -> None:
    assert getattr(override(Recipe(), [setting]).data, key) == value


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("off", False), ("TRUE", True), ("'no'", False)]
)
def test_a_truth_may_be_said_in_words(text: str, value: bool) -> None:
    assert override(Recipe(), [f"train.pack={text}"]).train.pack is value


@pytest.mark.parametrize(
    "given",
    [
        {"train.epochs": math.nan},
        {"train.epochs": math.inf},
        {"train.epochs": np.float32("nan")},
        {"train.epochs": np.array([1.0, 2.0])},
        {"train.epochs": object()},
        {"train.epochs": 10**5000},
        {"train.epochs": True},
        {"train.epochs": np.bool_(True)},
        {"train.epochs": b"3"},
        {"train.epochs": {1, 2}},
        {"train.epochs": 1j},
        {"train.pack": 1},
        {"train.pack": np.int64(1)},
        {"data.label": None, "seed": None},
        {3: 4},
        {"": 1},
        {"methods.contrast": {"tau": object()}},
        {"methods.contrast.tau": math.inf},
        [3],
        [None],
        [("train.epochs", 3)],
        "train.epochs=3",
        {"train.epochs": lambda: 3},
    ],
    # An address differs between the workers, which must collect the same tests.
    ids=lambda given: re.sub(r" at 0x.*", "", bounded_repr(given, 40)),
)
def test_the_python_door_refuses_the_same(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        holdfast.train("rows.csv", settings=given, quiet=True)
    _is_good(str(caught.value))
    assert not (tmp_path / "runs").exists()


def test_a_nested_value_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RecipeError, match="a recipe cannot hold"):
        holdfast.train("rows.csv", settings={"methods.x": endless})


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_closed_recipe(tmp_path: Path, holdfast: Callable[..., Any]) -> None:
    (tmp_path / "r.yaml").write_text("seed: 1\n")
    (tmp_path / "r.yaml").chmod(0)
    assert holdfast("train", "r.yaml").code == 2


def test_what_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "gone.yaml").symlink_to("nowhere.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    names = [
        "folder.yaml",
        "pipe.yaml",
        "loop.yaml",
        "gone.yaml",
        "zero.yaml",
        "absent.yaml",
        "x" * 5000 + ".yaml",
        "folder.yaml/r.yaml",
        "a\0b.yaml",
        "\udcff.yaml",
    ]
    for name in names:
        done = holdfast("train", name, "--dry-run")
        assert done.code == 2, (name[:40], done.err)
        _is_good(done.err)


def test_a_recipe_that_names_itself_as_its_rows(
    tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    (tmp_path / "r.yaml").write_text("data: {path: ./r.yaml}\n")
    done = holdfast("train", "r.yaml", "--dry-run")
    assert done.code == 2, done.err
    assert "r.yaml" in done.err


def _is_good(told: str) -> None:
    """One block of few printable words, with a remedy."""
    assert len(told) < 5000
    assert "\x1b" not in told
    assert "\0" not in told
    assert "Traceback" not in told
    assert "a defect" not in told
