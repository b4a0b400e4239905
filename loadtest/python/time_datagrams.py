#!/usr/bin/env python3
"""Round trips to a UDP echo server, from one process for all endpoints (pktxpmgr -s), each in its thread:
time_datagrams.py HOST PORT [COUNT]. The datagrams leave 10 ms apart by the endpoint's clock."""
import sys
from threading import Thread
from typing import Dict

from pktlab_mlet import MletError, Session, sessions


def measure(endpoint: Session, host: str, port: int, count: int) -> None:
    with endpoint.udp() as socket:
        start = endpoint.clock() + 10_000_000
        for number in range(count):
            data = number.to_bytes(2, "big")
            socket.send(data, host, port, when=start + number * 10_000_000, tag=number)
        sent: Dict[int, int] = {tag: socket.wait_until_sent(tag) for tag in range(count)}
        for _ in range(count):
            answer = socket.receive()
            number = int.from_bytes(answer.data[:2], "big")
            line = f"{endpoint.address}\t{number}\t{(answer.time - sent[number]) / 1e6:.3f}\n"
            # In one piece, or lines of different threads could mix.
            print(line, end="", flush=True)


def serve(endpoint: Session, host: str, port: int, count: int) -> None:
    with endpoint:
        try:
            measure(endpoint, host, port, count)
        except MletError as error:
            print(f"{endpoint.address}: {error}\n", end="", file=sys.stderr)


host, port, count = sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or ["3"])[0])
for endpoint in sessions():
    Thread(target=serve, args=(endpoint, host, port, count)).start()
