"""Load: wrk with load.lua, and requests one at a time over a connection of our own."""
import http.client
import json
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Broken(Exception):
    """Something did not work; that it is slow never counts as that."""


class Figures:
    """What one run of wrk has measured, with the server's CPU time in it."""

    def __init__(self, requests, duration_us, failed, refused, p50_us, p99_us, cpu_s):
        self.requests = requests
        self.per_second = requests * 1e6 / duration_us
        self.failed = failed
        self.refused = refused
        self.p50_ms = p50_us / 1e3
        self.p99_ms = p99_us / 1e3
        self.cpu_us = cpu_s * 1e6 / max(requests, 1)


def run_wrk(origin, paths, seconds, server, cores, connections=64, threads=1, pipeline=1, body=None, headers=()):
    """Runs wrk on `cores` against `server` (see machine.py), for the CPU time it takes meanwhile."""
    variables = dict(os.environ, BENCH_PATHS=" ".join(paths), BENCH_PIPELINE=str(pipeline),
                     BENCH_HEADERS="\n".join(headers))
    if body is not None:
        variables["BENCH_BODY"] = body
    cpu_before = server.cpu_seconds()
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, cores)), "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s",
         "--timeout", "15s", "-s", os.path.join(HERE, "load.lua"), origin],
        env=variables, capture_output=True, text=True, timeout=seconds + 60)
    cpu_s = server.cpu_seconds() - cpu_before
    for line in done.stdout.splitlines():
        if line.startswith("figures "):
            figures = Figures(*map(int, line.split()[1:]), cpu_s)
            break
    else:
        raise Broken(f"wrk on {origin}{paths[0]}: {done.stderr or done.stdout}")
    if figures.failed or figures.refused or not figures.requests:
        raise Broken(f"{origin}{paths[0]}: {figures.requests} answers, {figures.refused} of them errors, "
                     f"{figures.failed} connections failed")
    return figures


class Client:
    """One keep-alive connection to the gateway."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.headers = {"X-API-Key": server.key, "Content-Type": "application/json"}

    def call(self, method, path, body=None, expect=200, **headers):
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, {**self.headers, **headers})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != expect:
            raise Broken(f"{method} {path}: {answer.status} {data[:200]!r}, not {expect}")
        return json.loads(data)

    def create_session(self):
        return self.call("POST", "/session/create", {"user_id": "bench"}, expect=201)["uuid"]

    def chat(self, session):
        """Sends a message and waits for its answer; the milliseconds that took."""
        began = time.perf_counter()
        self.call("POST", f"/session/{session}/chat", {"message": "hello"}, Prefer="wait=30")
        return (time.perf_counter() - began) * 1e3

    def close(self):
        self.connection.close()
