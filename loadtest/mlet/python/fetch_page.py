#!/usr/bin/python3
"""Fetches a page from every endpoint, printed as by mlet-http-get: fetch_page.py HOST[:PORT] [PATH]"""
from typing import List, Tuple

from pktlab_mlet import MletError, Session, arguments, host_port


def words(given: List[str]) -> Tuple[str, int, str]:
    return (*host_port(given[0], 80), given[1] if len(given) > 1 else "/")


host, port, path = arguments(words)
with Session(deadline=60) as endpoint:
    with endpoint.connect(host, port) as server:
        server.send(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, blank, page = server.receive_all().partition(b"\r\n\r\n")
if not (head.startswith(b"HTTP/") and blank):
    raise MletError("what the server sent is no answer of HTTP")
status, text = (
    part.decode("latin-1").encode("unicode_escape").decode() for part in (head.split(b"\r\n")[0], page)
)
print(endpoint.columns, status, text, sep="\t")
