"""Alerts for a changed verdict: a command, a webhook.

Neither can slow down, stop or fail a run: both are sent from a thread with a time-out, a webhook
with two retries, and failures are recorded. A webhook's address is a secret, so a recipe names the
environment variable that contains it, and the address is never written or printed. A command may
also contain secrets, so it appears only in ``recipe.yaml``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holdfast.core.errors import RecipeError
from holdfast.core.labels import is_requested
from holdfast.core.records import Decision

if TYPE_CHECKING:
    from holdfast.training.run import Run

TIMEOUT_S = 10.0
TRIES = 3
FIRST_WAIT_S = 1.0
LAST_WAIT_S = 15.0
VARIABLE = "env:"


# The content of an alert, by name.
Message = Mapping[str, str | int | float | None]


class Alerts:
    """A listener that sends an alert when the verdict's label changes to one of ``on``.

    The verdict of step 0 gives no alert: nothing has been learned yet, and faults of the data are
    findings. If it still holds at the first evaluation after that, the alert is sent then. The last
    alerted label is part of a checkpoint, so a resumed run does not repeat it. A failed delivery is
    reported as a decision after the run.
    """

    name, place = "alerts", "tell"

    def __init__(
        self, on: Sequence[str], command: str | None, webhook: str | None, run: str
    ) -> None:
        self._labels = frozenset(on)
        self._senders = [
            sender
            for sender in (
                _command(command) if command else None,
                _webhook(address_of(webhook)) if webhook else None,
            )
            if sender
        ]
        self._run = run
        self._last: str | None = None
        self._threads: list[threading.Thread] = []
        self._failed: list[Decision] = []

    def snapshot_taken(self, run: Run) -> None:
        verdict = run.verdict
        if verdict is None or run.step == 0 or verdict.label == self._last:
            return
        self._last = verdict.label
        if is_requested(verdict.label, self._labels):
            message = {
                "run": self._run,
                "step": run.step,
                "verdict": verdict.label,
                "because": verdict.because,
                "confidence": verdict.confidence,
                "since_step": verdict.since_step,
                "cause": verdict.cause,
            }
            for sender in self._senders:
                # A daemon thread: an address that never responds does not block the process's exit.
                thread = threading.Thread(target=self._send, args=(sender, message), daemon=True)
                thread.start()
                self._threads.append(thread)

    def run_end(self, run: Run) -> None:
        """Wait a limited time for pending alerts, and report what was not delivered."""
        deadline = time.monotonic() + LAST_WAIT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = sum(thread.is_alive() for thread in self._threads)
        if late:
            self._failed.append(
                Decision("alert", "not delivered", f"{late} took too long", prominent=True)
            )
        for failure in self._failed:
            run.journal.decide(run.step, failure)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state: Mapping[str, str | None]) -> None:
        self._last = state["last"]

    def _send(self, sender: Callable[[Message], None], message: Message) -> None:
        try:
            sender(message)
        except Exception as error:
            # An alert never fails a run, and a thread's traceback would print the address.
            self._failed.append(Decision("alert", "not delivered", _reason(error), prominent=True))


def address_of(webhook: str) -> str:
    """The address in the environment variable that ``env:NAME`` names.

    Raises ``RecipeError``, which never contains the address, where the recipe contains the address
    itself, the variable is empty, or its value is not a valid address: no http(s), no host, an
    invalid port, a user name or password before the host, a space, a control character or a
    non-ASCII letter.
    """
    name = webhook.removeprefix(VARIABLE)
    if name == webhook or not name.isidentifier():
        rule = "must name an environment variable, since an address is a secret"
        remedy = "Put the address into a variable and write env:NAME, e.g. env:HOLDFAST_WEBHOOK."
        raise RecipeError("alert.webhook", rule, None, remedy)
    address = os.environ.get(name, "")
    fault = _fault(address)
    if fault is not None:
        remedy = f"Set {name} before the run, or leave alert.webhook out."
        raise RecipeError("alert.webhook", f"the environment variable {name} {fault}", None, remedy)
    return address


def _fault(address: str) -> str | None:
    """What is wrong with an address, without quoting it."""
    if not all("!" <= character <= "~" for character in address):
        return "contains a space or a character that is not allowed in a web address"
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname, parts.port, parts.username
        # Name resolution refuses an empty part, or one of more than 63 letters.
        (host or "").encode("idna")
    except ValueError:
        return "contains no valid http(s) address: its host or port is wrong"
    if parts.scheme not in ("http", "https") or not host:
        return "contains no http(s) address"
    if port == 0:
        return "contains an invalid port"
    if user is not None:
        return "contains a user name before the host, which is not allowed"
    return None


def _command(command: str) -> Callable[[dict[str, Any]], None]:
    """A shell command that gets the alert as JSON on its standard input."""

    def run(message: Message) -> None:
        # A session of its own: killing the shell would leave its child processes running.
        with subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                process.communicate(json.dumps(message), timeout=TIMEOUT_S)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "")

    return run


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Do not follow a redirect, so that it counts as a refused POST: followed, it would become a
    GET without the alert, to any host that it names."""

    def redirect_request(self, *_: object) -> None:
        return None


def _webhook(address: str) -> Callable[[dict[str, Any]], None]:
    """A POST of the alert as JSON; retried after a time-out, a refusal or a 5xx response. Only a
    2xx response counts as delivered."""
    opener = urllib.request.build_opener(_NoRedirect)

    def post(message: Message) -> None:
        body = json.dumps(message).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        for attempt in range(TRIES):
            try:
                with opener.open(request, timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < 500 or attempt == TRIES - 1:
                    raise
            except OSError:
                if attempt == TRIES - 1:
                    raise
            time.sleep(FIRST_WAIT_S * 2**attempt)

    return post


def _reason(error: Exception) -> str:
    """What went wrong, without the address or the command, which may contain secrets."""
    if isinstance(error, urllib.error.HTTPError):
        redirect = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
        return f"the webhook responded with {error.code}{redirect}"
    if isinstance(error, http.client.HTTPException):
        return "the webhook's response is not HTTP"
    if isinstance(error, subprocess.CalledProcessError):
        return f"the command ended with exit code {error.returncode}"
    if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
        return f"no response within {TIMEOUT_S:g} s"
    return f"{type(error).__name__}"
