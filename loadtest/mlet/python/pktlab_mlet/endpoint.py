"""Which endpoint a session is with, as pktxpmgr tells it: in the environment, or beside the session in singleton mode."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from typing import Any, Optional, Tuple

from .errors import MletError

NO_ENDPOINT = "the manager sent something that is neither an address nor all facts of an endpoint"

Facts = Tuple[str, Optional[str], Optional[int], Optional[str]]
"""Address, key, number of the session, snikey."""


class Endpoint:
    """What is known of an endpoint; None is what is not."""

    def __init__(
        self, address: str, key: Optional[str], number: Optional[int], snikey: Optional[str]
    ) -> None:
        self.address, self.key, self.number, self.snikey = address, key, number, snikey

    @property
    def columns(self) -> str:
        """What a line about the endpoint begins with: key and address, a tab between; - for what is not known."""
        return f"{self.key or '-'}\t{self.address or '-'}"

    def __str__(self) -> str:
        """For people: the first digits of the key, and the address."""
        return " ".join(part for part in ((self.key or "")[:12], self.address) if part)

    def json_line(self, **members: Any) -> str:
        """A result as one line of JSON: the endpoint's key, the number of the session, the time of the controller's
        clock, and these members.

        >>> Endpoint("192.0.2.1", "ab12", 7, None).json_line(ms=1.5)  # doctest: +ELLIPSIS
        '{"key": "ab12", "session": 7, "time": "20...Z", "ms": 1.5}'
        """
        time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return json.dumps({"key": self.key, "session": self.number, "time": time, **members})

    def print_json(self, **members: Any) -> None:
        """Prints that line in one write, so that lines of up to 4096 bytes never mix with those of other mlets."""
        sys.stdout.flush()
        line = self.json_line(**members).encode() + b"\n"
        while line:
            line = line[os.write(sys.stdout.fileno(), line) :]


def facts_of_environment() -> Facts:
    """Of a manager of the original the address alone is known."""
    key, number, snikey = (
        os.environ.get(name) or None for name in ("PKTLAB_ENDPOINT_KEY", "PKTLAB_SESSION", "PKTLAB_SNIKEY")
    )
    return os.environ["EPADDR"], key, int(number) if number and number.isdigit() else None, snikey


def facts_of_message(message: str) -> Facts:
    """Of `ADDRESS`, or of `ADDRESS SESSION KEY SNIKEY` with - for what is not known."""
    address, *facts = message.split(" ")
    if not facts:
        return address, None, None, None
    known = [None if fact == "-" else fact for fact in facts]
    try:
        number, key, snikey = known
        return "" if address == "-" else address, key, None if number is None else int(number), snikey
    except ValueError:
        raise MletError(NO_ENDPOINT) from None
