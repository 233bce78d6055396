# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""A run that kills itself: ``python killed_run.py CHECKPOINT epoch|write|replace``.

The first saves (one an epoch and one every second step) are let through.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from tests.fit.test_fit_checkpoint import noisy_run

LET_THROUGH = 3


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def main(path, moment):
    calls = {"save": 0, "replace": 0, "transform": 0}
    save, replace = torch.save, os.replace

    def half_a_save(state, file):
        calls["save"] += 1
        save(state, file)
        if moment == "write" and calls["save"] > LET_THROUGH:
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    def no_replace(source, target):
        calls["replace"] += 1
        if moment == "replace" and calls["replace"] > LET_THROUGH:
            die()
        replace(source, target)

    def transform(x):
        calls["transform"] += 1
        if moment == "epoch" and calls["transform"] > 9:
            die()
        return torch.bernoulli(x)

    torch.save, os.replace = half_a_save, no_replace
    noisy_run(Path(path), 4, transform=transform, checkpoint_every=2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
