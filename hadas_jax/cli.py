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
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import docstring_parser
import tyro
from typing_extensions import TypedDict
from tyro.extras import SubcommandApp

from hadas_jax import commands
from hadas_jax.commands import dnas, dnas_costs
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
    "runs": commands.list_runs,
    "report": commands.report,
    "train": commands.train,
    "import-checkpoint": commands.import_checkpoint,
    "data prepare": commands.prepare,
    "devices list": commands.list_devices,
    "devices show": commands.show_device,
    "devices profile": commands.profile_machine,
    "devices fit": commands.fit_device,
    "dnas search": dnas.search,
    "dnas retrain": dnas.retrain,
    "dnas sample": dnas_costs.sample,
    "dnas fit-predictor": dnas_costs.fit,
    "dnas import-predictor": dnas_costs.import_published,
    "dnas price": dnas_costs.price,
    "bench": commands.bench,
}
SHELLS = ("bash", "zsh", "fish", "tcsh")
_SETTINGS = "settings"  # the parameter of a run, which --config and --resume fill in
_POSITIONAL_SETTINGS = ("network",)  # what fine-tuning begins with
# Flags that are called otherwise than their parameters.
_SINGULAR = {"predictors": "predictor", "devices": "device", "workdirs": "workdir", "folders": "folder"}
_CONFIG = "YAML or JSON file of settings; flags given beside it win."


@dataclass(frozen=True)
class _Flag:
    """A parameter of a function, or a setting, on the command line."""

    name: str
    kind: Any
    default: Any  # `inspect.Parameter.empty`: it is required
    help: str
    is_positional: bool

    @property
    def shown(self) -> str:
        """What a user calls it: --max-latency-ms, WORKDIR."""
        plain = _SINGULAR.get(self.name, self.name).replace("_", "-")
        return plain.upper() if self.is_positional else f"--{plain}"

    def annotation(self, names: dict[str, str], *, is_setting: bool) -> Any:
        """Its type as tyro reads it; a setting of False, too, is told from one that was not given."""
        kind, markers = self.kind, [tyro.conf.Positional] if self.is_positional else []
        told: dict[str, Any] = {
            "help": _with_flags(self.help, names),
            "help_behavior_hint": _default_hint(self.default),
        }
        if kind is bool and is_setting:  # --x and --no-x, which turns off what a file turns on
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


@dataclass(frozen=True)
class Command:
    """A function of `hadas_jax.commands` behind words of the command line."""

    name: str
    function: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @cached_property
    def flags(self) -> list[_Flag]:
        """Its flags, those of settings aside."""
        found = [flag for flag, _ in self._parameters if not dataclasses.is_dataclass(flag.kind)]
        if any(flag.name == _SETTINGS for flag, _ in self._parameters):
            found.append(_Flag("config", Path | None, None, _CONFIG, is_positional=False))
        return found

    @cached_property
    def settings(self) -> dict[str, tuple[Any, dict[str, list[_Flag]]]]:
        """By parameter, the class of its settings and their flags in groups."""
        kinds = {flag.name: flag.kind for flag, _ in self._parameters if dataclasses.is_dataclass(flag.kind)}
        return {name: (kind, dict(_setting_groups(kind, name))) for name, kind in kinds.items()}

    @cached_property
    def shown(self) -> dict[str, str]:
        """What a user calls each parameter and setting."""
        groups = [group for _, by_name in self.settings.values() for group in by_name.values()]
        return {flag.name: flag.shown for group in [self.flags, *groups] for flag in group}

    @cached_property
    def _parameters(self) -> list[tuple[_Flag, inspect.Parameter]]:
        function = inspect.unwrap(self.function)
        texts = _documented(docstring_parser.parse(inspect.getdoc(function) or ""))
        found = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "console":
                continue
            kind = _evaluated(parameter.annotation, function.__globals__)
            by_position = parameter.kind is not inspect.Parameter.KEYWORD_ONLY and name != "output"
            found.append((_Flag(name, kind, parameter.default, texts.get(name, ""), by_position), parameter))
        return found

    def reader(self) -> Callable[..., dict[str, Any]]:
        """Returns a function that tyro can call: it has the flags as parameters and returns them by name."""

        def read(**given: Any) -> dict[str, Any]:
            return given

        names = self.shown
        parameters = {flag.name: (flag.annotation(names, is_setting=False), flag.default) for flag in self.flags}
        for _, by_name in self.settings.values():
            for group, flags in by_name.items():
                fields = {flag.name: flag.annotation(names, is_setting=True) for flag in flags}
                kind = TypedDict(group, fields, total=False)  # type: ignore[misc]
                parameters[group] = (Annotated[kind, tyro.conf.OmitArgPrefixes], inspect.Parameter.empty)
        read.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
        read.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                for name, (annotation, default) in parameters.items()
            ]
        )
        read.__doc__ = _with_flags(docstring_parser.parse(inspect.getdoc(self.function) or "").description or "", names)
        return read

    def parse(self, arguments: list[str]) -> Callable[[], Any]:
        """Returns the call that a command line stands for; ends the process where it cannot be read.

        Raises:
            ValueError: A setting that does not fit, or a run to resume that is not there.
        """
        given = _read(self.reader(), arguments, name=self.name)
        for parameter, (kind, by_name) in self.settings.items():
            values = {name: value for group in by_name for name, value in given.pop(group).items()}
            values = {name: value for name, value in values.items() if not (value is None and _is_bool(name, by_name))}
            if parameter == _SETTINGS:
                given[parameter] = settings_from(
                    kind, values, file=given.pop("config"), workdir=given["workdir"], resume=given["resume"]
                )
            else:
                given[parameter] = kind(**values)
        return partial(self.function, **given)

    def in_flags(self, message: str) -> str:
        """Returns a message of the library with the flags of the arguments that it begins with or quotes."""
        names = "|".join(map(re.escape, sorted(self.shown, key=len, reverse=True)))
        pattern = re.compile(rf"((?:^|: )(?:(?:{names}) and )?)({names})(?=: | [^:]*: | and )")
        return _with_flags(pattern.sub(lambda found: found[1] + self.shown[found[2]], message), self.shown)


