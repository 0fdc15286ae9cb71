"""``holdfast export``: a file that needs no Holdfast, and answers what the run answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.decisions import decisions_to
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export import proof

TEXTS = ["w1 w2 good", "w3 bad w9 w4", "odd w7", "w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 good w1"]


def alone(*arguments: object, cwd: Path, text: str | None = None) -> str:
    """The answer of a script with nothing of Holdfast on its path."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        env=kept,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one export with everything, of a run with a threshold."""
    from holdfast import export
    from holdfast.contract.run_folder import open_run
    from holdfast.runs.threshold import ThresholdRule, model_fingerprint, write_threshold

    place = tmp_path_factory.mktemp("exports")
    shutil.copytree(finished_run, place / "run")
    mark = model_fingerprint(open_run(place / "run"))
    rule = ThresholdRule("precision", 0.9999).to_json()
    write_threshold(place / "run", {"rule": rule, "model": mark})
    made = export(place / "run", "onnx", int8=True, space=True, out=place / "out")
    return made.to_json()


@pytest.mark.slow
def test_the_facts_say_how_near_how_fast_and_why(exported: dict[str, Any]) -> None:
    assert json.loads((Path(exported["folder"]) / "export.json").read_text()) == {
        k: v for k, v in exported.items() if k not in ("folder", "pushed")
    }
    assert (exported["format"], exported["precision"]) == ("onnx", "float32")
    assert exported["max_logit_gap"] <= 1e-4
    assert len(exported["shapes"]) == 9
    # Few validation rows cannot show that eight bits cost nothing.
    assert "int8 is not kept" in exported["kept_because"]
    forms = [f"{row['engine']} {row['precision']}" for row in exported["speed"]["rows"]]
    assert forms == ["torch float32", "onnx float32", "onnx int8", "torch bfloat16"]
    assert all(set(row["ms"]) == {"1", "16"} for row in exported["speed"]["rows"])
    assert exported["valid"]["n"] > 0
    assert exported["valid"]["changed"] == 0
    assert 0 < exported["false_alarms"]["rate"] <= 0.05
    assert (exported["threshold"], exported["costs"]) == (0.9999, None)


def test_labels_temperature_and_threshold_stand_in_the_file(
    exported: dict[str, Any], finished_run: Path
) -> None:
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    import onnx

    model = onnx.load(str(Path(exported["folder"]) / "model.onnx"))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["labels"]) == result["classes"]
    assert float(facts["temperature"]) == result["model_facts"]["temperature"]
    assert json.loads(facts["threshold"]) == 0.9999


def test_it_answers_without_holdfast_what_the_run_answers(
    exported: dict[str, Any], finished_run: Path, tmp_path: Path
) -> None:
    from holdfast import TrainedRun

    folder = shutil.copytree(exported["folder"], tmp_path / "elsewhere")
    said = alone("-c", "import predict, sys; print('holdfast' in sys.modules)", cwd=folder)
    assert said.strip() == "False"
    lines = alone("predict.py", cwd=folder, text="\n".join(TEXTS)).splitlines()
    found = [json.loads(line) for line in lines]
    wanted = TrainedRun(finished_run).predictions(TEXTS)
    assert [one["row"] for one in found] == list(range(len(TEXTS)))
    for one, other in zip(found, wanted, strict=True):
        assert one["confidence"] == pytest.approx(other.confidence, abs=1e-5)
        best = max(one["probabilities"], key=one["probabilities"].get)
        assert best == other.prediction
        assert one["prediction"] == (best if one["confidence"] >= 0.9999 else None)
    # So sure it is of none of these.
    assert None in [one["prediction"] for one in found]


def test_the_demo_answers_at_its_door(exported: dict[str, Any]) -> None:
    space = Path(exported["folder"]) / "space"
    assert {"app.py", "Dockerfile", "README.md", "model.onnx", "predict.py"} <= {
        path.name for path in space.iterdir()
    }
    assert "sdk: docker" in (space / "README.md").read_text()
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "app.py", "--port", "0"]
    with subprocess.Popen(command, cwd=space, stdout=subprocess.PIPE, text=True, env=kept) as app:
        try:
            assert app.stdout is not None
            address = app.stdout.readline().strip()
            with urllib.request.urlopen(address) as page:
                assert "<textarea" in page.read().decode()
            body = json.dumps({"texts": TEXTS}).encode()
            with urllib.request.urlopen(f"{address}/predict", body) as reply:
                told = json.load(reply)["predictions"]
            assert len(told) == len(TEXTS)
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(f"{address}/predict", b"{}")
        finally:
            app.terminate()


