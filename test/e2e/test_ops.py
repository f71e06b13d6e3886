"""What an operator sees: health, metrics, the printed tables, settings, keys, the log."""

import concurrent.futures
import contextlib
import json
import os
import re
import resource
import signal
import socket
import time

import pytest
import requests

import ai
from description import routes
from stores import wait_until
from test_errors import raw
from wakegate import Gateway, run

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def get(url, **options):
    return requests.get(url, timeout=10, **options)


def test_health_needs_no_key_and_has_the_fields_of_the_seed(gateway):
    answer = get(gateway.url + "/health")
    assert answer.status_code == 200
    body = answer.json()
    assert TIME.fullmatch(body.pop("timestamp"))
    assert body == {"status": "healthy", "redis": "healthy", "postgres": "healthy"}
    assert get(gateway.url + "/livez").status_code == 200
    assert get(gateway.url + "/readyz").status_code == 200


@pytest.mark.parametrize("part", ["redis", "postgres"])
def test_health_names_the_part_that_is_down_and_recovers_by_itself(own_stores, start_gateway, part):
    gateway = start_gateway(stores=own_stores)
    url = gateway.url
    store = getattr(own_stores, part)
    store.stop()

    def degraded():
        answer = get(url + "/health")
        return answer.status_code == 503 and answer.json()
    body = wait_until(degraded, 10, "degraded")
    assert body["status"] == "degraded" and body[part] == "unhealthy"
    other = "postgres" if part == "redis" else "redis"
    wait_until(lambda: get(url + "/health").json()[part] == "unhealthy", 5)
    assert get(url + "/health").json()[other] == "healthy"
    assert get(url + "/readyz").status_code == 503
    assert get(url + "/livez").status_code == 200
    store.start()
    # Each reactor has connections of its own.
    wait_until(lambda: all(get(url + "/health").status_code == 200 for _ in range(10)), 20, "healthy again")
    client = gateway.client()
    assert client.chat(client.create(), "all is well", wait=20).status_code == 200


