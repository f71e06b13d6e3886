"""The reverse proxy on vs-code-{uuid}.localhost: who is let in, what goes on and what comes back, how it is held and streamed."""

import base64
import concurrent.futures
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest
import requests

from certificates import Authority
from fixtures import run_gateway
from stores import wait_until
from wakegate import ENCRYPTION_KEY, run
from workspaces import (BROWSER, COOKIE, METRICS_TOKEN, PARAM, Workspace, block_digest, memory_kib, metric, pod_settings,
                        read_answer)

MIB = 1 << 20
BIG = 200 * MIB
# Freed memory is kept back by the sanitizer, which would count as ours.
LITTLE_QUARANTINE = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"}


@pytest.fixture(scope="module")
def desk(stores):
    """With pods that answer as they are asked (workspace_pod.py)."""
    yield from run_gateway(stores, pod_settings(METRICS_TOKEN=METRICS_TOKEN, PROXY_TIMEOUT_SECONDS="2",
                                                CORS_ORIGINS="https://app.example.com,*",
                                                POD_PROCESSES="4096"), serve_env=LITTLE_QUARANTINE)


@pytest.fixture(scope="module")
def workspace(desk):
    """One that is awake, for tests that leave it so."""
    place = Workspace(desk)
    assert place.get().status_code == 200
    return place


def curl(*words):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *words], capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# ---- a real program, a real client ----

def test_a_web_server_that_sleeps_is_reached_by_curl(start_gateway, tmp_path):
    gateway = start_gateway({"WAKEGATE_POD_COMMAND": "echo well >health; mkdir -p files; echo 'hello, curl' >files/hello.txt; "
                                                     "exec /usr/bin/python3 -m http.server --bind 127.0.0.1 $PORT"})
    place = Workspace(gateway)
    url, query = place.link_url().split("?")
    assert place.client.status(place.uuid).json()["replicas"] == 0
    assert curl(f"{url}files/hello.txt?{query}") == b"hello, curl\n"
    assert place.client.status(place.uuid).json()["replicas"] == 1
    assert curl("-b", place.cookie(), f"{place.url}/files/hello.txt") == b"hello, curl\n"
    jar = str(tmp_path / "jar")
    listing = curl("-L", "-c", jar, "-b", jar, "-H", "Accept: text/html", place.link_url()).decode()
    assert "hello.txt" not in listing and 'href="files/"' in listing
    assert b"hello.txt" in curl("-b", jar, f"{place.url}/files/")
    assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{place.url}/files/hello.txt") == b"401"


# ---- access ----

def sign(kind, uuid, until):
    """As core/domain/instance/workspace.c does it, for moments that the API does not give."""
    def digest(message, key=b""):
        return hashlib.blake2b(message, digest_size=32, key=key).digest()
    key = digest(b"workspace", digest(ENCRYPTION_KEY.encode()))
    until = f"{until:x}"
    mac = digest(b"\0".join([kind.encode(), uuid.encode(), until.encode()]), key)
    return until + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def test_the_link_of_the_status_is_what_the_key_signs(workspace):
    link = workspace.link()
    assert link == sign("link", workspace.uuid, int(link.split(".")[0], 16))
    assert 0 < int(link.split(".")[0], 16) - time.time() <= 301


def tokens(workspace):
    now = int(time.time())
    flipped = sign("visit", workspace.uuid, now + 60)
    return {
        "good": sign("visit", workspace.uuid, now + 60),
        "late": sign("visit", workspace.uuid, now - 1),
        "other": sign("visit", "abcdefgh", now + 60),
        "kind": sign("link", workspace.uuid, now + 60),
        "longer": f"{now + 9999:x}." + flipped.split(".")[1],
        "flipped": flipped[:-1] + ("A" if flipped[-1] != "A" else "B"),
        "short": flipped[:-1],
        "empty": "",
        "text": "x" * 60,
        "dots": "....",
    }


@pytest.mark.parametrize("cookies,let_in", [
    ([], False), (["good"], True), (["late"], False), (["other"], False), (["kind"], False), (["longer"], False),
    (["flipped"], False), (["short"], False), (["empty"], False), (["text"], False), (["dots"], False),
    (["late", "good"], True), (["good", "late"], True), (["other", "text", "good", "empty"], True), (["late", "other"], False)])
def test_a_cookie_lets_in_while_it_is_good_among_whatever_others(workspace, cookies, let_in):
    values = [f"{COOKIE}={tokens(workspace)[name]}" for name in cookies]
    one = workspace.get(headers={"Cookie": "; ".join(["a=1", *values, "b=2"])})
    assert one.status_code == (200 if let_in else 401)
    several = workspace.raw(workspace.head("/echo", *(f"Cookie: {value}" for value in values), cookie=False))
    assert several.status == (200 if let_in else 401)
    if let_in:
        assert dict(one.json()["fields"])["Cookie"] == "a=1; b=2"
        assert "cookie" not in several.body.decode().lower() and "Set-Cookie" not in one.headers
    else:
        assert one.json() == {"error": "A link to this workspace is required"}


@pytest.mark.parametrize("name,let_in", [("good", True), ("late", False), ("other", False), ("kind", False), ("flipped", False),
                                         ("empty", False), ("text", False)])
