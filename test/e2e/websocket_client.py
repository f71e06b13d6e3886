"""python3-websockets, called as if it were blocking."""

import asyncio
import contextlib

import websockets


class Socket:
    """One connection with a loop of its own, which runs only within these calls."""

    def __init__(self, loop, inner):
        self.loop = loop
        self.inner = inner

    def run(self, waited, timeout=20):
        return self.loop.run_until_complete(asyncio.wait_for(waited, timeout))

    def send(self, message):
        self.run(self.inner.send(message))

    def recv(self, timeout=20):
        return self.run(self.inner.recv(), timeout)

    def ping(self):
        async def both():
            await (await self.inner.ping())
        self.run(both())

    def idle(self, seconds):
        self.run(asyncio.sleep(seconds), seconds + 20)


@contextlib.contextmanager
def connect(url, **options):
    loop = asyncio.new_event_loop()
    options = {"max_size": None, "ping_interval": None, **options}

    async def open_it():
        return await websockets.connect(url, **options)
    try:
        socket = Socket(loop, loop.run_until_complete(asyncio.wait_for(open_it(), 20)))
        try:
            yield socket
        finally:
            socket.run(socket.inner.close())
    finally:
        loop.close()