def test_metrics_need_the_token(start_gateway):
    gateway = start_gateway({"METRICS_TOKEN": "a-token-of-the-operator"}, works=0)
    url = gateway.url + "/metrics"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic eDp5"},
                    {"Authorization": "Bearer a-token-of-the-operatorx"}, {"X-API-Key": gateway.key()}):
        answer = get(url, headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    answer = get(url, headers={"Authorization": "Bearer a-token-of-the-operator"})
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    check_prometheus(answer.text)


def test_metrics_without_a_token_are_served_by_nobody(gateway):
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer"}):
        assert get(gateway.url + "/metrics", headers=headers).status_code == 401


def check_prometheus(text):
    """The text format: every sample has a type, no sample twice, histograms add up."""
    types, samples = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types
            types[name] = kind
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (\S+)', line)
            assert match, line
            name, labels, value = match.groups()
            assert (name, labels) not in samples
            samples[name, labels] = float(value)
            assert name in types or re.sub("_(bucket|sum|count)$", "", name) in types, line
    assert samples
    return samples


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_the_operators_listener_serves_metrics_and_health_alone(start_gateway):
    ports = free_ports(2)
    gateway = start_gateway({"METRICS_TOKEN": ""}, serve_env={"METRICS_LISTEN": f"127.0.0.1:{ports[0]}"},
                            work_env={"METRICS_LISTEN": f"127.0.0.1:{ports[1]}"})
    client = gateway.client()
    assert client.chat(client.create(), "x", wait=20).status_code == 200
    for port in ports:
        url = f"http://127.0.0.1:{port}"
        check_prometheus(get(url + "/metrics").text)
        assert get(url + "/session").status_code == 404
        assert get(url + "/health").status_code == (200 if port == ports[0] else 404)  # the reactor's alone
    assert get(gateway.url + "/metrics").status_code == 401


def test_a_provider_is_seen_with_what_waits_and_runs(start_gateway):
    """By its name in the worker's metrics, and by `admin provider`."""
    (port,) = free_ports(1)
    gateway = start_gateway(ai.SETTINGS, work_env={"METRICS_LISTEN": f"127.0.0.1:{port}"})
    model = ai.provide(gateway, "seen", max_in_flight=1, delay_ms=60000)
    account = ai.payer(gateway)

    def state():
        provider = gateway.admin("provider", "show", "seen")
        (listed,) = [each for each in gateway.admin("provider", "list") if each["name"] == "seen"]
        assert listed.keys() == provider.keys()
        return tuple(provider[name] for name in ("waiting", "in_flight", "cap", "breaker"))

    def told():
        samples = check_prometheus(get(f"http://127.0.0.1:{port}/metrics").text)
        return tuple(samples.get((f"wakegate_ai_{name}", '{provider="seen"}')) for name in ("waiting", "in_flight", "cap", "breaker"))

    assert state() == (0, 0, 1, "closed")
    for _ in range(3):
        assert account.call("POST", ai.COMPLETIONS, json={**ai.PROMPT, "model": model},
                            headers={"Prefer": "respond-async"}).status_code == 202
    wait_until(lambda: state() == (2, 1, 1, "closed"), 10, "they are seen")
    wait_until(lambda: told() == (2, 1, 1, 0), 10, "they are told")
    redis = gateway.stores.redis.client(gateway.redis_database)
    redis.hset("ai:provider:seen", mapping={"open": int(time.time() * 1000) + 60000, "half": 1})
    assert state()[3] == "open"
    wait_until(lambda: told()[3] == 2, 10, "the breaker is told")
    wait_until(lambda: '"breaker":"open"' in gateway.works[0].log(), 10, "a line says so")


def test_routes_lists_what_is_served(gateway):
    """And test_openapi.py that the description has the same."""
    rows = routes()
    assert ("session", "POST", "/session/create", "key", {"session:write"}, "limited") in rows
    assert ("ops", "GET", "/health", "open", set(), "-") in rows
    assert ("workspace", "*", "vs-code-{uuid}.DOMAIN/*", "link", set(), "-") in rows
    client = gateway.client()
    for _, method, path, *_ in rows:
        if not path.startswith("/"):
            continue  # chosen by host: test_workspace.py
        answer = client.call(method, re.sub(r"\{\w+\}", "abcdefgh", path))
        assert answer.status_code != 405 and (answer.ok or '"Not found"' not in answer.text), path


def test_settings_and_help_name_every_setting_with_its_default():
    table = run("settings").stdout
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (?:`(.*?)`)? ?\|", table, re.MULTILINE)
    assert ("SESSION_RATE_PER_MINUTE", "100") in rows and ("IDLE_TIMEOUT_SECONDS", "120") in rows
    for words in (["--help"], ["help"], ["serve", "--help"], ["work", "--help"]):
        done = run(*words)
        assert done.returncode == 0 and done.stderr == ""
        for name, default in rows:
            assert re.search(rf"^  {name} .*default {re.escape(default or 'empty')}\)$", done.stdout, re.MULTILINE), name
    assert run("version").stdout.strip()


@pytest.mark.parametrize("name,value", [
    ("PORT", "65536"), ("PORT", "x"), ("PORT", ""), ("PORT", "-1"), ("PORT", "80 80"), ("REACTORS", "1.5"),
    ("LOG_LEVEL", "loud"), ("POD_SANDBOX", "maybe"), ("LOG_REQUESTS", "perhaps"), ("ENCRYPTION_KEY", "short"),
    ("ENCRYPTION_KEY", ""), ("DATABASE_URL", ""), ("REDIS_URL", ""), ("REDIS_URL", "http://x"),
    ("CORS_ORIGINS", "app.example.com"), ("CORS_ORIGINS", "https://x/"), ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TRUSTED_PROXIES", "localhost"), ("WEBHOOK_ALLOW_NETWORKS", "127.0.0.1/8"), ("IDLE_TIMEOUT_SECONDS", "0"),
    ("LISTEN_ADDRESS", "nowhere"),
    ("METRICS_LISTEN", "nowhere"), ("SESSION_RATE_PER_MINUTE", "99999999999999999999")])
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(gateway, name, value):
    env = {**gateway.settings, name: value}
    done = run("serve", env=env)
    assert done.returncode != 0 and done.stdout == ""
    plain = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1, done.stderr
    assert (value if name == "LISTEN_ADDRESS" else name) in plain[0], plain[0]
    if name in ("ENCRYPTION_KEY", "DATABASE_URL", "REDIS_URL") and value:
        assert value not in plain[0].replace(name, "")


@pytest.mark.parametrize("name,value", [("POD_PORT_RANGE", "x"), ("POD_PORT_RANGE", "2-1"), ("POD_PORT_RANGE", "1-65536"),
                                        ("POD_USER", "no-such-user"), ("JOB_LEASE_SECONDS", "1"), ("POD_SANDBOX", "x")])
def test_a_bad_setting_of_the_worker_stops_its_start(gateway, name, value):
    done = run("work", env={**gateway.settings, "POD_SANDBOX": "off", name: value})
    assert done.returncode != 0
    plain = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and name in plain[0], done.stderr


def test_an_unknown_name_in_the_file_is_refused(gateway, tmp_path):
    path = tmp_path / "typo.env"
    path.write_text("# a comment\n\nPROT=8080\n")
    done = run("serve", "--env-file", str(path))
    assert done.returncode == 2 and done.stderr == f"wakegate serve: {path}:3: there is no setting PROT\n"
    assert run("serve", "--no-such-option").returncode == 2
    assert run("no-such-command").returncode == 2


def test_a_redis_that_may_evict_is_refused(own_stores):
    own_stores.redis.client().config_set("maxmemory-policy", "allkeys-lru")
    gateway = Gateway(own_stores)
    for kind in ("serve", "work"):
        done = run(kind, "--env-file", gateway.env_file)
        assert done.returncode == 1
        assert [line for line in done.stderr.splitlines() if "allkeys-lru" in line and "noeviction" in line]


def test_a_database_that_is_not_migrated_is_refused_and_check_says_so(stores):
    gateway = Gateway(stores, template="template1")
    for words in (("serve",), ("work",), ("migrate", "--check")):
        done = run(*words, "--env-file", gateway.env_file)
        assert done.returncode == 1 and "migrat" in done.stderr, done.stderr
    for _ in range(2):
        assert run("migrate", "--env-file", gateway.env_file).returncode == 0
    assert run("migrate", "--check", "--env-file", gateway.env_file).returncode == 0


def test_two_migrations_at_once_do_no_harm(stores):
    gateway = Gateway(stores, template="template1")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: run("migrate", "--env-file", gateway.env_file), range(3)))
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]


