"""An endpoint on tlslite-ng that breaks TLS on purpose: what tls_cases.py says of each case is made of this.

Not here: which cases there are, and what must come of them. Nothing of a case is decided by tlslite-ng but what is left
as it is: each handshake message can be changed before it is sent, and records are sealed here, since tlslite-ng never
seals a change_cipher_spec.
"""

import socket
import sys

from ecdsa import Ed25519, SigningKey
from tlslite.api import TLSConnection, X509CertChain, parsePEMKey
from tlslite.constants import TLS_1_3_HRR
from tlslite.errors import TLSAbruptCloseError, TLSRemoteAlert
from tlslite.extensions import KeyShareEntry, TLSExtension
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import CertificateRequest, Message

RESULT_OK = b"\x40\x00\x00\x00"
START = b"\x21\x00\x00\x00"
NDATA, LINFO = 0x62, 0x65

# Content types, handshake types, extensions, groups, schemes (RFC 8446 4, 4.2, 4.2.3, 4.2.7, 5.1).
CCS, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
CLIENT_HELLO, TICKET, END_OF_EARLY_DATA, CERTIFICATE, CERTIFICATE_REQUEST = 1, 4, 5, 11, 13
CERTIFICATE_VERIFY, FINISHED, KEY_UPDATE, COMPRESSED_CERTIFICATE = 15, 20, 24, 25
GROUPS, SIGNATURES, PSK, EARLY_DATA, VERSIONS, PSK_MODES, SHARES = 10, 13, 41, 42, 43, 45, 51
P256, X25519, UNKNOWN = b"\x00\x17", b"\x00\x1d", b"\x2a\x2a"
ED25519, ED448 = b"\x08\x07", b"\x08\x08"

# Alerts (6).
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW = 0, 10, 20, 22
HANDSHAKE_FAILURE, CERTIFICATE_UNKNOWN, ILLEGAL_PARAMETER, DECODE_ERROR = 40, 46, 47, 50
DECRYPT_ERROR, PROTOCOL_VERSION, MISSING_EXTENSION, UNSUPPORTED_EXTENSION = 51, 70, 109, 110
CERTIFICATE_REQUIRED = 116
WARNING, FATAL = 1, 2

# The connection ends without an alert.
FIN = "fin"

# The most that a record holds.
MOST = 2**14


def vector(length_len, *parts):
    """Bytes behind their length, of so many bytes (3.4)."""
    whole = b"".join(parts)
    return len(whole).to_bytes(length_len, "big") + whole


def message(payload, kind=NDATA):
    """A message of PacketLab."""
    return bytes([kind]) + vector(3, payload)


def handshake(kind, content=b""):
    return bytes([kind]) + vector(3, content)


def clear_record(content_type, content, version=b"\x03\x03"):
    return bytes([content_type]) + version + vector(2, content)


class Client(TLSConnection):
    """Has each handshake message changed before it is sent, and keeps what the manager has asked for."""

    def __init__(self, endpoint):
        super().__init__(endpoint.socket)
        self.closeSocket = False
        self.endpoint = endpoint
        self.certificate_request = None
        self.was_retried = False

    def _sendMsg(self, message, *arguments, **named):
        for part in self.endpoint.instead_of(message):
            yield from super()._sendMsg(part, *arguments, **named)

    def _getMsg(self, *arguments, **named):
        for result in super()._getMsg(*arguments, **named):
            if isinstance(result, CertificateRequest):
                self.certificate_request = result
            self.was_retried |= getattr(result, "random", None) == TLS_1_3_HRR
            yield result


