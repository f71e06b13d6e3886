"""The program under test: its processes, its settings, and a client of its session API."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import requests

from stores import wait_until

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BINARY = os.environ.get("WAKEGATE_BIN", os.path.join(ROOT, "build", "asan", "wakegate"))
ENCRYPTION_KEY = "test-only-secret-of-the-operator-0123456789"
ADMIN_TOKEN = "test-only-token-of-the-operator-api-0123456789"
POD_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pod.py")
STOP_S = 60
PORTS_EACH = 100  # of pods, for one gateway
FIRST_PORTS = range(10000, 20000, PORTS_EACH)  # beside those of `wakegate up`, and below those that the kernel gives out


class Ports:
    """PORTS_EACH ports that nobody else who runs these tests here takes, be it in another process or another checkout."""

    def __init__(self):
        folder = os.path.join(tempfile.gettempdir(), f"wakegate-test-ports-{os.geteuid()}")
        os.makedirs(folder, exist_ok=True)
        for self.first in FIRST_PORTS:
            self.lock = open(os.path.join(folder, str(self.first)), "a", encoding="ascii")
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            self.lock.close()
        raise AssertionError("too many gateways run at once: no ports are left for their pods")

    def __str__(self):
        return f"{self.first}-{self.first + PORTS_EACH - 1}"

    def give_back(self):
        self.lock.close()


def others_can_read(path):
    """Whether a user without rights of its own gets to the file: a checkout may lie below a closed folder."""
    folder = os.path.dirname(path)
    while folder != "/":
        if not os.stat(folder).st_mode & 0o001:
            return False
        folder = os.path.dirname(folder)
    return bool(os.stat(path).st_mode & 0o004)


# Short times, no sandbox (test_pods.py has one), and a rate that no other test reaches.
SETTINGS = {
    "PORT": "0",
    "REACTORS": "2",
    "ENCRYPTION_KEY": ENCRYPTION_KEY,
    "ADMIN_TOKEN": ADMIN_TOKEN,
    "SESSION_RATE_PER_MINUTE": "1000000",
    "IDLE_TIMEOUT_SECONDS": "60",
    "RECONCILE_MS": "100",
    "POD_SANDBOX": "off",
    "POD_USER": "nobody" if others_can_read(POD_SCRIPT) else "",
    "POD_READY_TIMEOUT_MS": "10000",
    "POD_ANSWER_TIMEOUT_MS": "5000",
    "POD_STOP_TIMEOUT_MS": "3000",
}


def environment(extra=None):
    """Nothing of the caller's that the program would read, but what sanitizers are told."""
    kept = ("PATH", "HOME", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **(extra or {})}


def run(*words, env=None, timeout_s=60):
    """Runs the program to its end: returns what subprocess.run does, with text."""
    return subprocess.run([BINARY, *words], env=environment(env), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=timeout_s)


