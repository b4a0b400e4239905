"""Asks DNS servers through an endpoint for IPv4 addresses, and takes only what answers the question (RFC 1035)."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import List, Optional, Set, Tuple

from . import operations
from .draws import random_bytes
from .errors import MletError, Silence
from .messages import UDP, Address, Received, host_port, told
from .names import find
from .operations import SocketOps
from .talk import Talk, awaiting

_SERVERS = 0x10020000
"""Where the endpoint's DNS servers are: two counts, and from 0x10 on the IPv4 ones."""

_A, _CNAME, _INTERNET = 1, 5, 1
_ALIASES_MAX = 16

_REFUSALS = {1: "does not understand the question", 2: "failed", 3: "says that there is no such domain", 5: "refuses to answer"}


@dataclass(frozen=True)
class LookUp:
    """What a server answered. Times are the endpoint's."""

    name: str
    server: Address
    addresses: List[str]
    """None if the name has no IPv4 address."""
    sent: int
    received: int

    @property
    def took_ms(self) -> float:
        """Milliseconds from the departure of the question to the arrival of the answer."""
        return max(self.received - self.sent, 0) / 1e6


class LookUpFailed(MletError):
    """A server answered that it has no answer, or the name is none."""

    word = "look_up_failed"


def find_server(talk: Talk, server: str, deadline: float) -> Optional[Address]:
    """The address of a server, which may be a name, by this time at the latest; None for the endpoint's own."""
    if not server:
        return None
    host, port = host_port(server, 53)
    return find(talk, host, port, deadline)


async def look_up(talk: Talk, name: str, server: Optional[Address], timeout: float, deadline: float) -> LookUp:
    """See Session.look_up; `deadline` is when `timeout` is over, of which a part was needed to find the server."""
    remote = server or await _own_server(talk, deadline)
    question = _question(name, random_bytes(2))
    if isinstance(question, str):
        raise LookUpFailed(f"{told(remote)} on {name!r}: this is {question}")
    asked = f"{told(remote)} on {name}"
    with awaiting(talk, f"the answer of {asked}"):
        any_address = "::" if ":" in remote[0] else "0.0.0.0"
        ops: SocketOps = await operations.listen(talk, (any_address, 0), UDP, 0x1000, deadline)
        try:
            tag = await ops.send(question, 0, None, remote, deadline)
            # What comes of it says more than the socket's own address.
            ops.name = asked
            while True:
                try:
                    news: Received = await ops.receive(deadline - talk.monotonic())
                except Silence:
                    raise Silence(f"the answer of {asked}", timeout) from None
                addresses = answer(news.data, question) if news.remote == remote else None
                if isinstance(addresses, str):
                    raise LookUpFailed(f"{asked}: {addresses}")
                if addresses is not None:
                    sent = await ops.sent(tag, deadline - talk.monotonic())
                    return LookUp(name, remote, addresses, sent.time, news.time)
        finally:
            ops.abandon()


async def _own_server(talk: Talk, deadline: float) -> Address:
    memory = await operations.read_memory(talk, _SERVERS, 0x14, deadline)
    if memory[0] == 0:
        raise MletError("the endpoint knows no DNS server; name one")
    return str(ipaddress.IPv4Address(memory[0x10:])), 53


def _question(name: str, identification: bytes) -> "bytes | str":
    """For the A records of `name`, with recursion; in words what that is, if it is no name.

    >>> _question("a.example", b"id")
    b'id\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x01a\\x07example\\x00\\x00\\x01\\x00\\x01'
    """
    if not name.isascii():
        return "not ASCII: give its A-label (xn--...)"
    # The last dot is that of the root.
    labels = [label.encode() for label in (name[:-1] if name.endswith(".") else name).split(".")]
    if not all(1 <= len(label) <= 63 for label in labels):
        return "no domain name"
    if sum(map(len, labels)) + len(labels) > 254:
        return "too long for a domain name"
    asked = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return identification + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + asked + struct.pack("!HH", _A, _INTERNET)


def answer(datagram: bytes, question: bytes) -> "None | str | List[str]":
    """Addresses, or in words why there are none; None if this is no answer to the question."""
    if len(datagram) < 12 or datagram[:2] != question[:2] or datagram[2] & 0xF8 != 0x80:
        return None
    flags, code = datagram[2], datagram[3] & 0x0F
    questions, count = struct.unpack_from("!HH", datagram, 4)
    asked = question[12:]
    repeats = questions == 1 and datagram[12 : 12 + len(asked)].lower() == asked.lower()
    # A server that did not understand the question may leave it out.
    if not repeats and not (questions == 0 and code != 0):
        return None
    if code != 0:
        return f"the server {_REFUSALS.get(code, f'answers with code {code}')}"
    if flags & 0x02:
        return "the answer is truncated"
    try:
        return _addresses(datagram, len(question), count)
    except (IndexError, struct.error):
        return None


def _addresses(message: bytes, at: int, count: int) -> "str | List[str]":
    """The addresses of the name that was asked for, or of what it is an alias of."""
    found: List[Tuple[bytes, str]] = []
    aliases: List[Tuple[bytes, bytes]] = []
    for _ in range(count):
        owner, at = _name(message, at)
        kind, internet, _, length = struct.unpack_from("!HHIH", message, at)
        start, at = at + 10, at + 10 + length
        if at > len(message):
            raise IndexError
        if (kind, internet) == (_A, _INTERNET):
            if length != 4:
                raise IndexError
            found.append((owner, str(ipaddress.IPv4Address(message[start:at]))))
        if (kind, internet) == (_CNAME, _INTERNET):
            target, behind = _name(message, start)
            if behind != at:
                raise IndexError
            aliases.append((owner, target))
    name, seen = _name(message, 12)[0], set()  # type: Tuple[bytes, Set[bytes]]
    while True:
        addresses = [address for owner, address in found if owner == name]
        target_of: Optional[bytes] = next((target for owner, target in aliases if owner == name), None)
        if addresses or target_of is None:
            return addresses
        seen.add(name)
        name = target_of
        if name in seen or len(seen) > _ALIASES_MAX:
            return f"its aliases go round, or are more than {_ALIASES_MAX}"


def _name(message: bytes, at: int) -> Tuple[bytes, int]:
    """The name at `at`, whole and in lower case, and where what follows it is. A pointer leads to what stands before all
    that was read of the name, so that no pointers go round in a circle."""
    name, behind, start = b"", -1, at
    while True:
        length = message[at]
        if length == 0:
            return name + b"\0", behind if behind >= 0 else at + 1
        if length < 64:
            label = message[at : at + 1 + length]
            if len(label) <= length:
                raise IndexError
            name += label.lower()
            at += len(label)
        elif length >= 0xC0:
            behind = behind if behind >= 0 else at + 2
            at = struct.unpack_from("!H", message, at)[0] & 0x3FFF
            if at >= start:
                raise IndexError
            start = at
        else:
            raise IndexError
        if len(name) > 255:
            raise IndexError
