"""HTTP/1.1 requests byte for byte against the program: what is refused ends the connection, and nothing behind it is ever
taken for a request."""

import asyncio
import itertools
import json
import re

import pytest
import requests

from fixtures import run_gateway
from stores import wait_until
from vectors import connect, each, load

CONNECTIONS = 100
ANSWER_S = 60
BODY_MAX = 1048576
GOOD = b"POST /test/echo?good HTTP/1.1\r\nHost: a\r\nX-Request-Id: good\r\nContent-Length: 4\r\n\r\ngood"
LAST = b"GET /test/echo?last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
VECTORS = load()
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def strict(stores):
    """One reactor, so that its log is in order."""
    yield from run_gateway(stores, {"WAKEGATE_TEST_ENDPOINTS": "1", "REACTORS": "1", "HEADER_TIMEOUT_SECONDS": "60"},
                           works=0)


def port_of(gateway):
    return int(gateway.serves[0].url().rsplit(":", 1)[1])


def requests_logged(gateway):
    """All up to now: the log's lines are written a little later than the answers."""
    flag = f"flag-{next(numbers)}"
    requests.get(gateway.url + "/livez", headers={"X-Request-Id": flag}, timeout=10)

    def lines():
        found = gateway.serves[0].log_lines("request")
        return found[:-1] if found and found[-1]["id"] == flag else None
    return wait_until(lambda: lines() is not None and [lines()], 10, "the log")[0]


def was_logged(gateway, request_id):
    return request_id in [line["id"] for line in requests_logged(gateway)]


def marker(number):
    return f"GET /test/echo?marker HTTP/1.1\r\nHost: a\r\nX-Request-Id: marker-{number}\r\n\r\n".encode()


def is_echoed(target):
    return re.match(r"(?i)(https?://[^/]*)?/test/echo(\?|$)", target) is not None


def seen(answer):
    """What an answer of /test/echo says of its request."""
    if answer is None:
        return "the end"
    if answer.status != 200:
        return answer.status
    said = json.loads(answer.body)
    return said["method"], said["target"], said["body_bytes"]


async def judge(port, vector, before, step):
    """Sends one vector. What is wrong about what comes back, or None."""
    wanted = [("POST", "/test/echo?good", 4)] if before else []
    wanted += [(method, target, len(body)) for method, target, body in vector.accepted]
    tail = {"more": b"", None: LAST}.get(vector.end, marker(vector.line))
    async with connect(port) as connection:
        sending = asyncio.ensure_future(connection.send(before + vector.bytes + tail, step))
        for request in wanted:
            answer = await connection.answer()
            if is_echoed(request[1]) and seen(answer) != request:
                return f"{request} came to {answer}"
        if vector.refused:
            answer = await connection.answer()
            if answer is None or answer.status != vector.end or answer.fields.get("connection") != "close":
                return f"{vector.end} came to {answer} {answer.fields if answer else ''}"
        elif vector.end is None:
            answer = await connection.answer()
            if seen(answer) != ("GET", "/test/echo?last", 0):
                return f"the request behind came to {answer}"
        elif vector.end == "more":
            await sending
            connection.half_close()
        answer = await connection.answer()
        await sending
        return f"instead of the end came {answer}" if answer else None


async def judge_all(port, before, step):
    async def one(vector):
        try:
            return await asyncio.wait_for(judge(port, vector, before, step), ANSWER_S)
        except asyncio.TimeoutError:
            return f"nothing came within {ANSWER_S} s"
    wrong = await each(VECTORS, CONNECTIONS, one)
    return [f"{vector}: {what}" for vector, what in zip(VECTORS, wrong) if what]


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("before", [b"", GOOD], ids=["first", "pipelined"])
def test_every_vector_is_taken_or_refused_as_the_table_says(strict, before, step):
    logged = len(requests_logged(strict)) + 1
    wrong = asyncio.run(judge_all(port_of(strict), before, step))
    assert not wrong, "\n".join(wrong)
    lines = requests_logged(strict)[logged:]
    # Nothing was passed on but what the table accepts: the count, and no request that stood behind a refused one.
    assert not [line["id"] for line in lines if line["id"].startswith("marker")]
    echoed = [line for line in lines if line["route"].endswith("/test/echo") and line["status"] == 200]
    accepted = sum(is_echoed(target) for vector in VECTORS for _, target, _ in vector.accepted)
    kept = sum(vector.end is None for vector in VECTORS)
    assert len(echoed) == accepted + kept + (len(VECTORS) if before else 0)


def test_what_comes_later_on_a_refused_connection_is_not_read(strict):
    async def run():
        async with connect(port_of(strict)) as connection:
            await connection.send(b"GET /test/echo HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n")
            assert (await connection.answer()).status == 400
            await connection.send(marker("later"))
            return await connection.answer()
    assert asyncio.run(run()) is None
    assert not was_logged(strict, "marker-later")


def body_of(size, chunked):
    text = b'{"user_id":"x"}'.ljust(size)
    if not chunked:
        return b"Content-Length: %d\r\n\r\n%s" % (size, text)
    pieces = [text[i:i + 10000] for i in range(0, size, 10000)]
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("over,status", [(-1, 201), (0, 201), (1, 413)])
def test_a_body_has_a_mebibyte_and_no_byte_more(strict, over, status, chunked):
    async def run():
        async with connect(port_of(strict)) as connection:
            head = f"POST /session/create HTTP/1.1\r\nHost: a\r\nX-API-Key: {strict.key()}\r\n".encode()
            body = body_of(BODY_MAX + over, chunked)
            sending = asyncio.ensure_future(connection.send(head + body + marker(f"body{chunked}{over}")))
            first = await connection.answer()
            second = await connection.answer() if status == 201 else None
            if status == 413:
                assert first.fields["connection"] == "close" and await connection.answer() is None
            await sending
            return first.status, second and second.status
    assert asyncio.run(run()) == (status, 200 if status == 201 else None)
    assert was_logged(strict, f"marker-body{chunked}{over}") == (status == 201)


def test_a_body_announced_too_large_is_refused_before_it_comes(strict):
    async def run():
        async with connect(port_of(strict)) as connection:
            await connection.send((f"POST /session/create HTTP/1.1\r\nHost: a\r\nX-API-Key: {strict.key()}\r\n"
                                   f"Content-Length: {BODY_MAX + 1}\r\n\r\n").encode())
            answer = await connection.answer()
            return answer.status, await connection.answer()
    assert asyncio.run(run()) == (413, None)