def test_a_link_lets_in_while_it_is_good(workspace, name, let_in):
    now = int(time.time())
    token = {**tokens(workspace), "good": sign("link", workspace.uuid, now + 60), "late": sign("link", workspace.uuid, now - 1),
             "other": sign("link", "abcdefgh", now + 60), "kind": sign("visit", workspace.uuid, now + 60)}[name]
    answer = workspace.get(f"/echo?a=1&{PARAM}={token}&b=%20", headers={"Cookie": None})
    assert answer.status_code == (200 if let_in else 401)
    if let_in:
        assert answer.json()["line"] == "GET /echo?a=1&b=%20 HTTP/1.1"
        assert answer.headers["Set-Cookie"].startswith(COOKIE + "=")
    # A good cookie makes up for a bad link, and the link stays here all the same.
    answer = workspace.get(f"/echo?{PARAM}={token}")
    assert answer.status_code == 200 and answer.json()["line"] == "GET /echo HTTP/1.1"
    assert ("Set-Cookie" in answer.headers) == let_in


@pytest.mark.parametrize("path,location", [
    ("/?{}", "/"), ("/a/b?{}", "/a/b"), ("/a?x=1&{}&y=%2F", "/a?x=1&y=%2F"), ("/a?{}&{}", "/a"), ("/?{}&", "/?"),
    ("//evil.example/x?{}", "/.//evil.example/x"), ("/\\evil.example?{}", "/./\\evil.example"), ("/%2f/evil?{}", "/%2f/evil")])
def test_a_browser_that_follows_a_link_gets_the_cookie_and_a_clean_address(workspace, path, location):
    link = f"{PARAM}={workspace.link()}"
    for method in ("GET", "HEAD"):
        answer = workspace.raw(workspace.head(path.replace("{}", link), "Accept: text/html, */*", method=method, cookie=False), method)
        assert answer.status == 302 and answer.getheader("Location") == location
        assert answer.getheader("Cache-Control") == "no-store" and answer.getheader("Referrer-Policy") == "no-referrer"
        value, *attributes = answer.getheader("Set-Cookie").split("; ")
        assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax"]
        assert workspace.get(headers={"Cookie": value}).status_code == 200
    assert not [line for line in workspace.note("asked") if "evil" in line]


def test_links_and_cookies_end(start_gateway):
    gateway = start_gateway(pod_settings(WORKSPACE_LINK_SECONDS="2", WORKSPACE_COOKIE_SECONDS="2"))
    place = Workspace(gateway)
    link = place.link()
    cookie = place.cookie()
    assert place.get().status_code == 200
    wait_until(lambda: place.get().status_code == 401, 5, "the cookie has ended")
    assert place.get(f"/?{PARAM}={link}", headers={"Cookie": None}).status_code == 401
    place.kept = None
    assert place.get().status_code == 200 and place.cookie() != cookie


def test_who_has_no_access_learns_nothing_of_what_exists(desk, workspace):
    gone = Workspace(desk)
    link, cookie = gone.link(), gone.cookie()
    assert gone.client.delete(gone.uuid).status_code == 200
    never = Workspace(desk, "zzzzzzzzzzzzzzzz")
    answers = [place.get(headers={"Cookie": value}) for place in (workspace, gone, never) for value in (None, f"{COOKIE}=x")]
    answers.append(never.get(headers={"Cookie": workspace.cookie()}))
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (401, '{"error":"A link to this workspace is required"}\n')}
    # Who had access is told.
    for answer in (gone.get(headers={"Cookie": cookie}), gone.get(f"/?{PARAM}={link}", headers={"Cookie": None})):
        assert (answer.status_code, answer.json()) == (404, {"error": "Workspace not found"})
    page = gone.get(headers={"Cookie": cookie, **BROWSER})
    assert page.status_code == 404 and "no such workspace" in page.text


@pytest.mark.parametrize("host", ["vs-code-{}.localhost", "VS-Code-{}.LOCALHOST:{port}", "vs-code-{}.localhost:1"])
def test_the_host_is_read_as_hosts_are(workspace, host):
    host = host.replace("{}", workspace.uuid.upper() if host[0] == "V" else workspace.uuid).replace("{port}", str(workspace.port))
    seen = workspace.echo(headers={"Host": host})
    assert seen["by_name"]["host"] == host and seen["by_name"]["x-forwarded-host"] == host


@pytest.mark.parametrize("host", ["vs-code-.localhost", "xvs-code-abcdefgh.localhost", "vs-code-abcdefgh.localhost.example",
                                  "vs-code-abc_defgh.localhost", "vs-code-a.b.localhost", "vs-code-abcdefgh", "localhost"])
def test_other_hosts_are_not_workspaces(workspace, host):
    answer = workspace.get("/health", headers={"Host": host})
    assert answer.status_code == 200 and answer.json()["status"] == "healthy"


