"""EH-DNAS on handwritten digits: plain DARTS, lookup table and predictor, on accelerators and roofline devices.

Command:   python experiments/eh_dnas_digits.py -o experiments/eh_dnas_digits.json
Hardware:  2 CPU cores, 5 GB
Time:      two to four minutes for a search and a retraining on two busy cores, 24 of them in all
Expected:  so far, speed over plain DARTS of the same seed and test accuracy (270 images) beside plain DARTS's:
           generic, seeds 0 / 1 / 2: predictor 3.16 / 1.74 / 1.86, lookup table 2.15 / 1.71 / 1.55; accuracy 99.3 /
           98.9 / 99.6 % (predictor) and 99.6 / 98.9 / 98.9 % (table) against 98.9 / 97.0 / 99.3 %.
           pipeline, seed 0: predictor 3.33 at 99.3 %, table 3.67 at 98.9 %; seed 2: table 2.53.
           devices, seed 0: AGX Xavier GPU 1.54, Raspberry Pi 4 1.89, Coral Edge TPU 1.16 (mean 1.53) at 98.9 / 99.3 /
           98.5 %. The other seeds of pipeline and devices have not been run to their end.
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
