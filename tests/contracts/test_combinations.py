"""Whole runs of every kind with settings drawn at random, and commands on the finished run: each
ends, or is refused with a message. Every setting has a test of its own elsewhere; here it is that
they meet each other, the kinds of data and the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import SAMPLES

pytestmark = pytest.mark.slow

DRAWS = 3
# Values that are accepted somewhere; a kind that has no use for one refuses it.
VALUES: Mapping[str, Sequence[object]] = {
    "audit.rows": (0, 50),
    "audit.tuned": ("true",),
    "control.chance": (0, 1),
    "control.policy": ("off", "stop", "adapt"),
    "control.worth": (0, 0.2),
    "data.rare_classes": ("drop", "merge"),
    "data.split.by": ("rows", "topic"),
    "data.split.test": (0, 0.3),
    "generate.beams": (2,),
    "generate.max_new_tokens": (1, 6),
    "generate.rows": (0, 3),
    "generate.watch": ("true",),
    "model.adapter.kind": ("lora", "rslora", "dora", "lora+", "ia3", "prompt", "none"),
    "model.adapter.merge": ("true", "false"),
    "model.dropout": (0, 0.3),
    "model.freeze": (1, "all", "words", "none", 0.5),
    "model.layers": (1,),
    "model.pooling": ("mean", "own"),
    "probes.canaries": (0, 2),
    "probes.shots": (0, 2),
    "probes.skip": ("all", "forgetting", "memorization", "slices", "[errors, reasons]"),
    "seed": (1, 7),
    "train.accumulate": (2, 3),
    "train.batch_size": (1, 4, 16),
    "train.cache_frozen": ("on", "off"),
    "train.checkpoint_activations": ("true",),
    "train.chunk_loss": ("on", "off"),
    "train.clip": (0.5,),
    "train.evaluations": (1, 20),
    "train.folds": (0, 2, 3),
    "train.head": ("both", "logistic", "discriminant"),
    "train.keep": ("newest_unless_worse", "lowest", "last"),
    "train.label_smoothing": (0.1,),
    "train.layer_decay": (0.8,),
    "train.learning_rate": (1e-5, 1e-2, 10),
    "train.max_minutes": (0.05,),
    "train.metric": ("accuracy", "f1_macro", "loss"),
    "train.optimizer": ("adam", "adamw", "rmsprop", "sgd"),
    "train.pack": ("true",),
    "train.patience": (1, 3),
    "train.precision": ("float32", "bfloat16"),
    "train.schedule": ("constant", "cosine", "linear"),
    "train.warmup": (0, 0.5),
    "train.weight_decay": (0, 0.1),
    "clean.markup": ("true",),
    **{
        f"methods.{name}": ("true",)
        for name in (
            *("contrast", "ema", "focal", "l2_sp", "label_weights", "mixup", "neftune", "rdrop"),
            *("refit_head", "sam", "soup", "swa", "unfreeze", "wise", "word_dropout"),
        )
    },
    **{f"augment.{name}": ("true",) for name in ("aeda", "delete", "eda", "mixup", "swap")},
}
AFTER = (
    ("predict", "RUN", "DATA", "--quiet"),
    ("evaluate", "RUN", "DATA"),
    ("report", "RUN"),
    ("errors", "RUN"),
    ("fairness", "RUN"),
    ("threshold", "RUN", "--coverage", "0.5"),
    ("compare", "RUN", "RUN", "DATA"),
    ("drift", "RUN", "DATA"),
    ("diagnose", "RUN"),
    ("probe", "RUN"),
)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., int]:
    """Run the console script's function; its exit code, 0 to 3."""

    def run(*arguments: object) -> int:
        from holdfast.cli.main import run as main

        monkeypatch.setattr(sys, "argv", ["holdfast", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr().err
        assert "a bug in Holdfast" not in said, (arguments, said)
        assert code in (0, 2, 3), (arguments, said)
        if code == 2:
            assert "holdfast: " in said
        return int(code)

    return run


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("draw", range(DRAWS))
@pytest.mark.parametrize("name", SAMPLES)
def test_a_run_with_settings_drawn_at_random_ends_or_is_refused(
    name: str,
    draw: int,
    tmp_path: Path,
    whole_source: Callable[[str], list[str]],
    command: Callable[..., int],
) -> None:
    rng = np.random.default_rng([draw, *map(ord, name)])
    chosen = rng.choice(list(VALUES), size=3, replace=False)
    drawn = [f"{key}={rng.choice([str(value) for value in VALUES[key]])}" for key in chosen]
    # A policy, a second phase or an average acts only in a longer run.
    steps = 40 if draw == 1 else 4
    settings = [*whole_source(name), "train.threads=1", f"train.max_steps={steps}", *drawn]
    data = next(one.partition("=")[2] for one in settings if one.startswith("data.path="))
    if draw == DRAWS - 1 and data.endswith(".jsonl"):
        # Rows with the same text count as one in every interval.
        Path(data).write_text(Path(data).read_text("utf-8") * 2, "utf-8")
    others = [one for one in settings if not one.startswith("data.path=")]
    run = tmp_path / "run"
    options = [part for setting in others for part in ("--set", setting)]
    # A refused draw would test little: without its last settings, until it is accepted.
    while command("train", data, "--out", run, *options):
        assert len(options) > 2 * (len(settings) - len(drawn) - 1), "refused without any of them"
        options = options[:-2]
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert result["test"]["n"] or "data.split.test=0" in options
    assert (run / "report.html").stat().st_size > 10_000
    for place in rng.choice(len(AFTER), size=2, replace=False):
        command(*({"RUN": run, "DATA": data}.get(one, one) for one in AFTER[place]))