class Part:
    """`wakegate serve` or `wakegate work`, its log in a file."""

    def __init__(self, gateway, kind, number, extra=None):
        self.gateway = gateway
        self.kind = kind
        self.name = f"{kind}{number}"
        self.log_path = os.path.join(gateway.folder, f"{self.name}.log")
        self.port_file = os.path.join(gateway.folder, f"{self.name}.port")
        self.extra = extra
        self.process = None
        self.statuses = []
        self.worked = 0  # how often it had got so far when it was started

    def start(self):
        words = [BINARY, self.kind, "--env-file", self.gateway.env_file]
        if self.kind == "serve":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.port_file)
            words += ["--port-file", self.port_file]
        self.worked = self.log().count('"msg":"working"') if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(words, env=environment(self.extra), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()

    def log_lines(self, message=None):
        """The log as objects; every line has to be one."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return [line for line in lines if message is None or line["msg"] == message]

    def url(self):
        def read():
            assert self.alive(), self.log()
            with contextlib.suppress(FileNotFoundError, ValueError):
                return int(open(self.port_file).readline())
        scheme = "https" if self.gateway.ca else "http"
        return f"{scheme}://127.0.0.1:{wait_until(read, 30, 'the port file')}"

    def wait_ready(self):
        if self.kind == "serve":
            url = self.url() + "/readyz"
            verify = self.gateway.ca or True
            wait_until(lambda: requests.get(url, timeout=10, verify=verify).status_code == 200, 30, "/readyz")
        else:
            def working():
                assert self.alive() or self.gateway.supervisors, self.log()
                return self.log().count('"msg":"working"') > self.worked
            wait_until(working, 30, "the worker works")
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def cpu_s(self):
        """CPU time that it has taken so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """As an operator does: SIGTERM, and the program ends by itself with status 0."""
        if self.alive():
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s=STOP_S):
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGUSR1)
            time.sleep(1)
            self.kill()
            raise AssertionError(f"{self.name} does not end:\n{self.log()[-5000:]}") from None
        self.statuses.append(status)
        return status

    def kill(self):
        if self.alive():
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Starts a part again whenever it ends, as systemd would."""

    def __init__(self, part):
        self.part = part
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while True:
            self.part.process.wait()
            if self.stopping.is_set():
                return
            self.part.statuses.append(self.part.process.returncode)
            self.part.start()


class Gateway:
    """A gateway with its database, its pods' folder and its processes. `close` is a test of its own: all ends well."""

    def __init__(self, stores, settings=None, serves=1, works=1, work_env=None, serve_env=None,
                 template="template_wakegate", ca=None):
        self.stores = stores
        self.ca = ca  # the file of the certificate that it is to be trusted by, when it speaks TLS
        number = stores.next_number()
        self.folder = tempfile.mkdtemp(prefix=f"g{number}-", dir=stores.folder)
        os.chmod(self.folder, 0o711)
        self.database = f"gateway_{number}"
        self.redis_database = number
        self.data = os.path.join(self.folder, "data")
        self.env_file = os.path.join(self.folder, "gateway.env")
        stores.postgres.make_database(self.database, template)
        self.settings = {
            **SETTINGS,
            "DATABASE_URL": stores.postgres.url(self.database),
            "REDIS_URL": stores.redis.url(number),
            "WAKEGATE_DATA_DIR": self.data,
            **(settings or {}),
        }
        self.ports = None
        self.write_settings()
        self.keys = {}
        self.serves = [Part(self, "serve", i, serve_env) for i in range(serves)]
        self.works = [Part(self, "work", i, work_env) for i in range(works)]
        self.supervisors = []

    def write_settings(self):
        with open(self.env_file, "w", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in self.settings.items())

    @property
    def parts(self):
        return self.serves + self.works

    def start(self, supervised=False, ready=True):
        self.ports = self.ports or Ports()
        self.settings["POD_PORT_RANGE"] = str(self.ports)
        self.write_settings()
        for part in self.parts:
            part.start()
        if supervised:
            self.supervisors = [Supervisor(part) for part in self.works]
        for part in self.parts if ready else ():
            part.wait_ready()
        return self

    @property
    def url(self):
        return self.serves[0].url()

    def sql(self, statement, *values):
        return self.stores.postgres.run(statement, *values, database=self.database)

    def admin(self, *words, env=None):
        done = run("admin", *words, "--env-file", self.env_file, "--json", env=env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def operator(self, noun, verb, arguments=None, token=ADMIN_TOKEN, url=None, headers=None):
        """The operator API: the response. What only reads is asked with GET."""
        reads = verb in ("list", "show", "counts", "dead", "check")
        return requests.request(
            "GET" if reads else "POST", f"{url or self.url}/admin/v1/{noun}/{verb}", timeout=30,
            params=arguments if reads else None, json=None if reads else arguments or {}, verify=self.ca or True,
            headers={**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})})

    def make_webhook(self, account, **body):
        """A webhook endpoint of this account; nothing is sent to it before something is told or tested."""
        key = self.admin("key", "create", "--account", account, "--surface", "inference")["key"]
        answer = requests.post(self.url + "/api/v1/webhooks", timeout=30, headers={"Authorization": f"Bearer {key}"},
                               json={"url": "https://example.com/", "events": ["*"], **body})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def make_key(self, account="tests"):
        return self.admin("key", "create", "--account", account, "--surface", "session")

    def key(self, account="tests"):
        """One key for each account, made when it is first asked for."""
        if account not in self.keys:
            self.keys[account] = self.make_key(account)["key"]
        return self.keys[account]

    def client(self, account="tests", url=None):
        return Client(url or self.url, self.key(account), verify=self.ca or True)

    # ---- pods ----

    def workspace(self, uuid, *path):
        return os.path.join(self.data, "instances", uuid, "workspace", *path)

    def pod_processes(self, uuid=""):
        """The processes of one instance's pod, or of all pods of this gateway: pid -> command line."""
        wanted = f"\0WAKEGATE_WORKSPACE={os.path.join(self.data, 'instances', uuid)}".encode()
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if wanted not in b"\0" + file.read():
                        continue
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().replace(b"\0", b" ").decode().strip()
        return found

    def check_nobody_spins(self, seconds=3):
        """For so long, every process takes less than half of one core."""
        before = {part.name: part.cpu_s() for part in self.parts}
        time.sleep(seconds)  # what is measured is the CPU of a time in which nothing happens
        for part in self.parts:
            assert part.cpu_s() - before[part.name] < seconds / 2, part.name

    def pods_started(self):
        return sum(len(part.log_lines("pod started")) for part in self.works)

    # ---- the end ----

    def close(self):
        """Deletes what there is, then SIGTERM: every process leaves with 0 and no pod, folder or key is left behind."""
        try:
            self._delete_all()
            self._end_supervision()
            statuses = {part.name: part.stop() for part in self.parts if part.process}
            assert set(statuses.values()) <= {0}, (statuses, *(part.log()[-3000:] for part in self.parts))
            assert self.pod_processes() == {}
            instances = os.path.join(self.data, "instances")
            assert not os.path.isdir(instances) or os.listdir(instances) == []
            self.check_logs()
        finally:
            self.abandon()

    def _delete_all(self):
        if not self.works:
            return  # nobody would carry it out
        for account, uuid in self.sql("SELECT a.name, i.id FROM instance i JOIN account a ON a.id = i.account_id "
                                      "WHERE deleted_at IS NULL"):
            answer = self.client(account).delete(uuid)
            assert answer.status_code == 200, answer.text
        wait_until(lambda: self.sql("SELECT count(*) FROM instance")[0][0] == 0, 30, "the instances are gone")

    def check_logs(self):
        for part in self.parts:
            if not part.process:
                continue
            part.log_lines()
            for secret in filter(None, (*self.keys.values(), ENCRYPTION_KEY, self.settings["ADMIN_TOKEN"])):
                assert secret not in part.log(), f"{part.name} logs a secret"

    def _end_supervision(self):
        for supervisor in self.supervisors:
            supervisor.stopping.set()

    def abandon(self):
        """Whatever is left goes: for tests that break it, and after a failure."""
        self._end_supervision()
        for part in self.parts:
            part.kill()
        for pid in self.pod_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stores.postgres.leave(self.database)
        if self.ports:
            self.ports.give_back()
            self.ports = None
        shutil.rmtree(self.data, ignore_errors=True)


