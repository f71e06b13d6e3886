"""A pod that writes down what it is asked, and misbehaves when a message tells it to.

In its workspace:
  asked.jsonl      every POST /chat: id, text, pid, generation
  answered.jsonl   every message that it answered for the first time, with the answer: what it knows of its past
  alive.lock       locked while it lives; a pod that finds it locked writes
  conflicts        into this one: there were two pods at once
  busy             GET /busy answers 200 while this file is there
  starts           one line for each start: pid and generation

A message that begins with "!" says how it is answered: !500, !503, !garbage, !huge, !never, !empty, !crash (before an
answer is written down), !crash-once, !hang-once (the whole pod stands still), !slow N (seconds).
"""

import fcntl
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time

HERE = os.environ["WAKEGATE_WORKSPACE"]
GENERATION = os.environ["WAKEGATE_GENERATION"]


def note(name, text):
    descriptor = os.open(os.path.join(HERE, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, (text + "\n").encode())
    os.close(descriptor)


def take_lock():
    """Held until the process is gone, however it goes."""
    descriptor = os.open(os.path.join(HERE, "alive.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("conflicts", f"{os.getpid()} of generation {GENERATION}")
    note("starts", f"{os.getpid()} {GENERATION}")


def read_past():
    try:
        with open(os.path.join(HERE, "answered.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except FileNotFoundError:
        return {}
    return {line["message_id"]: line["response"] for line in lines}


class Pod(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    past = {}
    lock = threading.Lock()

    def log_message(self, *args):
        pass

    def reply(self, status, body=b"{}"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.reply(200)
        elif self.path == "/busy" and os.path.exists(os.path.join(HERE, "busy")):
            self.reply(200)
        else:
            self.reply(404)

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        message = json.loads(text)
        note("asked.jsonl", json.dumps({**message, "pid": os.getpid(), "generation": GENERATION}))
        if message["message"].startswith("!never"):
            time.sleep(3600)
        with self.lock:
            answer = self.past.get(message["message_id"])
            if answer is None:
                if self.misbehave(message["message"]):
                    return
                answer = f"{len(self.past) + 1}: {message['message']}"
                note("answered.jsonl", json.dumps({"message_id": message["message_id"], "response": answer}))
                self.past[message["message_id"]] = answer
        self.reply(200, json.dumps({"response": answer}).encode())

    def misbehave(self, text):
        """True when the message is not answered as it should be."""
        how, _, rest = text.partition(" ")
        if how == "!slow":
            time.sleep(float(rest.split()[0]))
            return False
        if how == "!crash":
            os._exit(9)
        if how == "!crash-once":
            if not os.path.exists(os.path.join(HERE, "crashed")):
                note("crashed", text)
                os._exit(9)
            return False
        if how == "!hang-once":
            if not os.path.exists(os.path.join(HERE, "hung")):
                note("hung", text)
                # To this very thread: os.kill() wakes the main one for it, and this one would go on until that runs.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return False
        answers = {"!500": (500, b'{"error":"no"}'), "!503": (503, b"{}"), "!garbage": (200, b"<html>hello"),
                   "!huge": (200, b'"' + b"x" * (4 << 20) + b'"'), "!empty": (200, b"")}
        if how not in answers:
            return False
        self.reply(*answers[how])
        return True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self):
        # Without the reverse lookup of the base class.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address


def main():
    take_lock()
    Pod.past = read_past()
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Pod)

    def finish(_number, _frame):
        # What is being answered is answered first.
        threading.Thread(target=lambda: (server.shutdown(), Pod.lock.acquire(timeout=2), os._exit(0))).start()

    signal.signal(signal.SIGTERM, finish)
    server.serve_forever(poll_interval=0.05)
    time.sleep(5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
