"""Work directories of runs: what a run writes, resumes from and is found by; here the names of its files."""

CONFIG, METRICS, CHECKPOINTS, REPORT = "config.json", "metrics.jsonl", "checkpoints", "report.html"
SUPERNET, DERIVED, ARCHITECTURE, RESULT = "supernet", "derived", "architecture.json", "result.json"
TENSORBOARD = "tensorboard"
FORM = "hadas_jax."
"""What the forms of all files begin with, such as `hadas_jax.search/1`."""
