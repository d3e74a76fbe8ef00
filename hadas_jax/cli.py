"""The command `hadas`: flags, messages and exit codes around `hadas_jax.commands`."""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import jax
import tyro
import yaml

from hadas_jax import commands
from hadas_jax.methods import Settings

_HELP = """Hardware-aware search for dynamic neural networks: backbone, early exits and clocks together.

    hadas search                      a whole run on handwritten digits, in a few minutes
    hadas search --help               its settings
    hadas search --workdir DIR --resume      continues an interrupted run
"""


@dataclass(frozen=True)
class Search:
    """Search dynamic networks with HADAS: train a supernet and its exits, search backbones, exits and clocks.

    Writes config.json, front.csv, front.json, levels.csv, front.png, metrics.jsonl and checkpoints/ into the work
    directory.
    """

    settings: tyro.conf.OmitArgPrefixes[Settings]
    workdir: Path | None = None
    """Where everything is written; by default runs/<time>-<dataset>-<device>."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue the run in --workdir, with its settings."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the run in --workdir."""
    config: Path | None = None
    """YAML or JSON file of settings; flags given beside it win."""

    def run(self) -> None:
        """Executes the command."""
        commands.search(self.settings, workdir=self.workdir, resume=self.resume, overwrite=self.overwrite)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command; exits with 2 after a user's mistake and one line on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP + "\nCommands: search. Every command is a call of the library too: hadas_jax.commands.search(...).")
        sys.exit(0 if arguments else 2)
    _quieten()
    try:
        command = _parse(arguments)
        _use_compilation_cache()
        command.run()
    except ValueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("\nhadas: interrupted; --workdir with --resume continues the run", file=sys.stderr)
        sys.exit(130)


def _parse(arguments: list[str]) -> Search:
    name, *flags = arguments
    if name != "search":
        raise ValueError(f"unknown command {name!r}: expected search; see hadas --help")
    default = _default_settings(flags)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                Search,
                prog="hadas search",
                args=flags,
                default=Search(settings=default),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(_first_sentence(errors.getvalue()) + "; see hadas search --help")


def _default_settings(flags: list[str]) -> Settings:
    """Returns what flags are laid over: a config file's settings, or those of the run to resume."""
    config, workdir = _value_of("--config", flags), _value_of("--workdir", flags)
    if "--resume" in flags and workdir is not None:
        if config is not None:
            raise ValueError("--config and --resume: expected one of them, got both; a run keeps its settings")
        return commands.stored_settings(workdir)
    if config is None:
        return Settings()
    try:
        content = yaml.safe_load(Path(config).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--config {config}: expected a YAML or JSON file of settings, cannot read it") from error
    return Settings.from_mapping(content, source=f"--config {config}")


def _value_of(flag: str, flags: list[str]) -> str | None:
    for index, word in enumerate(flags):
        if word == flag and index + 1 < len(flags):
            return flags[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def _first_sentence(box: str) -> str:
    """Returns the message of one of tyro's boxes in one line."""
    lines = [re.sub(r"[│╭╮╰╯]", "", line).strip() for line in box.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if not line.strip("─ ")), len(lines))
    message = " ".join(lines[:end]).removeprefix("Error parsing settings: ")
    return message or "cannot read the command line"


def _fail(message: str) -> NoReturn:
    print("hadas: error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


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
