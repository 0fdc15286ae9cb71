"""Every page as a browser gets it, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from holdfast.plugins.dashboard.access import POLICY
from holdfast.plugins.dashboard.run_views import MAX_DRAWN, TABS

HOSTILE = "/run/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
PAGES = [
    "/",
    "/?q=fine&sort=-score",
    "/run/fine",
    *(f"/run/fine?tab={tab}" for tab in TABS if tab),
    "/run/project/worse",
    HOSTILE,
    *(f"{HOSTILE}?tab={tab}" for tab in TABS if tab),
    "/run/stopped",
    "/run/going",
    "/run/damaged",
    "/compare",
    "/compare?run=fine&run=project/worse&run=going",
    "/data",
    "/keys",
]


def attributes(text: str) -> list[str]:
    """The names of all attributes of a page, as a browser's parser finds them."""
    found: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(name for name, _ in attrs)

    Parser().feed(text)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("address", PAGES)
def test_every_page_is_whole_escaped_and_asks_for_nothing_foreign(asked: Any, address: str) -> None:
    answer = asked.get(address)
    assert answer.status_code == 200
    text = answer.text
    assert text.rstrip().endswith("</html>")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert [name for name in attributes(text) if name.startswith("on") or name == "style"] == []
    addresses = re.findall(r"""(?:src|href|action)="([^"]*)\"""", text)
    assert addresses
    assert all(one.startswith(("/", "#", "?")) and not one.startswith("//") for one in addresses)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert text.count("<main") == text.count("<h1") == 1
    assert '<html lang="en" ' in text


def test_nobody_comes_in_without_the_token(open_client: Callable[..., Any], shelf: Path) -> None:
    with open_client(shelf, come_in=False) as client:
        for address in PAGES:
            answer = client.get(address)
            assert answer.status_code == 401
            assert "88." not in answer.text
        assert client.get("/?token=guess").status_code == 401
        opened = client.get(f"{client.dashboard.access.url}&q=fine")
        assert opened.status_code == 303
        base = client.dashboard.access.base
        assert opened.headers["location"] == f"{base}/?q=fine"
        assert client.get(f"{base}/").status_code == 200
        # The cookie is good there alone.
        assert client.get("/").status_code == 401


def test_another_name_is_refused_before_anything_is_read(asked: Any) -> None:
    for host in ("evil.example", "evil.example:8081", "127.0.0.1:9", "169.254.1.1:8081"):
        answer = asked.get("/run/fine", headers={"host": host})
        assert answer.status_code == 403
        assert "fine" not in answer.text
    assert asked.get("/static/x/dashboard.css", headers={"host": "evil.example"}).status_code == 403


def test_a_redirect_leads_nowhere_else(open_client: Callable[..., Any], shelf: Path) -> None:
    with open_client(shelf, come_in=False) as client:
        token = client.dashboard.access.url.partition("?")[2]
        answer = client.get(f"//evil.example/%2e%2e?{token}")
        assert not answer.headers.get("location", "/").startswith("//")


@pytest.mark.parametrize(
    "address",
    [
        "/run/nothing",
        "/run/..%2f..%2fetc%2fpasswd",
        "/run/%2e%2e/%2e%2e/etc/passwd",
        "/run//etc/passwd",
        "/run/out/passwd",
        "/run/fine%00",
        "/run/notes",
        "/run/fine?tab=../x",
        "/static/x/..%2fapp.py",
        "/static/x/app.py",
        "/nothing",
    ],
)
def test_a_name_that_was_not_found_is_no_path(asked: Any, address: str) -> None:
    answer = asked.get(address)
    assert answer.status_code == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "http://localhost:8081"])
def test_nothing_is_changed_from_another_page(asked: Any, origin: str | None) -> None:
    headers = {"origin": origin} if origin else {}
    answer = asked.post("/try?run=fine", data={"f.text": "x"}, headers=headers)
    assert answer.status_code == 403


def test_a_run_whose_file_is_a_link_shows_nothing_of_it(
    runs: Any, tmp_path: Path, open_client: Callable[..., Any]
) -> None:
    for name in ("predictions.parquet", "recipe.yaml", "events.jsonl"):
        run = runs.make_run(tmp_path / "runs" / f"linked-{name}", classes=2)
        (run / name).rename(tmp_path / name)
        (run / name).symlink_to(tmp_path / name)
        with open_client(tmp_path / "runs") as client:
            answer = client.get(f"/run/linked-{name}")
            assert answer.status_code == 422
            assert "is a link" in answer.text


