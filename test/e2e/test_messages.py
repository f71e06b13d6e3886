"""Messages: accepted means delivered, in order, each once; what a pod can answer, and what becomes of it."""

import concurrent.futures
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from books import asked_texts, check_once_each, pod_starts, read_book
from fixtures import recorder_settings, run_gateway
from stores import wait_until

TRIES = 5  # MESSAGE_TRIES of core/domain/instance/message.h


@pytest.fixture(scope="module")
def hasty(stores):
    """A pod that does not answer is given up soon."""
    yield from run_gateway(stores, recorder_settings(POD_ANSWER_TIMEOUT_MS="300", POD_STOP_TIMEOUT_MS="300"))


def test_fifty_messages_to_a_sleeping_pod_are_delivered_once_each_and_in_order(recorder):
    client = recorder.client()
    uuid = client.create()
    texts = [f"message {i}" for i in range(50)]
    for text in texts:
        assert client.chat(uuid, text).status_code in (200, 202)
    client.wait_settled(uuid, 50)
    check_once_each(recorder, uuid, texts)
    assert asked_texts(recorder, uuid) == texts
    assert client.status(uuid).json()["queue_length"] == 0


def test_queue_length_counts_what_waits(start_gateway):
    gateway = start_gateway(recorder_settings(), works=0)
    client = gateway.client()
    uuid = client.create()
    for i in range(3):
        answer = client.chat(uuid, f"{i}")
        assert answer.status_code == 202 and answer.json()["message_id"]
    body = client.status(uuid).json()
    assert body["queue_length"] == 3 and body["replicas"] == 0
    assert [m["status"] for m in client.all_messages(uuid)] == ["queued"] * 3


def test_twenty_clients_at_once_are_all_answered_in_the_order_of_acceptance(recorder):
    client = recorder.client()
    uuid = client.awake()
    texts = [f"client {i} message {j}" for i in range(20) for j in range(5)]

    def talk(number):
        return [client.chat(uuid, text, wait=30) for text in texts[number * 5:number * 5 + 5]]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [answer for each in pool.map(talk, range(20)) for answer in each]
    assert {answer.status_code for answer in answers} == {200}
    for text, answer in zip(texts, answers):
        assert answer.json()["response"].split(": ", 1)[1] == text
    accepted = [message["message"] for message in client.all_messages(uuid)]
    assert sorted(accepted) == sorted(texts)
    check_once_each(recorder, uuid, accepted)
    # What one client sent after an answer comes after it.
    for number in range(20):
        own = [text for text in accepted if text.startswith(f"client {number} ")]
        assert own == texts[number * 5:number * 5 + 5]


def test_the_pod_gets_what_the_contract_says(recorder):
    client = recorder.client()
    uuid = client.awake()
    text = "quote \" backslash \\ newline \n tab \t null-ish \\u0000 \N{GRINNING FACE} \u2028 end"
    answer = client.chat(uuid, text)
    asked = read_book(recorder, uuid, "asked.jsonl")[0]
    assert asked["message"] == text and asked["session"] == uuid
    assert asked["message_id"] == answer.json()["message_id"]
    assert answer.json()["response"] == f"1: {text}"
    assert client.all_messages(uuid)[0]["message"] == text


def test_the_longest_message_is_delivered_whole(recorder):
    client = recorder.client()
    uuid = client.awake()
    text = "ł" * 65536
    assert client.chat(uuid, text).json()["response"] == f"1: {text}"


@pytest.mark.parametrize("text,why", [("!500", "no"),  # in the pod's own words
                                      ("!garbage", "the pod's answer was not JSON"),
                                      ("!empty", "the pod's answer was not JSON"),
                                      ("!huge", "the pod's answer was too large")])
@pytest.mark.parametrize("sleeping", [False, True])
def test_an_answer_that_can_not_be_used_fails_the_message_at_once(recorder, text, why, sleeping):
    client = recorder.client()
    uuid = client.create() if sleeping else client.awake()
    answer = client.chat(uuid, text, wait=20)
    assert answer.status_code == 502 and answer.json() == {"error": why}
    message = client.all_messages(uuid)[0]
    assert (message["status"], message["response"], message["error"]) == ("failed", None, why)
    assert asked_texts(recorder, uuid) == [text]
    # The next one is none the worse for it.
    assert client.chat(uuid, "fine", wait=20).json()["response"] == "1: fine"


