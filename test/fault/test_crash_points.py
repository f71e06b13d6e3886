"""A worker that dies at a named point (core/base/crash.h) and is started again loses nothing and does nothing twice."""

import os
import re

import pytest

from books import asked_texts, check_once_each, pod_starts
from fixtures import recorder_settings
from stores import wait_until
from wakegate import ROOT, run

# A lease has to outlast the limits of its jobs: stop + ready + 10 s, connect + answer + 10 s, a webhook's attempt + 9 s.
SHORT = {"POD_STOP_TIMEOUT_MS": "500", "POD_READY_TIMEOUT_MS": "2000", "POD_ANSWER_TIMEOUT_MS": "1500",
         "PG_TIMEOUT_MS": "2000", "JOB_LEASE_SECONDS": "13", "WEBHOOK_TIMEOUT_MS": "2000"}
LEASE_S = 13
# Here the pod has answered, or may have, and nobody knows it: it is asked again, and told so by the message's id. Events are relayed
# at any moment of a delivery.
MAY_ASK_AGAIN = {"deliver-sent", "event-relayed"}


# On a message's way; other paths have tests of their own.
OF_MESSAGES = ("job-", "scale-", "pod-", "deliver-", "event-")


def crash_points():
    with open(os.path.join(ROOT, "core/base/crash.h"), encoding="utf-8") as file:
        points = re.findall(r'^ *X\("([a-z-]+)"', file.read(), re.MULTILINE)
    points = [point for point in points if point.startswith(OF_MESSAGES)]
    # A worker that starts tries out what it can do for pods, with one: the first real pod is the second.
    return points + [f"{point}:2" for point in points if point.startswith("pod-")]


@pytest.fixture
def crashing(start_gateway, tmp_path):
    """crashing(point): a gateway whose worker dies there once, and is started again."""
    def start(point, once=True):
        extra = {"WAKEGATE_CRASH_AT": point}
        if once:
            extra["WAKEGATE_CRASH_ONCE"] = str(tmp_path / "crashed")
        return start_gateway(recorder_settings(**SHORT), work_env=extra, supervised=True)

    return start


@pytest.mark.parametrize("point", crash_points())
def test_a_worker_killed_once_loses_and_doubles_nothing(crashing, tmp_path, point):
    gateway = crashing(point)
    client = gateway.client()
    uuid = client.create()
    texts = [f"message {i}" for i in range(4)]
    for text in texts:
        assert client.chat(uuid, text).status_code in (200, 202)
    client.wait_settled(uuid, len(texts), 3 * LEASE_S)

    # By a job of the worker's or straight by the reactor: it arrives.
    texts.append("while awake")
    assert client.chat(uuid, texts[-1], wait=40).status_code == 200
    assert client.sleep(uuid).status_code == 202
    wait_until(lambda: client.status(uuid).json()["session"]["status"] == "sleeping"
               and not gateway.pod_processes(uuid), 3 * LEASE_S, "asleep", 0.1)
    texts.append("after sleep")
    assert client.chat(uuid, texts[-1], wait=40).status_code == 200

    assert (tmp_path / "crashed").exists()
    assert gateway.works[0].statuses == [-9]
    check_once_each(gateway, uuid, texts)
    assert len(asked_texts(gateway, uuid)) <= len(texts) + (point in MAY_ASK_AGAIN)
    # The pod that was there when its worker died was found again, not started anew.
    assert len(pod_starts(gateway, uuid)) == 2


def test_a_job_that_kills_three_workers_is_put_aside_and_can_be_redriven(crashing):
    gateway = crashing("scale-ready", once=False)
    client = gateway.client()
    uuid = client.create()
    assert client.wake(uuid).status_code == 202
    body = client.wait_status(uuid, "failed", 6 * LEASE_S)
    assert "dead" in body["session"]["failure"]
    dead = gateway.admin("jobs", "dead")
    assert [(job["kind"], job["key"], job["crashes"]) for job in dead] == [("scale", uuid, 3)]
    refused = client.chat(uuid, "x")
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    assert gateway.works[0].statuses == [-9] * 3

    # Mended: the worker no longer dies.
    del gateway.works[0].extra["WAKEGATE_CRASH_AT"]
    gateway.works[0].kill()
    assert gateway.admin("jobs", "redrive", str(dead[0]["id"])) == {"redriven": 1}
    answer = wait_until(lambda: (answer := client.chat(uuid, "x", wait=20)).status_code == 200 and answer, 30)
    assert answer.json()["response"] == "1: x"
    check_once_each(gateway, uuid, ["x"])


def test_an_unknown_crash_point_is_refused():
    with_typo = run("work", env={"WAKEGATE_CRASH_AT": "no-such-point"})
    assert with_typo.returncode != 0
