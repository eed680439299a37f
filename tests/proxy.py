"""A line between a service and its broker (or any other TCP server), which can be cut, refused, stalled or made lossy."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

CHUNK = 65536


class Proxy:
    """Passes on whatever comes to `port` to a port of this machine, and back.

    It listens from its making on, and its state counts for the connections that stand as well as for later ones:

    - `cut()` ends all connections at once; later ones are not affected;
    - `refuse()`: nobody listens (connection refused), until `accept()`; what stands is left alone;
    - `slam()`: connections are taken and ended at once, until `accept()`; what stands is left alone;
    - `black_hole()`: connections are taken and stand, but no byte and no end passes, either way, until `resume()`;
    - `hold_answers()`: the same for the way from the server to the client only.

    What is held back by the last two is passed on by `resume()`, and lost by `cut()`.
    """

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self.connections = 0  # taken so far, the slammed ones included: a client's attempts
        self.held_questions = 0  # bytes that have come in from clients and wait here
        self._target = host, target_port
        self._open: set[_Line] = set()
        self._changed = threading.Condition()
        self._holds_questions = self._holds_answers = self._slams = False
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._is_listening = False
        self.accept()

    def accept(self) -> None:
        self._slams = False
        if not self._is_listening:
            self._is_listening = True
            self._listener.listen(128)
            threading.Thread(target=self._take_connections, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        self._stop_listening()
        self._listener = _bound(self.port)  # bound and not listening: nobody else gets the port meanwhile

    def slam(self) -> None:
        self.accept()
        self._slams = True

    def cut(self) -> None:
        with self._changed:
            lines, self._open = self._open, set()
            for line in lines:
                line.is_cut = True
            self._changed.notify_all()
        for line in lines:
            line.hang_up()

    def black_hole(self) -> None:
        self._hold(questions=True, answers=True)

    def hold_answers(self) -> None:
        self._hold(questions=False, answers=True)

    def resume(self) -> None:
        self._hold(questions=False, answers=False)

    def close(self) -> None:
        self._stop_listening()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hold(self, *, questions: bool, answers: bool) -> None:
        with self._changed:
            self._holds_questions, self._holds_answers = questions, answers
            self._changed.notify_all()

    def _stop_listening(self) -> None:
        if self._is_listening:
            self._is_listening = False
            hang_up(self._listener)  # or accept() would go on waiting
        self._listener.close()

    def _take_connections(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            if self._slams:
                client.close()
                continue
            line = _Line(client)
            with self._changed:
                self._open.add(line)
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: _Line) -> None:
        try:
            # Not before bytes may pass: a black hole hides the very attempt.
            if self._may_pass(line, is_answer=False) and line.connect(self._target):
                answers = threading.Thread(target=self._pass_on, args=(line, True), daemon=True)
                answers.start()
                self._pass_on(line, False)
                answers.join()
        finally:
            with self._changed:
                self._open.discard(line)
            line.close()

    def _pass_on(self, line: _Line, is_answer: bool) -> None:
        source, target = (line.server, line.client) if is_answer else (line.client, line.server)
        assert source is not None
        assert target is not None
        data = b"-"
        with contextlib.suppress(OSError):
            while data:
                data = _received(source)
                self.held_questions += 0 if is_answer else len(data)
                may_pass = self._may_pass(line, is_answer=is_answer)
                self.held_questions -= 0 if is_answer else len(data)
                if not may_pass:
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _may_pass(self, line: _Line, *, is_answer: bool) -> bool:
        """Wait until bytes may pass; false when the line was cut meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: line.is_cut or not self._holds(is_answer))
            return not line.is_cut

    def _holds(self, is_answer: bool) -> bool:
        return self._holds_answers if is_answer else self._holds_questions


class _Line:
    """One connection from a client, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.is_cut = False

    def connect(self, target: tuple[str, int]) -> bool:
        try:
            self.server = socket.create_connection(target, timeout=10)
        except OSError:
            return False
        self.server.settimeout(None)
        if self.is_cut:  # while connecting
            self.hang_up()
        return True

    def hang_up(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                hang_up(end)

    def close(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                end.close()


def hang_up(end: socket.socket) -> None:
    """Also wakes whoever waits for it in another thread, which closing does not."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _received(source: socket.socket) -> bytes:
    """Empty at the end, whichever way it came."""
    try:
        return source.recv(CHUNK)
    except OSError:
        return b""


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener
