"""`wakegate up`: the first start, the next ones, and every way it can end."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import psycopg2
import pytest
import requests

from stores import make_fast_folder
from wakegate import Ports

WAKEGATE = os.environ.get("WAKEGATE_BIN", "build/release/wakegate")
START_SECONDS = 90  # the first start makes a database, perhaps under a sanitizer on a busy machine
SERVERS = {"postgres", "redis-server"}
PORTS = Ports()  # other tests run beside these
# What credentials.env has beside the URL.
MADE = {"SESSION_API_KEY", "FABSTIR_API_KEY", "DUMONT_API_KEY", "FABSTIR_EMAIL", "FABSTIR_PASSWORD", "SELF_CLIENT_ID",
        "SELF_CLIENT_SECRET"}
SECRETS = MADE - {"FABSTIR_EMAIL", "SELF_CLIENT_ID"} | {"ADMIN_TOKEN"}


# ---- processes ----


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def folder_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def is_alive(pid):
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return bool(fields) and fields[0] not in (b"Z", b"X")


def processes_of(data):
    """Everything that runs for this data folder: its name is on the command line, or it works below it."""
    data = os.path.realpath(data)
    elsewhere = os.path.realpath(os.path.join(data, "postgres"))
    found = {}
    for pid in pids():
        line = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
        place = folder_of(pid) + "/"
        if is_alive(pid) and (data + "/" in line or place.startswith((data + "/", elsewhere + "/"))):
            found[pid] = line
    return found


def find_process(data, pattern):
    matches = [pid for pid, line in processes_of(data).items() if re.search(pattern, line)]
    assert matches, f"no process {pattern} in {processes_of(data)}"
    return matches[0]


def wait_until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


# ---- one `up` ----


class Up:
    def __init__(self, data, *arguments, port="0", env=None):
        self.data = str(data)
        command = [WAKEGATE, "up", "--data", self.data, *(["--port", port] if port else []), *arguments]
        self.out = tempfile.TemporaryFile("w+")
        self.err = tempfile.TemporaryFile("w+")
        environment = {"CI": "true", "POD_PORT_RANGE": str(PORTS), **os.environ, **(env or {})}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, env=environment
        )

    def text(self, file):
        # Not through the file's own position: the child writes at it.
        return os.pread(file.fileno(), 1 << 20, 0).decode()

    def ready(self):
        wait_until(
            lambda: "Ctrl-C stops it." in self.text(self.out) or self.process.poll() is not None,
            f"the start of up; it said {self.text(self.err)}",
            START_SECONDS,
        )
        assert self.process.poll() is None, self.text(self.err)
        self.seconds = time.monotonic() - self.began
        return self

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self):
        return self.text(self.err)


def credentials(data):
    with open(os.path.join(data, "credentials.env"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file)


def settings(data):
    with open(os.path.join(data, "settings.env"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line and not line.startswith("#"))


def call(data, method, path, body=None):
    client = credentials(data)
    request = urllib.request.Request(
        client["WAKEGATE_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"X-API-Key": client["SESSION_API_KEY"], "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, json.load(answer)


def ask(data, path, body=None, headers=None, form=None):
    """The status of an answer, and its JSON."""
    sent = urllib.parse.urlencode(form).encode() if form else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(credentials(data)["WAKEGATE_URL"] + path, data=sent, headers=headers or {})
    if body is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check_credentials(data):
    """Each of them opens what it is for."""
    client = credentials(data)
    assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201
    login = {"email": client["FABSTIR_EMAIL"], "password": client["FABSTIR_PASSWORD"]}
    assert ask(data, "/api/auth/login", login)[0] == 200
    assert ask(data, "/api/v1/whoami", headers={"Authorization": f"Bearer {client['FABSTIR_API_KEY']}"})[0] == 200
    form = {"grant_type": "client_credentials", "client_id": client["SELF_CLIENT_ID"],
            "client_secret": client["SELF_CLIENT_SECRET"]}
    assert ask(data, "/oauth/token", form=form)[0] == 200
    status, keys = ask(data, "/admin/v1/key/list", headers={"Authorization": f"Bearer {client['ADMIN_TOKEN']}"})
    assert status == 200
    holds = [key for key in keys if not key["revoked_at"]]
    assert {key["surface"] for key in holds} >= {"session", "inference", "gpu"}
    assert any(client["DUMONT_API_KEY"].startswith(key["shown"]) for key in holds if key["surface"] == "gpu")


def keep_lines(path, names):
    """Of a file of NAME=value lines, those of these names alone."""
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if line.split("=", 1)[0] in names]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(name="parent")
def parent_folder():
    """A folder that PostgreSQL's user can pass too, as pytest's own is not when we are root."""
    folder = make_fast_folder("wakegate-up-")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(name="data")
def data_folder(parent):
    return os.path.join(parent, "data")


@pytest.fixture(name="up")
def up_factory(parent):
    """Starts; ends what was started before the folder goes."""
    assert os.path.isdir(parent)
    started = []

    def start(*arguments, **options):
        started.append(Up(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()
    for one in started:
        wait_until(lambda data=one.data: not processes_of(data), f"an end of {one.data}")


# ---- starts ----


def test_first_start_gives_working_credentials(up, data):
    one = up(data).ready()
    client = credentials(data)
    assert set(client) == {"WAKEGATE_URL", "ADMIN_TOKEN", *MADE}
    assert client["ADMIN_TOKEN"] == settings(data)["ADMIN_TOKEN"]
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", client["WAKEGATE_URL"])
    assert client["WAKEGATE_URL"] in one.text(one.out)
    status, session = call(data, "POST", "/session/create", {"user_id": "ada"})
    assert status == 201
    assert session["user_id"] == "ada"
    check_credentials(data)


def test_files_are_closed_to_others(up, data):
    up(data).ready()
    for name in ("credentials.env", "settings.env"):
        assert mode(os.path.join(data, name)) == 0o600
    # As root PostgreSQL's own user may pass, but not look.
    assert mode(data) in (0o700, 0o711)
    assert mode(os.path.join(data, "redis")) == 0o700
    assert mode(os.path.join(data, "log")) == 0o700
    assert mode(os.path.realpath(os.path.join(data, "postgres"))) == 0o700
    assert mode(os.path.join(data, "run", "redis.sock")) == 0o700
    assert mode(os.path.join(data, "run", "postgres")) == 0o700


def test_servers_listen_on_unix_sockets_only(up, data):
    up(data).ready()
    inodes = set()
    for pid, line in processes_of(data).items():
        if not re.search(r"postgres|redis", line) or " serve " in line or " work " in line or " up " in line:
            continue
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
            except OSError:
                continue
            if found:
                inodes.add(found.group(1))
    assert inodes
    for table in ("tcp", "tcp6"):
        for line in read(f"/proc/net/{table}").decode().splitlines()[1:]:
            assert line.split()[9] not in inodes


def test_second_start_keeps_key_and_data(up, data):
    one = up(data).ready()
    before = credentials(data)
    secrets = settings(data)
    _, session = call(data, "POST", "/session/create", {"user_id": "ada"})
    assert one.stop() == 0
    two = up(data).ready()
    assert {**credentials(data), "WAKEGATE_URL": ""} == {**before, "WAKEGATE_URL": ""}
    for name in ("ENCRYPTION_KEY", "ADMIN_TOKEN"):
        assert settings(data)[name] == secrets[name]
    status, found = call(data, "GET", f"/session/{session['uuid']}/status")
    assert status == 200
    assert found["uuid"] == session["uuid"]
    assert two.seconds < 20  # it is a tenth of that on a machine with nothing else to do


def test_credentials_are_made_anew_when_the_file_is_gone(up, data):
    one = up(data).ready()
    before = credentials(data)
    assert one.stop() == 0
    os.unlink(os.path.join(data, "credentials.env"))
    up(data).ready()
    after = credentials(data)
    assert set(after) == set(before)
    assert {name for name in MADE if after[name] == before[name]} == {"FABSTIR_EMAIL"}
    check_credentials(data)


def test_a_file_of_an_older_version_gains_what_it_lacks(up, data):
    """It had a session key alone, of an account without an address."""
    one = up(data).ready()
    key = credentials(data)["SESSION_API_KEY"]
    with contextlib.closing(psycopg2.connect(settings(data)["DATABASE_URL"])) as database:
        database.cursor().execute("UPDATE account SET email = NULL, password = NULL")
        database.commit()
    assert one.stop() == 0
    keep_lines(os.path.join(data, "credentials.env"), {"WAKEGATE_URL", "SESSION_API_KEY"})
    keep_lines(os.path.join(data, "settings.env"), set(settings(data)) - {"ADMIN_TOKEN"})
    up(data).ready()
    assert credentials(data)["SESSION_API_KEY"] == key
    assert set(credentials(data)) == {"WAKEGATE_URL", "ADMIN_TOKEN", *MADE}
    check_credentials(data)


def test_a_database_whose_secret_is_lost_is_not_started(up, data):
    one = up(data).ready()
    secret = settings(data)["ENCRYPTION_KEY"]
    assert one.stop() == 0
    path = os.path.join(data, "settings.env")
    keep_lines(path, set(settings(data)) - {"ENCRYPTION_KEY"})
    two = up(data)
    assert two.process.wait(START_SECONDS) == 1
    assert two.said().count("\n") == 1 and "ENCRYPTION_KEY" in two.said()
    assert "ENCRYPTION_KEY" not in settings(data)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"ENCRYPTION_KEY={secret}\n")
    up(data).ready()
    check_credentials(data)


def test_settings_that_a_person_added_stay(up, data):
    assert up(data).ready().stop() == 0
    with open(os.path.join(data, "settings.env"), "a", encoding="utf-8") as file:
        file.write("# mine\nIDLE_TIMEOUT_SECONDS=77\n")
    up(data).ready()
    assert settings(data)["IDLE_TIMEOUT_SECONDS"] == "77"
    assert "# mine\n" in read(os.path.join(data, "settings.env")).decode()


def test_a_moved_folder_is_found_again(up, parent, data):
    one = up(data).ready()
    _, session = call(data, "POST", "/session/create", {"user_id": "ada"})
    assert one.stop() == 0
    moved = os.path.join(parent, "moved 100% 'here' \"too\"")
    os.rename(data, moved)
    up(moved).ready()
    assert call(moved, "GET", f"/session/{session['uuid']}/status")[0] == 200


def test_the_environment_does_not_lead_to_other_servers(up, data):
    up(
        data,
        env={
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "REDIS_URL": "redis://127.0.0.1:1",
            "PGHOSTADDR": "127.0.0.1",
            "PGPORT": "1",
            "ENCRYPTION_KEY": "x" * 40,
        },
    ).ready()
    assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201


def test_workers_asked_for_run(up, data):
    up(data, "--workers", "3").ready()
    assert sum(" work " in line for line in processes_of(data).values()) == 3


# ---- ends ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_process(up, data, number):
    one = up(data).ready()
    names = {read(f"/proc/{pid}/comm").decode().strip() for pid in processes_of(data)}
    assert SERVERS <= names
    assert one.stop(number) == 0
    assert processes_of(data) == {}


def test_a_second_signal_waits_for_nobody(up, data):
    one = up(data).ready()
    os.kill(find_process(data, r" serve "), signal.SIGSTOP)
    one.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in one.said(), "the first signal to be seen")
    assert one.stop(signal.SIGINT) == 0
    assert "unasked" not in one.said()
    assert processes_of(data) == {}


def test_a_signal_during_the_first_start_leaves_nothing_half_made(up, data):
    one = up(data)
    wait_until(lambda: os.path.exists(os.path.join(data, "postgres", "data.new")), "initdb")
    assert one.stop() == 0
    assert processes_of(data) == {}
    up(data).ready()
    assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201


def test_a_killed_up_takes_its_children_along(up, data):
    one = up(data).ready()
    children = processes_of(data)
    one.kill()
    wait_until(lambda: not any(map(is_alive, children)), "the children's end")


def test_start_after_a_kill(up, data):
    one = up(data).ready()
    key = credentials(data)["SESSION_API_KEY"]
    _, session = call(data, "POST", "/session/create", {"user_id": "ada"})
    one.kill()
    up(data).ready()
    assert credentials(data)["SESSION_API_KEY"] == key
    assert call(data, "GET", f"/session/{session['uuid']}/status")[0] == 200


def test_start_with_servers_left_by_a_killed_up(up, data):
    """Stopped, the servers get their parent's death signal no sooner than the next start is under way."""
    one = up(data).ready()
    servers = [find_process(data, r"bin/postgres "), find_process(data, r"redis-server")]
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    one.kill()
    two = up(data)
    wait_until(lambda: "left over" in two.said(), "the leftovers to be found")
    for pid in servers:
        os.kill(pid, signal.SIGCONT)
    two.ready()
    assert not any(map(is_alive, servers))
    assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(up, data):
    """In a container the pids of the last run come again. The stranger is not signalled."""
    assert up(data).ready().stop() == 0
    home = os.path.realpath(os.path.join(data, "postgres"))
    owner = os.stat(home)
    stranger = subprocess.Popen(["sleep", "600"], user=owner.st_uid if os.geteuid() == 0 else None)
    try:
        path = os.path.join(home, "data", "postmaster.pid")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{stranger.pid}\n{home}/data\n1\n5432\n\n\n0 0\nready\n")
        os.chown(path, owner.st_uid, owner.st_gid)
        up(data).ready()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_up_is_refused(up, data):
    one = up(data).ready()
    two = subprocess.run([WAKEGATE, "up", "--data", data], capture_output=True, text=True, timeout=30, check=False)
    assert two.returncode == 1
    assert two.stderr.count("\n") == 1
    assert f"(pid {one.process.pid})" in two.stderr
    assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201


