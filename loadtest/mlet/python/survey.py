#!/usr/bin/python3
"""Looks up names and connects to servers through every endpoint, a line of JSON for each:
survey.py DNS_SERVER[:PORT] NAME... HOST:PORT..."""
import sys
from pktlab_mlet import MletError, Session

names = [word for word in sys.argv[2:] if ":" not in word]
servers = [word.rpartition(":") for word in sys.argv[2:] if ":" in word]
with Session(deadline=60) as endpoint:
    for name in names:
        try:
            found = endpoint.look_up(name, sys.argv[1], timeout=5)
            endpoint.print_json(name=name, addresses=found.addresses, sent_ns=found.sent, ms=found.took_ms)
        except MletError as error:
            endpoint.print_json(name=name, error=error.word, reason=str(error))
    for host, _, port in servers:
        endpoint.begin_connect(host, int(port), timeout=10)
    while (done := endpoint.next_connection()) is not None:
        server = "{}:{}".format(*done.remote)
        try:
            times = done.stream().times
            endpoint.print_json(server=server, began_ns=times.began, ms=times.took_ms, uncertainty_ms=times.uncertainty_ms)
        except MletError as error:
            endpoint.print_json(server=server, error=error.word, reason=str(error))
