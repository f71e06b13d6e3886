"""The load that wrk can't make: programs of ours in C, compiled when they are wanted."""
import os
import select
import subprocess

from load import HERE, Broken, Figures
from machine import stop

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-I", os.path.dirname(HERE)]
LIBRARIES = {"handshakes": ["-lssl", "-lcrypto", "-lpthread"], "storm": [], "subscribers": [], "calls": [], "hops": []}
THREADS = 16


def build(name, folder):
    """Compiles bench/NAME.c into the folder; the program's path."""
    os.makedirs(folder, exist_ok=True)
    program = os.path.join(folder, name)
    done = subprocess.run(["cc", *FLAGS, "-o", program, os.path.join(HERE, name + ".c"), *LIBRARIES[name]],
                          capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"bench/{name}.c: {done.stderr}")
    return program


def run_handshakes(program, server, version, kind, seconds, core):
    """New connections to /health, each with a handshake of the kind, as figures of the server."""
    cpu_before = server.cpu_seconds()
    done = subprocess.run(["taskset", "-c", str(core), program, str(server.port), version, kind, "/health", str(THREADS),
                           str(seconds)], capture_output=True, text=True, timeout=seconds + 60)
    cpu_s = server.cpu_seconds() - cpu_before
    if done.returncode or not done.stdout.startswith("figures "):
        raise Broken(f"handshakes: {done.stderr or done.stdout}")
    count, failed, resumed, duration_us, p50_us, p99_us = map(int, done.stdout.split()[1:])
    expected = count if kind == "resumed" else 0
    if failed or not count or resumed != expected:
        raise Broken(f"{version} {kind}: {count} connections, {resumed} resumed, {failed} failed")
    return Figures(count, duration_us, 0, 0, p50_us, p99_us, cpu_s)


class Subscribers:
    """A run of subscribers.c: `count` WebSockets that stay open, until it is closed."""

    def __init__(self, program, server, count, core):
        self.process = subprocess.Popen(["taskset", "-c", str(core), program, str(server.port), server.path, str(count),
                                         *server.publishing],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)
        try:
            self.answer("open", 120)
        except Broken:
            self.close()
            raise

    def answer(self, word, seconds):
        """The numbers of its next line."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith(word + " "):
            stop(self.process)
            raise Broken(f"subscribers: {line or self.process.stderr.read() or 'no answer'}")
        return list(map(int, line.split()[1:]))

    def publish(self, server, seconds, size):
        """Deliveries as figures of the server: a request is one, the times are a message's to its last subscriber."""
        cpu_before = server.cpu_seconds()
        self.process.stdin.write(f"{seconds} {size}\n")
        self.process.stdin.flush()
        _, deliveries, duration_us, p50_us, p99_us = self.answer("figures", seconds + 60)
        if not deliveries:
            raise Broken("subscribers: nothing was delivered")
        return Figures(deliveries, duration_us, 0, 0, p50_us, p99_us, server.cpu_seconds() - cpu_before)

    def close(self):
        stop(self.process)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
