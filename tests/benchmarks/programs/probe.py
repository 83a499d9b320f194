"""Asks a server for pages every 10 ms until stdin ends; then prints [[asked at, ms], …] as JSON."""

import http.client
import json
import select
import sys
import time

port, paths = int(sys.argv[1]), sys.argv[2:]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
found = []
print("begun", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    path = paths[len(found) % len(paths)]
    asked = time.monotonic_ns()
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    connection.getresponse().read()
    found.append((asked, (time.monotonic_ns() - asked) / 1e6))
print(json.dumps(found))
