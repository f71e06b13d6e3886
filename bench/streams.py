"""Events over WebSockets: fan-out, memory, time from the commit to the client, a storm of clients that come back. A part of run.py.

What is told is that sessions are made: each message is a commit, a relay and one text for all who listen.
"""
import base64
import json
import multiprocessing
import os
import socket
import struct
import subprocess
import time
from calendar import timegm
from contextlib import ExitStack, closing

import psycopg2

from clients import Subscribers, build
from load import Broken, Client
from machine import Serve, cores, memory_kib
from peers import NodeBroadcast
from report import columns, compare, heading, median, say

SETTINGS = {"WEBSOCKET_PING_SECONDS": "3600", "WEBSOCKET_TIMEOUT_SECONDS": "7200",
            "EVENT_STREAMS_PER_ACCOUNT": "1000000", "MAX_CONNECTIONS": "40000", "MAX_CONNECTIONS_PER_ADDRESS": "40000"}
RATE = 1000  # events a second, for the time to the client
MAKERS = 8  # connections that make them
MISSED = 20  # events, by each client of the storm
BODY = json.dumps({"user_id": "bench"})


class Streams(Serve):
    """One reactor whose account "bench" has a key for streams and one for sessions."""

    def __init__(self, gateway, folder, core):
        super().__init__(gateway, folder, SETTINGS, core)
        self.token = gateway.limited_key()
        self.key = gateway.admin("key", "create", "--account", "bench", "--surface", "session")["key"]
        self.header = f"Authorization: Bearer {self.token}"
        self.path = "/v1/stream?events=instance.created"
        self.publishing = (f"{self.header}\r\nX-API-Key: {self.key}", "/session/create", BODY)
        with open(os.path.join(gateway.folder, "settings.env")) as file:
            url = dict(line.strip().split("=", 1) for line in file if "=" in line)["DATABASE_URL"]
        self.database = psycopg2.connect(url)
        self.database.autocommit = True
        self.account = self.sql("SELECT id FROM account WHERE name = 'bench'")[0][0]

    def sql(self, statement, *values):
        with self.database.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def make(self, count):
        client = Client(self)
        for _ in range(count):
            client.create_session()
        client.close()

    def last(self):
        """The last event's number and id, and how long its text is: they all are."""
        return self.sql("SELECT seq, id, octet_length(event_text(id, name, at, data)) FROM event WHERE account_id = %s "
                        "ORDER BY seq DESC LIMIT 1", self.account)[0]

    def settle(self):
        """Waits until all is told; the last event."""
        while self.sql("SELECT EXISTS (SELECT FROM event_outbox)")[0][0]:
            time.sleep(0.01)
        return self.last()

    def close(self):
        self.database.close()
        super().close()


# ---- fan-out and memory ----

def idle_kib(server, subscribe, count):
    with subscribe(server, 100):
        time.sleep(1)  # what the first ones cost, all the others share
        before_kib = memory_kib(server.pid)
        with subscribe(server, count):
            time.sleep(2)
            return (memory_kib(server.pid) - before_kib) / count


