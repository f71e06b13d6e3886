"""Providers of AI that behave as a test needs it: servers shaped as OpenAI's and Anthropic's, byte by byte from a script.

Which script runs is said by the model that the request names, so one server plays all parts:

    upstream = Upstream()                       # .url is OpenAI's base URL, .anthropic_url Anthropic's
    upstream.calls                              # what it was asked: model, stream, headers, body, when it was left
"""

import contextlib
import gzip
import itertools
import json
import socket
import ssl
import threading
import time

WORDS = [f"word{number} " for number in range(8)]
USAGE = {"prompt_tokens": 11, "completion_tokens": len(WORDS), "total_tokens": 11 + len(WORDS)}
SECRET = "sk-upstream-0123456789abcdefghij"
FOR_EVER_S = 30


class Call:
    """One request, and the connection that it came on."""

    def __init__(self, upstream, connection, number, path, headers, body):
        self.upstream = upstream
        self.connection = connection
        self.on = number  # the connection's number
        self.path = path
        self.headers = headers
        self.body = body
        self.model = body.get("model")
        self.stream = bool(body.get("stream"))
        self.at = time.monotonic()
        self.left_at = None
        self.sent = 0
        self.keeps = True

    # ---- bytes ----

    def send(self, data):
        self.connection.sendall(data)
        self.sent += len(data)

    def head(self, status=200, kind="application/json", **headers):
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, Content_Length=len(data), **headers)
        self.send(data)

    def begin_stream(self):
        self.head(200, "text/event-stream", Transfer_Encoding="chunked")

    def chunk(self, data):
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def event(self, data, name=None):
        text = data if isinstance(data, str) else json.dumps(data)
        self.chunk(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())

    def end_stream(self):
        self.send(b"0\r\n\r\n")

    def close(self):
        self.keeps = False

    def wait(self, seconds=FOR_EVER_S):
        """So long, or until the other end is gone, which is noted."""
        end = time.monotonic() + seconds
        self.connection.settimeout(0.05)
        with contextlib.suppress(OSError):
            while time.monotonic() < end and not self.upstream.closing:
                with contextlib.suppress(TimeoutError):
                    if not self.connection.recv(1, socket.MSG_PEEK):
                        self.left()
                        raise ConnectionResetError
        self.connection.settimeout(FOR_EVER_S)
        if self.left_at:
            raise ConnectionResetError

    def left(self):
        self.left_at = self.left_at or time.monotonic()

    # ---- OpenAI's shapes ----

    def openai_event(self, text=None, finish=None, usage=None):
        if self.path.endswith("/chat/completions"):
            choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
            shape = "chat.completion.chunk"
        else:
            choice = {"index": 0, "text": text or "", "finish_reason": finish}
            shape = "text_completion"
        body = {"id": "up-1", "object": shape, "created": 1, "model": "m", "choices": [] if usage else [choice]}
        self.event({**body, **({"usage": usage} if usage else {})})

    def openai_role(self):
        self.event({"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})

    def openai_body(self, text="".join(WORDS), usage=True):
        if self.path.endswith("/chat/completions"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            shape = "chat.completion"
        else:
            choice = {"index": 0, "text": text, "finish_reason": "stop"}
            shape = "text_completion"
        return {"id": "up-1", "object": shape, "created": 1, "model": "m", "choices": [choice],
                **({"usage": USAGE} if usage else {})}


# ---- scripts ----

scripts = {}


def script(function):
    scripts[function.__name__.replace("_", "-")] = function
    return function


def words(call, pause_s=0.0):
    for word in WORDS:
        call.openai_event(word)
        if pause_s:
            call.wait(pause_s)


@script
def fine(call, pause_s=0.0, usage=True):
    if not call.stream:
        if pause_s:
            call.wait(pause_s * len(WORDS))
        call.answer(call.openai_body(usage=usage))
        return
    call.begin_stream()
    call.openai_role()
    words(call, pause_s)
    call.openai_event(finish="stop")
    if usage:
        call.openai_event(usage=USAGE)
    call.event("[DONE]")
    call.end_stream()


@script
def paced(call):
    fine(call, 0.1)


@script
def uncounted(call):
    """It tells no usage."""
    fine(call, usage=False)


@script
def silent(call):
    call.wait()


@script
def dribble(call):
    """A header that never ends."""
    call.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in range(int(FOR_EVER_S / 0.1)):
        call.send(b"x")
        call.wait(0.1)


@script
def head_only(call):
    if call.stream:
        call.begin_stream()
    else:
        call.head(Content_Length=1000)
    call.wait()


@script
def role_then_close(call):
    call.begin_stream()
    call.openai_role()
    call.close()


@script
def stall(call):
    call.begin_stream()
    for word in WORDS[:3]:
        call.openai_event(word)
    call.wait()


@script
def slow_refusal(call):
    """A status that says all, and words that never come."""
    call.head(429, Content_Length=1000, Retry_After=1)
    call.wait()


@script
def dribbled_refusal(call):
    call.head(503, Transfer_Encoding="chunked")
    for _ in range(int(FOR_EVER_S / 0.1)):
        call.chunk(b" ")
        call.wait(0.1)


@script
def refuse_with_200(call):
    """Asked for a stream or not."""
    call.answer({"error": {"message": "this is too long", "type": "invalid_request_error", "code": "context_length_exceeded"}})


@script
def never_streams(call):
    call.answer(call.openai_body())


@script
def no_done(call, closes=False):
    """Its choice ends, and then nothing comes any more."""
    call.begin_stream()
    call.openai_role()
    words(call)
    call.openai_event(finish="stop")
    if closes:
        call.close()
    else:
        call.wait()


@script
def cut_at_the_end(call):
    no_done(call, closes=True)


@script
def break_off(call):
    call.begin_stream()
    for word in WORDS[:3]:
        call.openai_event(word)
        call.wait(0.05)
    call.close()


@script
def error_event(call):
    call.begin_stream()
    for word in WORDS[:3]:
        call.openai_event(word)
        call.wait(0.05)
    call.event({"error": {"message": f"overloaded, your key is {SECRET}", "type": "server_error", "code": None}})
    call.end_stream()


@script
def huge_line(call):
    call.begin_stream()
    for word in WORDS[:3]:
        call.openai_event(word)
        call.wait(0.05)
    call.chunk(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"")
    with contextlib.suppress(OSError):
        while not call.upstream.closing:
            call.chunk(b"x" * 65536)
    call.left()


@script
def hang_up(call):
    call.close()


@script
def garbage(call):
    call.send(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
    call.close()


@script
def not_json(call):
    call.answer(b"<html>It works!</html>", kind="text/html")


@script
def wrong_json(call):
    call.answer({"hello": "world"})


@script
def too_long_length(call):
    """It promises more than it sends."""
    data = json.dumps(call.openai_body()).encode()
    call.head(Content_Length=len(data) + 100)
    call.send(data)
    call.close()


@script
def too_short_length(call):
    data = json.dumps(call.openai_body()).encode()
    call.head(Content_Length=len(data) - 10)
    call.send(data)
    call.close()


@script
def gzipped(call):
    """Nobody has asked for that."""
    call.answer(gzip.compress(json.dumps(call.openai_body()).encode()), Content_Encoding="gzip")


@script
def redirect(call):
    call.answer(b"", 307, Location=f"{call.upstream.url}/elsewhere")


@script
def trailing(call):
    """An answer, and more behind it."""
    call.answer(json.dumps(call.openai_body()).encode() + b"{}")


@script
def negative_usage(call):
    call.answer({**call.openai_body(), "usage": {"prompt_tokens": -5, "completion_tokens": -1, "total_tokens": -6}})


@script
def huge_usage(call):
    call.answer({**call.openai_body(), "usage": {"prompt_tokens": 2 ** 62, "completion_tokens": 10 ** 30, "total_tokens": 1}})


@script
def dear_usage(call):
    """What it counts could be, but not of this call."""
    call.answer({**call.openai_body(), "usage": {"prompt_tokens": 900000000, "completion_tokens": 900000000, "total_tokens": 1}})


@script
def endless(call):
    call.head(Transfer_Encoding="chunked")
    with contextlib.suppress(OSError):
        while not call.upstream.closing:
            call.chunk(b" " * 65536)
    call.left()


@script
def endless_stream(call):
    """It is never through, and always says something."""
    call.begin_stream()
    with contextlib.suppress(OSError):
        while not call.upstream.closing:
            call.openai_event("x" * 4000)
    call.left()


@script
def rate_limited(call):
    call.answer({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}, 429,
                Retry_After=2)


@script
def server_error(call):
    call.answer({"error": {"message": "internal", "type": "server_error", "code": None}}, 500)


@script
def overloaded(call):
    call.answer(b"busy", 503, kind="text/plain")


@script
def refuse_key(call):
    call.answer({"error": {"message": f"Incorrect API key provided: {SECRET}", "type": "invalid_request_error",
                           "code": "invalid_api_key"}}, 401)


@script
def refuse_request(call):
    call.answer({"error": {"message": "temperature is out of range", "type": "invalid_request_error",
                           "param": "temperature", "code": "out_of_range"}}, 400)


# ---- Anthropic ----

@script
def claude(call, pause_s=0.0):
    text = "".join(WORDS)
    usage = {"input_tokens": 11, "output_tokens": len(WORDS)}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}}
    if not call.stream:
        call.answer({**message, "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage})
        return
    call.begin_stream()
    call.event({"type": "message_start", "message": message}, "message_start")
    call.event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
               "content_block_start")
    for word in WORDS:
        call.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}},
                   "content_block_delta")
        if pause_s:
            call.wait(pause_s)
    call.event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    call.event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": len(WORDS)}}, "message_delta")
    call.event({"type": "message_stop"}, "message_stop")
    call.end_stream()


