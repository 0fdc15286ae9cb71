"""Shared fixtures: the real data beside the project, and one thread for every test."""

from __future__ import annotations

import csv
import gc
import importlib.util
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from holdfast.data.table import Columns, Table

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A question with a defect costs a user no run; here it fails the test.
os.environ.setdefault("HOLDFAST_DEFECTS", "raise")
# A GPU rounds in another order from run to run, and what the tests plan is for a processor.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# No test depends on the models that lie on a machine, or on what was measured there.
EMPTY = tempfile.TemporaryDirectory(prefix="holdfast-tests-")
os.environ["HF_HUB_CACHE"] = str(Path(EMPTY.name) / "hub")
os.environ["HOLDFAST_CACHE"] = str(Path(EMPTY.name) / "cache")
os.environ.pop("HOLDFAST_MODELS", None)
# A busy machine fails no property; a fixture of a function may serve all examples of its test.
settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")


def beside(name: str) -> Any:
    """A module of this folder, which no path leads to."""
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"tests_{name}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROCESSES = beside("processes")
# Before the first test starts anything.
PROCESSES.inherit_no_signals()
PROCESSES.take_in_orphans()


# Everything that collection makes stays to the end: see ``pytest_collection_finish``.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(PROCESSES, "processes")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", help="only a part of the files: 0/3, 1/3 or 2/3 is a third of them")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption("--part")
    if part is None:
        return
    place, parts = map(int, part.split("/"))
    chosen = {path for path in {item.path for item in items} if _number(path) % parts == place}
    config.hook.pytest_deselected(items=[item for item in items if item.path not in chosen])
    items[:] = [item for item in items if item.path in chosen]


def _number(path: Path) -> int:
    """Of a file's name, so that a new file moves no other to another part."""
    return zlib.crc32(f"{path.parent.name}/{path.name}".encode())


def pytest_collection_finish(session: pytest.Session) -> None:
    # Thirteen thousand tests and the libraries they import stay to the end. Whoever collects
    # garbage, as each training of transformers does, need not walk through them again.
    if len(session.items) > 1000:
        importlib.import_module("transformers.trainer")
    gc.freeze()
    gc.enable()


BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    # Names other than this machine's have no address.
    "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


# Of a module: while it is open its thread runs an event loop, which other tests begin themselves.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, which reaches this machine alone."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("needs Chromium on the path")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=BROWSER)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HOLDFAST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets: set HOLDFAST_DATA to their folder ({folder})")
    return folder


