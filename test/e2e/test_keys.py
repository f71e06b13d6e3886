"""API keys: what they show, what they allow, and how soon they end."""

import contextlib
import datetime
import http.client
import threading
import time
import urllib.parse

import pytest

from accounts import SETTINGS, Account, call, error_of
from fixtures import run_gateway
from stores import wait_until

SCOPES = ["account:read", "account:write", "keys:read", "keys:write", "ai:call", "jobs:read", "webhooks", "events"]
CLIENTS = 4  # threads, for each server


@pytest.fixture(scope="module")
def gateway(stores):
    """Two servers with two reactors each, behind a proxy."""
    yield from run_gateway(stores, {**SETTINGS, "TRUSTED_PROXIES": "127.0.0.1"}, serves=2, works=0)


@pytest.fixture
def account(gateway):
    return Account(gateway)


def keys_of(account, **query):
    return account.call("GET", "/api/v1/api-keys", params=query).json()


# ---- what is shown ----

def test_a_key_is_shown_once(gateway, account):
    answer = account.call("POST", "/api/v1/api-keys", json={"name": "deploy", "signing": True})
    assert answer.status_code == 201 and answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    key, secret = made.pop("key"), made.pop("signing_secret")
    assert key.startswith(made["prefix"]) and key.startswith("fsk-") and len(key) >= 47
    assert secret.startswith("wgss_")
    assert made["name"] == "deploy" and made["scopes"] == SCOPES and made["signing"] and made["allow_from"] == []
    assert (made["expires_at"], made["revoked_at"], made["rotated_to"]) == (None, None, None)
    assert account.call("GET", f"/api/v1/api-keys/{made['id']}").json() == made
    assert made in keys_of(account)["data"]
    for path in ("/api/v1/api-keys", f"/v1/api-keys/{made['id']}"):
        text = account.call("GET", path).text
        assert key not in text and secret not in text and key[len(made["prefix"]):] not in text
    assert account.status(key) == 200
    rest = key[len(made["prefix"]):]
    dump = gateway.stores.postgres.dump(gateway.database).decode()
    assert made["id"] in dump and rest not in dump and secret not in dump


def test_keys_are_listed_newest_first_page_by_page(account):
    ids = [account.key_id] + [account.make_key(name=f"k{number}")["id"] for number in range(4)]
    seen, cursor = [], None
    for size in (2, 2, 1):
        page = keys_of(account, limit=2, **({"cursor": cursor} if cursor else {}))
        assert page["object"] == "list" and len(page["data"]) == size
        seen += [key["id"] for key in page["data"]]
        cursor = page["next_cursor"]
    assert cursor is None and seen == ids[::-1]
    for query in ({"limit": 0}, {"limit": 201}, {"limit": "x"}, {"cursor": "x"}, {"cursor": -1}):
        error_of(account.call("GET", "/v1/api-keys", params=query), 400, "invalid_parameter")
    for query in ("limit=%zz", "cursor=%ff", "limit=", "limit=1%00"):
        error_of(account.call("GET", f"/v1/api-keys?{query}"), 400, "invalid_parameter")


FUTURE = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=400)).strftime("%Y-%m-%dT12:00:00")


@pytest.mark.parametrize("given,shown", [
    (FUTURE + "Z", FUTURE + "Z"), (FUTURE + ".250Z", FUTURE + "Z"), (FUTURE + "+00:00", FUTURE + "Z"),
    (FUTURE[:-8] + "12:00:00-02:30", FUTURE[:-8] + "14:30:00Z"), ("2096-02-29T23:59:59z", "2096-02-29T23:59:59Z"),
])
def test_an_expiry_is_read_as_iso_writes_it(account, given, shown):
    assert account.make_key(expires_at=given)["expires_at"] == shown


