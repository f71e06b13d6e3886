"""Real answers are what the API's description says of them.

For each section of the description one test makes objects, calls every operation as it is meant to be called, then
provokes the errors that the description tells of it. Every answer's status, header fields, type and body are held
against it, and at the end each answer that it tells must have been given.
"""

import base64
import concurrent.futures
import itertools
import json
import re
import socket

import pytest
import requests

from description import PageReader, Spec, load_yaml
from fixtures import recorder_settings, run_gateway
from stores import wait_until
from wakegate import ADMIN_TOKEN, Gateway

SETTINGS = {"METRICS_TOKEN": "test-only-metrics", "REGISTER_RATE_PER_HOUR": "1000000",
            "LOGIN_RATE_PER_MINUTE": "1000000", "ADDRESS_RATE_PER_MINUTE": "1000000"}
# These need an answer of one operation of each section, not of every one: how they come about is the gate's affair.
ONCE = ("StillRunning", "PodFailed")
# A scope that a key may have instead, on the same surface.
OTHER_SCOPE = {"session:read": "session:write", "session:write": "session:read", "keys:read": "events",
               "keys:write": "events", "account:read": "events", "account:write": "events", "events": "account:read",
               "ai:call": "events", "jobs:read": "events", "webhooks": "events", "gpu:webhooks": "instances:read"}
SURFACES = {"sessionKey": "session", "inferenceKey": "inference", "gpuKey": "gpu"}  # whose keys these are
PASSWORD = "a-password-of-tests"
REDIRECT = "http://127.0.0.1:9/callback"
BODY_MAX = 1 << 20
numbers = itertools.count()  # names are new in all worlds: some have a gateway in common


@pytest.fixture(scope="module")
def described(stores):
    """With pods that misbehave when a message tells them to."""
    yield from run_gateway(stores, recorder_settings(**SETTINGS))


@pytest.fixture
def spec():
    return Spec(load_yaml())


class World:
    """A gateway, who may call it, and what calls are about. Every answer is held against the description."""

    def __init__(self, gateway, spec):
        self.gateway = gateway
        self.spec = spec
        self.session = requests.Session()
        self.session.trust_env = False
        self.objects = {}  # name of a path's parameter -> one that there is
        self.unknown = {"uuid": "nosuchsession", "id": "key_00000000000000000000000000000000",
                        "delivery": "dlv_999999999"}  # one that there is not
        session_key = self.key("session")
        self.give_room("described")
        self.good = {
            "metricsToken": bearer(SETTINGS["METRICS_TOKEN"]),
            "operatorToken": bearer(ADMIN_TOKEN),
            "sessionKey": {"X-API-Key": session_key},
            "inferenceKey": bearer(self.key("inference")),
            "gpuKey": bearer(self.key("gpu")),
        }
        self.wrong = {scheme: bearer("wrong") for scheme in (*self.good, "loginToken")}
        self.wrong["sessionKey"] = {"X-API-Key": "wrong"}

    def key(self, surface, *more):
        return self.gateway.admin("key", "create", "--account", "described", "--surface", surface, *more)["key"]

    def give_room(self, account):
        """A plan whose limits no test comes near."""
        for surface in ("inference", "gpu"):
            self.gateway.admin("plan", "set", account, "--surface", surface, "--plan", "enterprise")

    def narrow(self, operation):
        """Credentials that are good for other operations, or where any are, from elsewhere."""
        needed = next(iter(operation.scopes), None)
        but = ("--scopes", OTHER_SCOPE[needed]) if needed else ("--allow-from", "192.0.2.1")
        key = self.key(SURFACES[operation.scheme], *but)
        return {operation.scheme: {"X-API-Key": key} if operation.scheme == "sessionKey" else bearer(key)}

    def new_name(self):
        return f"name-{next(numbers)}"

    def call(self, operation, who=None, objects=None, body=..., data=None, **options):
        who = self.good if who is None else who
        own = who.get(operation.scheme, {})
        headers = {**own, **options.pop("headers", {})}
        if data is None and operation.body_kinds:
            body = self.example(operation) if body is ... else body
            options["json" if operation.body_kinds[0] == "application/json" else "data"] = body
        asked = {each["name"]: self.objects.get(each["name"], each.get("example")) for each in operation.parameters
                 if each["in"] == "query" and each.get("required")}
        options["params"] = {**asked, **options.get("params", {})}
        url = self.gateway.url + operation.path_with({**self.unknown, **self.objects, **(objects or {})})
        answer = self.session.request(operation.method, url, headers=headers, data=options.pop("data", data),
                                      allow_redirects=False, timeout=60, **options)
        self.spec.check(answer, operation)
        return answer

    def example(self, operation):
        """With objects that there are, as far as it names some."""
        there = {name: value for name, value in self.objects.items() if name in operation.example}
        return {**operation.example, **there}

    def do(self, name, status, *args, **options):
        """The operation of that name; its answer's body."""
        answer = self.call(self.spec.operation(name), *args, **options)
        assert answer.status_code == status, (name, answer.status_code, answer.text)
        return answer.json() if answer.headers.get("Content-Type") == "application/json" else answer


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def expect(answer, status):
    assert answer.status_code == status, (answer.request.method, answer.request.url, answer.status_code, answer.text)


