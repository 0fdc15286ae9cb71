"""A metric of written texts decides which state is kept; what is written stands at each look."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.analyses.evaluation import evaluate
from holdfast.core.decisions import decisions_to
from holdfast.core.errors import InputError, RunError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

NAMES = ["ann", "bob", "cid", "dee", "eve", "fay"]
COLUMNS = ["player", "points"]
SHARES = {
    "n",
    "training_answer",
    "wrong_training_answer",
    "source_copied",
    "repetition",
    "empty",
    "collapsed",
}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 questions with their query and a table of their own."""
    rng, lines = np.random.default_rng(0), []
    for i in range(90):
        wanted, who = COLUMNS[rng.integers(2)], NAMES[rng.integers(6)]
        rows = [{"player": name, "points": int(rng.integers(20))} for name in NAMES]
        lines.append(
            {
                "question": f"{wanted} of {who} in match {i} ?",
                "sql": f"SELECT {wanted} FROM t WHERE player = '{who}' LIMIT {i + 1}",
                "table": rows,
            }
        )
    path = tmp_path_factory.mktemp("rows") / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory, questions: Path) -> Path:
    """A T5 of two layers, drawn at random, with a tokenizer of words and signs."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    inner.train_from_iterator(
        questions.read_text().splitlines(),
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    from tokenizers import decoders

    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("model") / "t5"
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=1,
                num_heads=4,
                pad_token_id=0,
                eos_token_id=1,
                decoder_start_token_id=0,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(questions: Path, t5: Path) -> list[str]:
    return [
        "task=seq2seq",
        f"data.path={questions}",
        f"model.name={t5}",
        "train.max_steps=4",
        "train.epochs=30",
        "train.learning_rate=1e-2",
        "train.precision=float32",
        "train.threads=1",
        "train.evaluations=2",
        "generate.rows=4",
        "data.text=question",
        "generate.max_new_tokens=10",
        "train.batch_size=16",
        "data.target=sql",
    ]


def run(settings: list[str], folder: Path, *more: str, **named: Any) -> dict[str, Any]:
    return train(override(Recipe(), [*settings, *more]), folder, **named)


def looks_of(folder: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == "snapshot"]


@pytest.mark.slow
def test_execution_accuracy_decides_and_stands_at_every_look(
    settings: list[str], tmp_path: Path
) -> None:
    result = run(
        settings,
        tmp_path / "run",
        "train.metric=execution_accuracy",
        "generate.execute=sql",
        "generate.table=table",
        "generate.execute_unsafe=true",
    )
    looks = looks_of(tmp_path / "run")
    for look in looks:
        assert set(look["outputs"]) == {"train", "valid"}
        for side in ("train", "valid"):
            assert set(look["outputs"][side]) == SHARES
            assert look["outputs"][side]["n"] == 4
            assert 0 <= look[f"{side}_metrics"]["execution_accuracy"] <= 1
    best = min(
        looks, key=lambda look: (-look["valid_metrics"]["execution_accuracy"], look["refined_loss"])
    )
    assert result["best_step"] == best["step"]
    found = result["test"]["metrics"]["execution_accuracy"]
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert "execution_accuracy" in result["baseline"]["test"]["metrics"]
    told = {d["what"]: d for d in result["decisions"]}
    assert "network" in told["generated code"]["because"]
    assert "of the training's work" in told["generated texts at evaluations"]["because"]
    scored = [line["step"] for line in looks]
    assert scored == sorted(scored)


@pytest.mark.slow
def test_the_number_of_a_look_is_that_of_the_texts_it_wrote(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against rouge-score alone, of the texts that the watched model wrote."""
    from rouge_score.rouge_scorer import RougeScorer

    import holdfast.tasks.generation.samples as watching
    from holdfast.metrics import TextMetric, Texts

    seen: list[Texts] = []

    def keep(metric: TextMetric, sample: Any, texts: list[str]) -> dict[str, float]:
        seen.append(Texts(sample.references, texts, sample.sources))
        return {metric.name: metric.compute(seen[-1]) or 0.0}

    monkeypatch.setattr(watching, "_measured", keep)
    run(
        settings,
        tmp_path / "run",
        "train.metric=rouge_l",
        "train.max_steps=4",
        "train.learning_rate=0.02",
    )
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    looks = looks_of(tmp_path / "run")
    assert len(seen) == 2 * len(looks)
    for made, (look, side) in zip(
        seen, [(k, s) for k in looks for s in ("train", "valid")], strict=True
    ):
        own = [
            scorer.score(a, b)["rougeL"].fmeasure
            for a, b in zip(made.references, made.texts, strict=True)
        ]
        assert look[f"{side}_metrics"]["rouge_l"] == pytest.approx(np.mean(own))
    assert seen[0].sources == seen[2].sources, "the rows are the same at each look"


