# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What a run gives: on disk, in another process, joined, and how much memory it takes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from pyro_deepgen.mcmc.chains import Chains
from pyro_deepgen.mcmc.run import run
from tests.mcmc.walk import Walk, X, model

ROOT = Path(__file__).resolve().parent.parent.parent

GO_ON = """
import sys, torch
from pyro_deepgen.mcmc.chains import Chains
from pyro_deepgen.mcmc.run import run
from tests.mcmc.walk import Walk, X, model
torch.set_num_threads(1)
chains = Chains.load(sys.argv[1])
torch.set_rng_state(torch.load(sys.argv[2]))
more = run(Walk(model, compile=False), 12, resume=chains, args=(X,), progress=False)
chains.followed_by(more).save(sys.argv[3])
"""


def quietly(*args: Any, **kwargs: Any) -> Chains:
    return run(*args, progress=False, **kwargs)


def test_another_process_goes_on_exactly(tmp_path: Path) -> None:
    pyro.set_rng_seed(4)
    whole = quietly(Walk(model, compile=False), 20, 10, 3, args=(X,))
    pyro.set_rng_seed(4)
    first = quietly(Walk(model, compile=False), 8, 10, 3, args=(X,))
    files = [str(tmp_path / name) for name in ("chains.pt", "generator.pt", "joined.pt")]
    first.save(files[0])
    torch.save(torch.get_rng_state(), files[1])
    subprocess.run([sys.executable, "-c", GO_ON, *files], check=True, cwd=ROOT)
    joined = Chains.load(files[2])
    assert joined.num_samples == 20
    assert joined.program is None
    for name, value in whole.samples.items():
        torch.testing.assert_close(joined.samples[name], value, rtol=1e-5, atol=1e-6)
    for name, value in whole.state.items():
        assert torch.equal(joined.state[name], value)
    assert torch.equal(joined.info["accept_prob"], whole.info["accept_prob"])
    assert torch.equal(joined.tuning["scale"], whole.tuning["scale"])


def test_a_file_takes_no_more_than_the_draws_kept(tmp_path: Path) -> None:
    chains = quietly(Walk(model, compile="recorded"), 50, 0, 1000, save_params=["loc"])
    chains.save(tmp_path / "chains.pt")
    draws, state = 50 * 1000 * (4 + 4 + 1 + 4), 1000 * 5 * 4
    assert (tmp_path / "chains.pt").stat().st_size < draws + state + 20_000


def test_chains_of_another_number_cannot_be_joined() -> None:
    kernel = Walk(model, compile=False)
    three, four = quietly(kernel, 2, 0, 3), quietly(kernel, 2, 0, 4)
    with pytest.raises(ValueError, match=r"'loc': \(3,\).*'loc': \(4,\)"):
        three.followed_by(four)


# ---------------------------------------------------------------- memory

MEMORY = """
import sys
from pathlib import Path
import pyro, torch
import pyro.distributions as dist
from pyro_deepgen.mcmc.run import run
from tests.mcmc.walk import Walk
torch.set_num_threads(1)
def peak():  # getrusage would start at the memory of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
def model():
    pyro.sample("x", dist.Gamma(2.0, 1.0).expand([10]).to_event(1))
num_chains, num_samples = int(sys.argv[1]), int(sys.argv[2])
kernel = Walk(model, compile="recorded")
run(kernel, 2, 2, 10, progress=False)
before = peak()
callback = (lambda draws, info: None) if sys.argv[3] == "stream" else None
chains = run(kernel, num_samples, 2, num_chains, progress=False, callback=callback)
chains.get_samples()
print(before, peak())
"""


def peaks(num_chains: int, num_samples: int, how: str) -> tuple[int, int]:
    """Peak memory in bytes before and after a run of 10 parameters in single precision."""
    arguments = [sys.executable, "-c", MEMORY, str(num_chains), str(num_samples), how]
    out = subprocess.run(arguments, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    return before, after


def test_a_run_needs_little_more_than_its_draws() -> None:
    num_chains, num_samples = 10_000, 500
    draws = num_chains * num_samples * (10 * 4 + 2 * 4 + 1)  # and three numbers of info
    before, after = peaks(num_chains, num_samples, "keep")
    # A few copies of a block (16 MiB), and what one step allocates; not the draws twice.
    assert 0.8 * draws < after - before < draws + 0.8 * draws
    before, after = peaks(num_chains, num_samples, "stream")
    assert after - before < 0.8 * draws


@pytest.mark.slow
def test_ten_thousand_chains_of_a_thousand_draws_stay_below_two_gigabytes() -> None:
    _, after = peaks(10_000, 1_000, "keep")
    assert after < 2e9
