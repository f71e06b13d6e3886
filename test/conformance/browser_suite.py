"""Headless Chromium: a person opens the link to a workspace that sleeps.

The pod is page_pod.py: its page opens a WebSocket to its own host. So the page's text says that the pod was woken, that the
link became a cookie, that the cookie was sent with the upgrade, and that its Origin was found to be the workspace's own.
"""
import os
import shutil

from suite import Row, Skip, run_tool  # first: it says where the others are

from load import Client
from machine import Gateway, wait_until

POD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page_pod.py")
CASES = (
    # What it shows, whether the pod is put to sleep before, what the page has to say.
    ("a pod that never ran", False, "echo at /"),
    ("a pod that was put to sleep", True, "echo at /"),
)
# A page that waits is shown as it is then; it asks again by itself, so the budget covers several of its tries.
BROWSER = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=15000"]


def run(bench):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        raise Skip("chromium is not installed")
    with open(POD, encoding="utf-8") as file:
        script = file.read()
    folder = os.path.join(bench.folder, "data")
    # The script goes along in the command: pods may run as a user who can't read the checkout.
    command = f"exec /usr/bin/python3 - <<'END_OF_POD'\n{script}\nEND_OF_POD"
    gateway = Gateway(bench.program, folder, {"WAKEGATE_POD_COMMAND": command})
    try:
        client = Client(gateway)
        session = gateway.new_session(client)
        client.close()
        return [look(bench, browser, gateway, session, number, case) for number, case in enumerate(CASES)]
    finally:
        gateway.close()


def state_of(client, session):
    return client.call("GET", f"/session/{session}/status")


def look(bench, browser, gateway, session, number, case):
    title, asleep, expected = case
    client = Client(gateway)
    if asleep:
        client.call("POST", f"/session/{session}/sleep", {}, expect=202)
        wait_until(lambda: state_of(client, session)["replicas"] == 0, "the sleep", gateway.process)
    before = state_of(client, session)
    link = before["workspace_url"]
    profile = os.path.join(bench.folder, f"profile{number}")
    _, said = run_tool([browser, *BROWSER, f"--user-data-dir={profile}", "--dump-dom", link], 60)
    after = state_of(client, session)
    checks = (
        (before["replicas"] == 0, "the pod was awake before"),
        (f">{expected}<" in said, f"the page does not say {expected!r}: {said[-300:]!r}"),
        ("wakegate_link" not in said, "the page knows the link's token"),
        (after["replicas"] == 1, "the pod is not awake after"),
    )
    client.close()
    failures = [text for good, text in checks if not good]
    return Row("browser", title, len(checks) - len(failures), failures)