@pytest.mark.slow
def test_a_users_metric_of_texts_decides_and_is_scored(settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def longer(references, texts, sources):\n"
        "    assert len(references) == len(texts) == len(sources)\n"
        "    return sum(map(len, texts)) / len(texts)\n"
        "longer.higher_is_better = True\nlonger.low = 0.0\n"
    )
    result = run(settings, tmp_path / "run", f"train.metric={tmp_path}/mine.py:longer")
    looks = looks_of(tmp_path / "run")
    assert max(look["valid_metrics"]["longer"] for look in looks) == pytest.approx(
        next(
            look["valid_metrics"]["longer"] for look in looks if look["step"] == result["best_step"]
        )
    )
    assert result["test"]["metrics"]["longer"]["value"] >= 0


@pytest.mark.slow
def test_evaluate_runs_no_metric_of_a_sent_folder_and_tells_another(
    settings: list[str], questions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run(settings, folder)
    told = json.loads((folder / "result.json").read_text())
    del told["seal"]
    (folder / "result.json").write_text(json.dumps(told))
    recipe = (folder / "recipe.yaml").read_text()

    def judged_by(path: Path) -> list[Any]:
        path.write_text(
            f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
            "share = lambda *_: 1.0\n"
            "share.higher_is_better = True\n"
        )
        named = re.sub(r"( metric:) .*", rf"\1 {path}:share", recipe)
        (folder / "recipe.yaml").write_text(named)
        heard: list[Any] = []
        with decisions_to(heard.append):
            evaluate(folder, str(questions))
        return heard

    with pytest.raises(RunError, match=r"mine\.py.*came with the run's folder"):
        judged_by(folder / "mine.py")
    assert not (tmp_path / "ran").exists()
    assert any("with your permissions" in str(one) for one in judged_by(tmp_path / "mine.py"))
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_texts_are_watched_without_being_chosen_by_and_change_nothing(
    settings: list[str], tmp_path: Path
) -> None:
    run(settings, tmp_path / "watched", "generate.watch=true")
    run(settings, tmp_path / "plain")
    for look in looks_of(tmp_path / "watched"):
        assert set(look["outputs"]["valid"]) == SHARES
        assert set(look["valid_metrics"]) == {"token_loss", "perplexity", "token_accuracy"}
    assert all("outputs" not in look for look in looks_of(tmp_path / "plain"))
    weights = [
        (tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("watched", "plain")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(
    settings: list[str], tmp_path: Path, killed: type[BaseException]
) -> None:
    class Kill:
        name = "kill"

        def gradients_ready(self, state: Any) -> None:
            if state.step == 3:
                raise killed

    more = ("train.metric=bleu",)
    run(settings, tmp_path / "whole", *more)
    with pytest.raises(killed):
        run(settings, tmp_path / "run", *more, listeners=[Kill()], checkpoint_every_s=0.0)
    run(settings, tmp_path / "run", *more, resume=True)
    for name in ("whole", "run"):
        for look in (looks := looks_of(tmp_path / name)):
            look.pop("seconds")
        (tmp_path / f"{name}.json").write_text(json.dumps(looks))
    assert (tmp_path / "whole.json").read_text() == (tmp_path / "run.json").read_text()
    weights = [
        (tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("whole", "run")
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["train.metric=rouge_l", "generate.rows=0"], "generate.rows"),
        (["train.metric=execution_accuracy"], "generate.execute"),
        (["generate.execute=sql"], "generate.table"),
        (["generate.execute=sql", "generate.table=tabel", "generate.execute_unsafe=true"], "tabel"),
        (["train.metric=rougel"], "rouge_l"),
        (["train.metric=accuracy"], "token_accuracy"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: list[str], tmp_path: Path, more: list[str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        run(settings, tmp_path / "run", *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_decoder_is_watched_alike(
    questions: Path, tiny_llama: Path, tmp_path: Path, holdfast: Callable[..., Any]
) -> None:
    """By the command line, with the pair read as prompt and answer."""
    sets = [
        part
        for setting in (
            "train.max_steps=2",
            "train.threads=1",
            "train.precision=float32",
            "train.batch_size=4",
            "generate.rows=2",
            "generate.max_new_tokens=6",
            "train.metric=execution_accuracy",
            "generate.execute=sql",
            "generate.table=table",
            "train.evaluations=1",
            "generate.execute_unsafe=true",
        )
        for part in ("--set", setting)
    ]
    done = holdfast("train", questions, "--model", tiny_llama, *sets, "--out", "run", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["task"] == "causal-lm"
    assert result["generations"]["scores"]["test"]["execution_accuracy"]["value"] == 0
    assert all(set(look["outputs"]) == {"train", "valid"} for look in looks_of(tmp_path / "run"))
