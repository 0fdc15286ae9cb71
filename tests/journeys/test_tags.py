"""Token classification from a file of words and tags to answers, through every door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.core.errors import DataError, RecipeError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

QUICK = ["train.epochs=2", "train.precision=float32", "train.threads=1", "train.matmul=default"]
TAGS = ["O", "B-LOC", "I-LOC", "B-NUM", "I-NUM", "B-PER", "I-PER"]


@pytest.fixture(scope="module")
def settings(tagged: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a run of seconds: a BERT of two small layers, drawn at random, that knows the words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    known = {word for words, _ in tagged.sentences(400) for word in words}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *sorted(known)]), encoding="utf-8")
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(special) + len(known),
            intermediate_size=48,
            max_position_embeddings=64,
            **sizes,
        )
        BertModel(config).save_pretrained(folder)
    return [f"model.name={folder}", *QUICK]


@pytest.fixture(scope="module")
def rows(tagged: Any) -> Any:
    return tagged.sentences(120)


@pytest.fixture(scope="module")
def run(rows: Any, tagged: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded model."""
    folder = tmp_path_factory.mktemp("tags")
    source = tagged.write_lists(folder / "rows.jsonl", rows)
    train(override(Recipe(), [f"data.path={source}", *QUICK]), folder / "run")
    return folder / "run"


def result_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return found


@pytest.mark.slow
def test_the_task_is_worked_out_with_its_reason(run: Path) -> None:
    result = result_of(run)
    told = {made["what"]: made for made in result["decisions"]}
    assert result["task"] == "token-classification"
    assert "as many tags" in told["task"]["because"]
    assert told["scheme of the tags"]["chosen"] == "IOB2"
    assert result["classes"] == TAGS


def test_the_score_is_seqevals_on_the_predictions_that_are_kept(run: Path, rows: Any) -> None:
    from seqeval.metrics import accuracy_score, classification_report, f1_score

    result = result_of(run)
    kept = pq.read_table(run / "predictions.parquet").to_pydict()
    truth = [rows[row][1] for row in kept["row"]]
    assert kept["label"] == truth
    found = result["test"]["metrics"]
    assert found["entity_f1"]["value"] == pytest.approx(f1_score(truth, kept["prediction"]))
    assert found["entity_f1"]["low"] <= found["entity_f1"]["value"] <= found["entity_f1"]["high"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy_score(truth, kept["prediction"]))
    report = classification_report(truth, kept["prediction"], output_dict=True, zero_division=0)
    for entity, scores in result["test"]["per_class"].items():
        assert scores["n"] == report[entity]["support"]
        assert scores["f1"]["value"] == pytest.approx(report[entity]["f1-score"])
    counts = np.array(result["test"]["confusion"]["counts"])
    assert counts.sum() == sum(map(len, truth))


def test_the_folder_gives_the_scored_losses_in_plain_transformers(run: Path, rows: Any) -> None:
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert [model.config.id2label[i] for i in range(len(TAGS))] == TAGS
    kept = pq.read_table(run / "predictions.parquet").to_pydict()
    for row, loss, said in zip(kept["row"], kept["loss"], kept["prediction"], strict=True):
        words, tags = rows[row]
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        owner = encoded.word_ids(0)
        labels = [
            TAGS.index(tags[w]) if w is not None and w != before else -100
            for before, w in zip([None, *owner], owner, strict=False)
        ]
        with torch.inference_mode():
            output = model(**encoded, labels=torch.tensor([labels]))
        assert loss == pytest.approx(float(output.loss), rel=1e-4, abs=1e-6)
        first = [i for i, label in enumerate(labels) if label >= 0]
        assert [TAGS[int(k)] for k in output.logits[0, first].argmax(-1)] == said


@pytest.mark.slow
def test_correct_sentences_are_not_called_accuracy(run: Path) -> None:
    """The run's accuracy is that of words."""
    result = result_of(run)
    optimism, compared = result["control"]["optimism"], result["verdict"]["test_comparison"]
    assert optimism["metric"] == compared["metric"] == "sentence_accuracy"
    assert " points of sentences with all tags correct" in optimism["because"]
    difference = compared["valid"]["value"] - compared["test_rows"]["value"]
    assert optimism["seen"]["value"] == pytest.approx(difference)
    assert "accuracy is " not in result["verdict"]["because"]


