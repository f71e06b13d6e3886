"""Nothing is missed and nothing comes twice, whatever is cut, slow, lost or killed."""

import asyncio
import json
import random
import re
import socket
import threading

import pytest
import websockets

from accounts import SETTINGS, Account
from events import PATH, Sse, add, ids, listen, number_of, ws_url
from fixtures import run_gateway
from stores import wait_until
from test_websocket import frame, read_frame, shake

COUNT = 10000
CUTS = 100


@pytest.fixture(scope="module")
def live(stores):
    yield from run_gateway(stores, SETTINGS, serves=2, works=1)


class Makers:
    """Several at once make events of one account, in groups of any size, some of which are taken back."""

    def __init__(self, gateway, account, count, makers=4):
        self.gateway = gateway
        self.account = number_of(gateway, account)
        self.left = list(range(count))
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.make, args=(random.Random(i),)) for i in range(makers)]
        for thread in self.threads:
            thread.start()

    def take(self, most):
        with self.lock:
            taken, self.left = self.left[:most], self.left[most:]
            return taken

    def make(self, dice):
        add_all = ("SELECT event_add(%s, 'inference', 'job.failed', jsonb_build_object('number', n)) FROM "
                   "unnest(%s::int[]) AS n")
        with self.gateway.stores.postgres.connect(self.gateway.database) as connection, connection.cursor() as cursor:
            while numbers := self.take(dice.choice((1, 1, 2, 10, 50))):
                if dice.random() < 0.1:
                    cursor.execute(add_all, (self.account, [-1]))
                    connection.rollback()
                cursor.execute(add_all, (self.account, numbers))
                connection.commit()

    def wait(self):
        for thread in self.threads:
            thread.join()


def history(gateway, account):
    return [row[0] for row in gateway.sql("SELECT (data->>'number')::int FROM event WHERE account_id = %s ORDER BY seq",
                                          number_of(gateway, account))]


