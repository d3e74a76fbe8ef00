"""The command `hadas`: a command line becomes a call of a function of `hadas_jax.commands`.

Signatures and docstrings of these functions are all that is known of flags. What a function takes by position is
positional, except for `output`, which is `-o`; every other parameter is a flag, and so is every field of its settings.
Settings given by flags are laid over those of a file (`--config`) or of the run to continue (`--resume`).

JAX is imported by what a command calls and not before, so that help is quick.
"""

import ast
import collections.abc
import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import logging
import operator
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypedDict

import docstring_parser
import tyro
from tyro.extras import SubcommandApp

from hadas_jax import commands
from hadas_jax.commands import dnas
from hadas_jax.commands.run import settings_from
from hadas_jax.settings import expand_home

COMMANDS: dict[str, Callable[..., Any]] = {
    "search": commands.search,
    "select": commands.select_network,
    "show": commands.show_network,
    "operating-points": commands.operating_points,
    "materialise": commands.materialise_network,
    "fine-tune": commands.fine_tune,
    "export": commands.export,
    "price": commands.price,
    "exits": commands.exits,
    "runs": commands.list_runs,
    "report": commands.report,
    "train": commands.train,
    "import-checkpoint": commands.import_checkpoint,
    "data prepare": commands.prepare,
    "devices list": commands.list_devices,
    "devices show": commands.show_device,
    "devices kit": commands.write_kit,
    "devices profile": commands.profile_machine,
    "devices blocks": commands.write_blocks,
    "devices fit": commands.fit_device,
    "devices check": commands.check_front,
    "dnas search": dnas.search,
    "dnas retrain": dnas.retrain,
    "dnas sample": dnas.sample,
    "dnas fit-predictor": dnas.fit,
    "dnas import-predictor": dnas.import_published,
    "dnas price": dnas.price,
    "bench": commands.bench,
}
SHELLS = ("bash", "zsh", "fish")
_SETTINGS, _CONSOLE = "settings", "console"  # parameters: what --config and --resume fill in; what has no flag
_POSITIONAL_SETTINGS = ("network", "model")  # what fine-tuning and exits begin with
# Flags that are called otherwise than their parameters.
_SINGULAR = {"predictors": "predictor", "devices": "device", "workdirs": "workdir", "folders": "folder"}


@dataclass(frozen=True)
class _Flag:
    """A parameter of a function, or a setting, on the command line."""

    name: str
    kind: Any
    default: Any  # `inspect.Parameter.empty`: it is required
    help: str
    is_positional: bool = False
    group: str = ""  # of a setting, in help
    parameter: str = ""  # that a setting belongs to

    @property
    def shown(self) -> str:
        """What a user calls it: --max-latency-ms, WORKDIR."""
        plain = _SINGULAR.get(self.name, self.name).replace("_", "-")
        return plain.upper() if self.is_positional else f"--{plain}"

    def annotation(self, names: dict[str, str]) -> Any:
        """Its type as tyro reads it; a setting of False, too, is told from one that was not given."""
        kind, markers = self.kind, [tyro.conf.Positional] if self.is_positional else []
        told: dict[str, Any] = {"help": _with_flags(self.help, names)}
        told["help_behavior_hint"] = _default_hint(self.default)
        if kind is bool and self.group:  # --x and --no-x, which turns off what a file turns on
            kind, told["default"] = bool | None, None
            markers.append(tyro.conf.DisallowNone)
        elif kind is bool:
            markers.append(tyro.conf.FlagCreatePairsOff)
        if self.is_positional:
            told["metavar"] = self.shown
        elif self.name in _SINGULAR:
            told["name"] = _SINGULAR[self.name]
        elif self.name == "output":
            told["aliases"] = ("-o",)
        return operator.getitem(Annotated, (kind, *markers, tyro.conf.arg(**told)))


_LOST = "start all processes again with --resume"
# Native code of JAX ends a process that has lost the first one, with a stack trace; nothing in Python can catch that.
# So what goes to standard error passes a process that makes one line of it.
_TRANSLATION = """
import sys
ended = False
for line in sys.stdin:
    if not ended:
        native = any(name in line for name in ("coordination_service", "preemption_sync_manager", "client.h:"))
        print(sys.argv[1] if native else line.rstrip(), file=sys.stderr, flush=True)
        ended = native or line.rstrip() == sys.argv[1]
"""

_CONFIG = _Flag("config", Path | None, None, "YAML or JSON file of settings; flags given beside it win.")


