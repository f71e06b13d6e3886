"""A WebSocket server as a pod, by python3-websockets: it echoes what it gets.

GET /health answers 200; /refuse answers 403; /close closes with 4321 after the first message, and /vanish without a word;
every other path is an echo, with the subprotocol "chat" when it is offered. In its workspace: `seen` gets "open" and
"closed CODE" for each, `head` the path and the fields of each handshake, `starts` one line for each start.
"""

import asyncio
import http
import json
import os
import signal

import websockets

HERE = os.environ["WAKEGATE_WORKSPACE"]


def note(name, text):
    with open(os.path.join(HERE, name), "a", encoding="utf-8") as file:
        file.write(text + "\n")


async def process_request(path, fields):
    if path == "/health":
        return http.HTTPStatus.OK, [], b"well"
    if path == "/busy":
        return http.HTTPStatus.NOT_FOUND, [], b""
    note("head", json.dumps([path, list(fields.raw_items())]))
    if path == "/refuse":
        return http.HTTPStatus.FORBIDDEN, [("X-Why", "because")], b"no"
    return None


async def serve(socket):
    note("seen", "open")
    try:
        async for message in socket:
            await socket.send(message)
            if socket.path == "/close":
                await socket.close(4321, "enough")
            if socket.path == "/vanish":
                socket.transport.abort()
    except websockets.ConnectionClosed:
        pass
    note("seen", f"closed {socket.close_code}")


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    note("starts", str(os.getpid()))
    async with websockets.serve(serve, "127.0.0.1", int(os.environ["PORT"]), process_request=process_request,
                                subprotocols=["chat"], max_size=None, ping_interval=None):
        await stop


asyncio.run(main())
