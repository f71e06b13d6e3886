"""Redis is the doorbell: whatever becomes of it, what was accepted is done, and clients hear 503 at worst."""

import concurrent.futures
import contextlib
import signal
import threading
import time

import pytest
import requests

from books import check_once_each
from fixtures import recorder_settings
from stores import wait_until

LOAD_S = 6


@pytest.fixture
def gateway(own_stores, start_gateway):
    return start_gateway(recorder_settings(PG_TIMEOUT_MS="3000"), stores=own_stores)


class Load:
    """Four clients, each with a session of its own, that chat until they are told to end."""

    def __init__(self, gateway, clients=4, pause_s=0.02):
        self.gateway = gateway
        self.client = gateway.client()
        self.uuids = [self.client.create() for _ in range(clients)]
        self.accepted = {uuid: [] for uuid in self.uuids}
        self.refused = []
        self.pause_s = pause_s
        self.ending = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)

    def __enter__(self):
        self.threads = [self.pool.submit(self._chat, uuid) for uuid in self.uuids]
        return self

    def _chat(self, uuid):
        number = 0
        while not self.ending.is_set():
            number += 1
            text = f"message {number}"
            answer = self.client.chat(uuid, text)
            if answer.status_code in (200, 202):
                self.accepted[uuid].append(text)
            else:
                # Never 500: it may be tried again, and the answer says when.
                assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0, answer.text
                self.refused.append(answer.status_code)
            time.sleep(self.pause_s)

    def count(self):
        return sum(len(texts) for texts in self.accepted.values())

    def __exit__(self, *error):
        self.ending.set()
        for thread in self.threads:
            thread.result()
        self.pool.shutdown()

    def check_all_delivered(self, timeout_s=60):
        for uuid in self.uuids:
            messages = self.client.all_messages(uuid)
            # A message whose commit was not heard of may be there, too: the client was told 503.
            known = [message["message"] for message in messages]
            assert [text for text in known if text in set(self.accepted[uuid])] == self.accepted[uuid]
            self.client.wait_settled(uuid, len(messages), timeout_s)
            check_once_each(self.gateway, uuid, known)


def ready(gateway):

    return wait_until(lambda: all(requests.get(gateway.url + "/readyz", timeout=5).status_code == 200
                                  for _ in range(8)), 30, "ready again", 0.1)


def test_flushall_with_messages_queued_loses_none(own_stores, start_gateway):
    gateway = start_gateway(recorder_settings(), stores=own_stores)
    client = gateway.client()
    work = gateway.works[0]
    # The worker stands still, so that the rings are still in Redis when it is emptied.
    work.signal(signal.SIGSTOP)
    uuids = [client.create() for _ in range(3)]
    for uuid in uuids:
        for text in ("one", "two", "three"):
            assert client.chat(uuid, text).status_code == 202
    own_stores.redis.client().flushall()
    work.signal(signal.SIGCONT)
    for uuid in uuids:
        client.wait_settled(uuid, 3, 40)
        check_once_each(gateway, uuid, ["one", "two", "three"])


def test_flushall_over_and_over_under_load_loses_none(gateway, own_stores):
    with Load(gateway) as load:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            own_stores.redis.client().flushall()
            time.sleep(0.02)
    assert load.count() > 50 and not load.refused
    load.check_all_delivered()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_redis_under_load_loses_nothing(gateway, own_stores, number):
    with Load(gateway) as load:
        for _ in range(3):
            before = load.count()
            wait_until(lambda: load.count() > before + 10, 30, "messages are accepted")
            own_stores.redis.stop(number)
            down = time.monotonic()
            wait_until(lambda: time.monotonic() > down + 0.7, 5)
            own_stores.redis.start()
        before = load.count()
        wait_until(lambda: load.count() > before + 10, 30, "messages are accepted again")
    load.check_all_delivered()
    ready(gateway)
    assert gateway.client().chat(load.uuids[0], "afterwards", wait=20).status_code == 200


def test_messages_are_delivered_while_redis_is_away(gateway, own_stores):
    client = gateway.client()
    uuid = client.create()
    own_stores.redis.stop()
    try:
        answer = wait_until(lambda: (answer := client.chat(uuid, "no bell")).status_code in (200, 202) and answer, 20)
        assert answer.status_code == 202
        client.wait_settled(uuid, 1, 30)
        check_once_each(gateway, uuid, ["no bell"])
    finally:
        own_stores.redis.start()
    ready(gateway)


def test_a_redis_that_hangs_for_three_seconds_delays_and_loses_nothing(gateway, own_stores):
    with Load(gateway) as load:
        wait_until(lambda: load.count() > 20, 30, "messages are accepted")
        own_stores.redis.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            wait_until(lambda: time.monotonic() > stopped + 3, 5)
        finally:
            own_stores.redis.process.send_signal(signal.SIGCONT)
        before = load.count()
        wait_until(lambda: load.count() > before + 20, 30, "messages are accepted again")
    load.check_all_delivered()
    ready(gateway)


def test_a_redis_without_memory_delays_and_loses_nothing(gateway, own_stores):
    redis = own_stores.redis.client()
    with Load(gateway) as load:
        wait_until(lambda: load.count() > 20, 30, "messages are accepted")
        redis.config_set("maxmemory", "1mb")
        before = load.count()
        full = time.monotonic()
        wait_until(lambda: time.monotonic() > full + 4, 10)
        assert load.count() > before
        redis.config_set("maxmemory", "0")
        before = load.count()
        wait_until(lambda: load.count() > before + 20, 30, "messages are accepted again")
    load.check_all_delivered()


def test_nobody_spins_while_redis_is_away(gateway, own_stores):
    own_stores.redis.stop()
    try:
        gateway.check_nobody_spins()
    finally:
        own_stores.redis.start()
    ready(gateway)


def test_rate_limits_hold_while_redis_is_away(own_stores, start_gateway):
    gateway = start_gateway({"SESSION_RATE_PER_MINUTE": "20", "REACTORS": "1"}, stores=own_stores, works=0)
    client = gateway.client()
    wait_until(lambda: time.time() % 60 < 45, 20, "the next minute", 0.2)
    own_stores.redis.stop()
    with contextlib.ExitStack() as stack:
        stack.callback(own_stores.redis.start)
        statuses = [client.list().status_code for _ in range(30)]
    assert set(statuses) == {200, 429} and 20 <= statuses.count(200) <= 21 and statuses[-1] == 429
