"""WebSockets and other upgrades through a workspace's host: handshake, frames, ends, and what keeps a pod awake."""

import asyncio
import contextlib
import json
import os
import socket as sockets
import threading
import time

import pytest
import websockets

from fixtures import run_gateway
from stores import wait_until
from workspaces import COOKIE, METRICS_TOKEN, PARAM, Workspace, metric, pod_settings, read_answer

SOCKET_POD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket_pod.py")


def socket_settings(**settings):
    return {"WAKEGATE_POD_COMMAND": f"exec /usr/bin/python3 {SOCKET_POD}", "METRICS_TOKEN": METRICS_TOKEN, **settings}


@pytest.fixture(scope="module")
def desk(stores):
    yield from run_gateway(stores, socket_settings(CORS_ORIGINS="https://app.example.com,*"))


@pytest.fixture(scope="module")
def workspace(desk):
    return Workspace(desk)


@pytest.fixture(scope="module")
def raw_desk(stores):
    """Its pods speak whatever a test chooses (workspace_pod.py)."""
    yield from run_gateway(stores, pod_settings(METRICS_TOKEN=METRICS_TOKEN, DRAIN_SECONDS="2"))


def connect(place, path="/", cookie=True, fields=None, **options):
    given = {"Cookie": place.cookie()} if cookie else {}
    options.setdefault("max_size", None)
    options.setdefault("ping_interval", None)
    options.setdefault("open_timeout", 30)
    return websockets.connect(f"ws://{place.host}{path}", host="127.0.0.1", port=place.port,
                              extra_headers={**given, **(fields or {})}, **options)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def refusal(place, *args, **options):
    """The status and body with which a handshake is refused."""
    async def talk():
        with pytest.raises(websockets.InvalidStatusCode) as caught:
            async with connect(place, *args, **options):
                pass
        return caught.value.status_code
    return run(talk())


# ---- the handshake ----

def test_a_sleeping_workspace_is_woken_by_a_socket(desk):
    place = Workspace(desk)

    async def talk():
        async with connect(place, "/a/b?x=%20", subprotocols=["chat", "other"], origin=place.url) as socket:
            assert socket.subprotocol == "chat" and [each.name for each in socket.extensions] == ["permessage-deflate"]
            for message in ("hello", b"\0\1\2", "", "ü" * 1000, bytes(100000)):
                await socket.send(message)
                assert await socket.recv() == message
        assert socket.close_code == 1000

    assert place.client.status(place.uuid).json()["replicas"] == 0
    run(talk())
    path, fields = json.loads(place.note("head")[-1])
    names = {name.lower(): value for name, value in fields}
    assert path == "/a/b?x=%20" and names["host"] == place.host and names["connection"] == "Upgrade"
    assert names["upgrade"] == "websocket" and len(names["sec-websocket-key"]) == 24 and "cookie" not in names
    assert names["x-forwarded-for"] == "127.0.0.1" and names["sec-websocket-protocol"] == "chat, other"
    place.wait_note("seen", "closed 1000")


def test_a_socket_may_come_by_link(workspace):
    async def talk():
        async with connect(workspace, f"/x?{PARAM}={workspace.link()}&y=1", cookie=False) as socket:
            assert socket.response_headers["Set-Cookie"].startswith(COOKIE + "=")
            await socket.send("in")
            assert await socket.recv() == "in"
    run(talk())
    assert json.loads(workspace.note("head")[-1])[0] == "/x?y=1"


@pytest.mark.parametrize("path,cookie", [("/", None), ("/?" + PARAM + "=x", None), ("/", "x"), ("/?" + PARAM + "=", "")])
def test_a_socket_needs_access(workspace, path, cookie):
    fields = {} if cookie is None else {"Cookie": f"{COOKIE}={cookie}"}
    before = len(workspace.note("head"))
    assert refusal(workspace, path, cookie=False, fields=fields) == 401
    assert len(workspace.note("head")) == before


@pytest.mark.parametrize("origin,fine", [
    (None, True), ("self", True), ("https://app.example.com", True), ("https://evil.example", False), ("null", False),
    ("sibling", False), ("https-self", False)])
