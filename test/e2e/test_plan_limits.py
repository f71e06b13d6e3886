"""Rate plans over servers and reactors: nobody gets more, the numbers are right, no spelling makes a new client."""

import http.client
import threading
import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from accounts import SETTINGS, Account, call, error_of
from fixtures import run_gateway
from stores import wait_until

CLIENTS = 64
PATH = "/api/v1/whoami"  # asks no store, so that what is seen is the limits'
DAY_S = 86400


@pytest.fixture(scope="module")
def servers(stores):
    yield from run_gateway(stores, {**SETTINGS, "METRICS_TOKEN": "test-only-metrics"}, serves=2, works=0)


def limited(gateway, plan="free", **limits):
    """A new account on that plan, with limits of its own: name=most or name=(most, burst)."""
    account = Account(gateway, plan=None)
    answer = gateway.operator("plan", "set", {"account": account.email, "surface": "inference", "plan": plan})
    assert answer.status_code == 200, answer.text
    for name, value in limits.items():
        most, burst = value if isinstance(value, tuple) else (value, 0)
        set_limit(gateway, account, name.replace("_", "-"), most, burst)
    return account


def set_limit(gateway, account, name, most, burst=0):
    answer = gateway.operator("plan", "limit", {"account": account.email, "name": name, "most": most, "burst": burst})
    assert answer.status_code == 200, answer.text


def window_with_room(seconds=20):
    """Not just before a minute ends: the count begins anew there."""
    wait_until(lambda: time.time() % 60 < 60 - seconds, seconds + 5, "the next minute", 0.2)


def crowd(gateway, account, each):
    """That many requests of each of 64 clients at once, half of them at either server: the answers."""
    urls = [part.url() for part in gateway.serves]
    answers = []
    begin = threading.Barrier(CLIENTS)

    def client(number):
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Authorization"] = "Bearer " + account.key
            begin.wait()
            for _ in range(each):
                answers.append(session.get(urls[number % len(urls)] + PATH, timeout=60))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == CLIENTS * each and {answer.status_code for answer in answers} <= {200, 429}
    return answers


def admitted(answers):
    return sum(answer.status_code == 200 for answer in answers)


def counted(gateway, account, name, window_s):
    """What Redis has counted in the present window."""
    row = gateway.sql("SELECT id FROM account WHERE ref = %s", account.id)
    key = f"limit:{name}:a{row[0][0]}:{int(time.time()) // window_s}"
    return int(gateway.stores.redis.client(gateway.redis_database).get(key) or 0)


def remaining(answer):
    return int(answer.headers["X-RateLimit-Remaining"])


# ---- never more ----

@pytest.mark.parametrize("plan,limits,most,each", [
    ("free", {}, 10, 2),                              # a minute and a day, both counted in Redis
    ("basic", {"inference_minute": 40}, 40, 3),       # beside a day that is leased
    ("pro", {"inference_day": 70}, 70, 3),            # beside a minute that is leased
    ("enterprise", {"inference_day": 999}, 999, 18),
])
def test_64_clients_at_two_servers_get_exactly_the_limit(servers, plan, limits, most, each):
    account = limited(servers, plan, **limits)
    if "inference_day" not in limits:
        window_with_room()
    answers = crowd(servers, account, each)
    assert admitted(answers) == most
    for answer in answers:
        assert int(answer.headers["X-RateLimit-Limit"]) == most
        assert answer.status_code == 200 or (remaining(answer) == 0 and int(answer.headers["Retry-After"]) >= 1)
    # What was refused has spent nothing of the other limits.
    if plan == "free":
        assert counted(servers, account, "inference-minute", 60) == most
        assert counted(servers, account, "inference-day", DAY_S) == most


def test_64_clients_get_no_more_than_a_limit_that_is_leased(servers):
    account = limited(servers, "enterprise", inference_day=1000)
    got = admitted(crowd(servers, account, 20))
    # What a reactor had in stock when its clients had all they wanted is lost to the others.
    assert 900 <= got <= 1000


def test_64_clients_get_no_more_than_burst_and_rate(servers):
    account = limited(servers, "basic", inference_minute=(120, 30))
    begin = time.monotonic()
    got = admitted(crowd(servers, account, 8))
    assert 30 <= got <= 30 + 2 * (time.monotonic() - begin)


# ---- what is told ----

