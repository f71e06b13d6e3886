"""The table of raw requests (test/vectors/http1/requests.txt, which says how it is written), and connections that take them."""

import asyncio
import contextlib
import os
import re

from wakegate import ROOT

TABLE = os.path.join(ROOT, "test", "vectors", "http1", "requests.txt")
SPECIAL = re.compile(rb"\\(?:x([0-9a-f]{2})|([rnt0\\]))|\$\{(\w+)(?:\*(\d+))?\}")
PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


class Vector:
    """One case: `accepted` are (method, target, body), `end` is a status, "close", "more" or None (nothing is left over)."""

    def __init__(self, line, name):
        self.line, self.name = line, name
        self.bytes, self.accepted, self.end = b"", [], None

    def __str__(self):
        return f"{self.line} {self.name}"

    @property
    def refused(self):
        return isinstance(self.end, int)

    def want(self, words):
        if words in (b"close", b"more"):
            self.end = words.decode()
        elif words.isdigit():
            self.end = int(words)
        else:
            method, target, *body = words.split(b" ", 2)
            self.accepted.append((method.decode(), target.decode(), body[0] if body else b""))


def load():
    lets, vectors = {}, []

    def value(match):
        hexadecimal, plain, name, times = match.groups()
        if hexadecimal:
            return bytes.fromhex(hexadecimal.decode())
        return PLAIN[plain] if plain else lets[name] * int(times or 1)

    with open(TABLE, "rb") as file:
        for number, line in enumerate(file.read().split(b"\n"), 1):
            kind, _, rest = line.partition(b" ")
            if kind == b"let":
                name, _, text = rest.partition(b" ")
                lets[name] = SPECIAL.sub(value, text)
            elif kind == b"==":
                vectors.append(Vector(number, rest.decode()))
            elif kind == b">":
                vectors[-1].bytes += SPECIAL.sub(value, rest)
            elif kind == b"<":
                vectors[-1].want(SPECIAL.sub(value, rest))
            else:
                assert not line or line[:1] in (b"#", b"["), f"{TABLE}:{number}"
    return vectors


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __repr__(self):
        return f"{self.status} {self.body[:200]!r}"


class Connection:
    """Bytes out, answers in. All answers have to say how long they are."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data, step=None):
        """All at once, or in steps; of many bytes only the first and the last ones are sent so."""
        pieces = [data]
        if step:
            edge = 300
            middle = [data[edge:-edge]] if len(data) > 2 * edge else []
            ends = [data] if not middle else [data[:edge], data[-edge:]]
            cut = [[end[i:i + step] for i in range(0, len(end), step)] for end in ends]
            pieces = cut[0] + middle + (cut[1] if middle else [])
        with contextlib.suppress(ConnectionError):  # it may have been refused by now
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)

    def half_close(self):
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    async def answer(self):
        """The next answer that is not 1xx; None at the end of the connection."""
        while True:
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                assert not error.partial, error.partial
                return None
            except ConnectionError:
                return None
            line, *lines = head[:-4].decode("latin-1").split("\r\n")
            status = int(line.split(" ")[1])
            fields = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
            if status >= 200:
                return Answer(status, fields, await self.reader.readexactly(int(fields["content-length"])))


@contextlib.asynccontextmanager
async def connect(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def each(items, count, work):
    """Calls work(item) for all, `count` at a time; returns what it returned, in order."""
    places = asyncio.Semaphore(count)

    async def one(item):
        async with places:
            return await work(item)
    return await asyncio.gather(*(one(item) for item in items))
