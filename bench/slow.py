"""slowhttptest's slow clients, and what a normal one sees beside them."""
import http.client
import re
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

from load import Broken
from machine import established, stop

CONNECTIONS = 1000
RATE = 500
SECONDS = 30  # at most, for each attack
SETTLE_S = 12
SLICE_S = 1.0
PAUSE_S = 0.002
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Attack:
    """`must_end`: the server's time limits end all of them within the time given."""

    def __init__(self, title, words, path, must_end):
        self.title = title
        self.words = words
        self.path = path
        self.must_end = must_end


ATTACKS = (
    Attack("slow header (-H)", ["-H", "-i", "5", "-x", "24"], "/health", True),
    Attack("slow body (-B)", ["-B", "-i", "5", "-x", "24", "-s", "8192"], "/test/echo", True),
    # An answer of 40 KiB: one without end would be work for the server, not a slow reader.
    Attack("slow reader (-X)", ["-X", "-n", "5", "-z", "32", "-w", "256", "-y", "512"], "/test/events?count=1000", False),
)


class Figures:
    """Of the normal client: p99 alone and beside the slow ones, requests failed. Of slowhttptest: what it said."""

    def __init__(self):
        self.alone_ms = self.beside_ms = 0.0
        self.failed = self.most_open = self.left = 0
        self.available = True


class NormalClient:
    """Asks for /health over one connection, one request every few milliseconds."""

    def __init__(self, origin):
        self.address = urlsplit(origin).netloc
        self.failed = 0

    def p99_ms(self, seconds):
        """The median over the seconds of each one's p99: what the machine does to a single moment counts for little."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        slices = []
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            times = self.one_slice(connection)
            slices.append(sorted(times)[max(0, -(-len(times) * 99 // 100) - 1)] if times else 1e4)
        connection.close()
        return sorted(slices)[len(slices) // 2]

    def one_slice(self, connection):
        times = []
        ends_at = time.monotonic() + SLICE_S
        while time.monotonic() < ends_at:
            began = time.perf_counter()
            try:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                answer.read()
                self.failed += answer.status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
            times.append((time.perf_counter() - began) * 1e3)
            time.sleep(PAUSE_S)
        return times


class SlowClients:
    """One run of slowhttptest. How many of its connections are open is counted here: it tells every five seconds."""

    def __init__(self, origin, attack, core):
        self.port = urlsplit(origin).port
        self.others = established(self.port)
        self.open = self.most_open = 0
        # Not in the normal client's way: some of its kinds take half a core.
        command = ["nice", "-n", "19", "taskset", "-c", str(core), "slowhttptest", *attack.words, "-c", str(CONNECTIONS), "-r", str(RATE), "-l",
                   str(SECONDS), "-p", "5", "-u", origin + attack.path]
        self.output = tempfile.TemporaryFile("w+", errors="replace")
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output,
                                            start_new_session=True)
        except FileNotFoundError:
            raise Broken("slowhttptest is not installed") from None

    def count(self):
        self.open = max(0, established(self.port) - self.others)
        self.most_open = max(self.most_open, self.open)

    def wait_open(self, seconds):
        deadline = time.monotonic() + seconds
        while self.open < CONNECTIONS and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.1)
            self.count()

    def wait_end(self):
        """It ends by itself, when its time is up or no connection is left: `open` is what there was before that."""
        deadline = time.monotonic() + SECONDS + 30
        while self.process.poll() is None:
            self.count()
            if time.monotonic() > deadline:
                raise Broken("slowhttptest does not end")
            time.sleep(0.1)

    def close(self):
        stop(self.process)

    def said(self):
        self.output.seek(0)
        return COLOURS.sub("", self.output.read())


def settle(server, seconds):
    """Waits until the server has done what the slow clients' coming made it do: what a stream's queue holds is written."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = server.cpu_seconds()
        time.sleep(0.5)
        if server.cpu_seconds() - before < 0.1:
            return


def measure(server, attack, cores, seconds=5):
    """The normal client alone, then beside the slow ones once they are there, then alone again."""
    figures = Figures()
    client = NormalClient(server.origin)
    before_ms = client.p99_ms(seconds)
    slow_clients = SlowClients(server.origin, attack, cores[1])
    try:
        slow_clients.wait_open(10)
        settle(server, SETTLE_S)
        figures.beside_ms = client.p99_ms(seconds)
        slow_clients.wait_end()
    finally:
        slow_clients.close()
    figures.alone_ms = max(before_ms, client.p99_ms(seconds))
    figures.failed = client.failed
    figures.most_open = slow_clients.most_open
    said = slow_clients.said()
    figures.left = 0 if "No open connections left" in said else slow_clients.open
    figures.available = "service available:" in said and not re.search(r"service available:\s+NO", said)
    return figures
