"""EH-DNAS on handwritten digits: plain DARTS, lookup table and predictor, on accelerators and roofline devices.

Command:   python experiments/eh_dnas_digits.py -o experiments/eh_dnas_digits.json
Hardware:  2 CPU cores, 5 GB
Time:      one to four minutes for a search and a retraining on two CPU cores, 24 of them in all
Expected:  speed over plain DARTS of the same seed, mean of seeds 0 to 2 (each seed), and test accuracy (270 images):
           plain DARTS            1                         98.4 %
           generic, predictor     2.25 (3.16, 1.74, 1.86)   99.3 %
           generic, table         1.80 (2.15, 1.71, 1.55)   99.1 %
           pipeline, predictor    3.14 (3.33, 2.41, 3.67)   99.5 %
           pipeline, table        3.11 (3.67, 3.14, 2.53)   98.6 %
           AGX Xavier GPU         1.75 (1.54, 2.17, 1.53)   99.0 %
           Raspberry Pi 4         1.87 (1.89, 1.81, 1.90)   99.5 %
           Coral Edge TPU         1.14 (1.16, 1.02, 1.24)   99.0 %
           All figures are in eh_dnas_digits.json.
"""

from pathlib import Path

from eh_dnas_comparison import Experiment, main

from hadas_jax.settings import DnasSettings, RetrainSettings

DEFAULT = Experiment(
    dataset="digits",
    out=Path("runs/eh_dnas_digits"),
    search=DnasSettings.of(priced="e2e-perf", channels=8, cells=5, order="first", epochs=40, weight=0.3),
    retrain=RetrainSettings.of(epochs=40),
)

if __name__ == "__main__":
    main(DEFAULT)
