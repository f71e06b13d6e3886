"""The HTTP client beside libcurl as its documentation shows it, and wrk. A part of run.py.

The client is on the first core, the server on the last. Figures are taken in rounds, in turn; as the client's own CPU time
is what counts, ratios are of that too.
"""
import os
import subprocess
from contextlib import closing

from front import in_rounds
from load import Broken, Figures, run_wrk
from machine import cores, stop
from peers import PlainNginx
from report import compare_clients, heading

CALLERS = 64
STREAMS = 100
CHUNKS_PER_SECOND = 40000


def run_fetches(program, port, what, how, at_once, seconds):
    done = subprocess.run(["taskset", "-c", str(cores()[0]), program, str(port), what, how, str(at_once), str(seconds)],
                          capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode or not done.stdout.startswith("figures "):
        raise Broken(f"fetches: {done.stderr or done.stdout}")
    count, failed, duration_us, cpu_us = map(int, done.stdout.split()[1:])
    if failed or not count:
        raise Broken(f"fetches, {how}: {count} {what}, {failed} failed")
    return Figures(count, duration_us, 0, 0, 0, 0, cpu_us / 1e6)


class ChunkServer:
    """Event streams without an end, from the last core."""

    def __init__(self, program):
        self.process = subprocess.Popen(["taskset", "-c", str(cores()[1]), program, "serve", str(CHUNKS_PER_SECOND)],
                                        stdout=subprocess.PIPE, text=True, start_new_session=True)
        word, _, port = self.process.stdout.readline().partition(" ")
        if word != "port":
            self.close()
            raise Broken("the server of streams did not start")
        self.port = int(port)

    def close(self):
        stop(self.process)
        self.process.stdout.close()


class Nobody:
    """A server whose CPU time is not looked at."""

    def cpu_seconds(self):
        return 0


def measure_fetch(plan, gateway, folder):
    program = os.path.join(os.path.dirname(gateway.program), "bench", "fetches")
    os.makedirs(folder, exist_ok=True)
    with closing(PlainNginx(os.path.join(folder, "nginx"), cores()[1])) as nginx:
        port = int(nginx.origin.rpartition(":")[2])
        cases = {how: lambda how=how: run_fetches(program, port, "calls", how, CALLERS, plan.seconds)
                 for how in ("plain", "fetch")}
        cases["wrk"] = lambda: run_wrk(nginx.origin, ["/health"], plan.seconds, Nobody(), [cores()[0]], CALLERS)
        heading(f"HTTP calls, {CALLERS} at once over kept connections, one core, nginx on another; {plan.rounds} rounds of "
                f"{plan.seconds} s, medians")
        compare_clients("calls/s", (("plain", "libcurl's multi interface on epoll"), ("fetch", "fetch() on fibers"),
                                    ("wrk", "wrk, GET")), in_rounds(plan, cases))
    with closing(ChunkServer(program)) as server:
        cases = {how: lambda how=how: run_fetches(program, server.port, "chunks", how, STREAMS, plan.seconds)
                 for how in ("plain", "fetch")}
        heading(f"Chunks of 100 bytes in {STREAMS} streams, {CHUNKS_PER_SECOND:,}/s in all as the server keeps it")
        compare_clients("chunks/s", (("plain", "libcurl's multi interface on epoll"), ("fetch", "fetch_read() on fibers")),
                        in_rounds(plan, cases))
