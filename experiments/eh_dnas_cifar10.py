"""EH-DNAS on CIFAR-10 with the recipes of DARTS and EH-DNAS, on accelerators and roofline devices.

Command:   hadas data prepare cifar10            (once, downloads it; needs the extra tfds)
           python experiments/eh_dnas_cifar10.py -o eh_dnas_cifar10.json
Hardware:  one GPU or TPU
Expected:  not measured yet: it takes a machine with CIFAR-10 and an accelerator. Published (Jiang et al., 2021,
           https://arxiv.org/abs/2111.12299): 1.4 times the throughput on customised accelerators and 1.6 times on
           existing processors at equal accuracy.
"""

from pathlib import Path

from eh_dnas_comparison import Experiment, main

from hadas_jax.settings import DnasSettings, RetrainSettings

DEFAULT = Experiment(
    dataset="cifar10",
    out=Path("runs/eh_dnas_cifar10"),
    networks=1_400_000,
    search=DnasSettings.of(
        priced="e2e-perf", epochs=50, alpha_learning_rate=3e-4, weight=0.3, augmentation="crop-flip", order="second"
    ),
    retrain=RetrainSettings.of(channels=36, cells=20, epochs=600, drop_path=0.3, augmentation="crop-flip", remat=True),
)

if __name__ == "__main__":
    main(DEFAULT)