def test_the_headers_tell_of_the_minute(servers):
    account = limited(servers)
    window_with_room()
    for left in range(9, -1, -1):
        answer = account.call("GET", PATH)
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Limit"] == "10" and remaining(answer) == left
        now_s = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert int(answer.headers["X-RateLimit-Reset"]) == now_s // 60 * 60 + 60
        assert "Retry-After" not in answer.headers
    for _ in range(3):
        before_s = int(time.time())
        refused = account.call("GET", PATH)
        error_of(refused, 429, "rate_limit_exceeded")
        assert refused.headers["X-RateLimit-Limit"] == "10" and remaining(refused) == 0
        reset_s = int(refused.headers["X-RateLimit-Reset"])
        assert reset_s % 60 == 0
        assert reset_s - int(time.time()) <= int(refused.headers["Retry-After"]) <= reset_s - before_s
    # Not a second earlier, and then all of it.
    wait_until(lambda: time.time() >= reset_s - 0.5, 70, "half a second before the minute ends", 0.01)
    early = account.call("GET", PATH)
    assert early.status_code == 429 or time.time() >= reset_s
    wait_until(lambda: time.time() >= reset_s, 5, "the end of the minute", 0.005)
    answer = account.call("GET", PATH)
    assert answer.status_code == 200 and remaining(answer) >= 8
    assert int(answer.headers["X-RateLimit-Reset"]) == reset_s + 60


def test_the_headers_tell_of_a_bucket(servers):
    account = limited(servers, "basic", inference_minute=(6, 2))
    first_s = time.time()
    for left in (1, 0):
        answer = account.call("GET", PATH)
        assert answer.status_code == 200 and remaining(answer) == left
        assert answer.headers["X-RateLimit-Limit"] == "6"
        full_s = first_s + 10 * (2 - left)
        assert full_s - 1 <= int(answer.headers["X-RateLimit-Reset"]) <= full_s + time.time() - first_s + 1
    refused = account.call("GET", PATH)
    error_of(refused, 429, "rate_limit_exceeded")
    retry_after_s = int(refused.headers["Retry-After"])
    assert 1 <= retry_after_s <= 10
    time.sleep(retry_after_s)  # as it says
    assert account.call("GET", PATH).status_code == 200
    assert account.call("GET", PATH).status_code == 429


def test_the_account_shows_what_the_headers_say(servers):
    account = limited(servers, inference_day=50)
    window_with_room()
    account.call("GET", PATH)
    answer = account.call("GET", "/api/v1/account")
    windows = {window["name"]: window for window in answer.json()["limits"]["windows"]}
    told = {name: (window["limit"], window["remaining"]) for name, window in windows.items()}
    assert told == {"inference-minute": (10, 8), "inference-day": (50, 48)} and remaining(answer) == 8


def test_another_plan_holds_within_a_second(servers):
    account = limited(servers)
    window_with_room()
    while account.call("GET", PATH).status_code == 200:
        pass
    answer = servers.operator("plan", "set", {"account": account.email, "surface": "inference", "plan": "basic"})
    assert answer.status_code == 200
    time.sleep(1)  # what a reactor knows of a plan it believes for 0.9 s
    answer = account.call("GET", PATH)
    assert answer.status_code == 200 and answer.headers["X-RateLimit-Limit"] == "100"
    assert 80 <= remaining(answer) <= 89
    set_limit(servers, account, "inference-minute", 5)
    time.sleep(1)
    assert account.call("GET", PATH).status_code == 429


# ---- what it costs ----

def metric(gateway, name):
    total = 0
    for part in gateway.serves:
        headers = {"Authorization": "Bearer test-only-metrics"}
        text = requests.get(part.url() + "/metrics", headers=headers, timeout=10).text
        total += sum(int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))
    return total


def round_trips(gateway, account, count):
    before = metric(gateway, "wakegate_limit_round_trips_total")
    answers = [account.call("GET", PATH) for _ in range(count)]
    return answers, metric(gateway, "wakegate_limit_round_trips_total") - before


def test_a_request_costs_one_round_trip_at_most(servers):
    account = limited(servers)
    window_with_room()
    answers, rounds = round_trips(servers, account, 10)
    assert admitted(answers) == 10 and rounds == 10
    # A loop remembers a refusal, for a second.
    begin = time.monotonic()
    answers, rounds = round_trips(servers, account, 50)
    assert admitted(answers) == 0 and rounds <= 1 + (time.monotonic() - begin)


def test_four_limits_that_are_leased_cost_next_to_nothing(servers):
    account = limited(servers, "enterprise")
    window_with_room()
    answers, rounds = round_trips(servers, account, 100)
    assert admitted(answers) == 100 and rounds <= 4


