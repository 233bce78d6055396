# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""How much memory many chains take, each run in a process of its own.

python -m benchmarks.mcmc_memory NUTS 10000 1000 10 kept   # prints bytes before, and at the peak
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1e6


@dataclass(frozen=True)
class Memory:
    """Draws of many chains, kept or handed to a callback.

    Args:
        name: name of the table in the README.
        chains: number of chains.
        draws: draws of each.
        dim: parameters.
        kernels: names of kernels.
        compile: whether to compile.
    """

    name: str
    chains: int
    draws: int
    dim: int
    kernels: tuple[str, ...] = ("NUTS", "HMC")
    compile: bool = True

    @property
    def title(self) -> str:
        """What is measured, for a person."""
        return f"Memory: {self.chains:,} chains x {self.draws:,} draws x {self.dim} parameters"

    def report(self, rounds: int) -> str:
        """Measure each once, for the peak hardly varies, and write a table."""
        lines = [
            "| sampler | draws | MB of the draws | MB before the run | MB at the peak |",
            "|---|---|---|---|---|",
        ]
        size = 4 * self.chains * self.draws * self.dim / MEGABYTE
        for name in self.kernels:
            for how in ("kept", "streamed"):
                before, peak = (v / MEGABYTE for v in self.peak(name, how))
                lines.append(
                    f"| {name} | {how} | {size if how == 'kept' else 0:,.0f} | {before:,.0f} "
                    f"| {peak:,.0f} |"
                )
        return "\n".join(lines) + "\n\nOne run of each"

    def peak(self, kernel: str, how: str) -> tuple[int, int]:
        """Largest resident memory in bytes before a run, and at its end."""
        numbers = [str(n) for n in (self.chains, self.draws, self.dim)]
        command = [sys.executable, "-m", "benchmarks.mcmc_memory", kernel, *numbers, how]
        command += [] if self.compile else ["--eager"]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
        before, peak = json.loads(done.stdout.splitlines()[-1])
        return before, peak


def resident() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main(kernel: str, chains: str, draws: str, dim: str, how: str, eager: str = "") -> None:
    """Run once, and print the memory before it and the peak, in bytes."""
    import pyro.distributions as dist
    import torch

    from pyro_deepgen import mcmc

    torch.set_num_threads(1)
    target = dist.Normal(torch.zeros(int(dim)), 1.0).to_event(1)
    made = getattr(mcmc, kernel)(target, compile=not eager)
    mcmc.run(made, 2, 2, int(chains), progress=False)  # what is compiled is no part of the draws
    before = resident()
    kept = {"callback": None} if how == "kept" else {"callback": lambda values, info: None}
    mcmc.run(made, int(draws), 0, int(chains), progress=False, **kept)
    print(json.dumps([before, resident()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
