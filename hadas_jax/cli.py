"""The command `hadas`: messages and exit codes around `hadas_jax.cli_commands`."""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import jax
import tyro

from hadas_jax import commands
from hadas_jax.cli_commands import COMMANDS, RUNS, Command
from hadas_jax.methods.stored_settings import StoredSettings
from hadas_jax.parallel import LostProcessError, connect
from hadas_jax.paths import expand_home

GROUPS = ("devices", "data", "dnas")  # commands of two words
AnySettings = TypeVar("AnySettings", bound=StoredSettings)

_HELP = """Hardware-aware search for dynamic neural networks: backbone, early exits and clocks together.

    hadas search                      a whole run on handwritten digits, in a few minutes
    hadas search --workdir DIR --resume      continues an interrupted run
    hadas select WORKDIR              chooses a network of a finished search: --max-latency-ms, --prefer, ...
    hadas show WORKDIR                shows it: blocks, exits, clocks, who stops where
    hadas materialise WORKDIR         cuts it out of the supernet: weights of its own size, nothing masked
    hadas fine-tune NETWORK           trains its exits and classifier together, sets thresholds anew
    hadas export WORKDIR --format onnx       one segment for each exit, a manifest and a small runtime
    hadas operating-points WORKDIR    its best clocks for every deadline and power cap
    hadas runs                        lists work directories with their state
    hadas report WORKDIR              one HTML page about a run, or about several side by side
    hadas train --dataset npz:FILE    trains a supernet and its exits, for --checkpoint of a search
    hadas data prepare cifar100       downloads an image set once, with the extra tfds
    hadas import-checkpoint FILE -o DIR      makes a trained supernet of a PyTorch checkpoint
    hadas bench -o FILE.json          search throughput on this machine, beside pymoo where installed
    hadas devices list                the devices that come with the package
    hadas devices show NAME           a device's figures, where each comes from, its power modes
    hadas devices profile -o FILE.csv        measures networks on this machine
    hadas devices fit FILE.csv -o MY.yaml    makes a device of measurements
    hadas dnas search --hardware generic     searches a network of the DARTS space by gradient, for an accelerator
    hadas dnas sample -o FILE.npz     draws networks of the DARTS space and prices them on an FPGA
    hadas dnas fit-predictor FILE.npz -o P.npz      fits a differentiable predictor of throughput
    hadas dnas import-predictor FILE.pt -o P.npz    takes a published one of EH-DNAS
    hadas dnas price DARTS_V2         what a network costs: on an FPGA, by a predictor, on devices
    hadas dnas retrain --genotype DARTS_V2   trains a network of the DARTS space from scratch

hadas COMMAND --help lists the settings of a command. Every command is a call of the library too: see
hadas_jax.commands, select_commands, train_commands, import_commands and device_commands.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; exits with 2 after a user's mistake and one line on standard error."""
    if arguments is None:
        _use_utf8()
    _print_whatever_the_locale()
    arguments = [expand_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
        sys.exit(0 if arguments else 2)
    _quieten()
    try:
        _join(arguments)
        command = parse(arguments)
        _use_compilation_cache()
        command.run()
    except ValueError as error:
        _fail(str(error))
    except OverflowError:
        _fail("expected whole numbers of at most 63 bits, as --seed for one, got a larger one")
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: expected to be read or written, got: {error.strerror or error}")
    except LostProcessError as error:
        print(f"hadas: {error}; start all processes again with --resume", file=sys.stderr)
        _leave(1)
    except KeyboardInterrupt:
        print("\nhadas: interrupted; search, train and devices profile go on with --resume", file=sys.stderr)
        _leave(130)


def _join(arguments: list[str]) -> None:
    """Joins the processes of a run, which must come before anything else that JAX does."""
    coordinator = _value_of("--coordinator", arguments)
    numbers = [_value_of(flag, arguments) for flag in ("--num-processes", "--process-id")]
    if all(number is None or number.isdecimal() for number in numbers):  # others are for the parser to refuse
        connect(coordinator, *(None if number is None else int(number) for number in numbers))


def parse(arguments: list[str]) -> Command:
    """Returns the command of a command line, not run yet; it ends the process where the line cannot be read.

    Args:
      arguments: words after `hadas`, at least one.

    Raises:
      ValueError: an unknown command, a setting that does not fit, or a run to resume that is not there.
    """
    name, flags = _command(arguments)
    kind = COMMANDS[name]
    default: Command | None = None
    if kind in RUNS:  # flags are laid over a config file's settings, or over those of the run to resume
        default = kind(settings=_default_settings(flags, RUNS[kind]))  # type: ignore[call-arg]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(  # type: ignore[return-value]
                kind,
                prog=f"hadas {name}",
                args=flags,
                default=default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(_first_sentence(errors.getvalue()) + f"; see hadas {name} --help")


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """Splits the command's words from its flags."""
    words = arguments[:2] if arguments[0] in GROUPS else arguments[:1]
    name = " ".join(words)
    if name in COMMANDS:
        return name, arguments[len(words) :]
    known = [command for command in COMMANDS if command.split()[0] == words[0]] or list(COMMANDS)
    if words[0] in GROUPS and words[1:] in ([], ["-h"], ["--help"]):
        print(_HELP, end="")
        sys.exit(0 if len(words) > 1 else 2)
    raise ValueError(f"unknown command {name!r}: expected {', '.join(known)}; see hadas --help")


def _default_settings(flags: list[str], kind: type[AnySettings]) -> AnySettings:
    """Returns what flags are laid over: a config file's settings, or those of the run to resume."""
    config, workdir = _value_of("--config", flags), _value_of("--workdir", flags)
    if "--resume" in flags and workdir is not None:
        if config is not None:
            raise ValueError("--config and --resume: expected one of them, got both; a run keeps its settings")
        return commands.stored_settings(workdir, kind)
    if config is None:
        return kind()
    return commands.settings_file(config, kind)


def _value_of(flag: str, flags: list[str]) -> str | None:
    for index, word in enumerate(flags):
        if word == flag and index + 1 < len(flags):
            return flags[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def _first_sentence(box: str) -> str:
    """Returns the message of one of tyro's boxes in one line."""
    lines = [re.sub(r"[│╭╮╰╯]|-{3,}", "", line).strip() for line in box.splitlines()[1:]]
    lines = lines[next((i for i, line in enumerate(lines) if line), 0) :]
    end = next((i for i, line in enumerate(lines) if not line.strip("─ ")), len(lines))
    message = " ".join(lines[:end]).removeprefix("Error parsing settings: ")
    return message or "cannot read the command line"


def _fail(message: str) -> NoReturn:
    print("hadas: error: " + re.sub(r"\s*\n\s*", " ", message.strip()), file=sys.stderr)
    _leave(2)


def _leave(code: int) -> NoReturn:
    """Ends the process; one of several does not wait for the others, who may never come."""
    if jax.distributed.is_initialized():
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
    """Keeps compiled code between runs in the user's cache folder, unless JAX was told where or not to."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "hadas_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
