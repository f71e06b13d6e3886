"""Runs the fuzzing client of autobahntestsuite, a program for Python 2, under this Python and Debian's autobahn.

    fuzzing_client.py FOLDER SPEC.json

FOLDER is where pip put the suite, SPEC what `wstest -m fuzzingclient` takes. Its reports are as it writes them. Nothing of
the suite is changed: what it wants from Python 2 gives python2.py, what it wants from the autobahn of its time is
below.
"""
import binascii
import codecs
import importlib.metadata
import io
import json
import os
import sys
import traceback
import types

import autobahn.twisted.websocket
import autobahn.websocket.compress
import autobahn.websocket.protocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet import reactor

import python2
from python2 import octets, text

SUITE = "autobahntestsuite"


def module(name, **members):
    """A module for the suite to import in place of another."""
    made = types.ModuleType(name)
    vars(made).update(members)
    sys.modules[name] = made
    return name


class Utf8Validator:
    """autobahn's, by Python's decoder: a hundred times as fast, and the compression cases have gigabytes to look at."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, string):
        """Whether it is valid so far, and ends with a character's end; where it is not is told to nobody here."""
        try:
            self.decoder.decode(octets(string))
        except UnicodeDecodeError:
            return False, False, 0, 0
        return True, not self.decoder.getstate()[0], 0, 0


class ReportFile(io.FileIO):
    """A report: the suite writes what it has encoded and what it has not."""

    def write(self, data):
        return super().write(data.encode("utf-8") if isinstance(data, str) else data)


def shown(data, maxlen=64, replace=False):
    """A payload as reports show it: as text if it is some."""
    start = octets(data)[:maxlen]
    ellipsis = " ..." if len(data) > maxlen else ""
    try:
        return start.decode("utf-8", "replace" if replace else "strict") + ellipsis
    except UnicodeDecodeError:
        return "0x" + start.hex() + ellipsis


class DeflateOffer(autobahn.websocket.compress.PerMessageDeflateOffer):
    def __init__(self, requestNoContextTakeover=False, requestMaxWindowBits=0):
        super().__init__(request_no_context_takeover=requestNoContextTakeover,
                         request_max_window_bits=requestMaxWindowBits)
        self.requestNoContextTakeover = requestNoContextTakeover
        self.requestMaxWindowBits = requestMaxWindowBits


class ExactTimer:
    call_later = staticmethod(reactor.callLater)


class ClientFactory(autobahn.twisted.websocket.WebSocketClientFactory):
    def __init__(self, debug, debugCodePaths):
        super().__init__()
        # autobahn's own rounds to whole seconds, down: of the second that a server has for its close it may leave nothing.
        self._batched_timer = ExactTimer


def load(folder):
    """The suite's module `fuzzing`, its client on this autobahn."""
    suite_folder = os.path.join(folder, SUITE)
    websocket = {name: getattr(autobahn.twisted.websocket, name)
                 for name in ("connectWS", "listenWS", "WebSocketServerFactory", "WebSocketServerProtocol",
                              "WebSocketClientProtocol")}
    replaced = {
        "json": module("suite_json", dumps=lambda object_, **how: json.dumps(object_, default=text, **how)),
        "binascii": module("suite_binascii", b2a_hex=lambda string: text(binascii.b2a_hex(octets(string))),
                           hexlify=lambda string: text(binascii.b2a_hex(octets(string)))),
        "pkg_resources": module("suite_resources",
                                resource_filename=lambda _package, path: os.path.join(suite_folder, path)),
        "autobahn.websocket.utf8validator": module("suite_validator", Utf8Validator=Utf8Validator),
        "autobahn.websocket.compress": module(
            "suite_compress", PerMessageDeflateOffer=DeflateOffer,
            PerMessageDeflateResponse=autobahn.websocket.compress.PerMessageDeflateResponse,
            PerMessageDeflateResponseAccept=autobahn.websocket.compress.PerMessageDeflateResponseAccept),
        "autobahn.twisted.websocket": module("suite_websocket", WebSocketClientFactory=ClientFactory, **websocket),
        # Of these it uses nothing in a client: `jinja2` is for another kind of report, `implements` for a case that is off.
        "jinja2": module("suite_jinja2"),
        "zope.interface": module("suite_interface", implements=lambda _interface: None, Interface=object,
                                 Attribute=lambda _help: None, implementer=lambda _interface: lambda a_class: a_class),
    }
    package = python2.with_package(SUITE, suite_folder, replaced)
    package.version = next(each.version for each in importlib.metadata.distributions(name=SUITE, path=[folder]))
    autobahn.websocket.protocol.Utf8Validator = Utf8Validator
    from autobahntestsuite import fuzzing
    from autobahntestsuite.case.case import Case
    # It compared pickles, which in Python 3 differ for equal objects.
    Case.compare = lambda self, one, other: one == other
    fuzzing.FuzzingClientProtocol = client_class(fuzzing.FuzzingClientProtocol)
    fuzzing.FuzzingClientFactory = factory_class(fuzzing.FuzzingClientFactory)
    fuzzing.asciiLogData = shown
    fuzzing.open = ReportFile
    return fuzzing


def client_class(suites):
    class Client(suites):
        """Stands between the suite, whose strings are text, and autobahn, whose strings are bytes."""

        debug = False

        # ---- from the suite to autobahn ----

        def sendFrame(self, opcode, payload=b"", **options):
            super().sendFrame(opcode, octets(payload), **options)

        def sendMessage(self, payload, isBinary=False, **options):
            if self.state == WebSocketProtocol.STATE_OPEN:  # autobahn now raises; it said nothing
                super().sendMessage(octets(payload), isBinary, **options)

        def sendMessageFrameData(self, payload, sync=False):
            return super().sendMessageFrameData(octets(payload), sync)

        def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
            super().sendCloseFrame(code, octets(reasonUtf8), isReply)

        def failConnection(self):
            self._fail_connection()

        # ---- from autobahn to the suite ----

        def onMessage(self, payload, isBinary):
            # The compression cases are written for Python 3's bytes as well.
            super().onMessage(payload if hasattr(self.runCase, "TESTDATA") else text(payload), isBinary)

        def onPong(self, payload):
            super().onPong(text(payload))

        def logRxOctets(self, data):
            super().logRxOctets(text(data))

        def logTxOctets(self, data, sync):
            super().logTxOctets(text(data), sync)

        def logRxFrame(self, frameHeader, payload):
            super().logRxFrame(frameHeader, [text(part) for part in payload])

        def logTxFrame(self, frameHeader, payload, repeatLength, chopsize, sync):
            super().logTxFrame(frameHeader, text(payload), repeatLength, chopsize, sync)

        def connectionLost(self, reason):
            self.localCloseReason = text(self.localCloseReason)
            super().connectionLost(reason)

    return Client


def factory_class(suites):
    class Factory(suites):
        """Goes on from case to case, and at the end writes the reports: an error there would be a wait without end."""

        def clientConnectionLost(self, connector, reason):
            try:
                super().clientConnectionLost(connector, reason)
            except BaseException:
                traceback.print_exc()
                os._exit(1)

    return Factory


def main():
    folder, spec = sys.argv[1:]
    fuzzing = load(os.path.abspath(folder))
    with open(spec, encoding="utf-8") as file:
        fuzzing.startClient(json.load(file))
    reactor.run()


if __name__ == "__main__":
    main()
