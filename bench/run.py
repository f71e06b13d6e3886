"""Measures the release build, beside nginx in the same run. `make bench [ARGS=--quick]`.

Answers that cost the reactor alone are measured with one reactor and one nginx worker on the same core, in turn,
round by round, with wrk on another core; PostgreSQL and Redis run on wrk's. Figures drift with the machine's mood,
ratios hold: each is the median of the rounds' ratios. Where others use the cores as well, the ratio of the CPU time
that an answer costs is the one to trust. The rest (commits, pods, jobs) is what the whole machine does, with nothing
pinned.

It judges nothing: the goals stand beside the figures, and it only fails when something does not work.
"""
import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from http.client import HTTPException

import ai
import fetching
import front
import held
import streams
import webhooks
from load import Broken, Client, run_wrk
from machine import Gateway, cores, cpu_seconds, facts, memory_kib
from peers import PlainNginx
from report import heading, median, p95, say

PIPELINE = 16
ROUND_TRIPS = "wakegate_limit_round_trips_total"
IDLE_CONNECTIONS = 1000


class Plan:
    """How long everything takes."""

    def __init__(self, quick):
        self.rounds = 2 if quick else 5
        self.seconds = 1 if quick else 3
        self.wakes = 5 if quick else 20
        self.volatile_jobs = 20000 if quick else 200000
        self.durable_jobs = 5000 if quick else 40000
        self.idle_s = 2 if quick else 5
        self.sockets = 2000 if quick else 10000
        self.storm = 1000 if quick else 5000
        self.deliveries = 5000 if quick else 60000
        self.tests = 50 if quick else 500
        self.held = 2000 if quick else 10000


# ---- what costs the reactor alone ----

def reactor_cases(gateway, nginx, session):
    key = [f"X-API-Key: {gateway.key}"]
    limited = [f"Authorization: Bearer {gateway.limited_key()}"]
    status = f"/session/{session}/status"
    return {
        "nginx": lambda **run: run_wrk(nginx.origin, ["/health"], server=nginx, **run),
        "nginx, log": lambda **run: run_wrk(nginx.logging_origin, ["/health"], server=nginx, **run),
        "health": lambda **run: run_wrk(gateway.origin, ["/health"], server=gateway, **run),
        "status": lambda **run: run_wrk(gateway.origin, [status], server=gateway, headers=key, **run),
        "whoami": lambda **run: run_wrk(gateway.origin, ["/api/v1/whoami"], server=gateway, headers=limited, **run),
        "nginx, pipelined": lambda **run: run_wrk(nginx.origin, ["/health"], server=nginx, pipeline=PIPELINE, **run),
        "nginx, log, pipelined": lambda **run: run_wrk(nginx.logging_origin, ["/health"], server=nginx,
                                                       pipeline=PIPELINE, **run),
        "health, pipelined": lambda **run: run_wrk(gateway.origin, ["/health"], server=gateway, pipeline=PIPELINE,
                                                   **run),
    }


REACTOR_ROWS = (
    ("nginx", "nginx, `return 200`, no log", None),
    ("nginx, log", "nginx, buffered access log", None),
    ("health", "GET /health", 1.0),
    ("status", "GET /session/{uuid}/status, key and limit", 0.6),
    ("whoami", "GET /api/v1/whoami, key and four limits", 0.6),
    ("nginx, pipelined", f"nginx, {PIPELINE} requests at once, no log", None),
    ("nginx, log, pipelined", f"nginx, {PIPELINE} requests at once, log", None),
    ("health, pipelined", f"GET /health, {PIPELINE} requests at once", 4.0),
)


