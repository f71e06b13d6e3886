"""The official `openai` package of npm takes the gateway for OpenAI: models, completions, chats, streams, tools, its errors' classes,
clients that leave. Skipped where the package can't be had: it is fetched once, into build/deps.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time

import pytest

import openai_upstream
from fixtures import run_gateway
from wakegate import ROOT

# The last that runs on the node of every Debian that we build on; it needs nothing else.
PACKAGE = "openai@6.49.0"
FETCH_S = 60
CLIENT_S = 150
LEFT_S = 2.0  # after a client has left, its provider knows it


def fetch(folder):
    """With npm; whole or not at all, whoever else is at it."""
    if not shutil.which("npm"):
        pytest.skip(f"npm is not installed, and {PACKAGE} is not in {folder}")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    part = tempfile.mkdtemp(dir=os.path.dirname(folder))
    try:
        subprocess.run(["npm", "install", "--ignore-scripts", "--omit=peer", "--no-audit", "--no-fund", "--fetch-retries=0",
                        f"--fetch-timeout={FETCH_S * 500}", "--prefix", part, PACKAGE],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=True)
        if not os.path.isdir(folder):
            os.rename(part, folder)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not got {PACKAGE} within {FETCH_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm can't have {PACKAGE}: {(error.stderr.strip().splitlines() or ['no reason given'])[0]}")
    finally:
        shutil.rmtree(part, ignore_errors=True)


@pytest.fixture
def client(tmp_path):
    """The client's script, where its import is found."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    folder = os.path.join(ROOT, "build", "deps", "npm", PACKAGE)
    if not os.path.isdir(folder):
        fetch(folder)
    os.symlink(os.path.join(folder, "node_modules"), tmp_path / "node_modules")
    return shutil.copy(os.path.join(ROOT, "test", "e2e", "openai_client.mjs"), tmp_path)


@pytest.fixture
def calls(stores):
    yield from run_gateway(stores)


@pytest.fixture
def upstream():
    server = openai_upstream.Upstream()
    yield server
    server.close()


def accounts(gateway):
    """One with money and room, one without money, and one with ten requests a minute."""
    given = {"origin": gateway.url}
    for name, plan, dollars in (("key", "enterprise", "10"), ("poor", "enterprise", None), ("few", "free", "1")):
        account = f"openai-{name}"
        given[name] = gateway.admin("key", "create", "--account", account, "--surface", "inference")["key"]
        gateway.admin("plan", "set", "--account", account, "--surface", "inference", "--plan", plan)
        if dollars:
            gateway.admin("ledger", "credit", "--account", account, "--amount", dollars)
    return given


def operate(gateway, noun, **arguments):
    answer = gateway.operator(noun, "set", arguments)
    assert answer.status_code == 200, answer.text


def provide(gateway, upstream):
    """The scripted models, known to every process when it returns."""
    for provider, kind, models in openai_upstream.PROVIDERS:
        url = upstream.anthropic_url if kind == "anthropic" else upstream.url
        operate(gateway, "provider", provider=provider, kind=kind, base_url=url, api_key=openai_upstream.upstream.SECRET)
        for model in models:
            operate(gateway, "model", model=model, routes=f"{provider}={model}")
    for model in ("gpt-4", "gpt-4o-mini"):  # which would go to a provider of OpenAI's kind, now that there is one
        operate(gateway, "model", model=model, routes="sandbox")
    time.sleep(3)  # what a process knows of the catalogue is never older than two seconds


def lateness(upstream, left, at):
    """How long after its client the provider's call was left; None: it was not."""
    calls = upstream.of(left)
    while calls and not calls[-1].left_at and time.monotonic() < at + 5:
        time.sleep(0.05)
    return calls[0].left_at and calls[0].left_at - at if len(calls) == 1 else None


def test_the_package_takes_the_gateway_for_openai(calls, client, upstream):
    provide(calls, upstream)
    done = subprocess.run(["node", client], input=json.dumps(accounts(calls)), capture_output=True, text=True, timeout=CLIENT_S)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    checks = [line for line in told if "name" in line]
    problems = [f"{line['name']}: {line['problem']}" for line in checks if line["problem"]]
    assert len(checks) > 20 and not problems, "\n".join(problems)
    left = {line["left"]: lateness(upstream, **line) for line in told if "left" in line}
    assert set(left) == {name for name in openai_upstream.OPENAI if name.startswith("npm-")}
    assert all(late is not None and late < LEFT_S for late in left.values()), left