def provoke_credentials(world, operation):
    if "401" in operation.told["responses"] and operation.security:
        for who in ({}, world.wrong):
            expect(world.call(operation, who), 401)
    if "403" in operation.told["responses"] and operation.scheme in SURFACES:
        expect(world.call(operation, world.narrow(operation)), 403)


def provoke_bad_requests(world, operation):
    asked = operation.told["responses"]
    if "404" in asked and "{" in operation.path:
        expect(world.call(operation, objects=world.unknown), 404)
    if operation.takes("limit"):
        expect(world.call(operation, params={"limit": "0"}), 400)
    if operation.takes("Idempotency-Key"):
        expect(world.call(operation, headers={"Idempotency-Key": "x" * 256}), 400)
    if "application/json" in operation.body_kinds:
        json_type = {"Content-Type": "application/json"}
        expect(world.call(operation, data="{", headers=json_type), 400)
        expect(world.call(operation, data="[]", headers=json_type), 400)
        expect(world.call(operation, data="{}", headers={"Content-Type": "text/plain"}), 415)
        expect(world.call(operation, data=" " * BODY_MAX + "{}", headers=json_type), 413)


def provoke_reused_key(world, operation, seed, asked=..., **options):
    """`seed` is an operation whose answer is kept under a key; that comes again with this one, which asks for `asked`."""
    if operation.takes("Idempotency-Key"):
        headers = {"Idempotency-Key": world.new_name()}
        assert world.call(world.spec.operation(seed), headers=headers, **options).ok
        expect(world.call(operation, headers=headers, body=asked), 422)


def provoke_other_methods(world, operation):
    """405, and Allow lists what the description has for this path, be it with a parameter."""
    path = operation.path_with(world.unknown)
    for method in ("PATCH", "PUT"):
        if world.spec.find(method, path):
            continue
        answer = world.session.request(method, world.gateway.url + path, timeout=10)
        expect(answer, 405)
        assert {each.strip() for each in answer.headers["Allow"].split(",")} == \
            {each.method for each in world.spec.operations if each.pattern.match(path)}
        world.spec.check(answer, operation)


def provoke_still_running(world, name):
    """The first of two that are the same waits for the row of its account, which somebody else holds."""
    again = {"headers": {"Idempotency-Key": world.new_name()}}
    operation = world.spec.operation(name)
    with world.gateway.stores.postgres.connect(world.gateway.database) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM account FOR UPDATE")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(world.call, operation, **again)
            waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            wait_until(lambda: world.gateway.sql(waits), 10, "the first one waits")
            expect(world.call(operation, **again), 409)
            other.rollback()
            assert first.result().ok
    assert world.call(operation, **again).headers["Idempotent-Replayed"] == "true"


def check_all_were_seen(spec, tags):
    """Each answer that these sections tell has been given."""
    operations = [each for tag in tags for each in spec.of_tag(tag)]
    seen = {each.answer_name(status) for each in operations for status in each.told["responses"]
            if (each.id, status) in spec.seen}
    once = {name for name in seen if name and name.endswith(ONCE)}
    assert {(each, status) for each, status in spec.unseen(operations) if each.answer_name(status) not in once} == set()


