"""The pod that comes along asks a model, by the gateway that started it."""

import concurrent.futures
import contextlib
import os
import signal
import socket

import pytest
import requests

import ai
from accounts import error_of
from certificates import Authority
from stores import wait_until
from wakegate import ADMIN_TOKEN, Gateway, run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pods_that_call(stores, **settings):
    port = str(free_port())
    return Gateway(stores, {**ai.SETTINGS, "PORT": port, "POD_GATEWAY_URL": f"http://127.0.0.1:{port}", **settings})


@pytest.fixture(scope="module")
def chatting(stores):
    gateway = pods_that_call(stores)
    try:
        yield gateway.start()
        gateway.close()
    finally:
        gateway.abandon()


def token_of(gateway, uuid):
    """As the pod has it in its environment."""
    (pid, *_) = gateway.pod_processes(uuid)
    with open(f"/proc/{pid}/environ", "rb") as file:
        (token,) = [each[15:] for each in file.read().split(b"\0") if each.startswith(b"WAKEGATE_TOKEN=")]
    return token.decode()


def call(gateway, token, method="POST", path=ai.CHATS, body=ai.CHAT):
    return requests.request(method, gateway.url + path, json=body, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def test_a_message_is_answered_by_the_model(chatting):
    client = chatting.client()
    uuid = client.awake()
    answer = client.chat(uuid, "what is the weather like?", wait=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "delivered" and "what is the weather like?" in answer.json()["response"]
    (row,) = wait_until(lambda: chatting.sql("SELECT surface, model, kind, status, cost FROM ai_job WHERE surface = 'session' "
                                             "AND completed_at IS NOT NULL"), 10, "its job")
    assert row == ("session", "gpt-4o-mini", "chat", "completed", 0)  # a sandbox's tokens cost nothing, and the call neither


def test_the_conversation_goes_along(chatting):
    """What a pod has said before is part of what it asks next, also after it was started again."""
    client = chatting.client("talker")
    uuid = client.awake()
    for text in ("my name is Ada", "and what is my name?"):
        assert client.chat(uuid, text, wait=30).json()["status"] == "delivered"
    client.sleep(uuid)
    client.wait_status(uuid, "sleeping")
    assert client.chat(uuid, "once more", wait=30).status_code == 200
    tokens = wait_until(lambda: (lambda rows: rows if len(rows) == 3 else None)(chatting.sql(
        "SELECT prompt_tokens FROM ai_job j JOIN account a ON a.id = j.account_id WHERE a.name = 'talker' "
        "AND j.status = 'completed' ORDER BY seq")), 10, "three jobs")
    assert tokens[0] < tokens[1] < tokens[2]


def test_a_pods_token_opens_calls_and_nothing_else(chatting):
    client = chatting.client("owner")
    uuid = client.awake()
    token = token_of(chatting, uuid)
    assert token.startswith(f"wgi_{uuid}_")
    assert call(chatting, token).status_code == 200
    error_of(call(chatting, token, "GET", "/v1/account", None), 403, "insufficient_scope")
    error_of(call(chatting, token, "GET", ai.JOBS, None), 403, "insufficient_scope")
    error_of(call(chatting, token, "POST", "/v1/api-keys", {"name": "more"}), 403, "insufficient_scope")
    error_of(call(chatting, token[:-1] + ("0" if token[-1] != "0" else "1")), 401, "invalid_api_key")
    error_of(call(chatting, f"wgi_{'a' * 16}_{token[-64:]}"), 401, "invalid_api_key")
    assert requests.get(chatting.url + f"/session/{uuid}/status", headers={"X-API-Key": token}, timeout=10).status_code == 401
    client.delete(uuid)
    wait_until(lambda: call(chatting, token).status_code == 401, 3, "the token's end")


def test_a_pods_token_is_in_no_command_line_and_no_log(chatting):
    client = chatting.client()
    uuid = client.awake()
    token = token_of(chatting, uuid)
    assert not any(token in line for line in chatting.pod_processes(uuid).values())
    client.chat(uuid, "hello", wait=30)
    for part in chatting.parts:
        assert token not in part.log()
    with open(os.path.join(chatting.data, "instances", uuid, "pod.log"), encoding="utf-8") as file:
        assert token not in file.read()


def test_a_model_that_has_to_be_paid_for_is_not_had_for_nothing(stores):
    """The message fails with the reason; with money it is answered, for its tokens alone."""
    gateway = pods_that_call(stores, POD_MODEL="dear")
    try:
        gateway.start()
        ai.provide(gateway, "dear", model="dear", price_in="0.001", price_out="0.001")
        client = gateway.client("poor")
        uuid = client.awake()
        answer = client.chat(uuid, "hello", wait=30)
        assert answer.status_code == 502 and answer.json() == {"error": "Insufficient balance"}
        (message,) = client.all_messages(uuid)
        assert message["status"] == "failed" and message["error"] == "Insufficient balance"
        gateway.admin("ledger", "credit", "--account", "poor", "--amount", "100")
        assert client.chat(uuid, "hello", wait=30).json()["status"] == "delivered"
        (cost, tokens), = wait_until(lambda: gateway.sql("SELECT cost, prompt_tokens + completion_tokens FROM ai_job "
                                                         "WHERE status = 'completed'"), 10, "its job")
        assert cost * 1000 == tokens > 0
        gateway.close()
    finally:
        gateway.abandon()


def test_a_message_that_is_tried_again_pays_for_one_call(stores):
    """The pod dies while the model is at it: the next try gets the answer of the call that went on."""
    gateway = pods_that_call(stores, POD_MODEL="slow-and-dear")
    try:
        gateway.start()
        ai.provide(gateway, "slow", model="slow-and-dear", price_in="0.001", price_out="0.001", delay_ms=3000)
        client = gateway.client("payer")
        gateway.admin("ledger", "credit", "--account", "payer", "--amount", "100")
        uuid = client.awake()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            pool.submit(client.chat, uuid, "hello")
            wait_until(lambda: gateway.sql("SELECT key FROM idempotency WHERE owner = %s", f"inference:pod:{uuid}"), 10,
                       "the call has begun")
            for pid in gateway.pod_processes(uuid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        (message,) = client.wait_settled(uuid, 1)
        assert message["status"] == "delivered" and "hello" in message["response"], message
        wait_until(lambda: gateway.sql("SELECT id FROM ai_job WHERE status = 'completed'"), 10, "its job")
        assert len(gateway.sql("SELECT id FROM ai_job")) == 1, "one message, one call"
        assert gateway.sql("SELECT tries FROM message") == [(1,)]
        gateway.close()
    finally:
        gateway.abandon()


def test_a_sandboxed_pod_reaches_the_gateway(stores):
    gateway = pods_that_call(stores, POD_SANDBOX="auto")
    try:
        gateway.start()
        client = gateway.client()
        answer = client.chat(client.awake(), "hello from inside", wait=30)
        assert answer.status_code == 200 and "hello from inside" in answer.json()["response"], answer.text
        gateway.close()
    finally:
        gateway.abandon()


def test_where_the_front_door_speaks_tls_pods_have_a_plain_one(stores, tmp_path):
    """It answers their tokens alone."""
    authority = Authority(str(tmp_path))
    certificate, key = authority.issue("localhost")
    plain = f"http://127.0.0.1:{free_port()}"
    gateway = Gateway(stores, {**ai.SETTINGS, "TLS_CERT": certificate, "TLS_KEY": key, "POD_LISTEN": plain[7:],
                               "POD_GATEWAY_URL": plain}, ca=authority.path)
    try:
        gateway.start()
        client = gateway.client()
        uuid = client.awake()
        answer = client.chat(uuid, "is it secret?", wait=30)
        assert answer.status_code == 200 and "is it secret?" in answer.json()["response"], answer.text
        token = token_of(gateway, uuid)
        ask = lambda path, **headers: requests.get(plain + path, headers=headers, timeout=10).status_code
        assert ask("/v1/models/gpt-4", Authorization=f"bearer {token}") == 200
        for path, headers in (("/health", {}), ("/v1/models", {}), ("/session", {"X-API-Key": gateway.key()}),
                              ("/admin/v1/key/list", {"Authorization": f"Bearer {ADMIN_TOKEN}"})):
            assert ask(path, **headers) == 404, path
        assert ask("/v1/models/gpt-4", Authorization=f"Bearer wgi_{uuid}_{'0' * 64}") == 401
        gateway.close()
    finally:
        gateway.abandon()


@pytest.mark.parametrize("value", ["nonsense", ":8080", "127.0.0.1:", "127.0.0.1:65536", "8.8.8.8:8080"])
def test_a_listener_for_pods_that_can_not_be_stops_the_start(chatting, value):
    done = run("serve", "--env-file", chatting.env_file, env={"POD_LISTEN": value, "PORT": "0"})
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if "POD_LISTEN" in line and not line.startswith("{")]) == 1, done.stderr


def test_a_gateway_that_is_away_is_asked_again(stores):
    """The message is kept until the pod can have it answered."""
    gateway = pods_that_call(stores, POD_GATEWAY_URL="http://127.0.0.1:9")
    try:
        gateway.start()
        client = gateway.client()
        uuid = client.awake()
        client.chat(uuid, "hello")
        (message,) = client.wait_settled(uuid, 1)
        assert message["status"] == "failed" and "no answer" in message["error"]
        gateway.close()
    finally:
        gateway.abandon()