def test_a_port_that_is_taken_is_refused(gateway):
    port = gateway.url.rsplit(":", 1)[1]
    done = run("serve", "--env-file", gateway.env_file, env={"PORT": port})
    assert done.returncode == 1 and f"port {port}" in done.stderr


def test_a_revoked_key_is_refused_everywhere_within_a_second(gateway):
    made = gateway.make_key("leaver")
    headers = {"X-API-Key": made["key"]}
    # A connection each time: all reactors have the key in their memory.
    for _ in range(20):
        assert get(gateway.url + "/session", headers=headers).status_code == 200
    gateway.admin("key", "revoke", str(made["id"]))
    revoked = time.monotonic()
    refused = 0
    while time.monotonic() < revoked + 3:
        status = get(gateway.url + "/session", headers=headers).status_code
        if time.monotonic() > revoked + 1.5:
            assert status == 401
            refused += 1
    assert refused > 20
    listed = [key for key in gateway.admin("key", "list") if key["id"] == made["id"]]
    assert listed[0]["revoked_at"] and made["key"] not in json.dumps(listed)
    assert run("admin", "key", "revoke", str(made["id"]), "--env-file", gateway.env_file).returncode == 1


def test_no_key_is_in_the_database_or_in_redis(gateway):
    client = gateway.client("secretive")
    uuid = client.awake()
    client.chat(uuid, "hello")
    secrets = [*gateway.keys.values(), gateway.make_key("secretive")["key"]]
    dump = gateway.stores.postgres.dump(gateway.database).decode()
    assert "api_key" in dump and uuid in dump
    stored = dump + repr(redis_contents(gateway))
    for secret in secrets:
        assert secret not in stored and secret[4:] not in stored and secret[10:40] not in stored


