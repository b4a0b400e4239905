"""What pktlab_mlet does with endpoints and managers that are not as they should be. Each test is one end of a
socket pair; mlets with a real pktxpmgr and real endpoints are tested elsewhere."""

import socket
import struct
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Tuple

from pktlab_mlet import MletError, Refused, Session, Silence, _resolve, sessions

HERE = Path(__file__).parent
OK = b"\x40\0\0\0"


def session(answers: bytes, timeout: float = 30.0) -> Tuple[Session, socket.socket]:
    """A session whose endpoint has already sent `answers`."""
    near, far = socket.socketpair()
    far.sendall(answers)
    return Session(near, "192.0.2.1", timeout), far


def message(message_type: int, payload: bytes) -> bytes:
    return struct.pack("!I", message_type << 24 | len(payload)) + payload


class SessionTest(unittest.TestCase):
    def test_a_request_too_long_for_a_message_is_refused_here(self) -> None:
        endpoint, far = session(OK)
        with self.assertRaisesRegex(MletError, "NSEND.*16777215"):
            endpoint.request(0x2C, bytes(0x1000000), "NSEND")
        far.setblocking(False)
        self.assertRaises(BlockingIOError, far.recv, 1)

    def test_a_result_of_one_byte_is_malformed(self) -> None:
        endpoint, _far = session(b"\x40\0\0\1\0")
        with self.assertRaisesRegex(MletError, "malformed"):
            endpoint.write_memory(0, b"x")

    def test_success_is_no_answer_to_a_memory_read(self) -> None:
        endpoint, _far = session(OK)
        with self.assertRaisesRegex(MletError, "MREAD"):
            endpoint.clock()

    def test_memory_is_no_answer_to_an_open(self) -> None:
        endpoint, _far = session(message(0x41, bytes(4)))
        with self.assertRaisesRegex(MletError, "NOPEN"):
            endpoint.udp()

    def test_a_refusal_names_the_monitor(self) -> None:
        endpoint, _far = session(message(0x40, bytes.fromhex("001200010007")))
        with self.assertRaisesRegex(Refused, "ECTLMONREJ.*monitor 1, its code 7") as caught:
            endpoint.udp()
        self.assertEqual(caught.exception.status, 0x12)

    def test_a_datagram_goes_to_an_address_of_its_sockets_family(self) -> None:
        endpoint, far = session(OK + OK)
        with self.assertRaisesRegex(MletError, "::1 has no IPv4 address"):
            endpoint.udp().send(b"data", "::1", 53)
        far.setblocking(False)
        self.assertEqual(far.recv(100)[0], 0x2A)
        self.assertRaises(BlockingIOError, far.recv, 1)

    def test_a_connection_that_does_not_come_leaves_no_socket_open(self) -> None:
        endpoint, far = session(b"", timeout=1.0)
        requests = []

        def answer() -> None:
            for _ in ("NOPEN", "NCLOSE"):
                requests.append(far.recv(100))
                far.sendall(OK)

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        with self.assertRaises(Silence):
            endpoint.connect("192.0.2.7", 80)
        answering.join(30)
        self.assertEqual(requests[1:], [b"\x2b\0\0\1\0"])
        self.assertEqual(endpoint._open, set())


class NamesTest(unittest.TestCase):
    def test_an_ipv4_address_is_preferred(self) -> None:
        def both(*_: object, **__: object) -> object:
            kind = socket.SOCK_STREAM
            return [
                (socket.AF_INET6, kind, 6, "", ("2001:db8::1", 80, 0, 0)),
                (socket.AF_INET, kind, 6, "", ("192.0.2.1", 80)),
            ]

        original, socket.getaddrinfo = socket.getaddrinfo, both  # type: ignore[assignment]
        try:
            self.assertEqual(_resolve("both.example", 80), ("192.0.2.1", 80))
            self.assertEqual(_resolve("both.example", 80, 6), ("2001:db8::1", 80))
        finally:
            socket.getaddrinfo = original


class SessionsTest(unittest.TestCase):
    def test_half_a_session_is_no_end(self) -> None:
        control, manager = socket.socketpair()
        manager.sendall(b"127.0.0.1")
        manager.close()
        with self.assertRaisesRegex(MletError, "half a session"):
            next(sessions(control))

    def test_no_file_left_for_a_session_says_so(self) -> None:
        script = (
            "import resource, socket, sys, pktlab_mlet\n"
            "control, manager = socket.socketpair()\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (manager.fileno() + 1,) * 2)\n"
            "socket.send_fds(manager, [b'127.0.0.1\\0'], [0])\n"
            "next(pktlab_mlet.sessions(control))\n"
        )
        ended = run(["-c", script], stdin=subprocess.DEVNULL)
        self.assertIn("too many open files", ended.stderr)


class ErrorsTest(unittest.TestCase):
    def test_a_mlet_that_is_started_by_hand_says_what_to_do_in_one_line(self) -> None:
        ended = run([str(HERE / "fetch_page.py"), "127.0.0.1"], stdin=subprocess.DEVNULL)
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"\Afetch_page.py: .*fd 0 is no socket.*pktxpmgr.*\n\Z")

    def test_an_error_that_nobody_catches_is_one_line_with_the_endpoint(self) -> None:
        near, far = socket.socketpair()
        far.sendall(message(0x40, b"\0\x31"))
        ended = run([str(HERE / "fetch_page.py"), "127.0.0.1"], stdin=near.fileno())
        self.assertEqual(ended.returncode, 1)
        self.assertRegex(ended.stderr, r"\Afetch_page.py: endpoint 192.0.2.9: NOPEN: ESYSNOPERM .*\n\Z")


def run(arguments: "list[str]", stdin: int) -> "subprocess.CompletedProcess[str]":
    """A mlet in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={"EPADDR": "192.0.2.9", "PYTHONPATH": str(HERE)},
        check=False,
    )


if __name__ == "__main__":
    unittest.main()