@pytest.fixture
def spent(start_gateway):
    """Everybody has one request a minute."""
    return start_gateway({**SETTINGS, "SESSION_RATE_PER_MINUTE": "1", "ADDRESS_RATE_PER_MINUTE": "1",
                          "LOGIN_RATE_PER_MINUTE": "1", "REGISTER_RATE_PER_HOUR": "1"}, works=0)


def provoke_refusals(world, operations, spend=lambda: None):
    spend()
    for operation in operations:
        if "429" not in operation.told["responses"]:
            continue
        for _ in range(3):  # a minute may end between two of them
            answer = world.call(operation)
            if answer.status_code == 429:
                break
            spend()
        expect(answer, 429)


def provoke_outage(world, operations):
    for operation in operations:
        if "503" in operation.told["responses"]:
            expect(world.call(operation), 503)


@pytest.fixture
def cut_off(own_stores):
    """A gateway that its PostgreSQL can be taken from. Not closed: that would want to delete what is in it."""
    gateway = Gateway(own_stores, {**SETTINGS, "PG_TIMEOUT_MS": "1000"}, works=0)
    try:
        yield gateway.start()
    finally:
        gateway.abandon()


def test_answers_of_operations(described, cut_off, spec):
    world = World(described, spec)
    for operation in spec.of_tag("Operations"):
        expect(world.call(operation), 200)
        provoke_credentials(world, operation)
        provoke_other_methods(world, operation)
    down = World(cut_off, spec)
    cut_off.stores.postgres.stop()
    wait_until(lambda: requests.get(cut_off.url + "/health", timeout=10).status_code == 503, 10, "the outage")
    provoke_outage(down, spec.of_tag("Operations"))
    check_all_were_seen(spec, ["Operations"])


def use_a_session(world):
    """Each operation as it is meant to be used."""
    uuid = world.objects["uuid"] = world.do("sessionCreate", 201)["uuid"]
    world.do("sessionSleep", 202)
    assert world.do("sessionWake", 202)["status"] == "queued"
    wait_until(lambda: world.do("sessionStatus", 200)["session"]["status"] == "active", 20, "the pod is awake")
    assert world.do("sessionWake", 200)["status"] == "active"
    world.do("sessionChat", 200, headers={"Prefer": "wait=30"})
    world.do("sessionChat", 502, body={"message": "!garbage"}, headers={"Prefer": "wait=30"})
    provoke_still_running(world, "sessionCreate")
    asleep = world.do("sessionCreate", 201, headers={"Idempotency-Key": world.new_name()})["uuid"]
    world.do("sessionChat", 202, objects={"uuid": asleep})
    states = {message["status"] for message in world.do("sessionMessages", 200)["messages"]}
    assert states >= {"delivered", "failed"}
    assert world.do("sessionMessages", 200, params={"limit": 1})["next_cursor"]
    assert world.do("sessionList", 200, params={"limit": 1})["next_cursor"]
    return uuid


def test_answers_of_sessions(described, spent, cut_off, spec):
    world = World(described, spec)
    operations = spec.of_tag("Sessions")
    use_a_session(world)
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        provoke_reused_key(world, operation, "sessionCreate", body={"user_id": "other"})
        provoke_other_methods(world, operation)
    world.do("sessionDelete", 200)
    provoke_refusals(World(spent, spec), operations)
    down = World(cut_off, spec)
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["Sessions"])


# ---- accounts and keys ----

