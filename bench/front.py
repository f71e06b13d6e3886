"""The front door beside its peers: TLS, proxy, WebSocket, slow clients. Parts of run.py.

Every server is on the first core, one after the other under load; the load and what stands behind a proxy are on the last.
Figures are taken in rounds, ours and theirs in turn.
"""
import http.client
import os
import time
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import slow
from certificate import Certificate
from clients import Subscribers, build, run_handshakes
from load import Broken, Client, run_wrk
from machine import Gateway, Serve, cores, memory_kib
from peers import Haproxy, NodeBroadcast, ProxyNginx, TlsNginx
from report import columns, compare, heading, median, say

FANOUT_BYTES = 100
# Nothing is sent but what is published, or bytes could not be counted; and nobody is a stranger from one address.
QUIET = {"WAKEGATE_TEST_ENDPOINTS": "1", "WEBSOCKET_PING_SECONDS": "3600", "WEBSOCKET_TIMEOUT_SECONDS": "7200"}


def how(plan):
    """Which core does what, and how often; for a table's heading."""
    server_core, load_core, _ = cores()
    return f"server on core {server_core}, load on core {load_core}; {plan.rounds} rounds of {plan.seconds} s, medians"


def in_rounds(plan, cases):
    """Each case once in every round: {name: figures} for each."""
    return [{name: case() for name, case in cases.items()} for _ in range(plan.rounds)]


# ---- TLS ----

TLS_CONNECTIONS = 16  # few, since their handshakes are in the time measured

HANDSHAKES = (
    ("full handshake, TLS 1.3", "tls13", "full"),
    ("full handshake, TLS 1.2", "tls12", "full"),
    ("ticket, TLS 1.3", "tls13", "resumed"),
    ("ticket, TLS 1.2", "tls12", "resumed"),
)


def measure_tls(plan, gateway, folder):
    server_core, load_core, _ = cores()
    handshakes = build("handshakes", folder)
    certificate = Certificate(os.path.join(folder, "certificate"))
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Serve(gateway, os.path.join(folder, "serve"), certificate.settings, server_core)))
        nginx = stack.enter_context(closing(TlsNginx(os.path.join(folder, "nginx"), server_core, certificate)))
        servers = {"nginx": nginx, "ours": ours}

        def connect(name, version, kind):
            return lambda: run_handshakes(handshakes, servers[name], version, kind, plan.seconds, load_core)

        def ask(name):
            return lambda: run_wrk(servers[name].origin, ["/health"], plan.seconds, servers[name], [load_core],
                                   connections=TLS_CONNECTIONS)
        heading(f"TLS, one reactor or one nginx worker, P-256; a connection is a handshake and one GET; {how(plan)}")
        columns("connections/s", "nginx")
        for title, version, kind in HANDSHAKES:
            compare((("nginx", f"nginx, {title}"), ("ours", title)),
                    in_rounds(plan, {name: connect(name, version, kind) for name in servers}))
        columns("requests/s", "nginx")
        compare((("nginx", f"nginx, {TLS_CONNECTIONS} kept connections, no log"),
                 ("ours", f"GET /health, {TLS_CONNECTIONS} kept, request log")),
                in_rounds(plan, {name: ask(name) for name in servers}))


# ---- proxy ----

# The pod: nginx with a small answer, that tells in its folder where it listens.
POD = """
cd "$WAKEGATE_WORKSPACE" && cat >nginx.conf <<END
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:$PORT backlog=1024;
        location / { return 200 'a small answer of a pod, as an editor asks for them by the dozen\\n'; }
    }
}
END
echo "$PORT" >port && exec nginx -p "$PWD" -c "$PWD/nginx.conf" -e error.log
"""
POD_SETTINGS = {"WAKEGATE_POD_COMMAND": POD}


class Workspace:
    """A session whose pod is awake; the port that its pod listens on, and the headers that let a visitor in."""

    def __init__(self, gateway):
        client = Client(gateway)
        self.session = gateway.new_session(client)
        client.call("POST", f"/session/{self.session}/wake", {}, expect=202)
        deadline = time.monotonic() + 30
        while True:
            status = client.call("GET", f"/session/{self.session}/status")
            if status["replicas"]:
                break
            if time.monotonic() > deadline:
                raise Broken("the pod did not start")
            time.sleep(0.05)
        client.close()
        with open(os.path.join(gateway.folder, "instances", self.session, "workspace", "port")) as file:
            self.port = int(file.read())
        self.headers = self.enter(gateway.port, urlsplit(status["workspace_url"]))

    @staticmethod
    def enter(port, link):
        """Follows the link, as a browser does, and comes back with the cookie."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"{link.path}?{link.query}", headers={"Host": link.netloc})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        cookie = answer.getheader("Set-Cookie", "").split(";")[0]
        if not cookie:
            raise Broken(f"the workspace's link gave no cookie: {answer.status}")
        return [f"Host: {link.netloc}", f"Cookie: {cookie}"]


def measure_proxy(plan, main, folder):
    server_core, load_core, _ = cores()
    os.mkdir(folder)
    os.chmod(folder, 0o711)
    with ExitStack() as stack:
        gateway = stack.enter_context(closing(Gateway(main.program, os.path.join(folder, "data"), POD_SETTINGS)))
        workspace = Workspace(gateway)
        gateway.pin({server_core}, {load_core})
        nginx = stack.enter_context(closing(ProxyNginx(os.path.join(folder, "nginx"), server_core, workspace.port)))
        haproxy = stack.enter_context(closing(Haproxy(os.path.join(folder, "haproxy"), server_core, workspace.port)))
        direct = f"http://127.0.0.1:{workspace.port}"

        def wrk(origin, server, headers=()):
            return lambda: run_wrk(origin, ["/"], plan.seconds, server, [load_core], headers=headers)
        rounds = in_rounds(plan, {
            "nginx": wrk(nginx.origin, nginx),
            "nginx, log": wrk(nginx.logging_origin, nginx),
            "haproxy": wrk(haproxy.origin, haproxy),
            "ours": wrk(gateway.origin, gateway, workspace.headers),
            "direct": wrk(direct, nginx),
        })
        heading(f"Proxy to a pod (nginx, beside the load) that is awake; 64 connections; {how(plan)}")
        columns("requests/s", "nginx")
        compare((("nginx", "nginx proxy_pass, no log"), ("nginx, log", "nginx proxy_pass, buffered log"),
                 ("haproxy", "haproxy, no log"), ("ours", "workspace host, cookie, request log")), rounds)
        alone = median(round_["direct"].per_second for round_ in rounds)
        say("no proxy between", f"{alone:,.0f}", f"the pod and wrk share a core; p50 "
            f"{median(round_['direct'].p50_ms for round_ in rounds):.2f} ms")


# ---- WebSocket ----

def measure_websocket(plan, gateway, folder):
    server_core, load_core, _ = cores()
    program = build("subscribers", folder)
    with ExitStack() as stack:
        ours = stack.enter_context(closing(Serve(gateway, os.path.join(folder, "serve"), QUIET, server_core)))
        ours.path = "/test/broadcast"
        node = stack.enter_context(closing(NodeBroadcast(os.path.join(folder, "node"), server_core)))
        servers = {"node": node, "ours": ours}

        def subscribe(server, count):
            return closing(Subscribers(program, server, count, load_core))
        heading("WebSockets that are idle, one reactor or one node process")
        for name, title in (("node", "node ws, idle connection"), ("ours", "idle connection")):
            say(title, f"{idle_kib(plan, servers[name], subscribe):.1f} KiB", f"of memory; {plan.sockets} of them")
        for count in (plan.sockets // 10, plan.sockets):
            with subscribe(node, count) as nodes, subscribe(ours, count) as own:
                groups = {"node": nodes, "ours": own}
                rounds = in_rounds(plan, {
                    name: lambda name=name: groups[name].publish(servers[name], plan.seconds, FANOUT_BYTES)
                    for name in groups})
            heading(f"Messages of {FANOUT_BYTES} bytes to {count} WebSockets, times until the last has it; {how(plan)}")
            columns("deliveries/s", "node")
            compare((("node", "node ws"), ("ours", "broadcast")), rounds)


def idle_kib(plan, server, subscribe):
    with subscribe(server, 100):
        time.sleep(0.5)  # what the first ones cost, all the others share
        before_kib = memory_kib(server.pid)
        with subscribe(server, plan.sockets):
            time.sleep(1)
            return (memory_kib(server.pid) - before_kib) / plan.sockets


# ---- slow clients ----

def measure_slow(plan, gateway, folder):
    with closing(Serve(gateway, folder, {"WAKEGATE_TEST_ENDPOINTS": "1"}, cores()[0])) as server:
        figures = [slow.measure(server, slow.ATTACKS[0], cores()[:2], plan.seconds) for _ in range(min(plan.rounds, 3))]
    heading(f"{slow.CONNECTIONS} clients that send their headers slowly, beside a normal one; medians")
    alone = median(each.alone_ms for each in figures)
    beside = median(each.beside_ms for each in figures)
    say("p99 of the normal client, alone", f"{alone:.2f} ms")
    say("p99 of the normal client, beside them", f"{beside:.2f} ms", f"x {beside / alone:.2f}; goal <= 2")
