"""Messages as bytes, and what endpoints send unasked (spec/protocol.md 1.4)."""

from __future__ import annotations

import ipaddress
import operator
import re
import socket
import struct
from dataclasses import dataclass
from typing import Optional, Tuple, Union

from .errors import DENIALS, Denied, MletError, Refused, Unresolved

NEVER = 0xFFFFFFFFFFFFFFFF
"""The time that is never reached."""

RAW, TCP, UDP = 0x00, 0x06, 0x11
"""Protocols, as messages number them."""

SOCKETS_MAX = 256
"""So many sockets an endpoint has: their numbers are bytes."""

CLOCK = 0x10010000
"""Where the endpoint's clock is in its memory; 8 bytes."""

MREAD, MWRITE, NOPEN, NCLOSE, NSEND, NCAP, NCTL, YIELD = 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x23
RESULT, MDATA, NTAG, NSTAT, NDATA, NDROP, NBLOCK, SUSPD = 0x40, 0x41, 0x60, 0x61, 0x62, 0x63, 0x64, 0x68

_NAMES = {NTAG: "NTAG", NSTAT: "NSTAT", NDATA: "NDATA", NDROP: "NDROP", NBLOCK: "NBLOCK"}

_MONITOR_WORDS = {0x0012: 2, 0x0013: 1}
"""The least that a RESULT of a monitor says of it: its index, and the code of one that rejected."""

PAYLOAD_MAX = 0xFFFFFF
"""Bytes that a message holds at most."""

Address = Tuple[str, int]
"""IP address and port."""


@dataclass(frozen=True)
class Sent:
    """NTAG: a packet was sent, or not. `came` is when that came, by the controller's clock."""

    sktid: int
    tag: int
    time: int
    status: int
    came: int = 0


@dataclass(frozen=True)
class Changed:
    """NSTAT: a connection stands (`remote` is set) or ended (`code`: 1 reset, 2 timeout, 3 closed). `came` is
    when that came, by the controller's clock."""

    sktid: int
    time: int
    remote: Optional[Address]
    code: int
    came: int = 0


@dataclass(frozen=True)
class Received:
    """NDATA: a piece of a stream, a datagram (`remote` is its sender) or a whole packet. `time` is when the
    endpoint received it, by its clock, `came` when it came here, by the controller's."""

    sktid: int
    time: int
    remote: Optional[Address]
    data: bytes
    came: int = 0


@dataclass(frozen=True)
class Dropped:
    """NDROP: the socket's receive buffer was full."""

    sktid: int
    first: int
    last: int
    packets: int
    bytes: int
    came: int = 0


@dataclass(frozen=True)
class Blocked:
    """NBLOCK: a monitor of the endpoint's operator blocked something, with a code of its own, or crashed at it (`code` 0)."""

    sktid: int
    time: int
    code: int
    came: int = 0


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this package does not know; `sktid` is -1."""

    sktid: int
    type: int
    payload: bytes
    came: int = 0


Notification = Union[Sent, Changed, Received, Dropped, Blocked, Unknown]


def encode(message_type: int, payload: bytes, what: str) -> bytes:
    """A whole message."""
    if len(payload) > PAYLOAD_MAX:
        excess = f"{len(payload)} bytes, a message holds {PAYLOAD_MAX}; send less at once"
        raise MletError(f"{what}: {excess}")
    return struct.pack("!I", message_type << 24 | len(payload)) + payload


def check_result(what: str, payload: bytes) -> None:
    """Raises unless a RESULT says success."""
    status, *monitor = struct.unpack(f"!{len(payload) // 2}H", payload) if len(payload) in (2, 4, 6) else (0,)
    if len(payload) not in (0, 2, 4, 6) or len(monitor) < _MONITOR_WORDS.get(status, 0):
        raise MletError(f"{what}: the endpoint sent a malformed RESULT")
    if status != 0:
        words = ("monitor", "its code")
        detail = ", ".join(f"{word} {number}" for word, number in zip(words, monitor))
        kind = Denied if status in DENIALS else Refused
        raise kind(what, status, detail and f" ({detail})")


def notification(message_type: int, payload: bytes, came: int) -> Notification:
    """What a message says that answers no request."""
    try:
        if message_type == NTAG:
            sktid, tag, when = struct.unpack_from("!BHQ", payload)
            status = struct.unpack_from("!H", payload, 11)[0] if len(payload) > 11 else 0
            return Sent(sktid, tag, when, status, came)
        if message_type in (NSTAT, NDATA):
            sktid, family, protocol, when = struct.unpack_from("!BBBQ", payload)
            _check_socket(family, protocol)
            rest = payload[11:]
            if message_type == NSTAT:
                if len(rest) == 1:
                    return Changed(sktid, when, None, rest[0], came)
                return Changed(sktid, when, _peer(family, rest)[0], 0, came)
            if protocol == UDP:
                remote, data = _peer(family, rest)
                return Received(sktid, when, remote, data, came)
            return Received(sktid, when, None, rest, came)
        if message_type == NDROP:
            sktid, family, protocol, first, last, units, count = struct.unpack("!BBBQQII", payload)
            _check_socket(family, protocol)
            return Dropped(sktid, first, last, units, count, came)
        if message_type == NBLOCK:
            sktid, family, protocol, code, when = struct.unpack("!BBBHQ", payload)
            _check_socket(family, protocol)
            return Blocked(sktid, when, code, came)
    except (struct.error, ValueError):
        kind, length = _NAMES[message_type], len(payload)
        raise MletError(f"the endpoint sent a malformed {kind} of {length} bytes; the session is over") from None
    return Unknown(-1, message_type, payload, came)


def _check_socket(family: int, protocol: int) -> None:
    """Raises unless there are sockets of these."""
    if family not in (4, 6) or protocol not in (RAW, TCP, UDP):
        raise ValueError("no such socket")


def _peer(family: int, data: bytes) -> Tuple[Address, bytes]:
    """Address and port at the front of `data`, and the rest."""
    end = 4 if family == 4 else 16
    port = struct.unpack_from("!H", data, end)[0]
    return (str(ipaddress.ip_address(data[:end])), port), data[end + 2 :]


def encode_address(address: Address) -> bytes:
    """As messages have it."""
    return ip(address[0]).packed + number("port", address[1], 2)


def ip(address: str) -> Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """An address of the endpoint's own, of which no name is known here."""
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        raise MletError(f"{address} is no IP address; a socket's own is given as one") from None


