"""LiteLLM's proxy (PyPI) beside the gateway: the same calls, at the same concurrency, to the same upstream, round by round.

The upstream is nginx, which answers each chat with the same body at once, so what is measured is the two in between. Nothing is
pinned: both have the whole machine, LiteLLM a worker process for each core. LiteLLM keeps no books here (it has no database),
the gateway does: its ledger has to add up afterwards. Where others use the cores as well, the ratio by CPU time, of all processes
of each, is the one to trust: the goal is asked of both.
"""
import contextlib
import json
import os
import shutil
import sys
import time

from suite import Row, Skip, run_tool  # first: it says where the others are

from load import Broken, run_wrk
from machine import Gateway, cores, cpu_seconds, descendants, free_port
from peers import Nginx, Peer, peer_folder
from report import median

# Not the last one: 1.110.2 asks for a package that PyPI does not have.
PACKAGE = "litellm[proxy]==1.100.5"
INSTALL_S = 900
GOAL = 10.0  # times LiteLLM's calls a second
CONNECTIONS = 64
ROUNDS, SECONDS = 3, 4
WARM_UP_S = 60
SETTLE_S, IDLE_SHARE = 60, 0.1  # of a core
PATH = "/v1/chat/completions"
KEY = "sk-conformance"
MODEL = "bench"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say something short"}], "max_tokens": 64})
ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Something short " * 16}, "logprobs": None,
                 "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 48, "total_tokens": 60}})
CONFIG = """
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {url}/v1
      api_key: {key}
general_settings:
  master_key: {key}
"""
# It asks for nothing from outside. Like ours, its log of requests is on.
VARIABLES = ["LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_MODE=PRODUCTION", "LITELLM_LOG=ERROR", "NO_DOCS=True",
             "DISABLE_ADMIN_UI=True", "DO_NOT_TRACK=1"]


