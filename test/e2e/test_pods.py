"""Pods: one for each session, awake while there is something to do, asleep otherwise, and bounded when they fail."""

import concurrent.futures
import contextlib
import http.server
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from books import asked_texts, check_once_each, pod_starts, read_lines
from fixtures import recorder_settings, run_gateway
from stores import wait_until
from wakegate import POD_SCRIPT, Part


@pytest.fixture(scope="module")
def sleepy(stores):
    """Idle for a second is long enough."""
    yield from run_gateway(stores, recorder_settings(IDLE_TIMEOUT_SECONDS="1"))


def asleep(client, uuid, timeout_s=20):
    return wait_until(lambda: (body := client.status(uuid).json())["replicas"] == 0
                      and body["session"]["status"] == "sleeping" and body, timeout_s, f"{uuid} sleeps")


def test_a_hundred_concurrent_wakes_start_one_pod(gateway):
    client = gateway.client()
    uuid = client.create()
    before = gateway.pods_started()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: client.wake(uuid), range(100)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    for answer in answers:
        assert answer.json() == {"uuid": uuid, "action": "wake",
                                 "status": "active" if answer.status_code == 200 else "queued"}
    client.wait_status(uuid, "active")
    wait_until(lambda: gateway.pods_started() > before, 5, "the log says so")
    assert gateway.pods_started() == before + 1
    assert len(gateway.pod_processes(uuid)) == 1


def test_idle_pods_are_scaled_to_zero_and_wake_again(sleepy):
    client = sleepy.client()
    uuid = client.awake()
    woken = time.monotonic()
    asleep(client, uuid)
    assert time.monotonic() - woken > 0.5
    assert sleepy.pod_processes(uuid) == {}
    assert client.chat(uuid, "back again", wait=20).json()["response"] == "1: back again"
    asleep(client, uuid)
    check_once_each(sleepy, uuid, ["back again"])


def test_chat_is_activity(sleepy):
    client = sleepy.client()
    uuid = client.awake()
    end = time.monotonic() + 3
    sent = 0
    while time.monotonic() < end:
        answer = client.chat(uuid, f"{sent}")
        assert answer.status_code == 200  # never found asleep
        sent += 1
        time.sleep(0.2)
    assert len(pod_starts(sleepy, uuid)) == 1


def test_wake_is_activity(sleepy):
    client = sleepy.client()
    uuid = client.awake()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert client.wake(uuid).status_code == 200
        time.sleep(0.2)


def test_asking_for_the_status_is_no_activity(sleepy):
    client = sleepy.client()
    asleep(client, client.awake(), 10)


def test_a_busy_pod_is_kept_awake(sleepy):
    client = sleepy.client()
    uuid = client.awake()
    busy = sleepy.workspace(uuid, "busy")
    open(busy, "w").close()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert client.status(uuid).json()["replicas"] == 1
        time.sleep(0.1)
    os.unlink(busy)
    asleep(client, uuid)


def test_a_request_in_work_keeps_the_pod_awake(sleepy):
    client = sleepy.client()
    uuid = client.awake()
    answer = client.chat(uuid, "!slow 3 done")
    assert answer.status_code == 200 and answer.json()["response"] == "1: !slow 3 done"
    assert len(pod_starts(sleepy, uuid)) == 1


def test_sleep_drains_what_is_in_work_and_what_comes_meanwhile_is_not_lost(recorder):
    client = recorder.client()
    uuid = client.awake()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = pool.submit(client.chat, uuid, "!slow 1 first", wait=20)
        wait_until(lambda: asked_texts(recorder, uuid), 5, "the pod was asked")
        assert client.sleep(uuid).status_code == 202
        second = client.chat(uuid, "second", wait=30)
        assert slow.result().status_code == 200
    assert second.status_code == 200
    check_once_each(recorder, uuid, ["!slow 1 first", "second"])


def test_messages_that_race_with_sleep_are_delivered_once_and_in_order(recorder):
    client = recorder.client()
    uuid = client.awake()
    texts = []
    for i in range(25):
        texts.append(f"{i}")
        assert client.chat(uuid, texts[-1]).status_code in (200, 202)
        if i % 3 == 0:
            assert client.sleep(uuid).status_code == 202
    client.wait_settled(uuid, len(texts), 60)
    check_once_each(recorder, uuid, texts)


