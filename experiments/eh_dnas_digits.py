"""EH-DNAS on handwritten digits: plain DARTS, lookup table and predictor, on accelerators and roofline devices.

Command:   python experiments/eh_dnas_digits.py -o experiments/eh_dnas_digits.json
Hardware:  2 CPU cores, 4 GB
"""

from pathlib import Path

from eh_dnas_comparison import Experiment, main

from hadas_jax.methods.eh_dnas import DnasSettings
from hadas_jax.methods.retrain_settings import RetrainSettings

DEFAULT = Experiment(
    dataset="digits",
    out=Path("runs/eh_dnas_digits"),
    search=DnasSettings(priced="e2e-perf", channels=8, cells=5, order="first", epochs=40, weight=0.3),
    retrain=RetrainSettings(epochs=40),
)

if __name__ == "__main__":
    main(DEFAULT)
