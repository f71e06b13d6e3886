"""WebSockets and event streams that end at the gateway, over the endpoints that only tests have."""

import asyncio
import base64
import os
import socket
import struct
import subprocess
import time
import zlib

import pytest
import requests
import websockets
import websockets.exceptions

from fixtures import run_gateway
from stores import wait_until
from websocket_client import connect

KEY = base64.b64encode(b"0123456789abcdef").decode()


@pytest.fixture(scope="module")
def live(stores):
    yield from run_gateway(stores, {"WAKEGATE_TEST_ENDPOINTS": "1", "CORS_ORIGINS": "https://app.example.com",
                                    "WEBSOCKET_PING_SECONDS": "1", "WEBSOCKET_TIMEOUT_SECONDS": "3",
                                    "SSE_COMMENT_SECONDS": "1"}, works=0)


def ws_url(gateway, path="/test/websocket"):
    return gateway.url.replace("http", "ws", 1) + path


def shake(gateway, path="/test/websocket", version="HTTP/1.1", buffer_bytes=None, **fields):
    """A socket and the head of the answer to a handshake by hand."""
    host, port = gateway.url.split("//")[1].split(":")
    plain = socket.socket()
    plain.settimeout(20)
    if buffer_bytes:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    plain.connect((host, int(port)))
    given = {"Host": f"{host}:{port}", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
             "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    given.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    plain.sendall(f"GET {path} {version}\r\n{lines}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = plain.recv(1)
        if not piece:
            break
        head += piece
    return plain, head.decode()


def frame(opcode, payload=b"", fin=True, rsv1=False):
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    return head + b"\0\0\0\0" + payload


def read_exactly(plain, size):
    got = b""
    while len(got) < size:
        piece = plain.recv(size - len(got))
        assert piece, got
        got += piece
    return got


def read_frame(plain):
    head = read_exactly(plain, 2)
    size = head[1] & 0x7f
    if size == 126:
        size = struct.unpack(">H", read_exactly(plain, 2))[0]
    elif size == 127:
        size = struct.unpack(">Q", read_exactly(plain, 8))[0]
    return head[0] & 0x0f, read_exactly(plain, size)


def read_code(plain):
    """The code of the close frame that comes next but for pings, and then the end."""
    while True:
        opcode, payload = read_frame(plain)
        if opcode == 8:
            assert plain.recv(1) == b""
            return struct.unpack(">H", payload[:2])[0]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1 << 20, 16 << 20])
