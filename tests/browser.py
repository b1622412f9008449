"""A headless Chromium with a virtual authenticator, driven over its DevTools protocol."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

WAIT_S = 60.0
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Browser:
    """One page; `ask` evaluates JavaScript in it."""

    def __init__(self, profile: Path) -> None:
        command = [shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._numbers, self._closing = itertools.count(1), ExitStack()
        self._closing.callback(self._end)
        try:
            self._socket = self._closing.enter_context(
                connect(self._page(profile / "DevToolsActivePort"), max_size=None)
            )
        except BaseException:
            self._closing.close()
            raise
        self.send("Page.enable")
        self.send("WebAuthn.enable")
        self.send("WebAuthn.addVirtualAuthenticator", options=AUTHENTICATOR)

    def _page(self, port_file: Path) -> str:
        deadline = time.monotonic() + WAIT_S
        while not port_file.exists() or not port_file.read_text():
            assert time.monotonic() < deadline, "Chromium did not start"
            assert self._process.poll() is None, "Chromium ended"
            time.sleep(0.1)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT_S) as answer:
            [page] = [target for target in json.load(answer) if target["type"] == "page"]
        return str(page["webSocketDebuggerUrl"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=WAIT_S))).get("id") != number:
            pass
        assert "error" not in answer, answer
        return dict(answer["result"])

    def ask(self, script: str) -> Any:
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """The first true value of a script."""
        deadline = time.monotonic() + WAIT_S
        while not (found := self.ask(script)):
            assert time.monotonic() < deadline, f"{script} stayed {found!r}; the page says {self.text()!r}"
            time.sleep(0.1)
        return found

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def text(self) -> str:
        return str(self.ask("document.body.innerText"))

    def click(self, button: str) -> None:
        self.ask(f"document.getElementById({button!r}).click()")

    def said(self) -> str:
        """What the page answers after a click."""
        return str(self.until("document.getElementById('said')?.textContent"))

    def screenshot(self, path: Path) -> None:
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        self._closing.close()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()