@dataclass(frozen=True)
class Command:
    """A function of `hadas_jax.commands` behind words of the command line."""

    name: str
    function: Callable[..., Any]

    @cached_property
    def documentation(self) -> docstring_parser.Docstring:
        """The docstring of the function."""
        return docstring_parser.parse(inspect.getdoc(self.function) or "")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The parameters whose fields are flags, with their classes."""
        return {name: kind for name, kind in self._kinds.items() if dataclasses.is_dataclass(kind)}

    @cached_property
    def flags(self) -> list[_Flag]:
        """All flags, those of settings included."""
        texts, found = _texts(self.documentation), []
        for name, parameter in self._parameters.items():
            kind = self._kinds[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found += _shared_flags(*typing.get_args(kind))
            elif name in self.settings:
                found += [*_setting_flags(kind, name, name), *([_CONFIG] if name == _SETTINGS else [])]
            else:
                by_position = parameter.kind is not inspect.Parameter.KEYWORD_ONLY and name != "output"
                found.append(_Flag(name, kind, parameter.default, texts[name], by_position))
        return found

    @cached_property
    def shown(self) -> dict[str, str]:
        """What a user calls each parameter and setting."""
        return {flag.name: flag.shown for flag in self.flags}

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.function).parameters
        return {name: parameter for name, parameter in parameters.items() if name != _CONSOLE}

    @cached_property
    def _kinds(self) -> dict[str, Any]:
        namespace = inspect.unwrap(self.function).__globals__
        return {name: _evaluated(parameter.annotation, namespace) for name, parameter in self._parameters.items()}

    def reader(self) -> Callable[..., dict[str, Any]]:
        """Returns a function that tyro can call: it has the flags as parameters and returns them by name."""

        def read(**given: Any) -> dict[str, Any]:
            return given

        parameters = {flag.name: (flag.annotation(self.shown), flag.default) for flag in self.flags if not flag.group}
        for group in dict.fromkeys(flag.group for flag in self.flags if flag.group):
            fields = {flag.name: flag.annotation(self.shown) for flag in self.flags if flag.group == group}
            settings = TypedDict(group, fields, total=False)  # type: ignore[misc]
            parameters[group] = (Annotated[settings, tyro.conf.OmitArgPrefixes], inspect.Parameter.empty)
        read.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
        read.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                for name, (annotation, default) in parameters.items()
            ]
        )
        read.__doc__ = _with_flags(self.documentation.description or "", self.shown)
        return read

    def parse(self, words: list[str]) -> Callable[[], Any]:
        """Returns the call that a command line stands for; ends the process where it cannot be read.

        Raises:
            ValueError: A setting that does not fit, or a run to resume that is not there.
        """
        given = _read(self.reader(), words, name=self.name)
        arguments: dict[str, Any] = {}
        values: dict[str, dict[str, Any]] = {name: {} for name in self.settings}
        for flag in self.flags:
            group = given[flag.group] if flag.group else given
            if not flag.group:
                arguments[flag.name] = group[flag.name]
            elif flag.name in group and not (flag.kind is bool and group[flag.name] is None):
                values[flag.parameter][flag.name] = group[flag.name]
        for name, kind in self.settings.items():
            if name == _SETTINGS:
                run = {each: arguments[each] for each in ("workdir", "resume")}
                arguments[name] = settings_from(kind, values[name], file=arguments.pop(_CONFIG.name), **run)
            else:
                arguments[name] = kind(**values[name])
        return partial(self.function, **arguments)

    def in_flags(self, message: str) -> str:
        """Returns a message of the library with the flags of the arguments that it begins with or quotes."""
        name = f"(?:{'|'.join(sorted(self.shown, key=len, reverse=True))})"
        leading = re.compile(rf"(?:^|(?<=: )){name}(?: and {name})*(?=: | [^:]*: )")
        renamed = leading.sub(lambda found: re.sub(name, lambda each: self.shown[each[0]], found[0]), message)
        return _with_flags(renamed, self.shown)


def _texts(documentation: docstring_parser.Docstring) -> dict[str, str]:
    """What a docstring says of each argument or attribute."""
    return {each.arg_name: " ".join((each.description or "").split()) for each in documentation.params}


@functools.cache
def _attribute_texts(kind: Any) -> dict[str, str]:
    """What a class says of each attribute that it has itself; kept, for its whole file is read for it."""
    return _texts(docstring_parser.parse_from_object(kind))


def _shared_flags(options: Any) -> list[_Flag]:
    """The flags of arguments that several functions take by the same name, of a TypedDict."""
    texts = _attribute_texts(options)
    kinds = {name: _readable(hint) for name, hint in typing.get_type_hints(options).items() if name != _CONSOLE}
    return [_Flag(name, kind, False if kind is bool else None, texts[name]) for name, kind in kinds.items()]


def _setting_flags(kind: Any, group: str, parameter: str) -> Iterator[_Flag]:
    """The flags of a class of settings, and of those nested in it."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= _attribute_texts(base)
    hints = typing.get_type_hints(kind)
    nested = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    for field in dataclasses.fields(kind):
        if field.name not in nested:
            is_positional = field.name in _POSITIONAL_SETTINGS
            hint, text = hints[field.name], texts[field.name]
            yield _Flag(field.name, hint, field.default, text, is_positional, group, parameter)
    for name, hint in nested.items():
        yield from _setting_flags(hint, name, parameter)