# ---- parts that die ----


@pytest.mark.parametrize("part", [r" serve ", r" work ", r"redis-server", r"bin/postgres "])
def test_a_part_that_dies_is_started_again(up, data, part):
    one = up(data).ready()
    url = credentials(data)["WAKEGATE_URL"]
    before = find_process(data, part)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: "runs again" in one.said(), f"{part} to run again")
    assert find_process(data, part) != before
    assert credentials(data)["WAKEGATE_URL"] == url

    def works():
        try:
            return call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201
        except OSError:
            return False

    wait_until(works, "an answer")


# ---- secrets ----


def test_no_secret_on_a_command_line_while_it_starts_and_runs(up, data):
    one = up(data)
    lines = set()
    while "Ctrl-C stops it." not in one.text(one.out):
        assert one.process.poll() is None, one.said()
        lines.update(processes_of(data).values())
    lines.update(processes_of(data).values())
    assert any(" admin demo credentials " in line for line in lines), lines
    known = [settings(data)[name] for name in ("ENCRYPTION_KEY", "METRICS_TOKEN", "DATABASE_URL", "REDIS_URL")]
    known += [credentials(data)[name] for name in SECRETS]
    for line in lines:
        assert not any(secret in line for secret in known), line


def test_no_secret_in_a_log(up, data):
    one = up(data).ready()
    check_credentials(data)
    assert one.stop() == 0
    known = [settings(data)["ENCRYPTION_KEY"], *(credentials(data)[name] for name in SECRETS)]
    for name in os.listdir(os.path.join(data, "log")):
        text = read(os.path.join(data, "log", name)).decode()
        for secret in known:
            assert secret not in text, name