def use_an_account(world):
    """Each operation as it is meant to be used, with a key and with a log-in's token."""
    who = {"email": world.new_name() + "@example.com", "password": PASSWORD}
    made = world.do("accountRegister", 201, body={"email": world.new_name() + "@example.com", "organization": "ACME"})
    assert made["password"]
    world.give_room(made["email"])
    world.do("accountRegister", 201, body={**who, "organization": "ACME"})
    world.do("accountRegister", 409, body={**who, "organization": "ACME"})
    world.give_room(who["email"])
    world.do("accountLogin", 401, body={**who, "password": "wrong"})
    login = world.do("accountLogin", 200, body=who)
    world.good["inferenceKey"] = bearer(login["api_key"])
    use_keys(world, "")
    provoke_still_running(world, "apiKeyCreate")
    next_pair = world.do("accountRefresh", 200, body={"refresh_token": login["refresh_token"]})
    world.do("accountRefresh", 401, body={"refresh_token": "wrong"})
    world.good["loginToken"] = world.good["inferenceKey"] = bearer(next_pair["token"])
    use_keys(world, "V1")
    world.do("accountLogout", 403, {"loginToken": bearer(login["api_key"])})
    world.do("accountLogout", 204)
    wait_until(lambda: world.call(world.spec.operation("accountLogout")).status_code == 401, 5, "the log-in's end")
    login = world.do("accountLogin", 200, body=who)
    world.good["inferenceKey"] = world.good["loginToken"] = bearer(login["token"])
    world.do("accountPassword", 401, body={"old_password": "wrong", "new_password": PASSWORD + "-2"})
    world.do("accountPassword", 204, body={"old_password": PASSWORD, "new_password": PASSWORD + "-2"})
    ban_it(world, {**who, "password": PASSWORD + "-2"})
    world.good["loginToken"] = world.good["inferenceKey"] = bearer(made["api_key"])


def use_keys(world, suffix):
    made = world.do("apiKeyCreate" + suffix, 201, body={"name": "a", "allow_from": ["127.0.0.0/8"], "signing": True})
    assert made["signing_secret"]
    world.objects["id"] = world.do("apiKeyCreate" + suffix, 201)["id"]
    assert world.do("apiKeyList" + suffix, 200, params={"limit": 1})["next_cursor"]
    world.do("apiKeyShow" + suffix, 200)
    rotated = world.do("apiKeyRotate" + suffix, 201)["id"]
    world.do("apiKeyRotate" + suffix, 409)
    assert world.do("apiKeyShow" + suffix, 200)["rotated_to"] == rotated
    world.do("apiKeyRevoke" + suffix, 200, objects={"id": rotated})
    assert world.do("accountShow" + suffix, 200)["limits"]["windows"]
    assert world.do("modelList" + suffix, 200)["data"]
    world.do("modelShow" + suffix, 200, objects={"id": "gpt-4"})
    use_money(world, suffix)
    world.do("accountWhoami" + suffix, 200)


def use_money(world, suffix):
    assert world.do("accountDeposit" + suffix, 201)["credited"] == "1.0"
    world.do("accountDeposit" + suffix, 201, body={"amount": 0.5, "currency": "USD"})
    number = world.do("accountWhoami", 200)["account"]
    for model in ("gpt-4", "gpt-3.5"):
        world.gateway.sql("SELECT usage_add(ARRAY[id], '{2026-01-12}', ARRAY[%s], '{0}', '{5}', '{127}', '{0.0132}') "
                          "FROM account WHERE ref = %s", model, number)
    days = {"from": "2026-01-01", "to": "2026-01-31"}
    page = world.do("usageShow" + suffix, 200, params={**days, "limit": 1})
    assert world.do("usageShow" + suffix, 200, params={**days, "cursor": page["next_cursor"]})["data"]


def ban_it(world, who):
    world.gateway.admin("ban", "add", who["email"], "--reason", "tests")
    world.do("accountLogin", 403, body=who)


def test_answers_of_accounts_and_keys(described, spent, cut_off, spec):
    world = World(described, spec)
    operations = spec.of_tag("Accounts and keys")
    use_an_account(world)
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        if operation.security:
            provoke_reused_key(world, operation, "apiKeyCreate", body={"name": "other"})
        else:  # what was kept for who has no credentials is kept for the address
            who = {"email": world.new_name() + "@example.com", "password": PASSWORD}
            provoke_reused_key(world, operation, "accountRegister", body={**who, "organization": "ACME"},
                               asked=who if operation.path.endswith("/login") else ...)
        provoke_other_methods(world, operation)
    refused = World(spent, spec)
    provoke_refusals(refused, operations)
    down = World(cut_off, spec)
    who = {"email": "person@example.com", "password": PASSWORD}
    down.do("accountRegister", 201, body={**who, "organization": "ACME"})
    login = down.do("accountLogin", 200, body=who)
    down.good["loginToken"] = down.good["inferenceKey"]
    down.objects["refresh_token"] = login["refresh_token"]
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["Accounts and keys"])