def measure_fanout(plan, ours, node, subscribe):
    ours.make(1)
    size = ours.settle()[2]
    for count in (plan.sockets // 10, plan.sockets):
        with subscribe(node, count) as nodes, subscribe(ours, count) as own:
            time.sleep(1)
            rounds = [{"node": nodes.publish(node, plan.seconds, size), "ours": own.publish(ours, plan.seconds, size)}
                      for _ in range(plan.rounds)]
        heading(f"One event of {size} bytes to {count:,} WebSockets; medians of {plan.rounds} rounds of {plan.seconds} s; "
                "times to the last subscriber, ours from before two commits")
        columns("deliveries/s", "node ws")
        compare((("node", "node ws"), ("ours", "events")), rounds)


# ---- from the commit to the client ----

def listen(server, path):
    """A socket behind its handshake."""
    plain = socket.create_connection(("127.0.0.1", server.port))
    key = base64.b64encode(os.urandom(16)).decode()
    plain.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{server.header}\r\n\r\n".encode())
    file = plain.makefile("rb")
    if b" 101 " not in file.readline():
        raise Broken("no WebSocket there")
    while file.readline() != b"\r\n":
        pass
    return plain, file


def read_message(file):
    size = file.read(2)[1]
    if size == 126:
        size = struct.unpack(">H", file.read(2))[0]
    return json.loads(file.read(size))


def make_at_rate(server_port, key, seconds):
    """One of MAKERS, in a process of their own."""
    class Target:
        port = server_port
    Target.key = key
    client = Client(Target)
    began = time.monotonic()
    for number in range(RATE // MAKERS * seconds):
        wait = began + number * MAKERS / RATE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        client.create_session()
    client.close()


def age_ms(timestamp):
    """Of a time like 2025-11-10T12:00:00.123Z, by this machine's clock."""
    return (time.time() - timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S")) - int(timestamp[20:23]) / 1e3) * 1e3


def measure_latency(plan, ours):
    seconds = plan.seconds * 2
    plain, file = listen(ours, ours.path)
    time.sleep(1)  # it is greeted first
    makers = [multiprocessing.Process(target=make_at_rate, args=(ours.port, ours.key, seconds)) for _ in range(MAKERS)]
    began = time.monotonic()
    for maker in makers:
        maker.start()
    ages = [age_ms(read_message(file)["timestamp"]) for _ in range(RATE // MAKERS * MAKERS * seconds)]
    rate = len(ages) / (time.monotonic() - began)
    ages = sorted(ages[RATE // 2:])  # those who make them have begun by then
    for maker in makers:
        maker.join()
    file.close()
    plain.close()
    say("from the cause's statement to the WebSocket", f"{ages[len(ages) // 2]:.1f} ms",
        f"p50; p99 {ages[len(ages) * 99 // 100]:.1f} ms, at {rate:,.0f} events/s, both commits included; goal p99 <= 20 ms")


# ---- all come back at once ----

def measure_storm(plan, ours, program, load_core):
    times, lasts = [], []
    for _ in range(plan.rounds):
        _, last_id, size = ours.settle()
        ours.make(MISSED)
        ours.settle()
        time.sleep(1)
        path = f"{ours.path}&last_event_id={last_id}"
        done = subprocess.run(["taskset", "-c", str(load_core), program, str(ours.port), path, str(plan.storm), ours.header,
                               str(MISSED * (size + (2 if size < 126 else 4)))], capture_output=True, text=True, timeout=120)
        if done.returncode or not done.stdout.startswith("figures "):
            raise Broken(f"storm: {done.stderr or done.stdout}")
        _, duration_us, _, p99_us, _ = map(int, done.stdout.split()[1:])
        times.append(duration_us / 1e3)
        lasts.append(p99_us / 1e3)
    say(f"{plan.storm:,} clients come back for {MISSED} events each", f"{median(times):,.0f} ms",
        f"until all have all, {plan.storm * 1e3 / median(times):,.0f} clients/s; p99 of a client {median(lasts):,.0f} ms")


def measure_streams(plan, gateway, folder):
    server_core, load_core, _ = cores()
    subscribers = build("subscribers", folder)
    storm = build("storm", folder)
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Streams(gateway, os.path.join(folder, "serve"), server_core)))
        node = stack.enter_context(closing(NodeBroadcast(os.path.join(folder, "node"), server_core)))

        def subscribe(server, count):
            return closing(Subscribers(subscribers, server, count, load_core))
        heading("Streams of events, one reactor")
        say("idle subscriber", f"{idle_kib(ours, subscribe, plan.sockets):.1f} KiB",
            f"of memory; {plan.sockets} of them; goal <= 6 KiB (node ws, which keeps no subscription: "
            f"{idle_kib(node, subscribe, plan.sockets):.1f})")
        measure_latency(plan, ours)
        measure_storm(plan, ours, storm, load_core)
        measure_fanout(plan, ours, node, subscribe)
