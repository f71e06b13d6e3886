"""The session surface as its seed describes it: with curl, with the seed's own JavaScript, and route by route."""

import json
import os
import re
import subprocess

import pytest

from stores import wait_until
from wakegate import ROOT

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
FAILURE_S = 60


def curl(*words):
    """The status and the body of a call with curl, written as the seed writes it."""
    done = subprocess.run(["curl", "-sS", "-m", "60", "-w", "\n%{http_code}", *words], capture_output=True, text=True,
                          check=True, timeout=FAILURE_S + 30)
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), json.loads(body)


def test_curl_without_a_key_fails_as_the_seed_shows(gateway):
    answer = curl("-X", "POST", f"{gateway.url}/session/create", "-H", "Content-Type: application/json",
                  "-d", '{"user_id": "test@example.com"}')
    assert answer == (401, {"error": "API key required"})


def test_curl_goes_the_whole_way_of_the_seed(gateway):
    key = ("-H", f"X-API-Key: {gateway.key()}")
    json_type = ("-H", "Content-Type: application/json")
    status, body = curl("-X", "POST", f"{gateway.url}/session/create", *key, *json_type,
                        "-d", '{"user_id": "user@example.com"}')
    assert status == 201
    uuid = body["uuid"]
    assert re.fullmatch("[a-z0-9]{8,63}", uuid) and uuid[0].isalpha()  # a DNS label, in vs-code-{uuid}.example.com
    assert TIME.fullmatch(body["created_at"])
    assert {"user_id": "user@example.com", "status": "created"}.items() <= body.items()
    url = f"{gateway.url}/session/{uuid}"

    status, body = curl(f"{url}/status", *key)
    assert status == 200 and body["uuid"] == uuid and body["replicas"] == 0 and body["queue_length"] == 0
    assert {"user_id": "user@example.com", "status": "created"}.items() <= body["session"].items()
    assert TIME.fullmatch(body["session"]["created_at"]) and TIME.fullmatch(body["session"]["last_activity"])
    assert TIME.fullmatch(body["timestamp"])

    answer = curl("-X", "POST", f"{url}/chat", *key, *json_type, "-d", '{"message": "Hello AI!"}')
    assert answer[0] == 202 and answer[1].pop("message_id")
    assert answer[1] == {"uuid": uuid, "status": "queued", "message": "Pod is waking up, message queued"}

    def awake():
        status, body = curl(f"{url}/status", *key)
        return status == 200 and body["replicas"] == 1 and body["queue_length"] == 0

    wait_until(awake, 20, "the pod is awake")
    status, body = curl(f"{url}/messages", *key)
    assert status == 200
    assert [(m["message"], m["status"]) for m in body["messages"]] == [("Hello AI!", "delivered")]
    assert "Hello AI!" in body["messages"][0]["response"]

    status, body = curl("-X", "POST", f"{url}/chat", *key, *json_type, "-d", '{"message": "And now?"}')
    assert status == 200 and body["status"] == "delivered" and "And now?" in body["response"]

    assert curl("-X", "POST", f"{url}/wake", *key) == (200, {"uuid": uuid, "action": "wake", "status": "active"})
    assert curl("-X", "POST", f"{url}/sleep", *key) == (
        202, {"uuid": uuid, "action": "sleep", "status": "sleeping", "message": "Pod queued for sleep"})
    wait_until(lambda: curl(f"{url}/status", *key)[1]["replicas"] == 0, 20, "the pod is asleep")
    assert curl("-X", "POST", f"{url}/wake", *key) == (202, {"uuid": uuid, "action": "wake", "status": "queued"})
    assert curl("-X", "DELETE", url, *key) == (
        200, {"uuid": uuid, "status": "terminated", "message": "Session and all resources deleted"})
    assert curl(f"{url}/status", *key)[0] == 404


def test_the_javascript_class_of_the_seed_works_unchanged(gateway):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seed_client.js")
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=FAILURE_S, env={
        "PATH": os.environ["PATH"], "API_KEY": gateway.key(), "BASE_URL": gateway.url})
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    uuid = seen["create"]["uuid"]
    assert seen["create"]["status"] == "created"
    assert seen["wake"] == {"uuid": uuid, "action": "wake", "status": "queued"}
    assert seen["firstMessage"]["status"] in ("queued", "delivered")
    assert seen["status"]["session"]["user_id"] == "user@example.com"
    assert seen["wakeAgain"] == {"uuid": uuid, "action": "wake", "status": "active"}
    assert seen["nextMessage"]["status"] == "delivered" and "Hello AI!" in seen["nextMessage"]["response"]
    assert seen["delete"] == {"uuid": uuid, "status": "terminated", "message": "Session and all resources deleted"}
    assert seen["statusAfter"] == {"error": "Session not found"}


def test_create_takes_text_of_every_script_and_no_content_type(client):
    user_id = "użytkownik \N{GRINNING FACE} 用户\"\\"
    answer = client.call("POST", "/session/create", data=json.dumps({"user_id": user_id}), headers={"Content-Type": None})
    assert answer.status_code == 201 and answer.json()["user_id"] == user_id
    assert client.status(answer.json()["uuid"]).json()["session"]["user_id"] == user_id


def test_prefer_wait_holds_the_request_until_the_pod_answers(client):
    uuid = client.create()
    answer = client.chat(uuid, "wake up", wait=30)
    assert answer.status_code == 200 and answer.headers["Preference-Applied"] == "wait=30"
    assert answer.json()["status"] == "delivered" and "wake up" in answer.json()["response"]


