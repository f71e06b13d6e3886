"""AI calls by the official `openai` packages of npm and PyPI, which take the gateway for OpenAI.

The packages are installed once, below WAKEGATE_CONFORMANCE_DIR.
"""
import json
import os
import shutil
import subprocess
import sys

from suite import Row, Skip, run_tool  # first: it says where the others are

from machine import Gateway

NPM, PYPI = "openai@7", "openai==3.57.0"
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_S = 180


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


def run_client(gateway, name, command):
    done = subprocess.run(command, input=json.dumps(accounts(gateway)), capture_output=True, text=True, timeout=CLIENT_S)
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    failures = [f"{check['name']}: {check['problem']}" for check in checks if check["problem"]]
    if done.returncode:
        failures.append(done.stderr[-1000:])
    return Row("openai", name, len(checks) - len(failures), failures)


def run(bench):
    rows = []
    folder = os.path.join(bench.cache, "openai")
    for name, command_of in (("openai (npm)", node_command), ("openai (PyPI)", python_command)):
        gateway = None
        try:
            command = command_of(folder)
            gateway = Gateway(bench.program, os.path.join(bench.folder, command_of.__name__))
            rows.append(run_client(gateway, name, command))
        except Skip as skip:
            rows.append(Row("openai", name, skipped=1, note=str(skip)))
        finally:
            if gateway:
                gateway.close()
    return rows
