"""The head of a Ray cluster: whether it answers before a sweep begins, and as long as it runs."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.clusters.token import TOKEN
from harness.errors import EXIT_FAILED, BadInput, Problem, command, without_secrets

ANSWER_S = 5.0
"""Within this a head takes a connection."""
SAID_S = 10.0
"""A head that takes none for so long is said not to answer."""
SILENT_S = 60.0
"""A head that takes none for so long is lost."""
RAY_WAITS_S = 120
"""For so long Ray itself waits for a head before it ends this process without a word; its default is a minute."""
EVERY_S = 2.0
LEAVE_S = 15.0
"""For a clean end, which Ray without its head mostly does not come to."""
CLIENT_PORT = 10001
START = "start a head there with `ray start --head --port=6379`, or leave the word out for this machine alone"


def place_of(address: str) -> tuple[str, int] | None:
    """Host and port of `10.0.0.1:6379` or `ray://host[:port]`; None for `auto` and what Ray itself has to find."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        return host.strip("[]"), int(port)
    return (address.removeprefix("ray://"), CLIENT_PORT) if address.startswith("ray://") else None


def check_head(address: str) -> None:
    """Raises BadInput, after ANSWER_S at most, where nothing answers at an address with a host and a port."""
    place = place_of(address)
    why = silence(place) if place is not None else ""
    if why:
        raise BadInput(Problem("address", f"no Ray head answers at {address} ({why})", START))


def check_token(address: str) -> None:
    """Raises BadInput where the head at an address of Ray refuses this machine's token; Ray itself tries for 47 s.

    A `ray://` address is not asked: its port is another one.
    """
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    gcs = None if address.startswith("ray://") else canonicalize_bootstrap_address(address)
    if gcs is None:
        return
    try:
        with quiet():
            GcsClient(address=gcs)
    except AuthenticationError as error:
        mode, path = os.environ.get("RAY_AUTH_MODE", "disabled"), os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN)
        held = "RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else path
        with_what = "no token (RAY_AUTH_MODE is not token)" if mode != "token" else f"the token of {held}"
        fix = f"RAY_AUTH_MODE=token, and the token of the cluster: {TOKEN} of its head, copied to {TOKEN} here"
        raise BadInput(Problem("address", f"the Ray head at {gcs} refuses {with_what}", fix)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """While this lasts nothing reaches the process's standard error, not even from C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def silence(place: tuple[str, int], timeout: float = ANSWER_S) -> str:
    """Why nobody takes a connection there; empty where somebody does."""
    try:
        with socket.create_connection(place, timeout=timeout):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def say_aloud(text: str) -> None:
    """On standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def _this() -> str:
    """The command that this process runs, for a shell."""
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    ours = module if module.startswith(("harness.", "reports.")) else "harness.sweep"
    words = (without_secrets(word) for word in sys.argv[1:] if "=" in word)
    return command(ours, *words)


def end_process(message: str) -> None:
    """Says why the sweep ends and asks the main thread to end; ends the process where Ray keeps that from happening."""
    import _thread

    say_aloud(message)
    _thread.interrupt_main()
    time.sleep(LEAVE_S)
    os._exit(EXIT_FAILED)


@contextmanager
def watched_head(
    address: str,
    lost: Callable[[str], None] = end_process,
    say: Callable[[str], None] = say_aloud,
    *,
    every_s: float = EVERY_S,
    said_s: float = SAID_S,
    silent_s: float = SILENT_S,
) -> Iterator[None]:
    """Says when the head at `address` takes no connection for `said_s` seconds, and when it does again; calls `lost`
    with what to say, once, when it takes none for `silent_s`."""
    stop, place = threading.Event(), place_of(address)

    def watch(place: tuple[str, int]) -> None:
        heard, told = time.monotonic(), False
        while not stop.wait(every_s):
            why = silence(place, every_s)
            silent = time.monotonic() - heard
            if not why:
                if told:
                    say(f"the Ray head at {address} answers again, after {silent:.0f} s")
                heard, told = time.monotonic(), False
            elif silent >= silent_s and not stop.is_set():
                lost(
                    f"error: the Ray head at {address} has not answered for {silent:.0f} s ({why}): the sweep ends "
                    f"here. What its runs wrote is in the store; when a head is up again, this continues: {_this()}"
                )
                return
            elif silent >= said_s and not told:
                told = True
                say(f"the Ray head at {address} does not answer ({why}): waiting for it, {silent_s:.0f} s at most")

    if place is not None:
        threading.Thread(target=watch, args=(place,), name="head-watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