# ---- places that are hard ----


@pytest.mark.parametrize("folder", ["long" * 30, "a,b"])
def test_a_name_that_a_socket_can_not_have(up, parent, folder):
    data = os.path.join(parent, folder, "data")
    one = up(data).ready()
    assert "sockets are in" in one.said()
    place = re.search(r"sockets are in (\S+),", one.said()).group(1)
    try:
        assert mode(place) in (0o700, 0o710)
        assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201
        assert one.stop() == 0
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's database has another user")
def test_below_a_folder_that_is_closed_to_the_database(up, parent):
    closed = os.path.join(parent, "closed")
    os.mkdir(closed, 0o700)
    data = os.path.join(closed, "data")
    one = up(data).ready()
    home = os.readlink(os.path.join(data, "postgres"))
    place = re.search(r"sockets are in (\S+),", one.said()).group(1)
    try:
        assert os.path.dirname(home) == "/var/lib/wakegate"
        assert mode(home) == 0o700
        assert mode(data) == 0o700
        assert pwd.getpwuid(os.stat(home).st_uid).pw_name == "postgres"
        _, session = call(data, "POST", "/session/create", {"user_id": "ada"})
        assert one.stop() == 0
        two = up(data).ready()
        assert call(data, "GET", f"/session/{session['uuid']}/status")[0] == 200
        assert two.stop() == 0
    finally:
        shutil.rmtree(home)
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is what runs the other tests then")
def test_an_ordinary_user_can_run_it(parent):
    """The binary may be below a folder that the user can't pass, so it runs a copy, of its library there too."""
    user = pwd.getpwnam("nobody")
    shutil.copy(WAKEGATE, os.path.join(parent, "wakegate"))
    for library in re.findall(r"=> (\S+/build/deps/\S+)", subprocess.check_output(["ldd", WAKEGATE], text=True)):
        shutil.copy(library, parent)
    home = os.path.join(parent, "home")
    os.mkdir(home)
    os.chown(home, user.pw_uid, user.pw_gid)
    data = os.path.join(home, ".wakegate")
    with open(os.path.join(parent, "out"), "w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            [os.path.join(parent, "wakegate"), "up", "--port", "0"],
            cwd=home,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "CI": "true", "LD_LIBRARY_PATH": parent},
        )
        try:
            wait_until(
                lambda: b"Ctrl-C" in read(out.name) or process.poll() is not None, "the start", START_SECONDS
            )
            assert process.poll() is None, read(out.name).decode()
            assert mode(data) == 0o700
            assert call(data, "POST", "/session/create", {"user_id": "ada"})[0] == 201
            assert {os.stat(f"/proc/{pid}").st_uid for pid in processes_of(data)} == {user.pw_uid}
        finally:
            process.terminate()
            process.wait(60)
    assert processes_of(data) == {}


