"""Every command of `hadas` as a call; those of `hadas dnas` are in its module `dnas`."""

from hadas_jax.commands.any_network import exits, exits_of_stages, price
from hadas_jax.commands.benchmark import bench
from hadas_jax.commands.check import check_front
from hadas_jax.commands.devices import fit_device, list_devices, profile_machine, show_device, write_blocks, write_kit
from hadas_jax.commands.hadas import import_checkpoint, prepare, search, train
from hadas_jax.commands.networks import (
    export,
    fine_tune,
    materialise_network,
    operating_points,
    select_network,
    show_network,
)
from hadas_jax.commands.reports import list_runs, report
from hadas_jax.commands.run import Processes, RunArguments

__all__ = [
    "Processes",
    "RunArguments",
    "bench",
    "check_front",
    "exits",
    "exits_of_stages",
    "export",
    "fine_tune",
    "fit_device",
    "import_checkpoint",
    "list_devices",
    "list_runs",
    "materialise_network",
    "operating_points",
    "prepare",
    "price",
    "profile_machine",
    "report",
    "search",
    "select_network",
    "show_device",
    "show_network",
    "train",
    "write_blocks",
    "write_kit",
]