# ---- events ----

def listen(world, operation):
    """Both ways to listen, for as long as it takes to see the beginning."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode()}
    for headers, status in ((upgrade, 101), ({"Accept": "text/event-stream"}, 200)):
        with requests.get(world.gateway.url + operation.path, headers={**world.good["inferenceKey"], **headers},
                          stream=True, timeout=20) as answer:
            answer._content = next(answer.iter_lines()) if status == 200 else b""  # the rest has no end
            expect(answer, status)
            world.spec.check(answer, operation)


class Listeners(World):
    """One that lets no stream begin, unless it means to: who accepts neither kind is told so."""

    def call(self, operation, who=None, **options):
        if operation.id.startswith("eventStream"):
            options["headers"] = {"Accept": "application/json", **options.get("headers", {})}
        return super().call(operation, who, **options)


def test_answers_of_events(described, spent, cut_off, spec):
    world = Listeners(described, spec)
    operations = spec.of_tag("Events")
    for operation in operations:
        if operation.method == "GET":
            listen(world, operation)
            expect(world.call(operation), 426)
            expect(world.call(operation, headers={"Accept": "*/*"}, params={"events": "nonsense"}), 400)
        else:
            expect(world.call(operation), 201)
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        provoke_reused_key(world, operation, "apiKeyCreate", body={"name": "other"})
        provoke_other_methods(world, operation)
    refused = Listeners(spent, spec)
    provoke_refusals(refused, operations)
    down = Listeners(cut_off, spec)
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["Events"])


# ---- AI calls ----

def use_calls(world, suffix):
    """Each operation as it is meant to be used, and what only AI calls refuse."""
    stream = {"stream": True}
    for name, kind in (("completionCreate", "completion"), ("chatCompletionCreate", "chat")):
        example = world.example(world.spec.operation(name + suffix))
        done = world.do(name + suffix, 200)
        assert done["id"] and world.do("jobShow" + suffix, 200, objects={"id": done["id"]})["kind"] == kind
        assert world.do(name + suffix, 200, body={**example, **stream}).text.endswith("data: [DONE]\n\n")
        world.do(name + suffix, 402, {"inferenceKey": bearer(world.poor)})
        world.do(name + suffix, 404, body={**example, "model": "gpt-99"})
        job = world.do(name + suffix, 202, body={**example, "model": "sandbox-stall"}, headers={"Prefer": "respond-async"})
        assert world.do("jobCancel" + suffix, 200, objects={"id": job["id"]})["status"] == "cancelled"
    world.do("jobCancel" + suffix, 409, objects={"id": done["id"]})
    world.objects["id"] = done["id"]
    assert wait_until(lambda: world.do("jobList" + suffix, 200, params={"limit": 1})["next_cursor"], 10, "two rows")
    assert world.do("jobList" + suffix, 200, params={"status": "failed"})["data"] == []


def provoke_running_call(world, name):
    """Of two that are the same at the same time, one is told to wait."""
    operation = world.spec.operation(name)
    same = {"headers": {"Idempotency-Key": world.new_name()}, "body": {**operation.example, "model": "sandbox-slow"}}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [each.result() for each in [pool.submit(world.call, operation, **same) for _ in range(2)]]
    assert sorted(answer.status_code for answer in answers) == [200, 409]


def test_answers_of_ai_calls(described, spent, cut_off, spec):
    world = World(described, spec)
    world.unknown["id"] = "job_" + "0" * 22
    described.admin("ledger", "credit", "--account", "described", "--amount", "100")
    world.poor = described.admin("key", "create", "--account", "poor", "--surface", "inference")["key"]
    operations = spec.of_tag("AI calls")
    for suffix in ("", "V1"):
        use_calls(world, suffix)
    provoke_running_call(world, "completionCreate")
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        provoke_reused_key(world, operation, "completionCreate", body={"model": "gpt-4", "prompt": "another"})
        provoke_other_methods(world, operation)
    provoke_refusals(World(spent, spec), operations)
    down = World(cut_off, spec)
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["AI calls"])


# ---- OAuth 2.0 ----

def form_of(page):
    """What the page's form sends, but for what the user types."""
    return {attrs["name"]: attrs["value"] for tag, attrs in PageReader(page.text).elements
            if tag == "input" and attrs.get("type") == "hidden"}


