"""From a front to a network on a device: select, show, tabulate operating points."""
