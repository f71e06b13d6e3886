"""A private PostgreSQL and a private Redis: unix sockets in a folder of their own, nothing written through to the disk."""

import contextlib
import glob
import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg2
import redis

OWNER = "wakegate"
TESTS = "tests"  # what connections of our own say that they are
START_S = 30


# Where files are made and deleted faster than on a disk (test/run_tests.py).
MEMORY = os.environ.get("WAKEGATE_TEST_MEMORY", "/tmp")


def make_folder():
    # Short: the path of a unix socket has 107 characters at most.
    return tempfile.mkdtemp(prefix="wg-", dir="/tmp")


def make_fast_folder(prefix="wg-"):
    """For the thousands of files that PostgreSQL makes and deletes."""
    return tempfile.mkdtemp(prefix=prefix, dir=MEMORY)


def remove_folder(folder):
    shutil.rmtree(folder, ignore_errors=True)


def wait_until(ask, timeout_s=15, what="it", pause_s=None):
    """Asks until the answer is true, and returns it. The longer that takes, the seldomer it asks, if it is not told how often."""
    began = time.monotonic()
    deadline = began + timeout_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s, last answer {answer!r}")
        time.sleep(pause_s or max(0.02, min((time.monotonic() - began) / 20, 0.25)))


def end_process(process, number=signal.SIGTERM, timeout_s=15):
    if process and process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Postgres:
    """A cluster in `folder`: made with initdb, or a copy of the data folder of one that is stopped."""

    def __init__(self, folder, copy_of=None):
        self.folder = folder
        self.fast_folder = make_fast_folder()
        os.chmod(self.fast_folder, 0o711)
        self.data = os.path.join(self.fast_folder, "pg")
        self.process = None
        self.idle = {}  # database -> connections that `run` may take: to make one costs more than most statements
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else None
        self.bin = max(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
        if copy_of:
            subprocess.run(["cp", "-a", copy_of, self.data], check=True)
        else:
            self._initdb()

    def _as_user(self):
        if not self.user:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _initdb(self):
        os.mkdir(self.data, 0o700)
        if self.user:
            shutil.chown(self.data, self.user, self.user)
        subprocess.run(
            [f"{self.bin}/initdb", "-D", self.data, "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C",
             "--no-sync", "--no-instructions", "--wal-segsize=4"],
            check=True, cwd="/", stdout=subprocess.DEVNULL, **self._as_user())

    def start(self):
        settings = {
            "listen_addresses": "", "unix_socket_directories": self.data, "fsync": "off", "full_page_writes": "off",
            "max_connections": "200", "shared_buffers": "32MB", "jit": "off", "timezone": "UTC", "min_wal_size": "32MB",
            "max_wal_size": "128MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(os.path.join(self.folder, "postgres.log"), "ab") as log:
            self.process = subprocess.Popen(
                [f"{self.bin}/postgres", "-D", self.data, *words],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user())
        wait_until(self._answers, START_S, "PostgreSQL answers")

    def _answers(self):
        assert self.process.poll() is None, open(os.path.join(self.folder, "postgres.log")).read()
        with contextlib.suppress(psycopg2.OperationalError):
            self.connect("postgres").close()
            return True
        return False

    def stop(self, number=signal.SIGINT):
        """SIGINT ends every connection and writes a checkpoint; SIGQUIT is a crash."""
        for database in list(self.idle):
            self.leave(database)
        end_process(self.process, number)
        self.process = None

    def remove(self):
        self.stop(signal.SIGQUIT)
        remove_folder(self.fast_folder)

    def connect(self, database):
        connection = psycopg2.connect(host=self.data, user=OWNER, dbname=database, connect_timeout=5,
                                      application_name=TESTS)
        connection.autocommit = True
        return connection

    def run(self, sql, *values, database="postgres"):
        connection = self._take(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values)
                rows = cursor.fetchall() if cursor.description else None
        except BaseException:
            connection.close()
            raise
        self.idle.setdefault(database, []).append(connection)
        return rows

    def _take(self, database):
        with contextlib.suppress(IndexError):
            while True:
                connection = self.idle.get(database, []).pop()
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLIN)
                if not poll.poll(0):
                    return connection
                connection.close()  # the server has something to say: that it has ended it
        return self.connect(database)

    def leave(self, database):
        """Nothing more is asked of it for now."""
        for connection in self.idle.pop(database, []):
            connection.close()

    def url(self, database):
        return f"postgresql://{OWNER}@/{database}?host={self.data}"

    def make_database(self, name, template="template1"):
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")

    def dump(self, database):
        return subprocess.run([f"{self.bin}/pg_dump", self.url(database)], check=True, capture_output=True).stdout


class Redis:
    def __init__(self, folder):
        self.folder = folder
        self.socket = os.path.join(folder, "redis.sock")
        self.process = None

    def start(self, *options):
        with open(os.path.join(self.folder, "redis.log"), "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no",
                 "--databases", "1000", "--dir", self.folder, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, START_S, "Redis answers")

    def _answers(self):
        with contextlib.suppress(redis.exceptions.ConnectionError):
            return self.client().ping()
        return False

    def stop(self, number=signal.SIGTERM):
        end_process(self.process, number)
        self.process = None

    def client(self, database=0):
        return redis.Redis(unix_socket_path=self.socket, db=database, socket_timeout=10)

    def url(self, database=0):
        return f"unix://{self.socket}?db={database}"


class Stores:
    """One PostgreSQL and one Redis, and what tells their users apart: a database and a number each."""

    def __init__(self, folder, copy_of=None):
        os.chmod(folder, 0o711)
        self.folder = folder
        self.postgres = Postgres(folder, copy_of)
        self.redis = Redis(folder)
        self.used = 0

    def start(self):
        self.postgres.start()
        self.redis.start()
        return self

    def stop(self):
        self.redis.stop(signal.SIGKILL)
        self.postgres.remove()

    def next_number(self):
        self.used += 1
        return self.used
