"""A pod whose answers over a workspace's host a test can choose: by its path, and down to the byte.

GET /health answers 200 once it is up, which takes as many seconds as its argument says. In its workspace:
  starts     one line for each start
  asked      one line for each request: method and target
  seen       what it saw of a connection: "closed", "sent N", "got N"
"""

import hashlib
import http.server
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from urllib.parse import unquote

HERE = os.environ["WAKEGATE_WORKSPACE"]
PIECE = 64 * 1024
BLOCK = hashlib.sha256(b"wakegate").digest() * (PIECE // 32)


def note(name, text):
    descriptor = os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (text + "\n").encode())
    os.close(descriptor)


class Pod(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    # ---- reading ----

    def pieces(self):
        """The request's body, as it comes."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    self.rfile.readline()
                    return
                yield self.rfile.read(size)
                self.rfile.readline()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read1(min(left, PIECE))
            if not piece:
                return
            left -= len(piece)
            yield piece

    # ---- answering ----

    def head(self, status, *fields):
        """Exactly these fields."""
        lines = [f"HTTP/1.1 {status} x", *fields, "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1"))

    def reply(self, status, body, *fields):
        self.head(status, f"Content-Length: {len(body)}", *fields)
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def answer(self):
        note("asked", f"{self.command} {self.path}")
        name, _, rest = self.path.partition("?")[0].strip("/").partition("/")
        getattr(self, "on_" + name.replace("-", "_"), self.on_echo)(rest)

    # Any method comes here.
    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def on_health(self, _rest):
        self.reply(200, b"well")

    def on_busy(self, _rest):
        self.reply(404, b"")

    def on_echo(self, _rest):
        """What was asked, as it came."""
        digest, size = hashlib.sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
        body = json.dumps({
            "line": self.raw_requestline.decode("latin-1").rstrip("\r\n"), "fields": list(self.headers.items()),
            "size": size, "sha256": digest.hexdigest(), "pid": os.getpid(),
        }).encode()
        self.reply(200, body, "Content-Type: application/json")

    def on_mirror(self, _rest):
        """Each piece goes back at once."""
        self.head(200, "Transfer-Encoding: chunked")
        for piece in self.pieces():
            self.chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def on_bytes(self, rest):
        """N bytes of known length; the same for /chunks/N and /close/N in their framing."""
        self.head(200, f"Content-Length: {rest}")
        self.send(int(rest), self.wfile.write)

    def on_chunks(self, rest):
        self.head(200, "Transfer-Encoding: chunked")
        self.send(int(rest), self.chunk)
        self.wfile.write(b"0\r\n\r\n")

    def on_close(self, rest):
        self.head(200)
        self.send(int(rest), self.wfile.write)
        self.close_connection = True

    def send(self, size, write):
        sent = 0
        noted = 0
        while sent < size:
            piece = BLOCK[: min(PIECE, size - sent)]
            try:
                write(piece)
            except OSError:
                note("seen", "closed")
                self.close_connection = True
                return
            sent += len(piece)
            if sent - noted >= 1 << 20:
                noted = sent
                note("seen", f"sent {sent}")

    def on_answer(self, rest):
        """The status of the path, with the fields of its query: ?Name:%20value, separated by &."""
        fields = [unquote(field) for field in self.path.partition("?")[2].split("&") if field]
        self.head(int(rest), *fields)

    def on_raw(self, _rest):
        """The request's body is the answer, whole."""
        data = b"".join(self.pieces())
        self.wfile.write(data)
        self.close_connection = True

    def on_many(self, rest):
        self.reply(200, b"many", *(f"X-{i}: {i}" for i in range(int(rest))))

    def on_refuse(self, _rest):
        """Answers without reading the body."""
        self.reply(413, b"too much", "Connection: close")
        self.close_connection = True

    def on_hold(self, rest):
        """Answers after so many seconds, unless the client leaves before."""
        end = time.monotonic() + float(rest)
        while time.monotonic() < end:
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                note("seen", "closed")
                self.close_connection = True
                return
        self.reply(200, b"held")

    def on_drip(self, rest):
        """A byte every tenth of a second for so many seconds, until the client leaves."""
        self.head(200, "Transfer-Encoding: chunked")
        self.drip(float(rest), b".")

    def on_events(self, rest):
        self.head(200, "Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")
        self.drip(float(rest), b"data: x\n\n")

    def drip(self, seconds, data):
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.chunk(data)
                time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            note("seen", "closed")
            self.close_connection = True

    def on_stuck(self, rest):
        """Reads nothing of its body for so many seconds, then all."""
        time.sleep(float(rest))
        self.on_echo("")

    def on_got(self, _rest):
        """Notes how much of its body has come."""
        size = 0
        for piece in self.pieces():
            size += len(piece)
            note("seen", f"got {size}")
        note("seen", f"end {size}")
        self.reply(200, b"")

    def on_pause(self, _rest):
        """Half an answer, then nothing."""
        self.head(200, "Content-Length: 10")
        self.wfile.write(b"12345")
        time.sleep(30)

    def on_cut(self, rest):
        """Half an answer, then the end of the connection: "length" or "chunks"."""
        self.head(200, "Transfer-Encoding: chunked" if rest == "chunks" else "Content-Length: 10")
        self.wfile.write(b"5\r\n12345\r\n" if rest == "chunks" else b"12345")
        self.close_connection = True

    def on_leave(self, _rest):
        """Ends the connection without a word."""
        self.close_connection = True

    def on_last(self, _rest):
        """Says that the connection may be used again, and closes it when it is."""
        self.reply(200, b"last")
        self.connection.recv(1, socket.MSG_PEEK)
        self.close_connection = True

    def on_switch(self, rest):
        """Switches to a protocol in which bytes come back as they are, after a welcome and before a farewell."""
        protocol = self.headers.get("Upgrade")
        if protocol != "echo":
            self.on_echo("")
            return
        fields = ["Connection: upgrade", "Upgrade: echo", "X-More: 1"]
        self.wfile.write("\r\n".join(["HTTP/1.1 101 x", *fields, "", "welcome "]).encode())
        note("seen", "open")
        while data := self.rfile.read1(PIECE):
            self.wfile.write(data)
        note("seen", "closed")
        self.wfile.write(b" bye")
        self.close_connection = True

    def on_exit(self, rest):
        """The whole pod ends in the middle of its answer."""
        self.head(200, "Content-Length: 10")
        self.wfile.write(b"12345")
        self.wfile.flush()
        os._exit(int(rest or 1))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self):
        # Without the reverse lookup of the base class.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address

    def handle_error(self, *_args):
        pass


def main():
    note("starts", str(os.getpid()))
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Pod)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=lambda: (note("starts", "end"), os._exit(0))).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
