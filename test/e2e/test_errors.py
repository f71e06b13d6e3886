"""What is refused, and how: status, body and headers of every error of the session surface."""

import gzip
import json
import re
import socket
from urllib.parse import urlsplit

import pytest

LINE_MAX = 8192  # method and target
HEADERS_MAX = 32768
FIELDS_MAX = 100
BODY_MAX = 1048576
KEY_SHAPED = "wgs_" + "A" * 49


def raw(url, data):
    """Sends bytes, reads to the end of the first answer: (status, headers, body)."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has refused before it had all
        with connection.makefile("rb") as file:
            status = int(file.readline().split()[1])
            headers = {}
            for line in iter(file.readline, b"\r\n"):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            return status, headers, file.read(int(headers["content-length"])).decode()


def request(client, target="/session", method="GET", headers="", body=""):
    return raw(client.url, (f"{method} {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {client.key}\r\n{headers}\r\n"
                            f"{body}").encode())


def test_no_key_and_a_wrong_key_have_the_bodies_of_the_seed(gateway, client):
    missing = client.call("POST", "/session/create", headers={"X-API-Key": None}, json={"user_id": "x"})
    assert (missing.status_code, missing.json()) == (401, {"error": "API key required"})
    almost = client.key[:-1] + ("0" if client.key[-1] != "0" else "1")
    swapped = client.key[:10] + ("0" if client.key[10] != "0" else "1") + client.key[11:]
    for key in ("x", "your-secure-api-key-change-in-production", KEY_SHAPED, almost, swapped, client.key + "x",
                client.key.upper(), "wgs_", "'; DROP TABLE api_key; --"):
        wrong = client.call("GET", "/session", headers={"X-API-Key": key})
        assert (wrong.status_code, wrong.json()) == (401, {"error": "Invalid API key"}), key
    empty = client.call("GET", "/session", headers={"X-API-Key": ""})
    assert (empty.status_code, empty.json()) == (401, {"error": "API key required"})


@pytest.mark.parametrize("path", ["/session/", "/session/create/x", "/session//status", "/session/x/y/z",
                                  "/session/abcdefgh/nothing", "/sessions", "/", "/nothing", "/SESSION", "/session/a/b/c/d/e/f/g/h/i"])
def test_an_unknown_path_is_404(client, path):
    answer = client.call("GET", path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    if path.startswith("/session/"):
        assert answer.json() == {"error": "Not found"}
    else:
        assert error["code"] == "not_found"


@pytest.mark.parametrize("method,path,allow", [
    ("GET", "/session/create", "POST"), ("POST", "/session", "GET"),
    ("GET", "/session/abcdefgh/wake", "POST"), ("PUT", "/session/abcdefgh/chat", "POST"),
    ("POST", "/session/abcdefgh/status", "GET"), ("PATCH", "/session/abcdefgh", "DELETE"),
    ("GET", "/session/abcdefgh", "DELETE"), ("POST", "/health", "GET"), ("OPTIONS", "/session", "GET")])
def test_a_wrong_method_is_405_and_says_which_are_right(client, method, path, allow):
    answer = client.call(method, path)
    assert answer.status_code == 405
    allowed = set(answer.headers["Allow"].split(", "))
    assert allow in allowed and method not in allowed
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("content_type,status", [
    ("application/json", 201), ("application/json; charset=utf-8", 201), ("Application/JSON", 201), (None, 201),
    ("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/jsonp", 415),
    ("multipart/form-data; boundary=x", 415), ("text/json", 415)])
def test_content_type_is_json_or_missing(client, content_type, status):
    answer = client.call("POST", "/session/create", data=b'{"user_id":"x"}', headers={"Content-Type": content_type})
    assert answer.status_code == status
    if status == 415:
        assert answer.json() == {"error": "Content-Type must be application/json"}


@pytest.mark.parametrize("coding,status", [("gzip", 415), ("br, gzip", 415), ("identity", 201), ("Identity", 201), ("", 201)])
def test_a_packed_body_is_said_to_be_one(client, coding, status):
    body = gzip.compress(b'{"user_id":"x"}') if status == 415 else b'{"user_id":"x"}'
    answer = client.call("POST", "/session/create", data=body, headers={"Content-Encoding": coding})
    assert answer.status_code == status
    if status == 415:
        assert answer.headers["Accept-Encoding"] == "identity" and "Content-Encoding" in answer.json()["error"]


@pytest.mark.parametrize("size,status", [(BODY_MAX - 1, 201), (BODY_MAX, 201), (BODY_MAX + 1, 413), (BODY_MAX * 8, 413)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_more_than_a_mebibyte_is_413(client, size, status, chunked):
    text = b'{"user_id":"x"}'
    body = text + b" " * (size - len(text))
    answer = client.call("POST", "/session/create", data=iter([body[:1000], body[1000:]]) if chunked else body)
    assert answer.status_code == status
    if status == 413:
        assert answer.json() == {"error": "The body is too large"}


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(client):
    status, headers, body = request(client, "/session/create", "POST",
                                    f"Content-Length: {BODY_MAX + 1}\r\nExpect: 100-continue\r\n")
    assert status == 413 and json.loads(body) == {"error": "The body is too large"}
    assert headers["connection"] == "close"


@pytest.mark.parametrize("over,status", [(-1, 200), (0, 200), (1, 414), (100000, 414)])
def test_a_request_line_of_more_than_8_kib_is_414(client, over, status):
    target = "/session?x="
    target += "y" * (LINE_MAX - len("GET  HTTP/1.1") - len(target) + over)
    answer = request(client, target)
    assert answer[0] == status
    if status == 414:
        assert json.loads(answer[2]) == {"error": "The request line is too long"}
        assert re.fullmatch("[A-Za-z0-9._-]+", answer[1]["x-request-id"])


@pytest.mark.parametrize("over,status", [(-1, 200), (0, 200), (1, 431), (100000, 431)])
def test_a_header_of_more_than_32_kib_is_431(client, over, status):
    sent = sum(len(name) + len(value) + 4 for name, value in (("Host", "x"), ("X-API-Key", client.key), ("X-Long", "")))
    answer = request(client, headers=f"X-Long: {'y' * (HEADERS_MAX - sent + over)}\r\n")
    assert answer[0] == status
    if status == 431:
        assert json.loads(answer[2]) == {"error": "The request's header is too large"}


@pytest.mark.parametrize("over,status", [(-1, 200), (0, 200), (1, 431)])
def test_more_than_a_hundred_fields_are_431(client, over, status):
    assert request(client, headers="X-Many: 1\r\n" * (FIELDS_MAX - 2 + over))[0] == status


@pytest.mark.parametrize("data,status", [
    (b"GET /session HTTP/1.1\r\n\r\n", 400),
    (b"GET /session HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET /session HTTP/1.1\r\nHost: x\r\nX-A : 1\r\n\r\n", 400),
    (b"GET /session HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded\r\n\r\n", 400),
    (b"GET /session HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n", 400),
    (b"POST /session/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /session/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", 400),
    (b"POST /session/create HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", 400),
    (b"GET /session HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 405),
])
def test_broken_framing_is_refused_and_the_connection_closed(gateway, data, status):
    answer = raw(gateway.url, data)
    assert answer[0] == status and answer[1]["connection"] == "close" and "error" in json.loads(answer[2])


NOT_JSON = {
    "nothing": b"", "words": b"hello", "cut short": b'{"user_id":"x"', "two": b'{"user_id":"x"}{}',
    "trailing comma": b'{"user_id":"x",}', "single quotes": b"{'user_id':'x'}", "comment": b'{"user_id":"x"}//',
    "NaN": b'{"user_id":"x","n":NaN}', "a duplicate key": b'{"user_id":"x","user_id":"y"}',
    "a duplicate key, escaped": b'{"user_id":"x","user\\u005fid":"y"}',
    "bad UTF-8": b'{"user_id":"\xff"}', "overlong UTF-8": b'{"user_id":"\xc0\xaf"}',
    "an encoded surrogate": b'{"user_id":"\xed\xa0\x80"}', "a lone surrogate": b'{"user_id":"\\ud800"}',
    "a lone low surrogate": b'{"user_id":"\\udc00x"}', "a raw line feed in a string": b'{"user_id":"a\nb"}',
    "65 levels": b'{"user_id":"x","a":' + b"[" * 64 + b"]" * 64 + b"}",
    "an array": b'["user_id"]', "a string": b'"user_id"', "null": b"null", "a number": b"1",
    "a byte order mark": b'\xef\xbb\xbf{"user_id":"x"}',
}


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_no_json_object_is_400(client, kind):
    answer = client.call("POST", "/session/create", data=NOT_JSON[kind])
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    assert isinstance(answer.json()["error"], str)


def test_64_levels_and_unknown_members_are_fine(client):
    body = b'{"user_id":"x","a":' + b"[" * 63 + b"]" * 63 + b',"b":12345678901234567890123}'
    assert client.call("POST", "/session/create", data=body).status_code == 201


@pytest.mark.parametrize("user_id", [None, 1, True, [], {}, "", "x" * 257, "a\nb", "a\rb", "a\x00b", "\x1b[31m", "\x7f"])
def test_a_user_id_is_a_line_of_1_to_256_characters(client, user_id):
    answer = client.call("POST", "/session/create", json={"user_id": user_id})
    assert answer.status_code == 400 and "user_id" in answer.json()["error"]


def test_the_longest_user_id_is_taken(client):
    assert client.call("POST", "/session/create", json={"user_id": "\N{GRINNING FACE}" * 256}).status_code == 201


@pytest.mark.parametrize("body", [{}, {"message": None}, {"message": 1}, {"message": ""}, {"message": "x" * 65537},
                                  {"message": "a\x00b"}, {"text": "x"}])
def test_a_message_has_1_to_65536_characters(client, body):
    uuid = client.create()
    answer = client.call("POST", f"/session/{uuid}/chat", json=body)
    assert answer.status_code == 400 and "message" in answer.json()["error"]
    assert client.all_messages(uuid) == []


@pytest.mark.parametrize("given,kept", [
    ("abc-DEF_123.4", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False), ("a/b", False),
    ("a\"b", False), ("<script>", False), ("ü", False), (None, False)])
def test_every_answer_carries_a_request_id(client, given, kept):
    for path in ("/session", "/nothing", "/health"):
        answer = client.call("GET", path, headers={"X-Request-Id": given.encode() if given is not None else None})
        own = answer.headers["X-Request-Id"]
        assert own == given if kept else (own != given and re.fullmatch("[A-Za-z0-9._-]{1,128}", own))


def test_request_ids_are_not_repeated(client):
    ids = [client.call("GET", "/health").headers["X-Request-Id"] for _ in range(50)]
    assert len(set(ids)) == 50


ROUTES = [("GET", "/status"), ("POST", "/wake"), ("POST", "/sleep"), ("POST", "/chat"), ("GET", "/messages"),
          ("DELETE", "")]


@pytest.mark.parametrize("method,rest", ROUTES)
def test_another_accounts_session_is_as_if_it_never_existed(gateway, method, rest):
    owner = gateway.client("owner")
    stranger = gateway.client("stranger")
    uuid = owner.create()
    # Also when the answer could come from memory that was filled by its owner.
    assert owner.status(uuid).status_code == 200
    options = {"json": {"message": "x"}} if rest == "/chat" else {}

    def strip(answer):
        ignored = ("X-Request-Id", "Date", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return answer.status_code, answer.text, {n: v for n, v in answer.headers.items() if n not in ignored}

    never = "b" * len(uuid)
    others = strip(stranger.call(method, f"/session/{uuid}{rest}", **options))
    assert others == strip(stranger.call(method, f"/session/{never}{rest}", **options))
    assert others[:2] == (404, '{"error":"Session not found"}\n')
    assert owner.status(uuid).json()["session"]["status"] == "created"
    assert uuid not in stranger.list().text


@pytest.mark.parametrize("uuid", ["x", "ABCDEFGH", "abcdefg%00", "a" * 64, "..%2f..%2fetc", "abc'--xx", "1abcdefgh",
                                  "%ff%fe%ff%fe%ff", "*" * 16, "abcd:efgh"])
@pytest.mark.parametrize("method,rest", ROUTES)
def test_an_id_that_can_not_be_one_is_404(client, method, rest, uuid):
    options = {"json": {"message": "x"}} if rest == "/chat" else {}
    answer = client.call(method, f"/session/{uuid}{rest}", **options)
    assert answer.status_code in (400, 404) and list(answer.json()) == ["error"]


def test_head_is_answered_like_get_without_a_body(client):
    answer = client.call("HEAD", "/session")
    assert answer.status_code == 200 and answer.content == b"" and int(answer.headers["Content-Length"]) > 0


def test_pipelined_requests_are_answered_in_order(client):
    uuid = client.create()
    one = f"GET /session/{uuid}/status HTTP/1.1\r\nHost: x\r\nX-API-Key: {client.key}\r\nX-Request-Id: n%d\r\n\r\n"
    where = urlsplit(client.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall("".join(one % i for i in range(20)).encode())
        seen = b""
        while seen.count(b"X-Request-Id") < 20:
            seen += connection.recv(65536)
    assert re.findall(rb"X-Request-Id: (\w+)", seen) == [f"n{i}".encode() for i in range(20)]
