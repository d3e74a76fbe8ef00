"""EH-DNAS on Fashion-MNIST at 14 pixels: plain DARTS, lookup table and predictor, on accelerators and roofline devices.

Command:   python experiments/fashion_mnist_npz.py -o fashion_mnist.npz
           python experiments/eh_dnas_fashion_mnist.py --dataset npz:fashion_mnist.npz -o eh_dnas_fashion_mnist.json
Hardware:  2 CPU cores, 8 GB
"""

from pathlib import Path

from eh_dnas_comparison import Experiment, main

from hadas_jax.settings import DnasSettings, RetrainSettings

DEFAULT = Experiment(
    dataset="fashion_mnist",
    out=Path("runs/eh_dnas_fashion_mnist"),
    seeds=(0,),
    search=DnasSettings.of(
        image_size=14,
        priced="e2e-perf",
        channels=8,
        cells=5,
        order="first",
        epochs=2,
        batch=128,
        weight=0.3,
        augmentation="none",
    ),
    retrain=RetrainSettings.of(image_size=14, epochs=6, cutout=0, drop_path=0.0, augmentation="crop-flip"),
)

if __name__ == "__main__":
    main(DEFAULT)