def use_oauth(world):
    admin = world.gateway.admin
    client = admin("client", "create", "--account", "described", "--name", "Tests", "--redirect-uri", REDIRECT)
    admin("account", "create", "person", "--email", "person@example.com", env={"WAKEGATE_PASSWORD": PASSWORD})
    world.good["clientBasic"] = basic(client["client_id"], client["client_secret"])
    world.wrong["clientBasic"] = basic(client["client_id"], "wrong")
    world.objects["client_id"] = client["client_id"]
    flow = world.spec.document["components"]["securitySchemes"]["oauth"]["flows"]["authorizationCode"]
    assert set(world.do("oauthMetadata", 200)["scopes_supported"]) == set(flow["scopes"])
    person = {"email": "person@example.com", "password": PASSWORD}
    form = form_of(world.do("oauthAuthorize", 200))
    world.do("oauthAuthorizeAnswer", 403, body={**form, **person, "password": "wrong", "answer": "allow"})
    back = world.do("oauthAuthorizeAnswer", 303, body={**form, **person, "answer": "allow"})
    code = re.search(r"[?&]code=([^&]+)", back.headers["Location"])[1]
    world.do("oauthAuthorize", 303, params={"response_type": "token"})
    world.do("oauthAuthorize", 400, params={"client_id": "nobody"})
    world.do("oauthAuthorizeAnswer", 400, body={})
    exchange = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    tokens = world.do("oauthToken", 200, body=exchange)
    world.do("oauthIntrospect", 200, body={"token": tokens["refresh_token"]})
    use_tokens(world, client, tokens)


def use_tokens(world, client, tokens):
    as_json = {"Content-Type": "application/json"}
    inside = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    world.do("oauthToken", 200, {}, data=json.dumps({**inside, "grant_type": "refresh_token",
                                                     "refresh_token": tokens["refresh_token"]}), headers=as_json)
    own = world.do("oauthToken", 200)["access_token"]
    assert world.do("oauthIntrospect", 200, body={"token": own})["active"] is True
    world.do("oauthRevoke", 200, body={"token": own})
    assert world.do("oauthIntrospect", 200, {}, body={**inside, "token": own}) == {"active": False}
    for name in ("oauthToken", "oauthRevoke", "oauthIntrospect"):
        world.do(name, 400, body={})
        world.do(name, 400, data="{", headers=as_json)


def provoke_bad_forms(world, operation):
    form_type = {"Content-Type": "application/x-www-form-urlencoded"}
    if "415" in operation.told["responses"]:
        expect(world.call(operation, data="<a/>", headers={"Content-Type": "text/xml"}), 415)
    if "413" in operation.told["responses"]:
        expect(world.call(operation, data="a=" + "b" * BODY_MAX, headers=form_type), 413)


def test_answers_of_oauth(described, spent, cut_off, spec):
    world = World(described, spec)
    operations = spec.of_tag("OAuth 2.0")
    use_oauth(world)
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_forms(world, operation)
        provoke_other_methods(world, operation)
    refused = World(spent, spec)
    provoke_refusals(refused, operations)
    down = World(cut_off, spec)
    down.good["clientBasic"] = world.good["clientBasic"]
    ask = base64.urlsafe_b64encode(b"client_id=cli_0").decode().rstrip("=")
    down.objects.update({"client_id": world.objects["client_id"], "request": ask})
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["OAuth 2.0"])


# ---- the operator ----

