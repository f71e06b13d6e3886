"""Headless Chromium, driven as its developer tools do it: by messages over two pipes."""
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

from suite import Skip  # first: it says where the others are

from load import Broken

WORDS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--remote-debugging-pipe"]
PATIENCE_S = 30
KEYS = {"Tab": 9, "Enter": 13}


class Chromium:
    """A browser with one page, as large as a phone's. `profile` is its folder."""

    def __init__(self, profile, width=360, height=640):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if not program:
            raise Skip("chromium is not installed")
        to_read, self.out = os.pipe()
        self.into, to_write = os.pipe()
        os.set_inheritable(to_read, True)
        os.set_inheritable(to_write, True)
        # It reads from descriptor 3 and writes to 4.
        shell = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        self.process = subprocess.Popen(["bash", "-c", shell, "bash", program, *WORDS, f"--user-data-dir={profile}"],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(to_read, to_write))
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.events = []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Page.enable")
            self.call("Log.enable")
            self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2,
                      mobile=True)
        except BaseException:
            self.close()
            raise

    def _message(self):
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.into], [], [], left)[0]:
                raise Broken("chromium says nothing")
            some = os.read(self.into, 65536)
            if not some:
                raise Broken("chromium has ended")
            self.buffer += some
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise Broken(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression, what):
        """Waits for an expression to hold; pages come and go meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(Broken):
                if self.value(f"!!({expression})"):
                    return
            time.sleep(0.02)
        raise Broken(f"{what}: {self.value('document.documentElement.outerHTML')[:2000]}")

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'", f"{url} does not open")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key):
        """A key of KEYS, down and up; Enter also gives a character, which is what forms listen for."""
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key],
                      text="\r" if kind == "char" else "")

    def focus(self):
        """What has the keyboard: its id, or its value."""
        return self.value("document.activeElement.id || document.activeElement.value || document.activeElement.tagName")

    def complaints(self):
        return [event["params"]["entry"]["text"] for event in self.events if event.get("method") == "Log.entryAdded"]

    def frames(self):
        tree = self.call("Page.getFrameTree")["frameTree"]
        return [child["frame"]["url"] for child in tree.get("childFrames", [])]

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self.out)  # it ends with its pipes
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self.into)
