"""What JAX computes on: the platform, its memory, and many devices of one host or several.

Every process of a run runs the same program on the same values. Rows of a population are spread over all devices, and
every process gets all the answers, so that whatever follows is the same everywhere. What is computed for a row depends
neither on the number of devices nor on the number of processes. Files are the first process's business alone, except
for the checkpoints of loops, which all processes write and read together.
"""

import contextlib
import json
import reprlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ResultT = TypeVar("ResultT")
_AXIS = "population"
_HEARTBEAT_S = 20  # after which a silent process is lost
_JOINING_S = 45  # that the first process and the others wait for each other
_NEVER_S = 10**6
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


def on_cpu() -> bool:
    """Whether JAX computes on a CPU by default; for sizes that suit it, not to be asked while tracing."""
    return jax.default_backend() == "cpu"


@contextlib.contextmanager
def memory_named(name: str, value: int, what: str) -> Iterator[None]:
    """Turns a failed allocation of JAX into an error that names the argument to lower.

    Args:
        name: Name of the argument, such as `batch`.
        value: Value that it has.
        what: What it counts, for the message.

    Raises:
        ValueError: The device has too little memory for it.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise ValueError(
            f"{name} {value}: expected a batch that fits into memory, got too little of it for {value} {what} at "
            f"once; use a smaller `{name}`"
        ) from error


class LostProcessError(RuntimeError):
    """Another process of the run is gone."""


def connect(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the processes of a run; to be called before JAX is used. Without arguments it does nothing.

    On SLURM, Open MPI and TPU pods, `coordinator="auto"` is enough: JAX finds out the rest.

    Args:
        coordinator: Host:port of the first process, the same for all; or "auto".
        num_processes: Of the run.
        process_id: Of this process, from 0.

    Raises:
        ValueError: Incomplete or impossible arguments, or the processes cannot be reached.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    if all(value is None for value in given.values()):
        return
    details: dict[str, Any] = {}
    if coordinator != "auto":
        if coordinator is None or num_processes is None or process_id is None:
            missing = next(name for name, value in given.items() if value is None)
            others = ", ".join(f"`{name}`" for name in given)
            raise ValueError(f"{missing}: expected with the other two of {others}, got none")
        if not coordinator.rpartition(":")[2].isdigit() or coordinator.startswith(":"):
            raise ValueError(f"coordinator: expected HOST:PORT or auto, got {coordinator!r}")
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise ValueError(
                f"process_id: expected 0 to {num_processes - 1} of `num_processes` {num_processes}, got {process_id}"
            )
        details = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}
    _join(coordinator, details)
    counts = Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise ValueError(f"devices: expected as many in every process, got {', '.join(map(str, counts.values()))}")


def _join(coordinator: str, details: dict[str, Any]) -> None:
    """Joins the run's processes, in a thread: JAX would end this process where it waits for the others in vain."""
    failures: list[Exception] = []

    def initialise() -> None:
        try:
            jax.distributed.initialize(
                **details, initialization_timeout=_NEVER_S, heartbeat_timeout_seconds=_HEARTBEAT_S
            )
        except Exception as error:  # whatever JAX and the cluster's environment raise
            failures.append(error)

    thread = threading.Thread(target=initialise, daemon=True)
    thread.start()
    thread.join(_JOINING_S)
    if thread.is_alive():
        raise ValueError(
            f"coordinator: expected all processes of the run to meet at {coordinator} within {_JOINING_S} seconds, got "
            "no answer; check the address, the network and the number of processes, and start all of them again"
        )
    if failures:
        reason = " ".join(str(failures[0]).split())
        raise ValueError(f"coordinator: cannot join the run's processes at {coordinator}: {reason}") from failures[0]


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return jax.process_index() == 0


def gather_json(value: Any) -> list[Any]:
    """Returns what every process passed, in the order of the processes; any value that JSON can hold.

    Raises:
        LostProcessError: Another process is gone.
    """
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = guarded(lambda: multihost_utils.process_allgather(np.int32(len(text)))).tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(text)] = text
    rows = guarded(lambda: multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row[:length])) for row, length in zip(rows, lengths, strict=True)]


