"""OAuth 2.0: openid-client and oauth4webapi (npm), and a person with a phone's screen and a keyboard in Chromium.

The packages are installed once, below WAKEGATE_CONFORMANCE_DIR.
"""
import html
import http.server
import json
import os
import secrets
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request

from suite import Row, Skip  # first: it says where the others are

from chromium import Chromium
from load import Broken
from machine import Gateway

PACKAGES = ("openid-client@6", "oauth4webapi@3")
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oauth_clients.mjs")
PASSWORD = "correct horse battery"
SETTINGS = {"LOGIN_RATE_PER_MINUTE": "1000000", "REGISTER_RATE_PER_HOUR": "1000000"}


class App:
    """Where the client's users come back to, and a page of somebody else's."""

    def __init__(self):
        self.asked = []
        self.page = ""
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path.startswith("/back"):
                    app.asked.append(self.path)
                body = (app.page if self.path == "/page" else "<!doctype html><title>back</title>").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.back = self.origin + "/back"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def last(self):
        if not self.asked:
            return {}
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.asked[-1]).query))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class House:
    """The gateway with an account and two clients."""

    def __init__(self, gateway, app):
        self.origin = gateway.origin
        self.email = f"{secrets.token_hex(4)}@example.org"
        self.post("/api/auth/register", {"email": self.email, "organization": "ACME", "password": PASSWORD})
        make = ("client", "create", "--account", "developers", "--name", "An app with rather a long name of its own",
                "--redirect_uri", app.back, "--scopes", "provision:create provision:read")
        self.confidential = gateway.admin(*make)
        self.public = gateway.admin(*make, "--public")
        self.app = app

    def post(self, path, body):
        request = urllib.request.Request(self.origin + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Broken(f"{path}: {error.read().decode()}") from None

    def ask(self, **more):
        return f"{self.origin}/oauth/authorize?" + urllib.parse.urlencode(
            {"response_type": "code", "client_id": self.confidential["client_id"], "redirect_uri": self.app.back,
             **more})


# ---- npm ----

def packages(bench):
    folder = os.path.join(bench.cache, "oauth")
    missing = [name for name in PACKAGES if not os.path.isdir(os.path.join(folder, "node_modules", name.split("@")[0]))]
    if missing:
        os.makedirs(folder, exist_ok=True)
        if not shutil.which("npm"):
            raise Skip("npm is not installed")
        done = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise Skip(f"npm can't have {' '.join(missing)}: {(done.stderr.strip().splitlines() or [''])[0]}")
    shutil.copy(SCRIPT, folder)  # where its imports are found
    return os.path.join(folder, os.path.basename(SCRIPT))


def run_clients(bench, house):
    try:
        if not shutil.which("node"):
            raise Skip("node is not installed")
        script = packages(bench)
    except Skip as skip:
        return [Row("oauth", "openid-client, oauth4webapi", skipped=1, note=str(skip))]
    given = {"origin": house.origin, "back": house.app.back, "email": house.email, "password": PASSWORD,
             "confidential": house.confidential, "public": house.public}
    done = subprocess.run(["node", script], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    groups = {}
    for line in done.stdout.splitlines():
        found = json.loads(line)
        groups.setdefault(found["group"], []).append(found)
    rows = []
    for group, checks in groups.items():
        failures = [f"{check['name']}: {check['problem']}" for check in checks if check["problem"]]
        rows.append(Row("oauth", group, len(checks) - len(failures), failures))
    if done.returncode:
        rows.append(Row("oauth", "openid-client, oauth4webapi", failures=[done.stderr[-1000:]]))
    return rows


# ---- Chromium ----

def log_in_by_keyboard(house, browser):
    """From the first page to the app, without a pointer, on a phone's screen."""
    browser.open(house.ask(state="phone é"))
    yield browser.focus() == "email", f"the keyboard is at {browser.focus()} at first"
    width = browser.value("document.documentElement.scrollWidth")
    yield width <= 360, f"the page is {width} wide on a screen of 360"
    low = browser.value("Math.min(...[...document.querySelectorAll('button')].map("
                        "button => button.getBoundingClientRect().height))")
    yield low >= 44, f"a button is {low} high"
    styled = browser.value("getComputedStyle(document.querySelector('main')).maxWidth")
    yield styled != "none", "the style is not let in"
    browser.type(house.email)
    browser.press("Tab")
    yield browser.focus() == "password", "Tab does not lead to the password"
    browser.type("not the password")
    browser.press("Enter")
    browser.until("document.querySelector('[role=alert]')", "a wrong password is not told")
    yield browser.focus() == "password", "the keyboard is not at the password after a wrong one"
    yield browser.value("document.getElementById('email').value") == house.email, "the address is forgotten"
    browser.type(PASSWORD)
    browser.press("Enter")
    browser.until(f"location.href.startsWith('{house.app.back}')", "the app is not reached")
    said = house.app.last()
    yield said.get("code", "").startswith("wgc_"), f"no code: {said}"
    yield (said.get("state"), said.get("iss")) == ("phone é", house.origin), f"state or iss: {said}"
    token = house.post("/oauth/token", {"grant_type": "authorization_code", "code": said.get("code"),
                                        "client_id": house.confidential["client_id"],
                                        "client_secret": house.confidential["client_secret"]})
    yield token.get("token_type") == "Bearer", "the code gives no token"


def answer_again(house, browser):
    """Who is logged in is asked for consent alone; every control is reached by Tab and seen to have the keyboard."""
    browser.open(house.ask(state="again"))
    yield not browser.value("!!document.getElementById('password')"), "the password is asked for again"
    reached = []
    for _ in range(3):
        browser.press("Tab")
        reached.append(browser.focus() if browser.value("document.activeElement.tagName") != "A" else "link")
        outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
        yield outline == "solid", f"{reached[-1]} does not show that it has the keyboard"
    yield reached == ["link", "allow", "deny"], f"Tab leads to {reached}"
    browser.press("Enter")
    browser.until(f"location.href.startsWith('{house.app.back}')", "the app is not reached")
    said = house.app.last()
    yield (said.get("error"), said.get("state")) == ("access_denied", "again"), f"not denied: {said}"


def be_framed(house, browser):
    house.app.page = f'<!doctype html><iframe src="{html.escape(house.ask())}"></iframe>'
    browser.open(house.app.origin + "/page")
    browser.until("document.readyState === 'complete'", "the page does not load")
    frames = browser.frames()
    yield frames and not any("/oauth/" in url for url in frames), f"the page is in a frame: {frames}"


def be_posted_to(house, browser):
    """Another page of the same site sends a form that it got for itself; the user is logged in."""
    with urllib.request.urlopen(house.ask(), timeout=30) as answer:
        text = answer.read().decode()
    hidden = text[text.index('<input type="hidden"'):text.index("<label")]
    house.app.page = (f'<!doctype html><form method="post" action="{house.origin}/oauth/authorize">{hidden}'
                      '<input name="answer" value="allow"></form><script>document.forms[0].submit()</script>')
    before = len(house.app.asked)
    browser.open(house.app.origin + "/page")
    browser.until("location.pathname === '/oauth/authorize' && document.querySelector('[role=alert]')",
                  "no refusal is shown")
    yield len(house.app.asked) == before, "a form of others gives a code"


def stay_quiet(house, browser):
    """Nothing on the page is stopped by its own policy, whatever its parameters hold."""
    for state in ("plain", "</style><script>document.title='x'</script>", "\"><img src=x onerror=alert(1)>"):
        browser.open(house.ask(state=state))
        complaints = [text for text in browser.complaints() if "favicon" not in text]
        yield not complaints, f"the browser complains: {complaints}"
        found = browser.value("document.scripts.length + document.images.length")
        yield found == 0, "a parameter became part of the page"


CASES = (("a keyboard and a phone", log_in_by_keyboard), ("who is logged in", answer_again), ("in a frame", be_framed),
         ("a form of another page", be_posted_to), ("odd parameters", stay_quiet))


def run_browser(bench, house):
    rows = []
    browser = None
    try:
        browser = Chromium(os.path.join(bench.folder, "profile"))
        for title, case in CASES:
            checks = []
            try:
                checks.extend(case(house, browser))
            except Broken as broken:
                checks.append((False, str(broken)))
            failures = [text for good, text in checks if not good]
            rows.append(Row("oauth", title, len(checks) - len(failures), failures))
    except Skip as skip:
        rows.append(Row("oauth", "chromium", skipped=1, note=str(skip)))
    finally:
        if browser:
            browser.close()
    return rows


def run(bench):
    app = App()
    gateway = None
    try:
        gateway = Gateway(bench.program, os.path.join(bench.folder, "data"), SETTINGS)
        house = House(gateway, app)
        return run_clients(bench, house) + run_browser(bench, house)
    finally:
        if gateway:
            gateway.close()
        app.close()
