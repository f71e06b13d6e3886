"""A client that repeats a request with one Idempotency-Key until it has an answer has asked once, whatever dies."""

import random
import signal
import threading
import time
import uuid as uuids

import pytest
import requests

from books import asked_texts
from fixtures import recorder_settings
from stores import wait_until

LOAD_S = 8
CLIENTS = 4
# Short, so that what a server that died has left running is not waited for.
SHORT = {"PG_TIMEOUT_MS": "2000", "REQUEST_TIMEOUT_SECONDS": "4"}


def send(gateway, method, path, key, **options):
    """The answer, or None when there was none."""
    try:
        return requests.request(method, gateway.url + path, timeout=10,
                                headers={"X-API-Key": gateway.key(), "Idempotency-Key": key}, **options)
    except (requests.ConnectionError, requests.Timeout, AssertionError):
        return None


def insist(gateway, method, path, key, timeout_s=60, **options):
    """Repeats until an answer is final; one of those that may be tried again says when."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = send(gateway, method, path, key, **options)
        if answer is not None and answer.status_code not in (409, 503):
            return answer
        if answer is not None:
            assert int(answer.headers["Retry-After"]) > 0, answer.text
        time.sleep(0.02)
    raise AssertionError(f"no answer to {method} {path} in {timeout_s} s")


class Creators:
    """Clients that make sessions, each under a new key until it has its answer."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.made = {}  # key -> uuid
        self.errors = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def _run(self):
        try:
            while not self.ending.is_set():
                key = str(uuids.uuid4())
                answer = insist(self.gateway, "POST", "/session/create", key, json={"user_id": key})
                assert answer.status_code == 201, answer.text
                self.made[key] = answer.json()["uuid"]
        except Exception as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        assert self.errors == []
        assert len(self.made) > 20
        rows = self.gateway.sql("SELECT user_id, id FROM instance")
        assert dict(rows) == self.made and len(rows) == len(self.made)
        # The record says so too, and asking once more changes nothing.
        audited = self.gateway.sql("SELECT object FROM audit WHERE action = 'session.create'")
        assert sorted(row[0] for row in audited) == sorted(self.made.values())
        for key, uuid in random.sample(sorted(self.made.items()), 10):
            again = insist(self.gateway, "POST", "/session/create", key, json={"user_id": key})
            assert again.json()["uuid"] == uuid and again.headers["Idempotent-Replayed"] == "true"
        assert self.gateway.sql("SELECT count(*) FROM instance")[0][0] == len(self.made)


def restart(part):
    part.kill()
    part.start().wait_ready()


@pytest.fixture
def gateway(own_stores, start_gateway):
    gateway = start_gateway(SHORT, stores=own_stores, works=0)
    gateway.key()
    return gateway


def test_a_server_that_is_killed_again_and_again_makes_each_session_once(gateway):
    with Creators(gateway) as creators:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            before = len(creators.made)
            wait_until(lambda: len(creators.made) > before or creators.errors, 30, "sessions are made")
            time.sleep(random.uniform(0, 0.3))  # to die at any moment
            restart(gateway.serves[0])
    creators.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_postgresql_that_restarts_again_and_again_keeps_each_session_once(gateway, own_stores, number):
    with Creators(gateway) as creators:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            before = len(creators.made)
            wait_until(lambda: len(creators.made) > before + 3 or creators.errors, 30, "sessions are made")
            time.sleep(random.uniform(0, 0.3))
            own_stores.postgres.stop(number)
            own_stores.postgres.start()
    creators.check()


def test_connections_killed_at_any_moment_leave_no_doubt(gateway, own_stores):
    """Among them some whose COMMIT was on its way: the row says what became of it."""
    with Creators(gateway) as creators:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            own_stores.postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                    "WHERE datname = %s AND application_name <> 'tests' ORDER BY random() LIMIT 2",
                                    gateway.database)
            time.sleep(random.uniform(0.02, 0.15))
    creators.check()


def test_a_message_whose_server_died_before_the_answer_is_there_once(own_stores, start_gateway):
    gateway = start_gateway(recorder_settings(**SHORT), stores=own_stores)
    client = gateway.client()
    for text in ("!slow 2", "!slow 3"):
        uuid = client.awake()
        key = str(uuids.uuid4())
        body = {"json": {"message": text}}
        waiting = threading.Thread(target=send, args=(gateway, "POST", f"/session/{uuid}/chat", key), kwargs=body)
        waiting.start()
        # It is accepted, and the pod has it; nobody was told yet.
        wait_until(lambda: asked_texts(gateway, uuid), 20, "the pod is asked")
        [(message_id,)] = gateway.sql("SELECT id FROM message WHERE instance_id = %s", uuid)
        restart(gateway.serves[0])
        waiting.join()
        client = gateway.client()
        # Until the answer that was certain then may be given, it counts as running.
        early = send(gateway, "POST", f"/session/{uuid}/chat", key, **body)
        assert early.status_code == 409 or early.headers["Idempotent-Replayed"] == "true"
        answer = insist(gateway, "POST", f"/session/{uuid}/chat", key, **body)
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert answer.json()["message_id"] == message_id
        [message] = client.wait_settled(uuid, 1, 60)
        assert message["message_id"] == message_id and message["status"] == "delivered"


def test_a_deletion_whose_server_died_before_the_answer_is_done_once(own_stores, start_gateway):
    gateway = start_gateway(recorder_settings(**SHORT), stores=own_stores)
    client = gateway.client()
    uuid = client.awake()
    key = str(uuids.uuid4())
    work = gateway.works[0]
    work.signal(signal.SIGSTOP)  # nobody carries it out, so that the client has to wait
    try:
        waiting = threading.Thread(target=send, args=(gateway, "DELETE", f"/session/{uuid}", key))
        waiting.start()
        wait_until(lambda: gateway.sql("SELECT count(*) FROM instance WHERE id = %s AND deleted_at IS NOT NULL",
                                       uuid)[0][0], 20, "it is committed")
        restart(gateway.serves[0])
        waiting.join()
    finally:
        work.signal(signal.SIGCONT)
    answer = insist(gateway, "DELETE", f"/session/{uuid}", key)
    assert answer.status_code == 200 and answer.headers["Idempotent-Replayed"] == "true"
    wait_until(lambda: gateway.sql("SELECT count(*) FROM instance")[0][0] == 0, 60, "it is gone")
    assert gateway.sql("SELECT count(*) FROM audit WHERE action = 'session.delete'")[0][0] == 1