def test_it_learned_more_than_its_baselines(run: Path) -> None:
    result = result_of(run)
    others = {b["what"]: b["test"]["metrics"] for b in result["baseline"]["all"]}
    assert set(others) == {"majority class", "linear probe"}
    assert others["majority class"]["entity_f1"]["value"] == 0
    assert result["baseline"]["what"] == "linear probe"
    found = result["test"]["metrics"]
    assert found["entity_f1"]["value"] > 0.9
    assert found["loss"]["value"] < others["linear probe"]["loss"]["value"]


@pytest.mark.slow
def test_predictions_line_up_whatever_the_words_come_in(
    run: Path, rows: Any, tagged: Any, holdfast: Any, tmp_path: Path, shell: Any
) -> None:
    some = rows[:9]
    files = [
        tagged.write_conll(tmp_path / "a.conll", some),
        tagged.write_conll(tmp_path / "a.txt", some, " "),
        tagged.write_lists(tmp_path / "a.jsonl", some),
    ]
    answers = []
    for file in files:
        done = holdfast("predict", run, file)
        assert done.code == 0, done.err
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert [line["row"] for line in lines] == list(range(9))
        answers.append([line["prediction"] for line in lines])
        assert all(0 < line["confidence"] <= 1 for line in lines)
    assert answers[0] == answers[1] == answers[2]
    assert [len(one) for one in answers[0]] == [len(words) for words, _ in some]

    from holdfast import TrainedRun

    door = TrainedRun(run)
    assert door.predict([words for words, _ in some]) == answers[0]
    assert door.predict([" ".join(words) for words, _ in some]) == answers[0]
    assert door.predict(files[0]) == answers[0]
    assert type(door.model).__name__ == "BertForTokenClassification"


def test_the_confidence_is_that_of_the_least_sure_word(run: Path) -> None:
    from holdfast import TrainedRun

    kept = pq.read_table(run / "predictions.parquet").to_pydict()
    sentences = dict(zip(kept["row"], kept["probabilities"], strict=True))
    rows = [json.loads(line) for line in (run.parent / "rows.jsonl").read_text().splitlines()]
    asked = [rows[row]["tokens"] for row in sentences]
    sure = [
        line
        for part in TrainedRun(run).predictor.predict(asked).parts()
        for line in part.confidence
    ]
    assert sure == pytest.approx([min(chances) for chances in sentences.values()], abs=1e-5)


def test_rows_without_words_have_no_tags_and_are_counted(
    run: Path, holdfast: Any, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"tokens": ["anna"]}\n{"tokens": []}\n{"tokens": ["oslo"]}\n', encoding="utf-8"
    )
    done = holdfast("predict", run, path, "--out", tmp_path / "out.parquet")
    assert done.code == 0, done.err
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["prediction"][1] is None
    assert [len(found["prediction"][i]) for i in (0, 2)] == [1, 1]
    assert "1 of 3 rows" in done.err


def test_words_beyond_the_limit_get_o_unseen(run: Path, holdfast: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"tokens": ["oslo"] * 10_000}) + "\n", encoding="utf-8")
    done = holdfast("predict", run, path)
    assert done.code == 0, done.err
    said = json.loads(done.out)["prediction"]
    assert len(said) == 10_000
    read = result_of(run)["model_facts"]["max_length"] - 2
    assert set(said[read:]) == {"O"}
    assert set(said[:read]) != {"O"}


@pytest.mark.slow
def test_a_text_with_a_sentence_a_line_is_tagged(
    run: Path, rows: Any, tagged: Any, holdfast: Any, tmp_path: Path
) -> None:
    some = [words for words, _ in rows[:6]]
    plain = tmp_path / "sentences.txt"
    plain.write_text("\n".join([*map(" ".join, some[:3]), "", *map(" ".join, some[3:])]), "utf-8")
    done = holdfast("predict", run, plain)
    assert done.code == 0, done.err
    said = [json.loads(line)["prediction"] for line in done.out.splitlines()]
    listed = holdfast("predict", run, tagged.write_lists(tmp_path / "a.jsonl", rows[:6]))
    wanted = [json.loads(line)["prediction"] for line in listed.out.splitlines()]
    assert said[3] is None
    assert [*said[:3], *said[4:]] == wanted