def _evaluated(annotation: str, namespace: dict[str, Any]) -> Any:
    """The type that an annotation stands for, without what only calls from Python can give."""
    arms, node = [], ast.parse(annotation, mode="eval").body
    while isinstance(node, ast.BinOp):
        arms.append(node.right)
        node = node.left
    kinds = []
    for arm in [node, *reversed(arms)]:
        with contextlib.suppress(NameError):  # imported for type checkers alone
            kinds.append(eval(ast.unparse(arm), namespace))
    return _readable(functools.reduce(operator.or_, kinds))


def _readable(kind: Any) -> Any:
    """A type as a command line has it: paths where they may be text, tuples for sequences, settings without None."""
    arms = typing.get_args(kind)
    if typing.get_origin(kind) is collections.abc.Sequence:
        return tuple[_readable(arms[0]), ...]  # type: ignore[misc]
    if not isinstance(kind, types.UnionType) and typing.get_origin(kind) is not typing.Union:
        return kind
    known = [_readable(arm) for arm in arms if not (arm is str and Path in arms)]
    return next(filter(dataclasses.is_dataclass, known), functools.reduce(operator.or_, known))


def _default_hint(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "(required)"
    if default is None or default is False or default in ((), ""):
        return ""
    return f"(default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def _with_flags(text: str, names: dict[str, str]) -> str:
    """A text with flags for the names of arguments in backticks."""
    return re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), text)


def _read(reader: Callable[..., dict[str, Any]], arguments: list[str], *, name: str) -> dict[str, Any]:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(reader, prog=f"hadas {name}", args=arguments)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(f"{_one_line(errors.getvalue())}; see hadas {name} --help")