def redis_contents(gateway):
    """Every key of its database, with its value."""
    redis = gateway.stores.redis.client(gateway.redis_database)
    readers = {b"string": redis.get, b"hash": redis.hgetall, b"stream": redis.xrange, b"set": redis.smembers,
               b"list": lambda key: redis.lrange(key, 0, -1), b"zset": lambda key: redis.zrange(key, 0, -1)}
    kinds = {key: redis.type(key) for key in redis.scan_iter()}
    return {key.decode(): readers[kind](key) for key, kind in kinds.items() if kind != b"none"}


def test_every_key_in_redis_is_documented(gateway):
    client = gateway.client()
    client.chat(client.awake(), "hello")
    shapes = [r"jobs:\w+:\d+", r"jobs:probe", r"limit:[a-z-]+:[0-9a-z]+:(\d+|bucket)", r"instance:[a-z0-9]+", r"visits:[a-z0-9]+",
              r"ai:(workers|waiting|ended|lines)", r"ai:(worker|held):[a-z0-9.-]+", r"ai:call:job_\w{22}",
              r"ai:(provider|turns):[a-z0-9_-]+", r"ai:line:[a-z0-9_-]+:\d+", r"ai:cache:\d+:[0-9a-f]{64}", r"lease:(epoch|\d+)",
              r"spend:\d+:\d{8}"]
    with open(os.path.join(os.path.dirname(__file__), "../../schema/redis.md"), encoding="utf-8") as file:
        documented = file.read()
    for key in redis_contents(gateway):
        assert any(re.fullmatch(shape, key) for shape in shapes), key
        assert f"`{key.split(':')[0]}:" in documented, key


def test_each_program_takes_all_the_descriptors_that_it_may(start_gateway):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
    try:
        gateway = start_gateway()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for part in gateway.parts:
        assert resource.prlimit(part.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_every_log_line_is_one_json_object_whatever_is_sent(start_gateway):
    gateway = start_gateway(works=0)
    client = gateway.client()
    nasty = ["a\r\nb", "\"quoted\"", "nul\\u0000", "\\", "{\"msg\":\"forged\"}", "\u2028", "\x1b[31m", "%0d%0a{}", "ü", "\x7f"]
    for text in nasty:
        client.call("POST", "/session/create", json={"user_id": text})
        client.call("GET", "/" + requests.utils.quote(text))
        client.call("GET", "/session", params={"user_id": text})
        for name in ("X-Request-Id", "X-Forwarded-For", "User-Agent", "X-API-Key", "Prefer", "Origin"):
            value = text.encode().replace(b"\r", b"").replace(b"\n", b"")
            client.call("GET", "/session", headers={name: value})

    for line in (b"GET /\xff\xfe\"\\ HTTP/1.1", b"GE\"T / HTTP/1.1", b"GET /a\x01b HTTP/1.1", b"\x16\x03\x01"):
        try:
            raw(gateway.url, line + b"\r\nHost: x\r\n\r\n")
        except (ValueError, IndexError, OSError):
            pass
    serve = gateway.serves[0]
    wait_until(lambda: len(serve.log_lines("request")) > 60, 10, "the log")
    for line in serve.log_lines():
        assert TIME.fullmatch(line["time"]) and line["level"] in ("info", "warn", "error") and line["program"] == "serve"
        assert line["msg"] != "forged"
    assert {"id", "route", "status", "us", "peer"} <= set(serve.log_lines("request")[0])


def test_sigusr1_lists_the_suspended_fibers(recorder):
    client = recorder.client()
    uuid = client.awake()
    serve = recorder.serves[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.chat, uuid, "!slow 2")
        wait_until(lambda: client.all_messages(uuid), 5, "it is accepted")
        serve.signal(signal.SIGUSR1)
        wait_until(lambda: "/session/{uuid}/chat" in json.dumps(serve.log_lines("fiber")), 5, "the fiber is listed")
        assert slow.result().status_code == 200
