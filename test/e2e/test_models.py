"""Models and providers: as clients list them, and as operators change them while everything runs."""

import pytest

from accounts import Account, error_of
from stores import wait_until
from wakegate import run

SEED_MEMBERS = {"id", "object", "created", "owned_by", "permission", "root", "parent"}


@pytest.fixture
def account(gateway):
    return Account(gateway)


def ids(account):
    return {model["id"] for model in account.call("GET", "/v1/models").json()["data"]}


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
def test_models_have_the_shape_of_the_seed(account, prefix):
    answer = account.call("GET", prefix + "/models")
    assert answer.status_code == 200 and answer.json()["object"] == "list"
    models = {model["id"]: model for model in answer.json()["data"]}
    for model in models.values():
        assert set(model) == SEED_MEMBERS and model["object"] == "model" and model["permission"] == ["query"]
        assert model["root"] == model["id"] and model["parent"] is None and isinstance(model["created"], int)
    assert models["gpt-4"]["owned_by"] == "openai" and "sandbox" in models
    assert account.call("GET", prefix + "/models/gpt-4").json() == models["gpt-4"]
    error_of(account.call("GET", prefix + "/models/gpt-5000"), 404, "model_not_available", "model")


def test_a_key_needs_the_scope(account):
    key = account.make_key(scopes=["account:read"])["key"]
    error_of(account.call("GET", "/v1/models", key), 403, "insufficient_scope")


def test_an_operators_change_is_in_force_soon(gateway, account):
    made = gateway.operator("provider", "set", {"provider": "local", "kind": "openai", "api_key": "sk-local-secret",
                                                "base_url": "http://127.0.0.1:9/v1"})
    assert made.status_code == 200 and made.json()["has_key"] is True and "sk-local" not in made.text
    model = gateway.operator("model", "set", {"model": "team/own", "routes": "local=llama sandbox", "price_in": "0.15",
                                              "price_out": "0.6"}).json()
    assert model["routes"] == ["local=llama", "sandbox=team/own"] and model["price_in"] == "0.15"
    wait_until(lambda: "team/own" in ids(account), 5, "the model is served")
    for spelled in ("team%2Fown", "team/own"):  # some SDKs leave the slash as it is
        assert account.call("GET", f"/v1/models/{spelled}").json()["owned_by"] == "operator"
    for other in ("team/", "team", "team//own", "team/own/er", "/team/own", "a/b/c/d/e/f/g/h/i"):
        assert account.call("GET", f"/v1/models/{other}").status_code == 404
    changed = gateway.operator("model", "set", {"model": "team/own", "price_out": "0.7"}).json()
    assert changed["price_in"] == "0.15" and changed["price_out"] == "0.7" and len(changed["routes"]) == 2
    gateway.operator("model", "set", {"model": "team/own", "enabled": False})
    wait_until(lambda: "team/own" not in ids(account), 5, "the model is hidden")
    actions = {record["action"] for record in gateway.operator("audit", "list").json()}
    assert {"provider.set", "model.set"} <= actions
    assert gateway.operator("model", "delete", {"model": "team/own"}).status_code == 200
    assert gateway.operator("provider", "delete", {"provider": "local"}).status_code == 200
    assert gateway.operator("provider", "delete", {"provider": "local"}).status_code == 404


