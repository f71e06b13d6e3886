"""A session's workspace as its visitors meet it: vs-code-{uuid}.localhost, with a link or a cookie."""

import contextlib
import hashlib
import http.client
import os
import re
import socket
from urllib.parse import parse_qs, urlsplit

import requests

from books import read_lines
from stores import wait_until

POD_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workspace_pod.py")
COOKIE = "wakegate_workspace"
PARAM = "wakegate_link"
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
BLOCK = hashlib.sha256(b"wakegate").digest() * 2048  # what workspace_pod.py sends, again and again


def pod_settings(argument="", **settings):
    return {"WAKEGATE_POD_COMMAND": f"exec /usr/bin/python3 -I -S {POD_SCRIPT} {argument}", **settings}


class Workspace:
    def __init__(self, gateway, uuid=None):
        self.gateway = gateway
        self.client = gateway.client()
        self.uuid = uuid or self.client.create()
        self.port = urlsplit(gateway.url).port
        self.host = f"vs-code-{self.uuid}.localhost:{self.port}"
        self.url = f"http://{self.host}"
        self.kept = None

    def link_url(self):
        return self.client.status(self.uuid).json()["workspace_url"]

    def link(self):
        return parse_qs(urlsplit(self.link_url()).query)[PARAM][0]

    def cookie(self):
        """The field's value, from following a link once as a browser does, which wakes nobody."""
        if not self.kept:
            answer = self.call("GET", f"/?{PARAM}={self.link()}", headers={"Cookie": None, **BROWSER})
            assert answer.status_code == 302, answer.text
            self.kept = answer.headers["Set-Cookie"].split(";")[0]
        return self.kept

    def call(self, method, path, headers=None, **options):
        """By python-requests, which may spell the path anew; with the cookie, unless headers say otherwise."""
        given = dict(headers or {})
        fields = {"Host": self.host, **given}
        if "Cookie" not in given:
            fields["Cookie"] = self.cookie()
        fields = {name: value for name, value in fields.items() if value is not None}
        options.setdefault("timeout", 60)
        options.setdefault("allow_redirects", False)
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=fields, **options)

    def get(self, path="/", **options):
        return self.call("GET", path, **options)

    def echo(self, method="GET", path="/echo", **options):
        """What the pod saw of the request: its line, and its fields by name in lower case (the last of each)."""
        answer = self.call(method, path, **options)
        assert answer.status_code == 200, answer.text
        seen = answer.json()
        seen["by_name"] = {name.lower(): value for name, value in seen["fields"]}
        return seen

    # ---- byte by byte ----

    @contextlib.contextmanager
    def connection(self, timeout_s=30):
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            yield connection

    def head(self, target="/echo", *fields, method="GET", version="1.1", cookie=True):
        lines = [f"{method} {target} HTTP/{version}", f"Host: {self.host}", *fields]
        if cookie:
            lines.append(f"Cookie: {self.cookie()}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def raw(self, data, method="GET"):
        """Sends bytes; the first answer to them, with its body read."""
        with self.connection() as connection:
            connection.sendall(data)
            return read_answer(connection, method)

    # ---- what the pod has written down ----

    def note(self, name):
        return read_lines(self.gateway.workspace(self.uuid, name))

    def wait_note(self, name, line, timeout_s=5):
        wait_until(lambda: line in self.note(name), timeout_s, f"{line!r} in {name}")

    def noted(self, kind):
        """The largest N of the lines "kind N" in `seen`."""
        return max((int(line.split()[1]) for line in self.note("seen") if line.startswith(kind + " ")), default=0)

    def starts(self):
        return len([line for line in self.note("starts") if line != "end"])


def read_answer(connection, method="GET"):
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    answer.body = answer.read()
    return answer


def block_digest(size):
    """The digest of as many bytes as workspace_pod.py sends."""
    digest = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        digest.update(BLOCK)
    digest.update(BLOCK[: size % len(BLOCK)])
    return digest.hexdigest()


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", file.read(), re.MULTILINE)[1])


def metric(gateway, name):
    """Over all reactors."""
    text = requests.get(gateway.url + "/metrics", headers={"Authorization": "Bearer " + METRICS_TOKEN}, timeout=10).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))


METRICS_TOKEN = "a-token-for-the-figures"