def share_json(value: Any) -> Any:
    """Returns what the first process passed, to every process; any value that JSON can hold.

    Raises:
        LostProcessError: Another process is gone.
    """
    return gather_json(value)[0]


def require_same(what: str, values: dict[str, Any]) -> None:
    """Raises, in all processes, where one of them has another value than the first.

    Args:
        what: What the values are, in words for the error.
        values: Of this process, by the same names in all of them; such as JSON can hold.

    Raises:
        LostProcessError: Another process is gone.
        ValueError: They differ; the first difference is named.
    """
    first, *others = gather_json(values)
    for number, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                raise ValueError(
                    f"{what}: expected the same in all processes, got {name} {reprlib.repr(value)} in process 0 and "
                    f"{reprlib.repr(other[name])} in process {number}; start all of them alike"
                )


class RowMap:
    """A function of a block of rows, mapped over any number of rows, on all devices of all processes.

    Args:
        function: (rows, shared) -> result; rows and result are pytrees with a leading axis of `block` rows, shared is a
            pytree of arrays that is the same for all rows.
        block: Rows of one call on one device.

    Examples:
        >>> import numpy as np
        >>> from hadas_jax.backend import RowMap
        >>> RowMap(lambda rows, factor: rows * factor, block=2)(np.arange(5.0, dtype=np.float32), np.float32(3))
        array([ 0.,  3.,  6.,  9., 12.], dtype=float32)
    """

    def __init__(self, function: Callable[[Any, Any], Any], *, block: int = 1) -> None:
        devices = np.array(jax.devices())
        self._round = block * len(devices)
        mesh = Mesh(devices, (_AXIS,))
        split, everywhere = PartitionSpec(_AXIS), PartitionSpec()
        self._split, self._everywhere = NamedSharding(mesh, split), NamedSharding(mesh, everywhere)
        mapped = jax.shard_map(function, mesh=mesh, in_specs=(split, everywhere), out_specs=split, check_vma=False)
        self._run = jax.jit(mapped, out_shardings=self._everywhere)

    def place(self, shared: Any) -> Any:
        """Copies shared arrays to all devices once; calls then take the copy."""
        return place(shared, self._everywhere)

    def __call__(self, rows: Any, shared: Any) -> Any:
        """Returns the results of all rows as numpy arrays.

        Args:
            rows: Pytree of arrays with the same leading length, at least 1.
            shared: Pytree of arrays, best from `place`.

        Raises:
            LostProcessError: Another process is gone.
        """
        rows = jax.tree.map(np.asarray, rows)
        count = len(jax.tree.leaves(rows)[0])
        shared = self.place(shared)
        parts = []
        for start in range(0, count, self._round):
            # The last round is filled up, so that one compilation serves all.
            index = np.minimum(np.arange(start, start + self._round), count - 1)
            part = place(jax.tree.map(lambda leaf, index=index: leaf[index], rows), self._split)
            parts.append(guarded(partial(self._results, part, shared)))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)

    def _results(self, part: Any, shared: Any) -> Any:
        return jax.tree.map(np.asarray, self._run(part, shared))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Returns arrays as they lie on the devices of a sharding, of all processes; what lies there already stays.

    Args:
        tree: A pytree of arrays and typed PRNG keys, the same in all processes.
        sharding: Where they go.
    """

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        if jax.process_count() == 1:
            return jax.device_put(leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf), sharding)
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            return jax.jit(lambda key: key, out_shardings=sharding)(leaf)
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def on_one_device(tree: Any) -> Any:
    """Returns arrays that lie whole on every device of a run as arrays of this process's first device."""

    def local(leaf: Any) -> jax.Array:
        spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        return jnp.asarray(np.asarray(leaf) if spread else leaf)

    return jax.tree.map(local, tree)


def guarded(call: Callable[[], ResultT]) -> ResultT:
    """Calls, and gives a failure of the connection between processes its name.

    Raises:
        LostProcessError: Another process is gone.
    """
    try:
        return call()
    except Exception as error:  # gloo, NCCL and the coordination service raise what they like
        if jax.process_count() > 1 and any(word in str(error) for word in ("Gloo", "NCCL", "UNAVAILABLE", "closed")):
            raise LostProcessError("another process of the run is gone") from error
        raise