def test_no_token_reaches_the_pod_or_the_log(desk, workspace):
    link, cookie = workspace.link(), workspace.cookie()
    other = sign("visit", "abcdefgh", int(time.time()) + 60)
    answers = [workspace.get(f"/echo?{PARAM}={link}", headers={"Cookie": f"{cookie}; {COOKIE}={other}; keep=1"}),
               workspace.get(f"/nothing?{PARAM}={link}"), workspace.get(f"/?{PARAM}=bad{link}", headers={"Cookie": None}),
               workspace.call("POST", f"/echo?{PARAM}={link}", headers={"Cookie": None, "Origin": "https://evil.example"})]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 403]
    assert dict(answers[0].json()["fields"])["Cookie"] == "keep=1"
    workspace.raw(workspace.head(f"/a#b?{PARAM}={link}"))
    workspace.raw(f"GET /?{PARAM}={link} HTTP/9.9\r\nHost: {workspace.host}\r\nCookie: {cookie}\r\n\r\n".encode())
    lines = wait_until(lambda: [line for line in desk.serves[0].log_lines("request") if line.get("instance") == workspace.uuid
                                and line["status"] == 403], 5, "the log")
    assert lines[0]["surface"] == "workspace" and lines[0]["route"] == "* /*" and lines[0]["why"] == "forbidden"
    known = [link.split(".")[1], cookie.split(".")[1], other.split(".")[1]]
    text = desk.serves[0].log() + "\n".join(workspace.note("asked")) + "".join(answer.text for answer in answers)
    assert not [token for token in known if token in text]


# ---- origins ----

SELF, LISTED, EVIL = "self", "https://app.example.com", "https://evil.example"


@pytest.mark.parametrize("origin,fine", [(None, True), (SELF, True), (LISTED, True), (EVIL, False), ("null", False), ("", False),
                                         ("sibling", False), ("https-self", False), ("other-port", False), ("*", False)])
def test_what_changes_something_comes_from_here_or_from_a_listed_origin(workspace, origin, fine):
    sibling = f"http://vs-code-abcdefgh.localhost:{workspace.port}"
    value = {SELF: workspace.url, "sibling": sibling, "https-self": workspace.url.replace("http", "https"),
             "other-port": workspace.url + "1"}.get(origin, origin)
    headers = {} if value is None else {"Origin": value}
    before = len(workspace.note("asked"))
    for method in ("POST", "PUT", "PATCH", "DELETE", "PROPFIND"):
        answer = workspace.call(method, "/echo", headers=headers)
        assert answer.status_code == (200 if fine else 403), method
        if not fine:
            assert answer.json() == {"error": "Requests from this origin are not allowed"}
    assert len(workspace.note("asked")) - before == (5 if fine else 0)
    # Reading is the pod's business, and so is CORS.
    for method in ("GET", "HEAD", "OPTIONS"):
        answer = workspace.call(method, "/echo", headers={"Access-Control-Request-Method": "POST", **headers})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.lower().startswith("access-control-") or name == "Vary"]


def test_two_origins_must_both_be_fine(workspace):
    for origins, status in (([EVIL, workspace.url], 403), ([workspace.url, EVIL], 403), ([LISTED, workspace.url], 200)):
        fields = [f"Origin: {origin}" for origin in origins]
        assert workspace.raw(workspace.head("/echo", *fields, method="DELETE")).status == status


# ---- what goes on ----

@pytest.mark.parametrize("target", [
    "/", "//", "///a//b/", "/a/../b", "/./a/.", "/%2e%2e/%2E", "/a%2Fb", "/a%00b", "/a\\b", "/a%zz", "/a;b=c,d", "/?", "/??", "/?a=b?c",
    "/a?x=%20+%26&&y", "/~!$&'()*+,;=:@", "/[]{}|^`\"<>", "/health", "/chat", "/session/create", "/metrics", "/v1/x/y/z/1/2/3/4/5/6/7/8"])
def test_the_target_arrives_byte_for_byte(workspace, target):
    answer = workspace.raw(workspace.head(target))
    assert answer.status == 200
    if target != "/health":  # which that pod answers itself
        assert json.loads(answer.body)["line"] == f"GET {target} HTTP/1.1"


def test_an_absolute_target_becomes_a_path(workspace):
    for target, line in ((workspace.url + "/a/../b?c", "GET /a/../b?c HTTP/1.1"), (workspace.url, "GET / HTTP/1.1"),
                         (workspace.url + "?x", "GET /?x HTTP/1.1")):
        assert json.loads(workspace.raw(workspace.head(target)).body)["line"] == line
    assert json.loads(workspace.raw(workspace.head("*", method="OPTIONS")).body)["line"] == "OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("target", [b"/a#b", b"/\xc3\xa4", b"/a\tb", b"/\x7f"])
def test_a_target_that_is_none_is_refused(workspace, target):
    answer = workspace.raw(workspace.head("/@").replace(b"/@", target))
    assert answer.status == 400 and "error" in json.loads(answer.body)


def test_methods_go_on_as_they_are(workspace):
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "MKCOL", "REPORT"):
        body = b"" if method in ("GET", "OPTIONS", "TRACE") else b"12345"
        seen = workspace.echo(method, data=body)
        assert seen["line"].startswith(method + " ") and seen["size"] == len(body)


def test_who_asked_is_said_to_the_pod(workspace, start_gateway):
    claims = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "elsewhere", "X-Request-Id": "mine",
              "Forwarded": "for=1.2.3.4", "Connection": "x-forwarded-for, x-forwarded-proto, x-request-id, host"}
    names = workspace.echo(headers=claims)["by_name"]
    assert names["x-forwarded-for"] == "127.0.0.1" and names["x-forwarded-proto"] == "http"
    assert names["x-forwarded-host"] == names["host"] == workspace.host and names["x-request-id"] == "mine"
    assert "forwarded" not in names and "connection" not in names
    behind = Workspace(start_gateway(pod_settings(TRUSTED_PROXIES="127.0.0.0/8")))
    secure = behind.get(f"/?{PARAM}={behind.link()}", headers={"Cookie": None, **claims, **BROWSER})
    assert "Secure" in secure.headers["Set-Cookie"].split("; ")
    names = behind.echo("POST", headers={**claims, "Origin": "https://" + behind.host})["by_name"]
    assert names["x-forwarded-for"] == "1.2.3.4, 127.0.0.1" and names["x-forwarded-proto"] == "https"
    assert behind.call("POST", "/echo", headers={**claims, "Origin": behind.url}).status_code == 403