def test_a_changed_run_says_what_was_changed(
    runs: Any, tmp_path: Path, open_client: Callable[..., Any]
) -> None:
    run = runs.make_run(tmp_path / "bent", classes=2)
    (run / "predictions.parquet").write_bytes(b"PAR1 rubbish")
    with open_client(tmp_path) as client:
        answer = client.get("/run/bent")
    assert answer.status_code == 422
    assert "predictions.parquet" in answer.text
    assert str(tmp_path) not in answer.text or "bent" in answer.text


def test_everything_that_is_loaded_ahead_can_be_loaded() -> None:
    from holdfast.plugins.dashboard.pages import load_templates

    load_templates()


def test_looking_writes_nothing_into_a_run(asked: Any, shelf: Path) -> None:
    def marks() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
            for path in (shelf, *shelf.rglob("*"))
        }

    before = marks()
    for address in PAGES:
        asked.get(address)
    assert marks() == before


def test_a_run_of_thousands_of_looks_is_a_small_page(
    runs: Any, tmp_path: Path, open_client: Callable[..., Any]
) -> None:
    from holdfast.plugins.dashboard.pages import files

    runs.make_run(tmp_path / "long", classes=6, looks=2000)
    with open_client(tmp_path) as client:
        own = sum(len(one.content) for one in files().values())
        for tab in TABS:
            answer = client.get(f"/run/long?tab={tab}" if tab else "/run/long")
            assert len(answer.content) + own < 160_000
            # What goes over the wire.
            assert int(answer.headers["content-length"]) < 40_000
        text = client.get("/run/long?tab=making").text
        assert f"{MAX_DRAWN} of 2,000" in text or "of 2,000" in text


def test_unfinished_runs_show_what_is_there_of_them(asked: Any) -> None:
    text = asked.get("/run/going").text
    assert "Training, step 125" in text
    assert "was kept" not in text
    assert "<svg" in text
    stopped = asked.get("/run/stopped").text
    assert "Interrupted at step 100" in stopped
    assert "--resume" in stopped
    assert "is not JSON" in asked.get("/run/damaged").text


def test_comparing_says_what_differs_and_what_cannot_be_tested(asked: Any) -> None:
    page = asked.get("/compare?run=fine&run=project/worse")
    assert page.text.count('class="curve run2"') >= 2
    test = asked.get("/compare?run=fine&run=project/worse&part=paired")
    assert test.status_code == 200
    assert "cannot be tested" in test.text
    assert "There is no such run" in str(asked.get("/compare?run=nope&run=fine").text) or (
        "this run does not exist" in asked.get("/compare?run=nope&run=fine").text
    )


def test_findings_stand_by_the_data_they_are_of(asked: Any) -> None:
    text = asked.get("/data").text
    assert "reviews.csv" in text
    assert 'href="/run/fine?tab=data#findings"' in text or "tab=data#findings" in text


def test_a_body_beyond_the_bound_is_refused(asked: Any) -> None:
    origin = {"origin": "http://127.0.0.1:8081"}
    big = asked.post("/try?run=fine", data={"f.text": "x" * 400_000}, headers=origin)
    assert big.status_code == 413


def test_every_task_of_an_older_version_is_shown(
    old_runs: Path, open_client: Callable[..., Any]
) -> None:
    with open_client(old_runs / "runs") as client:
        names = [path.name for path in (old_runs / "runs").iterdir() if path.is_dir()]
        assert len(names) >= 5
        for name in names:
            for tab in TABS:
                assert client.get(f"/run/{name}?tab={tab}").status_code == 200
        listed = client.get("/").text
        assert all(f">{name}</bdi>" in listed for name in names)


def test_ten_thousand_folders_are_listed(tmp_path: Path, open_client: Callable[..., Any]) -> None:
    for i in range(1_000):
        (tmp_path / f"r{i}").mkdir()
        (tmp_path / f"r{i}" / "recipe.yaml").write_bytes(b"task: seq2seq\n")
    with open_client(tmp_path) as client:
        client.dashboard.runs.list_runs()
        answer = client.get("/?sort=name&page=20")
    assert "951 to 1000" in answer.text


@pytest.mark.parametrize("gone", ["events.jsonl", "recipe.yaml", "predictions.parquet"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_without_one_of_its_files_is_no_defect(
    runs: Any, open_client: Callable[..., Any], tmp_path: Path, gone: str, finished: bool
) -> None:
    run = runs.make_run(tmp_path / "r", classes=3)
    (run / gone).unlink()
    if not finished:
        (run / "result.json").unlink()
    with open_client(tmp_path) as client:
        for where in ("/", "/run/r", "/run/r?tab=data", "/run/r?part=live", "/compare?run=r"):
            found = client.get(where)
            assert found.status_code in (200, 422, 404), where
            assert "defect" not in found.text
        if finished and gone == "events.jsonl":
            assert "events.jsonl" in client.get("/run/r").text