def use_operator(world):
    """As an operator does; the description's examples name what there is."""
    def post(operation_id, status=200, /, **body):
        return world.do(operation_id, status, body=body)

    account = post("operatorAccountCreate", name="ACME", email="ops@example.com")
    assert account["password"]
    post("operatorAccountCreate", 409, name="ACME")
    post("operatorAccountPassword", account="ACME", password=PASSWORD)
    key = post("operatorKeyCreate", account=account["id"], surface="session", signing=True, allow_from="127.0.0.1",
               scopes="session:read", expires_in=3600)
    rotated = post("operatorKeyRotate", key=key["ref"], overlap=10)
    post("operatorKeyRevoke", key=rotated["id"])
    provoke_still_running(world, "operatorKeyCreate")
    client = post("operatorClientCreate", account="ACME", name="Tests", redirect_uri=REDIRECT)["client_id"]
    post("operatorClientRotate", client=client)
    post("operatorClientRevoke", client=client)
    post("operatorPlanSet", account="ACME", surface="inference", plan="pro")
    post("operatorPlanLimit", account="ACME", name="inference-minute", most=5000)
    assert any(limit["own"] for limit in world.do("operatorPlanShow", 200)["limits"])
    post("operatorPlanSpend", account="ACME", most="25.5")
    use_operators_money(world, post)
    post("operatorProviderSet", provider="local", kind="openai", base_url="http://127.0.0.1:9/v1", api_key="sk-test")
    post("operatorProviderSet", provider="local", enabled=False)
    assert world.do("operatorProviderList", 200)
    assert world.do("operatorProviderShow", 200)["kind"] == "sandbox"
    post("operatorModelSet", model="own-model", price_in="0.15", routes="sandbox")
    assert world.do("operatorModelList", 200)
    assert world.do("operatorModelShow", 200)["routes"]
    post("operatorModelDelete", model="own-model")
    post("operatorProviderDelete", provider="local")
    post("operatorBanAdd", account="ACME", reason="tests", **{"for": 60})
    assert world.do("operatorBanList", 200)[0]["banned_until"]
    post("operatorBanRemove", account="ACME")
    hook = world.gateway.make_webhook("ACME")
    assert world.do("operatorWebhookList", 200, params={"account": "ACME"})[0]["ref"] == hook
    assert world.do("operatorWebhookShow", 200, params={"webhook": hook})["pending"] == 0
    post("operatorWebhookDisable", webhook=hook)
    post("operatorWebhookEnable", webhook=hook)
    make_dead_jobs(world, 2)
    assert world.do("operatorJobsCounts", 200)
    dead = world.do("operatorJobsDead", 200)
    assert len(dead) == 2
    post("operatorJobsRedrive", job=dead[0]["id"])
    assert post("operatorJobsRedrive", kind=dead[1]["kind"])["redriven"] == 1
    for name in ("AccountList", "KeyList", "ClientList", "PlanList", "AuditList", "AccountShow"):
        assert world.do("operator" + name, 200)
    assert world.do("operatorKeyList", 200, params={"account": "ACME"})


def use_operators_money(world, post):
    post("operatorLedgerCredit", account="ACME", amount="500", ref="why")
    post("operatorLedgerCredit", 409, account="ACME", amount="500", ref="why")
    post("operatorLedgerDebit", account="ACME", amount=1.5, ref="why")
    post("operatorLedgerDebit", 409, account="ACME", amount=1.5, ref="why")
    post("operatorPlanSubscribe", account="ACME", plan="basic")
    post("operatorPlanSubscribe", 409, account="ACME", plan="basic")
    assert world.do("operatorLedgerShow", 200)["available"] == "449.5"
    assert len(world.do("operatorLedgerList", 200)) == 3
    assert world.do("operatorLedgerCheck", 200, params={"account": "ACME"})["sound"]
    world.objects["deposit"] = world.gateway.sql(
        "WITH a AS (SELECT id FROM account WHERE name = 'ACME'), m AS (SELECT ledger_move(id, 'deposit', 1, 'dep_described') FROM a) "
        "INSERT INTO deposit (id, account_id, driver, driver_ref, amount, currency, credited) "
        "SELECT 'dep_described', id, 'sandbox', 'x', 1, 'USD', 1 FROM a, m RETURNING id")[0][0]
    post("operatorLedgerRefund", deposit=world.objects["deposit"], amount="0.25")


def provoke_what_is_not(world, operation):
    """A parameter or member of a name that there is not; an account, key, client or job that there is not."""
    nobody = {"account": "nobody@example.com", "key": "key_0", "client": "cli_0", "job": 0, "deposit": "dep_0", "webhook": "we_0",
              "provider": "nobody", "model": "nobody"}
    if operation.method == "GET":
        expect(world.call(operation, params={"unknown": "1"}), 400)
        if "404" in operation.told["responses"]:
            named = {row["name"] for row in operation.parameters if row.get("required")} & set(nobody)
            expect(world.call(operation, params={name: nobody[name] for name in named or {"account"}}), 404)
        return
    expect(world.call(operation, body={**operation.example, "unknown": 1}), 400)
    if "404" in operation.told["responses"]:
        body = {**operation.example, **{name: value for name, value in nobody.items() if name in operation.example}}
        expect(world.call(operation, body={"job": 0} if operation.id == "operatorJobsRedrive" else body), 404)