def test_echo_of_any_size(live, compression, size):
    text = ("wakegate " * (size // 9 + 1))[:size]
    with connect(ws_url(live), compression=compression) as socket_:
        socket_.send(text)
        assert socket_.recv() == text
        data = os.urandom(min(size, 1 << 20))
        socket_.send(data)
        assert socket_.recv() == data


def test_fragments_are_put_together_and_controls_go_between(live):
    with connect(ws_url(live)) as socket_:
        socket_.send(["a", "b", "", "c"])
        assert socket_.recv() == "abc"
        socket_.ping()


@pytest.mark.parametrize("fields, status", [
    ({"Upgrade": None}, 426), ({"Connection": "keep-alive"}, 426), ({"Upgrade": "h2c"}, 426),
    ({"Sec_WebSocket_Version": "12"}, 426), ({"Sec_WebSocket_Version": None}, 426),
    ({"Sec_WebSocket_Key": None}, 400), ({"Sec_WebSocket_Key": "short"}, 400), ({"version": "HTTP/1.0"}, 426),
])
def test_a_handshake_that_is_none_is_refused(live, fields, status):
    plain, head = shake(live, **fields)
    with plain:
        assert head.startswith(f"HTTP/1.1 {status} "), head
        if "Version" in str(fields):
            assert "sec-websocket-version: 13" in head.lower()


@pytest.mark.parametrize("origin, allowed", [
    (None, True), ("https://app.example.com", True), ("SELF", True), ("https://SELF", False),
    ("https://app.example.com.evil.test", False), ("https://app.example.com:444", False), ("null", False),
    ("http://127.0.0.1", False), ("", False)])
def test_foreign_pages_are_refused_before_101(live, origin, allowed):
    """A matrix of Origin; the request's own host counts with its scheme and port."""
    own = live.url.split("//")[1]
    if origin is not None:
        origin = f"http://{own}" if origin == "SELF" else origin.replace("SELF", own)
    plain, head = shake(live, Origin=origin)
    with plain:
        assert head.startswith("HTTP/1.1 101 " if allowed else "HTTP/1.1 403 "), head


def test_bytes_sent_along_with_the_handshake_are_frames(live):
    host, port = live.url.split("//")[1].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall((f"GET /test/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
                       f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
                      + frame(1, b"early") + frame(9, b"p"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += read_exactly(plain, 1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert {read_frame(plain), read_frame(plain)} == {(1, b"early"), (10, b"p")}


@pytest.mark.parametrize("sent, code", [
    (b"\x81\x05hello", 1002), (frame(3), 1002), (frame(0, b"x"), 1002), (frame(9, b"x" * 126), 1002),
    (frame(9, b"x", fin=False), 1002), (frame(1, b"x", rsv1=True), 1002), (frame(1, b"\xff"), 1007),
    (frame(8, b"\x03"), 1002), (frame(8, b"\x03\xed"), 1002), (frame(8, struct.pack(">H", 1000) + b"\xff"), 1007),
    (b"\x82\xff" + struct.pack(">Q", 65 << 20) + b"\0\0\0\0", 1009), (frame(8, struct.pack(">H", 3333)), 3333),
])
def test_what_is_no_websocket_is_closed_with_its_code(live, sent, code):
    plain, _ = shake(live)
    with plain:
        plain.sendall(sent)
        assert read_code(plain) == code


def test_a_bomb_is_closed_before_it_is_kept(live):
    """A GiB of zeros in a MiB: 1009, and the process stays small."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush(zlib.Z_SYNC_FLUSH)
    before = memory_kib(live)
    plain, head = shake(live, Sec_WebSocket_Extensions="permessage-deflate")
    with plain:
        assert "permessage-deflate" in head
        plain.sendall(frame(1, bomb[:-4], rsv1=True))
        assert read_code(plain) == 1009
    assert memory_kib(live) - before < 400 * 1024  # the echo takes 64 MiB; the rest is the sanitizer's


def memory_kib(gateway):
    with open(f"/proc/{gateway.serves[0].process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_many_fragments_and_pings_cost_nothing_that_grows(live):
    plain, _ = shake(live)
    with plain:
        plain.sendall(frame(1, b"", fin=False))
        for _ in range(16):
            plain.sendall(frame(0, b"", fin=False) * 4096)
        plain.sendall(frame(0, b"end"))
        assert read_frame(plain) == (1, b"end")
        before = memory_kib(live)
        # Pings without end from a client that does not read: pongs are not piled up.
        plain.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += plain.send(frame(9, b"x" * 125) * 512)
        except TimeoutError:
            pass
        assert memory_kib(live) - before < 64 * 1024


def test_silence_is_pinged_and_then_ended(live):
    plain, _ = shake(live)
    with plain:
        begin = time.monotonic()
        assert read_frame(plain) == (9, b"")
        assert plain.recv(1) == b""  # no pong from us: given up
        assert 2 < time.monotonic() - begin < 8
    with connect(ws_url(live)) as socket_:  # answers pings by itself
        socket_.idle(4)
        socket_.send("still here")
        assert socket_.recv() == "still here"


def test_one_stalled_reader_does_not_delay_the_others(start_gateway):
    live = start_gateway({"WAKEGATE_TEST_ENDPOINTS": "1"}, works=0)
    count, rounds = 99, 64
    text = "x" * 65536
    stalled, _ = shake(live, "/test/broadcast", buffer_bytes=4096)

    def last_word():
        """Of what was queued for the stalled one: it fell 4 MiB behind."""
        opcode = None
        while opcode != 8:
            opcode, payload = read_frame(stalled)
        return struct.unpack(">H", payload[:2])[0]

    async def read(socket_):
        return [(await socket_.recv()).split()[0] for _ in range(rounds)]

    async def post(number):
        answer = await asyncio.to_thread(requests.post, live.url + "/test/broadcast", data=f"{number} {text}", timeout=30)
        assert answer.json()["subscribers"] in (count, count + 1)

    async def everybody():
        sockets = [await websockets.connect(ws_url(live, "/test/broadcast"), compression=None) for _ in range(count)]
        readers = [asyncio.create_task(read(socket_)) for socket_ in sockets]
        for number in range(rounds):
            await post(number)
        assert await asyncio.to_thread(last_word) == 4008
        got = await asyncio.gather(*readers)
        for socket_ in sockets:
            await socket_.close()
        return got

    with stalled:
        assert asyncio.run(asyncio.wait_for(everybody(), 90)) == [[str(i) for i in range(rounds)]] * count


def test_sigterm_says_going_away(start_gateway):
    gateway = start_gateway({"WAKEGATE_TEST_ENDPOINTS": "1"}, works=0)
    with connect(ws_url(gateway)) as socket_:
        gateway.serves[0].process.terminate()
        with pytest.raises(websockets.exceptions.ConnectionClosedOK) as closed:
            socket_.recv(timeout=20)
        assert closed.value.rcvd.code == 1001
    assert gateway.serves[0].wait() == 0


def test_node_speaks_it_too(live):
    script = """
        const socket = new WebSocket(process.argv[1]);
        socket.onopen = () => socket.send('from node');
        socket.onmessage = (event) => { console.log(event.data); socket.close(1000); };
        socket.onclose = (event) => console.log(event.code);
    """
    if subprocess.run(["node", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"], check=False).returncode:
        pytest.skip("this node has no WebSocket of its own (it has from 22 on)")
    done = subprocess.run(["node", "-e", script, ws_url(live)], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\n")[:2] == ["from node", "1000"]


def test_the_endpoints_are_not_there_unless_asked_for(gateway):
    assert requests.get(gateway.url + "/test/echo", timeout=10).status_code == 404


# ---- event streams ----

def events_of(text):
    """id, event, data of each event; comments counted apart."""
    events, comments = [], 0
    for block in text.split("\n\n"):
        fields = {}
        for line in block.split("\n"):
            if line.startswith(":"):
                comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
        if fields:
            events.append((fields.get("id"), fields.get("event"), fields.get("data")))
    return events, comments


def test_an_event_stream_goes_on_after_the_last_event_id(live):
    url = live.url + "/test/events"
    answer = requests.get(url, params={"count": 5}, timeout=10)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert events_of(answer.text)[0] == [(str(i), "number", str(i)) for i in range(1, 6)]
    answer = requests.get(url, params={"count": 5}, headers={"Last-Event-ID": "3"}, timeout=10)
    assert [event[0] for event in events_of(answer.text)[0]] == ["4", "5"]
    answer = requests.get(url, params={"count": 5, "last_event_id": "4"}, timeout=10)
    assert [event[0] for event in events_of(answer.text)[0]] == ["5"]
    assert requests.get(url, headers={"Last-Event-ID": "x"}, timeout=10).status_code == 400


def test_a_silent_event_stream_gets_comments(live):
    answer = requests.get(live.url + "/test/events", params={"count": 1, "pause_ms": 2500}, timeout=20)
    events, comments = events_of(answer.text)
    assert len(events) == 1 and comments == 2


def test_an_event_stream_ends_when_its_reader_leaves(live):
    with requests.get(live.url + "/test/events", params={"count": 1, "pause_ms": 60000}, timeout=10, stream=True):
        pass
    wait_until(lambda: any(line.get("route") == "GET /test/events" and line["us"] < 30_000_000
                           for line in live.serves[0].log_lines("request")), 10, "its handler has ended")