def test_the_card_says_how_it_is_used_and_has_the_table(exported: dict[str, Any]) -> None:
    card = (Path(exported["folder"]) / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: onnx\n")
    assert "python predict.py" in card
    assert "have an annotator label these rows" in card
    assert "AutoModel" not in card
    assert "| onnx | int8 |" in card
    assert "## Intended use" in card


def test_what_exists_is_never_written_over(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    place = tmp_path / "there"
    place.mkdir()
    done = holdfast("export", finished_run, "--to", "onnx", "--out", place)
    assert done.code == 2
    assert "exists already" in done.err
    inside = finished_run / "model" / "onnx"
    refused = holdfast("export", finished_run, "--to", "onnx", "--out", inside)
    assert refused.code == 2
    assert "model folder" in refused.err


def test_an_export_that_breaks_off_leaves_nothing(
    holdfast: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.plugins.export import classifier

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classifier, "write_onnx", interrupted)
    before = {path.name for path in tmp_path.iterdir()}
    done = holdfast("export", finished_run, "--to", "onnx", "--out", tmp_path / "new" / "out")
    assert done.code != 0
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_file_that_is_not_the_model_is_not_kept(
    holdfast: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.plugins.export import classifier

    def write_nothing(whole: Any, path: Path, facts: Any) -> None:
        path.write_bytes(b"")

    class Wrong:
        def __init__(self, path: Path) -> None:
            """Any file."""

        def run(self, given: Any) -> Any:
            import numpy as np

            return np.zeros((len(given["input_ids"]), 3), dtype=np.float32)

    monkeypatch.setattr(classifier, "write_onnx", write_nothing)
    monkeypatch.setattr(classifier, "OnnxEngine", Wrong)
    monkeypatch.setattr(proof, "LENGTHS", (2,))
    done = holdfast("export", finished_run, "--to", "onnx", "--out", tmp_path / "out")
    assert done.code == 2
    assert "differs from the model" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "gguf"], "does not support the task text-classification"),
        (["--to", "tflite"], "is not a format"),
        (["--to", "onnx", "--push", "a/b/c"], "repository name"),
        # As a script writes it whose variable is empty.
        (["--to", "onnx", "--push", ""], "repository name"),
        (["--to", "onnx", "--push", "ada/reviews"], "HF_HUB_OFFLINE forbids it"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_work(
    arguments: list[str],
    said: str,
    holdfast: Any,
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = holdfast("export", finished_run, *arguments, "--out", tmp_path / "out")
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def chat(merging_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a language model with an adapter."""
    return run_of_chats(tmp_path_factory.mktemp("chat"), merging_llama, "lora")


def run_of_chats(folder: Path, model: Path, adapter: str) -> Path:
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    turns = [(f"say {i}", f"ok {i}") for i in range(30)]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in turns
    ]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = [
        f"data.path={folder / 'chat.jsonl'}",
        f"model.name={model}",
        "data.template=chatml",
        f"model.adapter.kind={adapter}",
        "train.max_steps=2",
        "generate.rows=0",
    ]
    train(override(Recipe(), settings), folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_a_language_model_becomes_one_file_with_a_modelfile(holdfast: Any, chat: Path) -> None:
    done = holdfast("export", chat, "--to", "gguf", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    folder = chat / "export" / "gguf"
    assert Path(facts["folder"]) == folder
    assert facts["max_logit_gap"] <= 1e-4
    assert facts["read_back"]["texts"] == 8
    assert facts["pushed"] is None
    assert "<|im_start|>" in (folder / "Modelfile").read_text()
    names = {"model.gguf", "Modelfile", "README.md", "export.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert "Converting" not in done.err


@pytest.mark.slow
def test_a_language_model_with_8_bit_weights_tells_what_they_cost(
    holdfast: Any, chat: Path, tmp_path: Path
) -> None:
    done = holdfast("export", chat, "--to", "gguf", "--int8", "--json", "--out", tmp_path / "q8")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["precision"] == "q8_0"
    assert facts["max_logit_gap"] <= 1e-4
    cost = facts["quantization"]
    assert 0 < cost["kl"] < 0.01
    assert 0.9 < cost["same_top"] <= 1
    assert cost["tokens"] > 100
    assert f"{cost['kl']:.2g} nats" in (tmp_path / "q8" / "README.md").read_text("utf-8")
    full = holdfast("export", chat, "--to", "gguf", "--out", tmp_path / "full")
    assert full.code == 0, full.err
    small, large = ((tmp_path / one / "model.gguf").stat().st_size for one in ("q8", "full"))
    assert small < 0.6 * large


@pytest.mark.slow
def test_a_merged_model_is_the_base_model_with_its_adapter(
    holdfast: Any, chat: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = holdfast("export", chat, "--to", "merged", "--json", "--out", tmp_path / "merged")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["max_logit_gap"] <= 1e-4
    with quiet_transformers():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        adapted = AutoPeftModelForCausalLM.from_pretrained(chat / "model", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "merged")("say 3", return_tensors="pt").input_ids
    with torch.inference_mode():
        gap = merged(input_ids=ids).logits - adapted(input_ids=ids).logits
        base = adapted.get_base_model()
        with adapted.disable_adapter():
            change = merged(input_ids=ids).logits - base(input_ids=ids).logits
    assert gap.abs().max() < 1e-4
    assert change.abs().max() > 1e-3, "as is meant"
    assert "AutoModelForCausalLM" in (tmp_path / "merged" / "README.md").read_text("utf-8")
    again = holdfast("export", chat, "--to", "merged", "--int8", "--out", tmp_path / "no")
    assert again.code == 2
    assert "--to gguf and --int8" in again.err


@pytest.mark.slow
def test_a_merged_model_in_bfloat16_tells_what_rounding_changes(
    holdfast: Any, chat: Path, merging_llama: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    folders = {name: tmp_path / name for name in ("float32", "bfloat16")}
    options = {"float32": (), "bfloat16": ("--bfloat16",)}
    for name, folder in folders.items():
        done = holdfast("export", chat, "--to", "merged", *options[name], "--out", folder)
        assert done.code == 0, done.err
    exact, rounded = (load_file(folder / "model.safetensors") for folder in folders.values())
    assert exact.keys() == rounded.keys()
    for name, weight in exact.items():
        assert torch.equal(rounded[name], weight.to(torch.bfloat16)), name
    facts = json.loads((folders["bfloat16"] / "export.json").read_text())
    assert facts["precision"] == "bfloat16"
    assert facts["max_logit_gap"] <= 1e-4
    assert 0 < facts["quantization"]["kl"] < 1e-3
    assert "with bfloat16 weights" in done.out
    assert "llama-quantize" not in done.out
    wrong = holdfast("export", chat, "--to", "gguf", "--bfloat16", "--out", tmp_path / "no")
    assert wrong.code == 2
    assert "--bfloat16: is for merged, not for gguf" in " ".join(wrong.err.split())
    # Without an adapter, a float32 export would be a copy of the run's model folder.
    plain = run_of_chats(tmp_path, merging_llama, "none")
    copied = holdfast("export", plain, "--to", "merged", "--out", tmp_path / "copied")
    assert copied.code == 2
    assert "--bfloat16" in copied.err
    half = holdfast("export", plain, "--to", "merged", "--bfloat16", "--out", tmp_path / "half")
    assert half.code == 0, half.err
    for name, weight in load_file(tmp_path / "half" / "model.safetensors").items():
        whole = load_file(plain / "model" / "model.safetensors")[name]
        assert torch.equal(weight, whole.to(torch.bfloat16)), name


def test_what_is_asked_is_pushed_with_its_card_and_nothing_else(
    holdfast: Any, chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.plugins.export import export as exporting

    sent: dict[str, Any] = {}

    class Fake:
        def whoami(self) -> dict[str, str]:
            return {"name": "ada"}

        def repo_exists(self, name: str, *, repo_type: str) -> bool:
            return False

        def create_repo(self, name: str, **settings: Any) -> str:
            sent["made"] = (name, settings["repo_type"], settings["private"])
            return f"https://hub.example/{name}"

        def upload_folder(self, *, folder_path: str, **settings: Any) -> None:
            sent["files"] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr(exporting, "_hub_api", Fake)
    for name in exporting.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "out"
    done = holdfast("export", chat, "--to", "gguf", "--push", "talk", "--out", out)
    assert done.code == 0, done.err
    assert sent["made"] == ("ada/talk", "model", True)
    assert sent["files"] == ["Modelfile", "README.md", "export.json", "model.gguf"]
    assert "model: https://hub.example/ada/talk" in done.out
    assert "ollama create talk" in (out / "README.md").read_text("utf-8")


def test_changed_predictions_are_counted_against_the_saved_model(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of training were perhaps made in bfloat16."""
    from holdfast import export
    from holdfast.runs.finished_run import FinishedRun

    predictions_of = FinishedRun.predictions_of

    def others(self: FinishedRun, side: Any) -> Any:
        found = predictions_of(self, side)
        return replace(found, predictions=("bad",) * len(found))

    monkeypatch.setattr(FinishedRun, "predictions_of", others)
    valid = export(finished_run, "onnx", out=tmp_path / "out").facts["valid"]
    assert (valid["changed"], valid["worse"]) == (0, 0.0)
    assert valid["n"] > 0


@pytest.mark.slow
def test_a_run_without_validation_rows_is_not_judged_by_what_others_answered(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """Its stored answers to them are those of its folds' models."""
    from holdfast.core.records import Decision
    from holdfast.pipeline.main import train
    from holdfast.plugins.export.formats import validation_rows
    from holdfast.recipe import Recipe, override
    from holdfast.runs.finished_run import FinishedRun

    settings = [f"data.path={marked_csv}", *quick, "train.folds=2", "train.epochs=1"]
    train(override(Recipe(), settings), tmp_path / "run")
    told: list[Decision] = []
    again = FinishedRun(tmp_path / "run")
    assert again.out_of_fold
    with decisions_to(told.append):
        assert validation_rows(again) is None
    assert [one.what for one in told if one.chosen == "not on validation rows"] == ["scored"]
