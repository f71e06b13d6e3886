"""No secret in clear at rest: the database's dump, all that is in Redis, and the logs know none of those that were given out."""

import base64
import re
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from fixtures import run_gateway

ADMIN_TOKEN = "an-operators-token-that-only-tests-know-0123456789"
JWT_SECRET = "a-secret-of-login-tokens-that-only-tests-know-0123456789"
PASSWORD = "correct horse battery staple 7"
SETTINGS_KEY = "sk-a-key-of-a-provider-that-the-settings-name"
ROW_KEY = "sk-a-key-of-a-provider-that-is-a-row"
CALLBACK = "https://client.example/callback"


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, {"ADMIN_TOKEN": ADMIN_TOKEN, "JWT_SECRET": JWT_SECRET,
                                     "OPENAI_API_KEY": SETTINGS_KEY})


class Secrets:
    """Every secret that clients are shown, by what it is."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.found = {"password": PASSWORD, "admin token": ADMIN_TOKEN, "JWT secret": JWT_SECRET}

    def post(self, path, body, **options):
        answer = requests.post(self.gateway.url + path, json=body, timeout=30, **options)
        assert answer.status_code in (200, 201), (path, answer.text)
        return answer.json()

    def keep(self, name, value):
        assert value and len(value) >= 12, name
        self.found[name] = value
        return value


def accounts_and_keys(secrets):
    made = secrets.post("/api/auth/register", {"email": "made@example.com", "organization": "x"},
                        headers={"Idempotency-Key": "register-once"})
    secrets.keep("made password", made["password"])
    key = secrets.keep("inference key", made["api_key"])
    secrets.post("/api/auth/register", {"email": "chosen@example.com", "organization": "x", "password": PASSWORD})
    login = secrets.post("/api/auth/login", {"email": "chosen@example.com", "password": PASSWORD})
    secrets.keep("login's key", login["api_key"])
    secrets.keep("login's token", login["token"])
    secrets.keep("refresh token", login["refresh_token"])
    again = secrets.post("/api/auth/refresh", {"refresh_token": login["refresh_token"]})
    secrets.keep("second refresh token", again["refresh_token"])
    signing = secrets.post("/api/v1/api-keys", {"name": "signs", "signing": True},
                           headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "key-once"})
    secrets.keep("signing key", signing["key"])
    webhooks(secrets, key)
    ticket = secrets.post("/v1/stream/ticket", {}, headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "ticket-once"})
    secrets.keep("ticket", ticket["ticket"])
    secrets.keep("signing secret", signing["signing_secret"])


def webhooks(secrets, key):
    who = {"Authorization": f"Bearer {key}"}
    made = secrets.post("/api/v1/webhooks", {"url": "https://example.com/", "events": ["*"]},
                        headers={**who, "Idempotency-Key": "webhook-once"})
    secrets.keep("made webhook secret", made["secret"])
    rotated = secrets.post(f"/api/v1/webhooks/{made['id']}/rotate-secret", {"secret": "a-webhook-secret-of-ones-own",
                                                                          "overlap_seconds": 3600}, headers=who)
    secrets.keep("chosen webhook secret", rotated["secret"])


def session_key(secrets):
    made = secrets.gateway.admin("key", "create", "--account", "sessions", "--surface", "session")
    key = secrets.keep("session key", made["key"])
    secrets.post("/session/create", {"user_id": "ada"}, headers={"X-API-Key": key, "Idempotency-Key": "create-once"})
    secrets.gateway.keys["sessions"] = key


def oauth(secrets):
    url = secrets.gateway.url
    client = secrets.gateway.admin("client", "create", "--account", "sessions", "--name", "A client", "--redirect-uri",
                                   CALLBACK)
    secret = secrets.keep("client secret", client["client_secret"])
    session = requests.Session()
    page = session.get(f"{url}/oauth/authorize", timeout=30, params={
        "response_type": "code", "client_id": client["client_id"], "redirect_uri": CALLBACK, "state": "s"})
    assert page.status_code == 200, page.text
    fields = dict(re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page.text))
    fields = {name: value.replace("&amp;", "&") for name, value in fields.items()}
    done = session.post(f"{url}/oauth/authorize", timeout=30, allow_redirects=False, data={
        **fields, "email": "chosen@example.com", "password": PASSWORD, "answer": "allow"})
    assert done.status_code in (302, 303), done.text
    code = secrets.keep("code", parse_qs(urlsplit(done.headers["Location"]).query)["code"][0])
    for cookie in session.cookies:
        secrets.keep(f"cookie {cookie.name}", cookie.value)
    tokens = secrets.post("/oauth/token", {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
                                           "client_id": client["client_id"], "client_secret": secret})
    secrets.keep("access token", tokens["access_token"])
    secrets.keep("OAuth refresh token", tokens["refresh_token"])


def providers(secrets):
    """What an operator is answered has no key in it, either."""
    key = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    secrets.keep("settings' provider's key", SETTINGS_KEY)
    secrets.keep("row's provider's key", ROW_KEY)
    secrets.post("/admin/v1/provider/set", {"provider": "row", "base_url": "http://127.0.0.1:9", "api_key": ROW_KEY},
                 headers={**key, "Idempotency-Key": "provider-once"})
    listed = requests.get(secrets.gateway.url + "/admin/v1/provider/list", headers=key, timeout=30)
    assert {"openai", "row"} <= {row["name"] for row in listed.json() if row["has_key"]}
    assert SETTINGS_KEY not in listed.text and ROW_KEY not in listed.text


def everything_in_redis(client):
    for key in client.scan_iter(count=1000):
        yield key
        kind = client.type(key)
        if kind == b"string":
            yield client.get(key)
        elif kind == b"hash":
            yield from (part for pair in client.hgetall(key).items() for part in pair)
        elif kind == b"zset":
            yield from client.zrange(key, 0, -1)
        elif kind == b"list":
            yield from client.lrange(key, 0, -1)
        elif kind == b"set":
            yield from client.smembers(key)
        elif kind == b"stream":
            yield repr(client.xrange(key)).encode()
        else:
            raise AssertionError(f"{key} is a {kind}, which this test does not look into")


def spellings(secret):
    """As it is, in base64 and in hexadecimal."""
    plain = secret.encode()
    yield plain
    yield base64.b64encode(plain).rstrip(b"=")[:-1]
    yield base64.urlsafe_b64encode(plain).rstrip(b"=")[:-1]
    yield plain.hex().encode()


def test_no_secret_is_kept_in_clear(gateway):
    secrets = Secrets(gateway)
    accounts_and_keys(secrets)
    session_key(secrets)
    oauth(secrets)
    providers(secrets)
    assert len(secrets.found) >= 19
    dump = gateway.stores.postgres.dump(gateway.database)
    assert b"made@example.com" in dump and b"COPY public.api_key" in dump  # it is the dump of what was done
    redis = b"\n".join(everything_in_redis(gateway.stores.redis.client(gateway.redis_database)))
    assert b"limit:" in redis
    logs = "".join(part.log() for part in gateway.parts).encode()
    for name, secret in secrets.found.items():
        for spelling in spellings(secret):
            assert spelling not in dump, f"the database has the {name}"
            assert spelling not in redis, f"Redis has the {name}"
            assert spelling not in logs, f"the log has the {name}"
            if secret.count(".") == 2:  # a JWT: its signature is what is secret
                assert secret.split(".")[2].encode() not in dump + redis + logs, f"the {name}'s signature is kept"