@pytest.mark.parametrize("text", ["!never", "!503", "!crash"])
def test_a_message_without_an_answer_is_tried_a_bounded_number_of_times(hasty, text):
    client = hasty.client()
    uuid = client.awake()
    client.chat(uuid, text)
    client.chat(uuid, "behind it")
    messages = client.wait_settled(uuid, 2, 60)
    assert [m["status"] for m in messages] == ["failed", "delivered"]
    assert messages[0]["error"] == f"the pod gave no answer in {TRIES} tries"
    asked = asked_texts(hasty, uuid)
    # A connection that was in the dying pod's backlog counts as a try: nobody can tell that it was not read.
    assert asked.count(text) == TRIES or (text == "!crash" and asked.count(text) == TRIES - 1)
    assert asked.count("behind it") == 1
    assert {line["message_id"] for line in read_book(hasty, uuid, "asked.jsonl") if line["message"] == text} == {
        messages[0]["message_id"]}


def test_a_pod_that_crashes_once_over_a_message_gets_it_again(recorder):
    client = recorder.client()
    uuid = client.awake()
    texts = ["!crash-once", "after"]
    assert client.chat(uuid, texts[0], wait=30).status_code in (200, 202)
    assert client.chat(uuid, texts[1], wait=30).status_code == 200
    check_once_each(recorder, uuid, texts)
    assert asked_texts(recorder, uuid) == ["!crash-once", "!crash-once", "after"]


def test_a_pod_that_hangs_is_started_anew_and_gets_its_message_again(hasty):
    client = hasty.client()
    uuid = client.awake()
    assert client.chat(uuid, "!hang-once", wait=30).status_code in (200, 202)
    client.wait_settled(uuid, 1, 60)
    check_once_each(hasty, uuid, ["!hang-once"])
    assert len(pod_starts(hasty, uuid)) == 2


def test_a_client_that_leaves_while_it_waits_does_not_take_its_message_along(recorder):
    client = recorder.client()
    for uuid in (client.create(), client.awake()):
        where = urlsplit(recorder.url)
        body = json.dumps({"message": "!slow 0.5 goodbye"})
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall((f"POST /session/{uuid}/chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {client.key}\r\n"
                                f"Prefer: wait=30\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
            wait_until(lambda: client.all_messages(uuid), 10, "it was accepted")
        client.wait_settled(uuid, 1)
        check_once_each(recorder, uuid, ["!slow 0.5 goodbye"])


def test_a_pod_has_at_most_a_thousand_messages_waiting(start_gateway):
    gateway = start_gateway(recorder_settings(), works=0)
    client = gateway.client()
    uuid = client.create()
    gateway.sql("UPDATE instance SET queued = 999 WHERE id = %s", uuid)
    assert client.chat(uuid, "the thousandth").status_code == 202
    refused = client.chat(uuid, "one too many")
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
    assert refused.json() == {"error": "Too many messages are waiting for this pod"}
    assert len(client.all_messages(uuid)) == 1


def test_two_servers_and_two_workers_on_the_same_stores_work_as_one(start_gateway):
    gateway = start_gateway(recorder_settings(), serves=2, works=2)
    clients = [gateway.client(url=part.url()) for part in gateway.serves]
    uuids = [clients[0].create() for _ in range(6)]
    sent = {uuid: [] for uuid in uuids}
    lock = threading.Lock()

    def talk(number):
        client = clients[number % 2]
        for i in range(12):
            uuid = uuids[(number + i) % len(uuids)]
            text = f"client {number} message {i}"
            assert client.chat(uuid, text, wait=30).status_code == 200
            with lock:
                sent[uuid].append(text)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))
    for uuid in uuids:
        accepted = [message["message"] for message in clients[1].all_messages(uuid)]
        assert sorted(accepted) == sorted(sent[uuid])
        check_once_each(gateway, uuid, accepted)
    # Woken through one, asked for through the other.
    assert clients[1].sleep(uuids[0]).status_code == 202
    wait_until(lambda: clients[0].status(uuids[0]).json()["replicas"] == 0, 20, "asleep")
    assert clients[0].chat(uuids[0], "again", wait=20).status_code == 200
