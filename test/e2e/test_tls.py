"""TLS at the front door, by clients that we did not write: python's ssl (OpenSSL), curl, requests."""

import concurrent.futures
import os
import signal
import socket
import ssl
import subprocess
import threading

import pytest
import requests

from certificates import Authority, make_key, key_pem, write
from fixtures import run_gateway
from stores import wait_until
from wakegate import run


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("tls")))


def tls_settings(*pairs, **settings):
    return {"TLS_CERT": ",".join(chain for chain, _ in pairs), "TLS_KEY": ",".join(key for _, key in pairs), **settings}


@pytest.fixture(scope="module")
def secure(stores, authority):
    pairs = [authority.issue("localhost", "gateway.test"), authority.issue("*.apps.test", kind="rsa")]
    yield from run_gateway(stores, tls_settings(*pairs, WAKEGATE_TEST_ENDPOINTS="1"), works=0, ca=authority.path)


def where(gateway):
    return "127.0.0.1", int(gateway.url.rsplit(":", 1)[1])


def context(authority, **versions):
    made = ssl.create_default_context(cafile=authority.path)
    for name, value in versions.items():
        setattr(made, name, value)
    return made


def handshake(gateway, made, name="localhost", session=None):
    plain = socket.create_connection(where(gateway), timeout=20)
    try:
        return made.wrap_socket(plain, server_hostname=name, session=session)
    except BaseException:
        plain.close()
        raise


def get(secured, path="/livez", host="localhost"):
    secured.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = secured.recv(65536)
        assert piece, answer
        answer += piece
    return answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_with_aead_and_forward_secrecy(secure, authority, version):
    made = context(authority, minimum_version=version, maximum_version=version)
    made.set_alpn_protocols(["h2", "http/1.1"])
    with handshake(secure, made) as secured:
        assert secured.version() == version.name.replace("_", ".")
        assert secured.selected_alpn_protocol() == "http/1.1"
        cipher = secured.cipher()[0]
        assert "GCM" in cipher or "CHACHA20" in cipher
        assert cipher.startswith(("TLS_", "ECDHE"))
        assert get(secured).startswith(b"HTTP/1.1 200")


