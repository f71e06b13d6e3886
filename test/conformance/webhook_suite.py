"""Webhooks: deliveries verify with the libraries standardwebhooks and svix (npm), and with the verifiers that the seeds show, in
JavaScript and in Python, under every surface's header.

The packages are installed once, below WAKEGATE_CONFORMANCE_DIR.
"""
import hashlib
import hmac
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

from suite import Row, Skip  # first: it says where the others are

from load import Broken
from machine import Gateway

PACKAGES = ("standardwebhooks@1", "svix@1")
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "webhook_clients.cjs")
SETTINGS = {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
OWN = {"session": None, "inference": None, "provision": "x-self-signature", "gpu": "x-dumont-signature"}
SECRETS = {"made": None, "given, whsec_": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "given, raw": "your_webhook_secret"}
DATA = {"id": "job_1", "text": "\u00e4\u4e2d\U0001f680 \"quoted\" \\ / \u2028", "cost": "0.00132", "list": [1, 2.5, None, True, {}]}


class Sink:
    def __init__(self):
        self.arrivals = []
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                sink.arrivals.append({"headers": {name.lower(): value for name, value in self.headers.items()}, "body": body})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count):
        deadline = time.monotonic() + 30
        while len(self.arrivals) < count:
            if time.monotonic() > deadline:
                raise Broken(f"{len(self.arrivals)} of {count} deliveries arrived")
            time.sleep(0.02)
        return self.arrivals[count - 1]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def call(gateway, key, path, body=None):
    request = urllib.request.Request(f"{gateway.origin}/api/v1/webhooks{path}", json.dumps(body or {}).encode(),
                                     {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Broken(f"{path}: {error.read().decode()}") from None


def deliveries(gateway, sink):
    """One of every surface under every kind of secret, and one while an old secret signs along."""
    key = gateway.limited_key()
    found = []
    for kind, given in SECRETS.items():
        hook = call(gateway, key, "", {"url": sink.url, "events": ["*"], **({"secret": given} if given else {})})
        secret, old = hook["secret"], None
        for surface, own in [*OWN.items(), ("inference", None)]:
            if len(found) % 5 == 4:
                old = secret
                secret = call(gateway, key, f"/{hook['id']}/rotate-secret",
                              {"overlap_seconds": 600, **({"secret": "another_webhook_secret"} if kind == "given, raw" else {})})["secret"]
            call(gateway, key, f"/{hook['id']}/test", {"event": "job.completed", "surface": surface, "data": DATA})
            arrival = sink.wait(len(found) + 1)
            found.append({**arrival, "name": f"{kind} secret, {surface}", "secret": secret, "old": old, "own": own,
                          "raw": kind == "given, raw"})
    return found


# ---- JavaScript ----

def packages(bench):
    folder = os.path.join(bench.cache, "webhooks")
    missing = [name for name in PACKAGES if not os.path.isdir(os.path.join(folder, "node_modules", name.split("@")[0]))]
    if missing:
        os.makedirs(folder, exist_ok=True)
        if not shutil.which("npm"):
            raise Skip("npm is not installed")
        done = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise Skip(f"npm can't have {' '.join(missing)}: {(done.stderr.strip().splitlines() or [''])[0]}")
    shutil.copy(SCRIPT, folder)  # where its imports are found
    return os.path.join(folder, os.path.basename(SCRIPT))


def run_javascript(bench, found):
    try:
        if not shutil.which("node"):
            raise Skip("node is not installed")
        script = packages(bench)
    except Skip as skip:
        return [Row("webhooks", "standardwebhooks, svix", skipped=1, note=str(skip))]
    done = subprocess.run(["node", script], input=json.dumps(found), capture_output=True, text=True, timeout=120)
    groups = {}
    for line in done.stdout.splitlines():
        check = json.loads(line)
        groups.setdefault(check["group"], []).append(check)
    rows = []
    for group, checks in groups.items():
        failures = [f"{check['name']}: {check['problem']}" for check in checks if check["problem"]]
        rows.append(Row("webhooks", group, len(checks) - len(failures), failures))
    if done.returncode:
        rows.append(Row("webhooks", "standardwebhooks, svix", failures=[done.stderr[-1000:]]))
    return rows


# ---- Python ----

# As it stands in seed 5.
def validate_webhook(payload, signature, secret):
    expected = hmac.new(
        secret.encode(),
        payload.encode(),
        hashlib.sha256
    ).hexdigest()

    return hmac.compare_digest(signature, expected)


def run_python(found):
    passed, failures = 0, []
    for delivery in found:
        for header in filter(None, ("x-webhook-signature", delivery["own"])):
            good = validate_webhook(delivery["body"], delivery["headers"].get(header, ""), delivery["secret"])
            bad = validate_webhook(delivery["body"] + " ", delivery["headers"].get(header, ""), delivery["secret"])
            if good and not bad:
                passed += 1
            else:
                failures.append(f"{delivery['name']}, {header}")
    return [Row("webhooks", "the verifier of seed 5", passed, failures)]


def run(bench):
    sink = Sink()
    gateway = None
    try:
        gateway = Gateway(bench.program, os.path.join(bench.folder, "data"), SETTINGS)
        found = deliveries(gateway, sink)
        return run_javascript(bench, found) + run_python(found)
    finally:
        if gateway:
            gateway.close()
        sink.close()