@pytest.mark.slow
def test_other_tagged_rows_are_scored_as_predict_tags_them(
    run: Path, tagged: Any, holdfast: Any, tmp_path: Path
) -> None:
    from seqeval.metrics import f1_score

    new = tagged.sentences(30, seed=5)
    path = tagged.write_conll(tmp_path / "new.conll", new)
    done = holdfast("evaluate", run, path, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    lines = [json.loads(line) for line in holdfast("predict", run, path).out.splitlines()]
    expected = f1_score([tags for _, tags in new], [line["prediction"] for line in lines])
    assert block["metrics"]["entity_f1"]["value"] == pytest.approx(expected)
    # Sentences of so few words repeat: those that the run was trained on are told apart.
    unseen = block["without_seen"]
    assert 0 < unseen["n"] < block["n"] == 30


@pytest.mark.slow
def test_files_in_another_encoding_are_told(run: Path, holdfast: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes("anna\nlives\nin\nm\xfcnchen\n".encode("cp1252"))
    done = holdfast("predict", run, path)
    assert done.code == 2
    assert "--encoding" in done.err
    done = holdfast("predict", run, path, "--encoding", "cp1252")
    assert json.loads(done.out)["tokens"][3] == "münchen"


@pytest.mark.slow
def test_several_runs_are_averaged(run: Path, holdfast: Any, rows: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": rows[0][0]}) + "\n", encoding="utf-8")
    alone = json.loads(holdfast("predict", run, path).out)
    twice = json.loads(holdfast("predict", run, run, path).out)
    assert twice == alone
    done = holdfast("evaluate", run, run, run.parent / "rows.jsonl", "--json")
    assert json.loads(done.out)["n"] == len(rows)


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(
    run: Path, killed: type[BaseException], tmp_path: Path
) -> None:
    class Kill:
        name = "kill"
        left = 8

        def step_done(self, run: Any) -> None:
            self.left -= 1
            if not self.left:
                raise killed

    source = run.parent / "rows.jsonl"
    recipe = override(Recipe(), [f"data.path={source}", *QUICK])
    with pytest.raises(killed):
        train(recipe, tmp_path / "run", listeners=(Kill(),), checkpoint_every_s=0.0)
    train(Recipe(), tmp_path / "run", resume=True)
    for name in ("model/model.safetensors", "predictions.parquet", "splits.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes(), name
    assert result_of(tmp_path / "run")["verdict"] == result_of(run)["verdict"]


@pytest.mark.slow
def test_an_adapter_is_a_plain_folder_of_peft(
    run: Path, settings: list[str], tmp_path: Path, holdfast: Any
) -> None:
    source = run.parent / "rows.jsonl"
    lora = ["model.adapter.kind=lora", "model.adapter.rank=4", "train.epochs=1"]
    recipe = override(Recipe(), [f"data.path={source}", *settings, *lora])
    result = train(recipe, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text("utf-8"))
    assert config["task_type"] == "TOKEN_CLS"
    kept = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    done = holdfast("predict", tmp_path / "run", source)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [lines[row]["prediction"] for row in kept["row"]] == kept["prediction"]
    assert result["test"]["metrics"]["loss"]["value"] > 0


def test_a_dry_run_says_the_plan_and_writes_nothing(
    run: Path, settings: list[str], holdfast: Any, tmp_path: Path
) -> None:
    sets = [part for one in settings for part in ("--set", one)]
    before = set(tmp_path.rglob("*"))
    done = holdfast("train", run.parent / "rows.jsonl", "--dry-run", "--json", *sets)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["classes"] == TAGS
    assert plan["settings"]["task"] == "token-classification"
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_documents_stay_on_one_side(
    settings: list[str], rows: Any, tmp_path: Path, holdfast: Any
) -> None:
    lines = []
    # Frames without a name repeat, and copies would tie the documents to each other.
    unique = {" ".join(words): (words, tags) for words, tags in rows if "said" not in words}
    for i, (words, tags) in enumerate([*unique.values()][:80]):
        if i % 4 == 0:
            lines.append("-DOCSTART- O\n\n")
        lines += [f"{w} {t}\n" for w, t in zip(words, tags, strict=True)] + ["\n"]
    path = tmp_path / "a.conll"
    path.write_text("".join(lines), encoding="utf-8")
    sets = [part for one in [*settings, "train.epochs=1"] for part in ("--set", one)]
    done = holdfast("train", path, "--group", "document", "--out", "run", *sets, "--json")
    assert done.code == 0, done.err
    divided = pq.read_table(tmp_path / "run" / "splits.parquet").to_pydict()
    sides: dict[str, set[str]] = {}
    for group, side in zip(divided["group"], divided["split"], strict=True):
        sides.setdefault(group, set()).add(side)
    assert len(sides) == 20
    assert all(len(found - {"dropped"}) <= 1 for found in sides.values())
    assert "groups" in json.loads(done.out)["test"]["metrics"]["entity_f1"]["note"]


def test_the_report_and_the_card_speak_of_entities(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    card = (run / "model" / "README.md").read_text("utf-8")
    assert "Entity F1" in page
    assert "AutoModelForSequenceClassification" not in page
    assert "aggregation_strategy" in page
    assert "pipeline_tag: token-classification" in card
    assert "entity_f1" in card
    assert "Tag the words" in card
    hardest = result_of(run)["hardest"]
    assert all(row["label"] != row["prediction"] for row in hardest["confidently_wrong"])


@pytest.mark.slow
def test_the_run_repeats_from_its_recipe_and_keeps_by_its_metric(run: Path, tmp_path: Path) -> None:
    from holdfast.recipe import read_recipe

    recipe = override(read_recipe(run / "recipe.yaml"), ["train.metric=entity_f1"])
    train(recipe, tmp_path / "again")
    result = result_of(tmp_path / "again")
    looks = [
        json.loads(line)
        for line in (tmp_path / "again" / "events.jsonl").read_text("utf-8").splitlines()
    ]
    scores = {
        look["step"]: look["valid_metrics"]["entity_f1"]
        for look in looks
        if look["event"] == "snapshot"
    }
    assert scores[result["best_step"]] == max(scores.values())


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("train.metric=f1_macro", "is not a metric"),
        ("model.pooling=mean", "does not apply to token-classification"),
        ("data.template={tokens}", "does not apply to token-classification"),
        ("methods.contrast=true", "does not apply to"),
    ],
)
def test_settings_that_mean_nothing_here_are_refused(
    run: Path, settings: list[str], tmp_path: Path, setting: str, rule: str
) -> None:
    given = [f"data.path={run.parent / 'rows.jsonl'}", "task=token-classification", *settings]
    with pytest.raises(RecipeError, match=rule):
        train(override(Recipe(), [*given, setting]), tmp_path / "run")


def test_diagnose_gives_the_run_its_own_verdict(run: Path, own_verdict: Any) -> None:
    own_verdict(run)


def test_one_tag_only_is_refused_before_anything_is_written(tmp_path: Path, holdfast: Any) -> None:
    path = tmp_path / "a.conll"
    path.write_text("a O\nb O\n\nc O\n", encoding="utf-8")
    done = holdfast("train", path, "--out", "run")
    assert done.code == 2
    assert "same tag on every word" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_python_door_takes_lists(settings: list[str], rows: Any, tmp_path: Path) -> None:
    import holdfast

    words, tags = (list(column) for column in zip(*rows[:60], strict=True))
    made = holdfast.train(
        {"tokens": words, "tags": tags},
        out=tmp_path / "run",
        settings=[*settings, "train.epochs=1"],
        quiet=True,
    )
    assert made.result["task"] == "token-classification"
    with pytest.raises(DataError, match="must hold a text or a list of words"):
        made.predict([3])


def test_the_saved_temperature_is_that_of_the_validation_words(run: Path, rows: Any) -> None:
    """Fitted anew on the logits of the saved folder it is 1: what was to be divided was."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from holdfast.stats.temperature import best_temperature

    model = AutoModelForTokenClassification.from_pretrained(run / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    divided = pq.read_table(run / "splits.parquet").to_pydict()
    valid = [r for r, side in zip(divided["row"], divided["split"], strict=True) if side == "valid"]
    logits, labels = [], []
    for row in valid:
        words, tags = rows[row]
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        owner = encoded.word_ids(0)
        with torch.inference_mode():
            found = model(**encoded).logits[0].numpy()
        logits += [found[owner.index(word)] for word in range(len(words))]
        labels += [TAGS.index(tag) for tag in tags]
    again, _ = best_temperature(np.array(logits), np.array(labels), smoothing=1)
    assert again == pytest.approx(1, abs=0.01)
    assert result_of(run)["model_facts"]["temperature"] != pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_baseline_is_chosen_on_validation_rows(
    run: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.tasks.tags import task as kind

    chosen: list[list[int]] = []
    merit = kind.score_tags

    def spy(outputs: Any, names: Any, **more: Any) -> Any:
        if more.get("resamples") == 1:
            chosen.append(outputs.rows.tolist())
        return merit(outputs, names, **more)

    monkeypatch.setattr(kind, "score_tags", spy)
    given = [f"data.path={run.parent / 'rows.jsonl'}", *settings, "train.epochs=1"]
    train(override(Recipe(), given), tmp_path / "run")
    divided = pq.read_table(tmp_path / "run" / "splits.parquet").to_pydict()
    sides = dict(zip(divided["row"], divided["split"], strict=True))
    assert len(chosen) == 2
    assert {sides[row] for rows in chosen for row in rows} == {"valid"}