class Client:
    """The session API over python-requests: one method for each route, which returns the response."""

    def __init__(self, url, key, timeout_s=60, verify=True):
        self.url = url
        self.key = key
        self.verify = verify
        self.timeout_s = timeout_s
        self.local = threading.local()

    def call(self, method, path, **options):
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
            self.local.session.trust_env = False
        headers = {"X-API-Key": self.key, **options.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        options = {"timeout": self.timeout_s, "verify": self.verify, **options}
        return self.local.session.request(method, self.url + path, headers=headers, **options)

    def create(self, user_id="user@example.com"):
        answer = self.call("POST", "/session/create", json={"user_id": user_id})
        assert answer.status_code == 201, answer.text
        return answer.json()["uuid"]

    def wake(self, uuid):
        return self.call("POST", f"/session/{uuid}/wake")

    def status(self, uuid):
        return self.call("GET", f"/session/{uuid}/status")

    def sleep(self, uuid):
        return self.call("POST", f"/session/{uuid}/sleep")

    def chat(self, uuid, message, wait=None, **options):
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        return self.call("POST", f"/session/{uuid}/chat", json={"message": message}, headers=headers, **options)

    def messages(self, uuid, **query):
        return self.call("GET", f"/session/{uuid}/messages", params=query)

    def list(self, **query):
        return self.call("GET", "/session", params=query)

    def delete(self, uuid):
        return self.call("DELETE", f"/session/{uuid}")

    # ---- what tests wait for ----

    def wait_status(self, uuid, status, timeout_s=20):
        def ask():
            answer = self.status(uuid)
            return answer.status_code == 200 and answer.json()["session"]["status"] == status and answer.json()
        return wait_until(ask, timeout_s, f"{uuid} is {status}")

    def awake(self, user_id="user@example.com"):
        """A session with its pod up."""
        uuid = self.create(user_id)
        assert self.wake(uuid).status_code == 202
        self.wait_status(uuid, "active")
        return uuid

    def all_messages(self, uuid):
        """Over all pages."""
        messages, cursor = [], None
        while True:
            page = self.messages(uuid, **({"cursor": cursor} if cursor else {})).json()
            messages += page["messages"]
            cursor = page["next_cursor"]
            if not cursor:
                return messages

    def wait_settled(self, uuid, count, timeout_s=30):
        """The messages, once `count` of them are no longer queued and none is."""
        def ask():
            messages = self.all_messages(uuid)
            states = [message["status"] for message in messages]
            assert len(states) <= count
            if len(states) == count and "queued" not in states:
                seen["messages"] = messages
                return True
            seen["status"] = {state: states.count(state) for state in states}, self.status(uuid).text
            return False
        seen = {}
        try:
            wait_until(ask, timeout_s, f"{count} messages of {uuid} are settled", 0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen['status']}") from None
        return seen["messages"]
