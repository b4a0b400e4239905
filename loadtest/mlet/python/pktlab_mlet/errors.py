"""Why a measurement cannot go on, or a part of it."""

from __future__ import annotations

from typing import Dict, Tuple

STATUSES: Dict[int, Tuple[str, str]] = {
    0x0000: ("SUCCESS", "success"),
    0x0010: ("ECTLBADMSG", "malformed message"),
    0x0011: ("ECTLNOTSUP", "type or operation not supported in this state"),
    0x0012: ("ECTLMONREJ", "a monitor rejected it"),
    0x0013: ("ECTLMONUKN", "a monitor crashed or is unusable"),
    0x0020: ("ECRTBADHDAT", "program data bad or its digest not demanded by the chain"),
    0x0021: ("ECRTNOHDAT", "START although demanded programs are missing"),
    0x0022: ("ECRTBADFRM", "certificate form bad"),
    0x0023: ("ECRTNOSPACE", "no space for certificate"),
    0x0024: ("ECRTBADHINT", "unknown CDATA hint"),
    0x0030: ("ESYSNOBUFS", "buffer space exhausted"),
    0x0031: ("ESYSNOPERM", "no permission"),
    0x0032: ("ESKTINUSE", "sktid already open"),
    0x0033: ("ESKTNOTOPEN", "sktid not open or in an error state"),
    0x0034: ("ESKTNOPRFAM", "family unsupported"),
    0x0035: ("ESKTNOPROTO", "protocol unsupported"),
    0x0036: ("ESKTNOADDR", "local address not available"),
    0x0037: ("ESKTNOMATCH", "family or protocol differ from the open socket"),
    0x0038: ("ESKTBADFILT", "bad capture filter"),
    0x0039: ("ESKTPKTDENY", "packet denied by limits"),
    0x003A: ("ESKTOPNDENY", "open denied by limits"),
    0x0040: ("ETCPNOPORT", "TCP port unavailable"),
    0x0041: ("EPKTNOTSENT", "packet not sent"),
    0x0042: ("EUDPNOPORT", "UDP port unavailable"),
    0x0043: ("EPKTTRUNC", "packet truncated"),
    0x0044: ("ENORES", "resource limit reached"),
    0x0048: ("EMEMBADADR", "bad memory address"),
    0xFFFF: ("EUNKFAULT", "unknown"),
}
"""Names of statuses (`errid`), and what they mean."""

ECTLMONREJ = 0x0012
"""Status of what a monitor does not allow."""

ECTLMONUKN = 0x0013
"""Status of what a monitor crashed at."""

ESKTINUSE = 0x0032
"""Status of what opens a socket whose number is in use."""

DENIALS = (ECTLMONREJ, ECTLMONUKN, 0x0031, 0x0039, 0x003A)
"""Statuses of what monitors, limits of certificates or the endpoint's system do not allow."""


class MletError(Exception):
    """Why a measurement cannot go on; the base of all errors here.

    `word` is one word for programs, of a closed list: `refused`, `reset`, `refused_or_reset`, `timed_out`,
    `unreachable`, `closed` and `unknown` of connections, `look_up_failed`, `denied`, `not_sent`, `request_refused`,
    `silence`, `session_over`, `unread`, `too_much_kept`, `left`, `suspended`, `unresolved`, `no_results` and else
    `failed`.
    """

    word = "failed"


class EndpointLeft(MletError):
    """The session is over: the endpoint or the controller has ended it."""

    word = "left"


class Suspended(MletError):
    """The endpoint has suspended the session, which is over: another experiment needs it, or it is being ended."""

    word = "suspended"


class Silence(MletError):
    """What was awaited did not come in time: `awaited` says what and of which target, `waited` for how many
    seconds. The session goes on; the answer to a request is dropped when it comes."""

    word = "silence"

    def __init__(self, awaited: str, waited: float) -> None:
        super().__init__(f"{awaited} did not come in {waited:.3f} s")
        self.awaited, self.waited = awaited, waited