def _is_bool(name: str, by_name: dict[str, list[_Flag]]) -> bool:
    return any(flag.name == name and flag.kind is bool for group in by_name.values() for flag in group)


def _documented(docstring: docstring_parser.Docstring) -> dict[str, str]:
    return {each.arg_name: " ".join((each.description or "").split()) for each in docstring.params}


def _setting_groups(kind: Any, group: str) -> Iterator[tuple[str, list[_Flag]]]:
    """The flags of a class of settings, and of those nested in it, with the names of their groups."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        texts |= _documented(docstring_parser.parse_from_object(base))
    hints = typing.get_type_hints(kind)
    nested = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    own = [field for field in dataclasses.fields(kind) if field.name not in nested]
    yield (
        group,
        [
            _Flag(
                field.name,
                hints[field.name],
                field.default,
                texts.get(field.name, ""),
                is_positional=field.name in _POSITIONAL_SETTINGS,
            )
            for field in own
        ],
    )
    for name, hint in nested.items():
        yield from _setting_groups(hint, name)


def _evaluated(annotation: str, namespace: dict[str, Any]) -> Any:
    """The type that an annotation stands for, without what only calls from Python can give."""
    arms, node = [], ast.parse(annotation, mode="eval").body
    while isinstance(node, ast.BinOp):
        arms.append(node.right)
        node = node.left
    kinds = []
    for arm in [node, *reversed(arms)]:
        with contextlib.suppress(NameError):  # imported for type checkers alone
            kinds.append(_plain(eval(ast.unparse(arm), namespace)))
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            return kind
    return functools.reduce(operator.or_, [kind for kind in kinds if not (kind is str and Path in kinds)])


def _plain(kind: Any) -> Any:
    if typing.get_origin(kind) is collections.abc.Sequence:
        (each,) = typing.get_args(kind)
        return tuple[Path if isinstance(each, types.UnionType) else each, ...]  # type: ignore[misc]
    return kind


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
    near = re.match(r"Perhaps you meant: (\S+)", more[0]) if more else None
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
        command, flags = find_command(words)
        show = command.in_flags
        command.parse(flags)()
    except ValueError as error:
        _fail(show(str(error)))
    except OverflowError:
        _fail("expected whole numbers of at most 63 bits, as --seed for one, got a larger one")
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: expected to be read or written, got: {error.strerror or error}")
    except KeyboardInterrupt:
        print("\nhadas: interrupted; search, train and devices profile go on with --resume", file=sys.stderr)
        _leave(130)
    except RuntimeError as error:
        from hadas_jax.backend import LostProcessError  # imports JAX

        if not isinstance(error, LostProcessError):
            raise
        print(f"hadas: {error}; start all processes again with --resume", file=sys.stderr)
        _leave(1)


def parse(arguments: Sequence[str]) -> Callable[[], Any]:
    """Returns the call that a command line stands for; ends the process where it cannot be read.

    Args:
        arguments: Words after `hadas`.

    Raises:
        ValueError: An unknown command, a setting that does not fit, or a run to resume that is not there.
    """
    command, flags = find_command(arguments)
    return command.parse(flags)


def find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
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
        lead, summary = f"  hadas {name:<24}", Command(name, COMMANDS[name]).summary
        print(textwrap.fill(summary, width=width, initial_indent=lead, subsequent_indent=" " * len(lead)))
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
