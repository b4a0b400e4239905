#!/usr/bin/python3
"""Looks up names and connects to servers through every endpoint, a line of JSON for each:
survey.py DNS_SERVER[:PORT] [NAME | HOST:PORT]..."""
from typing import List

from pktlab_mlet import MletError, Session, arguments, host_port


def judged(words: List[str]) -> List[str]:
    host_port(words[0], 53)
    return words


dns, *targets = arguments(judged)
servers = [target for target in targets if ":" in target]
with Session(deadline=60) as endpoint:
    for name in (target for target in targets if ":" not in target):
        try:
            found = endpoint.look_up(name, dns, timeout=5)
            endpoint.print_json(name=name, addresses=found.addresses, sent_ns=found.sent, ms=found.took_ms)
        except MletError as error:
            endpoint.print_json(name=name, error=error.word, reason=str(error))
    for server, made in endpoint.connect_each(servers, 80, timeout=10):
        if isinstance(made, MletError):
            endpoint.print_json(server=server, error=made.word, reason=str(made))
        else:
            endpoint.print_json(server=server, began_ns=made.began, ms=made.took_ms, uncertainty_ms=made.uncertainty_ms)
    # Where the session is over by now, not all was measured: that is a failure.
    endpoint.clock()
