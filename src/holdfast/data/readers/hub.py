"""A data set of the Hugging Face hub, through ``datasets``: ``name[:config][@split]``."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, HoldfastError
from holdfast.core.input_errors import first_line
from holdfast.core.records import Decision
from holdfast.data.raw import BATCH_ROWS, Batch
from holdfast.data.readers.parquet import typed_batch, with_list_names
from holdfast.data.table import without_progress_bars

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.+-]+))?(@(?P<split>[^@\s]+))?")


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set of the hub; ``split`` may be a slice such as ``train[:10%]``."""

    name: str
    config: str | None = None
    split: str | None = None


def parse_hub_name(source: str) -> HubName | None:
    """The parts of ``name[:config][@split]``, or ``None`` where it has not that form.

    >>> parse_hub_name("nyu-mll/glue:sst2@validation")
    HubName(name='nyu-mll/glue', config='sst2', split='validation')
    """
    match = _NAME.fullmatch(source)
    return HubName(match["name"], match["config"], match["split"]) if match else None


def split_names(hub: HubName) -> list[str]:
    """The splits that the data set has, by the hub or by the cache. Raises ``DataError`` as
    ``read_hub`` does."""
    import datasets

    _refuse_file_format(hub)
    with _hub_errors(hub):
        return [str(name) for name in datasets.get_dataset_split_names(hub.name, hub.config)]


def read_hub(hub: HubName) -> Iterator[Batch]:
    """Rows of one split: the one named, else ``train``, else the only one. A label that the data
    set names (``ClassLabel``) comes as its name. It is cached where ``datasets`` caches."""
    import datasets

    _refuse_file_format(hub)
    split = _split(hub)
    with _hub_errors(hub), without_progress_bars():
        rows = datasets.load_dataset(hub.name, hub.config, split=split)
    yield from batches(rows)


def _refuse_file_format(hub: HubName) -> None:
    """Refuse what ``datasets`` takes for a kind of file: ``text`` would be every file of the
    current folder."""
    from datasets import packaged_modules

    # A private name of the library's, which may go.
    if hub.name in getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        raise DataError(
            hub.name,
            "is a kind of file, not a data set",
            None,
            "Name a file, a folder of pictures, or a data set of the hub (owner/name).",
        )


def batches(rows: datasets.Dataset) -> Iterator[Batch]:
    """A ``datasets.Dataset`` as strings."""
    yield typed_batch(with_class_names(rows, rows.with_format("arrow")[:0]))
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows.with_format("arrow")[start : start + BATCH_ROWS]
        yield typed_batch(with_class_names(rows, part))


def with_class_names(rows: datasets.Dataset, part: pa.Table) -> pa.Table:
    """The Arrow rows ``part`` of a ``datasets.Dataset``, the numbers of its classes as names."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, (name, feature) in enumerate(rows.features.items()):
        if isinstance(feature, datasets.ClassLabel) and feature.names:
            # −1 is how data sets of the hub mark rows without a label.
            known = pc.if_else(pc.greater_equal(part[name], 0), part[name], None)
            part = part.set_column(position, name, pc.take(pa.array(feature.names), known))
        inner = getattr(feature, "feature", None)
        if isinstance(inner, datasets.ClassLabel) and inner.names:
            part = with_list_names(part, {name: inner.names})
    return part


def _split(hub: HubName) -> str:
    if hub.split:
        return hub.split
    names = split_names(hub)
    if "train" in names:
        notify(Decision("split", "train", f"the data set has {', '.join(names)}"))
        return "train"
    if len(names) == 1:
        notify(Decision("split", names[0], "the data set has no other"))
        return names[0]
    raise DataError(
        hub.name,
        "has several splits and none is called train",
        ", ".join(names),
        f"Name one: {hub.name}@{names[0] if names else 'split'}.",
    )


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Go straight to the cache where the hub's name does not resolve: its client would retry for
    half a minute. With a proxy, the name is the proxy's business."""
    import datasets
    from huggingface_hub import constants

    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname or ""
    if urllib.request.getproxies() or _resolves(host):
        yield
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    # Both libraries read the variable when they are imported: setting it now would change nothing.
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


@contextlib.contextmanager
def _hub_errors(hub: HubName) -> Iterator[None]:
    """Turn every refusal of the hub into one clear message: it knows many kinds of them."""
    try:
        with _offline_if_unreachable():
            yield
    except HoldfastError:
        raise
    except Exception as error:
        raise hub_error(hub, error) from error


def hub_error(hub: HubName, error: Exception) -> DataError:
    """What the hub's error means for the user."""
    chain = " ".join(f"{type(e).__name__} {e}" for e in _causes(error))
    if "gated" in chain.lower():
        return DataError(
            hub.name,
            "is gated: its owner gives access by licence",
            None,
            f"Accept the licence on the data set's page on the hub ({hub.name}), make an access "
            "token with read permission in your settings there, and put it into HF_TOKEN.",
        )
    if re.search(r"Offline|Connection|Timeout|resolve|Network|LocalEntryNotFound", chain):
        return DataError(
            hub.name,
            "is no file here, and the hub cannot be reached",
            None,
            "Check the path; or connect to the network (HF_HUB_OFFLINE unset) and fetch it once.",
        )
    if "DatasetNotFound" in chain or "RepositoryNotFound" in chain:
        return DataError(
            hub.name,
            "is neither a file here nor a data set on the hub",
            None,
            "Check the spelling; a private data set needs an access token in HF_TOKEN.",
        )
    if "script" in str(error).lower():
        return DataError(
            hub.name,
            "is made by a script, and remote code is not run",
            None,
            "Look on the hub for a version in Parquet, or save it to a file yourself.",
        )
    remedy = f"The form is name[:config][@split], e.g. {hub.name}:config@train."
    return DataError(hub.name, f"cannot be loaded: {first_line(error)[:300]}", None, remedy)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
