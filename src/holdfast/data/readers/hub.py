"""Data sets of the Hugging Face hub, loaded with ``datasets``: ``name[:config][@split]``."""

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
    """A hub data set; ``split`` may be a slice such as ``train[:10%]``."""

    name: str
    config: str | None = None
    split: str | None = None


def parse_hub_name(source: str) -> HubName | None:
    """The parts of ``name[:config][@split]``, or ``None`` for a string of another form.

    >>> parse_hub_name("nyu-mll/glue:sst2@validation")
    HubName(name='nyu-mll/glue', config='sst2', split='validation')
    """
    match = _NAME.fullmatch(source)
    return HubName(match["name"], match["config"], match["split"]) if match else None


def split_names(hub: HubName) -> list[str]:
    """The splits of the data set, from the hub or from the cache. Raises ``DataError`` as
    ``read_hub`` does."""
    import datasets

    _refuse_file_format(hub)
    with _hub_errors(hub):
        return [str(name) for name in datasets.get_dataset_split_names(hub.name, hub.config)]


def read_hub(hub: HubName) -> Iterator[Batch]:
    """Rows of one split: the named one, else ``train``, else the only one. Class numbers
    (``ClassLabel``) become class names. ``datasets`` caches the download."""
    import datasets

    _refuse_file_format(hub)
    split = _split(hub)
    with _hub_errors(hub), without_progress_bars():
        rows = datasets.load_dataset(hub.name, hub.config, split=split)
    yield from batches(rows)


def _refuse_file_format(hub: HubName) -> None:
    """Refuse names that ``datasets`` reads as a file format: ``text`` would load every file of the
    current folder."""
    from datasets import packaged_modules

    # A private name of the library, which may disappear.
    if hub.name in getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        remedy = "Name a file, a folder of images, or a data set of the hub (owner/name)."
        raise DataError(hub.name, "is the name of a file format, not of a data set", None, remedy)


def batches(rows: datasets.Dataset) -> Iterator[Batch]:
    """A ``datasets.Dataset`` as strings."""
    yield typed_batch(with_class_names(rows, rows.with_format("arrow")[:0]))
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows.with_format("arrow")[start : start + BATCH_ROWS]
        yield typed_batch(with_class_names(rows, part))


def with_class_names(rows: datasets.Dataset, part: pa.Table) -> pa.Table:
    """The Arrow rows ``part`` of a ``datasets.Dataset``, with class names for class numbers."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    for position, (name, feature) in enumerate(rows.features.items()):
        if isinstance(feature, datasets.ClassLabel) and feature.names:
            # −1 marks rows without a label in data sets of the hub.
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
        notify(Decision("split", "train", f"the splits of the data set: {', '.join(names)}"))
        return "train"
    if len(names) == 1:
        notify(Decision("split", names[0], "it is the only split of the data set"))
        return names[0]
    rule = "has several splits, and none is named train"
    remedy = f"Name one: {hub.name}@{names[0] if names else 'split'}."
    raise DataError(hub.name, rule, ", ".join(names), remedy)


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Use only the cache where the hub's host name does not resolve: its client would retry for
    half a minute. Behind a proxy, the proxy resolves the name."""
    import datasets
    from huggingface_hub import constants

    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname or ""
    if urllib.request.getproxies() or _resolves(host):
        yield
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    # Both libraries read the variable at import: setting it now would have no effect.
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
    """Turn each type of error from the hub into one clear message."""
    try:
        with _offline_if_unreachable():
            yield
    except HoldfastError:
        raise
    except Exception as error:
        raise hub_error(hub, error) from error


def hub_error(hub: HubName, error: Exception) -> DataError:
    """The error for the user that matches the hub's error."""
    chain = " ".join(f"{type(e).__name__} {e}" for e in _causes(error))
    if "gated" in chain.lower():
        return DataError(
            hub.name,
            "is gated: its owner requires a licence to be accepted",
            None,
            f"Accept the licence on the data set's page on the hub ({hub.name}), create an access "
            "token with read permission in your settings there, and set HF_TOKEN to it.",
        )
    if re.search(r"Offline|Connection|Timeout|resolve|Network|LocalEntryNotFound", chain):
        return DataError(
            hub.name,
            "is not a local file, and the hub cannot be reached",
            None,
            "Check the path; or connect to the network (HF_HUB_OFFLINE unset) to download it once.",
        )
    if "DatasetNotFound" in chain or "RepositoryNotFound" in chain:
        return DataError(
            hub.name,
            "is neither a local file nor a data set on the hub",
            None,
            "Check the spelling; a private data set needs an access token in HF_TOKEN.",
        )
    if "script" in str(error).lower():
        return DataError(
            hub.name,
            "is loaded by a script, and Holdfast does not run remote code",
            None,
            "Look on the hub for a version in Parquet, or save it to a file yourself.",
        )
    remedy = f"The form is name[:config][@split], for example {hub.name}:config@train."
    return DataError(hub.name, f"cannot be loaded: {first_line(error)[:300]}", None, remedy)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