def test_a_socket_comes_from_here_or_from_a_listed_origin(workspace, origin, fine):
    value = {"self": workspace.url, "https-self": workspace.url.replace("http", "https"),
             "sibling": f"http://vs-code-abcdefgh.localhost:{workspace.port}"}.get(origin, origin)

    async def talk():
        async with connect(workspace, origin=value) as socket:
            await socket.send("in")
            assert await socket.recv() == "in"

    before = len(workspace.note("head"))
    if fine:
        run(talk())
    else:
        assert refusal(workspace, origin=value) == 403
    assert len(workspace.note("head")) - before == (1 if fine else 0)


def test_a_pod_may_refuse(workspace):
    assert refusal(workspace, "/refuse") == 403
    answer = workspace.get("/refuse")
    assert (answer.status_code, answer.text, answer.headers["X-Why"]) == (403, "no", "because")


def test_an_upgrade_to_http_2_is_an_ordinary_request(raw_desk):
    place = Workspace(raw_desk)
    for upgrade in ("h2c", "H2C", "echo, h2c"):
        answer = place.raw(place.head("/switch", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}",
                                      "HTTP2-Settings: AAMAAABkAAQAAP__"))
        names = {name.lower() for name, _ in json.loads(answer.body)["fields"]}
        assert answer.status == 200 and not names & {"connection", "upgrade", "http2-settings"}


def test_an_upgrade_that_is_not_asked_for_in_full_is_none(raw_desk):
    place = Workspace(raw_desk)
    for fields in (["Upgrade: echo"], ["Connection: Upgrade"], ["Upgrade: echo", "Connection: close"]):
        answer = place.raw(place.head("/switch", *fields))
        assert answer.status == 200 and not {"Upgrade", "Connection"} & {name for name, _ in json.loads(answer.body)["fields"]}


# ---- bytes ----

def test_any_protocol_passes_byte_for_byte(raw_desk):
    place = Workspace(raw_desk)
    data = os.urandom(8 << 20)
    with place.connection() as connection:
        # What a client sends before it has the answer belongs to the protocol already.
        connection.sendall(place.head("/switch", "Connection: Upgrade", "Upgrade: echo") + b"early ")
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(sockets.SHUT_WR)))
        with connection.makefile("rb") as file:
            head = b"".join(iter(file.readline, b"\r\n")).decode().lower()
            assert head.startswith("http/1.1 101 ") and "\r\nupgrade: echo\r\n" in head and "\r\nconnection: upgrade\r\n" in head
            assert "\r\nx-more: 1\r\n" in head and "content-length" not in head and "transfer-encoding" not in head
            assert "\r\nx-request-id: " in head
            sender.start()
            assert file.read() == b"welcome early " + data + b" bye"
        sender.join()
    place.wait_note("seen", "closed")


def test_large_messages_pass_both_ways(workspace):
    message = os.urandom(16 << 20)

    async def talk():
        async with connect(workspace, compression=None) as socket:
            for _ in range(2):
                await socket.send(message)
                assert await socket.recv() == message
    run(talk())


def test_many_sockets_at_once(desk, workspace):
    def ended():
        lines = [line for line in desk.serves[0].log_lines("socket ended") if line["instance"] == workspace.uuid]
        return sum(line["bytes_in"] > 0 and line["bytes_out"] > 0 for line in lines)
    before = ended()

    async def talk():
        async with contextlib.AsyncExitStack() as stack:
            open_sockets = [await stack.enter_async_context(connect(workspace, compression=None)) for _ in range(100)]
            wait_until(lambda: metric(desk, "wakegate_tunnels") == 100, 5, "all are open")
            wait_until(lambda: workspace.client.status(workspace.uuid).json()["connections"] == 100, 5, "they are counted")
            for number, socket in enumerate(open_sockets):
                await socket.send(str(number))
            assert [await socket.recv() for socket in open_sockets] == [str(i) for i in range(100)]

    run(talk())
    wait_until(lambda: metric(desk, "wakegate_tunnels") == 0, 5, "none is left")
    wait_until(lambda: workspace.client.status(workspace.uuid).json()["connections"] == 0, 5, "none is counted")
    wait_until(lambda: ended() >= before + 100, 5, "the log tells of each")


# ---- ends ----

