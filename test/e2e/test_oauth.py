"""The OAuth 2.0 server: a client that we did not write, the seed's own lines, and a hostile one."""

import base64
import concurrent.futures
import hashlib
import html.parser
import http.client
import json
import os
import secrets
import subprocess
import urllib.parse

import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session

from fixtures import run_gateway

BACK = "https://app.example/back?from=wakegate"
PASSWORD = "correct horse battery"
SEED_CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oauth_client.mjs")


# ---- what the tests are made of ----

@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, {"LOGIN_RATE_PER_MINUTE": "1000000", "REGISTER_RATE_PER_HOUR": "1000000"}, works=0)


def make_account(gateway, email=None):
    email = email or f"{secrets.token_hex(6)}@example.org"
    answer = requests.post(gateway.url + "/api/auth/register", timeout=30,
                           json={"email": email, "organization": "ACME", "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return email


class App:
    """A client of the server's, with raw requests."""

    def __init__(self, gateway, *words, name="An app", uris=BACK):
        made = gateway.admin("client", "create", "--account", OWNER, "--name", name, "--redirect_uri", uris,
                             "--scopes", "provision:create provision:read", *words)
        self.url = gateway.url
        self.id = made["client_id"]
        self.secret = made.get("client_secret")

    def token(self, **fields):
        own = {"client_id": self.id, **({"client_secret": self.secret} if self.secret else {})}
        return requests.post(self.url + "/oauth/token", data={**own, **fields}, timeout=30)

    def exchange(self, code, **fields):
        return self.token(grant_type="authorization_code", code=code, **fields)

    def refresh(self, token, **fields):
        return self.token(grant_type="refresh_token", refresh_token=token, **fields)

    def introspect(self, token):
        answer = requests.post(self.url + "/oauth/introspect", data={"token": token}, auth=(self.id, self.secret),
                               timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def revoke(self, token):
        return requests.post(self.url + "/oauth/revoke", data={"token": token}, auth=(self.id, self.secret), timeout=30)


class Page(html.parser.HTMLParser):
    """What of a page the tests look at."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def hidden(self):
        return {field["name"]: field["value"] for field in self.all("input") if field["type"] == "hidden"}

    def alert(self):
        return any(attributes.get("role") == "alert" for _, attributes in self.tags)


class Person:
    """Somebody with a browser."""

    def __init__(self, gateway, email=None):
        self.url = gateway.url
        self.browser = requests.Session()
        self.email = email

    def open(self, query, **options):
        text = query if isinstance(query, str) else urllib.parse.urlencode(query)
        return self.browser.get(f"{self.url}/oauth/authorize?{text}", allow_redirects=False, timeout=30, **options)

    def post(self, fields, **options):
        return self.browser.post(self.url + "/oauth/authorize", data=fields, allow_redirects=False, timeout=30,
                                 **options)

    def answer(self, query, word="allow", password=PASSWORD, **options):
        page = self.open(query)
        assert page.status_code == 200, page.text
        fields = {**Page(page.text).hidden(), "answer": word}
        if 'id="password"' in page.text:
            fields |= {"email": self.email, "password": password}
        return self.post(fields, **options)

    def code(self, query):
        return parameters(self.answer(query))["code"]


def parameters(answer):
    assert answer.status_code == 303, answer.text
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["Location"]).query, keep_blank_values=True,
                                       strict_parsing=True))


def ask(app, **more):
    fields = {"response_type": "code", "client_id": app.id, "redirect_uri": BACK, **more}
    return {name: value for name, value in fields.items() if value is not None}


def pkce():
    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return verifier, {"code_challenge": challenge, "code_challenge_method": "S256"}


OWNER = "developers"


@pytest.fixture(scope="module", autouse=True)
def owner(gateway):
    gateway.sql("INSERT INTO account (name) VALUES (%s)", OWNER)


@pytest.fixture(scope="module")
def app(gateway):
    return App(gateway)


@pytest.fixture(scope="module")
def public_app(gateway):
    return App(gateway, "--public")


@pytest.fixture(scope="module")
def email(gateway):
    return make_account(gateway)


@pytest.fixture
def person(gateway, email):
    return Person(gateway, email)


# ---- clients that mean well ----

def test_a_client_of_others_goes_through_it_all(gateway, app, person, monkeypatch):
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    metadata = requests.get(gateway.url + "/.well-known/oauth-authorization-server", timeout=30).json()
    assert metadata["issuer"] == gateway.url
    with OAuth2Session(app.id, app.secret, scope="provision:read provision:create", redirect_uri=BACK,
                       code_challenge_method="S256") as client:
        verifier = secrets.token_urlsafe(48)
        url, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
        answer = person.answer(urllib.parse.urlsplit(url).query)
        assert parameters(answer)["iss"] == gateway.url
        token = client.fetch_token(metadata["token_endpoint"], authorization_response=answer.headers["Location"],
                                   state=state, code_verifier=verifier)
        assert token["token_type"] == "Bearer" and token["expires_in"] == 3600
        assert sorted(token["scope"].split()) == ["provision:create", "provision:read"]
        info = client.introspect_token(metadata["introspection_endpoint"], token["access_token"]).json()
        assert info["active"] and info["client_id"] == app.id and info["sub"].startswith("user_")
        fresh = client.refresh_token(metadata["token_endpoint"])
        assert fresh["refresh_token"] != token["refresh_token"]
        assert client.revoke_token(metadata["revocation_endpoint"], fresh["refresh_token"]).status_code == 200
        info = client.introspect_token(metadata["introspection_endpoint"], fresh["access_token"]).json()
        assert info == {"active": False}


def test_a_client_of_others_gets_a_token_for_itself(gateway, app, monkeypatch):
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with OAuth2Session(app.id, app.secret) as client:
        token = client.fetch_token(gateway.url + "/oauth/token", grant_type="client_credentials")
    assert "refresh_token" not in token
    assert app.introspect(token["access_token"])["active"]


def test_the_lines_of_the_seed_work(gateway, app, person):
    query = (f"client_id={app.id}&redirect_uri={urllib.parse.quote(BACK)}&response_type=code"
             "&scope=provision:create%20provision:read")
    done = subprocess.run(["node", SEED_CLIENT, gateway.url, person.code(query), app.id, app.secret],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == 200 and app.introspect(answer["body"]["access_token"])["active"]


@pytest.mark.parametrize("media", [None, "application/json", "Application/JSON; charset=utf-8",
                                   "text/plain;charset=UTF-8"])
def test_a_json_body_is_taken(app, person, media):
    body = {"grant_type": "authorization_code", "code": person.code(ask(app)), "client_id": app.id,
            "client_secret": app.secret}
    answer = requests.post(app.url + "/oauth/token", data=json.dumps(body), headers={"Content-Type": media}, timeout=30)
    assert answer.status_code == 200, answer.text


def test_the_metadata_names_what_there_is(gateway):
    answer = requests.get(gateway.url + "/.well-known/oauth-authorization-server", timeout=30)
    found = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert found["response_types_supported"] == ["code"] and found["code_challenge_methods_supported"] == ["S256"]
    assert found["grant_types_supported"] == ["authorization_code", "refresh_token", "client_credentials"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["scopes_supported"] == ["provision:create", "provision:read", "payments"]
    for name in ("authorization", "token", "revocation", "introspection"):
        assert found[f"{name}_endpoint"].startswith(gateway.url + "/oauth/")


def test_answers_with_tokens_are_kept_by_nobody(app, person):
    answer = app.exchange(person.code(ask(app)), redirect_uri=BACK)
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Pragma"] == "no-cache"
    assert sorted(answer.json()) == ["access_token", "expires_in", "refresh_token", "scope", "token_type"]
    assert app.exchange("x").headers["Cache-Control"] == "no-store"


def test_a_user_who_is_known_only_says_yes_and_can_be_another(gateway, app, person):
    assert parameters(person.answer(ask(app)))["code"]
    page = person.open(ask(app, state="s"))
    assert 'id="password"' not in page.text and person.email in page.text
    assert parameters(person.answer(ask(app)))["code"]
    link = next(tag["href"] for tag in Page(page.text).all("a"))
    other = make_account(gateway)
    shown = person.browser.get(person.url + link, timeout=30)
    assert 'id="password"' in shown.text
    fields = {**Page(shown.text).hidden(), "answer": "allow", "email": other, "password": PASSWORD}
    assert parameters(person.post(fields))["state"] == "s"
    assert other in person.open(ask(app)).text


def test_a_user_can_say_no_without_logging_in(app, gateway):
    found = parameters(Person(gateway, "").answer(ask(app, state="xyz"), "deny", password=""))
    assert (found["error"], found["state"], found["iss"]) == ("access_denied", "xyz", gateway.url)


# ---- the page ----

def test_the_page_is_plain_and_usable(gateway, app):
    answer = Person(gateway).open(ask(app))
    page = Page(answer.text)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.all("html")[0]["lang"] == "en" and not page.all("script") and page.all("title")
    assert any(tag.get("name") == "viewport" for tag in page.all("meta"))
    labels = {tag["for"] for tag in page.all("label")}
    assert labels == {tag["id"] for tag in page.all("input") if tag["type"] != "hidden"}
    assert sum("autofocus" in tag for _, tag in page.tags) == 1
    assert not any("tabindex" in tag or name.startswith("on") for _, tag in page.tags for name in tag)
    assert [tag["value"] for tag in page.all("button")] == ["allow", "deny"]
    assert "Create, upgrade and end instances for you" in page.text and "See your instances" in page.text
    assert "Manage payment methods" not in page.text
    assert page.text.count("An app") == 2


def test_the_page_is_framed_by_nobody_and_loads_nothing(gateway, app):
    answer = Person(gateway).open(ask(app))
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    style = answer.text.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {"default-src": "'none'", "style-src": f"'sha256-{digest}'", "frame-ancestors": "'none'",
                      "base-uri": "'none'", "form-action": "'self' https://app.example"}
    for name, value in {"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
                        "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}.items():
        assert answer.headers[name] == value


def test_an_apps_own_scheme_may_be_answered(gateway, email):
    native = App(gateway, "--public", uris="com.example.app:/cb")
    verifier, challenge = pkce()
    query = ask(native, redirect_uri="com.example.app:/cb", **challenge)
    page = Person(gateway).open(query)
    assert "form-action 'self' com.example.app:;" in page.headers["Content-Security-Policy"]
    answer = Person(gateway, email).answer(query)
    assert answer.headers["Location"].startswith("com.example.app:/cb?code=wgc_")
    assert native.exchange(parameters(answer)["code"], code_verifier=verifier).status_code == 200


def test_cookies_are_for_us_alone(gateway, app, email):
    person = Person(gateway, email)
    answer = person.answer(ask(app))
    for field in (person.open(ask(app)).headers.get("Set-Cookie"), answer.headers["Set-Cookie"]):
        if field:
            assert "HttpOnly; SameSite=Lax" in field and "Path=/oauth" in field and "Domain" not in field


def test_under_https_cookies_are_of_this_host_alone(start_gateway):
    gateway = start_gateway({"TRUSTED_PROXIES": "127.0.0.1"}, works=0)
    gateway.sql("INSERT INTO account (name) VALUES (%s)", OWNER)
    app = App(gateway)
    answer = Person(gateway).open(ask(app), headers={"X-Forwarded-Proto": "https"})
    field = answer.headers["Set-Cookie"]
    assert field.startswith("__Host-wg_form=") and field.endswith("; Path=/; Secure")


XSS = ['"><script>alert(1)</script>', "'-alert(1)-'", "</style><script>x</script>", "javascript:alert(1)",
       "&lt;script>"]


@pytest.mark.parametrize("bad", XSS)
@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "response_type", "scope", "state", "code_challenge",
                                  "code_challenge_method", "prompt", "anything"])
def test_no_parameter_becomes_part_of_the_page(gateway, app, name, bad):
    answer = Person(gateway).open(ask(app, **{name: bad}))
    assert not Page(answer.text).all("script") and bad not in answer.text
    if name in ("client_id", "redirect_uri"):
        assert answer.status_code == 400 and "Location" not in answer.headers
    elif answer.status_code == 303:
        assert answer.headers["Location"].startswith(BACK + "&error=")
        assert not set(answer.headers["Location"]) & set("\"<>'\r\n ")


@pytest.mark.parametrize("bad", XSS)
def test_neither_a_name_nor_an_address_becomes_part_of_the_page(gateway, bad):
    named = App(gateway, name=bad)
    answer = Person(gateway, bad).answer(ask(named))
    page = Page(answer.text)
    assert answer.status_code == 403 and not page.all("script") and page.alert()
    assert next(tag["value"] for tag in page.all("input") if tag.get("id") == "email") == bad
    assert bad in page.text


# ---- where answers go ----

@pytest.mark.parametrize("uri", [
    BACK + "/", BACK + "&x=1", BACK + "#fragment", BACK.upper(), "https://app.example/back",
    "https://app.example/back/",
    "https://app.example/Back?from=wakegate", "https://user@app.example/back?from=wakegate",
    "https://app.example:443/back?from=wakegate", "https://app.example/back/sub?from=wakegate",
    "https://app.example/x/../back?from=wakegate", "https://app.example.evil.example/back?from=wakegate",
    "http://app.example/back?from=wakegate", "https://evil.example", "//app.example/back?from=wakegate", "/back",
    " " + BACK, BACK + " ", BACK + "\r\nX: y", "javascript:alert(1)", "https://app.example/back?from=wakegat\u0435",
])
def test_nothing_is_sent_where_it_is_not_registered(gateway, app, uri):
    answer = Person(gateway).open(ask(app, redirect_uri=uri))
    assert answer.status_code == 400 and "Location" not in answer.headers
    assert answer.headers["Content-Type"].startswith("text/html") and Page(answer.text).alert()


@pytest.mark.parametrize("client_id", [None, "", "cli_unknown", "x' OR '1'='1", "cli_\x00", "é"])
def test_nothing_is_sent_for_who_is_not_known(gateway, app, client_id):
    answer = Person(gateway).open(ask(app, client_id=client_id))
    assert answer.status_code == 400 and "Location" not in answer.headers


def test_a_revoked_client_asks_nobody(gateway):
    app = App(gateway)
    gateway.admin("client", "revoke", app.id)
    assert Person(gateway).open(ask(app)).status_code == 400
    assert app.token(grant_type="client_credentials").status_code == 401


def test_one_registered_uri_need_not_be_named(gateway, app, person):
    answer = person.answer(ask(app, redirect_uri=None))
    assert answer.headers["Location"].startswith(BACK + "&code=")
    two = App(gateway, uris=BACK + " https://app.example/other")
    assert Person(gateway).open(ask(two, redirect_uri=None)).status_code == 400


@pytest.mark.parametrize("change, error", [
    ({"response_type": None}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"),
    ({"scope": "provision:create admin"}, "invalid_scope"),
    ({"scope": "payments"}, "invalid_scope"),
    ({"scope": "session:read"}, "invalid_scope"),
    ({"code_challenge": "x" * 43, "code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge": "x" * 43}, "invalid_request"),
    ({"code_challenge": "short", "code_challenge_method": "S256"}, "invalid_request"),
    ({"code_challenge_method": "S256"}, "invalid_request"),
])
def test_other_errors_are_the_clients_to_hear(gateway, app, change, error):
    found = parameters(Person(gateway).open(ask(app, state="st", **change)))
    assert (found["error"], found["state"], found["iss"], found["from"]) == (error, "st", gateway.url, "wakegate")
    assert found["error_description"]


@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "response_type", "scope", "state", "code_challenge",
                                  "code_challenge_method"])
def test_no_parameter_comes_twice(gateway, app, name):
    _, challenge = pkce()
    fields = ask(app, scope="provision:read", state="a", **challenge)
    query = urllib.parse.urlencode([*fields.items(), (name, fields[name])])
    answer = Person(gateway).open(query)
    if name in ("client_id", "redirect_uri"):
        assert answer.status_code == 400
    else:
        assert parameters(answer)["error"] == "invalid_request"


def test_public_clients_need_pkce(gateway, public_app):
    found = parameters(Person(gateway).open(ask(public_app)))
    assert found["error"] == "invalid_request" and "code_challenge" in found["error_description"]


@pytest.mark.parametrize("state", [
    "simple", "a b+c%20d&e=f#g?h", "\"quotes' and <tags>", "ünï cödé 🦀", "%00%0d%0a as text",
    "line\r\nend\nand\ttab", "=", "&&", "\\", "x" * 1500,
])
def test_a_state_comes_back_as_it_was(app, person, state):
    assert parameters(person.answer(ask(app, state=state)))["state"] == state
    assert parameters(person.answer(ask(app, state=state), "deny"))["state"] == state


@pytest.mark.parametrize("raw", ["%FF", "%00", "%", "%zz"])
def test_a_state_that_is_no_text_is_refused(gateway, app, raw):
    line = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)  # requests would mend it
    line.request("GET", f"/oauth/authorize?{urllib.parse.urlencode(ask(app))}&state={raw}")
    answer = line.getresponse()
    line.close()
    assert answer.status == 303
    assert "error=invalid_request" in answer.headers["Location"] and "state=" not in answer.headers["Location"]


def test_an_answer_has_no_more_than_it_should(app, person):
    answer = person.answer(ask(app, state="s"))
    assert list(parameters(answer)) == ["from", "code", "state", "iss"]
    assert answer.headers["Cache-Control"] == "no-store" and answer.headers["Referrer-Policy"] == "no-referrer"


# ---- the form ----

def test_a_wrong_password_is_told_from_a_wrong_address_by_nothing(gateway, app, person):
    wrong = person.answer(ask(app), password="not the password")
    nobody = Person(gateway, "nobody@example.org").answer(ask(app))
    for answer in (wrong, nobody):
        assert answer.status_code == 403 and Page(answer.text).alert() and "wrong" in answer.text
        assert "wg_login" not in answer.headers.get("Set-Cookie", "")


def test_guessing_a_password_is_slow(start_gateway):
    gateway = start_gateway({"LOGIN_RATE_PER_MINUTE": "1000000"}, works=0)
    gateway.sql("INSERT INTO account (name) VALUES (%s)", OWNER)
    app, email = App(gateway), make_account(gateway)
    statuses = [Person(gateway, email).answer(ask(app), password="wrong password!").status_code for _ in range(12)]
    assert statuses == [403] * 10 + [429] * 2
    assert Person(gateway, email).answer(ask(app)).status_code == 429
    log_in = requests.post(gateway.url + "/api/auth/login", json={"email": email, "password": PASSWORD}, timeout=30)
    assert log_in.status_code == 429  # one throttle for both doors


def form_of(person, query):
    return {**Page(person.open(query).text).hidden(), "answer": "allow", "email": person.email, "password": PASSWORD}


@pytest.mark.parametrize("change", [
    lambda form: form.pop("proof"),
    lambda form: form.update(proof=""),
    lambda form: form.update(proof=form["proof"][:-1] + ("0" if form["proof"][-1] != "0" else "1")),
    lambda form: form.update(proof="9" + form["proof"]),
    lambda form: form.update(proof=form["proof"].split(".")[0]),
], ids=["missing", "empty", "changed", "later", "cut"])
def test_a_form_that_is_not_ours_does_nothing(app, person, change):
    form = form_of(person, ask(app))
    change(form)
    answer = person.post(form)
    assert answer.status_code == 403 and "Location" not in answer.headers and Page(answer.text).alert()
    assert "wg_login" not in answer.headers.get("Set-Cookie", "")
    assert person.post(form_of(person, ask(app))).status_code == 303


def test_a_form_is_one_browsers_one_requests_and_one_users(gateway, app, email):
    person, thief = Person(gateway, email), Person(gateway, email)
    form = form_of(thief, ask(app))
    assert thief.open(ask(app)).status_code == 200
    person.open(ask(app))
    assert person.post(form).status_code == 403  # of another browser
    other = form_of(person, ask(app, scope="provision:read"))
    mixed = {**form_of(person, ask(app)), "proof": other["proof"]}
    assert person.post(mixed).status_code == 403  # of another request
    before = form_of(person, ask(app))
    assert person.answer(ask(app)).status_code == 303
    assert person.post(before).status_code == 403  # of nobody, and now somebody is logged in


def test_a_form_from_another_page_does_nothing(app, person):
    for site in ("cross-site", "same-site", "none"):
        assert person.post(form_of(person, ask(app)), headers={"Sec-Fetch-Site": site}).status_code == 403
    assert person.post(form_of(person, ask(app)), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_a_second_tab_does_not_break_the_first(app, person):
    first = form_of(person, ask(app))
    person.open(ask(app, state="second"))
    assert person.post(first).status_code == 303


@pytest.mark.parametrize("fields", [{}, {"request": ""}, {"request": "!!"}, {"request": "Y2xpZW50X2lkPXg"}])
def test_half_a_form_is_an_error_page(gateway, fields):
    answer = Person(gateway).post({**fields, "answer": "allow"})
    assert answer.status_code == 400 and Page(answer.text).alert()


def test_a_made_up_cookie_logs_nobody_in(gateway, app, person):
    assert person.answer(ask(app)).status_code == 303
    good = person.browser.cookies.get("wg_login")
    number, until, mac = good.split(".")

    def is_asked(value):
        answer = requests.get(gateway.url + "/oauth/authorize", params=ask(app), timeout=30,
                              cookies={"wg_login": value})
        return 'id="password"' in answer.text

    assert not is_asked(good)
    for value in (f"{int(number) + 1}.{until}.{mac}", f"{number}.{int(until) + 1}.{mac}",
                  f"{number}.{until}.{'0' * len(mac)}", f"{number}.{until}", "", "...", good + "0"):
        assert is_asked(value)


def test_a_ban_and_a_new_password_end_the_cookie(gateway, app):
    person = Person(gateway, make_account(gateway))
    assert person.answer(ask(app)).status_code == 303
    gateway.admin("ban", "add", person.email, "--reason", "spam")
    assert 'id="password"' in person.open(ask(app)).text
    assert person.answer(ask(app)).status_code == 403
    gateway.admin("ban", "remove", person.email)
    assert 'id="password"' not in person.open(ask(app)).text
    gateway.sql("UPDATE account SET password = password || 'x' WHERE email = %s", person.email)
    assert 'id="password"' in person.open(ask(app)).text


# ---- tokens ----

def refused(answer, error, status=400):
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.headers["Content-Type"] == "application/json" and answer.headers["Cache-Control"] == "no-store"
    return True


def test_a_code_is_bound_to_its_verifier(public_app, gateway, email):
    verifier, challenge = pkce()
    code = Person(gateway, email).code(ask(public_app, **challenge))
    assert refused(public_app.exchange(code), "invalid_grant")
    assert refused(public_app.exchange(code, code_verifier=pkce()[0]), "invalid_grant")
    assert refused(public_app.exchange(code, code_verifier=challenge["code_challenge"]), "invalid_grant")
    assert public_app.exchange(code, code_verifier=verifier, redirect_uri=BACK).status_code == 200


def test_a_code_is_bound_to_client_and_address(gateway, app, person):
    code = person.code(ask(app))
    assert refused(App(gateway).exchange(code), "invalid_grant")
    assert refused(app.exchange(code, redirect_uri=BACK + "/"), "invalid_grant")
    assert refused(app.exchange(code, code_verifier=pkce()[0]), "invalid_grant")
    assert app.exchange(code, redirect_uri=BACK).status_code == 200


def test_a_code_that_comes_twice_ends_what_it_gave(app, person):
    code = person.code(ask(app))
    token = app.exchange(code).json()
    assert app.introspect(token["access_token"])["active"]
    assert refused(app.exchange(code), "invalid_grant")
    assert app.introspect(token["access_token"]) == {"active": False}
    assert refused(app.refresh(token["refresh_token"]), "invalid_grant")


def test_a_code_does_not_last(gateway, app, person):
    code = person.code(ask(app))
    assert gateway.sql("SELECT max(expires_at) <= now() + interval '60 seconds' FROM oauth_code")[0][0]
    gateway.sql("UPDATE oauth_code SET expires_at = now()")
    assert refused(app.exchange(code), "invalid_grant")


def test_of_a_hundred_that_race_one_succeeds(app, person):
    code = person.code(ask(app))
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: app.exchange(code), range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 99
    won = next(answer for answer in answers if answer.status_code == 200).json()
    assert {answer.json()["error"] for answer in answers if answer.status_code == 400} == {"invalid_grant"}
    assert app.introspect(won["access_token"]) == {"active": False}


def test_a_refresh_token_that_comes_again_ends_its_family(app, person):
    first = app.exchange(person.code(ask(app))).json()
    second = app.refresh(first["refresh_token"]).json()
    assert second["scope"] == first["scope"] and app.introspect(second["access_token"])["active"]
    assert refused(app.refresh(first["refresh_token"]), "invalid_grant")
    assert refused(app.refresh(second["refresh_token"]), "invalid_grant")
    assert app.introspect(second["access_token"]) == {"active": False}


def test_scopes_only_shrink(app, person):
    token = app.exchange(person.code(ask(app, scope="provision:read"))).json()
    assert token["scope"] == "provision:read"
    assert refused(app.refresh(token["refresh_token"], scope="provision:read provision:create"), "invalid_scope")
    assert refused(app.refresh(token["refresh_token"], scope="everything"), "invalid_scope")
    assert app.refresh(token["refresh_token"], scope="provision:read").json()["scope"] == "provision:read"
    assert refused(app.token(grant_type="client_credentials", scope="payments"), "invalid_scope")
    one = app.token(grant_type="client_credentials", scope="provision:read").json()
    assert one["scope"] == app.introspect(one["access_token"])["scope"] == "provision:read"


def test_clients_know_nothing_of_each_others_tokens(gateway, app, person):
    other = App(gateway)
    token = app.exchange(person.code(ask(app))).json()
    assert other.introspect(token["access_token"]) == other.introspect("wga_x") == {"active": False}
    assert refused(other.refresh(token["refresh_token"]), "invalid_grant")
    assert other.revoke(token["refresh_token"]).status_code == 200
    assert app.introspect(token["access_token"])["active"] and app.introspect(token["refresh_token"])["active"]
    assert app.revoke(token["access_token"]).status_code == app.revoke("nonsense").status_code == 200
    assert app.introspect(token["access_token"]) == {"active": False}
    assert app.introspect(token["refresh_token"])["active"]


def test_a_client_must_be_itself_in_one_way(gateway, app, public_app):
    url = gateway.url + "/oauth/token"
    grant = {"grant_type": "client_credentials"}

    def send(auth=None, headers=None, **fields):
        return requests.post(url, data={**grant, **fields}, auth=auth, headers=headers, timeout=30)

    wrong = send(auth=(app.id, "wgcs_wrong"))
    assert refused(wrong, "invalid_client", 401) and wrong.headers["WWW-Authenticate"].startswith("Basic ")
    wrong = send(client_id=app.id, client_secret="wrong")
    assert refused(wrong, "invalid_client", 401) and "WWW-Authenticate" not in wrong.headers
    assert refused(send(), "invalid_client", 401)
    assert refused(send(client_id=app.id), "invalid_client", 401)
    assert refused(send(auth=(app.id, app.secret), client_secret=app.secret), "invalid_request")
    assert refused(send(auth=(app.id, app.secret), client_id=public_app.id), "invalid_request")
    assert refused(send(headers={"Authorization": "Bearer x"}), "invalid_client", 401)
    assert refused(send(headers={"Authorization": "Basic !"}), "invalid_client", 401)
    assert send(auth=(app.id, app.secret), client_id=app.id).status_code == 200
    encoded = base64.b64encode(f"{app.id.replace('_', '%5F')}:{app.secret}".encode()).decode()
    assert send(headers={"Authorization": f"basic {encoded}"}).status_code == 200
    assert refused(send(client_id=public_app.id), "unauthorized_client")
    refusal = requests.post(gateway.url + "/oauth/introspect", timeout=30,
                            data={"client_id": public_app.id, "token": "x"})
    assert refused(refusal, "invalid_client", 401)


@pytest.mark.parametrize("body, headers, error, status", [
    ("", {}, "invalid_request", 400),
    ("grant_type=password&username=a&password=b", {}, "unsupported_grant_type", 400),
    ("grant_type=authorization_code", {}, "invalid_request", 400),
    ("grant_type=refresh_token", {}, "invalid_request", 400),
    ("grant_type=client_credentials&grant_type=client_credentials", {}, "invalid_request", 400),
    ("grant_type=authorization_code&code=%FF", {}, "invalid_request", 400),
    ("grant_type=authorization_code&code=%00", {}, "invalid_request", 400),
    ("grant_type=authorization_code&code=wgc_x", {}, "invalid_grant", 400),
    ('{"grant_type":', {"Content-Type": "application/json"}, "invalid_request", 400),
    ('["grant_type"]', {"Content-Type": "application/json"}, "invalid_request", 400),
    ('{"grant_type":7}', {"Content-Type": "application/json"}, "invalid_request", 400),
    ('{"grant_type":"a","grant_type":"b"}', {"Content-Type": "application/json"}, "invalid_request", 400),
    ("<xml/>", {"Content-Type": "text/xml"}, "invalid_request", 415),
])
def test_a_bad_request_for_tokens_is_told_what_is_wrong(app, body, headers, error, status):
    answer = requests.post(app.url + "/oauth/token", data=body, auth=(app.id, app.secret), timeout=30,
                           headers={"Content-Type": "application/x-www-form-urlencoded", **headers})
    assert refused(answer, error, status)
    assert answer.json()["error_description"]


def test_a_form_is_no_larger_than_forms_are(gateway):
    for path in ("token", "revoke", "introspect", "authorize"):
        statuses = [requests.post(f"{gateway.url}/oauth/{path}", timeout=30, data="&" * size, headers={
            "Content-Type": "application/x-www-form-urlencoded"}).status_code for size in (65536, 65537)]
        assert statuses == [400 if path == "authorize" else 401, 413], path


def test_other_methods_and_paths_are_the_surfaces_errors(gateway):
    answer = requests.get(gateway.url + "/oauth/token", timeout=30)
    assert answer.status_code == 405 and answer.headers["Allow"].startswith("POST")
    assert answer.json()["error"]["code"] == "method_not_allowed" and answer.json()["error"]["details"] == {}
    assert requests.get(gateway.url + "/oauth/nothing", timeout=30).json()["error"]["code"] == "not_found"


def test_what_happened_is_on_record(gateway, app, person):
    before = gateway.sql("SELECT coalesce(max(id), 0) FROM audit")[0][0]
    token = app.exchange(person.code(ask(app))).json()
    app.refresh(token["refresh_token"])
    app.refresh(token["refresh_token"])
    rows = gateway.sql("SELECT action, actor, object, address FROM audit WHERE id > %s ORDER BY id", before)
    assert [row[0] for row in rows] == ["oauth.allow", "oauth.exchange", "oauth.refresh", "oauth.refresh_again"]
    assert rows[0][1].startswith("account user_") and {row[1] for row in rows[1:]} == {f"client {app.id}"}
    assert {row[2] for row in rows} == {app.id} and {row[3] for row in rows} == {"127.0.0.1"}


def test_no_secret_is_logged(gateway, app, person):
    code = person.code(ask(app))
    token = app.exchange(code).json()
    cookie = person.browser.cookies.get("wg_login")
    for secret in (code, token["access_token"], token["refresh_token"], app.secret, cookie, PASSWORD):
        assert secret not in gateway.serves[0].log()
