"""Workers killed at any moment, under a stream of messages."""

import os
import random
import time

from books import asked_texts, check_once_each, read_lines
from fixtures import recorder_settings
from stores import wait_until

SHORT = {"POD_STOP_TIMEOUT_MS": "500", "POD_READY_TIMEOUT_MS": "2000", "POD_ANSWER_TIMEOUT_MS": "1500",
         "PG_TIMEOUT_MS": "2000", "JOB_LEASE_SECONDS": "13", "WEBHOOK_TIMEOUT_MS": "2000", "IDLE_TIMEOUT_SECONDS": "1"}
KILL_FOR_S = 15


def test_workers_killed_at_random_lose_and_double_nothing(start_gateway):
    # Two workers on one machine: what one leaves behind the other takes up while the first starts again.
    gateway = start_gateway(recorder_settings(**SHORT), works=2, supervised=True)
    client = gateway.client()
    chance = random.Random(20251110)
    uuids = [client.create() for _ in range(4)]
    sent = {uuid: [] for uuid in uuids}
    kills = 0
    end = time.monotonic() + KILL_FOR_S
    next_kill = time.monotonic()
    while time.monotonic() < end:
        uuid = chance.choice(uuids)
        text = f"message {len(sent[uuid])}"
        answer = client.chat(uuid, text)
        if answer.status_code in (200, 202):
            sent[uuid].append(text)
        else:  # too many wait, while the lease of a killed worker runs out
            assert answer.status_code in (429, 503) and answer.headers["Retry-After"], answer.text
        if chance.random() < 0.1:
            assert client.sleep(uuid).status_code == 202
        if time.monotonic() >= next_kill:
            part = chance.choice(gateway.works)
            part.process.kill()
            kills += 1
            next_kill = time.monotonic() + chance.uniform(0.2, 1.5)
    assert kills > 10
    for uuid in uuids:
        assert len(sent[uuid]) > 5
        client.wait_settled(uuid, len(sent[uuid]), 90)
        check_once_each(gateway, uuid, sent[uuid])
        assert set(asked_texts(gateway, uuid)) == set(sent[uuid])
    wait_until(lambda: gateway.pod_processes() == {}, 60, "idle pods are asleep", 0.2)


def test_a_pod_outlives_its_worker_and_is_found_again(start_gateway):
    gateway = start_gateway(recorder_settings(), supervised=True)
    client = gateway.client()
    uuid = client.awake()
    before = gateway.pod_processes(uuid)
    gateway.works[0].process.kill()
    # No worker is needed while it is awake.
    assert client.chat(uuid, "no worker").json()["response"] == "1: no worker"
    wait_until(lambda: gateway.works[0].log_lines("pod found again"), 30, "the pod is found again")
    assert gateway.pod_processes(uuid) == before and client.status(uuid).json()["replicas"] == 1
    # The new worker watches it: it notices its end, and can stop it.
    assert client.sleep(uuid).status_code == 202
    wait_until(lambda: gateway.pod_processes(uuid) == {}, 20, "asleep")
    assert read_lines(gateway.workspace(uuid, "conflicts")) == []


def test_a_worker_told_to_end_leaves_its_pods_awake(start_gateway):
    gateway = start_gateway(recorder_settings())
    client = gateway.client()
    uuid = client.awake()
    before = gateway.pod_processes(uuid)
    work = gateway.works[0]
    assert work.stop() == 0
    assert gateway.pod_processes(uuid) == before
    assert client.chat(uuid, "still here").json()["response"] == "1: still here"
    work.start().wait_ready()
    wait_until(lambda: work.log_lines("pod found again"), 30, "the pod is found again")
    assert gateway.pod_processes(uuid) == before


def test_a_pod_that_dies_while_no_worker_runs_is_noticed_and_started_again(start_gateway):
    gateway = start_gateway(recorder_settings())
    client = gateway.client()
    uuid = client.awake()
    work = gateway.works[0]
    assert work.stop() == 0
    for pid in gateway.pod_processes(uuid):
        os.kill(pid, 9)
    # Accepted while nobody is there to answer or to start a pod.
    answer = client.chat(uuid, "anybody?")
    assert answer.status_code == 202
    work.start().wait_ready()
    client.wait_settled(uuid, 1, 30)
    check_once_each(gateway, uuid, ["anybody?"])
