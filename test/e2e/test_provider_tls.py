"""Providers whose certificate a private authority has signed: trusted by the provider that names it, and by no other."""

import pytest

import ai
import upstream as upstreams
from ai import CHATS, payer
from certificates import Authority, key_pem, make_key
from fixtures import run_gateway
from stores import wait_until
from wakegate import run


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("authority")))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("stranger")))


@pytest.fixture(scope="module")
def upstream(authority):
    server = upstreams.Upstream(authority.issue("localhost"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, ai.SETTINGS)


def pem(authority):
    with open(authority.path, encoding="ascii") as file:
        return file.read()


def ask(account, model):
    return account.call("POST", CHATS, json={"model": model, "max_tokens": 64,
                                             "messages": [{"role": "user", "content": "hello"}]})


def use(gateway, upstream, name, **options):
    return upstreams.use(gateway, upstream, name, ["fine"], **options)


def test_a_private_authority_is_trusted_by_its_provider_alone(gateway, upstream, authority, stranger):
    account = payer(gateway)
    trusting = use(gateway, upstream, "trusting", ca=pem(authority))
    assert ask(account, trusting).status_code == 200
    for name, options in (("by-system", {}), ("by-stranger", {"ca": pem(stranger)})):
        before = len(upstream.calls)
        model = use(gateway, upstream, name, **options)
        answer = ask(account, model)
        assert answer.status_code == 502 and answer.json()["error"]["code"] == "provider_unavailable", answer.text
        assert len(upstream.calls) == before, "a request, and its key, went to a server that was not trusted"
    assert ask(account, trusting).status_code == 200


def test_whom_a_provider_trusts_is_changed_while_all_runs(gateway, upstream, authority):
    account = payer(gateway)
    model = use(gateway, upstream, "changing", ca=pem(authority))
    assert ask(account, model).status_code == 200
    shown = gateway.operator("provider", "set", {"provider": "changing-0", "max_in_flight": 5}).json()
    assert shown["has_ca"] is True, "what is not given stays as it is"
    shown = gateway.operator("provider", "set", {"provider": "changing-0", "ca": "system"}).json()
    assert shown["has_ca"] is False
    wait_until(lambda: ask(account, model).status_code in (502, 503), 5, "the authority is trusted no more")
    shown = gateway.admin("provider", "set", "changing-0", "--ca", authority.path)
    assert shown["has_ca"] is True
    wait_until(lambda: ask(account, model).status_code == 200, 20, "it is trusted again")


def test_what_is_no_certificate_is_refused_where_it_is_set(gateway, authority):
    key = key_pem(make_key()).decode()
    for bad in ("no PEM", key, pem(authority) + key, pem(authority)[:200],
                pem(authority).replace("\n", "\n!", 3), pem(authority) + "-----BEGIN CERTIFICATE-----\n"):
        answer = gateway.operator("provider", "set", {"provider": "wrong", "base_url": "https://localhost/v1", "ca": bad})
        assert answer.status_code == 400 and answer.json()["error"]["message"].startswith("ca"), answer.text
        assert "PRIVATE" not in answer.text
    done = run("admin", "provider", "set", "wrong", "--base-url", "https://localhost/v1", "--ca", authority.path + ".no",
               "--env-file", gateway.env_file)
    assert done.returncode == 2 and "can't be read" in done.stderr