def test_old_versions_and_weak_suites_are_refused(secure, authority):
    made = context(authority)
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.minimum_version = ssl.TLSVersion.TLSv1
    made.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(secure, made)
    for suites in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA"):
        made = context(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
        made.set_ciphers(suites)
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            handshake(secure, made)


def test_the_certificate_is_chosen_by_name(secure, authority):
    made = context(authority)
    for name in ("localhost", "gateway.test", "one.apps.test", "two.apps.test"):
        with handshake(secure, made, name) as secured:
            names = [value for kind, value in secured.getpeercert()["subjectAltName"] if kind == "DNS"]
            assert names == (["*.apps.test"] if name.endswith("apps.test") else ["localhost", "gateway.test"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(secure, made, "elsewhere.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_spares_the_full_handshake(secure, authority, version):
    made = context(authority, minimum_version=version, maximum_version=version)
    with handshake(secure, made) as first:
        get(first)  # tickets of 1.3 come with the first answer
        session = first.session
    for _ in range(4):  # on whichever reactor it lands
        with handshake(secure, made, session=session) as again:
            assert again.session_reused
            assert get(again).startswith(b"HTTP/1.1 200")
            session = again.session


def test_plain_http_gets_a_word_in_plain(secure):
    with socket.create_connection(where(secure), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := plain.recv(4096):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"TLS" in body
    assert f"Content-Length: {len(body)}".encode() in head


def test_garbage_and_half_handshakes_harm_nobody(secure, authority):
    for garbage in (b"\x16\x03\x01\xff\xff" + b"x" * 4096, b"\x16\x03\x01\x00\x05hello", b"\x16", b"\x00" * 64):
        with socket.create_connection(where(secure), timeout=10) as plain:
            plain.sendall(garbage)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):
                pass
    with handshake(secure, context(authority)) as secured:
        assert get(secured).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 1 << 20, 20 << 20])
def test_bodies_of_any_size_go_through(secure, authority, size):
    answer = requests.post(secure.url + "/test/echo", data=b"x" * size, verify=authority.path, timeout=60)
    assert answer.status_code == 200 and answer.json()["body_bytes"] == size


def test_curl_and_bytes_one_by_one(secure, authority):
    done = subprocess.run(["curl", "-sS", "--cacert", authority.path, secure.url + "/livez", secure.url + "/livez"],
                          capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.count("}") == 2
    made = context(authority)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = made.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(where(secure), timeout=20) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def step(call):
            while True:
                try:
                    return call()
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        plain.sendall(bytes([byte]))
                    incoming.write(plain.recv(1))
        step(client.do_handshake)
        client.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert step(lambda: client.read(12)) == b"HTTP/1.1 200"


def test_many_handshakes_at_once_do_not_stop_the_others(secure, authority):
    """Full handshakes are computed off the loop: a client that is connected is answered meanwhile."""
    made = context(authority)
    stopping = threading.Event()

    def shake():
        count = 0
        while not stopping.is_set():
            with handshake(secure, made):
                count += 1
        return count
    with handshake(secure, made) as steady, concurrent.futures.ThreadPoolExecutor(8) as pool:
        shakers = [pool.submit(shake) for _ in range(8)]
        for _ in range(200):
            assert get(steady).startswith(b"HTTP/1.1 200")
        stopping.set()
        assert sum(shaker.result() for shaker in shakers) > 8


def test_sighup_reads_certificates_anew_and_drops_nobody(start_gateway, authority, tmp_path):
    old, new = authority.issue("localhost", "old.test"), authority.issue("localhost", "new.test")
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "chain.key")

    def install(pair):
        for target, source in zip((chain, key), pair):
            with open(source, "rb") as file:
                write(target + ".new", file.read())
            os.replace(target + ".new", target)
    install(old)
    gateway = start_gateway(tls_settings((chain, key)), works=0, ca=authority.path)
    made = context(authority)

    def names(secured):
        return [value for kind, value in secured.getpeercert()["subjectAltName"] if kind == "DNS"]
    with handshake(gateway, made) as before:
        assert names(before) == ["localhost", "old.test"]
        install(new)
        gateway.serves[0].signal(signal.SIGHUP)

        def is_new():
            with handshake(gateway, made) as secured:
                return "new.test" in names(secured)
        wait_until(lambda: all(is_new() for _ in range(8)), 10, "every reactor has the new one")
        assert get(before).startswith(b"HTTP/1.1 200")
        # A bad file changes nothing, and is told of.
        write(chain, b"not a certificate\n")
        gateway.serves[0].signal(signal.SIGHUP)
        wait_until(lambda: gateway.serves[0].log_lines("the certificates were not read anew, the old ones stay"), 10)
        assert is_new() and get(before).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("case", ["missing", "not-pem", "other-key", "one-key-short", "encrypted"])
def test_a_bad_file_stops_the_start_with_one_line_that_names_it(stores, authority, tmp_path, case):
    chain, key = authority.issue("localhost")
    bad = str(tmp_path / "bad.pem")
    if case == "not-pem":
        write(bad, b"hello\n")
    elif case == "other-key":
        write(bad, key_pem(make_key()))
    elif case == "encrypted":
        from cryptography.hazmat.primitives import serialization
        write(bad, make_key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                            serialization.BestAvailableEncryption(b"secret")))
    pair = {"missing": (bad, key), "not-pem": (bad, key), "other-key": (chain, bad), "encrypted": (chain, bad),
            "one-key-short": (f"{chain},{chain}", key)}[case]
    done = run("serve", env={"DATABASE_URL": stores.postgres.url("postgres"), "REDIS_URL": stores.redis.url(0),
                             "ENCRYPTION_KEY": "x" * 40, "PORT": "0", "TLS_CERT": pair[0], "TLS_KEY": pair[1]})
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert ("bad.pem" if case != "one-key-short" else "TLS_KEY") in said[0]


def test_tls_dev_makes_a_certificate_for_localhost(start_gateway, tmp_path):
    gateway = start_gateway({"TLS_DEV": "1", "WAKEGATE_DATA_DIR": str(tmp_path)}, works=0,
                            ca=str(tmp_path / "tls-dev.pem"))
    made = ssl.create_default_context(cafile=str(tmp_path / "tls-dev.pem"))
    # OpenSSL takes no "*.localhost": a wildcard needs two labels behind it.
    for name in ("localhost", "127.0.0.1"):
        with handshake(gateway, made, name) as secured:
            assert get(secured).startswith(b"HTTP/1.1 200")
    assert [name for name in os.listdir(tmp_path) if "key" in name] == []
