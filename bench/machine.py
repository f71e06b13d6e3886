"""The gateway that is measured, with its stores; the machine, and what is known of its processes."""
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
from urllib.request import Request, urlopen

from load import Broken, Client

TICKS = os.sysconf("SC_CLK_TCK")
START_S = 60
STOP_S = 60


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


def established(port):
    """How many connections a server on 127.0.0.1 has."""
    wanted = (f"0100007F:{port:04X}", "01")
    with open("/proc/net/tcp") as file:
        return sum((fields[1], fields[3]) == wanted for fields in map(str.split, file))


def ended(process, seconds):
    """Whether it has ended, or does within so long. Not by Popen's wait: a signal that comes while that holds its lock leaves it
    locked for ever, and this is what is called after one."""
    deadline = time.monotonic() + seconds
    while process.returncode is None:
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = process.pid, 0
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= deadline:
            return False
        else:
            time.sleep(0.01)
    return True


def stop(process):
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not process or ended(process, 0):
            return
        os.kill(process.pid, number)
        ended(process, STOP_S)


METRICS_TOKEN = "bench"
GATEWAY_SETTINGS = {
    "REACTORS": "1",
    "SESSION_RATE_PER_MINUTE": "1000000000",
    "ADDRESS_RATE_PER_MINUTE": "1000000000",
    "METRICS_TOKEN": METRICS_TOKEN,
    "IDLE_TIMEOUT_SECONDS": "3600",
    "LOG_REQUESTS": "1",
    "LOG_LEVEL": "info",
    "LISTEN_ADDRESS": "127.0.0.1",
}


class Gateway:
    """`wakegate up` with one reactor. Its request log goes to a file, as always. `settings` are added to its own."""

    def __init__(self, program, folder, settings=None):
        self.process = None
        self.program = program
        self.folder = folder
        self.sessions = []
        variables = {**os.environ, **GATEWAY_SETTINGS, **(settings or {})}
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

    def admin(self, *words):
        command = [self.program, "admin", *words, "--json", "--env-file", os.path.join(self.folder, "settings.env")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Broken(f"admin {' '.join(words[:2])}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout else None

    def ping_jobs(self, count, durable):
        """Jobs a second that do nothing."""
        how = () if durable else ("--volatile",)
        return self.admin("jobs", "ping", "--count", str(count), *how)["jobs_per_second"]

    def limited_key(self):
        """A key that is checked against four limits at each request, none of which a measurement reaches."""
        made = self.admin("key", "create", "--account", "bench", "--surface", "inference")
        self.admin("plan", "set", "--account", "bench", "--surface", "inference", "--plan", "enterprise")
        for name in ("inference-key", "inference-minute", "inference-day"):
            self.admin("plan", "limit", "--account", "bench", "--name", name, "--most", "1000000000")
        return made["key"]

    def metric(self, name):
        """A counter of serve's, by METRICS_TOKEN."""
        request = Request(self.origin + "/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
        with urlopen(request, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.split()[0] == name:
                    return float(line.split()[1])
        raise Broken(f"there is no metric {name}")

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


class Serve:
    """One more `wakegate serve` on a gateway's stores, with settings of its own."""

    publishing = ()  # how subscribers.c publishes, if not as to a broadcast

    def __init__(self, gateway, folder, settings, core=None):
        os.mkdir(folder)
        port_file = os.path.join(folder, "port")
        self.log = os.path.join(folder, "log")
        command = [gateway.program, "serve", "--env-file", os.path.join(gateway.folder, "settings.env"), "--port-file",
                   port_file]
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **GATEWAY_SETTINGS, "PORT": "0", **settings},
                                            stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: os.path.exists(port_file), "wakegate serve", self.process)
        except Broken as broken:
            self.close()
            with open(self.log) as file:
                raise Broken(f"{broken}: {file.read()}") from None
        with open(port_file) as file:
            self.port = int(file.read())
        self.pid = self.process.pid
        self.origin = f"{'https' if 'TLS_CERT' in settings else 'http'}://127.0.0.1:{self.port}"

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def close(self):
        stop(self.process)
