"""A place that webhooks are delivered to, and an account's endpoints over python-requests."""

import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from accounts import Account
from stores import wait_until

# Deliveries go to this machine; no pods are wanted.
SETTINGS = {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}


class Arrival:
    """One request that the sink has got."""

    def __init__(self, path, headers, body):
        self.path = path
        self.headers = headers
        self.body = body
        self.at = time.time()

    @property
    def id(self):
        return self.headers["webhook-id"]

    @property
    def json(self):
        return json.loads(self.body)


class Sink:
    """An HTTP server of the test's own. `answer(arrival)` gives (status, headers, body), or writes to the connection by itself:
    it is then called with the handler, too, and returns None."""

    def __init__(self):
        self.arrivals = []
        self.lock = threading.Lock()
        self.answers = {}
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                arrival = Arrival(self.path, self.headers, body)
                with sink.lock:
                    sink.arrivals.append(arrival)
                answer = sink.answers.get(self.path, lambda arrival, handler: (200, {}, b"ok"))(arrival, self)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                with sink.lock:
                    sink.arrivals.append(Arrival(self.path, self.headers, b""))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            def handle_error(self, request, address):
                pass  # the client went away in the middle

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path="/hook", host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def on(self, path, answer):
        """What comes to this path is answered so: a status, (status, headers, body), or a function of (arrival, handler)."""
        if isinstance(answer, int):
            answer = (answer, {}, b"")
        self.answers[path] = answer if callable(answer) else lambda arrival, handler: answer

    def at(self, path="/hook"):
        with self.lock:
            return [arrival for arrival in self.arrivals if arrival.path == path]

    def wait(self, count, path="/hook", timeout_s=20):
        wait_until(lambda: len(self.at(path)) >= count, timeout_s, f"{count} deliveries at {path}", 0.02)
        return self.at(path)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def open_sink():
    sink = Sink()
    try:
        yield sink
    finally:
        sink.close()


class Hooks:
    """The webhook endpoints of a new account."""

    def __init__(self, gateway, base="/api/v1", account=None, token=None):
        self.gateway = gateway
        self.base = base
        self.account = account or Account(gateway)
        self.token = token
        self.number = gateway.sql("SELECT id FROM account WHERE ref = %s", self.account.id)[0][0]

    def call(self, method, path="", **options):
        return self.account.call(method, f"{self.base}/webhooks{path}", self.token, **options)

    def ok(self, method, path="", status=200, **options):
        answer = self.call(method, path, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    def make(self, url, events=("*",), **body):
        return self.ok("POST", status=201, json={"url": url, "events": list(events), **body})

    def test(self, hook, **body):
        return self.ok("POST", f"/{hook['id']}/test", 202, json=body)

    def delivery(self, delivery):
        return self.ok("GET", f"/deliveries/{delivery if isinstance(delivery, str) else delivery['id']}")

    def deliveries(self, hook, **query):
        found, cursor = [], None
        while True:
            page = self.ok("GET", f"/{hook['id']}/deliveries",
                           params={"limit": 200, **query, **({"cursor": cursor} if cursor else {})})
            found += page["data"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def wait_status(self, delivery, status, timeout_s=20):
        return wait_until(lambda: (found := self.delivery(delivery))["status"] == status and found, timeout_s,
                          f"the delivery is {status}", 0.02)

    def wait_attempts(self, delivery, count, timeout_s=20):
        return wait_until(lambda: len((found := self.delivery(delivery))["attempts"]) >= count and found, timeout_s,
                          f"{count} attempts are logged", 0.02)

    def emit(self, count=1, surface="inference", name="job.completed", data=None, ring=True):
        """Events as causes add them, relayed at once; then the bell for their deliveries."""
        data = data or (lambda number: {"id": f"job_{number}", "number": number})
        datas = [json.dumps(data(number)) for number in range(count)]
        rows = self.gateway.sql("SELECT id FROM event_add_all(%s, %s, %s, %s::text[]::jsonb[])", [self.number] * count,
                                [surface] * count, [name] * count, datas)
        self.gateway.sql("SELECT count(*) FROM event_relay(100000)")
        if ring:
            self.ring()
        return [row[0] for row in rows]

    def ring(self):
        self.gateway.sql("UPDATE job SET ring_at = now() WHERE kind = 'webhook' AND state = 'queued' AND run_at <= now()")

    def make_due(self, hook):
        """As if the times of all pauses and retries had come: at one moment, as time does."""
        self.gateway.sql(
            "WITH w AS (UPDATE webhook_endpoint SET paused_until = NULL WHERE ref = %s RETURNING id), "
            "due AS (UPDATE webhook_due SET next_at = now() FROM w WHERE endpoint_id = w.id), "
            "block AS (UPDATE webhook_block SET until = now() FROM w WHERE endpoint_id = w.id) "
            "UPDATE job SET run_at = now(), ring_at = now() FROM w WHERE kind = 'webhook' AND state = 'queued' "
            "AND key = w.id::text", hook["id"])


def seed_signature(body, secret):
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def closed_port():
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
