"""Rate limits, who counts as a client, and cross-origin requests."""

import socket
import time

import pytest
import requests

from fixtures import run_gateway
from stores import wait_until

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def limited(stores):
    """As it is by default: 100 a minute; with a proxy in front."""
    yield from run_gateway(stores, {"SESSION_RATE_PER_MINUTE": "100", "TRUSTED_PROXIES": "127.0.0.0/8, 10.0.0.0/8"})


def window_with_room():
    """Not just before a minute ends: the count begins anew there."""
    wait_until(lambda: time.time() % 60 < 50, 15, "the next minute", 0.2)


def take(client, forwarded, count=1):
    return [client.call("GET", "/session", headers={"X-Forwarded-For": forwarded}) for _ in range(count)][-1]


def test_the_hundred_and_first_request_of_a_minute_is_429(limited):
    client = limited.client()
    window_with_room()
    for left in range(99, -1, -1):
        answer = take(client, "203.0.113.1")
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Limit"] == "100" and answer.headers["X-RateLimit-Remaining"] == str(left)
        assert 0 <= int(answer.headers["X-RateLimit-Reset"]) - time.time() <= 61
    refused = take(client, "203.0.113.1")
    assert refused.status_code == 429 and refused.json() == {"error": "Too many requests"}
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    # Another client, and what is not limited.
    assert take(client, "203.0.113.2").status_code == 200
    for path in ("/health", "/livez", "/readyz"):
        assert client.call("GET", path, headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 200
    # Whoever has no key is counted too, and told the same.
    assert client.call("GET", "/session", headers={"X-API-Key": None, "X-Forwarded-For": "203.0.113.1"}).status_code == 429


def remaining(answer):
    return int(answer.headers["X-RateLimit-Remaining"])


@pytest.mark.parametrize("forwarded,client_address", [
    ("198.51.100.1", "198.51.100.1"),
    ("6.6.6.6, 198.51.100.2", "198.51.100.2"),              # what the client itself wrote does not count
    ("198.51.100.3, 10.1.2.3", "198.51.100.3"),             # two proxies of ours
    ("6.6.6.6, 198.51.100.4, 10.1.2.3, 127.0.0.9", "198.51.100.4"),
    ("6.6.6.6,\t198.51.100.5 ", "198.51.100.5"),
    ("::ffff:198.51.100.6", "198.51.100.6"),
])
def test_the_rightmost_address_that_no_proxy_of_ours_has_is_the_client(limited, forwarded, client_address):
    client = limited.client()
    window_with_room()
    before = remaining(take(client, client_address))
    assert remaining(take(client, forwarded)) == before - 1


def test_ipv6_clients_are_counted_by_their_64(limited):
    client = limited.client()
    window_with_room()
    before = remaining(take(client, "2001:db8:1:2::1"))
    assert remaining(take(client, "2001:db8:1:2:ffff:ffff:ffff:ffff")) == before - 1
    assert remaining(take(client, "2001:0DB8:0001:0002::abcd")) == before - 2
    assert remaining(take(client, "2001:db8:1:3::1")) == 99


def test_forwarded_for_counts_only_from_trusted_proxies(start_gateway):
    gateway = start_gateway({"SESSION_RATE_PER_MINUTE": "5"}, works=0)
    client = gateway.client()
    window_with_room()
    answers = [take(client, f"203.0.113.{i}") for i in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]


def test_the_limit_holds_over_all_servers_and_reactors(start_gateway):
    gateway = start_gateway({"SESSION_RATE_PER_MINUTE": "50"}, serves=2, works=0)
    urls = [part.url() for part in gateway.serves]
    key = gateway.key()
    window_with_room()
    # A connection each, so that every reactor gets some.
    statuses = [requests.get(urls[i % 2] + "/session", headers={"X-API-Key": key}, timeout=10).status_code
                for i in range(80)]
    assert statuses.count(200) == 50 and statuses.count(429) == 30


def test_a_client_over_ipv6_is_served_where_the_machine_has_it(start_gateway):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    gateway = start_gateway({"LISTEN_ADDRESS": "::1", "SESSION_RATE_PER_MINUTE": "100"}, works=0, ready=False)
    port = gateway.serves[0].url().rsplit(":", 1)[1]
    url = f"http://[::1]:{port}"
    wait_until(lambda: requests.get(url + "/readyz", timeout=5).status_code == 200, 20)
    answer = requests.get(url + "/session", headers={"X-API-Key": gateway.key()}, timeout=5)
    assert answer.status_code == 200 and remaining(answer) == 99


# ---- CORS ----

@pytest.fixture(scope="module")
def crossed(stores):
    yield from run_gateway(stores, {"CORS_ORIGINS": f"{ORIGIN}, http://localhost:3000"}, works=0)


def preflight(client, origin, path="/session/create", method="POST"):
    return requests.options(client.url + path, timeout=10, headers={
        "Origin": origin, "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "x-api-key,content-type"})


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000"])
def test_a_preflight_of_a_listed_origin_is_answered_without_a_key(crossed, origin):
    answer = preflight(crossed.client(), origin)
    assert answer.status_code == 204 and answer.content == b""
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"].lower() == "x-api-key,content-type"
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", ORIGIN + ".evil.com", "http://app.example.com",
                                    ORIGIN + ":444", ORIGIN.upper() + "/"])
def test_other_origins_get_no_permission(crossed, origin):
    client = crossed.client()
    for answer in (preflight(client, origin), client.call("GET", "/session", headers={"Origin": origin})):
        assert not [name for name in answer.headers if name.lower().startswith("access-control-allow")]
        assert "Origin" in answer.headers["Vary"]


def test_answers_and_errors_can_be_read_by_a_listed_origin(crossed):
    client = crossed.client()
    for path, key in (("/session", client.key), ("/session", "wrong"), ("/nothing", client.key)):
        answer = client.call("GET", path, headers={"Origin": ORIGIN, "X-API-Key": key})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        for name in ("X-Request-Id", "X-RateLimit-Remaining", "Retry-After", "X-Job-Id", "X-Cache", "Location"):
            assert name in answer.headers["Access-Control-Expose-Headers"]


def test_without_a_setting_nothing_is_allowed(gateway, client):
    answer = client.call("GET", "/session", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert preflight(client, ORIGIN).status_code == 405


def test_a_star_allows_all_and_never_credentials(start_gateway):
    gateway = start_gateway({"CORS_ORIGINS": "*"}, works=0)
    client = gateway.client()
    for answer in (preflight(client, "https://anybody.example"),
                   client.call("GET", "/session", headers={"Origin": "https://anybody.example"})):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
