"""Another tenant's object is as one that never existed: two tenants, every route that takes an id."""

import re
import time

import pytest
import requests

from wakegate import run

# What a request to a route needs beside the id, so that only the id can be what is wrong with it.
BODIES = {
    "/session/{uuid}/chat": {"message": "hello"},
    "/api/v1/api-keys/{id}/rotate": {},
    "/v1/api-keys/{id}/rotate": {},
}
# No tenant's: the tests' own, those that are passed on to a pod, the operator's.
NOT_TENANTS = {"test", "workspace", "ops", "operator"}
MADE_UP = {"session": "a" + "b" * 15, "key": "key_" + "a" * 22, "job": "job_" + "a" * 22,
           "webhook": "we_" + "a" * 22, "delivery": "dlv_999999999"}
# In a path: of what its id is. The first that fits; none of them: a key.
KINDS = {"/session/": "session", "/jobs/": "job", "/webhooks/deliveries/": "delivery", "/webhooks/{id}": "webhook"}


def routes():
    """(surface, method, path) of each route that has a parameter."""
    for line in run("routes").stdout.splitlines():
        surface, method, path = line.split()[:3]
        if "{" in path and surface not in NOT_TENANTS:
            yield surface, method, path


ROUTES = sorted(route for route in routes() if "/models/" not in route[2])  # those are everybody's


def kind_of(path):
    """Of what the route's id is."""
    return next((kind for part, kind in KINDS.items() if part in path), "key")


class Tenant:
    """An account with a key of each surface and an object of each kind."""

    def __init__(self, gateway, name):
        self.url = gateway.url
        self.keys = {surface: gateway.admin("key", "create", "--account", name, "--surface", surface)["key"]
                     for surface in ("session", "inference", "gpu")}
        for surface in ("inference", "gpu"):
            gateway.admin("plan", "set", "--account", name, "--surface", surface, "--plan", "enterprise")
        time.sleep(1)  # what a reactor knows of a plan it believes for 0.9 s
        gateway.admin("ledger", "credit", "--account", name, "--amount", "10")
        self.ids = {"session": self.call("session", "POST", "/session/create", {"user_id": name}).json()["uuid"],
                    "key": self.call("inference", "POST", "/api/v1/api-keys", {"name": name}).json()["id"],
                    "job": self.call("inference", "POST", "/v1/completions", {"model": "gpt-4", "prompt": "hi"}).json()["id"]}
        hook = {"url": "https://example.com/hook", "events": ["*"]}
        self.ids["webhook"] = self.call("gpu", "POST", "/api/webhooks", hook).json()["id"]
        self.ids["delivery"] = self.call("gpu", "POST", f"/api/webhooks/{self.ids['webhook']}/test").json()["id"]

    def call(self, surface, method, path, body=None):
        headers = ({"X-API-Key": self.keys[surface]} if surface == "session"
                   else {"Authorization": f"Bearer {self.keys[surface]}"})
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def tenants(gateway):
    return Tenant(gateway, "tenant-a"), Tenant(gateway, "tenant-b")


def test_there_are_routes_to_look_at():
    assert {surface for surface, _, _ in ROUTES} >= {"session", "inference"}
    assert len(ROUTES) >= 8


@pytest.mark.parametrize("surface,method,path", ROUTES, ids=[f"{method} {path}" for _, method, path in ROUTES])
def test_anothers_object_answers_as_one_that_never_was(tenants, surface, method, path):
    owner, other = tenants
    kind = kind_of(path)
    body = BODIES.get(path, {} if method in ("POST", "PATCH") else None)
    query = "?since=0" if path.endswith("/webhooks/{id}/replay") else ""

    def ask(tenant, object_id):
        return tenant.call(surface, method, re.sub(r"\{\w+\}", object_id, path) + query, body)

    anothers = ask(other, owner.ids[kind])
    never = ask(other, MADE_UP[kind])
    assert (anothers.status_code, never.status_code) == (404, 404), (anothers.text, never.text)
    assert anothers.text == never.text
    fields = set(anothers.headers) - {"Date", "X-Request-Id"}
    assert fields == set(never.headers) - {"Date", "X-Request-Id"}
    # And it is there, untouched, for its owner.
    if kind == "job":
        assert owner.call("inference", "GET", f"/v1/jobs/{owner.ids['job']}").json()["status"] == "completed"
    elif kind in ("webhook", "delivery"):
        hook = owner.call("gpu", "GET", f"/api/webhooks/{owner.ids['webhook']}")
        assert hook.status_code == 200 and hook.json()["enabled"] and hook.json()["old_secret_until"] is None
        assert owner.call("gpu", "GET", f"/api/webhooks/deliveries/{owner.ids['delivery']}").status_code == 200
    elif kind == "session":
        assert owner.call("session", "GET", f"/session/{owner.ids['session']}/status").status_code == 200
    else:
        answer = owner.call("inference", "GET", f"/api/v1/api-keys/{owner.ids['key']}")
        assert answer.status_code == 200 and answer.json()["revoked_at"] is None