def number(what: str, value: int, size: int, least: int = 0) -> bytes:
    """An unsigned number of so many bytes, which `what` names if it is none."""
    most = (1 << 8 * size) - 1
    try:
        whole = operator.index(value)
    except TypeError:
        raise MletError(f"{what}: {value!r} is no whole number") from None
    if not least <= whole <= most:
        raise MletError(f"{what}: {whole} is not from {least} to {most}")
    return whole.to_bytes(size, "big")


def told(address: Address) -> str:
    """As HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def any_address(remote: Address) -> bytes:
    """Any address and port in the family of `remote`."""
    return encode_address(("::" if ":" in remote[0] else "0.0.0.0", 0))


def resolve(host: str, port: int, family: Optional[int] = None) -> Address:
    """An address of `host`, found at the controller, of IP version `family` if that is given; as notifications
    show it. Ports are numbers from 1 to 65535.

    >>> resolve("127.0.0.1", 80)
    ('127.0.0.1', 80)
    >>> resolve("127.0.0.1", 70000)
    Traceback (most recent call last):
    pktlab_mlet.errors.MletError: 127.0.0.1:70000: port 70000 is not from 1 to 65535
    """
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6}
    _check_port(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        # The latter is of a name that none can be.
        raise Unresolved(f"{host} has no address: {error}") from None
    for version in (4, 6) if family is None else (family,):
        for kind, _, _, _, address in found:
            if kind == wanted[version]:
                return str(address[0]), port
    raise Unresolved(f"{host} has no IPv{family or ''} address")


def host_port(text: str, default_port: int) -> Address:
    """Of `HOST` or `HOST:PORT`, as the words of a command line name a server; an IPv6 address before a port stands in
    brackets.

    >>> host_port("www.example", 80), host_port("www.example:8080", 80)
    (('www.example', 80), ('www.example', 8080))
    >>> host_port("2001:db8::1", 80), host_port("[2001:db8::1]:8080", 80)
    (('2001:db8::1', 80), ('2001:db8::1', 8080))
    >>> host_port("www.example:http", 80)
    Traceback (most recent call last):
    pktlab_mlet.errors.Unresolved: www.example:http has no address: it is no HOST or HOST:PORT
    """
    is_bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    found = re.fullmatch(r"(?:\[([^][\s]+)\]|([^][:\s]+))(?::([0-9]{1,20}))?", f"[{text}]" if is_bare_ipv6 else text)
    if found is None:
        raise Unresolved(f"{text} has no address: it is no HOST or HOST:PORT")
    host, port = found[1] or found[2], default_port if found[3] is None else int(found[3])
    _check_port(host, port)
    return host, port


def _check_port(host: str, port: int) -> None:
    if port not in range(1, 0x10000):
        raise MletError(f"{told((host, port))}: port {port} is not from 1 to 65535")


def ebpf(*instructions: Tuple[int, int, int, int, int]) -> bytes:
    """An eBPF program of (opcode, destination, source, offset, constant) each, encoded as PacketLab does.

    It returns how many bytes of a packet are wanted. One that loads bytes of the packet begins with
    (0xBF, 6, 1, 0, 0), r6 = context: no kernel takes these loads without.

    >>> ebpf((0xB7, 0, 0, 0, 0xFFFF), (0x95, 0, 0, 0, 0)).hex()
    '00b70000000000ffff9500000000000000'
    """
    body = b"".join(
        number("eBPF: opcode", opcode, 1)
        + number("eBPF: registers", to << 4 | source, 1)
        + struct.pack("!HI", offset & 0xFFFF, constant & 0xFFFFFFFF)
        for opcode, to, source, offset, constant in instructions
    )
    return b"\x00" + body
