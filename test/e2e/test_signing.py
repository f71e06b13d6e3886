"""Signed requests: HMAC-SHA256 over method, target, timestamp and the body's digest, by the key's signing secret."""

import hashlib
import hmac
import time

import pytest
import requests


class Signer:
    """A key that signs; each part of what it sends can be made wrong."""

    def __init__(self, gateway, must_sign):
        made = gateway.admin("key", "create", "--account", f"signer-{must_sign}", "--surface", "session", "--signing",
                             *(["--require-signature"] if must_sign else []))
        self.url = gateway.url
        self.key = made["key"]
        self.secret = made["signing_secret"]

    def sign(self, method, target, timestamp, body, secret=None):
        text = "\n".join((method, target, timestamp, hashlib.sha256(body).hexdigest()))
        return "v1=" + hmac.new((secret or self.secret).encode(), text.encode(), hashlib.sha256).hexdigest()

    def send(self, method="POST", target="/session/create", body=b'{"user_id":"ada"}', age_s=0, signature=None,
             secret=None, signed=None, headers=None, unsigned=False):
        timestamp = str(int(time.time()) - age_s)
        parts = {"method": method, "target": target, "timestamp": timestamp, "body": body, **(signed or {})}
        fields = {"X-API-Key": self.key, "Content-Type": "application/json"}
        if not unsigned:
            fields["X-Wakegate-Timestamp"] = timestamp
            fields["X-Wakegate-Signature"] = (self.sign(**parts, secret=secret)
                                              if signature is None else signature)
        return requests.request(method, self.url + target, data=body, headers={**fields, **(headers or {})}, timeout=30)


@pytest.fixture(scope="module")
def signer(gateway):
    return Signer(gateway, must_sign=True)


@pytest.fixture(scope="module")
def may_sign(gateway):
    return Signer(gateway, must_sign=False)


def test_what_is_signed_is_done(signer):
    assert signer.send().status_code == 201
    assert signer.send("GET", "/session?limit=1&user_id=ada", body=b"").status_code == 200


def test_a_key_that_demands_it_refuses_what_is_not_signed(signer):
    answer = signer.send(unsigned=True)
    assert (answer.status_code, answer.json()) == (401, {"error": "This key's requests must be signed"})


@pytest.mark.parametrize("change", [
    {"signed": {"method": "PUT"}},
    {"signed": {"target": "/session/creat"}},
    {"signed": {"target": "/session/create?x=1"}},
    {"signed": {"body": b'{"user_id":"eve"}'}},
    {"signed": {"body": b""}},
    {"signed": {"timestamp": "1700000000"}},
    {"secret": "wgss_" + "0" * 49},
    {"signature": "v1=" + "0" * 64},
    {"signature": "v1="},
    {"signature": "v2=" + "0" * 64},
    {"signature": ""},
    {"age_s": 302},
    {"age_s": -302},
    {"headers": {"X-Wakegate-Timestamp": "now"}},
    {"headers": {"X-Wakegate-Timestamp": ""}},
    {"headers": {"X-Wakegate-Timestamp": "9" * 40}},
    {"headers": {"X-Wakegate-Timestamp": str(-2 ** 63)}},
    {"headers": {"X-Wakegate-Timestamp": str(2 ** 63 - 1)}},
], ids=lambda change: "-".join(f"{name}={str(value)[:30]}" for name, value in change.items()))
def test_whatever_was_changed_is_refused(signer, may_sign, change):
    for sender in (signer, may_sign):
        answer = sender.send(**change)
        assert (answer.status_code, answer.json()) == (401, {"error": "The request's signature does not fit"})


def test_an_upper_case_signature_is_another(signer):
    timestamp = str(int(time.time()))
    body = b'{"user_id":"ada"}'
    signature = signer.sign("POST", "/session/create", timestamp, body)
    answer = signer.send(signature="v1=" + signature[3:].upper())
    assert answer.status_code == 401 or signature[3:].isdigit()


def test_five_minutes_either_way_are_allowed(signer):
    assert signer.send(age_s=295).status_code == 201
    assert signer.send(age_s=-295).status_code == 201


def test_signing_is_a_clients_choice_where_the_key_does_not_demand_it(may_sign):
    assert may_sign.send().status_code == 201
    assert may_sign.send(unsigned=True).status_code == 201


def test_a_key_without_a_secret_can_sign_nothing(gateway, signer):
    answer = requests.post(gateway.url + "/session/create", json={"user_id": "ada"}, timeout=30, headers={
        "X-API-Key": gateway.key("plain"), "X-Wakegate-Timestamp": str(int(time.time())),
        "X-Wakegate-Signature": "v1=" + "0" * 64})
    assert answer.status_code == 401


def test_one_keys_secret_does_not_sign_for_another(signer, may_sign):
    assert signer.send(secret=may_sign.secret).status_code == 401
