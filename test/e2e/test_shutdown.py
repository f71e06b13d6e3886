"""SIGTERM: what was accepted ends, and the programs leave with 0."""

import concurrent.futures
import signal
import threading
import time

import pytest
import requests

from books import asked_texts, check_once_each
from fixtures import recorder_settings
from stores import wait_until
from wakegate import Part


def test_no_accepted_request_fails_when_the_server_is_told_to_end(start_gateway):
    gateway = start_gateway(recorder_settings())
    serve = gateway.serves[0]
    client = gateway.client()
    uuids = [client.awake() for _ in range(4)]
    stopping = threading.Event()
    results = []

    def talk(number):
        # A connection for each request: so a refusal at connect is told from a broken answer.
        while not stopping.is_set():
            try:
                answer = requests.post(f"{client.url}/session/{uuids[number % 4]}/chat", timeout=30,
                                       headers={"X-API-Key": client.key, "Connection": "close"},
                                       json={"message": f"client {number}"})
                results.append(answer.status_code)
            except requests.exceptions.ConnectionError as error:
                # No longer listening, or not yet read by anybody: it was not accepted.
                results.append(type(error).__name__)
                return

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        talkers = [pool.submit(talk, number) for number in range(8)]
        wait_until(lambda: len(results) > 100, 30, "a hundred answers")
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
        stopping.set()
        for talker in talkers:
            talker.result()
    answered = [each for each in results if isinstance(each, int)]
    assert set(answered) <= {200, 202}
    # Whoever got an answer was told the truth, and nothing was done that nobody heard of but what was cut off.
    serve.start().wait_ready()
    client = gateway.client()
    messages = [message for uuid in uuids for message in client.all_messages(uuid)]
    assert len(answered) <= len(messages) <= len(results)


def test_a_request_in_work_is_answered_before_the_server_leaves(start_gateway):
    gateway = start_gateway(recorder_settings())
    serve = gateway.serves[0]
    client = gateway.client()
    uuid = client.awake()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(client.chat, uuid, "!slow 2 done")
        wait_until(lambda: asked_texts(gateway, uuid), 5, "the pod was asked")
        serve.signal(signal.SIGTERM)
        answer = slow.result()
        assert serve.wait() == 0
    assert answer.status_code == 200 and answer.json()["response"] == "1: !slow 2 done"
    assert answer.headers["Connection"] == "close"
    serve.start().wait_ready()


def test_a_server_that_drains_is_not_ready(start_gateway):
    gateway = start_gateway(recorder_settings())
    serve = gateway.serves[0]
    client = gateway.client()
    uuid = client.awake()
    # Connections from before: a load balancer's.
    with requests.Session() as session, concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert session.get(client.url + "/readyz", timeout=5).status_code == 200
        slow = pool.submit(client.chat, uuid, "!slow 1")
        wait_until(lambda: asked_texts(gateway, uuid), 5, "the pod was asked")
        serve.signal(signal.SIGTERM)
        wait_until(lambda: serve.log_lines("draining"), 5, "it drains")
        try:
            assert requests.get(client.url + "/readyz", timeout=5).status_code == 503
        except requests.exceptions.ConnectionError:
            pass
        assert slow.result().status_code == 200
        assert serve.wait() == 0
    serve.start().wait_ready()


def test_a_worker_told_to_end_gives_its_jobs_back_and_loses_none(start_gateway):
    gateway = start_gateway(recorder_settings(), works=2)
    client = gateway.client()
    uuids = [client.create() for _ in range(4)]
    sent = {uuid: [] for uuid in uuids}
    for turn in range(6):
        for uuid in uuids:
            sent[uuid].append(f"!slow 0.1 {turn}")
            assert client.chat(uuid, sent[uuid][-1]).status_code in (200, 202)
        part = gateway.works[turn % 2]
        assert part.stop() == 0
        part.start()
    for part in gateway.works:
        part.wait_ready()
    for uuid in uuids:
        client.wait_settled(uuid, len(sent[uuid]), 40)
        check_once_each(gateway, uuid, sent[uuid])


@pytest.mark.parametrize("kind", ["serve", "work"])
def test_sigterm_at_any_moment_of_the_start_ends_it_with_0(start_gateway, kind):
    gateway = start_gateway(serves=0, works=0)
    for moment_ms in range(0, 300, 25):
        part = Part(gateway, kind, moment_ms).start()
        began = time.monotonic()
        # Any moment will do, once there is a handler for the signal.
        wait_until(lambda: "connection made" in part.log(), 10, "it begins to start")
        wait_until(lambda: time.monotonic() > began + moment_ms / 1000, 5, pause_s=0.001)
        assert part.stop() == 0, part.log()
        part.log_lines()


def test_sigint_ends_them_too(start_gateway):
    gateway = start_gateway()
    for part in gateway.parts:
        began = time.monotonic()
        part.signal(signal.SIGINT)
        assert part.wait() == 0 and time.monotonic() - began < 10
    for part in gateway.parts:
        part.start().wait_ready()
