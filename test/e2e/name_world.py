"""A network of its own for one program: run by `unshare -m -n`, it has a DNS server that answers as it is told by the name, and a
listener on every address of that network. What reaches the listener is written to a file.

    unshare -m -n -- name_world.py FOLDER PORT PROGRAM ARGUMENT…

Names below ".test": "a-127-0-0-1" is that IPv4 address; "q-" and 32 hexadecimal digits that IPv6 address; "both-" and one of the
former stands for it and for PUBLIC; "flip-" and one of the former: PUBLIC the first time it is asked for, then that.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

PUBLIC = "93.184.216.34"
PUBLIC_6 = "2606:2800:220:1:248:1893:25c8:1946"
# What a guard must refuse is there to be reached.
OWN = [PUBLIC, "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "198.18.0.1", "192.0.2.1"]
OWN_6 = [PUBLIC_6, "fc00::1", "fec0::1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "2001:db8::1"]
A, AAAA = 1, 28


def run(*words):
    subprocess.run(words, check=True)


def set_up(folder):
    run("ip", "link", "set", "lo", "up")
    for address in OWN:
        run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    for address in OWN_6:
        run("ip", "addr", "add", f"{address}/128", "dev", "lo", "nodad")
    conf = os.path.join(folder, "resolv.conf")
    with open(conf, "w") as file:
        file.write("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    run("mount", "--bind", conf, "/etc/resolv.conf")


class Names:
    def __init__(self):
        self.asked = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def addresses(self, name, kind):
        """Of one type, as bytes."""
        word = name.split(".")[0]
        how, _, rest = word.partition("-")
        if how == "flip":
            self.asked[name, kind] = self.asked.get((name, kind), 0) + 1
            return self.addresses("a-" + PUBLIC.replace(".", "-"), kind) if self.asked[name, kind] == 1 else \
                self.addresses(rest, kind)
        if how == "both":
            return self.addresses(rest, kind) + self.addresses("a-" + PUBLIC.replace(".", "-"), kind)
        if how == "a" and kind == A:
            return [socket.inet_aton(rest.replace("-", "."))]
        if how == "q" and kind == AAAA:
            return [bytes.fromhex(rest)]
        return []

    def answer(self, packet):
        number, flags = struct.unpack("!HH", packet[:4])
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]].decode())
            at += 1 + packet[at]
        kind, = struct.unpack("!H", packet[at + 1:at + 3])
        found = self.addresses(".".join(labels), kind)
        head = struct.pack("!HHHHHH", number, 0x8180, 1, len(found), 0, 0)
        rows = b"".join(struct.pack("!HHHIH", 0xc00c, kind, 1, 0, len(each)) + each for each in found)
        return head + packet[12:at + 5] + rows

    def serve(self):
        while True:
            packet, client = self.socket.recvfrom(512)
            self.socket.sendto(self.answer(packet), client)


class Listener:
    def __init__(self, port, path):
        self.path = path
        self.socket = socket.socket(socket.AF_INET6)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", port))
        self.socket.listen(128)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            connection, _ = self.socket.accept()
            with open(self.path, "a") as file:
                file.write(json.dumps(connection.getsockname()[0]) + "\n")
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection):
        with connection:
            connection.settimeout(10)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def main():
    folder, port, *program = sys.argv[1:]
    set_up(folder)
    Names()
    Listener(int(port), os.path.join(folder, "reached"))
    child = subprocess.Popen(program)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    sys.exit(child.wait())


if __name__ == "__main__":
    main()
