"""PostgreSQL is the truth: while it is away clients hear 503, and what was accepted is done once it is back."""

import signal
import time

import pytest

from books import check_once_each
from fixtures import recorder_settings
from stores import wait_until
from test_redis import Load, ready


@pytest.fixture
def gateway(own_stores, start_gateway):
    return start_gateway(recorder_settings(PG_TIMEOUT_MS="3000"), stores=own_stores)


# SIGINT: connections are told. SIGQUIT: they break, and the log is replayed at the start.
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_of_postgresql_under_load_is_503_and_loses_nothing(gateway, own_stores, number):
    with Load(gateway) as load:
        for _ in range(3):
            before = load.count()
            wait_until(lambda: load.count() > before + 10, 30, "messages are accepted")
            own_stores.postgres.stop(number)
            refused = len(load.refused)
            wait_until(lambda: len(load.refused) > refused + 3, 20, "clients are told")
            own_stores.postgres.start()
        before = load.count()
        wait_until(lambda: load.count() > before + 10, 30, "messages are accepted again")
    ready(gateway)
    load.check_all_delivered()


def test_every_route_says_503_with_retry_after_while_postgresql_is_away(gateway, own_stores):
    client = gateway.client()
    uuid = client.create()
    client.list()
    own_stores.postgres.stop()
    try:
        for answer in (client.call("POST", "/session/create", json={"user_id": "x"}), client.wake(uuid), client.list(),
                       client.sleep(uuid), client.chat(uuid, "x"), client.messages(uuid), client.delete(uuid)):
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0, answer.text
            assert list(answer.json()) == ["error"]
    finally:
        own_stores.postgres.start()
    ready(gateway)
    # A refusal is one: nothing of it was done.
    assert client.chat(uuid, "only one", wait=20).status_code == 200
    check_once_each(gateway, uuid, ["only one"])


def test_connections_that_are_killed_under_load_lose_and_double_nothing(gateway, own_stores):
    """Among them some whose COMMIT was on its way: its outcome is found out, not guessed."""
    with Load(gateway, pause_s=0.005) as load:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            own_stores.postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                    "WHERE datname = %s AND application_name <> 'tests' ORDER BY random() LIMIT 2",
                                    gateway.database)
            time.sleep(0.1)
        before = load.count()
        wait_until(lambda: load.count() > before + 20, 30, "messages are accepted")
    assert load.count() > 50
    load.check_all_delivered()


def test_nobody_spins_while_postgresql_is_away(gateway, own_stores):
    own_stores.postgres.stop()
    try:
        gateway.check_nobody_spins()
    finally:
        own_stores.postgres.start()
    ready(gateway)


def test_a_pod_that_is_awake_outlives_an_outage_of_both_stores(gateway, own_stores):
    client = gateway.client()
    uuid = client.awake()
    before = gateway.pod_processes(uuid)
    own_stores.postgres.stop(signal.SIGQUIT)
    own_stores.redis.stop(signal.SIGKILL)
    assert wait_until(lambda: client.chat(uuid, "x").status_code == 503, 20)
    own_stores.postgres.start()
    own_stores.redis.start()
    ready(gateway)
    assert client.chat(uuid, "both are back", wait=20).status_code == 200
    assert gateway.pod_processes(uuid) == before
