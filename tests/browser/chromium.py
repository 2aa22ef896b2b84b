"""Drives Debian's Chromium without a window, over the pipe that it offers for that.

Its protocol is JSON with a zero byte after each message. What we need of it fits here, and nothing has to
be installed but the browser itself: no driver, no package that every user of the kit would carry along.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60
"""Seconds that one answer may take; a busy machine starts a browser slowly."""

FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps"),
    *("--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars", "--remote-debugging-pipe"),
    # Nothing that a page names is ever found but this machine itself, so nothing leaves it.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)


class Chromium:
    """One running browser."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        """Speak over a pipe each way."""
        self.incoming, self.outgoing = incoming, outgoing
        self.number, self.unread = 0, b""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Call one method and return its result; what else is said meanwhile is kept in `events`."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": params}
        os.write(
            self.outgoing,
            json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0",
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self._hear(deadline, method)
            if said.get("id") != number:
                self.events.append(said)
            elif "error" in said:
                raise AssertionError(f"Chromium refuses {method}: {said['error']}")
            else:
                return dict(said["result"])

    def _hear(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.incoming], [], [], max(0.0, deadline - time.monotonic()))
            said = os.read(self.incoming, 1 << 20) if ready else b""
            assert said, f"Chromium {'ended' if ready else 'gave no answer'} ({method})"
            self.unread += said
        message, _, self.unread = self.unread.partition(b"\0")
        return dict(json.loads(message))


class Page:
    """One tab, with a file in it."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        """Take a tab that is attached to."""
        self.chromium, self.session = chromium, session

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method on this tab."""
        return self.chromium.ask(method, self.session, **params)

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the page."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 10) -> None:
        """Wait until an expression of JavaScript is true in the page."""
        deadline = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {expression}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press the left button in the middle of an element, as a hand would."""
        quoted = json.dumps(selector)
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({quoted});"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def photograph(self, path: Path, *, height: int = 0) -> None:
        """Keep what the page looks like, whole or its upper part."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        said = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(said["data"]))

    def _events(self, *methods: str) -> list[dict[str, Any]]:
        self.value("0")  # what was said before this answer has been heard
        return [
            event["params"]
            for event in self.chromium.events
            if event.get("sessionId") == self.session and event["method"] in methods
        ]

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for, its own file first."""
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    @property
    def complaints(self) -> list[str]:
        """What went wrong: errors thrown, written to the console, or told by the browser itself."""
        thrown = [str(event["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]
        written = [
            str(e) for e in self._events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")
        ]
        told = [e["entry"]["text"] for e in self._events("Log.entryAdded") if e["entry"]["level"] == "error"]
        return thrown + written + told


@contextmanager
def started(profile: Path) -> Iterator[Chromium]:
    """Start a browser on a fresh profile, and end it. Without Chromium the test fails; it is never skipped."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is not installed; `./inv test --yes` installs it", pytrace=False)
    # Above 4, so that moving them to 3 and 4, where Chromium expects them, overwrites none.
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (*os.pipe(), *os.pipe())]
    from_us, to_browser, from_browser, to_us = pipes
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    words = [program, *FLAGS, *root, f"--user-data-dir={profile}", "about:blank"]
    with (profile.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{to_us}', "bash", *words],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(from_us)
    os.close(to_us)
    chromium = Chromium(from_browser, to_browser)
    try:
        yield chromium
        chromium.ask("Browser.close")
        process.wait(PATIENCE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(from_browser)
        os.close(to_browser)


@contextmanager
def opened(
    chromium: Chromium,
    file: Path,
    *,
    width: int,
    height: int = 800,
    url: str = "",
    language: str = "en-US",
    dark: bool = False,
    scripts: bool = True,
) -> Iterator[Page]:
    """Open a file, or a URL, in a tab of its own, as a reader with that screen and language would see it.

    When a test fails there, a picture of the page is put beside the file, in the folder that pytest keeps; with
    a URL, that is all that the file is for.
    """
    target = chromium.ask("Target.createTarget", url="about:blank")["targetId"]
    session = chromium.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    page = Page(chromium, session)
    agent = chromium.ask("Browser.getVersion")["userAgent"]
    page.ask("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
    page.ask(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 600,
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.ask("Emulation.setEmulatedMedia", features=[scheme])
    page.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
    for domain in ("Network", "Runtime", "Log", "Page"):
        page.ask(f"{domain}.enable")
    page.ask("Page.navigate", url=url or file.as_uri())
    deadline = time.monotonic() + PATIENCE
    while not page._events("Page.loadEventFired"):
        assert time.monotonic() < deadline, f"{file} did not load"
        time.sleep(0.05)
    try:
        yield page
    except BaseException:
        with suppress(AssertionError, OSError):  # where the browser itself has ended
            page.photograph(file.with_suffix(".png"), height=6000)
        raise
    chromium.ask("Target.closeTarget", targetId=target)
