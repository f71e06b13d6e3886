"""AI calls by the official `openai` package of PyPI, which takes the gateway for OpenAI. npm's is among the end-to-end tests.

The sandbox answers them, and servers shaped as OpenAI's and Anthropic's (openai_upstream.py): tools, and calls that are left, which
these servers have to see within a second. The package is installed once, below WAKEGATE_CONFORMANCE_DIR.
"""
import json
import os
import subprocess
import sys
import time
import urllib.request

from suite import ROOT, Row, Skip, run_tool  # first: it says where the others are

sys.path.append(os.path.join(ROOT, "test", "e2e"))  # the scripted servers are the end-to-end tests'

import openai_upstream
from machine import Gateway

PYPI = "openai==3.57.0"
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_S = 180
LEFT_S = 1.0  # after a client has left, its provider knows it
SETTINGS = {"ADMIN_TOKEN": "conformance-only-token-of-the-operator-0123"}


def reason(text):
    return (text.strip().splitlines() or ["no reason given"])[-1]


def python_command(folder):
    target = os.path.join(folder, "python")
    stamp = os.path.join(target, PYPI)
    python = os.path.join(target, "bin", "python")
    if not os.path.exists(stamp):
        if run_tool([sys.executable, "-m", "venv", "--clear", target], 120)[0]:
            raise Skip("python3-venv is not installed")
        status, said = run_tool([python, "-m", "pip", "install", "--quiet", PYPI], 600)
        if status != 0:
            raise Skip(f"pip can't install {PYPI}: {reason(said)}")
        with open(stamp, "w", encoding="ascii"):
            pass
    return [python, "-B", os.path.join(HERE, "openai_clients.py")]


def accounts(gateway):
    """One with money and room, one without money, and one with ten requests a minute."""
    given = {"origin": gateway.origin}
    for name, plan, dollars in (("key", "enterprise", "10"), ("poor", "enterprise", None), ("few", "free", "1")):
        given[name] = gateway.admin("key", "create", "--account", f"openai-{name}", "--surface", "inference")["key"]
        gateway.admin("plan", "set", "--account", f"openai-{name}", "--surface", "inference", "--plan", plan)
        if dollars:
            gateway.admin("ledger", "credit", "--account", f"openai-{name}", "--amount", dollars)
    return given


def operate(gateway, verb, body):
    request = urllib.request.Request(f"{gateway.origin}/admin/v1/{verb}", json.dumps(body).encode(), {
        "Authorization": f"Bearer {SETTINGS['ADMIN_TOKEN']}", "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def provide(gateway, upstream):
    """The scripted models, known to every process when it returns."""
    for provider, kind, models in openai_upstream.PROVIDERS:
        url = upstream.anthropic_url if kind == "anthropic" else upstream.url
        operate(gateway, "provider/set", {"provider": provider, "kind": kind, "base_url": url,
                                          "api_key": openai_upstream.upstream.SECRET})
        for model in models:
            operate(gateway, "model/set", {"model": model, "routes": f"{provider}={model}"})
    for model in ("gpt-4", "gpt-4o-mini"):  # which nobody serves by itself, now that there is a provider
        operate(gateway, "model/set", {"model": model, "routes": "sandbox"})
    time.sleep(3)  # what a process knows of the catalogue is never older than two seconds


def left_checks(upstream, told):
    """Whether each call that a client has left was left at its provider too, in time."""
    for each in told:
        name = f"{each['left']}, at its provider"
        calls = upstream.of(each["left"])
        while calls and not calls[-1].left_at and time.monotonic() < each["at"] + 5:
            time.sleep(0.05)
        if len(calls) != 1:
            yield {"name": name, "problem": f"{len(calls)} calls came"}
            continue
        late = (calls[0].left_at or time.monotonic()) - each["at"]
        yield {"name": name, "problem": "" if calls[0].left_at and late < LEFT_S else f"not left within {late:.2f} s"}


def run_client(gateway, upstream, name, command):
    provide(gateway, upstream)
    done = subprocess.run(command, input=json.dumps(accounts(gateway)), capture_output=True, text=True, timeout=CLIENT_S)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    checks = [line for line in lines if "name" in line]
    checks += left_checks(upstream, [line for line in lines if "left" in line])
    failures = [f"{check['name']}: {check['problem']}" for check in checks if check["problem"]]
    if done.returncode:
        failures.append(done.stderr[-1000:])
    return Row("openai", name, len(checks) - len(failures), failures)


def run(bench):
    gateway = None
    upstream = openai_upstream.Upstream()
    try:
        command = python_command(os.path.join(bench.cache, "openai"))
        gateway = Gateway(bench.program, os.path.join(bench.folder, "gateway"), SETTINGS)
        return [run_client(gateway, upstream, "openai (PyPI)", command)]
    except Skip as skip:
        return [Row("openai", "openai (PyPI)", skipped=1, note=str(skip))]
    finally:
        upstream.close()
        if gateway:
            gateway.close()
