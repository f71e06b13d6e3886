"""The inference surface's accounts over python-requests."""

import itertools
import threading

import requests

# Rates that no test reaches unless it means to.
SETTINGS = {
    "LOGIN_RATE_PER_MINUTE": "1000000",
    "REGISTER_RATE_PER_HOUR": "1000000",
    "ADDRESS_RATE_PER_MINUTE": "1000000",
}
PASSWORD = "correct horse battery staple"
numbers = itertools.count()
local = threading.local()


def call(gateway, method, path, token=None, url=None, fresh=False, **options):
    """One request; on a connection of its own when `fresh`, so that any reactor may have it."""
    if fresh or not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.trust_env = False
    headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **options.pop("headers", {})}
    answer = local.session.request(method, (url or gateway.url) + path, headers=headers, timeout=60, **options)
    if fresh:
        local.session.close()
        del local.session
    return answer


def error_of(answer, status, code, param=None):
    """Checks an error's body as the SDKs for OpenAI's API read it; returns its message."""
    assert answer.status_code == status, answer.text
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "code", "param"}
    assert error["code"] == code and error["param"] == param
    assert error["type"] == kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return error["message"]


class Account:
    """A new account, with a plan that no test exhausts."""

    def __init__(self, gateway, plan="enterprise", **body):
        self.gateway = gateway
        self.email = f"user-{next(numbers)}-{id(gateway)}@example.com"
        self.password = PASSWORD
        answer = call(gateway, "POST", "/api/auth/register",
                      json={"email": self.email, "organization": "ACME Corp", "password": PASSWORD, **body})
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]
        self.key = answer.json()["api_key"]
        self.key_id = answer.json()["key_id"]
        if plan:
            gateway.sql("INSERT INTO account_plan (account_id, surface, plan) SELECT id, 'inference', %s FROM account "
                        "WHERE ref = %s", plan, self.id)

    def call(self, method, path, token=None, **options):
        return call(self.gateway, method, path, token or self.key, **options)

    def login(self, password=None, **options):
        return call(self.gateway, "POST", "/api/auth/login",
                    json={"email": self.email, "password": password or self.password}, **options)

    def logged_in(self):
        answer = self.login()
        assert answer.status_code == 200, answer.text
        return answer.json()

    def make_key(self, token=None, **body):
        answer = self.call("POST", "/api/v1/api-keys", token, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def status(self, token=None, **options):
        """Of a request that any key with account:read may make."""
        return self.call("GET", "/api/v1/account", token, **options).status_code


def refresh(gateway, token, **options):
    return call(gateway, "POST", "/api/auth/refresh", json={"refresh_token": token}, **options)
