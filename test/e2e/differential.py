"""The same bytes to Wakegate and to others that speak HTTP/1.1: does anybody divide them into other requests than we do?

What Wakegate accepts is compared with what nginx, haproxy, node and h11 make of it, as far as they accept it too: which
requests they see (method, target, bytes of body), and whether they still wait where we have answered, or the other way
round. Behind each case comes a marker, a request of its own: who takes it for part of a body, or finds another
request before it, shows that.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess

import h11

from vectors import connect, each, load

SEED = 9112
BUILT = 1500  # requests put together from parts
CHANGED = 1200  # vectors with some bytes changed
CONNECTIONS = 48
QUIET_S = 1.0
SURE_S = 5.0  # before a difference is reported that a slow answer might explain
START_S = 15
MARKER = b"GET /test/echo?marker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UNKNOWN = "a request"  # accepted, and no more is said of it


class View:
    """How one of them divides the bytes: the requests it has answered, and what came then."""

    def __init__(self, requests, end):
        self.requests, self.end = requests, end  # end: "refused", "closed" or "waiting"

    def __repr__(self):
        return f"{self.requests}, then {self.end}"


def request_of(method, target, body_bytes):
    """Absolute-form is what comes with a target's authority, which must be the Host's here; not all pass it on."""
    return method, re.sub(r"(?i)^https?://[^/?]*", "", target), body_bytes


def differ(ours, theirs):
    """Whether two views can't both be right. Who refuses or closes is right."""
    for our, their in zip(ours.requests, theirs.requests):
        if our != their and UNKNOWN not in (our, their):
            return True
    if len(ours.requests) == len(theirs.requests):
        return False
    shorter = ours if len(ours.requests) < len(theirs.requests) else theirs
    return shorter.end == "waiting"


# Where others differ from us, and we are right: (who, what the bytes have, why).
KNOWN = [
    ("node", rb"(?i)\nUpgrade:", "reads no request behind one that asks for an upgrade, although it has answered that in HTTP"),
]


def is_known(name, data):
    return any(name == who and re.search(what, data) for who, what, _ in KNOWN)


# ---- peers ----

