"""`main`: picks the verb, runs it, and turns every error into one line and an exit code.

0 done, 1 failed, 2 bad usage, 130 stopped by Ctrl-C. A verb's module is imported only when its verb
is called, because the time from start to first token counts; `--help` imports them all.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Iterable

import click

from octavo import __version__
from octavo.cli.command import Group
from octavo.cli.screen import LogLines, Screen
from octavo.cli.staying import staying
from octavo.errors import OctavoError, UsageError

VERBS = {  # verb: the module that registers it
    "run": "octavo.cli.run",
    "chat": "octavo.cli.chat",
    "serve": "octavo.cli.serve",
    "cache": "octavo.cli.cache",
    "batch": "octavo.cli.batch",
    "pull": "octavo.cli.models",
    "list": "octavo.cli.models",
    "rm": "octavo.cli.rm",
    "convert": "octavo.cli.convert",
    "inspect": "octavo.cli.inspect",
    "explain": "octavo.cli.explain",
    "plan": "octavo.cli.plan",
    "bench": "octavo.cli.bench",
    "simulate": "octavo.cli.simulate",
    "verify": "octavo.cli.verify",
}

_NO_THREAD = "can't start new thread"  # Python's words, of no error class of their own
_OUT_OF_MEMORY = (
    "out of memory: free some, or raise the limit (`ulimit -v`); `octavo plan` says what a model "
    "takes"
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # no file that is opened later must stand where streams of others are written to
    os.close(spare)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as in `octavo … >&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open while the process is)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal that is not UTF-8 shows ? for the rest
    # numpy's own threads compute nothing here, and where they cannot start it ends the process.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    logging.getLogger().addHandler(LogLines())
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """The command line as a function: its exit code, errors already said."""
    try:
        app = build_app(arguments[:1])
        code = _invoke(app, arguments or ["--help"])
        sys.stdout.flush()
    except click.ClickException as error:
        return _fail(_usage_line(error, arguments), error.exit_code, arguments)
    except UsageError as error:
        return _fail(_as_typed(str(error), arguments), 2, arguments)
    except OctavoError as error:
        return _fail(str(error), 1, arguments)
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        return _fail(_OUT_OF_MEMORY, 1, arguments)
    except ImportError as error:  # a library that is missing or damaged, or finds no memory
        return _fail(
            f"a part of Octavo does not load ({_first_cause(error)}): free memory or raise its "
            "limit (`ulimit -v`), else install Octavo again",
            1,
            arguments,
        )
    except RuntimeError as error:
        if _NO_THREAD not in str(error):
            raise
        return _fail(f"{_NO_THREAD}: raise the limits (`ulimit -u`, `ulimit -v`)", 1, arguments)
    except BrokenPipeError:
        _drop_output()  # the reader has gone, as in `octavo run … | head`
        return 1
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _fail(_OUT_OF_MEMORY, 1, arguments)
        _drop_output()  # it may be what could not be written, as on a full disk
        where = "the output" if error.filename is None else error.filename
        return _fail(f"cannot read or write {where}: {error.strerror or error}", 1, [])
    return code


def _invoke(app: Group, arguments: list[str]) -> int:
    """Not `app.main`, which says a word of its own where Ctrl-C ends it."""
    try:
        with app.make_context("octavo", arguments) as context:
            app.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def build_app(verbs: Iterable[str]) -> Group:
    """The app with the verbs asked for; with all of them where one is not known (help, a typo)."""
    app = Group(
        "octavo",
        help="Run language models on CPUs around an exact KV cache.",
        params=[VERSION],
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    wanted = [verb for verb in verbs if verb in VERBS] or list(VERBS)
    with staying():
        modules = {VERBS[verb]: importlib.import_module(VERBS[verb]) for verb in wanted}
    for module in modules.values():
        module.register(app)
    return app


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        Screen(as_json=False).say(f"octavo {__version__}")
        context.exit()


VERSION = click.Option(
    ["--version"],
    help="Print the version.",
    callback=_print_version,
    is_flag=True,
    is_eager=True,
    expose_value=False,
)


def _as_typed(message: str, arguments: list[str]) -> str:
    """`message`, but --top-k 9 where the library says top_k=9 of an option that was typed."""
    name, equals, rest = message.partition("=")
    flag = f"--{name.replace('_', '-')}"
    typed = flag in (argument.partition("=")[0] for argument in arguments)
    return f"{flag} {rest}" if equals and typed else message


def _usage_line(error: click.ClickException, arguments: list[str]) -> str:
    verb = f"octavo {arguments[0]}" if arguments[0] in VERBS else "octavo"
    wrong = " ".join(error.format_message().split()).removesuffix(".")
    line = f"{wrong}; `{verb} --help` lists what there is"
    return f"{line}; {hint}" if arguments[0] == "run" and (hint := _prompt_hint(error)) else line


def _prompt_hint(error: click.ClickException) -> str | None:
    """Say what helps where a part of the prompt was taken for something else."""
    option = getattr(error, "option_name", "")
    if option and (" " in option or not option.startswith("--")):
        return "if the prompt begins with it, put -- before the prompt"
    if "unexpected extra argument" in error.format_message():
        return "a prompt of several words needs quotes around it"
    return None


def _first_cause(error: BaseException) -> str:
    """A library may wrap the reason in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def _drop_output() -> None:
    """Drop what Python still holds for stdout, which it writes when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int, arguments: list[str]) -> int:
    """Write one line on stderr, and with --json an object in the place of the result."""
    screen = Screen("--json" in arguments)
    with contextlib.suppress(OSError):  # stderr may be closed; the exit code still tells
        screen.error(message)
    with contextlib.suppress(OSError):
        screen.result({"error": message, "exit_code": code})
    return code
