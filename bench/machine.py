"""The servers that are measured: nginx for comparison, and the gateway with its stores. And the machine."""
import calendar
import glob
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time

from load import Broken, Client

TICKS = os.sysconf("SC_CLK_TCK")
START_S = 60

# What GET /health answers, so that both send as much.
NGINX_BODY = '{"status":"healthy","redis":"healthy","postgres":"healthy","timestamp":"2025-01-01T00:00:00Z"}'

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
    server {{
        listen 127.0.0.1:{plain_port} backlog=1024;
        access_log off;
        location / {{ return 200 '{body}\\n'; }}
    }}
    server {{
        listen 127.0.0.1:{logging_port} backlog=1024;
        access_log {folder}/access.log combined buffer=64k flush=1s;
        location / {{ return 200 '{body}\\n'; }}
    }}
}}
"""


def cores():
    """The core for the server under test, the core for the load, and all of them."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1], usable


def facts():
    with open("/proc/cpuinfo") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.split("/")[-1].strip()
    return (f"{len(cores()[2])} cores of {models[0] if models else platform.machine()}, Linux {platform.release()}, "
            f"nginx {nginx}, load average {os.getloadavg()[0]:.1f} at the start")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def wait_until(condition, what, process):
    deadline = time.monotonic() + START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Broken(f"{what} did not start")
        time.sleep(0.02)


def parents():
    """Every process's parent."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                stat = file.read()
        except OSError:
            continue
        found[int(path.split("/")[2])] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(pid):
    tree = parents()
    found = [pid]
    for each in found:
        found.extend(child for child, parent in tree.items() if parent == each)
    return found[1:]


def pin(pid, where):
    """Puts all threads of a process on the given cores."""
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            os.sched_setaffinity(int(task.rpartition("/")[2]), where)
        except ProcessLookupError:
            pass


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_kib(pid):
    """What the process has for itself."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def stop(process):
    if process and process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Nginx:
    """One worker on one core; `origin` does not log, `logging_origin` does, through a buffer."""

    def __init__(self, folder, core):
        self.process = None
        os.mkdir(folder)
        os.chmod(folder, 0o755)
        plain_port, logging_port = free_port(), free_port()
        self.origin = f"http://127.0.0.1:{plain_port}"
        self.logging_origin = f"http://127.0.0.1:{logging_port}"
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(NGINX_CONFIG.format(folder=folder, body=NGINX_BODY, plain_port=plain_port,
                                           logging_port=logging_port))
        with open(os.path.join(folder, "output"), "w") as output:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), "nginx", "-c", path, "-p", folder, "-e",
                 os.path.join(folder, "error.log")],
                stdout=output, stderr=output, start_new_session=True)
        try:
            wait_until(lambda: answers(logging_port), "nginx", self.process)
        except Broken:
            self.close()
            raise
        self.worker = descendants(self.process.pid)[0]

    def cpu_seconds(self):
        return cpu_seconds(self.worker)

    def close(self):
        stop(self.process)


class Gateway:
    """`wakegate up` with one reactor. Its request log goes to a file, as always."""

    def __init__(self, program, folder):
        self.process = None
        self.program = program
        self.folder = folder
        self.sessions = []
        variables = dict(os.environ, REACTORS="1", SESSION_RATE_PER_MINUTE="1000000000", IDLE_TIMEOUT_SECONDS="3600",
                         LOG_REQUESTS="1", LOG_LEVEL="info", LISTEN_ADDRESS="127.0.0.1")
        self.output = folder + ".output"
        with open(self.output, "w") as output:
            self.process = subprocess.Popen([program, "up", "--data", folder, "--port", "0"], env=variables,
                                            stdout=output, stderr=output, start_new_session=True)
        try:
            wait_until(self.is_up, "wakegate up", self.process)
        except Broken as broken:
            self.close()
            with open(self.output) as file:
                raise Broken(f"{broken}: {file.read()}") from None
        with open(os.path.join(folder, "credentials.env")) as file:
            credentials = dict(line.strip().split("=", 1) for line in file if "=" in line and line[0] != "#")
        self.origin = credentials["WAKEGATE_URL"]
        self.port = int(self.origin.rpartition(":")[2])
        self.key = credentials["SESSION_API_KEY"]
        self.serve = self.part("serve")
        self.work = self.part("work")

    def is_up(self):
        with open(self.output) as file:
            return "Ctrl-C stops it" in file.read()

    def part(self, name):
        for pid in descendants(self.process.pid):
            with open(f"/proc/{pid}/cmdline") as file:
                if file.read().split("\0")[1:2] == [name]:
                    return pid
        raise Broken(f"wakegate {name} does not run")

    def cpu_seconds(self):
        return cpu_seconds(self.serve)

    def pin(self, serve_cores, other_cores):
        for pid in descendants(self.process.pid):
            pin(pid, serve_cores if pid == self.serve else other_cores)

    def new_session(self, client):
        self.sessions.append(client.create_session())
        return self.sessions[-1]

    def end_sessions(self):
        """Pods outlive `wakegate up`, so each session is deleted."""
        if not self.sessions:
            return
        client = Client(self)
        while self.sessions:
            client.call("DELETE", f"/session/{self.sessions[-1]}")
            self.sessions.pop()
        client.close()

    def ping_jobs(self, count, durable):
        """Jobs a second that do nothing."""
        command = [self.program, "admin", "jobs", "ping", "--json", "--count", str(count), "--env-file",
                   os.path.join(self.folder, "settings.env")]
        done = subprocess.run(command if durable else command + ["--volatile"], capture_output=True, text=True,
                              timeout=120)
        if done.returncode:
            raise Broken(f"admin jobs ping: {done.stderr}")
        return json.loads(done.stdout)["jobs_per_second"]

    def awake_at(self, session):
        """When the worker said that the pod is awake, in seconds since 1970."""
        with open(os.path.join(self.folder, "log", "work.log")) as file:
            for line in file:
                if '"pod awake"' in line and session in line:
                    moment = json.loads(line)["time"]
                    second = calendar.timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S"))
                    return second + int(moment[20:23]) / 1e3
        return None

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.end_sessions()
        finally:
            stop(self.process)
            # As root, PostgreSQL's data may lie outside the folder, behind this link.
            shutil.rmtree(os.path.realpath(os.path.join(self.folder, "postgres")), ignore_errors=True)