def measure_reactor(plan, gateway, nginx, session):
    server_core, load_core, _ = cores()
    gateway.pin({server_core}, {load_core})
    cases = reactor_cases(gateway, nginx, session)
    asked = gateway.metric(ROUND_TRIPS)
    rounds = [{name: case(seconds=plan.seconds, cores=[load_core]) for name, case in cases.items()}
              for _ in range(plan.rounds)]
    asked = gateway.metric(ROUND_TRIPS) - asked
    limited = sum(round_[name].requests for round_ in rounds for name in ("status", "whoami"))
    heading(f"One reactor on one core, request log on; 64 connections; {plan.rounds} rounds of {plan.seconds} s, medians")
    say("", "requests/s", f"{'x nginx':<9}{'x its log':<11}{'x its kind':<12}{'CPU us':<8}{'x by CPU':<10}{'p99 ms':<8}goal")
    for name, title, goal in REACTOR_ROWS:
        def ratio(other):
            return f"{median(round_[name].per_second / round_[other].per_second for round_ in rounds):.2f}"
        p99 = median(round_[name].p99_ms for round_ in rounds)
        by_cpu = median(round_["nginx"].cpu_us / round_[name].cpu_us for round_ in rounds)
        kind = "nginx, pipelined" if "pipelined" in name else "nginx"
        say(title, f"{median(round_[name].per_second for round_ in rounds):,.0f}",
            f"{ratio('nginx'):<9}{ratio('nginx, log'):<11}{ratio(kind):<12}"
            f"{median(round_[name].cpu_us for round_ in rounds):<8.2f}{by_cpu:<10.2f}"
            f"{f'{p99:.2f}' if kind == 'nginx' else '-':<8}"  # wrk times the first of those at once
            f"{f'>= {goal:.1f} x nginx' if goal else ''}")
    say("round trips to Redis for limits", f"{asked / limited:.4f}", f"a request that is limited ({limited:,.0f}); goal <= 1")
    gateway.pin(*[set(cores()[2])] * 2)


# ---- what the whole machine does ----

def measure_create(plan, gateway):
    figures = [run_wrk(gateway.origin, ["/session/create"], plan.seconds, gateway, cores()[2],
                       body='{"user_id":"bench"}', headers=[f"X-API-Key: {gateway.key}"])
               for _ in range(plan.rounds)]
    say("POST /session/create, committed", f"{median(f.per_second for f in figures):,.0f}/s",
        f"64 connections, p50 {median(f.p50_ms for f in figures):.1f} ms, "
        f"p99 {median(f.p99_ms for f in figures):.1f} ms")


def measure_wakes(plan, gateway):
    client = Client(gateway)
    wakes, answers = [], []
    for _ in range(plan.wakes):
        session = gateway.new_session(client)
        wakes.append(client.chat(session))
        answered = time.time()
        awake_at = gateway.awake_at(session)
        deadline = time.monotonic() + 5  # the log's lines are written a moment later
        while awake_at is None:
            if time.monotonic() > deadline:
                raise Broken("the worker's log does not tell when the pod was awake")
            time.sleep(0.005)
            awake_at = gateway.awake_at(session)
        answers.append((answered - awake_at) * 1e3)
        gateway.end_sessions()
    client.close()
    say("wake: message to a sleeping pod, answered", f"{median(wakes):.0f} ms",
        f"p95 {p95(wakes):.0f} ms, {len(wakes)} fresh sessions in turn; goal <= 150 ms")
    say("wake: pod awake to answered", f"{median(answers):.0f} ms", f"p95 {p95(answers):.0f} ms; goal <= 50 ms")


def measure_jobs(plan, gateway):
    for title, count, durable, goal in (
            ("jobs that do nothing, volatile", plan.volatile_jobs, False, 25000),
            ("jobs that do nothing, durable", plan.durable_jobs, True, 6000)):
        rates = [gateway.ping_jobs(count, durable) for _ in range(min(plan.rounds, 3))]
        say(title, f"{median(rates):,.0f}/s", f"{count:,} a time; goal >= {goal:,}/s")