@pytest.mark.parametrize("body", [
    {"name": "x" * 101}, {"name": "a\nb"}, {"name": "a\u007fb"}, {"name": 7},
    {"scopes": []}, {"scopes": "keys:read"}, {"scopes": ["keys:fly"]}, {"scopes": [7]}, {"scopes": ["session:read"]},
    {"scopes": {"keys:read": True}}, {"surface": "user"}, {"surface": "operator"}, {"surface": ""}, {"surface": 1},
    {"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "tomorrow"}, {"expires_at": 1900000000},
    {"expires_at": "2096-02-30T00:00:00Z"}, {"expires_at": "2096-13-01T00:00:00Z"}, {"expires_at": "2096-01-01"},
    {"expires_at": "2096-01-01T00:00:00"}, {"expires_at": "2096-01-01T00:00:00Zx"},
    {"expires_at": "2096-01-01T24:00:00Z"}, {"expires_at": "9999-12-31T23:59:59-01:00"},
    {"expires_at": "2096-01-01T00:00:00.Z"}, {"expires_at": "2096-01-01T00:00:00+24:00"}, {"expires_at": ""},
    {"expires_in": 0}, {"expires_in": -5}, {"expires_in": 1.5}, {"expires_in": "60"}, {"expires_in": 10**11},
    {"expires_in": 60, "expires_at": "2096-01-01T00:00:00Z"},
    {"allow_from": []}, {"allow_from": "192.0.2.1"}, {"allow_from": ["192.0.2.1/24"]}, {"allow_from": ["example.com"]},
    {"allow_from": ["192.0.2.1"] * 17}, {"allow_from": [None]}, {"ips": ["192.0.2.256"]},
    {"ips": ["192.0.2.1"], "allow_from": ["192.0.2.1"]}, {"allow_from": ["192.0.2.1 0.0.0.0/0"]},
    {"signing": "yes"}, {"require_signature": 1},
], ids=repr)
def test_what_no_key_can_be_is_400(account, body):
    error_of(account.call("POST", "/v1/api-keys", json=body), 400, "invalid_parameter")
    assert len(keys_of(account)["data"]) == 1


# ---- scopes ----

ROUTES = [
    ("GET", "/api-keys", None, "keys:read"), ("GET", "/api-keys/{id}", None, "keys:read"),
    ("POST", "/api-keys", {"name": "x"}, "keys:write"), ("POST", "/api-keys/{id}/rotate", {}, "keys:write"),
    ("DELETE", "/api-keys/{id}", None, "keys:write"), ("GET", "/account", None, "account:read"),
]


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_the_routes_of_its_scopes_alone(account, scope, prefix):
    key = account.make_key(scopes=[scope])["key"]
    for method, path, body, needed in ROUTES:
        other = account.make_key(scopes=[scope])["id"]
        answer = account.call(method, prefix + path.replace("{id}", other), key, json=body)
        if needed == scope:
            assert answer.status_code in (200, 201), (method, path, answer.text)
        else:
            error_of(answer, 403, "insufficient_scope")
    error_of(account.call("POST", "/api/auth/password", key, json={"old_password": "a", "new_password": "b"}),
             *((400, "invalid_parameter") if scope == "account:write" else (403, "insufficient_scope")))


def test_nobody_gives_more_than_he_has(account):
    narrow = account.make_key(scopes=["keys:write", "keys:read"])["key"]

    def ask(token, **body):
        return account.call("POST", "/v1/api-keys", token, json=body)
    assert ask(narrow).json()["scopes"] == ["keys:read", "keys:write"]
    assert ask(narrow, scopes=["keys:read"]).json()["scopes"] == ["keys:read"]
    for body in ({"scopes": ["keys:read", "ai:call"]}, {"surface": "session"}, {"surface": "gpu"},
                 {"surface": "session", "scopes": ["session:read"]}):
        error_of(ask(narrow, **body), 403, "insufficient_scope")
    # A rotated key is in the hands of whoever has rotated it.
    wide = account.make_key()["id"]
    error_of(account.call("POST", f"/v1/api-keys/{wide}/rotate", narrow), 403, "insufficient_scope")
    assert account.call("GET", f"/v1/api-keys/{wide}").json()["rotated_to"] is None

    local = account.make_key(allow_from=["127.0.0.0/8", "10.0.0.0/8"])["key"]
    assert ask(local).json()["allow_from"] == ["127.0.0.0/8", "10.0.0.0/8"]
    assert ask(local, ips=["10.1.0.0/16"]).json()["allow_from"] == ["10.1.0.0/16"]
    for networks in (["192.0.2.1"], ["10.0.0.0/7"], ["0.0.0.0/0"], ["::/0"], ["10.1.0.0/16", "192.0.2.1"]):
        error_of(ask(local, allow_from=networks), 403, "insufficient_scope")
    error_of(account.call("POST", f"/v1/api-keys/{wide}/rotate", local), 403, "insufficient_scope")


def test_what_a_key_makes_ends_with_it(account):
    short = account.make_key(expires_in=3600)

    def ask(**body):
        return account.call("POST", "/v1/api-keys", short["key"], json=body)
    made = ask()
    assert made.status_code == 201 and made.json()["expires_at"] == short["expires_at"]
    assert ask(expires_in=60).status_code == 201
    for body in ({"expires_in": 7200}, {"expires_at": "2999-01-01T00:00:00Z"}):
        error_of(ask(**body), 403, "insufficient_scope")
    for longer in (account.key_id, account.make_key(expires_in=7200)["id"]):
        error_of(account.call("POST", f"/v1/api-keys/{longer}/rotate", short["key"]), 403, "insufficient_scope")
    assert account.call("POST", f"/v1/api-keys/{short['id']}/rotate", short["key"]).status_code == 201
    # Who has given the password may make what outlives the log-in.
    assert account.make_key(account.logged_in()["api_key"])["expires_at"] is None


def test_a_key_of_another_surface_opens_that_alone(gateway, account):
    made = account.make_key(surface="session", scopes=["session:read"])
    assert made["key"].startswith("wgs_") and made["surface"] == "session"
    headers = {"X-API-Key": made["key"]}
    assert call(gateway, "GET", "/session", headers=headers).status_code == 200
    assert call(gateway, "POST", "/session/create", headers=headers, json={"user_id": "u"}).status_code == 403
    error_of(call(gateway, "GET", "/v1/account", made["key"]), 401, "invalid_api_key")
    assert call(gateway, "GET", "/session", headers={"X-API-Key": account.key}).status_code == 401
    assert account.make_key(surface="gpu")["key"].startswith("dumont_sk_")


def test_two_keys_are_none(gateway, account):
    key = account.make_key(surface="session")["key"]
    address = urllib.parse.urlsplit(gateway.url)
    for keys in ([key], [key, "x"], ["x", key], [key, key]):
        with contextlib.closing(http.client.HTTPConnection(address.hostname, address.port, timeout=30)) as connection:
            connection.putrequest("GET", "/session")
            for each in keys:
                connection.putheader("X-API-Key", each)
            connection.endheaders()
            assert connection.getresponse().status == (200 if keys == [key] else 401), keys


# ---- tenants ----

@pytest.mark.parametrize("method,path", [("GET", ""), ("DELETE", ""), ("POST", "/rotate")])
def test_anothers_key_is_404_as_one_that_never_was(gateway, account, method, path):
    other = Account(gateway)
    for prefix in ("/api/v1", "/v1"):
        wanted = account.call(method, f"{prefix}/api-keys/key_0123456789abcdefghijkl{path}")
        error_of(wanted, 404, "not_found")
        number, = gateway.sql("SELECT id FROM api_key WHERE ref = %s", other.key_id)[0]
        for key_id in (other.key_id, str(number), "key_", "key_a'b", "key_%20", "key_\u00e9", "x" * 500):
            answer = account.call(method, f"{prefix}/api-keys/{key_id}{path}")
            assert (answer.status_code, answer.text) == (404, wanted.text), key_id
    assert other.status() == 200
    assert [key["id"] for key in keys_of(account)["data"]] == [account.key_id]


# ---- the end of a key ----

def check_end_at(account, key, end_s):
    """Let in before that moment, and refused from a second after it; `end_s` has lost its fraction of a second."""
    seen = []

    def ask():
        begun_s = time.time()
        status = account.status(key)
        seen.append((begun_s, time.time(), status))
        return begun_s > end_s + 2
    wait_until(ask, 30, "the key's end")
    for begun_s, ended_s, status in seen:
        assert status == 200 or ended_s >= end_s, "refused too early"
        assert status == 401 or begun_s <= end_s + 2, "let in too late"
    assert seen[-1][2] == 401


def unix_s(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()


def test_an_expired_key_is_refused(account):
    made = account.make_key(expires_in=2)
    assert 0 <= unix_s(made["expires_at"]) - time.time() + 1 <= 3
    check_end_at(account, made["key"], unix_s(made["expires_at"]))


def test_a_rotated_key_holds_for_its_overlap(account):
    old = account.make_key(name="turned", scopes=["account:read"])
    assert account.status(old["key"]) == 200
    answer = account.call("POST", f"/v1/api-keys/{old['id']}/rotate", json={"overlap_seconds": 2})
    assert answer.status_code == 201 and answer.headers["Cache-Control"] == "no-store"
    new = answer.json()
    assert (new["name"], new["scopes"]) == ("turned", ["account:read"]) and new["key"] != old["key"]
    assert account.status(new["key"]) == 200 and account.status(old["key"]) == 200
    shown = account.call("GET", f"/v1/api-keys/{old['id']}").json()
    assert shown["rotated_to"] == new["id"] and shown["expires_at"]
    check_end_at(account, old["key"], unix_s(shown["expires_at"]))
    assert account.status(new["key"]) == 200
    error_of(account.call("POST", f"/v1/api-keys/{old['id']}/rotate"), 409, "already_exists")
    # Without a body: at once.
    assert account.call("POST", f"/v1/api-keys/{new['id']}/rotate").status_code == 201
    wait_until(lambda: account.status(new["key"]) == 401, 1, "the key is refused")
    for overlap in (-1, 604801, "60", 1.5):
        error_of(account.call("POST", f"/v1/api-keys/{account.key_id}/rotate", json={"overlap_seconds": overlap}), 400,
                 "invalid_parameter")
    assert account.status() == 200


class Hammer:
    """Clients on both servers that ask on and on, each request on a connection of its own: any reactor may have it."""

    def __init__(self, account, token):
        self.seen = []  # (begun, status)
        self.stopping = False
        urls = [part.url() for part in account.gateway.serves] * CLIENTS
        self.threads = [threading.Thread(target=self.run, args=(account, token, url)) for url in urls]

    def run(self, account, token, url):
        while not self.stopping:
            begun = time.monotonic()
            self.seen.append((begun, account.status(token, url=url, fresh=True)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join()

    def wait_for(self, count):
        wait_until(lambda: len(self.seen) >= count, 30, "the requests")

    def check_end(self, asked, ended, refusal=401):
        """All are let in before it is asked for, none from a second after; returns how many there were in that second."""
        assert {status for begun, status in self.seen} == {200, refusal}
        assert {status for begun, status in self.seen[:asked]} == {200}
        late = [status for begun, status in self.seen if begun > ended + 1]
        assert len(late) >= 100 and set(late) == {refusal}
        return sum(ended <= begun <= ended + 1 for begun, _ in self.seen)


@pytest.mark.parametrize("kind", ["key", "login"])
def test_what_was_revoked_is_refused_on_every_reactor_within_a_second(account, kind):
    if kind == "key":
        made = account.make_key()
        token, end = made["key"], lambda: account.call("DELETE", f"/v1/api-keys/{made['id']}").status_code == 200
    else:
        token = account.logged_in()["token"]
        end = lambda: account.call("POST", "/api/auth/logout", token).status_code == 204  # noqa: E731
    with Hammer(account, token) as hammer:
        hammer.wait_for(400)
        asked = len(hammer.seen)
        assert end()
        ended = time.monotonic()
        time.sleep(1)  # the second in which it may still be let in: what is measured
        hammer.wait_for(len(hammer.seen) + 300)
    assert hammer.check_end(asked, ended) > 0
    for part in account.gateway.serves:
        wait_until(lambda part=part: part.log().count('"msg":"request"') > 200, 5, f"{part.name} has answered many")


# ---- where from ----

@pytest.mark.parametrize("allowed,fine,refused", [
    (["192.0.2.0/24"], ["192.0.2.1", "192.0.2.255", "6.6.6.6, 192.0.2.9", "::ffff:192.0.2.7"],
     ["192.0.3.1", "192.0.2.1, 6.6.6.6", "2001:db8::1", None]),
    (["2001:db8::/32", "198.51.100.7"], ["2001:db8:1::1", "198.51.100.7"], ["2001:db9::1", "198.51.100.8"]),
    (["127.0.0.1"], [None], ["192.0.2.1"]),
])
def test_a_key_comes_from_where_it_may_alone(account, allowed, fine, refused):
    """Behind a trusted proxy: it is the rightmost address that no proxy of ours has."""
    made = account.make_key(allow_from=allowed)
    assert made["allow_from"] == allowed
    for addresses, status in ((fine, 200), (refused, 403)):
        for address in addresses:
            headers = {"X-Forwarded-For": address} if address else {}
            answer = account.call("GET", "/v1/account", made["key"], headers=headers)
            assert answer.status_code == status, (address, answer.text)
            if status == 403:
                error_of(answer, 403, "address_not_allowed")


def test_without_trusted_proxies_the_peer_alone_counts(start_gateway):
    gateway = start_gateway(SETTINGS, works=0)
    account = Account(gateway)
    key = account.make_key(allow_from=["192.0.2.0/24"])["key"]
    answer = account.call("GET", "/v1/account", key, headers={"X-Forwarded-For": "192.0.2.1"})
    error_of(answer, 403, "address_not_allowed")
