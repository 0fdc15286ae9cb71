"""Checks of single texts: what is planted is found, and healthy rows are left in peace."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest

from holdfast.core.errors import MachineError
from holdfast.data.load import unlabelled_table
from holdfast.data.memory.texts import raw_of_texts, table_from_texts
from holdfast.data.table import Columns
from holdfast.quality.check import CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.clean import spelling
from holdfast.quality.clean.markup import strip_markup
from holdfast.quality.clean.rows import remove_boilerplate, shared_lines
from holdfast.quality.clean.spelling import Spelling, correct_spelling
from holdfast.quality.clean.treatment import RowSet
from holdfast.quality.personal import bits_per_character, find_personal, is_iban, passes_luhn
from holdfast.quality.views import TableRows, ThoroughRows, Tokenized

SENTENCES = [
    "The battery lasts two days and charges quickly enough for me.",
    "I returned it after a week because the screen was scratched.",
    "Their support answered on the same day, which I did not expect.",
    "A café near the station sells it – for 12 € – in every colour.",
    "Order 4021-88731 of 2019-04-12 arrived on 12/05/2019, 3 items at $1,299.00.",
    "It scored 1-2 in the first half and 3:1 in the second, 90210 watched.",
    "Section 1.2.3.4 of version 10.0.0.21 explains the 192-page manual.",
    "They say naïve people paid £3.50 for piñatas in São Paulo.",
]


def texts(n: int = 300) -> list[str]:
    rng = random.Random(0)
    return [" ".join([*rng.sample(SENTENCES, 2), f"That was day {n}."]) for n in range(n)]


def see(name: str, rows: list[str]) -> CheckResult | None:
    check = all_checks()[name]
    view = TableRows(table_from_texts(rows))
    return check(ThoroughRows(view) if check.view_type is ThoroughRows else view)


def mojibake(text: str) -> str:
    return text.encode().decode("cp1252", errors="replace")


PLANTED = {
    "encoding_damage": lambda text: mojibake(text + " Schöne Grüße aus Málaga – für “alle”"),
    "control_characters": lambda text: text.replace(" ", " \u200b", 1) + "\ufeff",
    "markup": lambda text: f"<p>{text} Fish &amp; chips</p>",
    "personal_data": lambda text: f"{text} Write to anna.berg{len(text)}@mail.example.org please.",
    "mixed_scripts": lambda text: text + " Log in to p\u0430yp\u0430l now.",
    "text_lengths": lambda text: text * 60,
    "repetition": lambda text: "\n".join([text] * 3),
    "model_phrases": lambda text: f"As an AI language model, I do not own one. {text}",
    "typing_errors": lambda text: f"{text} I did not recieve it.",
    "wrong_language": lambda text: (
        "Der Akku hält zwei Tage und das Gerät lädt schnell genug, aber der Bildschirm war "
        "zerkratzt und deshalb habe ich es nach einer Woche zurückgeschickt."
    ),
}


@pytest.mark.parametrize("name", list(PLANTED))
def test_planted_rows_are_found_and_no_others(name: str) -> None:
    rows = texts()
    assert see(name, rows) is None
    planted = list(range(7, 300, 60))
    for row in planted:
        rows[row] = PLANTED[name](rows[row])
    found = see(name, rows)
    assert found is not None
    assert sorted(found.finding.rows) == planted
    assert found.finding.score == pytest.approx(len(planted) / 300)


def test_typing_errors_are_named_with_what_was_meant_and_what_was_not_read_is_counted() -> None:
    rows = [*texts(), *[f"no capital letter stands in number {n}" for n in range(40)]]
    rows[3] += " The delivry was late, and my adress is wrong."
    # A word of the subject: more rows than five have it.
    for row in range(20, 30):
        rows[row] += " I paid with crypto."
    found = see("typing_errors", rows)
    assert found is not None
    assert found.finding.rows == (3,)
    assert "adress (address?), delivry (delivery?)" in found.finding.because
    assert "40 texts skipped: no capital letter" in found.finding.because


@pytest.mark.parametrize(
    "text",
    [
        "i did not recieve the letter",
        "El servicio es muy lento y nadie contesta el telefono",
        "De winkel heeft mooie producten en snelle service",
        "La saluton mi ne povas trovi mian karton",
        "if (retrun == 1) { pritn(x); }",
    ],
)
def test_what_is_no_english_prose_is_not_called_free_of_typing_errors(text: str) -> None:
    check = all_checks()["typing_errors"]
    assert "no text is English" in check.skip_reason(
        ThoroughRows(TableRows(table_from_texts([text] * 30)))
    )
    assert (
        check.skip_reason(ThoroughRows(TableRows(table_from_texts([*[text] * 30, "It is here."]))))
        == ""
    )


def test_without_the_dictionary_typing_errors_are_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "symspellpy", None)
    check = all_checks()["typing_errors"]
    assert "pip install" in check.skip_reason(ThoroughRows(TableRows(table_from_texts(texts()))))


@pytest.mark.parametrize("name", ["boilerplate", "template_rows"])
def test_what_many_rows_share_is_found(name: str) -> None:
    rng = random.Random(2)
    words = " ".join(SENTENCES[:3]).lower().replace(".", "").split()
    rows = [" ".join(rng.sample(words, 9)) + "." for _ in range(300)]
    assert see(name, rows) is None
    for row in range(0, 300, 10):
        ticket = f"Your ticket {row} was closed at 10:{row % 60} by agent {row * 7}."
        rows[row] = (
            ticket if name == "template_rows" else f"{rows[row]}\nSent from my new telephone"
        )
    found = see(name, rows)
    assert found is not None
    assert found.finding.count == 30
    assert set(found.finding.rows) == set(range(0, 300, 10))


def test_a_shared_end_is_found_where_no_full_stop_is_before_it() -> None:
    """Exports lose line breaks: the signature then follows a name."""
    rng = random.Random(2)
    words = " ".join(SENTENCES[:3]).lower().replace(".", "").split()
    end = "Kind regards, your billing team"
    rows = [" ".join(rng.sample(words, 9)) for _ in range(200)]
    classes = [["other", "billing"][row % 2] for row in range(200)]
    for row in range(1, 200, 2):
        rows[row] += f". {end}" if row % 3 else f" Tom {end}"
    check = all_checks()["boilerplate"]
    found = check(ThoroughRows(TableRows(table_from_texts(rows, classes))))
    assert found is not None
    assert found.finding.count == 100
    assert "100 texts end with" in found.finding.because
    assert "(100 of class 'billing')" in found.finding.because
    assert f'clean.terms.drop=["{end}"]' in found.finding.remedy
    edits = remove_boilerplate(RowSet(range(200), {"text": rows}, ("text",)))
    assert {edit.position for edit in edits} == set(range(1, 200, 2))
    assert not any("regards" in str(edit.after) for edit in edits)


def test_a_shared_end_is_no_part_of_a_word() -> None:
    end = "Kind regards, your billing team"
    texts = [f"Row {row}. {end}" for row in range(30)]
    found = shared_lines([*texts, f"It was un{end}", end], 32, True)
    assert found == {end: list(range(30))}


def test_nothing_personal_is_shown() -> None:
    rows = texts()
    secrets = ["anna.berg@mail.example.org", "+44 20 7946 0958", "DE89 3704 0044 0532 0130 00"]
    rows[5] = "Reach me: " + ", ".join(secrets)
    found = see("personal_data", rows)
    assert found is not None
    shown = found.finding.because + "".join(f"{e.note} {e.masked}" for e in found.examples)
    assert not [secret for secret in secrets if secret in shown]
    assert "[EMAIL], [PHONE], [IBAN]" in shown


def test_kinds_that_are_equally_many_are_told_as_the_text_has_them() -> None:
    """Not as a set has them, which is another order in each process."""
    rows = texts()
    rows[5] = "Call +1 (415) 555-2671, my card 4539 1488 0343 6467, or anna@mail.example.org"
    found = see("personal_data", rows)
    assert found is not None
    told = "(telephone numbers in 1, card numbers in 1, e-mail addresses in 1)"
    assert told in found.finding.because


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail jo.doe+x@sub.example.co.uk now", "email"),
        ("call +1 (415) 555-2671", "phone"),
        ("my number is 0768 534251", "phone"),
        ("Phone: (212) 736-5000", "phone"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "iban"),
        ("card 4539 1488 0343 6467", "card"),
        ("amex 378282246310005", "card"),
        ("from 192.168.17.44 port 22", "ip_address"),
        ("host 2001:0db8:85a3:0000:0000:8a2e:0370:7334", "ip_address"),
        ("SSN 536-22-1857", "national_id"),
        ("DNI 12345678Z", "national_id"),
        ("CPF 529.982.247-25", "national_id"),
        ("HETU 131052-308T", "national_id"),
        ("CF RSSMRA85T10A562S", "national_id"),
        ("NIR 2 55 08 14 168 025 38", "national_id"),
        ("ID 11010519491231002X", "national_id"),
        ("key AKIA2E0A8F3B244C9986", "secret"),
        ("token ghp_16C7e42F292c6912E7710c838347Ae178B4a", "secret"),
        ("password: Tr0ub4dor&3!x", "password"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "private_key"),
    ],
)
def test_each_kind_is_known_by_its_form(text: str, kind: str) -> None:
    assert [one.data_type for one in find_personal(text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "order number is 0768 534251",
        "ISBN 978-3-16-148410-0 of 2019-04-12",
        "12/05/2019 10:30:15",
        "4539 1488 0343 6468",
        "GB82 WEST 1234 5698 7654 33",
        "version 10.20.30.40",
        "chapter 1.2.3.4 and 300.1.1.1",
        "std::vector and a::b::c",
        "@user and user@",
        "DNI 12345678A, CPF 529.982.247-26, 131052-308U",
        "1,234,567.89 and 3.14159265358979",
        "sk-learn and hf_transformers",
        "the password is on the table",
        "catalogue number of 9362482872",
        "6-4, 6-3, 7-6 and 69-70-71-77",
        "000-12-3456",
    ],
)
def test_other_numbers_are_not_accused(text: str) -> None:
    assert find_personal(text) == []


def test_check_digits_agree_with_their_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        digits = "".join(map(str, rng.integers(0, 10, 15)))
        # Exactly one last digit of ten makes a number valid.
        assert sum(passes_luhn(digits + str(d)) for d in range(10)) == 1
    account = "370400440532013000"
    assert [c for c in range(2, 99) if is_iban(f"DE{c:02}{account}")] == [89]
    assert bits_per_character("ab" * 8) == pytest.approx(1.0)


def test_refusals_and_broken_answers() -> None:
    rng = random.Random(1)
    answers = [" ".join(rng.sample(SENTENCES, 3)) for _ in range(100)]
    answers[3] = "As an AI language model, I cannot have opinions. Ask somebody else."
    answers[4] = "I'm sorry, but I can't help with that request. It is not allowed."
    answers[5] = f"{answers[5]} {answers[6]} The most important thing is that the"
    raw = raw_of_texts([f"question {n}" for n in range(100)])
    table = unlabelled_table(raw, Columns(("text",), None), label=0, target=True)
    table = table_with_targets(table, answers)
    found = {name: all_checks()[name](TableRows(table)) for name in ("refusals", "cut_answers")}
    refused, cut = found["refusals"], found["cut_answers"]
    assert refused is not None
    assert refused.finding.rows == (3, 4)
    assert cut is not None
    assert cut.finding.rows == (5,)


def table_with_targets(table, answers):
    from dataclasses import replace

    rows = table.rows.remove_columns("target").add_column("target", answers)
    return replace(table, rows=rows)


def test_truncated_texts_are_counted_by_the_models_tokens() -> None:
    table = table_from_texts(texts(10))
    lengths = np.array([10, 30, 20, 50, 20, 20, 20, 20, 20, 20])
    view = Tokenized(TableRows(table), lengths, lengths * 0, lengths, 20, "tiny")
    found = all_checks()["truncated_texts"](view)
    assert found is not None
    assert found.finding.rows == (3, 1)
    # 10 + 30 tokens of 230.
    assert "17.4 % of all tokens" in found.finding.because


def test_a_large_table_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.quality import views

    monkeypatch.setattr(views, "MAX_SAMPLE", 100)
    rows = texts(1000)
    rows[0] = rows[0] + "\ufeff"
    found = see("control_characters", rows)
    assert found is not None
    assert "(of 100 sampled from 1,000)" in found.finding.because
    assert found.finding.score == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("I did not recieve the parcel", "I did not receive the parcel"),
        ("The screen was definately good for it.", "The screen was definitely good for it."),
        # Right elsewhere, a name, a contraction, a program, another language, no capitals.
        ("My favorite color in the theater", None),
        ("We saw Farrelly and couldnt leave, nothin to see", None),
        ("if recieve(x) == 1:  # The recieve call\n    return recieve;", None),
        ("Der Empfang der Nachricht verlief problemlos", None),
        ("i did not recieve it", None),
        ("Write to recieve@example.com or /usr/recieve", None),
    ],
)
def test_typing_errors_are_put_right_where_they_are_sure(text: str, right: str | None) -> None:
    pytest.importorskip("symspellpy")
    assert correct_spelling(text) == (right or text)
    assert correct_spelling(correct_spelling(text)) == correct_spelling(text)


def test_protected_words_stay_and_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("symspellpy")
    text = "They recieve the parcel"
    assert correct_spelling(text, Spelling(("recieve",))) == text
    spelling.dictionary.cache_clear()
    monkeypatch.setitem(sys.modules, "symspellpy", None)
    with pytest.raises(MachineError, match=r"holdfast\[spelling\]"):
        correct_spelling(text)
    spelling.dictionary.cache_clear()


def test_rows_that_were_sampled_are_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern is compiled for every chunk: 100,000 short rows took twelve seconds for two."""
    monkeypatch.setattr("holdfast.quality.views.MAX_SAMPLE", 50)
    rows = TableRows(table_from_texts([f"text number {n}" for n in range(200)], ["a", "b"] * 100))
    assert len(rows.sampled) == 50
    assert rows.sampled.num_chunks == 1


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["<!--", "<script>", "<style>a"])
def test_what_is_opened_and_never_closed_ends(opened: str) -> None:
    """Of a million openings: what looks for each one's end to the last letter takes hours."""
    assert strip_markup(opened * 1_000_000) is not None


def test_comments_programs_and_style_sheets_are_not_shown() -> None:
    hidden = "<!-- <script> --><SCRIPT a='1'><!-- x</Script ><style>p{}</style>"
    assert strip_markup(f"one{hidden}two <!-- three") == "one   two <!-- three"
    assert strip_markup("one</style><style>two") == "one</style><style>two"


@pytest.mark.slow
def test_a_word_of_four_letters_must_be_near_a_commoner_one() -> None:
    rows = texts()
    rows[3] += " A gerbl ate my tofo."
    found = see("typing_errors", rows)
    assert found is not None
    assert found.finding.rows == (3,)
    assert "gerbl (gerbil?)" in found.finding.because
    assert "tofo" not in found.finding.because.replace(rows[3], "")
