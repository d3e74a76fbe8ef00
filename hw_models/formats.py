"""Number formats that a network can run in."""

import enum


class NumberFormat(enum.IntEnum):
    """Format of weights and activations; the value is the position in `Device.format_speedup`."""

    FP32 = 0
    """Single precision."""
    FP16 = 1
    """Half precision."""
    INT8 = 2
    """Integers of 8 bit."""

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return (4, 2, 1)[self]
