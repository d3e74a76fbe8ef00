"""The published table of E2E-Perf's generic paradigm, with overhead, in cycles.

EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299, github qianjiangcn/eh-dnas, MIT) gives the throughput of
each part of the network of 16 channels and 8 cells at 200 MHz: 143,266.5 images/s for a pooling of cells 0 and 1, and
so on. Every figure is 200e6 over a whole number of cycles, rounded to a tenth; those whole numbers are here.
Sums over networks are whole numbers below 2^24, so float32 has them exactly.
"""

import jax.numpy as jnp
import numpy as np

from hw_models.accelerator.generic import GenericTable

CLOCK_HZ = 200e6
# Cycles of an operation in cells 0 and 1, 2, 3 and 4, 5, 6 and 7; what starts at an input of cells 2 and 5.
CELLS = ((0, 1), (2,), (3, 4), (5,), (6, 7))
OPERATION_CYCLES = {
    "max_pool_3x3": (1396, 1808, 743, 994, 420),
    "avg_pool_3x3": (1396, 1808, 743, 994, 420),
    "skip_connect": (0, 4635, 0, 2712, 0),
    "sep_conv_3x3": (8334, 5874, 4814, 4295, 3480),
    "sep_conv_5x5": (10368, 7490, 7250, 6737, 6074),
    "dil_conv_3x3": (4167, 3467, 2407, 2555, 1740),
    "dil_conv_5x5": (5184, 3865, 3625, 3700, 3037),
}
STEM_CYCLES = 3080
PREPROCESS_CYCLES = (6618, 7611, 9340, 10823, 6228, 7212, 6694, 4264)
"""Both 1x1 convolutions at the inputs of each cell."""
CLASSIFIER_CYCLES = 2544
RUN_SAVES_CYCLES = 3850
"""What a whole network takes less than its parts one by one.

Fitted: the one number that gives 200,000 random networks the published mean of 799 images/s. Their spread and range,
and the order of single networks, are no part of the fit. The stem's 3,080 cycles are most of it."""


def published_generic_table(*, run_saves_cycles: float = RUN_SAVES_CYCLES) -> GenericTable:
    """Returns the published table.

    In it an edge of a reduce cell costs what its operation costs at an input of that cell, wherever it starts; only a
    skip is free elsewhere. A part that is not there costs nothing.

    Args:
        run_saves_cycles: Taken off the sum of the parts; 0 gives the sums of the published table.

    Returns:
        The table, for networks of the default `DartsNetwork`.
    """
    by_operation = np.zeros((3, 1 + len(OPERATION_CYCLES)))
    for digit, cycles in enumerate(OPERATION_CYCLES.values(), start=1):
        by_cells = dict(zip(CELLS, cycles, strict=True))
        at_inputs = by_cells[(2,)] + by_cells[(5,)]
        by_operation[0, digit] = sum(len(cells) * by_cells[cells] for cells in ((0, 1), (3, 4), (6, 7)))
        by_operation[1, digit] = at_inputs
        by_operation[2, digit] = 0 if by_cells[(0, 1)] == 0 else at_inputs
    fixed = STEM_CYCLES + sum(PREPROCESS_CYCLES) + CLASSIFIER_CYCLES - run_saves_cycles
    return GenericTable(jnp.asarray(by_operation, jnp.float32), jnp.float32(fixed), jnp.float32(CLOCK_HZ))
