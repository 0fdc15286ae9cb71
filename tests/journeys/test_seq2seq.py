"""Sequence-to-sequence from the command line to a whole run folder, and back to life."""

from __future__ import annotations

import gzip
import importlib.util
import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

NAMES = ["ann", "bob", "cid", "dee", "eve", "fay", "gus", "hal"]
THINGS = ["tea", "bread", "apples", "milk", "soup", "cake", "rice", "eggs"]
FILLERS = ["hello", "well", "now", "then", "maybe", "so", "today", "please", "yes", "no"]
WORDS = [*NAMES, *THINGS, *FILLERS, "wants", ":", "I", "want", "some"]
SPECIAL = ["<pad>", "</s>", "<unk>"]


def load(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"holdfast_tests_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def words(texts: list[str]) -> Any:
    """A word tokenizer trained on the rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=800, special_tokens=SPECIAL)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_t5(folder: Path, texts: list[str]) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.utils import logging

    tokenizer = words(texts)
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        T5ForConditionalGeneration(
            T5Config(
                vocab_size=max(64, len(tokenizer)),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                pad_token_id=0,
                eos_token_id=1,
                decoder_start_token_id=0,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 short dialogues of which the summary says who wants what."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pairs") / "dialogues.jsonl"
    lines = []
    for i in range(120):
        who, what = NAMES[rng.integers(8)], THINGS[rng.integers(8)]
        filler = " ".join(rng.choice(FILLERS, 6))
        lines.append(
            {
                "id": i,
                "dialogue": f"{who} : {filler} I want some {what} {filler[:9]}",
                "summary": f"{who} wants {what}",
            }
        )
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    texts = [row["dialogue"] + " " + row["summary"] for row in rows]
    return tiny_t5(tmp_path_factory.mktemp("model") / "tiny-t5", texts)


@pytest.fixture(scope="session")
def settings(pairs: Path, t5: Path) -> list[str]:
    return [
        "task=seq2seq",
        f"data.path={pairs}",
        f"model.name={t5}",
        "train.epochs=3",
        "train.learning_rate=3e-3",
        "train.precision=float32",
        "train.threads=1",
        "generate.rows=8",
        "generate.max_new_tokens=8",
    ]


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> Path:
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    folder = tmp_path_factory.mktemp("runs") / "done"
    train(override(Recipe(), settings), folder)
    return folder


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return found


@pytest.mark.slow
def test_the_run_folder_is_whole(done: Path) -> None:
    names = {
        "recipe.yaml",
        "result.json",
        "events.jsonl",
        "report.html",
        "model",
        "predictions.parquet",
        "splits.parquet",
        "examples.parquet",
        "looks.npz",
        "answers.parquet",
    }
    assert {path.name for path in done.iterdir()} == names
    result = result_of(done)
    assert (result["schema"], result["task"], result["classes"]) == (1, "seq2seq", None)
    for name in ("loss", "perplexity", "token_accuracy", "rouge_l", "bleu", "chrf", "exact_match"):
        assert {"value", "low", "high"} <= result["test"]["metrics"][name].keys(), name
    assert result["baseline"]["what"] == "untuned model"
    assert set(result["generations"]["counts"]) == {"train", "test", "test_untuned"}
    assert len(result["generations"]["test"]) == 8
    assert result["settings"]["model"]["max_target_length"] == 8


def test_it_learns_more_than_the_untuned_model_knew(done: Path) -> None:
    result = result_of(done)
    before = result["baseline"]["test"]["metrics"]["loss"]["value"]
    assert result["test"]["metrics"]["loss"]["value"] < before
    assert result["baseline"]["comparison"]["difference"]["value"] < 0


def test_diagnose_gives_the_run_its_own_verdict(done: Path, own_verdict: Any) -> None:
    own_verdict(done)


def test_predictions_hold_every_test_row(done: Path) -> None:
    table = parquet.read_table(done / "predictions.parquet").to_pylist()
    result = result_of(done)
    assert len(table) == result["test"]["n"] == result["data"]["test"]
    assert sum(row["prediction"] is not None for row in table) == 8
    losses = [row["loss"] for row in table]
    assert np.mean(losses) == pytest.approx(result["test"]["metrics"]["loss"]["value"])
    assert all("wants" in row["label"] for row in table)


@pytest.mark.slow
def test_plain_transformers_gives_the_scored_losses_and_texts(done: Path, pairs: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(done / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(done / "model").eval()
    for row in parquet.read_table(done / "predictions.parquet").to_pylist():
        inputs = tokenizer(rows[row["row"]]["dialogue"], return_tensors="pt")
        labels = tokenizer(text_target=row["label"], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            assert model(**inputs, labels=labels).loss.item() == pytest.approx(
                row["loss"], rel=1e-4
            )
            if row["prediction"] is not None:
                ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
                text = tokenizer.decode(ids[0], skip_special_tokens=True)
                assert text.strip() == row["prediction"]


@pytest.mark.slow
def test_predict_and_evaluate_use_the_run(done: Path, pairs: Path, holdfast: Any) -> None:
    predicted = holdfast("predict", done, pairs)
    lines = [json.loads(line) for line in predicted.out.splitlines()]
    assert (predicted.code, len(lines)) == (0, 120)
    assert list(lines[0]) == ["row", "prediction", "confidence", "id", "dialogue", "summary"]
    assert all(0 <= line["confidence"] <= 1 for line in lines)
    told = {
        row["row"]: row["prediction"]
        for row in parquet.read_table(done / "predictions.parquet").to_pylist()
    }
    assert all(
        told[line["row"]] in (None, line["prediction"]) for line in lines if line["row"] in told
    )
    scored = holdfast("evaluate", done, pairs, "--json")
    block = json.loads(scored.out)
    assert block["n"] == 120
    assert {"perplexity", "rouge_l"} <= block["metrics"].keys()
    assert "perplexity" in holdfast("evaluate", done, pairs).out


def test_the_python_door_gives_the_plain_model_and_its_texts(done: Path) -> None:
    from holdfast.api.trained_run import TrainedRun

    run = TrainedRun(done)
    assert type(run.model).__name__ == "T5ForConditionalGeneration"
    assert len(run.predict(["ann : I want some tea", "bob : I want some milk"])) == 2


def test_each_message_of_a_talk_is_a_source_of_its_own(done: Path, t5: Path) -> None:
    import holdfast as hf

    talk, asked = hf.chat(done), ["Anna : I want some tea", "Ben : hello I want some jam"]
    replies = [talk.ask(text) for text in asked]
    assert [reply.answer for reply in replies] == hf.TrainedRun(done).predict(asked)
    assert all(reply.start is not None for reply in replies)


def test_it_stands_beside_its_start_model_given_pairs(done: Path) -> None:
    worth = result_of(done)["worth"]
    ways = worth["start"]
    assert ways["zero_shot"]["n"] == result_of(done)["test"]["n"]
    assert ways["few_shot"]["shots"] == 3
    assert ways["few_shot"]["n"] == worth["texts"]["n"]
    assert worth["general"] is None
    assert "encoder-decoder" in worth["left_out"]["general"]


@pytest.mark.slow
def test_several_runs_write_by_the_mean_of_their_tokens(
    done: Path, pairs: Path, holdfast: Any
) -> None:
    alone, twice = (holdfast("predict", *runs, pairs) for runs in ((done,), (done, done)))
    assert twice.code == 0, twice.err
    told = [[json.loads(x)["prediction"] for x in one.out.splitlines()] for one in (alone, twice)]
    assert told[0] == told[1]
    for way in ("stack", "soup"):
        block = json.loads(
            holdfast(
                "evaluate", done, done, pairs, "--set", f"predict.ensemble={way}", "--json"
            ).out
        )
        found = block["ensemble"]
        # A run beside itself is no better than itself: the mean stays, and the soup is the run.
        assert found["kind"] == ("average" if way == "stack" else "soup")
        stored = result_of(done)["valid"]["metrics"]["loss"]["value"]
        assert found["members"][0]["valid_loss"] == pytest.approx(stored, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["train.metric=f1_macro"], "train.metric"),
        (["methods.contrast=true"], "methods.contrast"),
        (["model.name=embedded"], "encoder"),
        (["data.label=id", "data.target=summary"], "different"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(
    settings: list[str], tmp_path: Path, wrong: list[str], told: str
) -> None:
    from holdfast.core.errors import InputError
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    with pytest.raises(InputError, match=told):
        train(override(Recipe(), [*settings, *wrong]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_summary_and_the_plan_speak_of_texts(
    pairs: Path, t5: Path, settings: list[str], holdfast: Any, tmp_path: Path
) -> None:
    sets = [part for s in [*settings[3:], "train.max_steps=2"] for part in ("--set", s)]
    common = [pairs, "--task", "seq2seq", "--model", t5, "--text", "dialogue", "--label", "summary"]
    plan = holdfast("train", *common, *sets, "--dry-run", "--quiet")
    assert plan.code == 0
    assert "Classes" not in plan.out
    ended = holdfast("train", *common, *sets, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "ROUGE-L" in ended.out
    assert "Accuracy" not in ended.out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls what Transformers renamed
def test_a_lora_run_is_saved_for_plain_peft(settings: list[str], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from peft import AutoPeftModelForSeq2SeqLM

    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    run = tmp_path / "run"
    result = train(
        override(
            Recipe(),
            [*settings, "train.max_steps=6", "model.adapter.kind=lora", "model.adapter.rank=4"],
        ),
        run,
    )
    assert result["model_facts"]["trainable"] < 0.5 * result["model_facts"]["parameters"]
    model = AutoPeftModelForSeq2SeqLM.from_pretrained(run / "model").eval()
    row = parquet.read_table(run / "predictions.parquet").to_pylist()[0]
    source = [json.loads(line) for line in Path(settings[1][10:]).read_text("utf-8").splitlines()]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    inputs = tokenizer(source[row["row"]]["dialogue"], return_tensors="pt")
    labels = tokenizer(text_target=row["label"], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert model(**inputs, labels=labels).loss.item() == pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, settings: list[str]) -> None:
    """One test, so that the runs are made once whatever the number of workers."""
    kill = load("test_kill_and_resume")
    ends = kill.kill_and_resume(tmp_path, [*settings, "train.epochs=2"])
    assert ends == dict.fromkeys(kill.MOMENTS, (signal.SIGKILL, 0))
    for moment in kill.MOMENTS:
        kill.same(tmp_path / "undisturbed", tmp_path / moment)
    kill.admitted(tmp_path / "scoring")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("samsum/train.jsonl.gz", []),
        (
            "text2code/wikisql_train.jsonl.gz",
            ["data.template={question} <context> {columns}", "data.target=pandas"],
        ),
    ],
)
def test_real_rows_go_through(
    shared_data: Path, tmp_path: Path, name: str, extra: list[str]
) -> None:
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    with gzip.open(shared_data / name, "rt", encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(150)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = tiny_t5(tmp_path / "t5", [" ".join(map(str, row.values())) for row in rows])
    result = train(
        override(
            Recipe(),
            [
                "task=seq2seq",
                f"data.path={path}",
                f"model.name={model}",
                "train.max_steps=4",
                "train.batch_size=8",
                "model.max_length=96",
                "model.max_target_length=32",
                "generate.rows=4",
                "generate.max_new_tokens=6",
                "train.threads=1",
                *extra,
            ],
        ),
        tmp_path / "run",
    )
    assert result["test"]["n"] > 15
    assert result["test"]["metrics"]["loss"]["value"] > 0
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_a_run_whose_targets_are_its_sources_is_leaking(
    tmp_path: Path, pairs: Path, settings: list[str]
) -> None:
    """The audit only warns of copied targets; whoever trains on them all the same is told what the
    scores are worth."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    copied = tmp_path / "copied.jsonl"
    lines = [{"dialogue": row["dialogue"], "summary": row["dialogue"]} for row in rows]
    copied.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    changed = [f"data.path={copied}", "train.epochs=1", "generate.rows=4"]
    verdict = train(override(Recipe(), [*settings, *changed]), tmp_path / "run")["verdict"]
    assert (verdict["label"], verdict["cause"]) == ("leaking", "the targets copy the source")
    rate = {e["name"]: e["value"] for e in verdict["evidence"]}
    assert rate["share_of_targets_that_are_their_source"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.weight_decay": 0.5, "train.clip": 0.05, "train.schedule": "linear"},
        {"train.label_smoothing": 0.3, "train.batch_size": 25, "train.accumulate": 8},
    ],
    ids=["plain", "decay and clip", "smoothing and accumulation"],
)
def test_a_run_ends_in_the_weights_of_a_loop_written_by_hand(
    pairs: Path, t5: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """All training rows in each update, no dropout: PyTorch and nothing else must come to the same
    weights, so each step's gradients begin at nothing and weigh every token alike."""
    import holdfast

    settings = {
        "model.name": str(t5),
        "model.dropout": 0.0,
        "train.max_steps": 4,
        "train.epochs": 10,
        "train.batch_size": 200,
        "train.learning_rate": 2e-3,
        "train.schedule": "constant",
        "train.warmup": 0.0,
        "train.weight_decay": 0.0,
        "train.clip": 1e6,
        "train.keep": "last",
        "train.precision": "float32",
        "train.threads": 1,
        "train.matmul": "default",
        "control.policy": "off",
        "generate.rows": 2,
        "generate.max_new_tokens": 4,
        **changes,
    }
    run = tmp_path / "run"
    holdfast.train(str(pairs), task="seq2seq", out=run, settings=settings, quiet=True)
    split = parquet.read_table(run / "splits.parquet").to_pylist()
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    used = [rows[row["row"]] for row in split if row["split"] == "train"]
    assert result_of(run)["last_step"] == 4
    by_hand = trained_by_hand(t5, used, steps=4, rate=2e-3, settings=settings)
    from transformers import AutoModelForSeq2SeqLM

    saved = AutoModelForSeq2SeqLM.from_pretrained(run / "model").state_dict()
    for name, tensor in by_hand.items():
        torch.testing.assert_close(saved[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def trained_by_hand(
    model: Path, rows: list[dict[str, str]], steps: int, rate: float, settings: dict[str, Any]
) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    network = AutoModelForSeq2SeqLM.from_pretrained(model, dropout_rate=0.0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    batch = tokenizer([row["dialogue"] for row in rows], padding=True, return_tensors="pt")
    wanted = tokenizer([row["summary"] for row in rows], padding=True, return_tensors="pt")
    labels = wanted.input_ids.masked_fill(wanted.attention_mask == 0, -100)
    decay = settings["train.weight_decay"]
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    smoothing = settings.get("train.label_smoothing", 0.0)
    network.train()
    for step in range(steps):
        optimizer.zero_grad()
        taken = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        logits = network(**taken, labels=labels).logits
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing
        ).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings["train.clip"])
        if settings["train.schedule"] == "linear":
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    return dict(network.state_dict())


@pytest.mark.slow
def test_another_seed_draws_the_rows_of_its_updates_in_another_order(
    pairs: Path, t5: Path, tmp_path: Path
) -> None:
    """Without dropout and with validation and test rows that are given, the order of the rows is
    all that a seed decides of a model without a new head."""
    from safetensors.numpy import load_file

    import holdfast

    lines = pairs.read_text("utf-8").splitlines()
    for name, part in (("train", lines[:60]), ("valid", lines[60:80]), ("test", lines[80:100])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part), "utf-8")
    ends = []
    for seed in (0, 1):
        settings = {
            "data.valid": str(tmp_path / "valid.jsonl"),
            "model.name": str(t5),
            "model.dropout": 0.0,
            "train.max_steps": 3,
            "train.batch_size": 4,
            "train.learning_rate": 2e-3,
            "train.keep": "last",
            "train.precision": "float32",
            "train.threads": 1,
            "train.matmul": "default",
            "generate.rows": 2,
            "generate.max_new_tokens": 4,
        }
        run = tmp_path / f"run-{seed}"
        holdfast.train(
            str(tmp_path / "train.jsonl"),
            test=str(tmp_path / "test.jsonl"),
            task="seq2seq",
            out=run,
            seed=seed,
            settings=settings,
            quiet=True,
        )
        ends.append(load_file(run / "model" / "model.safetensors"))
    assert any(not np.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0])