def test_prefer_wait_ends_with_202_when_the_time_is_up(recorder):
    client = recorder.client()
    uuid = client.create()
    answer = client.chat(uuid, "!slow 3", wait=1)
    assert answer.status_code == 202 and answer.json()["status"] == "queued"
    assert [m["status"] for m in client.wait_settled(uuid, 1)] == ["delivered"]


@pytest.mark.parametrize("prefer,applied", [("wait=2, respond-async", "wait=2"), ("WAIT=1", "wait=1"),
                                            ("wait=100000", "wait=60"), ("wait=x", None), ("wait=-1", None)])
def test_prefer_is_read_as_rfc_7240_has_it_and_bounded(client, prefer, applied):
    uuid = client.awake()
    answer = client.call("POST", f"/session/{uuid}/chat", json={"message": "x"}, headers={"Prefer": prefer})
    assert answer.status_code == 200 and answer.headers.get("Preference-Applied") == applied


def test_status_says_why_the_pod_is_awake(client):
    uuid = client.awake()
    body = client.status(uuid).json()
    assert body["replicas"] == 1 and body["session"]["status"] == "active"
    assert TIME.fullmatch(body["sleeps_at"]) and body["sleeps_at"] > body["timestamp"]
    assert body["connections"] == 0
    client.sleep(uuid)
    body = client.wait_status(uuid, "sleeping")
    assert wait_until(lambda: client.status(uuid).json()["replicas"] == 0) and client.status(uuid).json()["sleeps_at"] is None


def test_messages_are_paged_oldest_first(client):
    uuid = client.awake()
    texts = [f"message {i}" for i in range(7)]
    for text in texts:
        assert client.chat(uuid, text).status_code == 200
    pages, cursor = [], None
    while not pages or cursor:
        page = client.messages(uuid, limit=3, **({"cursor": cursor} if cursor else {})).json()
        pages.append([m["message"] for m in page["messages"]])
        cursor = page["next_cursor"]
    assert pages == [texts[0:3], texts[3:6], texts[6:7]]
    message = client.messages(uuid, limit=1).json()["messages"][0]
    assert set(message) >= {"message_id", "message", "status", "response", "created_at", "delivered_at"}
    assert TIME.fullmatch(message["created_at"]) and TIME.fullmatch(message["delivered_at"])


def test_sessions_are_paged_newest_first_and_found_by_user(gateway):
    client = gateway.client("pager")
    made = [client.create(f"user{i % 2}@example.com") for i in range(5)]
    seen, cursor = [], None
    while True:
        page = client.list(limit=2, **({"cursor": cursor} if cursor else {})).json()
        assert len(page["sessions"]) <= 2
        seen += page["sessions"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert [s["uuid"] for s in seen] == made[::-1]
    assert set(seen[0]) >= {"uuid", "user_id", "status", "created_at"}
    found = client.list(user_id="user1@example.com").json()
    assert [s["uuid"] for s in found["sessions"]] == [made[3], made[1]] and found["next_cursor"] is None
    assert client.list(user_id="nobody").json()["sessions"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=100000", "cursor=x", "cursor=-1", "limit="])
@pytest.mark.parametrize("path", ["/session", "/session/{uuid}/messages"])
def test_paging_refuses_what_it_can_not_read(client, path, query):
    path = path.replace("{uuid}", client.create())
    answer = client.call("GET", f"{path}?{query}")
    assert answer.status_code == 400 and list(answer.json()) == ["error"]


def test_what_is_written_late_does_not_bring_a_deleted_session_back(gateway, client):
    """Who has changed the row before may write its copy into Redis after: the script that all of them write by."""
    redis = gateway.stores.redis.client(gateway.redis_database)
    with open(os.path.join(ROOT, "schema", "instance_put.lua"), encoding="utf-8") as file:
        put = redis.register_script(file.read())
    uuid = client.create()
    assert client.wake(uuid).status_code == 202
    before = redis.get(f"instance:{uuid}")
    wait_until(lambda: client.status(uuid).json()["replicas"] == 1, 20, "the pod is awake")
    assert client.delete(uuid).status_code == 200
    assert put(keys=[f"instance:{uuid}"], args=[before, 2000]) == 0
    assert client.status(uuid).status_code == 404


def test_delete_removes_the_pod_and_its_workspace(gateway, client):
    uuid = client.awake()
    assert client.chat(uuid, "leave a trace").status_code == 200
    assert os.path.isdir(gateway.workspace(uuid)) and len(gateway.pod_processes(uuid)) == 1
    assert client.delete(uuid).status_code == 200
    assert not os.path.exists(os.path.dirname(gateway.workspace(uuid)))
    assert gateway.pod_processes(uuid) == {}
    gone = [client.status(uuid), client.wake(uuid), client.sleep(uuid), client.chat(uuid, "x"), client.messages(uuid),
            client.delete(uuid)]
    assert {answer.status_code for answer in gone} == {404}
    assert {answer.text for answer in gone} == {'{"error":"Session not found"}\n'}
    assert uuid not in [s["uuid"] for s in client.list().json()["sessions"]]
    assert gateway.sql("SELECT count(*) FROM message WHERE instance_id = %s", uuid) == [(0,)]


def test_the_workspace_outlives_sleep(recorder):
    client = recorder.client()
    uuid = client.awake()
    client.chat(uuid, "first")
    assert client.sleep(uuid).status_code == 202
    wait_until(lambda: client.status(uuid).json()["replicas"] == 0, 15, "asleep")
    assert recorder.pod_processes(uuid) == {}
    # The pod counts what is in its journal.
    assert client.chat(uuid, "second", wait=20).json()["response"] == "2: second"
