"""Streams of events, as tests listen to them."""

import contextlib
import json
import time

import requests
import websockets.exceptions

from websocket_client import connect

PATH = "/v1/stream"
NUMBER = "job.failed"  # carries numbers in tests; nothing else here makes one


class Listener:
    """An open WebSocket, and what came."""

    def __init__(self, socket):
        self.socket = socket

    def say(self, **message):
        self.socket.send(json.dumps(message))

    def next(self, timeout=20):
        return json.loads(self.socket.recv(timeout))

    def until(self, kind, timeout=20):
        """The next message of that type, and those before it."""
        before = []
        while True:
            message = self.next(timeout)
            if message["type"] == kind:
                return message, before
            before.append(message)

    def ask(self, kind, answer, **members):
        """Says it; the answer, and what came before that."""
        self.say(type=kind, **members)
        return self.until(answer)

    def silent(self):
        """What came up to now: an answer comes behind it."""
        return self.ask("ping", "pong")[1]

    def numbers(self, count):
        return [self.next()["data"]["number"] for _ in range(count)]

    def closed(self, timeout=20):
        """The code with which it is closed; what comes before is passed over."""
        try:
            while True:
                self.socket.recv(timeout)
        except websockets.exceptions.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


def ws_url(gateway, path=PATH, part=0, **query):
    url = gateway.serves[part].url().replace("http", "ws", 1) + path
    words = requests.compat.urlencode(query)
    return f"{url}?{words}" if words else url


@contextlib.contextmanager
def listen(gateway, token=None, path=PATH, part=0, options=None, **query):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with connect(ws_url(gateway, path, part, **query), extra_headers=headers, **(options or {})) as socket:
        yield Listener(socket)


@contextlib.contextmanager
def listen_and_say(gateway, token, part=0, options=None, **members):
    """Says who it is in its first message."""
    with listen(gateway, part=part, options=options) as listener:
        listener.ask("auth", "authenticated", token=token, **members)
        yield listener


def number_of(gateway, account):
    return gateway.sql("SELECT id FROM account WHERE ref = %s", account.id)[0][0]


def add(gateway, account, first, last, name=NUMBER):
    """Events with numbers, as a cause adds them; the relay finds them by itself."""
    gateway.sql("SELECT event_add(%s, 'inference', %s, jsonb_build_object('number', n)) FROM generate_series(%s, %s) AS n",
                number_of(gateway, account), name, first, last)


def ids(gateway, account):
    """Those in the history, in order."""
    return [row[0] for row in gateway.sql("SELECT id FROM event WHERE account_id = %s ORDER BY seq",
                                          number_of(gateway, account))]


class Sse:
    """An event stream over python-requests: what its lines say."""

    def __init__(self, gateway, token, part=0, last_id=None, path=PATH, **query):
        headers = {"Accept": "text/event-stream"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if last_id:
            headers["Last-Event-ID"] = last_id
        self.answer = requests.get(gateway.serves[part].url() + path, params=query, headers=headers, stream=True,
                                   timeout=20)
        self.lines = self.answer.iter_lines(chunk_size=1)
        self.id = None

    def __enter__(self):
        assert self.answer.status_code == 200, self.answer.text
        return self

    def __exit__(self, *_):
        self.answer.close()

    def next(self):
        """The next event's data; None at the end of the stream."""
        data = []
        for line in self.lines:
            text = line.decode()
            if text.startswith("id: "):
                self.id = text[4:]
            elif text.startswith("data: "):
                data.append(text[6:])
            elif not text and data:
                return json.loads("\n".join(data))
        return None

    def numbers(self, count):
        return [self.next()["data"]["number"] for _ in range(count)]


def since(moment):
    return time.monotonic() - moment