def test_the_untuned_model_and_the_samples_of_each_side_are_what_they_are_called(
    done: Path, t5: Path, pairs: Path
) -> None:
    """The baseline's loss on the test rows is that of the model as it was downloaded, row by row
    through plain Transformers; the test block's texts are scored against the test rows."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    network = AutoModelForSeq2SeqLM.from_pretrained(t5).eval()
    tokenizer = AutoTokenizer.from_pretrained(t5)
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    split = parquet.read_table(done / "splits.parquet").to_pylist()
    test = [rows[row["row"]] for row in split if row["split"] == "test"]
    losses = []
    for row in test:
        batch = tokenizer(row["dialogue"], return_tensors="pt")
        labels = tokenizer(row["summary"], return_tensors="pt").input_ids
        with torch.no_grad():
            losses.append(float(network(**batch, labels=labels).loss))
    result = result_of(done)
    before = result["baseline"]["test"]["metrics"]["loss"]["value"]
    assert before == pytest.approx(float(np.mean(losses)), rel=1e-3)
    shown = {sample["reference"] for sample in result["generations"]["test"]}
    assert shown <= {row["summary"] for row in test}
    samples = result["generations"]["test"]
    exact = [sample["generated"] == sample["reference"] for sample in samples]
    assert result["test"]["metrics"]["exact_match"]["value"] == pytest.approx(np.mean(exact))
    chrf = pytest.importorskip("sacrebleu").corpus_chrf(
        [sample["generated"] for sample in samples], [[s["reference"] for s in samples]]
    )
    assert result["test"]["metrics"]["chrf"]["value"] == pytest.approx(chrf.score / 100, rel=1e-3)


@pytest.mark.slow
def test_a_quantised_run_is_judged_against_the_unquantised_model(
    tmp_path: Path, settings: list[str], done: Path
) -> None:
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    eight = ["model.quantize=8bit", "model.adapter.kind=lora", "train.max_steps=3"]
    train(override(Recipe(), [*settings, *eight]), tmp_path / "run")
    start = result_of(tmp_path / "run")["worth"]["start"]
    plain = result_of(done)["worth"]["start"]["zero_shot"]
    assert start["zero_shot"]["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert start["quantized"]["loss"] != pytest.approx(plain["loss"], rel=1e-5)
    assert "p_adjusted" not in start["quantized"]
