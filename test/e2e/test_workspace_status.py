"""What a session's status says of its workspace: the way to it, and who is there."""

import asyncio
import concurrent.futures
import contextlib
import datetime
import os
import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import websockets

from fixtures import run_gateway
from stores import wait_until
from workspaces import PARAM, Workspace, pod_settings

SOCKET_POD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket_pod.py")


@pytest.fixture(scope="module")
def desk(stores):
    """Two servers behind a proxy on this machine."""
    yield from run_gateway(stores, pod_settings(TRUSTED_PROXIES="127.0.0.1"), serves=2)


def status(gateway, uuid, server=0, **headers):
    answer = requests.get(f"{gateway.serves[server].url()}/session/{uuid}/status",
                          headers={"X-API-Key": gateway.key(), **headers}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def connections(gateway, uuid, count):
    """As every server sees it."""
    for server in range(len(gateway.serves)):
        wait_until(lambda: status(gateway, uuid, server)["connections"] == count, 5, f"{count} connections")
    return True


@pytest.mark.parametrize("host,scheme,beginning", [
    (None, None, "http://vs-code-{uuid}.localhost:{port}/?"),
    ("api.example.com", None, "http://vs-code-{uuid}.localhost/?"),
    ("api.example.com:8443", "https", "https://vs-code-{uuid}.localhost:8443/?"),
    ("[::1]:80", "http", "http://vs-code-{uuid}.localhost:80/?"),
    ("[::1]", None, "http://vs-code-{uuid}.localhost/?"),
])
def test_the_workspace_has_an_address_of_the_kind_that_was_asked_at(desk, host, scheme, beginning):
    uuid = desk.client().create()
    headers = {"Host": host, "X-Forwarded-Proto": scheme}
    url = status(desk, uuid, **{name: value for name, value in headers.items() if value})["workspace_url"]
    assert url.startswith(beginning.format(uuid=uuid, port=urlsplit(desk.url).port)), url
    (token,) = parse_qs(urlsplit(url).query)[PARAM]
    until, mac = token.split(".")
    assert abs(int(until, 16) - (time.time() + 300)) < 5 and re.fullmatch("[A-Za-z0-9_-]{43}", mac)


def test_the_address_opens_the_workspace_and_no_other(desk):
    place = Workspace(desk)
    other = Workspace(desk)
    with requests.Session() as browser:
        browser.trust_env = False
        link = place.link()
        opened = browser.get(f"{desk.url}/echo?{PARAM}={link}", headers={"Host": place.host}, timeout=30,
                             allow_redirects=False)
        assert opened.status_code < 400
        refused = browser.get(f"{desk.url}/echo?{PARAM}={link}", headers={"Host": other.host}, timeout=30,
                              allow_redirects=False)
        assert refused.status_code in (401, 403)
    assert place.echo()["by_name"]["host"].startswith("vs-code-")


def test_requests_in_flight_and_sockets_are_counted_on_every_server(desk):
    place = Workspace(desk)
    assert connections(desk, place.uuid, 0)
    assert place.get().status_code == 200
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        held = [pool.submit(place.get, "/hold/3") for _ in range(3)]
        assert connections(desk, place.uuid, 3)
        assert {answer.result().status_code for answer in held} == {200}
    assert connections(desk, place.uuid, 0)
    # An event stream counts as a socket: it is there, but no sleep waits for its end.
    with place.connection() as connection:
        connection.sendall(place.head("/events/60"))
        connection.recv(1)
        assert connections(desk, place.uuid, 1)
    assert connections(desk, place.uuid, 0)


def test_web_sockets_are_counted_while_they_are_open(start_gateway):
    gateway = start_gateway({"WAKEGATE_POD_COMMAND": f"exec /usr/bin/python3 {SOCKET_POD}"})
    place = Workspace(gateway)
    cookie = place.cookie()

    async def talk():
        async with contextlib.AsyncExitStack() as stack:
            for count in range(1, 4):
                await stack.enter_async_context(websockets.connect(
                    f"ws://{place.host}/", host="127.0.0.1", port=place.port, extra_headers={"Cookie": cookie},
                    open_timeout=30))
                await asyncio.to_thread(connections, gateway, place.uuid, count)

    asyncio.run(asyncio.wait_for(talk(), 60))
    assert connections(gateway, place.uuid, 0)


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_a_visit_is_activity_and_puts_off_the_sleep(start_gateway):
    gateway = start_gateway(pod_settings(IDLE_TIMEOUT_SECONDS="8"))
    place = Workspace(gateway)
    assert place.get().status_code == 200
    first = status(gateway, place.uuid)
    time.sleep(2.5)  # time passes
    asked = time.time()
    assert place.get().status_code == 200

    def noted():
        body = status(gateway, place.uuid)
        return moment(body["session"]["last_activity"]) >= int(asked) and body

    later = wait_until(noted, 5, "it is noted")
    assert moment(later["session"]["last_activity"]) <= asked + 2
    assert moment(later["sleeps_at"]) - moment(first["sleeps_at"]) >= 2
    assert moment(later["sleeps_at"]) == moment(later["session"]["last_activity"]) + 8


def test_status_needs_no_redis_for_its_address(own_stores, start_gateway):
    gateway = start_gateway(pod_settings(), stores=own_stores)
    place = Workspace(gateway)
    assert place.get().status_code == 200
    own_stores.redis.stop()
    body = status(gateway, place.uuid)
    assert body["replicas"] == 1 and body["connections"] == 0 and f"vs-code-{place.uuid}" in body["workspace_url"]
    own_stores.redis.start()
    wait_until(lambda: gateway.client().create(), 20, "all is well again")