def test_sleep_of_a_sleeping_session_changes_nothing(client):
    uuid = client.create()
    assert client.sleep(uuid).status_code == 202
    body = client.status(uuid).json()
    assert body["replicas"] == 0 and body["session"]["status"] == "created"


@pytest.mark.parametrize("moment_s", [0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_delete_at_any_moment_of_a_wake_removes_all(recorder, moment_s):
    client = recorder.client()
    uuid = client.create()
    assert client.wake(uuid).status_code == 202
    end = time.monotonic() + moment_s
    while time.monotonic() < end:
        client.status(uuid)
    began = time.monotonic()
    assert client.delete(uuid).status_code == 200
    assert time.monotonic() - began < 10
    assert recorder.pod_processes(uuid) == {} and not os.path.exists(os.path.dirname(recorder.workspace(uuid)))
    assert recorder.sql("SELECT count(*) FROM instance WHERE id = %s", uuid) == [(0,)]


@pytest.mark.parametrize("moment_s", [0, 0.05, 0.2])
def test_sleep_at_any_moment_of_a_wake_ends_asleep(recorder, moment_s):
    client = recorder.client()
    uuid = client.create()
    assert client.wake(uuid).status_code == 202
    end = time.monotonic() + moment_s
    while time.monotonic() < end:
        client.status(uuid)
    assert client.sleep(uuid).status_code == 202
    asleep(client, uuid)
    wait_until(lambda: recorder.pod_processes(uuid) == {}, 10, "no process")
    assert client.chat(uuid, "x", wait=20).status_code == 200


def test_a_pod_that_dies_by_itself_is_asleep_and_wakes_again(recorder):
    client = recorder.client()
    uuid = client.awake()
    for pid in recorder.pod_processes(uuid):
        os.kill(pid, signal.SIGKILL)
    asleep(client, uuid)
    assert client.chat(uuid, "x", wait=20).json()["response"] == "1: x"
    check_once_each(recorder, uuid, ["x"])


def test_a_pod_that_never_becomes_ready_ends_as_failed_and_works_once_mended(start_gateway, stores):
    mended = os.path.join(stores.folder, "mended")
    command = f"if test -e {mended}; then exec /usr/bin/python3 -I -S {POD_SCRIPT}; else exec sleep 1000; fi"
    gateway = start_gateway(recorder_settings(WAKEGATE_POD_COMMAND=command, POD_READY_TIMEOUT_MS="1000"))
    client = gateway.client()
    uuid = client.create()
    assert client.chat(uuid, "anybody?").status_code == 202
    body = client.wait_status(uuid, "failed", 60)
    assert body["replicas"] == 0 and "did not start" in body["session"]["failure"]
    assert gateway.pod_processes(uuid) == {}
    for answer in (client.chat(uuid, "refused"), client.wake(uuid)):
        assert answer.status_code == 503 and 0 < int(answer.headers["Retry-After"]) <= 10
        assert list(answer.json()) == ["error"]
    open(mended, "w").close()
    answer = wait_until(lambda: (answer := client.chat(uuid, "again", wait=30)).status_code == 200 and answer, 40,
                        "a mended pod answers", 0.5)
    assert answer.json()["response"] == "2: again"
    check_once_each(gateway, uuid, ["anybody?", "again"])
    assert "failure" not in client.status(uuid).json()["session"]


def test_a_command_that_can_not_be_run_ends_as_failed(start_gateway):
    gateway = start_gateway(recorder_settings(WAKEGATE_POD_COMMAND="exec /no/such/program"))
    client = gateway.client()
    uuid = client.create()
    assert client.wake(uuid).status_code == 202
    assert "did not start" in client.wait_status(uuid, "failed", 60)["session"]["failure"]


def test_pods_see_no_secret_of_the_gateway(recorder):
    client = recorder.client()
    uuid = client.awake()
    for pid in recorder.pod_processes(uuid):
        with open(f"/proc/{pid}/environ", "rb") as file:
            names = {word.split(b"=")[0].decode() for word in file.read().split(b"\0") if word}
        assert names <= {"PORT", "HOME", "PATH", "LANG", "WAKEGATE_SESSION", "WAKEGATE_GENERATION",
                         "WAKEGATE_WORKSPACE", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
        opened = {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}
        assert not [path for path in opened if path.endswith(".env")]


def test_pods_run_in_bubblewrap_where_it_works(start_gateway):
    if not shutil.which("bwrap") or subprocess.run(
            ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true"], check=False,
            capture_output=True).returncode != 0:
        pytest.skip("bubblewrap does not work here")
    gateway = start_gateway({"POD_SANDBOX": "auto"})
    client = gateway.client()
    uuid = client.create()
    assert "hello" in client.chat(uuid, "hello", wait=20).json()["response"]
    wait_until(lambda: gateway.works[0].log_lines("pods run in bubblewrap"), 5, "the log says so")
    assert any(line.startswith("/") and "bwrap" in line for line in gateway.pod_processes(uuid).values())
    assert client.sleep(uuid).status_code == 202
    wait_until(lambda: gateway.pod_processes(uuid) == {}, 20, "asleep")
    assert "message 2" in client.chat(uuid, "again", wait=20).json()["response"]


def test_a_restart_of_all_finds_sessions_and_pods_again(start_gateway):
    gateway = start_gateway(recorder_settings())
    client = gateway.client()
    uuid = client.awake()
    client.chat(uuid, "before")
    for part in gateway.parts:
        assert part.stop() == 0
    for part in gateway.parts:
        part.start()
    for part in gateway.parts:
        part.wait_ready()
    client = gateway.client()
    assert client.chat(uuid, "after", wait=20).json()["response"] == "2: after"
    assert len(pod_starts(gateway, uuid)) == 1 and read_lines(gateway.workspace(uuid, "conflicts")) == []


def test_sleep_does_not_strand_what_was_accepted_before_it(start_gateway):
    gateway = start_gateway(recorder_settings(), works=0)
    client = gateway.client()
    uuid = client.create()
    assert client.chat(uuid, "first").status_code == 202
    assert client.sleep(uuid).status_code == 202
    gateway.works.append(Part(gateway, "work", 0).start().wait_ready())
    client.wait_settled(uuid, 1)
    check_once_each(gateway, uuid, ["first"])


def test_a_pod_too_slow_to_drain_is_woken_again_for_the_rest(start_gateway):
    # Longer than a drain may take (DRAIN_MAX_MS of workers/scale.c).
    gateway = start_gateway(recorder_settings(POD_ANSWER_TIMEOUT_MS="10000", POD_STOP_TIMEOUT_MS="300"))
    client = gateway.client()
    uuid = client.awake()
    texts = ["!slow 7 first", "second", "third"]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = []
        for i, text in enumerate(texts, 1):
            answers.append(pool.submit(client.chat, uuid, text, wait=50))
            wait_until(lambda: len(client.all_messages(uuid)) == i, 5, "it is accepted")
        assert client.sleep(uuid).status_code == 202
        assert [answer.result().status_code for answer in answers][1:] == [200, 200]
    client.wait_settled(uuid, 3, 40)
    check_once_each(gateway, uuid, texts)


def test_a_port_that_somebody_else_listens_on_is_not_given_to_a_pod(start_gateway):
    """That server's /health would be taken for the pod's, and it would get the user's messages."""
    gateway = start_gateway(recorder_settings(), works=0)
    first = gateway.ports.first
    gateway.settings["POD_PORT_RANGE"] = f"{first}-{first + 4}"
    gateway.write_settings()
    with contextlib.ExitStack() as stack:
        for port in range(first, first + 4):
            stranger = http.server.ThreadingHTTPServer(("127.0.0.1", port), Stranger)
            stack.callback(stranger.server_close)
            threading.Thread(target=stranger.serve_forever, daemon=True).start()
            stack.callback(stranger.shutdown)
        gateway.works.append(Part(gateway, "work", 0).start().wait_ready())
        client = gateway.client()
        uuid = client.create()
        assert client.chat(uuid, "for my pod only", wait=20).json()["response"] == "1: for my pod only"
    assert Stranger.asked == []


class Stranger(http.server.BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET
