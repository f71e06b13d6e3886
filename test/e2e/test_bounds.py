"""What a hostile or slow client can take of the server is bounded, and the others don't notice."""

import contextlib
import os
import resource
import socket
import subprocess
import threading
import time

import pytest
import requests

from fixtures import run_gateway
from stores import wait_until
from wakegate import BINARY


def where(gateway):
    host, port = gateway.url.split("//")[1].split(":")
    return host, int(port)


def metric(gateway, name):
    text = requests.get(gateway.url + "/metrics", headers={"Authorization": "Bearer look"}, timeout=10).text
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def settings(**more):
    return {"METRICS_TOKEN": "look", "WAKEGATE_TEST_ENDPOINTS": "1", **more}


def is_closed(plain):
    plain.settimeout(10)
    try:
        return plain.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_address_gets_so_many_connections_over_all_reactors(start_gateway):
    gateway = start_gateway(settings(MAX_CONNECTIONS_PER_ADDRESS="20"), works=0)
    with contextlib.ExitStack() as stack:
        # Another address of this machine, so that the test's own requests are not counted.
        opened = []
        for _ in range(30):
            plain = socket.socket()
            stack.enter_context(plain)
            plain.bind(("127.0.0.2", 0))
            plain.connect(where(gateway))
            opened.append(plain)
        wait_until(lambda: metric(gateway, 'wakegate_connections_refused_total{why="address"}') == 10, 10)
        assert requests.get(gateway.url + "/livez", timeout=10).status_code == 200
        opened = [plain for plain in opened if not closed_already(plain)]
        assert len(opened) == 20
        for plain in opened:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.recv(12) == b"HTTP/1.1 200"
        opened[0].close()
        wait_until(lambda: metric(gateway, "wakegate_connections ") < 21 + 1, 10)
        with socket.socket() as again:
            again.bind(("127.0.0.2", 0))
            again.connect(where(gateway))
            again.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert again.recv(12) == b"HTTP/1.1 200"


def test_a_trusted_proxy_may_have_any_number(start_gateway):
    gateway = start_gateway(settings(MAX_CONNECTIONS_PER_ADDRESS="4", TRUSTED_PROXIES="127.0.0.0/8"), works=0)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(where(gateway))) for _ in range(20)]
        for plain in opened:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.recv(12) == b"HTTP/1.1 200"


def test_without_descriptors_stores_and_health_go_on(start_gateway):
    """prlimit --nofile: connections beyond are closed at once, the reserve serves Redis, PostgreSQL and METRICS_LISTEN,
    and nothing spins."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gateway = start_gateway(settings(METRICS_LISTEN=f"127.0.0.1:{port}"), works=0, ready=False)
    serve = gateway.serves[0]
    serve.wait_ready()
    serve.stop()
    os.unlink(serve.port_file)
    words = ["prlimit", "--nofile=256", "--", *serve_words(gateway)]
    with open(serve.log_path, "ab") as log:
        serve.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    serve.wait_ready()
    client = gateway.client()
    with contextlib.ExitStack() as stack:
        flood = []
        for _ in range(400):
            plain = stack.enter_context(socket.create_connection(where(gateway), timeout=10))
            flood.append(plain)
        wait_until(lambda: requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.count("descriptors") > 0, 10)
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        refused = next(line for line in text.splitlines() if 'why="descriptors"' in line)
        assert float(refused.split()[1]) > 100
        before = serve.cpu_s()
        begin = time.monotonic()
        served = [plain for plain in flood if not closed_already(plain)]
        assert 50 < len(served) < 256
        # Those that are in are served, with what they need of the stores.
        plain = served[0]
        plain.sendall(f"GET /session HTTP/1.1\r\nHost: x\r\nX-API-Key: {client.key}\r\n\r\n".encode())
        assert plain.recv(12) == b"HTTP/1.1 200"
        time.sleep(1)  # what is measured is the CPU of a time in which nothing happens
        assert serve.cpu_s() - before < 0.5 * (time.monotonic() - begin)

    def has_room():
        with contextlib.suppress(requests.exceptions.ConnectionError):
            return requests.get(gateway.url + "/livez", timeout=10).status_code == 200
    wait_until(has_room, 10, "there is room again")


def serve_words(gateway):
    return [BINARY, "serve", "--env-file", gateway.env_file, "--port-file", gateway.serves[0].port_file]


def closed_already(plain):
    plain.setblocking(False)
    try:
        return plain.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        plain.settimeout(10)


@pytest.fixture(scope="module")
def hasty(stores):
    yield from run_gateway(stores, settings(HEADER_TIMEOUT_SECONDS="1", BODY_TIMEOUT_SECONDS="1",
                                            WRITE_TIMEOUT_SECONDS="1", KEEPALIVE_TIMEOUT_SECONDS="1",
                                            MIN_BODY_BYTES_PER_SECOND="1000"), works=0)


def answer_of(plain):
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := plain.recv(65536):
            text += piece
    return text


@contextlib.contextmanager
def dripping(plain, text, pause_s):
    """Sends the text again and again, as long as the other side takes it."""
    ended = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            while not ended.wait(pause_s):
                plain.sendall(text)
    dripper = threading.Thread(target=drip)
    dripper.start()
    try:
        yield
    finally:
        ended.set()
        dripper.join()


def test_a_header_that_comes_too_slowly_is_408(hasty):
    with socket.create_connection(where(hasty), timeout=20) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\n")
        begin = time.monotonic()
        with dripping(plain, b"X-Drip: x\r\n", 0.2):
            answer = answer_of(plain)
        assert answer.startswith(b"HTTP/1.1 408 ") and 0.8 < time.monotonic() - begin < 6


def test_a_body_below_the_rate_is_given_up_though_it_never_stops(hasty):
    before = metric(hasty, 'wakegate_connections_timed_out_total{what="body"}')
    with socket.create_connection(where(hasty), timeout=20) as plain:
        plain.sendall(b"POST /test/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        with dripping(plain, b"x", 0.1):
            answer = answer_of(plain)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
    wait_until(lambda: metric(hasty, 'wakegate_connections_timed_out_total{what="body"}') == before + 1, 5, "it is counted")


def test_a_body_above_the_rate_may_take_its_time(hasty):
    with socket.create_connection(where(hasty), timeout=20) as plain:
        plain.sendall(b"POST /test/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 30000\r\n\r\n")
        for _ in range(15):  # two and a half seconds at twice the rate or more
            plain.sendall(b"x" * 2000)
            time.sleep(0.16)
        assert answer_of(plain).startswith(b"HTTP/1.1 200 ")


def test_a_reader_that_takes_nothing_is_closed_and_an_idle_one_too(hasty):
    before = metric(hasty, 'wakegate_connections_timed_out_total{what="output"}')
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(where(hasty))
        plain.sendall(b"GET /test/events?count=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: metric(hasty, 'wakegate_connections_timed_out_total{what="output"}') == before + 1, 20)
    with socket.create_connection(where(hasty), timeout=20) as plain:
        assert is_closed(plain)


def test_many_slow_clients_leave_the_normal_one_alone(start_gateway):
    """A thousand that hang on with half a header: others are answered as before, and the thousand are ended."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    gateway = start_gateway(settings(HEADER_TIMEOUT_SECONDS="5"), works=0)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(where(gateway), timeout=20)) for _ in range(1000)]
        for plain in slow:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        session = requests.Session()
        for _ in range(100):
            assert session.get(gateway.url + "/livez", timeout=2).status_code == 200
        assert all(answer_of(plain).startswith(b"HTTP/1.1 408 ") for plain in slow)