def _one_line(box: str) -> str:
    """Returns the message of one of tyro's boxes in one line, with the flag that it takes for meant."""
    rows = "\n".join(re.sub(r"[│╭╮╰╯]", "", row).strip() for row in box.splitlines()[1:])
    parts = [" ".join(part.split()) for part in re.split(r"(?:^|\n)[-─]{3,}(?:\n|$)", rows)]
    message, *more = [part for part in parts if part]
    choice = re.fullmatch(r"invalid choice ('.*') for argument '(.*)'. Expected one of (.*)", message)
    if choice is not None:
        got, flag, known = choice[1], choice[2], ", ".join(re.findall(r"'([^']*)'", choice[3]))
        return f"{flag}: expected one of {known}, got {got}"
    near = re.match(r"Perhaps you meant: ([^\s,]+)", more[0]) if more else None
    return message.removeprefix("Error parsing ") + (f"; perhaps {near[1]} is meant" if near else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; exits with 2 after a user's mistake and one line on standard error."""
    if arguments is None:
        _use_utf8()
    _print_whatever_the_locale()
    words = [expand_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    _quieten()
    _use_compilation_cache()
    show: Callable[[str], str] = str
    try:
        command, flags = _find_command(words)
        show = command.in_flags
        if any(word.startswith("--coordinator") for word in flags):
            _translate_native_errors()
        code = getattr(command.parse(flags)(), "exit_code", 0)
    except ValueError as error:
        _fail(show(str(error)))
    except OverflowError:
        _fail("expected whole numbers of at most 63 bits, as --seed for one, got a larger one")
    except BrokenPipeError:  # whoever read, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: expected to be read or written, got: {error.strerror or error}")
    except KeyboardInterrupt:
        print("\nhadas: interrupted; search, train and devices profile go on with --resume", file=sys.stderr)
        _leave(130)
    except RuntimeError as error:
        from hadas_jax.backend import LostProcessError  # imports JAX

        if not isinstance(error, LostProcessError):
            raise
        print(f"hadas: {error}; {_LOST}", file=sys.stderr)
        _leave(1)
    else:
        if code:  # of a check that found what it looked for
            _leave(code)


def parse(arguments: Sequence[str]) -> Callable[[], Any]:
    """Returns the call that a command line stands for; ends the process where it cannot be read.

    Args:
        arguments: Words after `hadas`.

    Raises:
        ValueError: An unknown command, a setting that does not fit, or a run to resume that is not there.
    """
    command, flags = _find_command(arguments)
    return command.parse(flags)


def _find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Returns the command of a command line and the words after its name; prints help and completion itself.

    Raises:
        ValueError: There is no such command.
    """
    match list(words):
        case [] | ["-h" | "--help"]:
            _print_help("", list(COMMANDS), code=0 if words else 2)
        case ["--print-completion", *shell]:
            _print_completion(*shell)
        case [group, *rest] if any(name.startswith(f"{group} ") for name in COMMANDS):
            known = [name for name in COMMANDS if name.startswith(f"{group} ")]
            if rest in ([], ["-h"], ["--help"]):
                _print_help(f" {group}", known, code=0 if rest else 2)
            name, flags = f"{group} {rest[0]}", rest[1:]
        case [name, *flags]:
            known = list(COMMANDS)
    if name in COMMANDS:
        return Command(name, COMMANDS[name]), flags
    near = difflib.get_close_matches(name, known)
    others = [each for each in known if each not in near]
    raise ValueError(f"unknown command {name!r}: expected {', '.join([*near, *others])}; see hadas --help")


def _print_help(group: str, names: Sequence[str], *, code: int) -> NoReturn:
    """Prints the commands with the first lines of their docstrings."""
    print(f"usage: hadas{group} COMMAND ...\n")
    if not group:
        print("Hardware-aware search for dynamic neural networks: backbone, early exits and clocks together.\n")
    width = shutil.get_terminal_size().columns
    for name in names:
        lead, summary = f"  hadas {name:<24}", Command(name, COMMANDS[name]).documentation.short_description or ""
        print(
            textwrap.fill(
                summary, width=width, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False
            )
        )
    print("\nhadas COMMAND --help lists the settings of a command. Every command is a call of hadas_jax.commands too.")
    if not group:
        print(f"hadas --print-completion SHELL prints a script that completes commands: {', '.join(SHELLS)}.")
    sys.exit(code)


def _print_completion(shell: str = "bash", *ignored: str) -> NoReturn:
    """Prints a script for a shell that completes commands and flags."""
    if shell not in SHELLS:
        raise ValueError(f"--print-completion: expected one of {', '.join(SHELLS)}, got {shell!r}")
    groups = {"": SubcommandApp()}
    for name, function in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].command(SubcommandApp(), name=group)
        groups[group].command(name=last)(Command(name, function).reader())
    groups[""].cli(prog="hadas", args=["--tyro-print-completion", shell])
    sys.exit()


def _fail(message: str) -> NoReturn:
    print("hadas: error: " + re.sub(r"\s*\n\s*", " ", message.strip()), file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """Ends the process; one of several does not wait for the others, who may never come."""
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _translate_native_errors() -> None:
    """Sends standard error through a process of its own, which says of a lost process what `LostProcessError` does."""
    message = f"hadas: another process of the run is gone; {_LOST}"
    command = [sys.executable, "-I", "-S", "-c", _TRANSLATION, message]
    translator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert translator.stdin is not None
    os.dup2(translator.stdin.fileno(), 2)  # where native code writes
    translator.stdin.close()


def _use_utf8() -> None:
    """Starts the process again in Python's UTF-8 mode where the locale has another encoding.

    Paths, names of folders and whole arguments are then what they are on disk, whatever the locale; what is printed
    stays in the locale's encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower() == "utf-8":
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _print_whatever_the_locale() -> None:
    """Prints a question mark for what the locale's encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _quieten() -> None:
    """Keeps what libraries log out of a user's terminal; what matters of it is raised and printed in one line."""
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _use_compilation_cache() -> None:
    """Has JAX keep compiled code between runs in the user's cache folder, unless it was told where or not to."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "hadas_jax" / "compiled")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