@script
def claude_overloaded(call):
    call.answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)


@script
def claude_breaks(call):
    call.begin_stream()
    call.event({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c",
                "content": [], "usage": {"input_tokens": 11, "output_tokens": 1}}}, "message_start")
    call.event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
               "content_block_start")
    call.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS[0]}},
               "content_block_delta")
    call.wait(0.1)
    call.event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")
    call.end_stream()


# ---- the server ----

class Upstream:
    def __init__(self, certificate=None):
        """`certificate`: its file and its key's, to speak TLS as "localhost"."""
        self.calls = []
        self.tls = None
        if certificate:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(*certificate)
        self.failures = {}  # model -> how many of its next calls fail with 500
        self.closing = False
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.anthropic_url = f"https://localhost:{self.port}" if certificate else f"http://127.0.0.1:{self.port}"
        self.url = self.anthropic_url + "/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def of(self, model):
        with self.lock:
            return [call for call in self.calls if call.model == model]

    def _accept(self):
        while not self.closing:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection, next(self.numbers)), daemon=True).start()

    def _serve(self, connection, number):
        rest = b""
        with contextlib.suppress(OSError), connection:
            connection.settimeout(FOR_EVER_S)
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            while not self.closing:
                call, rest = self._read(connection, number, rest)
                if not call:
                    return
                with self.lock:
                    self.calls.append(call)
                    fails = self.failures.get(call.model, 0)
                    self.failures[call.model] = max(0, fails - 1)
                try:
                    (server_error if fails else scripts[call.model])(call)
                except OSError:
                    call.left()
                    return
                if not call.keeps:
                    return

    def _read(self, connection, number, data):
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None, b""
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        size = int(headers.get("content-length", 0))
        while len(rest) < size:
            more = connection.recv(65536)
            if not more:
                return None, b""
            rest += more
        return Call(self, connection, number, line.split()[1], headers, json.loads(rest[:size])), rest[size:]

    def close(self):
        self.closing = True
        self.listener.close()


def use(gateway, upstream, name, script_names, kind="openai", model=None, price_in="1", price_out="2",
        **options):
    """A model whose providers are these scripts, in that order, each a provider of its own; the model's name. What the operator's
    API takes for a provider may be given."""
    import ai
    routes = []
    for number, script_name in enumerate(script_names):
        provider = f"{name}-{number}"
        its_kind = "anthropic" if script_name.startswith("claude") else kind
        made = gateway.operator("provider", "set", {
            "provider": provider, "kind": its_kind, "api_key": SECRET,
            "base_url": upstream.anthropic_url if its_kind == "anthropic" else upstream.url,
            "header_ms": 1500, "idle_ms": 1500, "total_ms": 8000, **options})
        assert made.status_code == 200, made.text
        routes.append(f"{provider}={script_name}")
    model = model or name
    made = gateway.operator("model", "set", {"model": model, "routes": " ".join(routes), "price_in": price_in,
                                             "price_out": price_out})
    assert made.status_code == 200, made.text
    ai.wait_known(gateway, model)
    return model