async def view_over(port, data, quiet_s):
    """What a server that answers as /test/echo does makes of the bytes."""
    requests = []
    async with connect(port) as connection:
        sending = asyncio.ensure_future(connection.send(data + MARKER))
        try:
            while True:
                answer = await asyncio.wait_for(connection.answer(), quiet_s)
                if answer is None:
                    return View(requests, "closed")
                if answer.status == 200:
                    said = json.loads(answer.body)
                    requests.append(request_of(said["method"], said["target"], said["body_bytes"]))
                elif answer.status in (400, 404, 405) and answer.fields.get("connection", "").lower() != "close":
                    requests.append(UNKNOWN)  # framed well enough to go on, but no echo's
                else:
                    return View(requests, "refused")
        except asyncio.TimeoutError:
            return View(requests, "waiting")
        except (AssertionError, ValueError, KeyError, IndexError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            return View(requests, "refused")  # an answer as for HTTP/0.9, or one without a length: no echo's
        finally:
            sending.cancel()


def view_of_h11(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data + MARKER)
    requests, request, size = [], None, 0
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return View(requests, "waiting")
            if isinstance(event, h11.Request):
                request, size = event, 0
            elif isinstance(event, h11.Data):
                size += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                requests.append(request_of(request.method.decode(), request.target.decode(), size))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return View(requests, "closed")
                connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return View(requests, "refused")


async def answer_requests(reader, writer):
    """What nginx and haproxy pass requests on to: says of each what came; closes when it makes no sense of it."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError, AssertionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n", 1)[0].split(" ")
            length = re.findall(r"(?im)^content-length:[ \t]*(\d+)[ \t]*\r$", head)
            chunked = re.findall(r"(?im)^transfer-encoding:[ \t]*chunked[ \t]*\r$", head)
            assert len(length) + len(chunked) <= 1, head
            size = int(length[0]) if length else 0
            await reader.readexactly(size)
            while chunked:
                chunk = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if chunk == 0:
                    while await reader.readuntil(b"\r\n") != b"\r\n":
                        pass
                    break
                await reader.readexactly(chunk + 2)
                size += chunk
            said = json.dumps({"method": method, "target": target, "body_bytes": size}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
            await writer.drain()
    writer.close()


NGINX = """
daemon off; master_process off; pid %(folder)s/nginx.pid; error_log %(folder)s/error.log crit;
events { worker_connections 1000; }
http {
    access_log off; client_max_body_size 4m; server_tokens off; large_client_header_buffers 4 64k;
    client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy; fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi; scgi_temp_path %(folder)s/scgi;
    server {
        listen 127.0.0.1:%(port)d;
        location / { proxy_pass http://127.0.0.1:%(backend)d; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
"""
HAPROXY = """
global
    maxconn 1000
    nbthread 1
    tune.bufsize 65536
defaults
    mode http
    timeout connect 10s
    timeout client 20s
    timeout server 20s
frontend all
    bind 127.0.0.1:%(port)d
    default_backend one
backend one
    server one 127.0.0.1:%(backend)d
"""
NODE = """
const server = require('http').createServer({maxHeaderSize: 65536}, (request, response) => {
    let size = 0;
    request.on('data', piece => { size += piece.length; });
    request.on('end', () => {
        const said = JSON.stringify({method: request.method, target: request.url, body_bytes: size});
        response.writeHead(200, {'Content-Length': said.length});
        response.end(said);
    });
});
server.listen(%(port)d, '127.0.0.1');
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def command_of(name, folder, values):
    text = {"nginx": NGINX, "haproxy": HAPROXY, "node": NODE}[name] % values
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    program = shutil.which(name, path="/usr/sbin:" + os.environ["PATH"])
    assert program, f"{name} is not installed"
    return {"nginx": [program, "-c", path, "-e", os.devnull], "haproxy": [program, "-db", "-f", path],
            "node": [program, path]}[name]


async def wait_listening(port, process, name):
    for _ in range(START_S * 20):
        assert process.poll() is None, f"{name} does not run: {process.stderr.read()}"
        with contextlib.suppress(OSError):
            async with connect(port):
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} does not listen")


@contextlib.asynccontextmanager
async def peers(folder):
    """The others by name, each a function that comes to a view."""
    backend = await asyncio.start_server(answer_requests, "127.0.0.1", 0, limit=1 << 20)
    values = {"folder": folder, "backend": backend.sockets[0].getsockname()[1]}
    ports, processes = {}, []
    try:
        for name in ("nginx", "haproxy", "node"):
            ports[name] = free_port()
            command = command_of(name, folder, {**values, "port": ports[name]})
            processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                              stderr=subprocess.PIPE, text=True))
            await wait_listening(ports[name], processes[-1], name)

        def over(port):
            return lambda data, quiet_s: view_over(port, data, quiet_s)

        async def in_here(data, _quiet_s):
            return view_of_h11(data)
        yield {**{name: over(port) for name, port in ports.items()}, "h11": in_here}
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        backend.close()
        await backend.wait_closed()


# ---- cases ----

LENGTHS = [b"5", b"05", b"0", b"4", b"6", b"+5", b"-5", b"-0", b"5, 5", b"5,5", b"5,", b"5 ", b"\t5", b"0x5", b"5;a", b"",
           b"5 5", b"5.0", b"\x0b5", b"5\0", b"4294967301", b"18446744073709551621", b"00000000000000000000000005", b"5\r\n 0"]
ENCODINGS = [b"chunked", b"Chunked", b"chunked ", b"\tchunked", b"chunked\t", b"chunked, chunked", b"identity", b"",
             b"gzip, chunked", b"chunked, gzip", b"identity, chunked", b"chunked;a=b", b"xchunked", b'"chunked"', b"chunked,",
             b",chunked", b"\x0bchunked", b"chun ked", b"chunked\0", b"chunked\r\n identity"]
CONNECTIONS_OF = [b"keep-alive", b"close", b"Upgrade", b"Content-Length", b"Transfer-Encoding", b"keep-alive, Transfer-Encoding"]
EXPECTS = [b"100-continue", b"100-Continue", b"100-continue, 100-continue"]
NAMES_CHANGED = [lambda name: name, lambda name: name, lambda name: name, bytes.lower, bytes.upper,
                 lambda name: name + b" ", lambda name: b" " + name, lambda name: name + b"\t",
                 lambda name: name.replace(b"-", b"_"), lambda name: name + b"\0", lambda name: b"X-" + name,
                 lambda name: b"\x0b" + name, lambda name: name + b"\r", lambda name: b"\r\n" + name]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\r\n ", b" \r\n", b"\t\r\n"]
TARGETS = [b"/test/echo?a=b&c", b"http://a/test/echo", b"HTTP://A/test/echo?b", b"/test/echo?%00", b"/test/echo?/../", b"/test/echo?\"<>"]
BODIES = [b"", b"abcd", b"abcdef", b"abcde\r\n", b"0\r\n\r\n", b"5\r\nab"]
SIZES = [b"5", b"05", b"005", b"5;a", b"5;a=b", b'5;a="b"', b"5 ", b" 5", b"5\t;a", b"5; a", b"0x5", b"+5", b"5;", b"5\r",
         b"10000000000000005", b"00000000000000000005", b'5;a="\r\n"', b"5;a\n", b"5\x0b", b"5,", b"5;a=\"b\\\"c\""]
LASTS = [b"00", b"0;a", b"0000000000000000000000", b"-0", b"0 ", b"0x0", b""]
TRAILERS = [b"X: y\r\n", b"X: y\r\nZ:\r\n", b"X_Y: z\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
            b"Connection: close\r\n", b"X: y\n", b"X : y\r\n", b" X: y\r\n"]
TOKENS = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b",", b";", b"0", b"1", b"f", b"\x0b", b"\x7f", b"\xff",
          b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n ", b"0\r\n\r\n", b"5\r\nabcde\r\n", b"chunked", b"#",
          b"Connection: close\r\n", b"HTTP/1.0", b"HTTP/1.1", b"-", b"_", b"+", b"\"", b"\\"]


