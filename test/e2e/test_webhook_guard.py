"""No delivery connects to an address that is none of the public internet's, whatever the URL, a DNS server or a redirect say."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import name_world
from accounts import SETTINGS as ACCOUNT_SETTINGS, error_of
from fixtures import run_gateway
from stores import wait_until
from wakegate import BINARY, Gateway, Part, environment
from webhooks import Hooks, open_sink

LOOPBACK = ["127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
            "0", "0.0.0.0", "127.0.0.1.", "localhost", "LocalHost", "localhost.", "x.localhost", "[::1]", "[::]",
            "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"]
OTHERS = ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "198.18.0.1",
          "192.0.2.1", "[fc00::1]", "[fe80::1]", "[fec0::1]", "[ff02::1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]",
          "[2002:7f00:1::1]", "[2001:0:7f00:1::1]", "[2001:db8::1]"]
# No literals, but something between us and a socket may take them for some.
DISGUISED = ["%31%32%37.0.0.1", "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460", "127\u30020\u30020\u30021"]
REFUSED = "The address is none that webhooks are delivered to"


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, ACCOUNT_SETTINGS)


@pytest.fixture(scope="module")
def hooks(gateway):
    return Hooks(gateway)


@pytest.mark.parametrize("host", LOOPBACK + OTHERS + DISGUISED)
def test_what_can_be_seen_at_once_is_refused_at_once(hooks, host):
    for url in (f"http://{host}/", f"https://{host}:8443/hook"):
        error_of(hooks.call("POST", json={"url": url, "events": ["*"]}), 400, "invalid_parameter")


def aim(hooks, urls):
    """Endpoints with these URLs, however they came into the database, and a delivery to each."""
    found = {}
    for url in urls:
        hook = hooks.make("https://example.com/hook")
        hooks.gateway.sql("UPDATE webhook_endpoint SET url = %s, version = version + 1 WHERE ref = %s", url, hook["id"])
        found[url] = hooks.test(hook)
    return found


def outcome(hooks, delivery):
    attempt = hooks.wait_attempts(delivery, 1, 40)["attempts"][0]
    return attempt["ok"], attempt["error"]


def test_no_spelling_of_an_address_reaches_a_listener(hooks):
    with open_sink() as sink:
        hosts = LOOPBACK + OTHERS[:8] + DISGUISED
        for url, delivery in aim(hooks, [sink.url(host=host) for host in hosts]).items():
            assert not outcome(hooks, delivery)[0], url
        assert sink.arrivals == []


def test_a_redirect_leads_nowhere(start_gateway):
    """The endpoint itself is allowed; where it points is not asked."""
    gateway = start_gateway({**ACCOUNT_SETTINGS, "WEBHOOK_ALLOW_NETWORKS": "127.0.0.1/32"})
    hooks = Hooks(gateway)
    with open_sink() as sink:
        sink.on("/from", (307, {"Location": sink.url("/to", "127.0.0.2")}, b""))
        assert outcome(hooks, hooks.test(hooks.make(sink.url("/from")))) == (False, "Redirects are not followed")
        assert sink.at("/to") == []


# ---- names, in a network of its own ----

def can_unshare():
    return bool(shutil.which("ip")) and subprocess.run(
        ["unshare", "-m", "-n", "true"], capture_output=True, check=False).returncode == 0


pytestmark_names = pytest.mark.skipif(not can_unshare(), reason="namespaces are not allowed here")
PORT = 8080  # of its own network


class NamedPart(Part):
    """A worker whose resolver is a DNS server of the test's."""

    def start(self):
        words = ["unshare", "-m", "-n", "--", sys.executable, name_world.__file__, self.gateway.folder, str(PORT),
                 BINARY, "work", "--env-file", self.gateway.env_file]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(words, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self


def reached(gateway):
    """The addresses at which somebody has connected."""
    path = os.path.join(gateway.folder, "reached")
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line).removeprefix("::ffff:") for line in file]


@pytest.fixture
def world(stores):
    """world(settings): hooks of a gateway in such a network."""
    gateways = []

    def start(**settings):
        gateway = Gateway(stores, {**ACCOUNT_SETTINGS, **settings}, works=0)
        gateways.append(gateway)
        gateway.works = [NamedPart(gateway, "work", 0)]
        return Hooks(gateway.start())

    try:
        yield start
        for gateway in gateways:
            gateway.close()
    finally:
        for gateway in gateways:
            gateway.abandon()


def name_of(address):
    if ":" in address:
        return "q-" + name_world.socket.inet_pton(name_world.socket.AF_INET6, address).hex() + ".test"
    return "a-" + address.replace(".", "-") + ".test"


FORBIDDEN_4 = ["127.0.0.1", "0.0.0.0", *name_world.OWN[1:]]
FORBIDDEN_6 = ["::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:7f00:1", *name_world.OWN_6[1:]]


@pytestmark_names
def test_no_name_leads_to_a_forbidden_address(world):
    hooks = world()
    forbidden = FORBIDDEN_4 + FORBIDDEN_6
    for url, delivery in aim(hooks, [f"http://{name_of(address)}:{PORT}/" for address in forbidden]).items():
        assert outcome(hooks, delivery) == (False, REFUSED), url
    assert reached(hooks.gateway) == []
    good = aim(hooks, [f"http://{name_of(address)}:{PORT}/" for address in (name_world.PUBLIC, name_world.PUBLIC_6)])
    assert [outcome(hooks, delivery) for delivery in good.values()] == [(True, None)] * 2
    assert reached(hooks.gateway) == [name_world.PUBLIC, name_world.PUBLIC_6]


@pytestmark_names
def test_the_same_names_lead_there_when_it_is_allowed(world):
    """So that it is the guard that the test before sees, and nothing else."""
    hooks = world(WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8,10.0.0.0/8,::1/128,64:ff9b::/96")
    allowed = ["127.0.0.1", "10.0.0.1", "::1", "64:ff9b::7f00:1"]
    for delivery in aim(hooks, [f"http://{name_of(address)}:{PORT}/" for address in allowed]).values():
        assert outcome(hooks, delivery) == (True, None)
    assert sorted(reached(hooks.gateway)) == sorted(allowed)


@pytestmark_names
def test_a_name_with_one_good_address_leads_there_alone(world):
    hooks = world()
    urls = [f"http://both-{name_of(address)}:{PORT}/" for address in ("127.0.0.1", "10.0.0.1", "::1", "64:ff9b::7f00:1")]
    for url, delivery in aim(hooks, urls).items():
        outcome(hooks, delivery)
    assert set(reached(hooks.gateway)) <= {name_world.PUBLIC}


@pytestmark_names
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
def test_an_answer_that_changes_leads_nowhere(world, address):
    """The first answer is a public address, and the delivery arrives there; the next ones are not."""
    hooks = world()
    hook = hooks.make(f"http://flip-{name_of(address)}:{PORT}/")
    assert outcome(hooks, hooks.test(hook)) == (True, None)

    def refused():
        return outcome(hooks, hooks.test(hook)) == (False, REFUSED)
    wait_until(refused, 60, "the name is looked up anew", 0.2)
    assert set(reached(hooks.gateway)) == {name_world.PUBLIC}