class Cluster:
    """A throwaway PostgreSQL, on a socket alone, which may be stopped and started."""

    def __init__(self, bins: Sequence[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._initdb, self._pg_ctl = bins
        self._before: list[str] = []
        if os.geteuid() == 0:
            # The server refuses to run as root.
            self._before = ["runuser", "-u", "nobody", "--"]
            shutil.chown(self.folder, "nobody")
        data = str(self.folder / "data")
        own = ("-U", "holdfast", "--auth=trust", "--no-sync", "-E", "UTF8")
        self._run(self._initdb, "-D", data, *own)
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://holdfast:s3cret@/{database}?host={self.folder}"

    def fresh(self, name: str) -> str:
        """The URL of a new, empty database."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self._run(self._pg_ctl, *self._data(), "-w", "-l", log, "-o", options, "start")
        # A test may stop it and start it again: it is the session's all the same.
        server = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        PROCESSES.SHARED.add(int(server))

    def stop(self) -> None:
        self._run(self._pg_ctl, *self._data(), "-m", "immediate", "stop")

    def _data(self) -> tuple[str, str]:
        return "-D", str(self.folder / "data")

    def _run(self, *command: str) -> None:
        subprocess.run([*self._before, *command], check=True, capture_output=True, cwd=self.folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Debian keeps the server's own commands off the path.
    places = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), os.environ["PATH"]]
    bins = [shutil.which(name, path=":".join(places)) for name in ("initdb", "pg_ctl")]
    if None in bins:
        pytest.skip("needs PostgreSQL: initdb and pg_ctl")
    made = Cluster([str(one) for one in bins])
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def postgres(cluster: Cluster) -> str:
    """The URL of a database in a throwaway cluster."""
    return cluster.url()


@pytest.fixture(scope="session")
def tagged() -> Any:
    """``tests/sentences.py``: sentences with tags, and files of them."""
    return beside("sentences")


@pytest.fixture(scope="session")
def verdicts() -> Any:
    """``tests/verdicts.py``: every verdict that the judge can give."""
    return beside("verdicts")


@pytest.fixture
def as_nobody() -> Iterator[Callable[..., Any]]:
    """``as_nobody(prepare, act)``: what ``act(folder)`` returns without rights beyond those that
    modes give, after ``prepare(folder)`` with all of ours.

    Root writes to every folder whatever its mode, so such a test says nothing as root. It is the
    effective user that changes, and back: a process with threads is not forked for it.
    """
    folder = Path(tempfile.mkdtemp(prefix="nobody-"))
    folder.chmod(0o777)

    def run(prepare: Callable[[Path], object], act: Callable[[Path], object]) -> Any:
        prepare(folder)
        if os.geteuid() != 0:
            return act(folder)
        groups, group = os.getgroups(), os.getegid()
        try:
            os.setgroups([])
            os.setegid(65534)
            os.seteuid(65534)
            return act(folder)
        finally:
            os.seteuid(0)
            os.setegid(group)
            os.setgroups(groups)

    yield run
    for path in (folder, *folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``once(name, make)``: a folder or file that ``make(path)`` has made, once for all processes
    of the run: to be read only."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        base = tmp_path_factory.getbasetemp()
        root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
        root.mkdir(exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not (done := root / f"{name}.done").exists():
                make(root / name)
                done.touch()
        return root / name

    return made


WORDS = [f"w{i}" for i in range(40)]
MARKS = ["bad", "good", "odd"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Killed(BaseException):
    """What a test raises from inside a run to end it as a kill would."""


@pytest.fixture(scope="session")
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture(scope="session")
def tiny_model(once: Any) -> Path:
    """A folder with a BERT of two layers of 32 units, drawn at random, that reads WORDS and
    MARKS."""
    return Path(once("tiny-bert", _make_tiny_model))


def _make_tiny_model(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(
            BertConfig(
                vocab_size=len(SPECIAL + WORDS + MARKS),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                max_position_embeddings=64,
                initializer_range=0.2,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()
    word_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="session")
def letters_model(once: Any) -> Path:
    """A folder with a BERT of one layer, drawn at random, that reads letters and digits: another
    vocabulary than ``tiny_model``'s."""
    return Path(once("bert", _make_letters_model))


def _make_letters_model(folder: Path) -> None:
    import string

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    signs = string.ascii_lowercase + string.digits
    known = [*SPECIAL, *signs, *(f"##{sign}" for sign in signs)]
    inner = Tokenizer(models.WordPiece({t: i for i, t in enumerate(known)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{key}_token": token for key, token in names.items()}
    ).save_pretrained(folder)
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(
            BertConfig(
                vocab_size=len(known),
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=48,
                max_position_embeddings=128,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS + MARKS)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, **{f"{key}_token": token for key, token in names.items()}
    )


@pytest.fixture(scope="session")
def marked_rows() -> Callable[..., list[tuple[str, str]]]:
    """Texts of random words, each with the mark of its class, or (one in ten) of another."""

    def make(
        n: int = 160, classes: Sequence[str] = ("no", "yes"), seed: int = 0
    ) -> list[tuple[str, str]]:
        rng = np.random.default_rng(seed)
        rows = []
        for index in range(n):
            right = index % len(classes)
            mark = MARKS[right if rng.random() < 0.9 else (right + 1) % len(classes)]
            words = [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(6, 14))]
            words.insert(int(rng.integers(0, len(words))), mark)
            rows.append((" ".join(words), classes[right]))
        return rows

    return make


@pytest.fixture(scope="session")
def write_csv() -> Callable[..., Path]:
    """Write rows under a header and give the path."""

    def write(
        path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")
    ) -> Path:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture(scope="session")
def marked_csv(once: Any, marked_rows: Any, write_csv: Any) -> Path:
    """160 rows of two classes."""
    return Path(once("reviews.csv", lambda path: write_csv(path, marked_rows())))


@pytest.fixture(scope="session")
def quick(tiny_model: Path) -> list[str]:
    """The settings of a run of a second: ``--set`` strings."""
    return [
        f"model.name={tiny_model}",
        "train.epochs=3",
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
        "train.learning_rate=1e-3",
        # Else the default plan would be tried.
        "control.policy=stop",
        "methods.contrast.steps=3",
    ]


@pytest.fixture(scope="session")
def finished_run(once: Any, marked_csv: Path, quick: list[str]) -> Path:
    """The folder of a finished run, to be read only."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    asked = override(Recipe(), [f"data.path={marked_csv}", *quick])
    folder = Path(once("finished", lambda folder: train(asked, folder)))
    LEFT[folder] = _state(folder)
    return folder


# The files of ``finished_run`` as the last test left them.
LEFT: dict[Path, dict[str, tuple[int, int]]] = {}


@pytest.fixture(autouse=True)
def _finished_run_stays_as_it_is(request: pytest.FixtureRequest) -> Iterator[None]:
    """Blames the test that writes into the folder that all share, not the one that meets it."""
    yield
    if "finished_run" not in request.fixturenames:
        return
    run: Path = request.getfixturevalue("finished_run")
    now = _state(run)
    # The next test is not blamed for what this one left, or a fixture of its module.
    before, LEFT[run] = LEFT[run], now
    assert now == before, "finished_run is to be read only: work on a copy of it"


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="session")
def old_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of an older version under ``runs/``, one of each task, their rows under
    ``rows/``, and what its commands said of each under ``said/``."""
    folder = tmp_path_factory.mktemp("old")
    archive = Path(__file__).parent / "journeys" / "old_runs" / "runs.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def tiny_llama(once: Any) -> Path:
    """A folder with a Llama of two layers of 32 units, drawn at random, and a byte-level tokenizer
    with a start token that it adds by itself and no chat template."""
    return Path(once("tiny-llama", _make_tiny_llama))


def _make_tiny_llama(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", *letters])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=256,
                bos_token_id=0,
                eos_token_id=1,
                initializer_range=0.2,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def merging_llama(once: Any, tiny_llama: Path) -> Path:
    """As ``tiny_llama``, with a tokenizer whose pieces are longer than a byte, and few heads of key
    and value."""
    return Path(once("merging-llama", lambda folder: _make_merging_llama(folder, tiny_llama)))


def _make_merging_llama(folder: Path, tiny_llama: Path) -> None:
    import torch
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    simple = AutoTokenizer.from_pretrained(tiny_llama).backend_tokenizer
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = simple.pre_tokenizer, simple.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(["a film was good, and the other film was not"] * 9, trainer)
    inner.post_processor = simple.post_processor
    inner.add_tokens([AddedToken("<think>", normalized=False)])
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=inner.get_vocab_size(),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                bos_token_id=0,
                eos_token_id=1,
                initializer_range=0.2,
            )
        ).save_pretrained(folder)
    logging.enable_progress_bar()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., Table]:
    return _make_table


def _make_table(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
    source_rows: int | None = None,
    source: str = "source.csv",
) -> Table:
    import datasets

    names = tuple(sorted(set(labels))) if classes is None else tuple(classes)
    columns: dict[str, object] = {
        "row": np.arange(len(texts)) if rows is None else np.asarray(rows, dtype=np.int64),
        "text": list(texts),
        "label": np.array([names.index(label) for label in labels], dtype=np.int64),
    }
    if groups is not None:
        columns["group"] = list(groups)
    if pairs is not None:
        columns["text_pair"] = list(pairs)
    held = datasets.Dataset.from_dict(columns)
    return Table(held, names, Columns(("text",), "label"), source, source_rows or len(texts))


@pytest.fixture(scope="session")
def real_texts(shared_data: Path) -> Callable[[str], tuple[list[str], list[str]]]:
    def read(name: str) -> tuple[list[str], list[str]]:
        with (shared_data / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["label"] for row in rows]

    return read


@pytest.fixture(scope="session")
def alter() -> Callable[[str, Sequence[str], random.Random], str]:
    """Replace max(1, n // 10) words of a text by random words of the corpus."""

    def altered(text: str, corpus: Sequence[str], rng: random.Random) -> str:
        words = text.split()
        for at in rng.sample(range(len(words)), max(1, len(words) // 10)):
            words[at] = rng.choice(corpus)
        return " ".join(words)

    return altered
