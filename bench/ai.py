"""AI calls: what the way through queue, ledger and worker costs beside a call of the same upstream. A part of run.py.

The upstream is nginx with a fixed answer, so that all that is measured on top is ours. Direct calls and calls through the gateway are
made by the same client at the same rate, in turn.
"""
import os
import subprocess
import time

from clients import build
from load import Broken
from machine import Gateway, cores, cpu_seconds, descendants, free_port
from peers import Nginx
from report import heading, median, say

RATE = 500
# Who is woken in turn by an unstreamed call, between its client and its client: server, Redis, worker, upstream, worker, Redis, server.
HOPS = 7
CONNECTIONS = 64
ANSWER = ('{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":'
          '"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,'
          '"completion_tokens":9,"total_tokens":18}}')
CHUNK = ('data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
         '{"content":"%s"},"finish_reason":%s}]}')
STREAM = "\n\n".join([CHUNK % (word, "null") for word in ("Hello!", " How", " can", " I", " help?")]
                     + [CHUNK % ("", '"stop"'), "data: [DONE]", ""])


class Figures:
    def __init__(self, line):
        count, duration_us, p50, p99, first_p50, first_p99, cpu_us = map(int, line.split()[1:])
        self.count = count
        self.per_second = count * 1e6 / duration_us
        self.p50_ms, self.p99_ms, self.first_p50_ms, self.first_p99_ms = (us / 1e3 for us in (p50, p99, first_p50, first_p99))
        self.client_cpu_us = cpu_us / count


class Upstream(Nginx):
    """Answers each call with the same answer, or the same stream."""

    def __init__(self, folder):
        self.port = free_port()
        stream = STREAM.replace("\n", "\\n")
        # On one core it would wait behind whoever has that one while another is idle, and only in the calls through the gateway.
        anywhere = ",".join(map(str, cores()[2]))
        super().__init__(folder, anywhere, f"""
    server {{
        listen 127.0.0.1:{self.port} backlog=1024;
        access_log off;
        location /whole/ {{ return 200 '{ANSWER}'; }}
        location /stream/ {{ types {{ }} default_type text/event-stream; return 200 '{stream}'; }}
    }}""", self.port)


def body_of(model, stream):
    return ('{"model":"%s","stream":%s,"max_tokens":100,"messages":[{"role":"user","content":"Hello there, what is the '
            'capital of France?"}]}' % (model, "true" if stream else "false"))


