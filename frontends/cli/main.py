"""The quern program: its arguments, and how everything that can go wrong is told."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from ... import __version__
from ...compiler.errors import QuernError, UsageError
from ...compiler.report import following
from .console import note_stage

DONE, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130

COMMANDS = (
    "compile",
    "run",
    "train",
    "draw",
    "explain",
    "summary",
    "profile",
    "bench",
    "export",
    "models",
)

_EPILOG = """\
SOURCE is FILE.py:NAME (a module class without arguments, a module, a function of tensors, a Graph
or a networkx graph), a network of the zoo (`quern models`), or a compiled FILE.qn.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. `quern COMMAND --help` tells more.
"""


class _Parser(argparse.ArgumentParser):
    """Tells of a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Arguments:
        arguments: those of the process by default.

    Returns:
        The exit code: 0 done, 1 the work failed, 2 the call was wrong, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    verbose = False
    try:
        _check_command(given)
        options = _parser().parse_args(given)
        if options.command is None:
            raise UsageError(f"give a command: {', '.join(COMMANDS)}; see quern --help")
        verbose = options.verbose
        with following(note_stage) if verbose else nullcontext():
            _command(options.command).run(options)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse, after --help and --version
        return stop.code if isinstance(stop.code, int) else DONE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Nobody reads on; nor shall the interpreter try to write what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        return _fail(*_told(error))
    return DONE


def _told(error: Exception) -> tuple[str, int]:
    """An error as one line, and the exit code."""
    match error:
        case UsageError(located=False):
            return str(error), WRONG_CALL
        case QuernError():
            return str(error), FAILED
        case MemoryError():
            return f"not enough memory: {error}" if str(error) else "not enough memory", FAILED
        case OSError(filename=str(name), strerror=str(reason)):
            return f"{name}: {reason}", FAILED
    text = f"{type(error).__name__}: {error}"
    return (
        f"this is a fault of quern itself, please report it with the output of -v: {text}",
        FAILED,
    )


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    with suppress(OSError):
        print(f"quern: {line}", file=sys.stderr, flush=True)
    return code


def _command(name: str) -> ModuleType:
    return import_module(f".{name}", __package__)


def _check_command(arguments: Sequence[str]) -> None:
    """A command that does not exist is told of here, with what it may have been meant to be."""
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name is None or name in COMMANDS:
        return
    close = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(COMMANDS)}"
    raise UsageError(f"there is no command {name!r}; {hint}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="quern",
        description="A graph compiler for neural networks on CPUs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"quern {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS:
        command = _command(name)
        part = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=f"{command.SUMMARY[0].upper()}{command.SUMMARY[1:]}.",
            allow_abbrev=False,
        )
        command.configure(part)
        part.add_argument(
            "-v", "--verbose", action="store_true", help="more about what is done, and how long"
        )
    return parser