class SessionOver(MletError):
    """The deadline of the whole session has passed while something was awaited."""

    word = "session_over"

    def __init__(self, awaited: str, waited: float) -> None:
        super().__init__(f"the session's deadline passed when {awaited} had been awaited for {waited:.3f} s")
        self.awaited, self.waited = awaited, waited


class Unread(Silence):
    """The endpoint did not take a request in time. One of which nothing was sent is never sent, and the rest
    of another is sent when the endpoint takes it: the session goes on."""

    word = "unread"

    def __init__(self, request: str, waited: float) -> None:
        super().__init__(request, waited)
        self.args = (f"the endpoint did not take {request} in {waited:.3f} s",)


class TooMuchKept(MletError):
    """The endpoint sent more than was asked for, and than is kept; after Session.notification it goes on."""

    word = "too_much_kept"


class Refused(MletError):
    """The endpoint refused a request, or could not send a packet."""

    word = "request_refused"

    def __init__(self, what: str, status: int, detail: str = "") -> None:
        name, meaning = STATUSES.get(status, ("unnamed status", ""))
        super().__init__(f"{what}: {name} (0x{status:04x}){meaning and ': '}{meaning}{detail}")
        self.status = status


class Denied(Refused):
    """The endpoint may not do what was asked for: its operator, the experiment's certificates or its system
    are against it. Or a monitor blocked what a socket received: of a stream nothing more is handed out, since a part of
    it is missing; a datagram or packet may follow."""

    word = "denied"


class NotSent(Refused):
    """A packet did not leave the endpoint."""

    word = "not_sent"


class ConnectionFailed(MletError):
    """A TCP connection was not made, or broke; `code` is NSTAT's, and `reason` says it in words."""

    word = "unknown"

    def __init__(self, code: int, reason: str = "", what: str = "no connection", waited: float = 0.0) -> None:
        reasons = {1: "refused or reset", 2: "timed out at the endpoint", 3: "closed by the peer"}
        self.code, self.waited = code, waited
        self.reason = reason or reasons.get(code, UNKNOWN_REASON)
        after = f" after {waited:.3f} s" if waited else ""
        super().__init__(f"{what}: {self.reason}{after}")


UNKNOWN_REASON = "for an unknown reason"


class ConnectionRefused(ConnectionFailed):
    """The peer has no such service."""

    word = "refused"


class ConnectionReset(ConnectionFailed):
    """The peer broke it off."""

    word = "reset"


class RefusedOrReset(ConnectionRefused, ConnectionReset):
    """One of the two: NSTAT has one code for both."""

    word = "refused_or_reset"


class ConnectionTimedOut(ConnectionFailed):
    """The peer did not answer the endpoint."""

    word = "timed_out"


class Unreachable(ConnectionFailed):
    """There is no way to the peer."""

    word = "unreachable"


class ConnectionClosed(ConnectionFailed):
    """The peer closed it before it stood."""

    word = "closed"


def connection_failed(code: int, state: int, what: str, waited: float) -> ConnectionFailed:
    """By the socket's state in memory, which knows better, or else by the code of NSTAT."""
    by_state = {
        -1: (ConnectionRefused, 1, "refused"),
        -2: (ConnectionReset, 1, "reset"),
        -3: (ConnectionTimedOut, 2, "timed out at the endpoint"),
        -4: (Unreachable, 0xFF, "unreachable"),
    }
    by_code = {1: RefusedOrReset, 2: ConnectionTimedOut, 3: ConnectionClosed}
    if state < 0:
        kind, code, reason = by_state.get(state, (ConnectionFailed, 0xFF, UNKNOWN_REASON))
        return kind(code, reason, what, waited)
    return by_code.get(code, ConnectionFailed)(code, "", what, waited)


class Unresolved(MletError):
    """A name has no address at the controller, or is none."""

    word = "unresolved"


class NoResults(MletError):
    """A folder holds no results, or an output of a session cannot be read."""

    word = "no_results"