class Cut:
    """A client that is cut at random, and goes on after the last event it has had."""

    def __init__(self, gateway, account, seed):
        self.gateway = gateway
        self.key = account.key
        self.dice = random.Random(seed)
        self.compression = None if seed else "deflate"
        self.numbers = []
        self.last_id = None
        self.cuts = 0

    async def connect(self):
        query = {"last_event_id": self.last_id} if self.last_id and self.cuts % 2 else {}
        url = ws_url(self.gateway, part=self.cuts % 2, **query)
        # Of what it is sent before it is cut it takes little: all that comes again with the next connection.
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.connect(("127.0.0.1", int(re.search(r":(\d+)/", url)[1])))
        plain.setblocking(False)
        socket_ = await websockets.connect(url, sock=plain, max_size=None, max_queue=None, compression=self.compression,
                                           extra_headers={} if self.cuts % 3 == 0 else {"Authorization": f"Bearer {self.key}"})
        said = {"last_event_id": self.last_id} if self.last_id and not query else {}
        if self.cuts % 3 == 0:
            await socket_.send(json.dumps({"type": "auth", "token": self.key, **said}))
        elif said:
            await socket_.send(json.dumps({"type": "resume", **said}))
        return socket_

    async def read(self, socket_, most):
        """Up to so many; a client that says where it was late may get newer ones first, so it is not cut before the answer."""
        while most > 0 and len(self.numbers) < COUNT:
            message = json.loads(await asyncio.wait_for(socket_.recv(), 60))
            assert message["type"] not in ("gap", "error"), message
            if message["type"] == "job.failed":
                self.numbers.append(message["data"]["number"])
                self.last_id = message["id"]
                most -= 1

    async def run(self):
        while len(self.numbers) < COUNT:
            socket_ = await self.connect()
            most = self.dice.randint(1, 3 * COUNT // CUTS // 2) if self.cuts < CUTS else COUNT
            try:
                await self.read(socket_, most)
            except websockets.ConnectionClosed as closed:
                assert closed.code == 4008  # too slow on this machine: a cut like others
            self.cuts += 1
            if self.dice.random() < 0.5:
                socket_.transport.abort()  # without a word
            else:
                await socket_.close()


def test_a_client_that_is_cut_a_hundred_times_has_all_once_in_order(live):
    account = Account(live)
    add(live, account, -5, -5)
    first = wait_until(lambda: ids(live, account), 10, "one event")[0]
    clients = [Cut(live, account, seed) for seed in range(3)]
    for client in clients:
        client.last_id = first
    makers = Makers(live, account, COUNT)

    async def all_of_them():
        await asyncio.gather(*(client.run() for client in clients))

    asyncio.run(asyncio.wait_for(all_of_them(), 150))
    makers.wait()
    told = history(live, account)[1:]
    assert sorted(told) == list(range(COUNT))
    for client in clients:
        assert client.numbers == told
        assert client.cuts >= CUTS


def test_a_browser_that_is_cut_goes_on(live):
    account = Account(live)
    count = 2000
    makers = Makers(live, account, count)
    got, last_id, cuts = [], "evt_" + "0" * 29, 0
    while len(got) < count:
        with Sse(live, account.key, part=cuts % 2, last_id=last_id) as sse:
            for _ in range(min(97, count - len(got))):
                got.append(sse.next()["data"]["number"])
                last_id = sse.id
        cuts += 1
    makers.wait()
    assert got == history(live, account) and sorted(got) == list(range(count))


def test_a_slow_reader_is_closed_and_goes_on(live):
    """1 MiB behind: 4008; all is there when it comes back, and one who reads is not kept waiting."""
    account = Account(live)
    count, text = 400, "x" * 20000
    plain, head = shake(live, PATH, buffer_bytes=4096, Authorization=f"Bearer {account.key}")
    assert head.startswith("HTTP/1.1 101 ")
    # From its first word on it is sent what happens; before that it would be one that catches up, which is waited for.
    plain.sendall(frame(1, b'{"type":"ping"}'))
    while json.loads(read_frame(plain)[1])["type"] != "pong":
        pass
    with plain, listen(live, account.key) as other:
        for first in range(0, count, 50):
            live.sql("SELECT event_add(%s, 'inference', 'job.failed', jsonb_build_object('number', n, 'text', %s::text)) "
                     "FROM generate_series(%s, %s) AS n", number_of(live, account), text, first, first + 49)
        assert other.numbers(count) == list(range(count))
        got, last_id = [], None
        plain.settimeout(20)
        while True:
            opcode, payload = read_frame(plain)
            if opcode == 8:
                assert int.from_bytes(payload[:2], "big") == 4008
                break
            if opcode == 1:
                event = json.loads(payload)
                got.append(event["data"]["number"])
                last_id = event["id"]
    assert 0 < len(got) < count
    with listen(live, account.key, last_event_id=last_id) as listener:
        got += listener.numbers(count - len(got))
    assert got == list(range(count))


def test_who_catches_up_slowly_is_waited_for(live):
    """8 MiB of history to a reader of 4 KiB: it is paced, not closed."""
    account = Account(live)
    live.sql("SELECT event_add(%s, 'inference', 'job.failed', jsonb_build_object('number', n, 'text', repeat('x', 20000))) "
             "FROM generate_series(0, 399) AS n", number_of(live, account))
    wait_until(lambda: len(ids(live, account)) == 400, 10, "the events are numbered")
    plain, head = shake(live, f"{PATH}?last_event_id=evt_{'0' * 29}", buffer_bytes=4096,
                        Authorization=f"Bearer {account.key}")
    assert head.startswith("HTTP/1.1 101 ")
    with plain:
        numbers = []
        while len(numbers) < 400:
            opcode, payload = read_frame(plain)
            assert opcode != 8, payload
            if opcode == 1:
                numbers.append(json.loads(payload)["data"]["number"])
        assert numbers == list(range(400))


def test_redis_lost_in_the_middle_loses_nothing(own_stores, start_gateway):
    gateway = start_gateway({**SETTINGS, "REDIS_TIMEOUT_MS": "500"}, stores=own_stores, serves=2, works=0)
    account = Account(gateway)
    count = 3000
    with listen(gateway, account.key) as first, listen(gateway, account.key, part=1) as second:
        first.silent(), second.silent()
        makers = Makers(gateway, account, count)
        own_stores.redis.stop()
        got = first.numbers(200)
        own_stores.redis.start()
        got += first.numbers(count - 200)
        makers.wait()
        assert got == second.numbers(count) == history(gateway, account)
        # It is heard at once again.
        add(gateway, account, count, count)
        assert first.numbers(1) == second.numbers(1) == [count]


def test_a_server_killed_in_the_middle_loses_nothing(own_stores, start_gateway):
    """Whoever relays may die at any moment; events that were committed are told by the others."""
    gateway = start_gateway(SETTINGS, stores=own_stores, serves=2, works=0,
                            serve_env={"WAKEGATE_CRASH_AT": "event-relayed:3"})
    gateway.serves[1].kill()
    gateway.serves[1].extra = None
    gateway.serves[1].start().wait_ready()
    account = Account(gateway)
    count = 2000
    with listen(gateway, account.key, part=1) as listener:
        listener.silent()
        makers = Makers(gateway, account, count)
        got = listener.numbers(count)
        makers.wait()
        wait_until(lambda: add(gateway, account, 0, 0) or not gateway.serves[0].alive(), 30, "the first one dies", 0.2)
    assert got == history(gateway, account)[:count] and sorted(got) == list(range(count))
    gateway.serves[0].extra = None
    gateway.serves[0].start().wait_ready()


def test_postgresql_restarted_in_the_middle_loses_nothing(own_stores, start_gateway):
    gateway = start_gateway(SETTINGS, stores=own_stores, works=0)
    account = Account(gateway)
    with listen(gateway, account.key) as listener, Sse(gateway, account.key) as sse:
        listener.silent()
        add(gateway, account, 0, 499)
        assert listener.numbers(100) == list(range(100))
        own_stores.postgres.stop()
        own_stores.postgres.start()
        add(gateway, account, 500, 999)
        assert listener.numbers(900) == list(range(100, 1000))
        assert sse.numbers(1000) == list(range(1000))