def install(folder):
    """The program, in a virtual environment where pip is asked once. Wheels only: nothing of a package runs as it comes."""
    target = os.path.join(folder, "litellm")
    program = os.path.join(target, "bin", "litellm")
    stamp = os.path.join(target, PACKAGE)
    if os.path.exists(stamp):
        return program
    if run_tool([sys.executable, "-m", "venv", "--clear", target], 120)[0]:
        raise Skip("python3-venv is not installed")
    status, said = run_tool([os.path.join(target, "bin", "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:",
                             PACKAGE], INSTALL_S)
    if status is None:
        raise Skip(f"pip did not get {PACKAGE} in time")
    if status:
        raise Skip(f"pip can't install {PACKAGE}: {(said.strip().splitlines() or ['no reason given'])[-1]}")
    with open(stamp, "w", encoding="ascii"):
        pass
    return program


class Upstream(Nginx):
    def __init__(self, folder):
        port = free_port()
        self.origin = f"http://127.0.0.1:{port}"
        super().__init__(folder, ",".join(map(str, cores()[2])), f"""
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log off;
        location {PATH} {{ return 200 '{ANSWER}'; }}
    }}""", port)


class Tree:
    """CPU time of a server with all its processes."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_seconds(self):
        used = 0.0
        for pid in [self.pid, *descendants(self.pid)]:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has ended meanwhile
                used += cpu_seconds(pid)
        return used


class LiteLlm(Peer):
    def __init__(self, program, folder, upstream):
        peer_folder(folder)
        port = free_port()
        self.origin = f"http://127.0.0.1:{port}"
        path = os.path.join(folder, "config.yaml")
        with open(path, "w", encoding="ascii") as file:
            file.write(CONFIG.format(model=MODEL, url=upstream.origin, key=KEY))
        super().__init__("litellm", folder, ",".join(map(str, cores()[2])), [
            "env", "-C", folder, *VARIABLES, program, "--config", path, "--host", "127.0.0.1", "--port", str(port),
            "--num_workers", str(len(cores()[2])), "--telemetry", "False"], port)


def prepare(gateway, upstream):
    """A key whose limits and money no measurement reaches, and the model."""
    key = gateway.limited_key()
    gateway.admin("ledger", "credit", "--account", "bench", "--amount", "1000000")
    os.environ["WAKEGATE_PROVIDER_KEY"] = KEY
    try:
        gateway.admin("provider", "set", "upstream", "--kind", "openai", "--base-url", upstream.origin + "/v1")
    finally:
        del os.environ["WAKEGATE_PROVIDER_KEY"]
    gateway.admin("model", "set", MODEL, "--routes", "upstream")
    time.sleep(3)  # what a process knows of the catalogue is never older than two seconds
    return key


class Case:
    def __init__(self, name, origin, key, pid):
        self.name = name
        self.origin = origin
        self.key = key
        self.server = Tree(pid)
        self.many, self.one = [], []

    def run(self, seconds, connections):
        """Figures of its own run alone: what it does afterwards for these calls counts as theirs, and delays nobody else's."""
        before = self.server.cpu_seconds()
        figures = run_wrk(self.origin, [PATH], seconds, self.server, cores()[2], connections=connections, body=BODY,
                          headers=[f"Authorization: Bearer {self.key}"])
        self.settle()
        figures.cpu_us = (self.server.cpu_seconds() - before) * 1e6 / figures.requests
        return figures

    def settle(self):
        deadline = time.monotonic() + SETTLE_S
        used = None
        while used is None or used > IDLE_SHARE:
            if time.monotonic() > deadline:
                raise Broken(f"{self.name} is still at work {SETTLE_S} s after its last call")
            before = self.server.cpu_seconds()
            time.sleep(0.5)
            used = (self.server.cpu_seconds() - before) / 0.5

    def warm_up(self):
        """Until it answers (workers start one after the other), and then until it has stopped getting faster: LiteLLM takes many
        seconds for that."""
        deadline = time.monotonic() + WARM_UP_S
        best, since = 0.0, 0
        while since < 2 and time.monotonic() < deadline:
            try:
                rate = self.run(2, CONNECTIONS).per_second
            except Broken:
                rate = 0.0
                time.sleep(1)
            since = since + 1 if 0 < rate <= 1.1 * best else 0
            best = max(best, rate)

    def of(self, runs, what):
        return median(getattr(run, what) for run in runs)


def measure(cases):
    for case in cases:
        case.warm_up()
    for _ in range(ROUNDS):
        for case in cases:
            case.many.append(case.run(SECONDS, CONNECTIONS))
    for _ in range(ROUNDS):
        for case in cases:
            case.one.append(case.run(3, 1))


def tell(cases, direct):
    print(f"  {CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s, medians; then one connection")
    for case in cases:
        added = case.of(case.one, "p50_ms") - direct.of(direct.one, "p50_ms")
        print(f"  {case.name:<10} {case.of(case.many, 'per_second'):>9,.0f} calls/s  p50 {case.of(case.many, 'p50_ms'):8.2f} ms  "
              f"p99 {case.of(case.many, 'p99_ms'):8.2f} ms  CPU {case.of(case.many, 'cpu_us'):8.0f} us a call;  "
              f"alone p50 {case.of(case.one, 'p50_ms'):6.2f} ms, added {added:6.2f} ms", flush=True)


def judge(gateway, cases):
    direct, ours, theirs = cases
    ratio = median(our.per_second / their.per_second for our, their in zip(ours.many, theirs.many))
    by_cpu = theirs.of(theirs.many, "cpu_us") / ours.of(ours.many, "cpu_us")
    added = [case.of(case.one, "p50_ms") - direct.of(direct.one, "p50_ms") for case in (ours, theirs)]
    told = gateway.admin("ledger", "check")
    checks = (
        (ratio >= GOAL, f"{ratio:.1f} x LiteLLM's calls/s, goal {GOAL:.0f}"),
        (by_cpu >= GOAL, f"{by_cpu:.1f} x LiteLLM's calls by CPU time, goal {GOAL:.0f}"),
        (added[0] < added[1], f"{added[0]:.2f} ms are added to a call, by LiteLLM {added[1]:.2f}"),
        (told["sound"] and not told["violations"], f"the ledger: {told['violations']}"),
    )
    failures = [text for good, text in checks if not good]
    return Row("litellm", "calls/s and added latency", len(checks) - len(failures), failures,
               note=f"{ours.of(ours.many, 'per_second'):,.0f}/s, {ratio:.1f} x LiteLLM ({by_cpu:.1f} x by CPU time); "
                    f"added {added[0]:.2f} ms, LiteLLM {added[1]:.2f} ms")


def run(bench):
    for tool in ("nginx", "wrk"):
        if not shutil.which(tool):
            raise Skip(f"{tool} is not installed")
    program = install(bench.cache)
    servers = []
    try:
        upstream = Upstream(os.path.join(bench.folder, "upstream"))
        servers.append(upstream)
        gateway = Gateway(bench.program, os.path.join(bench.folder, "data"), {"REACTORS": "0"})
        servers.append(gateway)
        key = prepare(gateway, upstream)
        litellm = LiteLlm(program, os.path.join(bench.folder, "litellm"), upstream)
        servers.append(litellm)
        cases = [Case("direct", upstream.origin, KEY, upstream.process.pid),
                 Case("wakegate", gateway.origin, key, gateway.process.pid),
                 Case("LiteLLM", litellm.origin, KEY, litellm.process.pid)]
        measure(cases)
        tell(cases, cases[0])
        return [judge(gateway, cases)]
    finally:
        while servers:
            servers.pop().close()
