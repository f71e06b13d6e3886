"""AI calls by the official `openai` packages of npm and PyPI, which take the gateway for OpenAI.

The sandbox answers them, and servers shaped as OpenAI's and Anthropic's (openai_upstream.py): tools, and calls that are left, which
these servers have to see within a second. The packages are installed once, below WAKEGATE_CONFORMANCE_DIR.
"""
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

from suite import Row, Skip, run_tool  # first: it says where the others are

import openai_upstream
from machine import Gateway

NPM, PYPI = "openai@7", "openai==3.57.0"
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_S = 180
LEFT_S = 1.0  # after a client has left, its provider knows it
SETTINGS = {"ADMIN_TOKEN": "conformance-only-token-of-the-operator-0123"}


def reason(text):
    return (text.strip().splitlines() or ["no reason given"])[-1]


def node_command(folder):
    if not shutil.which("node") or not shutil.which("npm"):
        raise Skip("node and npm are not installed")
    if not os.path.isdir(os.path.join(folder, "node_modules", "openai")):
        os.makedirs(folder, exist_ok=True)
        status, said = run_tool(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, NPM], 300)
        if status:
            raise Skip(f"npm can't have {NPM}: {reason(said)}")
    script = shutil.copy(os.path.join(HERE, "openai_clients.mjs"), folder)  # where its imports are found
    return ["node", script]


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
    for provider, kind, url, models in (("scripted", "openai", upstream.url, openai_upstream.OPENAI),
                                        ("scripted-claude", "anthropic", upstream.anthropic_url, openai_upstream.ANTHROPIC)):
        operate(gateway, "provider/set", {"provider": provider, "kind": kind, "base_url": url,
                                          "api_key": openai_upstream.upstream.SECRET})
        for model in models:
            operate(gateway, "model/set", {"model": model, "routes": f"{provider}={model}"})
    for model in ("gpt-4", "gpt-4o-mini"):  # which would go to a provider of OpenAI's kind, now that there is one
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
    rows = []
    folder = os.path.join(bench.cache, "openai")
    for name, command_of in (("openai (npm)", node_command), ("openai (PyPI)", python_command)):
        gateway = None
        upstream = openai_upstream.Upstream()
        try:
            command = command_of(folder)
            gateway = Gateway(bench.program, os.path.join(bench.folder, command_of.__name__), SETTINGS)
            rows.append(run_client(gateway, upstream, name, command))
        except Skip as skip:
            rows.append(Row("openai", name, skipped=1, note=str(skip)))
        finally:
            upstream.close()
            if gateway:
                gateway.close()
    return rows
