"""Headless Chromium for tests, by the DevTools protocol: pages are opened, clicked and looked at as people do.

`needs_chromium` skips a test where none is installed (Debian's package is `chromium`).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("127.0.0.1", "localhost", "")


def binary() -> str | None:
    """The browser's program, where there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(binary() is None, reason="no Chromium here: apt-get install -y chromium")


def core_seconds(*sessions: int) -> float:
    """User and system time of the living processes of these sessions: what they did, whoever else is at work."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += (int(fields[11]) + int(fields[12])) * (int(fields[3]) in sessions)
    return ticks / os.sysconf("SC_CLK_TCK")


class PageError(AssertionError):
    """JavaScript that a test ran on a page raised, or the page never came to what was waited for."""


class Page:
    """A tab. `problems` are errors of its console and scripts, `requests` the addresses that it asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse, session: int) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.session = session
        """Of the browser's processes, for `core_seconds`."""
        self.problems: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events that come meanwhile are kept. Raises PageError for a refused command."""
        self._number += 1
        number = self._number

        async def exchange() -> dict[str, Any]:
            await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
            while True:
                message = json.loads((await self._socket.receive(timeout=60)).data)
                if message.get("id") == number:
                    return dict(message)
                self._event(message)

        answer = self._loop.run_until_complete(exchange())
        if "error" in answer:
            raise PageError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def open(self, address: str) -> None:
        """Go to an address; returns before everything is loaded."""
        self.send("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, awaited where it is a promise. Raises PageError."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30.0) -> float:
        """Wait until an expression is true; seconds that it took. Raises PageError with what the page shows."""
        started = time.monotonic()
        while not self._true(script):
            if time.monotonic() - started > seconds:
                shown = self.run("document.body.innerText.slice(0, 2000)")
                raise PageError(f"not true after {seconds:g} s: {script}\nthe page shows:\n{shown}")
            time.sleep(0.02)
        return time.monotonic() - started

    def click(self, element: str) -> None:
        """Press and release the mouse on an element, an expression of JavaScript: menus hear nothing else."""
        box = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def size(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Size of the window in pixels, and which colours the user prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is to be seen, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def outside(self) -> list[str]:
        """Addresses off this machine that the page asked for."""
        return [a for a in self.requests if a.startswith(("http", "ws")) and urlsplit(a).hostname not in LOCAL]

    def _true(self, script: str) -> bool:
        try:
            return bool(self.run(f"!!({script})"))
        except PageError as error:
            if "context was destroyed" in str(error) or "Cannot find context" in str(error):
                return False  # the page has just changed
            raise

    def _event(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
            case "Runtime.consoleAPICalled" if params["type"] == "error":
                texts = [str(a.get("value", a.get("description", ""))) for a in params["args"]]
                self.problems.append(" ".join(texts))


@contextmanager
def page() -> Iterator[Page]:
    """A tab of a fresh browser without memory, closed at the end. AssertionError where none starts."""
    program = binary()
    assert program is not None, "no Chromium here"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                 "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
                 f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        null, home = subprocess.DEVNULL, {**os.environ, "HOME": profile}
        browser = subprocess.Popen([program, *flags], stdout=null, stderr=null, start_new_session=True, env=home)
        loop = asyncio.new_event_loop()
        try:
            session, socket = loop.run_until_complete(_connect(Path(profile), browser))
            try:
                yield Page(loop, socket, browser.pid)
            finally:
                loop.run_until_complete(socket.close())
                loop.run_until_complete(session.close())
        finally:
            browser.terminate()
            browser.wait(20)
            loop.close()


async def _connect(
    profile: Path, browser: subprocess.Popen[bytes]
) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    port = profile / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while not port.is_file() or not port.read_text().strip():
        assert browser.poll() is None, f"Chromium ended with {browser.returncode}"
        assert time.monotonic() < deadline, "Chromium did not start within a minute"
        await asyncio.sleep(0.05)
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list") as answer:
        tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
    return session, await session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0)
