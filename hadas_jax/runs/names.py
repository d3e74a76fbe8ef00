"""What files and folders in a work directory are called; imports nothing, so that runs can be listed without JAX."""

CONFIG, METRICS, CHECKPOINTS = "config.json", "metrics.jsonl", "checkpoints"
REPORT, CHECK = "report.html", "check.json"
DERIVED, RESULT = "derived", "result.json"
SUPERNET, ARCHITECTURE = "supernet", "architecture.json"
TENSORBOARD = "tensorboard"
FORM = "hadas_jax."
"""What the forms of all files begin with, such as `hadas_jax.search/1`."""