class Caller:
    def __init__(self, program, gateway, upstream, key):
        self.program = program
        self.gateway = gateway
        self.upstream = upstream
        self.key = key

    def run(self, port, path, model, stream, seconds, rate=0, connections=CONNECTIONS):
        done = subprocess.run([self.program, str(port), path, self.key, body_of(model, stream), str(seconds),
                               str(connections), str(rate)], capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode:
            raise Broken(f"calls {path} {model}: {done.stderr[:500]}")
        return Figures(done.stdout)

    def direct(self, stream, seconds, rate=RATE):
        return self.run(self.upstream.port, "/stream/" if stream else "/whole/", "m", stream, seconds, rate)

    def through(self, model, stream, seconds, rate=RATE, connections=CONNECTIONS):
        return self.run(self.gateway.port, "/v1/chat/completions", model, stream, seconds, rate, connections)


def prepare(gateway, upstream):
    key = gateway.limited_key()
    gateway.admin("ledger", "credit", "bench", "--amount", "100000")
    gateway.admin("plan", "set", "--account", "bench", "--surface", "inference", "--plan", "enterprise")
    for kind in ("whole", "stream"):
        gateway.admin("provider", "set", f"up-{kind}", "--kind", "openai", "--max-in-flight", "4096",
                      "--base-url", f"http://127.0.0.1:{upstream.port}/{kind}")
        gateway.admin("model", "set", f"bench-{kind}", "--routes", f"up-{kind}=m", "--price-in", "0.15", "--price-out", "0.6")
    time.sleep(3)  # until all know of them
    return key


def cpu_of_parts(gateway):
    """CPU seconds of the gateway's programs, its stores among them: part -> pid -> seconds. Processes of PostgreSQL come and go."""
    parts = {}
    for pid in descendants(gateway.process.pid):
        try:
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            seconds = cpu_seconds(pid)
        except OSError:
            continue
        name = {gateway.serve: "serve", gateway.work: "work"}.get(pid, name.split("-")[0])
        if name in ("serve", "work", "redis", "postgres"):
            parts.setdefault(name, {})[pid] = seconds
    return parts


def measure_hops(plan, program):
    done = subprocess.run([program, str(HOPS), str(RATE), str(2 * plan.seconds)], capture_output=True, text=True,
                          timeout=2 * plan.seconds + 60)
    if done.returncode:
        raise Broken(f"hops: {done.stderr[:500]}")
    return [int(word) / 1e3 for word in done.stdout.split()[2:]]


def measure_latency(plan, caller, hops):
    seconds = 2 * plan.seconds
    floor = [measure_hops(plan, hops) for _ in range(plan.rounds)]
    say(f"{HOPS} processes that only hand on, at {RATE}/s, p50", f"{median(p50 for p50, _ in floor):.2f} ms",
        f"p99 {median(p99 for _, p99 in floor):.2f} ms: as many are woken by a call")
    rounds = [(caller.direct(False, seconds), caller.through("bench-whole", False, seconds),
               caller.direct(True, seconds), caller.through("bench-stream", True, seconds)) for _ in range(plan.rounds)]
    for title, goal, own in (("unstreamed, p50", "0.5 ms", lambda r: r[1].p50_ms - r[0].p50_ms),
                             ("unstreamed, p99", "2 ms", lambda r: r[1].p99_ms - r[0].p99_ms),
                             ("first byte of a stream, p50", "1 ms", lambda r: r[3].first_p50_ms - r[2].first_p50_ms),
                             ("first byte of a stream, p99", "-", lambda r: r[3].first_p99_ms - r[2].first_p99_ms)):
        say(f"added at {RATE}/s: {title}", f"{median(map(own, rounds)):.2f} ms",
            f"direct {median(r[2].first_p50_ms if 'first' in title else r[0].p50_ms for r in rounds):.2f} ms p50; goal <= {goal}")


def measure_rate(plan, caller, title, model, stream, connections):
    rates, costs = [], []
    for _ in range(plan.rounds):
        before = cpu_of_parts(caller.gateway)
        figures = caller.through(model, stream, plan.seconds, 0, connections)
        after = cpu_of_parts(caller.gateway)
        costs.append({name: sum(seconds - before.get(name, {}).get(pid, 0) for pid, seconds in pids.items()) * 1e6 / figures.count
                      for name, pids in after.items()})
        rates.append(figures)
    cpu = ", ".join(f"{name} {median(cost[name] for cost in costs):.0f}" for name in sorted(costs[0]))
    say(title, f"{median(f.per_second for f in rates):,.0f}/s",
        f"{connections} at once, p50 {median(f.p50_ms for f in rates):.1f} ms; CPU us a call: {cpu}; goal >= 5,000/s")


def measure_ai(plan, program, folder):
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    heading(f"AI calls: queue, ledger, worker, settled; nginx as the upstream; {plan.rounds} rounds of {plan.seconds} s, medians")
    gateway = upstream = None
    try:
        gateway = Gateway(program, os.path.join(folder, "data"), {"LOG_LEVEL": "info"})
        upstream = Upstream(os.path.join(folder, "upstream"))
        caller = Caller(build("calls", folder), gateway, upstream, prepare(gateway, upstream))
        measure_latency(plan, caller, build("hops", folder))
        measure_rate(plan, caller, "calls of the sandbox", "sandbox", False, 256)
        measure_rate(plan, caller, "calls of the upstream", "bench-whole", False, 256)
        measure_rate(plan, caller, "streams of the upstream", "bench-stream", True, 256)
    finally:
        for server in (upstream, gateway):
            if server:
                server.close()