def measure_chat(plan, gateway):
    for count in (1, 16):
        client = Client(gateway)
        sessions = [gateway.new_session(client) for _ in range(count)]
        for session in sessions:
            client.chat(session)
        client.close()
        figures = run_wrk(gateway.origin, [f"/session/{session}/chat" for session in sessions], 2 * plan.seconds,
                          gateway, cores()[2], connections=count, threads=count, body='{"message":"hello"}',
                          headers=[f"X-API-Key: {gateway.key}"])
        gateway.end_sessions()
        say(f"chat with {count} awake pod{'s' if count > 1 else ''}", f"{figures.per_second:,.0f}/s",
            f"p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms")


def measure_idle(plan, gateway):
    def settled(pid):
        before = cpu_seconds(pid)
        time.sleep(plan.idle_s)
        return (cpu_seconds(pid) - before) / plan.idle_s * 100

    before_kib = memory_kib(gateway.serve)
    clients = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            clients.append(Client(gateway))
            clients[-1].call("GET", "/health")
        each_kib = (memory_kib(gateway.serve) - before_kib) / IDLE_CONNECTIONS
    finally:
        for client in clients:
            client.close()
    say("memory of an idle connection", f"{each_kib:.1f} KiB", f"{IDLE_CONNECTIONS} of them; goal <= 4 KiB")
    say("CPU of serve and work, idle", f"{settled(gateway.serve):.1f}, {settled(gateway.work):.1f} %", "of one core")


WHOLE_PARTS = {"create": measure_create, "wakes": measure_wakes, "jobs": measure_jobs, "chat": measure_chat}
FRONT_PARTS = {"tls": front.measure_tls, "proxy": front.measure_proxy, "websocket": front.measure_websocket,
               "slow": front.measure_slow, "streams": streams.measure_streams, "fetch": fetching.measure_fetch}
PARTS = ["idle", "reactor", *WHOLE_PARTS, *FRONT_PARTS, "webhooks", "ai", "held"]


def measure(plan, program, folder, parts):
    print(facts(), flush=True)
    if "webhooks" in parts:
        webhooks.measure_webhooks(plan, program, os.path.join(folder, "webhooks"))
    if "ai" in parts:
        ai.measure_ai(plan, program, os.path.join(folder, "ai"))
    if "held" in parts:
        held.measure_held(plan, program, os.path.join(folder, "held"))
    if set(parts) <= {"webhooks", "ai", "held"}:
        return
    gateway = nginx = None
    try:
        gateway = Gateway(program, os.path.join(folder, "data"))
        if "idle" in parts:  # first, while the memory that load leaves behind is not there to be used again
            heading("Idle")
            measure_idle(plan, gateway)
        if "reactor" in parts:
            nginx = PlainNginx(os.path.join(folder, "nginx"), cores()[0])
            client = Client(gateway)
            session = gateway.new_session(client)
            client.close()
            measure_reactor(plan, gateway, nginx, session)
        whole = [name for name in WHOLE_PARTS if name in parts]
        if whole:
            heading("The whole machine, nothing pinned, medians")
        for name in whole:
            WHOLE_PARTS[name](plan, gateway)
        for name in FRONT_PARTS:
            if name in parts:
                FRONT_PARTS[name](plan, gateway, os.path.join(folder, name))
    finally:
        for server in (nginx, gateway):
            if server:
                server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--keep", action="store_true", help="leave the folder with data and logs, and say where it is")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {' '.join(PARTS)}")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {' '.join(unknown)}")
    program = os.environ.get("WAKEGATE_BIN")
    if not program or not os.access(program, os.X_OK):
        parser.error("WAKEGATE_BIN must name the program: use `make bench`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = tempfile.mkdtemp(prefix="wakegate-bench-")
    os.chmod(folder, 0o711)  # PostgreSQL's user and the pods' pass through it
    try:
        measure(Plan(options.quick), program, folder, options.parts or PARTS)
    except (Broken, OSError, HTTPException) as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"data and logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
