"""Controls headless Chromium by its debugging protocol. It uses pipes, so it opens no port and needs no Python package."""

import base64
import json
import os
import pathlib
import subprocess
import tempfile


class Chromium:
    """A browser with one page. `problems` collects console errors, exceptions, and requests for anything but the page's file."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self.to = os.pipe()
        self.from_, to_write = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        command = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars"]
        flags += ["--force-color-profile=srgb", f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", "chromium", *flags], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self.number, self.buffer, self.session, self.problems, self.loaded = 0, b"", None, [], False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.profile.cleanup()

    def send(self, method, **params):
        """Sends a command and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self):
        while b"\0" not in self.buffer:
            read = os.read(self.from_, 1 << 20)
            if not read:
                raise RuntimeError("Chromium has ended")
            self.buffer += read
        message, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(message)
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.exceptionThrown":
                self.problems.append(params["exceptionDetails"].get("exception", {}).get("description", str(params)))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(str(params["entry"]))
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith(("file:", "data:", "blob:")):
                self.problems.append(f"a request: {params['request']['url']}")
        return message

    def open(self, path):
        """Opens a file, and waits until it is loaded."""
        self.loaded = False
        self.send("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        while not self.loaded:
            self._receive()

    def run(self, script):
        """Runs a script in the page and returns its value. If it returns a promise, waits for its result."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script[:80]}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def view(self, width, height=900, scheme="light", scale=1, media=""):
        """Sets the size of the window, the colour scheme, and the medium."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500
        )
        self.send("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path, is_beyond=True, **clip):
        """Writes a PNG of a part of the page. If the part extends beyond the window, the page is laid out again, and the pointer
        then points at something else."""
        options = {"clip": {"scale": 1, **clip}, "captureBeyondViewport": is_beyond}
        data = self.send("Page.captureScreenshot", format="png", **options)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def pointer(self, kind, x, y, **more):
        """Moves, presses or releases the mouse."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drop(self, path, x=200, y=200):
        """Drops a file on the page."""
        data = {"items": [], "files": [str(pathlib.Path(path).resolve())], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