class Endpoint:
    """One connection of an endpoint, from an address of its own."""

    # The signature of the CertificateVerify that was sent last, by whichever.
    last_signature = b""

    def __init__(self, address, suite):
        port, certificate, key = sys.argv[1:]
        self.socket = socket.create_connection(
            ("127.0.0.1", int(port)), timeout=20, source_address=(address, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = Client(self)
        self.settings = HandshakeSettings()
        self.settings.minVersion = self.settings.maxVersion = (3, 4)
        self.settings.cipherNames = [suite]
        self.settings.certificate_compression_send = []
        self.settings.keyShares = ["x25519"]
        self.chain = X509CertChain()
        self.chain.parsePemList(open(certificate).read())
        self.key = parsePEMKey(open(key).read(), private=True)
        # Of a type of handshake message: what is sent instead of it.
        self.changes = {}
        self.speaks_tls = False
        self.has_start = False
        self.is_begun = False

    def instead_of(self, sent):
        kind = sent.write()[0] if sent.contentType == HANDSHAKE else None
        change = self.changes.get(kind)
        parts = [sent] if change is None else change(self, sent)
        if kind == CERTIFICATE_VERIFY:
            Endpoint.last_signature = bytes(sent.signature)
        return parts

    def shake_hands(self):
        self.speaks_tls = True
        self.tls.handshakeClientCert(
            self.chain, self.key, settings=self.settings, serverName="hello"
        )

    def await_start(self):
        self.shake_hands()
        assert self.read(4) == START
        self.has_start = True

    def begin(self):
        """Goes on to where the mlet echoes, from wherever it is."""
        if not self.has_start:
            assert self.read(4) == START
        if not self.is_begun:
            self.record(DATA, RESULT_OK)
        self.is_begun = True

    def read(self, length):
        return bytes(self.tls.read(max=length, min=length))

    def clear(self, bytes_):
        if self.speaks_tls:
            self.tls.sock.flush()
        self.socket.sendall(bytes_)

    def seal(self, inner, outer=DATA):
        """Sends a record with this inner plaintext (5.2), whose header names this type."""
        layer = self.tls._recordLayer
        body = layer._encryptThenSeal(bytearray(inner), outer)
        self.clear(clear_record(outer, bytes(body), bytes(layer._recordSocket.version)))

    def record(self, content_type, content, padding=0):
        self.seal(bytes(content) + bytes([content_type]) + bytes(padding))

    def update_keys(self, asks, pieces=(5,)):
        """A KeyUpdate, in pieces that end there, and the next key."""
        whole, start = handshake(KEY_UPDATE, bytes([asks])), 0
        for end in pieces:
            self.record(HANDSHAKE, whole[start:end])
            start = end
        session = self.tls.session
        session.cl_app_secret, _ = self.tls._recordLayer.calcTLS1_3KeyUpdate_reciever(
            session.cipherSuite, session.cl_app_secret, session.sr_app_secret
        )

    def echoes(self, payload, padding=0):
        sent = message(payload)
        for start in range(0, len(sent), MOST):
            self.record(DATA, sent[start : start + MOST], padding)
        assert self.read(len(sent)) == sent, "the echo is another"

    def answer(self):
        """The alert that comes next, or FIN. Nothing may come behind it, and nothing before."""
        if not self.speaks_tls:
            return self.answer_in_the_clear()
        try:
            got = self.read(1)
        except TLSRemoteAlert as alert:
            return self.told(alert)
        except TLSAbruptCloseError:
            return FIN
        # So tlslite-ng tells of close_notify, behind which it sends its own.
        if got == b"":
            return CLOSE_NOTIFY
        raise AssertionError(f"neither an alert nor an end, but {got}")

    def told(self, alert):
        level = WARNING if alert.description == CLOSE_NOTIFY else FATAL
        assert alert.level == level, f"alert {alert.description} of level {alert.level}"
        assert self.socket.recv(1) == b"", "something comes behind the alert"
        return alert.description

    def answer_in_the_clear(self):
        got = b""
        while more := self.socket.recv(100):
            got += more
        if not got:
            return FIN
        assert got[:-1] == b"\x15\x03\x03\0\x02\x02", f"no fatal alert, but {got}"
        return got[-1]

    def is_served(self):
        """Goes on as if nothing had been, and closes."""
        self.begin()
        self.echoes(b"behind the case")
        self.tls.close()
        assert self.socket.recv(1) == b"", "something comes behind close_notify"


# How far a case goes before what is done in it.


def first(bytes_):
    """These bytes instead of a ClientHello."""
    return lambda endpoint: endpoint.clear(bytes_)


def changed(kind, *changes):
    """The handshake with its message of this type changed, by each in turn."""

    def change(endpoint, sent):
        for one in changes:
            instead = one(endpoint, sent)
            sent = sent if instead is None else instead
        return sent if isinstance(sent, list) else [sent]

    def play(endpoint):
        endpoint.changes[kind] = change
        endpoint.shake_hands()

    return play


def before(kind, act):
    """The handshake, and this before its message of that type."""
    return changed(kind, lambda endpoint, _: act(endpoint))


def greeting(act):
    """The handshake, and this before START is answered."""

    def play(endpoint):
        endpoint.await_start()
        act(endpoint)

    return play


class Session:
    """A session, and this in it."""

    BEFORE = b"before the case"

    def __init__(self, act):
        self.act = act

    def __call__(self, endpoint):
        endpoint.await_start()
        endpoint.begin()
        endpoint.echoes(self.BEFORE)
        self.act(endpoint)


# What is done.


def act(name):
    """The method of an endpoint, whose arguments are given beforehand."""
    return lambda *arguments: lambda endpoint: getattr(endpoint, name)(*arguments)


record, seal, raw, update_keys, echo = map(act, ["record", "seal", "clear", "update_keys", "echoes"])


def changes_our_keys(endpoint):
    """A KeyUpdate that asks for the manager's, which comes before its next record."""
    secret = bytes(endpoint.tls.session.sr_app_secret)
    endpoint.update_keys(1)
    endpoint.echoes(b"behind both")
    assert bytes(endpoint.tls.session.sr_app_secret) != secret, "no KeyUpdate has come"


def clear(*arguments):
    return raw(clear_record(*arguments))


def in_turn(*acts, times=1):
    def act_in_turn(endpoint):
        for one in acts * times:
            one(endpoint)

    return act_in_turn


# How a handshake message is changed. What is given back is sent; None stands for the message itself.


def left_out(_, __):
    return []


def body(change):
    def changed_message(_, sent):
        whole = bytes(sent.write())
        return Message(HANDSHAKE, bytearray(handshake(whole[0], change(whole[4:]))))

    return changed_message


def followed_by(more):
    return lambda _, sent: Message(HANDSHAKE, bytearray(sent.write() + more))


def field(name, value):
    return lambda _, sent: setattr(sent, name, value)


def sent_by(send):
    """Sent so, which gets the endpoint and its bytes."""

    def instead(endpoint, sent):
        whole = bytes(sent.write())
        endpoint.tls._handshake_hash.update(whole)
        send(endpoint, whole)
        return []

    return instead


in_the_clear = sent_by(lambda endpoint, whole: endpoint.clear(clear_record(HANDSHAKE, whole)))
named_handshake_outside = sent_by(
    lambda endpoint, whole: endpoint.seal(whole + bytes([HANDSHAKE]), HANDSHAKE)
)


def padded(padding):
    return sent_by(lambda endpoint, whole: endpoint.record(HANDSHAKE, whole, padding))


def in_pieces(length, between=lambda endpoint: None):
    def send(endpoint, whole):
        for start in range(0, len(whole), length):
            if start > 0:
                between(endpoint)
            endpoint.record(HANDSHAKE, whole[start : start + length])

    return sent_by(send)


def flipped(bytes_, at=-1):
    with_a_bit_changed = bytearray(bytes_)
    with_a_bit_changed[at] ^= 1
    return bytes(with_a_bit_changed)


def longer(bytes_):
    return bytes_ + b"\0"


def shorter(bytes_):
    return bytes_[:-1]


# How a ClientHello is changed.


def extension(kind, content):
    """This extension at the end, and no other of its type; None for none at all."""

    def change(_, hello):
        hello.extensions = [it for it in hello.extensions if it.extType != kind]
        if content is not None:
            hello.extensions.append(TLSExtension(extType=kind).create(kind, bytearray(content)))

    return change


def extensions(count, length):
    """So many that nobody knows, of that length."""

    def change(_, hello):
        for kind in range(0x4000, 0x4000 + count):
            hello.extensions.append(TLSExtension(extType=kind).create(kind, bytearray(length)))

    return change


def shares(*entries):
    """These key shares, each a group and a key; None stands for the one there was."""

    def change(_, hello):
        its = hello.getExtension(SHARES)
        own = its.client_shares[0]
        its.client_shares = [
            own if it is None else KeyShareEntry().create(int.from_bytes(it[0], "big"), it[1])
            for it in entries
        ]

    return change


def suites(*numbers):
    def change(_, hello):
        hello.cipher_suites = list(numbers) + hello.cipher_suites

    return change


def retried(change_of_second=lambda endpoint, hello: None):
    """A ClientHello without a share, and this change of the one behind the HelloRetryRequest."""

    def change(endpoint, hello):
        if endpoint.tls.was_retried:
            return change_of_second(endpoint, hello)
        return shares()(endpoint, hello)

    return change


def old_hello(version):
    """A ClientHello of a TLS before 1.3, which is all it knows."""
    name = b"\0\0" + vector(2, vector(2, b"\0" + vector(2, b"hello")))
    known = name + b"\0\x0a" + vector(2, vector(2, X25519))
    known += b"\0\x0d" + vector(2, vector(2, ED25519))
    hello = bytes(version) + bytes(32) + b"\0" + vector(2, b"\xc0\x2b") + vector(1, b"\0")
    return clear_record(HANDSHAKE, handshake(CLIENT_HELLO, hello + vector(2, known)), b"\x03\x01")


# How Certificate and CertificateVerify are changed.


def signature(change):
    def changed_signature(_, verify):
        verify.signature = bytearray(change(bytes(verify.signature)))

    return changed_signature


def signs(sign):
    """At Certificate: the endpoint will sign so, which gets what signs and what is to be signed."""

    def change(endpoint, _):
        own = endpoint.key.hashAndSign
        endpoint.key.hashAndSign = lambda signed, *_: bytearray(sign(own, bytes(signed)))
        endpoint.key.hashAndVerify = lambda *_: True

    return change


def of_a_stranger(_, signed):
    return SigningKey.generate(curve=Ed25519).sign(signed)


def of_a_server(own, signed):
    assert b"TLS 1.3, client" in signed
    return own(bytearray(signed.replace(b"TLS 1.3, client", b"TLS 1.3, server")))


def of_another_transcript(own, signed):
    return own(bytearray(flipped(signed)))


def of_another_session(_, __):
    assert Endpoint.last_signature
    return Endpoint.last_signature


def certificate(der):
    """A Certificate with this one alone (4.4.2)."""
    return body(lambda _: b"\0" + vector(3, vector(3, der), vector(2)))


def with_extension(kind, content):
    """The first certificate alone, with an extension that nobody asked for."""

    def change(whole):
        der = whole[7 : 7 + int.from_bytes(whole[4:7], "big")]
        return b"\0" + vector(3, vector(3, der), vector(2, kind + vector(2, content)))

    return body(change)


def is_asked_for_ed25519(endpoint, _):
    request = endpoint.tls.certificate_request
    assert not request.certificate_request_context, "that of a handshake is empty"
    assert request.supported_signature_algs == [tuple(ED25519)]
