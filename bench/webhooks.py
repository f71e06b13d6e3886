"""Webhooks: deliveries a second from one worker, attempts logged; time from the commit to the sink."""
import json
import os
import time
from urllib.request import Request, urlopen

import psycopg2

from load import Broken
from machine import Gateway, cores, cpu_seconds, descendants, free_port
from peers import Nginx
from report import heading, median, say

EVENTS_AT_ONCE = 500
PATIENCE_S = 120


class Sink(Nginx):
    """Answers 200 to everything; what comes to /timed it logs: the time and the delivery's webhook-id."""

    def __init__(self, folder, core):
        self.port = free_port()
        self.log = os.path.join(folder, "timed.log")
        super().__init__(folder, core, f"""
    log_format timed '$msec $http_webhook_id';
    server {{
        listen 127.0.0.1:{self.port} backlog=1024;
        access_log off;
        location / {{ return 200 'ok'; }}
        location /timed {{ access_log {{folder}}/timed.log timed; return 200 'ok'; }}
    }}""", self.port)

    def arrivals(self):
        """webhook-id -> seconds since 1970"""
        with open(self.log) as file:
            return {name: float(at) for at, name in map(str.split, file)}


class Hooks:
    """Endpoints of accounts, over the API and over the database."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.key = gateway.limited_key()
        with open(os.path.join(gateway.folder, "settings.env")) as file:
            settings = dict(line.strip().split("=", 1) for line in file if "=" in line)
        self.database = psycopg2.connect(settings["DATABASE_URL"])
        self.database.autocommit = True
        self.account = self.sql("SELECT id FROM account WHERE name = 'bench'")[0][0]

    def sql(self, statement, *values):
        with self.database.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else None

    def call(self, method, path, body=None):
        request = Request(f"{self.gateway.origin}/api/v1/webhooks{path}", None if body is None else json.dumps(body).encode(),
                          {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def make(self, count, url):
        return [self.call("POST", "", {"url": url, "events": ["*"]})["id"] for _ in range(count)]

    def clear(self):
        for hook in self.call("GET", "?limit=200")["data"]:
            self.call("DELETE", f"/{hook['id']}")

    def fill(self, count):
        """So many events, whose deliveries wait: the endpoints pause."""
        self.sql("UPDATE webhook_endpoint SET paused_until = now() + interval '1 hour'")
        data = json.dumps({"id": "job_0123456789abcdefghij", "model": "gpt-4", "status": "completed", "cost": "0.00132",
                           "usage": {"prompt_tokens": 120, "completion_tokens": 480, "total_tokens": 600}})
        for _ in range(0, count, EVENTS_AT_ONCE):
            self.sql("SELECT count(*) FROM event_add_all(%s, %s, %s, %s::text[]::jsonb[])", [self.account] * EVENTS_AT_ONCE,
                     ["inference"] * EVENTS_AT_ONCE, ["job.completed"] * EVENTS_AT_ONCE, [data] * EVENTS_AT_ONCE)
            self.sql("SELECT count(*) FROM event_relay(%s)", EVENTS_AT_ONCE)

    def release(self):
        """The pause ends; waits until all is delivered. Returns deliveries a second, from the first attempt's begin to the
        last one's commit."""
        waiting = self.sql("SELECT count(*) FROM webhook_due")[0][0]
        self.sql("UPDATE webhook_endpoint SET paused_until = NULL")
        self.sql("UPDATE job SET run_at = now(), ring_at = now() WHERE kind = 'webhook' AND state = 'queued'")
        deadline = time.monotonic() + PATIENCE_S
        while self.sql("SELECT EXISTS (SELECT FROM webhook_due)")[0][0]:
            if time.monotonic() > deadline:
                raise Broken("the deliveries do not end")
            time.sleep(0.02)
        seconds, logged = self.sql("SELECT extract(epoch FROM now() - min(at))::float, count(*) FROM webhook_attempt WHERE ok")[0]
        if logged != waiting:
            raise Broken(f"{waiting} deliveries, {logged} of them logged")
        self.sql("TRUNCATE webhook_attempt, webhook_delivery")
        return waiting / seconds


def all_seconds(gateway, sink):
    """CPU time of everybody who takes part: the gateway's programs, its PostgreSQL and Redis, the sink."""
    return sum(cpu_seconds(pid) for pid in (*descendants(gateway.process.pid), sink.pid))


def measure_rates(plan, gateway, hooks, sink):
    for count, title in ((1, "to one endpoint"), (40, "to 40 endpoints")):
        hooks.clear()
        hooks.make(count, f"http://127.0.0.1:{sink.port}/")
        rates, costs, alls = [], [], []
        for _ in range(plan.rounds):
            hooks.fill(max(EVENTS_AT_ONCE, plan.deliveries // count))
            waiting = hooks.sql("SELECT count(*) FROM webhook_due")[0][0]
            before, all_before = cpu_seconds(gateway.work), all_seconds(gateway, sink)
            rates.append(hooks.release())
            costs.append((cpu_seconds(gateway.work) - before) * 1e6 / waiting)
            alls.append((all_seconds(gateway, sink) - all_before) * 1e6 / waiting)
        say(f"deliveries {title}", f"{median(rates):,.0f}/s",
            f"attempts logged; CPU each: {median(costs):.0f} us of the worker, {median(alls):.0f} us of all with PostgreSQL and "
            f"the sink; goal >= 10,000/s")


def measure_latency(plan, hooks, sink):
    hooks.clear()
    hook, = hooks.make(1, f"http://127.0.0.1:{sink.port}/timed")
    made = {}
    for _ in range(plan.tests):
        delivery = hooks.call("POST", f"/{hook}/test")
        made[delivery["event_id"]] = delivery["id"]
        time.sleep(0.01)  # a hundred a second at most
    deadline = time.monotonic() + 30
    while len(sink.arrivals()) < len(made):
        if time.monotonic() > deadline:
            raise Broken("not every test delivery arrived")
        time.sleep(0.05)
    begun = dict(hooks.sql("SELECT event_id, extract(epoch FROM created_at)::float FROM webhook_delivery"))
    times = sorted((at - begun[name]) * 1e3 for name, at in sink.arrivals().items() if name in begun)
    say("webhook, from the event's statement to the sink", f"{times[len(times) // 2]:.1f} ms",
        f"p50; p99 {times[len(times) * 99 // 100]:.1f} ms, {len(times)} of them, the event's commit included")


def measure_webhooks(plan, program, folder):
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    heading("Webhooks: one worker, one nginx as the sink, PostgreSQL and all else on the same cores")
    gateway = sink = None
    try:
        gateway = Gateway(program, os.path.join(folder, "data"), {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"})
        sink = Sink(os.path.join(folder, "sink"), cores()[1])
        hooks = Hooks(gateway)
        measure_rates(plan, gateway, hooks, sink)
        measure_latency(plan, hooks, sink)
    finally:
        for server in (sink, gateway):
            if server:
                server.close()