def one_of(chance, odd, usual):
    return chance.choice(odd) if chance.random() < 0.4 else usual


def line_end(chance):
    return chance.choice(LINE_ENDS) if chance.random() < 0.02 else b"\r\n"


def build_chunks(chance):
    body = b""
    for _ in range(chance.choice([0, 1, 1, 2])):
        data = chance.choice([b"abcde"] * 8 + [b"abcd", b"abcdef", b"\r\n0\r\n", b"GET /\n"])
        body += one_of(chance, SIZES, b"5") + line_end(chance) + data + line_end(chance)
    return body + one_of(chance, LASTS, b"0") + line_end(chance) + one_of(chance, TRAILERS, b"") + line_end(chance)


def framing_of(chance):
    """Fields that frame, and a body: most of them belong together."""
    mode = chance.random()
    if mode < 0.4:
        return [(b"Content-Length", one_of(chance, LENGTHS, b"5"))], one_of(chance, BODIES, b"abcde")
    if mode < 0.8:
        return [(b"Transfer-Encoding", one_of(chance, ENCODINGS, b"chunked"))], build_chunks(chance)
    if mode < 0.85:
        return [], chance.choice(BODIES)
    fields = [(b"Content-Length", one_of(chance, LENGTHS, b"5")), (b"Transfer-Encoding", one_of(chance, ENCODINGS, b"chunked"))]
    return fields, chance.choice([b"abcde", b"0\r\n\r\n", build_chunks(chance)])


def build(chance):
    """A request from parts, most of them right."""
    fields, body = framing_of(chance)
    fields.append((b"Host", b"a"))
    if chance.random() < 0.05:
        fields.append(chance.choice(fields))
    if chance.random() < 0.2:
        fields.append((b"Connection", chance.choice(CONNECTIONS_OF)))
    if chance.random() < 0.05:
        fields.append((b"Expect", chance.choice(EXPECTS)))
    if chance.random() < 0.3:
        fields.append((b"X", chance.choice([b"", b"a", b"a\tb", b"\xff", b"Content-Length: 5"])))
    chance.shuffle(fields)
    method = chance.choice([b"POST", b"POST", b"PUT", b"GET", b"DELETE"])
    version = chance.choice([b"HTTP/1.1"] * 9 + [b"HTTP/1.0"])
    request = b" ".join([method, one_of(chance, TARGETS, b"/test/echo"), version]) + line_end(chance)
    for name, value in fields:
        name = chance.choice(NAMES_CHANGED)(name) if chance.random() < 0.1 else name
        request += name + chance.choice([b": ", b": ", b":", b":\t", b":  "]) + value + line_end(chance)
    return request + line_end(chance) + body


def change(chance, data):
    """A request with a few bytes put in, taken out or replaced."""
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(len(data) + 1)
        kind = chance.random()
        if kind < 0.5:
            data = data[:at] + chance.choice(TOKENS) + data[at:]
        elif kind < 0.7:
            data = data[:at] + data[at + 1:]
        elif kind < 0.85:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1:]
        else:
            end = min(len(data), at + chance.randrange(40))
            data = data[:end] + data[at:end] + data[end:]
    return data


def is_comparable(data):
    """Answers to HEAD have no body to read, CONNECT is another matter, and of other paths our echo says nothing."""
    return re.search(rb"(?i)head|connect ", data) is None


def cases():
    chance = random.Random(SEED)
    given = [vector.bytes for vector in load() if len(vector.bytes) < 4000]
    built = [build(chance) for _ in range(BUILT)]
    changed = [change(chance, chance.choice(given)) for _ in range(CHANGED)]
    return [data for data in dict.fromkeys(given + built + changed) if is_comparable(data)]


# ---- the run ----

class Result:
    def __init__(self):
        self.sent = self.accepted = 0
        self.compared = {}  # by peer: how many it accepted, too
        self.differences = []


async def compare(port, view_of, name, data, ours):
    """Their view, and what differs, seen twice; or None."""
    theirs = await view_of(data, QUIET_S)
    if is_known(name, data) or not differ(ours, theirs):
        return theirs, None
    ours = await view_over(port, data, SURE_S)
    theirs = await view_of(data, SURE_S)
    return theirs, f"{data!r}\n  Wakegate: {ours}\n  {name}: {theirs}" if differ(ours, theirs) else None


async def run(port, folder):
    """Compares Wakegate at that port with the others."""
    result = Result()
    given = cases()
    ours = await each(given, CONNECTIONS, lambda data: view_over(port, data, QUIET_S))
    taken = [(data, view) for data, view in zip(given, ours) if view.requests or view.end == "waiting"]
    result.sent, result.accepted = len(given), len(taken)
    async with peers(folder) as others:
        for name, view_of in others.items():
            found = await each(taken, CONNECTIONS, lambda case: compare(port, view_of, name, *case))
            result.compared[name] = sum(bool(theirs.requests) for theirs, _ in found)
            result.differences += [difference for _, difference in found if difference]
    return result