def test_what_is_between_two_stays_there(workspace):
    sent = ["Connection: keep-alive, X-Named", "X-Named: 1", "Keep-Alive: timeout=5", "Proxy-Authorization: Basic eDp5",
            "TE: trailers", "Trailer: X-Sum", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Forwarded: for=1.2.3.4",
            "Proxy-Connection: close", "X-Kept: 1", "X-Kept: 2", "Accept-Encoding: br"]
    fields = json.loads(workspace.raw(workspace.head("/echo", *sent)).body)["fields"]
    assert [field for field in fields if field[0] not in ("Host",) and not field[0].startswith(("X-Forwarded", "X-Request"))] == [
        ["X-Kept", "1"], ["X-Kept", "2"], ["Accept-Encoding", "br"]]
    seen = workspace.raw(workspace.head(
        "/answer/200?Connection:%20X-Named,keep-alive&X-Named:%201&Keep-Alive:%20timeout=5&Proxy-Authenticate:%20Basic"
        "&Trailer:%20X-Sum&Upgrade:%20h2&Date:%20never&X-Request-Id:%20theirs&Content-Length:%200&X-Kept:%201&Server:%20pod"))
    names = dict(seen.getheaders())
    assert set(names) == {"Date", "X-Request-Id", "Content-Length", "X-Kept", "Server"}
    assert names["Date"] != "never" and names["X-Request-Id"] != "theirs" and names["Server"] == "pod"


def test_large_heads_go_on_and_come_back(workspace):
    names = workspace.echo(headers={"X-Large": "x" * 30000})["by_name"]
    assert names["x-large"] == "x" * 30000
    answer = workspace.raw(workspace.head("/answer/200?Content-Length:%200&" + "&".join(f"X-{i}:%20{'y' * 60}" for i in range(90))))
    assert answer.status == 200 and answer.getheader("X-89") == "y" * 60


def test_a_pods_cookies_are_for_its_host_and_never_ours(workspace):
    answer = workspace.raw(workspace.head(
        "/answer/200?Content-Length:%200&Set-Cookie:%20a=1;%20Domain=localhost;%20Path=/&Set-Cookie:%20b=2"
        f"&Set-Cookie:%20{COOKIE}=stolen;%20Path=/&Set-Cookie:%20{COOKIE}x=1"))
    assert answer.headers.get_all("Set-Cookie") == ["a=1; Path=/", "b=2", f"{COOKIE}x=1"]


@pytest.mark.parametrize("count", [1, 24, 96])
def test_many_fields_come_back(workspace, count):
    answer = workspace.get(f"/many/{count}")
    assert answer.text == "many"
    assert [value for name, value in answer.headers.items() if re.fullmatch(r"X-\d+", name)] == [str(i) for i in range(count)]


# ---- answers ----

def test_lengths_come_back_as_they_are(workspace):
    sized = workspace.raw(workspace.head("/bytes/100"))
    assert sized.getheader("Content-Length") == "100" and len(sized.body) == 100
    for path in ("/chunks/100", "/close/100"):
        answer = workspace.raw(workspace.head(path))
        assert answer.getheader("Transfer-Encoding") == "chunked" and len(answer.body) == 100
        assert workspace.raw(workspace.head(path, version="1.0")).body == answer.body


@pytest.mark.parametrize("method,status,length,expected", [
    ("HEAD", 200, "17", "17"), ("HEAD", 200, None, None), ("GET", 204, None, None), ("GET", 304, "17", "17"),
    ("GET", 304, None, None), ("GET", 205, "0", "0"), ("GET", 404, "0", "0"), ("DELETE", 299, "0", "0"), ("GET", 599, "0", "0")])
def test_answers_without_a_body(workspace, method, status, length, expected):
    query = f"?Content-Length:%20{length}" if length else ""
    with workspace.connection() as connection:
        for _ in range(3):  # the connection is good for more
            connection.sendall(workspace.head(f"/answer/{status}{query}", method=method))
            answer = read_answer(connection, method)
            assert (answer.status, answer.getheader("Content-Length"), answer.body) == (status, expected, b"")
            assert answer.getheader("Transfer-Encoding") is None and answer.getheader("Connection") is None


def test_requests_on_one_connection_get_their_answers_in_order(workspace):
    with workspace.connection() as connection:
        connection.sendall(b"".join(workspace.head(f"/{i}") for i in range(10)))
        with connection.makefile("rb") as file:
            for i in range(10):
                assert file.readline() == b"HTTP/1.1 200 OK\r\n"
                fields = http.client.parse_headers(file)
                assert json.loads(file.read(int(fields["Content-Length"])))["line"] == f"GET /{i} HTTP/1.1"