def make_dead_jobs(world, count):
    for _ in range(count):
        world.gateway.sql("INSERT INTO job (kind, queue, tenant, state, run_at, ring_at) "
                          "VALUES ('ping', 'ping', '1', 'dead', now(), now())")


def spend_a_minute(gateway, path, requests_each):
    """So many requests at once, without credentials: they are charged to the address."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as line:
        answers = line.makefile("rb")
        for _ in range(0, requests_each, 100):
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 100)
            left = 100
            while left:
                left -= answers.readline().startswith(b"HTTP/1.1")


def test_answers_of_the_operator_api(described, spent, cut_off, spec):
    world = World(described, spec)
    world.objects["account"] = "ACME"
    operations = spec.of_tag("Operator")
    use_operator(world)
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        provoke_what_is_not(world, operation)
        provoke_reused_key(world, operation, "operatorPlanSet",
                           body={"account": "ACME", "surface": "gpu", "plan": "pro"})
        provoke_other_methods(world, operation)
    refused = World(spent, spec)
    provoke_refusals(refused, operations, lambda: spend_a_minute(spent, "/admin/v1/plan/list", 6000))
    down = World(cut_off, spec)
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["Operator"])


# ---- webhooks ----

def use_webhooks(world, suffix):
    hook = world.do("webhookCreate" + suffix, 201)
    assert hook["secret"].startswith("whsec_")
    world.objects["id"] = hook["id"]
    world.do("webhookCreate" + suffix, 201)
    assert world.do("webhookList" + suffix, 200, params={"limit": 1})["next_cursor"]
    world.do("webhookShow" + suffix, 200)
    world.do("webhookUpdate" + suffix, 200)
    assert world.do("webhookRotateSecret" + suffix, 200)["old_secret_until"]
    world.objects["delivery"] = world.do("webhookTest" + suffix, 202)["id"]
    wait_until(lambda: world.do("webhookDelivery" + suffix, 200)["attempts"], 30, "an attempt is logged")
    world.do("webhookTest" + suffix, 202)
    assert world.do("webhookDeliveries" + suffix, 200, params={"limit": 1, "status": "pending"})["next_cursor"]
    world.do("webhookReplayOne" + suffix, 202)
    assert world.do("webhookReplay" + suffix, 202)["replayed"] >= 2  # and the account's events since
    world.do("webhookUpdate" + suffix, 200, body={"enabled": False})
    for name in ("webhookTest", "webhookReplayOne", "webhookReplay"):
        world.do(name + suffix, 409)
    world.do("webhookUpdate" + suffix, 200, body={"enabled": True})


def test_answers_of_webhooks(described, spent, cut_off, spec):
    world = World(described, spec)
    operations = spec.of_tag("Webhooks")
    for suffix in ("", "V1", "Gpu"):
        use_webhooks(world, suffix)
    for name in ("webhookCreate", "webhookCreateGpu"):
        provoke_still_running(world, name)
    for operation in operations:
        provoke_credentials(world, operation)
        provoke_bad_requests(world, operation)
        suffix = "Gpu" if operation.path.startswith("/api/webhooks") else ""
        provoke_reused_key(world, operation, "webhookCreate" + suffix,
                           body={"url": "https://example.com/", "events": ["billing.*"]})
        provoke_other_methods(world, operation)
    for suffix in ("", "V1", "Gpu"):
        world.objects["id"] = world.do("webhookCreate" + suffix, 201)["id"]
        world.do("webhookDelete" + suffix, 200)
    refused = World(spent, spec)
    provoke_refusals(refused, operations)
    down = World(cut_off, spec)
    down.objects.update({"id": world.objects["id"], "delivery": world.objects["delivery"]})
    cut_off.stores.postgres.stop()
    provoke_outage(down, operations)
    check_all_were_seen(spec, ["Webhooks"])
