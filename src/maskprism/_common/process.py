"""The process around a command: its streams, its signals, and how it ends."""

from __future__ import annotations

import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from maskprism._common.text import brief, one_line, single_line
from maskprism.errors import MaskprismError

FAILED = 1
INTERRUPTED = 130
REPORT_TO = "https://github.com/maskprism/maskprism/issues"
_NO_MEMORY = ("nsufficient memory", "bad_alloc", "bad allocation", "map segment")
"""What libraries that raise no MemoryError say: OpenCV, C++, and the system where a library is loaded."""
_SAME_INTERRUPT_S = 0.3
"""Signals closer than this are one Ctrl-C: the terminal sends one, and programs that start others pass it on."""


def run_command(name: str, function: Callable[[], int], *, resumes: str = "") -> int:
    """Run a command and give its exit code, whatever happens: every failure ends in one line on stderr.

    The first Ctrl-C raises KeyboardInterrupt and calls what `at_interrupt` was given, a second one ends the process at
    once, native code that never returns included. What is printed has no control or format characters; see
    `PrintableStream`.

    Parameters
    ----------
    name
        The name of the program, before each message.
    function
        The command; gives its exit code.
    resumes
        What to do after an interruption, added to the message.

    Returns
    -------
    int
        The exit code.
    """
    _open_standard_streams()
    _drop_columns()
    with _printable_streams() as stdout, _ending_at_second_interrupt(name):
        try:
            status = function()
            stdout.flush()
        except MaskprismError as error:
            return _fail(name, str(error))
        except KeyboardInterrupt:
            return _interrupted(name, resumes)
        except OSError as error:  # a full disk, a name that is too long, a folder of another user
            where = "" if error.filename is None else f"{brief(os.fsdecode(error.filename), 120)}: "
            return _fail(name, where + (error.strerror or one_line(error)))
        except Exception as error:
            if _came_of_interrupt(error):
                return _interrupted(name, resumes)
            return _fail(name, report_of(name, error))
        return FAILED if stdout.unread else status


def report_of(name: str, error: Exception) -> str:
    """Return what to say of an error that no command expects; its traceback goes into a file.

    Parameters
    ----------
    name
        The name of the program.
    error
        The error.

    Returns
    -------
    str
        One line: what happened, where the traceback is, and where to report it.
    """
    kept = ""
    with suppress(OSError, MemoryError):
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{name}-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{sys.argv}\nPython {platform.python_version()} on {platform.platform()}\n")
            traceback.print_exception(error, file=file)
        kept = file.name
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        told = f"out of memory ({brief(one_line(error), 200)}); give it fewer or smaller images at once"
        return told + (f". If that does not help, report it at {REPORT_TO} with {kept}" if kept else "")
    told = f"unexpected {type(error).__name__}: {brief(one_line(error), 200)}"
    return f"{told}; please report it at {REPORT_TO}" + (f" with the traceback in {kept}" if kept else "")


class PrintableStream:
    """A text stream that escapes control and format characters of whatever is printed.

    One call of `print` is one line: a line end inside of it comes from a foreign name.
    Once its reader has gone, as after `| head`, what is printed is discarded: the command still writes its files.
    `rich` looks for `rich_proxied_file` and writes its own control codes there; the texts that it draws are escaped by
    `cli.output.TerminalConsole`.

    Attributes
    ----------
    unread
        Whether that has happened.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self.unread = False

    def write(self, text: str) -> int:
        """Write a text with its control and format characters as escapes; line ends stay at its end alone."""
        line = text.rstrip("\n")
        with self._discarding():
            self.rich_proxied_file.write(single_line(line) + text[len(line) :])
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        with self._discarding():
            self.rich_proxied_file.flush()

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.unread = True
            _discard(self.rich_proxied_file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def _printable_streams() -> Iterator[PrintableStream]:
    streams: list[Any] = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # of letters that the terminal's encoding lacks
        streams.append(PrintableStream(stream))
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        yield streams[0]


@contextmanager
def _ending_at_second_interrupt(name: str) -> Iterator[None]:
    """Python's own handlers wait until native code returns, so a thread hears of signals through a socket."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, name), name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writing.close()


def at_interrupt(stop: Callable[[], None]) -> None:
    """Have a function called, in a thread of its own, at the first Ctrl-C of a command: it stops native code.

    Parameters
    ----------
    stop
        The function.
    """
    _stops.append(stop)


_stops: list[Callable[[], None]] = []


def _watch(reading: socket.socket, name: str) -> None:
    first = 0.0
    with reading:
        while arrived := reading.recv(64):
            if signal.SIGINT not in arrived:
                continue
            if not first:
                first = time.monotonic()
                for stop in _stops:
                    stop()
            elif time.monotonic() - first > _SAME_INTERRUPT_S:
                cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
                with suppress(OSError):
                    os.write(2, cursor + f"\n{name}: interrupted twice; ended at once\n".encode())
                os._exit(INTERRUPTED)


def _open_standard_streams() -> None:
    """Put the null device in the place of streams that are closed; files of ours would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _drop_columns() -> None:
    """A terminal width that is no width is taken as not given."""
    columns = os.environ.get("COLUMNS", "")
    if not columns.isascii() or not columns.isdigit() or int(columns) < 1:
        os.environ.pop("COLUMNS", None)


def _came_of_interrupt(error: BaseException | None) -> bool:
    """Whether an error was raised while a KeyboardInterrupt passed through, as by a lock that it left half taken."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _interrupted(name: str, resumes: str) -> int:
    _fail(name, "interrupted" + (f"; {resumes}" if resumes else ""))
    return INTERRUPTED


def _fail(name: str, message: str) -> int:
    with suppress(OSError):
        sys.stderr.write(f"{name}: {single_line(message)}\n")
    try:
        sys.stdout.flush()
    except OSError:  # Python would try again at its end, and complain
        _discard(sys.stdout)
    return FAILED


def _discard(stream: TextIO) -> None:
    """Write what is in a stream, and all that is to come, to nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
