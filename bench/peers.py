"""The servers of others that the gateway is measured beside. Each on one core, with one worker or thread."""
import os
import subprocess

from load import HERE, Broken
from machine import answers, cpu_seconds, descendants, free_port, stop, wait_until

# What GET /health answers, so that both send as much.
NGINX_BODY = '{"status":"healthy","redis":"healthy","postgres":"healthy","timestamp":"2025-01-01T00:00:00Z"}'

NGINX_LOG = "{folder}/access.log combined buffer=64k flush=1s"

NGINX_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/json;
    {servers}
}}
"""



class Peer:
    """Another's server, on one core, with its configuration and its output in a folder of its own. `forks`: the one that does
    the work is its child."""

    def __init__(self, name, folder, core, command, port, forks=False):
        self.port = port
        path = os.path.join(folder, "output")
        with open(path, "w") as output:
            self.process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=output, stderr=output,
                                            start_new_session=True)
        try:
            wait_until(lambda: answers(port) and (not forks or descendants(self.process.pid)), name, self.process)
        except Broken as broken:
            self.close()
            with open(path) as output:
                raise Broken(f"{broken}: {output.read()}") from None
        self.pid = descendants(self.process.pid)[0] if forks else self.process.pid

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def close(self):
        stop(self.process)


def peer_folder(folder):
    os.mkdir(folder)
    os.chmod(folder, 0o755)
    return folder


class Nginx(Peer):
    """One worker. `servers` are blocks for its configuration, in which {folder} stands for its folder."""

    def __init__(self, folder, core, servers, port):
        peer_folder(folder)
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(NGINX_CONFIG.format(folder=folder, servers=servers.replace("{folder}", folder)))
        super().__init__("nginx", folder, core,
                         ["nginx", "-c", path, "-p", folder, "-e", os.path.join(folder, "error.log")], port,
                         forks=True)


class PlainNginx(Nginx):
    """Answers by itself; `origin` does not log, `logging_origin` does, through a buffer."""

    def __init__(self, folder, core):
        plain_port, logging_port = free_port(), free_port()
        self.origin = f"http://127.0.0.1:{plain_port}"
        self.logging_origin = f"http://127.0.0.1:{logging_port}"
        servers = "".join(f"""
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {log};
        location / {{ return 200 '{NGINX_BODY}\\n'; }}
    }}""" for port, log in ((plain_port, "off"), (logging_port, NGINX_LOG)))
        super().__init__(folder, core, servers, logging_port)

class TlsNginx(Nginx):
    """Speaks TLS 1.2 and 1.3, with tickets, and answers by itself; no log."""

    def __init__(self, folder, core, certificate):
        port = free_port()
        self.origin = f"https://127.0.0.1:{port}"
        super().__init__(folder, core, f"""
    server {{
        listen 127.0.0.1:{port} ssl backlog=1024;
        access_log off;
        ssl_certificate {certificate.chain};
        ssl_certificate_key {certificate.key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200 '{NGINX_BODY}\\n'; }}
    }}""", port)


class ProxyNginx(Nginx):
    """proxy_pass to a port of this machine, over connections that are kept; no log at `origin`, a buffered one at
    `logging_origin`."""

    def __init__(self, folder, core, upstream_port):
        port, logging_port = free_port(), free_port()
        self.origin = f"http://127.0.0.1:{port}"
        self.logging_origin = f"http://127.0.0.1:{logging_port}"
        servers = f"""
    upstream pod {{
        server 127.0.0.1:{upstream_port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}""" + "".join(f"""
    server {{
        listen 127.0.0.1:{each} backlog=1024;
        access_log {log};
        location / {{
            proxy_pass http://pod;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}""" for each, log in ((port, "off"), (logging_port, NGINX_LOG)))
        super().__init__(folder, core, servers, logging_port)


HAPROXY_CONFIG = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen pod
    bind 127.0.0.1:{port}
    server pod 127.0.0.1:{upstream_port}
"""


class Haproxy(Peer):
    """The same by haproxy, one thread, no log."""

    def __init__(self, folder, core, upstream_port):
        peer_folder(folder)
        port = free_port()
        self.origin = f"http://127.0.0.1:{port}"
        path = os.path.join(folder, "haproxy.cfg")
        with open(path, "w") as file:
            file.write(HAPROXY_CONFIG.format(port=port, upstream_port=upstream_port))
        super().__init__("haproxy", folder, core, ["haproxy", "-db", "-f", path], port)


class NodeBroadcast(Peer):
    """broadcast.js: node's `ws`, as Debian packages it."""

    path = "/"
    publishing = ()

    def __init__(self, folder, core):
        peer_folder(folder)
        port = free_port()
        super().__init__("node's ws", folder, core,
                         ["env", "NODE_PATH=/usr/share/nodejs", "node", os.path.join(HERE, "broadcast.js"), str(port)], port)