# ---- TLS ----


def test_pods_call_models_under_tls_too(up, data):
    """They may not trust the certificate, and need not: they have a listener of their own."""
    up(data, env={"TLS_DEV": "1"}).ready()
    client = credentials(data)
    assert client["WAKEGATE_URL"].startswith("https://")
    options = {"headers": {"X-API-Key": client["SESSION_API_KEY"], "Prefer": "wait=30"}, "timeout": 60,
               "verify": os.path.join(data, "tls-dev.pem")}
    made = requests.post(client["WAKEGATE_URL"] + "/session/create", json={"user_id": "ada"}, **options)
    answer = requests.post(f"{client['WAKEGATE_URL']}/session/{made.json()['uuid']}/chat", json={"message": "who answers?"}, **options)
    assert answer.status_code == 200 and answer.json()["status"] == "delivered", answer.text
    assert "sandbox" in answer.json()["response"], "the pod has asked nobody"


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--foo"], "--foo"),
        (["--port", "x"], "--port"),
        (["--port", "65536"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--data"], "--data"),
        (["more"], "more"),
        (["--data", "/proc/none/data"], "/proc/none/data"),
        (["--data", "/etc/passwd"], "/etc/passwd"),
        (["--data", "/usr"], "/usr"),
        (["--data", "a\nb"], "--data"),
    ],
)
def test_bad_input_is_one_line(arguments, expected):
    result = subprocess.run(
        [WAKEGATE, "up", *arguments], capture_output=True, text=True, timeout=30, check=False, cwd="/"
    )
    assert result.returncode in (1, 2)
    assert result.stderr.count("\n") == 1, result.stderr
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_port_in_use_is_said(up, data):
    with socket.socket() as taken:
        # As another gateway would listen, with which this one must not share.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        one = up(data, port=port)
        assert one.process.wait(START_SECONDS) == 1
        assert f"port {port}" in one.said()
    assert processes_of(data) == {}


def test_a_bad_setting_is_said(up, data):
    assert up(data).ready().stop() == 0
    with open(os.path.join(data, "settings.env"), "a", encoding="utf-8") as file:
        file.write("NO_SUCH_SETTING=1\n")
    one = up(data)
    assert one.process.wait(START_SECONDS) == 1
    assert "NO_SUCH_SETTING" in one.said()
