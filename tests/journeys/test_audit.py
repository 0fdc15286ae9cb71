"""``holdfast audit`` from a file to what a person, a script and a browser get."""

from __future__ import annotations

import csv
import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from holdfast.api.commands import audit
from holdfast.core.errors import DataError, RecipeError

WORDS = ["river", "stone", "window", "garden", "paper", "mountain", "candle", "station", "letter"]
WORDS += ["winter", "bridge", "music"]


def sentence(n: int) -> str:
    return " ".join(WORDS[(n * k + n // 7) % len(WORDS)] for k in (1, 5, 7, 11, 3)) + f" no {n}"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rows = [{"text": sentence(n), "label": ("good", "bad")[n % 2]} for n in range(60)]
    rows.append({"text": sentence(4).upper(), "label": "good"})
    test = [{"text": f"{sentence(n)}!", "label": ("good", "bad")[n % 2]} for n in (8, 13)]
    test += [{"text": f"another matter {sentence(n)}", "label": "bad"} for n in range(70, 80)]
    return write(tmp_path / "train.csv", rows), write(tmp_path / "test.csv", test)


@pytest.mark.slow
def test_the_whole_command(files, tmp_path: Path, holdfast) -> None:
    train, test = files
    page = tmp_path / "audit.html"
    done = holdfast("audit", train, "--against", test, "--json", "--html", page)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["schema"] == 1
    assert found["rows"] == 61
    assert found["columns"] == {"text": "text", "label": "label", "group": None}
    assert found["label_counts"] == {"bad": 30, "good": 31}
    assert found["duplicate_groups"] == [[4, 60]]
    assert [(k["row"], k["other_file"], k["other_row"]) for k in found["leaks"]] == [
        (8, str(test), 0),
        (13, str(test), 1),
    ]
    assert {"exact_duplicates", "leaks"} <= {f["check"] for f in found["findings"]}
    # In the order of the files of the checks, which no folder changes.
    assert [*found["looked_at"]][:3] == ["label_slices", "identity_rates", "start_model_bias"]
    images = {"image_artefacts", "image_giveaway", "image_source", "near_images", "blank_images"}
    assert {found["not_looked_at"][name] for name in images} == {"the rows are texts"}
    for finding in found["findings"]:
        assert finding["check"] in found["looked_at"] or finding["fixed"]
        assert finding["cannot_see"].endswith(".")
        assert finding["error_rate"].endswith(".")
    html = page.read_text("utf-8")
    assert "<mark>" in html
    assert str(tmp_path) not in html.replace(str(train), "").replace(str(test), "")
    assert "src=" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    again = holdfast("audit", train, "--html", page)
    assert again.code == 2
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("given", "code"),
    [(["leaks"], 3), (["markup", "warn"], 3), (["error"], 3), (["markup"], 0), ([], 0)],
)
def test_a_finding_that_is_named_ends_with_3(files, holdfast, given: list[str], code: int) -> None:
    train, test = files
    options = [option for one in given for option in ("--fail-on", one)]
    done = holdfast("audit", train, "--against", test, "--json", *options)
    assert done.code == code, done.err
    found = json.loads(done.out)["findings"]
    assert {"leaks", "exact_duplicates"} <= {one["check"] for one in found}
    assert ("(--fail-on), so the exit code is 3" in done.err) == (code == 3)


def test_a_finding_that_no_check_has_is_refused_at_once(files, holdfast) -> None:
    done = holdfast("audit", files[0], "--fail-on", "leek")
    assert done.code == 2
    assert "Did you mean 'leaks'?" in done.err


def test_an_unknown_engine_is_named_by_its_option(files, holdfast) -> None:
    done = holdfast("audit", files[0], "--engine", "dask")
    assert done.code == 2
    assert "--engine: is not a known engine (found: 'dask')" in done.err


def test_a_person_reads_the_answer_first_in_80_columns(files, holdfast) -> None:
    train, test = files
    done = holdfast("audit", train, "--against", test, "--set", "audit.rows=0")
    assert done.code == 0, done.err
    lines = done.out.strip().splitlines()
    assert lines[0].startswith("1 error would spoil training on these rows.")
    assert max(map(len, lines)) <= 80
    assert "No findings: " in done.out


@pytest.mark.slow
def test_a_file_whose_label_cannot_be_told_says_so_first(tmp_path: Path, holdfast) -> None:
    rows = [
        f"visit {n} was as the guest of room {n} had hoped,{('north', 'south')[n % 2]},"
        f"{('a', 'b', 'c')[n % 3]},{n % 5}"
        for n in range(60)
    ]
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(["note,topic2,source2,user", *rows]), "utf-8")
    train = holdfast("train", path, "--dry-run")
    assert train.code == 2
    shown = holdfast("audit", path)
    said = " ".join(shown.out.split())
    assert said.startswith("No label was found")
    for name in ("topic2", "source2"):
        assert f"--label {name}" in said or f"{name}:" in said or name in said.partition(".")[0]
    document = json.loads(holdfast("audit", path, "--json").out)
    assert "possible_group" not in {one["check"] for one in document["findings"]}
    (finding,) = [one for one in document["findings"] if one["check"] == "no_label"]
    assert finding["severity"] == "error"
    assert finding["remedy"] in " ".join(train.err.split())


@pytest.mark.slow
def test_numbers_of_tickets_are_no_classes_and_texts_of_another_language_are_named(
    tmp_path: Path, holdfast
) -> None:
    """Two columns, and the one that is no text has another value in every row."""
    said = "La habitación del hotel estaba limpia y el desayuno muy bueno en la visita"
    path = tmp_path / "tickets.csv"
    path.write_text("ticket,note\n" + "".join(f"T{n},{said} {n}\n" for n in range(60)))
    document = json.loads(holdfast("audit", path, "--json").out)
    assert document["columns"]["label"] is None
    found = {one["check"]: one for one in document["findings"]}
    assert not {"undividable_classes", "conflicting_labels"} & set(found)
    assert found["model_language"]["severity"] == "warn"
    assert "the rows are in es" in found["model_language"]["because"]


def test_outputs_and_inputs_are_not_confused(files, holdfast) -> None:
    train, _ = files
    before = train.read_bytes()
    link = train.with_name("link.csv")
    link.symlink_to(train)
    for arguments in (("--html", train, "--force"), ("--against", train), ("--against", link)):
        done = holdfast("audit", train, *arguments)
        assert done.code == 2, done.out
    assert train.read_bytes() == before


def test_rows_in_memory_without_labels_and_with(files) -> None:
    texts = [sentence(n) for n in range(40)]
    bare = audit(texts, against=[{"text": [texts[3]]}], settings={"audit.rows": 0})
    assert [(k.row, k.other_file, k.other_row) for k in bare.leaks] == [(3, "against 1", 0)]
    assert bare.source == "the rows"
    assert bare.label_counts == {}
    labels = ["a", "b"] * 20 + ["b"]
    labelled = audit([*texts, texts[0]], labels, settings=["audit.rows=0"])
    assert labelled.label_counts == {"a": 20, "b": 21}
    assert labelled.duplicate_groups == ((0, 40),)
    shown = labelled._repr_html_()
    assert "exact duplicates" in shown.lower()
    assert "<script" not in shown


def test_pairs_chats_and_rare_classes_are_looked_at(tmp_path: Path) -> None:
    pairs = [{"document": sentence(n) * 3, "summary": sentence(n)} for n in range(30)]
    found = audit(write(tmp_path / "pairs.csv", pairs), settings={"audit.rows": 0})
    assert found.task == "seq2seq"
    chats = tmp_path / "chats.jsonl"
    turns = [
        {
            "messages": [
                {"role": "user", "content": sentence(n)},
                {"role": "assistant", "content": "Yes."},
            ]
        }
        for n in [*range(20), 3]
    ]
    chats.write_text("\n".join(map(json.dumps, turns)), "utf-8")
    found = audit(chats, settings={"audit.rows": 0})
    assert found.task == "causal-lm"
    assert found.duplicate_groups == ((3, 20),)
    rare = [{"text": sentence(n), "label": "once" if n == 5 else "often"} for n in range(30)]
    found = audit(write(tmp_path / "rare.csv", rare), settings={"audit.rows": 0})
    assert found.label_counts == {"often": 29, "once": 1}


def test_what_cannot_be_read_is_told_in_pythons_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        audit(tmp_path / "none.csv")
    rows = write(tmp_path / "rows.csv", [{"text": sentence(n), "label": n % 2} for n in range(9)])
    with pytest.raises(RecipeError, match="against: names the audited file"):
        audit(rows, against=rows)


def test_a_check_that_falls_over_costs_no_other_finding(files, holdfast, monkeypatch) -> None:
    from holdfast.quality.checks import all_checks

    check = all_checks()["near_duplicates"]

    def fall(_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(all_checks()._entries, "near_duplicates", replace(check, run=fall))
    train, test = files
    done = holdfast("audit", train, "--against", test, "--set", "audit.rows=0", "--json")
    assert done.code == 1
    assert "near_duplicates: failed" in done.err
    found = json.loads(done.out)
    assert {"leaks", "exact_duplicates"} <= {f["check"] for f in found["findings"]}
    assert "ZeroDivisionError: planted" in found["not_looked_at"]["near_duplicates"]


def test_a_folder_of_pictures_is_held_against_another(tmp_path: Path) -> None:
    from PIL import Image

    # Paths without words are in no language.
    for folder, numbers in (("train", [*range(12), 3]), ("test", [5, 40, 41, 42])):
        for at, number in enumerate(numbers):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            path = tmp_path / folder / f"class{number % 2}" / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    found = audit(tmp_path / "train", against=tmp_path / "test")
    assert found.task == "image-classification"
    assert found.rows == 13
    assert len(found.duplicate_groups) == 1
    assert len(found.leaks) == 1
    assert "model_language" not in {one.check for one in found.findings}
    assert "<img" not in found._repr_html_()


def test_a_run_is_audited_by_its_recipe(finished_run: Path) -> None:
    run = finished_run
    found = audit(run, settings={"audit.rows": 0})
    assert found.rows == json.loads((run / "result.json").read_text("utf-8"))["data"]["rows"]


def test_a_treated_copy_is_written_with_every_change(tmp_path: Path, holdfast) -> None:
    rows = [
        {"id": n, "text": sentence(n), "label": ("good", "bad")[n % 2], "note": f"n{n}"}
        for n in range(40)
    ]
    rows[3]["text"] += " cafÃ©"
    rows[5]["label"] = "Bad "
    rows += [rows[7], {"id": 41, "text": "", "label": "good", "note": "empty"}]
    source, out = write(tmp_path / "in.csv", rows), tmp_path / "out.jsonl"
    done = holdfast("audit", source, "--fix", out, "--set", "audit.rows=0")
    assert done.code == 0, done.err
    assert "encoding 1, labels 1, missing 1, copies 1" in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines())) <= max(80, len(str(out)) + 20)
    made = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(made) == 40
    assert set(made[0]) == {"id", "text", "label", "note"}
    assert made[3]["text"].endswith(" café")
    assert made[5]["label"] == "bad"
    log = (tmp_path / "out.jsonl.changes.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["treatment"] for line in log] == [
        "encoding",
        "labels",
        "missing",
        "copies",
    ]
    again = holdfast("audit", source, "--fix", out)
    assert again.code == 2
    assert "exists already" in again.err
    mine = holdfast("audit", source, "--fix", source, "--force")
    assert mine.code == 2
    assert "is the input" in mine.err
    for page in (out, tmp_path / "out.jsonl.changes.jsonl"):
        both = holdfast("audit", source, "--fix", out, "--html", page, "--force")
        assert both.code == 2
        assert "names a file that --fix writes" in both.err
    kept = tmp_path / "kept.csv"
    done = holdfast(
        *("audit", source, "--fix", kept, "--set", "audit.rows=0", "--json"),
        *("--set", "treat.copies=false", "--set", "treat.missing=false"),
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["fixed"]["left_out"] == 0


def test_what_a_cleaning_step_did_not_look_at_is_counted(tmp_path: Path, holdfast) -> None:
    pytest.importorskip("symspellpy")
    texts = ["We did not recieve it", "we did not recieve it either"]
    rows = [{"text": text, "label": str(n % 2)} for n, text in enumerate(texts * 10)]
    source, out = write(tmp_path / "in.csv", rows), tmp_path / "out.csv"
    asked = ("audit", source, "--fix", out, "--force", "--set", "audit.rows=0")
    asked = (*asked, "--set", "treat.spelling=true", "--set", "treat.copies=false")
    done = holdfast(*asked)
    assert done.code == 0, done.err
    told = " ".join(done.out.split())
    assert "spelling, skipped: 10 (no capital letter)" in told
    found = json.loads(holdfast(*asked, "--json").out)["fixed"]
    assert found["not_looked_at"] == {"spelling": {"no capital letter": 10}}


def test_tags_several_labels_and_numbers_are_looked_at(tmp_path: Path) -> None:
    words = [sentence(n).split() for n in range(20)]
    tags = [["B-A", *["O"] * 5, "B-C"][: len(w)] for w in words]
    lines = [
        json.dumps({"tokens": w, "tags": [*t, *["O"] * (len(w) - len(t))]})
        for w, t in zip(words, tags, strict=True)
    ]
    path = tmp_path / "tags.jsonl"
    path.write_text("\n".join([*lines, lines[2]]), "utf-8")
    found = audit(path, settings={"audit.rows": 0})
    assert found.task == "token-classification"
    assert found.duplicate_groups == ((2, 20),)
    assert found.label_counts["O"] == 21
    several = [{"text": sentence(n), "label": ("a|b", "a", "b")[n % 3]} for n in range(30)]
    found = audit(write(tmp_path / "several.csv", several), settings={"audit.rows": 0})
    assert found.label_counts == {"a": 20, "b": 20}
    numbers = [{"text": sentence(n), "score": n / 7} for n in range(60)]
    path = write(tmp_path / "numbers.csv", numbers)
    found = audit(path, label="score", settings=["audit.rows=0", "data.label_kind=number"])
    assert found.label_counts == {}


SECRETS = {
    "email": "jonathan.doe@example-corp.com",
    "phone": "+49 170 1234567",
    "key": "ghp_aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5",
    "password": "Tr0ub4dor&3xyZ",
}


def test_what_is_secret_is_shown_whole_by_no_check(tmp_path: Path, holdfast) -> None:
    """Copies, conflicts, leaks, templates and markup quote rows too, not only the check that looks
    for personal data."""
    rows = [{"text": sentence(n), "label": ("good", "bad")[n % 2]} for n in range(60)]
    held = []
    for n, (kind, secret) in enumerate(SECRETS.items()):
        given = f"password: {secret}" if kind == "password" else secret
        copied = {"text": f"{sentence(100 + n)} {given} and so on", "label": "good"}
        rows += [copied, {**copied, "label": "bad"}, {**copied, "text": copied["text"] + " too"}]
        rows += [{"text": f"{given} &amp; <b>{sentence(200 + n)}</b>", "label": "good"}]
        rows += [{"text": f"caf\u00c3\u00a9 {given} \u0007 {sentence(300 + n)}", "label": "bad"}]
        held.append(copied)
    rows += [
        {"text": f"Ticket {n}: call {SECRETS['phone']} today please", "label": "good"}
        for n in range(30)
    ]
    train, test = write(tmp_path / "train.csv", rows), write(tmp_path / "test.csv", held)
    page = tmp_path / "audit.html"
    asked = ("audit", train, "--against", test, "--set", "audit.rows=0", "--html", page)
    told = holdfast(*asked)
    assert told.code == 0, told.err
    document = holdfast(*asked, "--force", "--json").out
    checks = {f["check"] for f in json.loads(document)["findings"]}
    assert {"leaks", "exact_duplicates", "conflicting_labels", "template_rows", "markup"} <= checks
    assert "[EMAIL]" in told.out
    plain = " ".join(line.strip(" |") for line in told.out.splitlines())
    shown = (plain, document, " ".join(html.unescape(page.read_text("utf-8")).split()))
    for secret in SECRETS.values():
        assert all(secret not in text for text in shown), secret


@pytest.mark.slow
def test_filler_and_other_subjects_are_named_among_questions_to_a_bank(tmp_path: Path) -> None:
    """By the embedded model; none of these sentences is among those that it is compared with."""
    things = ["card", "transfer", "top-up", "refund", "direct debit", "exchange rate"]
    asks = ["Why was my {} declined?", "When will the {} arrive in my account?"]
    asks += [
        "How do I cancel a {}?",
        "Is there a fee for the {}?",
        "I cannot find my {} in the app",
    ]
    asks += ["Can you check the status of my {}", "My {} is still pending, what now?"]
    asks += ["The {} was charged twice", "Who can help me with a wrong {}?", "Where is my {}"]
    rows = [{"text": ask.format(thing)} for ask in asks for thing in things]
    filler = "Thoughtful collaboration paves the way for lasting growth and shared success."
    other = "The ewes were shorn in May, and their wool was spun in the mill by the river."
    rows += [{"text": filler}, {"text": other}]
    found = {f.check: f for f in audit(write(tmp_path / "bank.csv", rows)).findings}
    assert found["machine_filler"].rows[0] == 60
    assert 61 in found["off_topic_rows"].rows
    assert found["off_topic_rows"].count <= 4
