#!/usr/bin/env python3
"""Fetches a page from every endpoint, printed as by mlet-http-get: fetch_page.py HOST[:PORT] [PATH]"""
import sys

from pktlab_mlet import MletError, Session

host, _, port = sys.argv[1].partition(":")
path = sys.argv[2] if len(sys.argv) > 2 else "/"
with Session() as endpoint:
    with endpoint.connect(host, int(port or 80)) as server:
        server.send(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        head, blank, page = server.receive_all().partition(b"\r\n\r\n")
if not (head.startswith(b"HTTP/") and blank):
    raise MletError("what the server sent is no answer of HTTP")
status, text = (
    part.decode("latin-1").encode("unicode_escape").decode() for part in (head.split(b"\r\n")[0], page)
)
print(endpoint.columns, status, text, sep="\t")
