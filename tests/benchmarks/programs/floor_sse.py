"""The floor for streams: a bare asyncio server that hands what a program prints to all who listen.

floor_sse.py VIEWERS PROGRAM [ARGUMENT ...]: prints its port; runs the program once that many have
asked for /api/events. Every other path gets a fixed answer of 2000 bytes.
"""

import asyncio
import json
import os
import sys

viewers, argv = int(sys.argv[1]), sys.argv[2:]
listening = []
complete = asyncio.Event()
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


async def answer(reader, writer):
    while head := await reader.readline():
        while (await reader.readline()).strip():
            pass
        if b"/api/events" in head:
            writer.write(STREAM)
            listening.append(writer)
            if len(listening) == viewers:
                complete.set()
            return
        writer.write(PAGE)


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await complete.wait()
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=env)
    held = b""
    while data := await child.stdout.read(1 << 16):
        whole, newline, held = (held + data).rpartition(b"\n")
        text = (whole + newline).decode()
        event = b"event: log\ndata: " + json.dumps({"text": text}).encode() + b"\n\n"
        for writer in listening:
            writer.write(event)
    await asyncio.sleep(3600)


asyncio.run(main())