def test_a_known_model_goes_to_its_maker_or_where_an_operator_says(gateway, account):
    """A provider that speaks OpenAI's API is not OpenAI: it gets the models that are routed to it, and no others."""
    show = lambda: gateway.operator("model", "show", {"model": "gpt-4"}).json()
    assert show()["routes"] == ["sandbox=gpt-4"] and show()["routed_by"] == "program"
    gateway.operator("provider", "set", {"provider": "a-local", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"})
    try:
        wait_until(lambda: "gpt-4" not in ids(account), 5, "nobody serves it")
        error_of(account.call("POST", "/v1/completions", json={"model": "gpt-4", "prompt": "x"}), 404, "model_not_available", "model")
        assert show()["routes"] == [] and show()["routed_by"] is None
        assert "gpt-4" in [row["id"] for row in gateway.operator("model", "list").json()]
        shown = gateway.operator("model", "set", {"model": "gpt-4", "routes": "a-local=gpt-4-like"}).json()
        assert shown["routes"] == ["a-local=gpt-4-like"] and shown["routed_by"] == "operator"
        wait_until(lambda: "gpt-4" in ids(account), 5, "it is served again")
    finally:
        gateway.operator("model", "delete", {"model": "gpt-4"})
        gateway.operator("provider", "delete", {"provider": "a-local"})


@pytest.mark.parametrize("noun, arguments", [
    ("provider", {"provider": "Upper", "base_url": "http://127.0.0.1/v1"}),
    ("provider", {"provider": "a" * 32, "base_url": "http://127.0.0.1/v1"}),
    ("provider", {"provider": "p"}),
    ("provider", {"provider": "p", "kind": "other", "base_url": "http://127.0.0.1/v1"}),
    ("provider", {"provider": "p", "base_url": "ftp://127.0.0.1/"}),
    ("provider", {"provider": "p", "base_url": "http://user:word@127.0.0.1/"}),
    ("provider", {"provider": "p", "base_url": "http://127.0.0.1/?a=b"}),
    ("provider", {"provider": "p", "base_url": "http://127.0.0.1/\n"}),
    ("provider", {"provider": "p", "base_url": "http://api.example.com/v1"}),
    ("provider", {"provider": "p", "base_url": "http://8.8.8.8/v1"}),
    ("provider", {"provider": "cache", "base_url": "http://127.0.0.1/v1"}),
    ("provider", {"provider": "openai", "kind": "sandbox"}),
    ("provider", {"provider": "p", "base_url": "http://127.0.0.1/", "max_in_flight": 0}),
    ("provider", {"provider": "p", "base_url": "http://127.0.0.1/", "api_key": "a b"}),
    ("provider", {"provider": "p", "kind": "sandbox", "fail_status": 200}),
    ("model", {"model": "m"}),
    ("model", {"model": "m", "routes": "nowhere"}),
    ("model", {"model": "m m", "routes": "sandbox"}),
    ("model", {"model": "m", "routes": "sandbox", "price_in": "1e3"}),
    ("model", {"model": "m", "routes": "sandbox", "price_in": "-1"}),
    ("model", {"model": "m", "routes": "sandbox", "cache_percent": 101}),
])
def test_what_makes_no_sense_is_refused(gateway, noun, arguments):
    answer = gateway.operator(noun, "set", arguments)
    assert answer.status_code == 400, answer.text


def test_a_key_comes_from_the_environment_and_is_sealed(gateway):
    gateway.admin("provider", "set", "sealed", "--base-url", "http://127.0.0.1:9/v1",
                  env={"WAKEGATE_PROVIDER_KEY": "sk-very-secret-key"})
    assert b"sk-very-secret-key" not in gateway.stores.postgres.dump(gateway.database)
    done = run("admin", "provider", "set", "sealed", "--api-key", "sk-x", "--env-file", gateway.env_file)
    assert done.returncode == 2
    assert {"name": "sealed", "has_key": True}.items() <= next(
        row for row in gateway.admin("provider", "list") if row["name"] == "sealed").items()
    gateway.admin("provider", "delete", "sealed")


def test_a_setting_of_what_the_program_brings_along_changes_nothing_else_of_it(gateway, account):
    changed = gateway.operator("provider", "set", {"provider": "sandbox", "delay_ms": 1}).json()
    assert changed["kind"] == "sandbox" and changed["delay_ms"] == 1 and changed["stall_after"] == -1
    gateway.operator("provider", "delete", {"provider": "sandbox"})
    assert gateway.operator("provider", "show", {"provider": "sandbox"}).json()["delay_ms"] == 0
    changed = gateway.operator("provider", "set", {"provider": "anthropic", "max_in_flight": 3}).json()
    assert changed["kind"] == "anthropic" and changed["base_url"] == "https://api.anthropic.com"
    gateway.operator("provider", "delete", {"provider": "anthropic"})
    changed = gateway.operator("model", "set", {"model": "gpt-4", "price_in": "1"}).json()
    assert changed["owned_by"] == "openai" and changed["price_in"] == "1.0"
    gateway.operator("model", "delete", {"model": "gpt-4"})


def test_what_was_disabled_is_shown_and_can_be_enabled_again(gateway):
    names = lambda noun, key: [row[key] for row in gateway.operator(noun, "list").json()]
    gateway.operator("provider", "set", {"provider": "off", "base_url": "https://api.example.com/v1/", "max_in_flight": 7})
    gateway.operator("provider", "set", {"provider": "off", "enabled": False})
    gateway.operator("model", "set", {"model": "off", "routes": "off=theirs"})
    gateway.operator("model", "set", {"model": "off", "enabled": False})
    shown = gateway.operator("provider", "show", {"provider": "off"}).json()
    assert shown["enabled"] is False and shown["max_in_flight"] == 7 and "off" in names("provider", "name")
    assert gateway.operator("model", "show", {"model": "off"}).json()["enabled"] is False and "off" in names("model", "id")
    shown = gateway.operator("provider", "set", {"provider": "off", "enabled": True})
    assert shown.status_code == 200 and shown.json()["base_url"] == "https://api.example.com/v1"
    shown = gateway.operator("model", "set", {"model": "off", "enabled": True})
    assert shown.status_code == 200 and shown.json()["enabled"] and shown.json()["routes"] == ["off=theirs"]
    for noun in "model", "provider":
        assert gateway.operator(noun, "delete", {noun: "off"}).status_code == 200
        assert gateway.operator(noun, "show", {noun: "off"}).status_code == 404


def test_a_bad_url_in_the_settings_stops_the_start(gateway):
    for name in "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL":
        for url in "ftp://127.0.0.1", "http://api.example.com/v1", "https://user:word@host/":
            done = run("serve", "--env-file", gateway.env_file, env={name: url})
            assert done.returncode != 0 and name in done.stderr and "word" not in done.stderr, done
            assert len(done.stderr.splitlines()) == 1
