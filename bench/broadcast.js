// The same as /test/broadcast, by node's `ws`: whoever opens a WebSocket gets as text what anybody posts. broadcast.js PORT
'use strict';
const http = require('http');
const { WebSocketServer } = require('ws');

const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', part => parts.push(part));
    request.on('end', () => {
        const text = Buffer.concat(parts);
        for (const client of sockets.clients)
            client.send(text, { binary: false });
        response.setHeader('Content-Type', 'application/json');
        response.end(`{"subscribers":${sockets.clients.size}}`);
    });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
server.listen(Number(process.argv[2]), '127.0.0.1', 4096);
