"""A pod for browsers: a page that opens a WebSocket to where it came from, and shows what that sends back."""

import asyncio
import http
import os
import signal

import websockets

PAGE = b"""<!doctype html><meta charset="utf-8"><title>pod</title><p id="said">nothing yet</p>
<script>
const socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket');
socket.onopen = () => socket.send('echo at ' + location.pathname);
socket.onmessage = (event) => { said.textContent = event.data; };
socket.onerror = () => { said.textContent = 'the socket failed'; };
</script>
"""


async def process_request(path, _fields):
    if path == "/health":
        return http.HTTPStatus.OK, [], b"well"
    if path == "/socket":
        return None
    if path == "/":
        return http.HTTPStatus.OK, [("Content-Type", "text/html")], PAGE
    return http.HTTPStatus.NOT_FOUND, [], b""


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    async with websockets.serve(echo, "127.0.0.1", int(os.environ["PORT"]), process_request=process_request):
        await stop


asyncio.run(main())