@pytest.mark.parametrize("answer,status", [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
    (b"nonsense\r\n\r\n", 502), (b"HTTP/1.1 200 OK\r\nContent-", 502), (b"HTTP/2.0 200 OK\r\n\r\n", 502), (b"", 502),
    (b"HTTP/1.1 101 x\r\nUpgrade: surprise\r\nConnection: upgrade\r\n\r\n", 502),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 201),
    (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end", 200)])
def test_what_a_pod_may_answer(desk, workspace, answer, status):
    failures = metric(desk, "wakegate_proxy_failures_total")
    got = workspace.call("POST", "/raw", data=answer)
    assert got.status_code == status
    if status == 502:
        assert got.json() == {"error": "The workspace does not answer"}
        wait_until(lambda: metric(desk, "wakegate_proxy_failures_total") == failures + 1, 5, "it is counted")
    else:
        assert "Link" not in got.headers


def test_malformed_requests_get_the_surfaces_error(workspace):
    for data in (f"GET / HTTP/1.1\r\nHost: {workspace.host}\r\nContent-Length: x\r\n\r\n",
                 f"POST / HTTP/1.1\r\nHost: {workspace.host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"):
        answer = workspace.raw(data.encode())
        assert answer.status == 400 and isinstance(json.loads(answer.body)["error"], str)


# ---- streams ----

class Growth:
    """How much the reactors' memory has grown at most since then."""

    def __init__(self, gateway):
        self.pid = gateway.serves[0].process.pid
        self.start = memory_kib(self.pid)
        self.most = 0

    def look(self):
        self.most = max(self.most, memory_kib(self.pid) - self.start)


@pytest.mark.parametrize("path", ["bytes", "chunks", "close"])
def test_a_large_download_is_whole_and_takes_no_memory(desk, workspace, path):
    growth = Growth(desk)
    digest = hashlib.sha256()
    answer = workspace.get(f"/{path}/{BIG}", stream=True)
    for i, piece in enumerate(answer.iter_content(1 << 18)):
        digest.update(piece)
        if i % 64 == 0:
            growth.look()
    assert digest.hexdigest() == block_digest(BIG)
    assert growth.most < 32 * 1024


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_large_upload_is_whole_and_takes_no_memory(desk, workspace, framing):
    growth = Growth(desk)
    block = os.urandom(1 << 18)

    def pieces():
        for i in range(BIG // len(block)):
            if i % 64 == 0:
                growth.look()
            yield block
    class Sized:
        def __len__(self):
            return BIG
        def __iter__(self):
            return pieces()
    seen = workspace.echo("PUT", data=Sized() if framing == "length" else pieces())
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    assert (seen["size"], seen["sha256"]) == (BIG, digest.hexdigest())
    assert ("content-length" in seen["by_name"]) == (framing == "length")
    assert growth.most < 32 * 1024


def settled(read, pause_s=0.3):
    """The number once it stands still."""
    while True:
        before = read()
        time.sleep(pause_s)
        if before == read():
            return before


def test_a_slow_reader_slows_the_pod_and_nobody_keeps_the_rest(desk):
    place = Workspace(desk)
    assert place.get().status_code == 200
    growth = Growth(desk)
    with place.connection() as connection:
        connection.sendall(place.head(f"/bytes/{BIG}"))
        wait_until(lambda: place.noted("sent") > 0, 5, "it sends")
        assert settled(lambda: place.noted("sent")) < 64 * MIB  # what kernels keep
        growth.look()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        digest = hashlib.sha256()
        while piece := answer.read(MIB):
            digest.update(piece)
        assert digest.hexdigest() == block_digest(BIG)
    assert growth.most < 16 * 1024


def test_a_slow_pod_slows_its_sender(desk):
    place = Workspace(desk)
    assert place.get().status_code == 200
    growth = Growth(desk)
    sent = 0
    with place.connection() as connection:
        connection.sendall(place.head("/stuck/1.5", f"Content-Length: {BIG}", method="POST"))
        connection.settimeout(0.5)
        block = bytes(1 << 18)
        try:
            while sent < BIG:
                sent += connection.send(block[: BIG - sent])
        except TimeoutError:
            pass
        assert sent < 64 * MIB
        growth.look()
        connection.settimeout(30)
        while sent < BIG:
            sent += connection.send(block[: BIG - sent])
        answer = read_answer(connection)
        assert json.loads(answer.body)["sha256"] == hashlib.sha256(bytes(BIG)).hexdigest()
    assert growth.most < 16 * 1024


def test_a_pod_may_answer_while_it_reads(workspace):
    with workspace.connection() as connection:
        connection.sendall(workspace.head("/mirror", "Transfer-Encoding: chunked", method="POST"))
        file = connection.makefile("rb")
        for piece in (b"one", b"two", b"three"):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            while file.readline().strip() != piece:
                pass
        connection.sendall(b"0\r\n\r\n")
        assert file.readline() == b"0\r\n"


def test_a_pod_may_answer_before_it_has_read(desk, workspace):
    with workspace.connection() as connection:
        connection.sendall(workspace.head("/refuse", f"Content-Length: {BIG}", method="POST"))
        connection.sendall(bytes(1 << 20))
        answer = read_answer(connection)
        assert (answer.status, answer.body, answer.getheader("Connection")) == (413, b"too much", "close")
        assert connection.recv(1) == b""
    assert workspace.get().status_code == 200


def test_a_body_is_asked_for_by_us(workspace):
    with workspace.connection() as connection:
        connection.sendall(workspace.head("/echo", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"12345")
        seen = json.loads(read_answer(connection).body)
        assert seen["size"] == 5 and "Expect" not in dict(seen["fields"])


def test_small_bodies_go_along_with_their_head(workspace):
    for fields, body, length in ((["Content-Length: 5"], b"12345", "5"), (["Content-Length: 0"], b"", "0"),
                                 (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n", None)):
        seen = json.loads(workspace.raw(workspace.head("/echo", *fields, method="POST") + body).body)
        names = dict(seen["fields"])
        assert seen["size"] == (5 if body else 0)
        assert names.get("Content-Length") == length and names.get("Transfer-Encoding") == (None if length else "chunked")


def test_a_client_that_leaves_is_gone_for_the_pod_too(desk):
    place = Workspace(desk)
    for number, (target, more) in enumerate((("/hold/20", b""), ("/drip/20", b""), (f"/bytes/{BIG}", b""))):
        assert place.get().status_code == 200
        with place.connection() as connection:
            connection.sendall(place.head(target) + more)
            wait_until(lambda: f"GET {target}" in place.note("asked"), 5, "it has come")
            time.sleep(0.2)  # it is in the midst of it
        begin = time.monotonic()
        wait_until(lambda: place.note("seen").count("closed") == number + 1, 5, "the pod sees it")
        assert time.monotonic() - begin < 1.2
    # In the midst of its own body.
    with place.connection() as connection:
        connection.sendall(place.head("/got", "Content-Length: 1000000", method="POST") + bytes(1000))
        place.wait_note("seen", "got 1000")
    place.wait_note("seen", "end 1000", 1.5)
    wait_until(lambda: place.client.status(place.uuid).json()["connections"] == 0, 5, "nobody is counted any more")


# ---- pods that fail ----

@pytest.mark.parametrize("how", ["length", "chunks"])
def test_an_answer_that_breaks_off_breaks_off(desk, workspace, how):
    failures = metric(desk, "wakegate_proxy_failures_total")
    with workspace.connection() as connection:
        connection.sendall(workspace.head(f"/cut/{how}"))
        with pytest.raises(http.client.IncompleteRead) as caught:
            read_answer(connection)
        assert caught.value.partial == b"12345"
    wait_until(lambda: metric(desk, "wakegate_proxy_failures_total") == failures + 1, 5, "it is counted")
    wait_until(lambda: [line for line in desk.serves[0].log_lines("request") if line.get("why") == "pod_left"], 5, "the log")


def test_a_silent_pod_is_given_up(desk, workspace):
    begin = time.monotonic()
    answer = workspace.get("/hold/20")
    assert (answer.status_code, answer.json()) == (504, {"error": "The workspace did not answer in time"})
    assert 1.8 < time.monotonic() - begin < 4
    workspace.wait_note("seen", "closed")
    page = workspace.get("/hold/20", headers=BROWSER)
    assert page.status_code == 504 and "did not answer in time" in page.text
    with workspace.connection() as connection:
        connection.sendall(workspace.head("/pause"))
        with pytest.raises(http.client.IncompleteRead):
            read_answer(connection)


def send_slowly(place, connection, seconds):
    """Ten bytes a second, in chunks: of a short body with a length the server would wait for the end."""
    connection.sendall(place.head("/echo", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(seconds * 10):
        connection.sendall(b"1\r\nx\r\n")
        time.sleep(0.1)
    connection.sendall(b"0\r\n\r\n")
    return read_answer(connection)


def test_a_request_may_last_while_bytes_move(desk, workspace):
    """Longer than PROXY_TIMEOUT_SECONDS, in either direction."""
    assert len(workspace.raw(workspace.head("/drip/3")).body) > 20
    with workspace.connection() as connection:
        assert json.loads(send_slowly(workspace, connection, 3).body)["size"] == 30


def test_a_connection_that_the_pod_has_closed_is_no_error(workspace):
    for method, status in (("GET", 200), ("HEAD", 200), ("OPTIONS", 200), ("DELETE", 200)):
        # One after the other: the second finds the connection of the first, which ends when it is used again.
        assert workspace.call(method, "/last").status_code == 200
        assert workspace.call(method, "/last").status_code == status


def test_what_has_effects_is_not_sent_twice(start_gateway):
    place = Workspace(start_gateway(pod_settings(REACTORS="1")))
    assert place.get("/last").status_code == 200
    assert place.call("POST", "/echo").status_code == 502
    assert place.get("/last").status_code == 200
    assert place.call("PUT", "/echo", data=b"x").status_code == 502
    assert place.get("/leave").status_code == 502  # on a fresh connection
    asked = place.note("asked")
    assert asked.count("GET /leave") <= 3 and not [line for line in asked if "/echo" in line]


def test_a_pod_that_ends_in_the_midst_is_there_for_the_next(desk):
    """At once: its socket may still be there for a moment when it is about to end."""
    place = Workspace(desk)
    with place.connection() as connection:
        connection.sendall(place.head("/exit"))
        with pytest.raises(http.client.IncompleteRead):
            read_answer(connection)
    assert place.get().status_code == 200
    assert place.starts() == 2


def test_a_killed_pod_is_waited_for(desk):
    place = Workspace(desk)
    first = place.echo()["pid"]
    os.kill(first, signal.SIGKILL)
    second = place.echo()["pid"]
    assert second != first
    os.kill(second, signal.SIGKILL)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: place.get(), range(20))} == {200}
    assert place.call("POST", "/echo", data=b"12345").json()["size"] == 5


# ---- waking ----

def test_a_hundred_requests_at_once_start_one_pod(start_gateway):
    gateway = start_gateway(pod_settings("5", WORKSPACE_HOLD_REQUESTS="100", METRICS_TOKEN=METRICS_TOKEN))
    place = Workspace(gateway)
    cookie = place.cookie()
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(place.call, "POST", f"/{i}", headers={"Cookie": cookie}, data=b"x" * i) for i in range(100)]
        wait_until(lambda: metric(gateway, "wakegate_proxy_held") == 100, 10, "all are held")
        answers = [answer.result() for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["size"] for answer in answers) == list(range(100))
    wait_until(lambda: gateway.pods_started() > 0, 5, "the log says so")
    assert place.starts() == 1 and gateway.pods_started() == 1
    wait_until(lambda: metric(gateway, "wakegate_proxy_held") == 0, 5, "none is held any more")


def check_page(answer, title, retry, refresh):
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8" and answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Retry-After") == retry and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert f"<h1>{title}</h1>" in answer.text and 'name="viewport"' in answer.text and "<script" not in answer.text
    refreshes = re.findall(r'<meta http-equiv="refresh" content="(\d+)">', answer.text)
    assert refreshes == ([refresh] if refresh else [])
    style = re.findall(r"<style>(.*?)</style>", answer.text)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")


def test_a_browser_sees_a_page_that_asks_again_and_programs_an_error(start_gateway):
    place = Workspace(start_gateway(pod_settings("7", WORKSPACE_PAGE_SECONDS="1", WORKSPACE_HOLD_SECONDS="4")))
    place.cookie()
    begin = time.monotonic()
    page = place.get("/some/where", headers=BROWSER)
    assert page.status_code == 503 and 0.9 < time.monotonic() - begin < 3.9
    check_page(page, "Your workspace is waking up", "1", "1")
    begin = time.monotonic()
    answer = place.get("/some/where")
    assert 3.9 < time.monotonic() - begin < 9
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json() == {"error": "The workspace is waking up, please try again"}
    wait_until(lambda: place.get(headers=BROWSER).status_code == 200, 20, "it is awake")
    assert place.starts() == 1


def test_pages_for_who_may_not_and_for_what_does_not_answer(workspace):
    page = workspace.get(headers={"Cookie": None, **BROWSER})
    assert page.status_code == 401
    check_page(page, "This workspace needs a link", None, None)
    page = workspace.get("/leave", headers=BROWSER)
    assert page.status_code == 502
    check_page(page, "Your workspace does not answer", None, None)
    assert workspace.call("HEAD", "/", headers={"Cookie": None, **BROWSER}).status_code == 401
    assert workspace.call("POST", "/", headers={"Cookie": None, **BROWSER}).json()["error"]


def test_a_workspace_that_does_not_start(start_gateway):
    place = Workspace(start_gateway({"WAKEGATE_POD_COMMAND": "exit 1", "WORKSPACE_PAGE_SECONDS": "60"}))
    answer = place.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json() == {"error": "The workspace could not be started; try again later"}
    page = place.get(headers=BROWSER)
    assert page.status_code == 503
    check_page(page, "Your workspace could not be started", "10", "10")


def test_held_requests_are_bounded(start_gateway):
    gateway = start_gateway(pod_settings("3", REACTORS="1", WORKSPACE_HOLD_REQUESTS="3", WORKSPACE_HOLD_TOTAL="5",
                                         METRICS_TOKEN=METRICS_TOKEN))
    places = [Workspace(gateway) for _ in range(2)]
    for place in places:
        place.cookie()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(place.get) for place in places for _ in range(10)]
        done = [answer.result() for answer in answers]
    statuses = [answer.status_code for answer in done]
    assert statuses.count(200) == 5 and statuses.count(503) == 15
    assert sorted([statuses[:10].count(200), statuses[10:].count(200)]) == [2, 3]
    for answer in done:
        if answer.status_code == 503:
            assert answer.json() == {"error": "Too many requests wait for this workspace, please try again"}
            assert answer.headers["Retry-After"] == "2"


def test_a_client_that_leaves_is_held_no_longer(start_gateway):
    gateway = start_gateway(pod_settings("4", REACTORS="1", METRICS_TOKEN=METRICS_TOKEN))
    place = Workspace(gateway)
    data = place.head()
    with place.connection() as connection:
        connection.sendall(data)
        wait_until(lambda: metric(gateway, "wakegate_proxy_held") == 1, 5, "it is held")
    wait_until(lambda: metric(gateway, "wakegate_proxy_held") == 0, 2, "it is held no longer")
    place.client.wait_status(place.uuid, "active")
    assert "GET /echo" not in place.note("asked")


# ---- sleeping ----

@pytest.fixture(scope="module")
def sleepy(stores):
    yield from run_gateway(stores, pod_settings(IDLE_TIMEOUT_SECONDS="2", PROXY_TIMEOUT_SECONDS="30"))


def is_asleep(place):
    return place.client.status(place.uuid).json()["replicas"] == 0


def test_requests_keep_awake_and_their_absence_does_not(sleepy):
    place = Workspace(sleepy)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert place.get().status_code == 200
        time.sleep(0.2)
    assert place.starts() == 1
    wait_until(lambda: is_asleep(place), 10, "it sleeps")
    assert place.get().status_code == 200 and place.starts() == 2


def test_a_body_that_moves_keeps_awake(sleepy):
    place = Workspace(sleepy)
    assert place.get("/drip/6").status_code == 200
    with place.connection() as connection:
        assert send_slowly(place, connection, 6).status == 200
    assert place.starts() == 1


def test_an_event_stream_keeps_nobody_awake(sleepy):
    place = Workspace(sleepy)
    with place.connection() as connection:
        connection.sendall(place.head("/events/60"))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        begin = time.monotonic()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            while answer.read1():
                pass
            raise http.client.IncompleteRead(b"")
        assert 1 < time.monotonic() - begin < 15
    wait_until(lambda: is_asleep(place), 10, "it sleeps")


def test_a_sleep_waits_for_what_is_in_flight(sleepy):
    place = Workspace(sleepy)
    assert place.get().status_code == 200
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        held = pool.submit(place.get, "/hold/4")
        wait_until(lambda: "GET /hold/4" in place.note("asked"), 5, "it has come")
        wait_until(lambda: place.client.status(place.uuid).json()["connections"] == 1, 5, "it is counted")
        assert place.client.sleep(place.uuid).status_code == 202
        answer = held.result()
        assert (answer.status_code, answer.text) == (200, "held")
    wait_until(lambda: is_asleep(place), 10, "it sleeps")
    assert place.starts() == 1


def test_the_end_of_the_server_waits_for_answers(start_gateway):
    gateway = start_gateway(pod_settings(DRAIN_SECONDS="20"))
    place = Workspace(gateway)
    assert place.get().status_code == 200
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answer = pool.submit(place.get, "/drip/3")
        wait_until(lambda: "GET /drip/3" in place.note("asked"), 5, "it has come")
        assert gateway.serves[0].stop() == 0
        assert answer.result().status_code == 200 and len(answer.result().content) > 20
    gateway.serves[0].start().wait_ready()


# ---- TLS ----

def test_over_tls(start_gateway, tmp_path):
    authority = Authority(str(tmp_path))
    chain, key = authority.issue("localhost", "*.apps.test")
    gateway = start_gateway(pod_settings(TLS_CERT=chain, TLS_KEY=key, BASE_DOMAIN="apps.test"), ca=authority.path)
    api = {"headers": {"X-API-Key": gateway.key()}, "verify": authority.path, "timeout": 30}
    uuid = requests.post(gateway.url + "/session/create", json={"user_id": "x"}, **api).json()["uuid"]
    link = requests.get(f"{gateway.url}/session/{uuid}/status", **api).json()["workspace_url"]
    port = int(gateway.url.rsplit(":", 1)[1])
    host = f"vs-code-{uuid}.apps.test"
    assert link.startswith(f"https://{host}:{port}/?{PARAM}=")
    how = ["--cacert", authority.path, "--resolve", f"{host}:{port}:127.0.0.1", "-c", str(tmp_path / "jar"), "-b", str(tmp_path / "jar")]
    head = curl(*how, "-i", "-H", "Accept: text/html", link).decode()
    assert head.startswith("HTTP/1.1 302") and "; Secure\r\n" in head and "\r\nLocation: /\r\n" in head
    seen = json.loads(curl(*how, f"https://{host}:{port}/echo"))
    assert dict(seen["fields"])["X-Forwarded-Proto"] == "https" and "Cookie" not in dict(seen["fields"])
    for origin, status in ((f"https://{host}:{port}", b"200"), (f"http://{host}:{port}", b"403")):
        assert curl(*how, "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Origin: {origin}", "-d", "x",
                    f"https://{host}:{port}/echo") == status
    assert hashlib.sha256(curl(*how, f"https://{host}:{port}/chunks/{20 * MIB}")).hexdigest() == block_digest(20 * MIB)
    body = tmp_path / "body"
    body.write_bytes(os.urandom(20 * MIB))
    seen = json.loads(curl(*how, "-T", str(body), f"https://{host}:{port}/echo"))
    assert seen["sha256"] == hashlib.sha256(body.read_bytes()).hexdigest()
    with open(tmp_path / "jar", encoding="ascii") as file:
        cookie = re.search(rf"{COOKIE}\t(\S+)", file.read())[1]
    context = ssl.create_default_context(cafile=authority.path)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=host) as connection:
        connection.sendall(f"GET /switch HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {COOKIE}={cookie}\r\n"
                           "Connection: Upgrade\r\nUpgrade: echo\r\n\r\nearly".encode())
        data = b""
        while not data.endswith(b"welcome early"):
            data += connection.recv(65536)
        assert data.startswith(b"HTTP/1.1 101 ")
    assert requests.delete(f"{gateway.url}/session/{uuid}", **api).status_code == 200
    wait_until(lambda: gateway.sql("SELECT count(*) FROM instance")[0][0] == 0, 30, "it is gone")


# ---- tables ----

def test_the_route_is_printed_with_its_hosts():
    rows = [line.split()[:5] for line in run("routes").stdout.splitlines()]
    assert ["workspace", "*", "vs-code-{uuid}.DOMAIN/*", "link", "-"] in rows