# ---- without Redis ----

def test_limits_hold_while_redis_is_away(own_stores, start_gateway):
    gateway = start_gateway(SETTINGS, stores=own_stores, works=0)
    account = limited(gateway)
    own_stores.redis.stop()
    try:
        wait_until(lambda: requests.get(gateway.url + "/readyz", timeout=10).status_code == 503, 20)
        window_with_room()
        # Each of two reactors has a half of ten.
        got = admitted(crowd(gateway, account, 2))
        assert 5 <= got <= 10
    finally:
        own_stores.redis.start()
    wait_until(lambda: requests.get(gateway.url + "/readyz", timeout=10).status_code == 200, 20)
    window_with_room()
    assert admitted(crowd(gateway, account, 2)) == 10


# ---- one client, however it is spelled ----

def raw(gateway, fields, path=PATH):
    """A request with just these header fields: status, and the response's header."""
    host = gateway.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in [("Host", host), *fields]:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_a_key_is_one_client_however_it_is_spelled(servers):
    limited(servers, inference_minute=1, inference_day=1)  # is nobody else's affair
    account = limited(servers, "basic", inference_minute=100)
    window_with_room()
    left = remaining(account.call("GET", PATH))
    second = account.make_key()["key"]  # costs one too
    left -= 1
    token = account.logged_in()["token"]
    for name, value in [
        ("Authorization", f"Bearer {account.key}"), ("authorization", f"bearer {account.key}"),
        ("AUTHORIZATION", f"BEARER {account.key}"), ("AuThOrIzAtIoN", f"bEaReR {account.key}"),
        ("Authorization", f"  Bearer    {account.key}"), ("Authorization", f"Bearer {account.key} \t "),
        # All of the account's are limited together.
        ("Authorization", f"Bearer {second}"), ("Authorization", f"Bearer {token}"),
    ]:
        for path in (PATH, "/v1/whoami", "/api/v1//whoami?a=1", "/api/v1/%77hoami"):
            answer = raw(servers, [(name, value)], path)
            if answer.status != 200:
                assert answer.status in (400, 404) and path != PATH, (name, value, path)
                continue
            left -= 1
            assert int(answer.headers["X-RateLimit-Remaining"]) == left, (name, value, path)
    for value in (account.key, f"Basic {account.key}", f"Bearer,{account.key}", f"Bearer {account.key.swapcase()}",
                  f"Bearer {account.key} {account.key}"):
        assert raw(servers, [("Authorization", value)]).status == 401
    both = [("Authorization", f"Bearer {key}") for key in (account.key, second)]
    assert raw(servers, both).status == 401
    assert remaining(account.call("GET", PATH)) == left - 1


CLAIMS = ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP",
          "X-Cluster-Client-IP", "X-Originating-IP", "X-Remote-Addr", "Via"]


def claim(name, number):
    address = f"203.0.113.{number}"
    return f"for={address}" if name == "Forwarded" else address


def test_nobody_that_is_no_proxy_of_ours_has_another_address(start_gateway):
    gateway = start_gateway({**SETTINGS, "ADDRESS_RATE_PER_MINUTE": "20"}, works=0)
    window_with_room()
    statuses = []
    for number in range(33):
        name = CLAIMS[number % len(CLAIMS)]
        fields = [(name, claim(name, number)), (name.lower(), claim(name, number + 100)),
                  ("Authorization", f"Bearer fsk-{number}")]
        statuses.append(raw(gateway, fields).status)
    assert statuses == [401] * 20 + [429] * 13


def test_behind_a_proxy_of_ours_each_address_has_its_own(start_gateway):
    gateway = start_gateway({**SETTINGS, "ADDRESS_RATE_PER_MINUTE": "20", "TRUSTED_PROXIES": "127.0.0.0/8"}, works=0)
    window_with_room()

    def left(forwarded):
        answer = call(gateway, "GET", PATH, "fsk-wrong", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == 401
        return remaining(answer)

    assert left("203.0.113.1") == 19
    assert left("203.0.113.2") == 19
    # What the client itself has written does not count, nor does another spelling.
    assert left("203.0.113.3, 203.0.113.1") == 18
    assert left("127.0.0.9 ,203.0.113.1,\t127.0.0.1") == 17
    assert left("::ffff:203.0.113.1") == 16
    assert left("2001:db8:1:2::1") == 19
    assert left("2001:DB8:1:2:ffff::") == 18
