"""AI calls that come all at once to a provider that allows ten: how many are served, whose, and how long the others wait to be told.
A part of run.py. What must hold of it is test/fault/test_ai_faults.py's, with fewer calls.
"""
import asyncio
import os
import resource
import threading
import time

from machine import Gateway, descendants, memory_kib
from report import heading, say

PLACES = 10
WAIT_MS = 10000
DELAY_MS = 500
HUNG_S = 60
MODEL = "bench-held"
BODY = ('{"model":"%s","max_tokens":64,"messages":[{"role":"user","content":"%s"}]}' % (MODEL, "x" * 500)).encode()


class Answers:
    def __init__(self):
        self.all = []  # (whose, status, has Retry-After, seconds)

    def of(self, status):
        return [answer for answer in self.all if answer[1] == status]


async def hold(port, key, whose, answers):
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json"
                     f"\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode() + BODY)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        answers.all.append((whose, int(head.split()[1]), b"retry-after:" in head.lower(), time.monotonic() - began))
    finally:
        writer.close()


async def hold_all(port, keys, count, answers):
    """Nine of ten are one account's."""
    held = [asyncio.ensure_future(hold(port, keys["few" if number % 10 == 0 else "many"],
                                       "few" if number % 10 == 0 else "many", answers)) for number in range(count)]
    _, hung = await asyncio.wait(held, timeout=HUNG_S)
    for each in hung:
        each.cancel()
    results = await asyncio.gather(*held, return_exceptions=True)
    return len(hung), sum(isinstance(result, Exception) for result in results)


def parts_of(gateway):
    parts = {"serve": gateway.serve, "work": gateway.work}
    for pid in descendants(gateway.process.pid):
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            if file.read().startswith("redis"):
                parts["redis"] = pid
    return parts


class Watch:
    """The most memory of each part, and of calls at the provider."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.parts = parts_of(gateway)
        self.before = {name: memory_kib(pid) for name, pid in self.parts.items()}
        self.most = dict(self.before)
        self.in_flight = self.waiting = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ending.wait(0.5):
            for name, pid in self.parts.items():
                self.most[name] = max(self.most[name], memory_kib(pid))
            state = self.gateway.admin("provider", "show", MODEL)
            self.in_flight = max(self.in_flight, state["in_flight"])
            self.waiting = max(self.waiting, state["waiting"])

    def end(self):
        self.ending.set()
        self.thread.join()


def prepare(gateway):
    keys = {}
    for whose in ("many", "few"):
        keys[whose] = gateway.admin("key", "create", "--account", whose, "--surface", "inference")["key"]
        gateway.admin("plan", "set", "--account", whose, "--surface", "inference", "--plan", "enterprise")
        gateway.admin("ledger", "credit", whose, "--amount", "1000")
        for name in ("inference-key", "inference-minute", "inference-day"):
            gateway.admin("plan", "limit", "--account", whose, "--name", name, "--most", "1000000000")
    gateway.admin("provider", "set", MODEL, "--kind", "sandbox", "--max-in-flight", str(PLACES), "--queue-wait-ms", str(WAIT_MS),
                  "--queue-calls", "20000", "--delay-ms", str(DELAY_MS))
    gateway.admin("model", "set", MODEL, "--routes", f"{MODEL}=sandbox", "--price-in", "0.15", "--price-out", "0.6")
    time.sleep(3)  # until all know of them
    return keys


def tell(count, answers, watch, hung, broken):
    served = answers.of(200)
    statuses = ", ".join(f"{len(answers.of(status))} x {status}" for status in sorted({answer[1] for answer in answers.all}))
    refused = [answer for answer in answers.all if answer[1] != 200]
    say("answered", f"{len(answers.all):,} of {count:,}", f"{statuses}; {hung} hung, {broken - hung} connections broken")
    say("served, of the account with a tenth of them", f"{sum(answer[0] == 'few' for answer in served):,}", f"of {len(served):,}")
    say("longest until an answer", f"{max((answer[3] for answer in answers.all), default=0):.1f} s",
        f"they may wait for {WAIT_MS / 1000:.0f} s; {sum(answer[2] for answer in refused):,} of {len(refused):,} "
        "refusals say when to come again")
    say("most at once: at the provider", f"{watch.in_flight}", f"{PLACES} allowed; {watch.waiting:,} in its line")
    say("memory, most", f"{sum(watch.most.values()) / 1024:.0f} MiB",
        ", ".join(f"{name} {watch.before[name] / 1024:.0f} -> {watch.most[name] / 1024:.0f}" for name in watch.parts))


def measure_held(plan, program, folder):
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    heading(f"{plan.held:,} AI calls at once for a provider that allows {PLACES} and takes {DELAY_MS} ms for each")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gateway = Gateway(program, os.path.join(folder, "data"), {"LOG_LEVEL": "info"})
    try:
        keys = prepare(gateway)
        answers = Answers()
        watch = Watch(gateway)
        try:
            hung, broken = asyncio.run(hold_all(gateway.port, keys, plan.held, answers))
        finally:
            watch.end()
        tell(plan.held, answers, watch, hung, broken)
    finally:
        gateway.close()