def test_a_close_passes_with_its_code(workspace):
    async def talk():
        async with connect(workspace, "/close") as socket:
            await socket.send("last")
            assert await socket.recv() == "last"
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4321, "enough")
        async with connect(workspace) as socket:
            await socket.close(4000, "mine")
    run(talk())
    workspace.wait_note("seen", "closed 4321")
    workspace.wait_note("seen", "closed 4000")


def test_who_vanishes_is_gone_for_the_other_too(desk):
    place = Workspace(desk)

    async def talk():
        async with connect(place) as socket:
            await socket.send("in")
            await socket.recv()
            socket.transport.abort()
        begin = time.monotonic()
        await asyncio.to_thread(place.wait_note, "seen", "closed 1006", 5)
        assert time.monotonic() - begin < 1.2
        async with connect(place, "/vanish") as socket:
            await socket.send("in")
            begin = time.monotonic()
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await socket.recv()
            assert socket.close_code == 1006 and time.monotonic() - begin < 1.2
    run(talk())


def test_the_end_of_the_server_gives_sockets_their_time_and_no_more(start_gateway):
    gateway = start_gateway(pod_settings(DRAIN_SECONDS="2"))
    place = Workspace(gateway)
    with place.connection() as connection:
        connection.sendall(place.head("/switch", "Connection: Upgrade", "Upgrade: echo"))
        assert connection.recv(12) == b"HTTP/1.1 101"
        stopping = threading.Thread(target=gateway.serves[0].stop)
        begin = time.monotonic()
        stopping.start()
        while connection.recv(65536):
            pass
        stopping.join()
        assert gateway.serves[0].statuses == [0] and 1.5 < time.monotonic() - begin < 8
    place.wait_note("seen", "closed")
    gateway.serves[0].start().wait_ready()


# ---- sleep ----

@pytest.fixture(scope="module")
def sleepy(stores):
    yield from run_gateway(stores, socket_settings(IDLE_TIMEOUT_SECONDS="2"))


def test_messages_keep_awake(sleepy):
    place = Workspace(sleepy)

    async def talk():
        async with connect(place) as socket:
            end = time.monotonic() + 6
            while time.monotonic() < end:
                await socket.send("x")
                assert await socket.recv() == "x"
                await asyncio.sleep(0.1)
    run(talk())
    assert len(place.note("starts")) == 1


def test_pings_keep_nobody_awake_and_a_sleep_ends_the_socket(sleepy):
    place = Workspace(sleepy)

    async def talk():
        async with connect(place) as socket:
            await socket.send("x")
            assert await socket.recv() == "x"
            begin = time.monotonic()
            with pytest.raises(websockets.ConnectionClosed):
                while time.monotonic() - begin < 30:
                    await (await socket.ping())
                    await asyncio.sleep(0.1)
            assert 1.5 < time.monotonic() - begin < 15
    run(talk())
    wait_until(lambda: place.client.status(place.uuid).json()["replicas"] == 0, 10, "it sleeps")
    assert len(place.note("starts")) == 1


def test_a_silent_socket_does_not_hold_a_sleep_up(sleepy):
    place = Workspace(sleepy)

    async def talk():
        async with connect(place) as socket:
            begin = time.monotonic()
            answer = await asyncio.to_thread(place.client.sleep, place.uuid)
            assert answer.status_code == 202
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert time.monotonic() - begin < 10
    run(talk())


# ---- bans ----

def test_a_ban_ends_what_is_open_and_lets_nobody_in(start_gateway):
    """Whatever link or cookie they have: within a second, and until it ends."""
    gateway = start_gateway(socket_settings(REACTORS="2"))
    place = Workspace(gateway)
    place.cookie()

    async def talk():
        async with connect(place) as socket:
            await socket.send("in")
            assert await socket.recv() == "in"
            await asyncio.to_thread(gateway.admin, "ban", "add", "tests", "--reason", "spam")
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 30)

    run(talk())
    time.sleep(1)  # what a reactor knows of an account it believes for 0.9 s
    for _ in range(8):
        assert place.call("GET", "/").status_code == 403
    assert refusal(place) == 403
    wait_until(lambda: gateway.sql("SELECT state, desired FROM instance") == [("asleep", 0)], 20, "the pod sleeps")
    gateway.admin("ban", "remove", "tests")
    time.sleep(1)

    async def talk_again():
        async with connect(place) as socket:
            await socket.send("again")
            assert await socket.recv() == "again"

    run(talk_again())
