# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Two processes under torchrun against one process on the whole batches."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from tests.fit import parallel_run
from tests.fit.models import assert_same, regression

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return where the processes write."""
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def ranks(folder):
    """Return what each of the two processes has seen."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run(
        [*command, str(Path(parallel_run.__file__)), str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=180,
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("kind", ["exact", "loader", "compiled"])
def test_the_result_is_that_of_one_process(ranks, kind):
    alone = parallel_run.exact(loader=kind == "loader")
    for rank in ranks:
        assert torch.allclose(rank[kind]["weight"], alone["weight"], rtol=0, atol=1e-12)
        assert rank[kind]["train"] == pytest.approx(alone["train"], abs=1e-12)
        assert rank[kind]["held_out"] == pytest.approx(alone["held_out"], abs=1e-12)
    assert torch.equal(ranks[0][kind]["weight"], ranks[1][kind]["weight"])


def test_the_comparison_sees_a_mean_of_means():
    """The usual mistake: each process's mean, averaged, whatever the sizes of the shares."""
    x, y, _ = regression(parallel_run.BATCH_SIZE)
    weight = torch.linspace(-1, 1, 3, dtype=torch.float64, requires_grad=True)
    errors = (y - x @ weight).square()
    (right,) = torch.autograd.grad(errors.mean(), weight, retain_graph=True)
    (wrong,) = torch.autograd.grad((errors[:2].mean() + errors[2:].mean()) / 2, weight)
    assert (right - wrong).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["exact", "loader"])
def test_the_shares_are_disjoint_and_make_up_the_batches(ranks, kind):
    alone = parallel_run.exact(loader=kind == "loader")["rows"]
    one, other = (rank[kind]["rows"] for rank in ranks)
    # Five batches an epoch; the share of one datum is nobody's in the first process.
    assert [len(rows) for rows in one] == [2, 2, 2, 2] * 3
    assert [len(rows) for rows in other] == [3, 3, 3, 3, 1] * 3
    for epoch in range(3):
        mine, its = one[4 * epoch : 4 * epoch + 4], other[5 * epoch : 5 * epoch + 5]
        together = [a + b for a, b in zip([*mine, []], its, strict=True)]
        assert together == alone[5 * epoch : 5 * epoch + 5]
        assert not set(chain(*mine)) & set(chain(*its))


def test_a_distributed_sampler_is_used_as_it_is(ranks):
    for epoch in range(3):
        # 21 data and two processes: the sampler gives one row twice.
        shares = [
            list(chain(*rank["sampler"]["rows"][3 * epoch : 3 * epoch + 3])) for rank in ranks
        ]
        assert [len(share) for share in shares] == [11, 11]
        assert set(chain(*shares)) == set(range(21))
    # set_epoch was called: the order changes from one epoch to the next.
    rows = ranks[0]["sampler"]["rows"]
    assert rows[:3] != rows[3:6]
    assert torch.equal(ranks[0]["sampler"]["weight"], ranks[1]["sampler"]["weight"])


def test_a_line_search_takes_the_same_way_in_both(ranks):
    assert torch.allclose(ranks[0]["lbfgs"], parallel_run.lbfgs(), rtol=0, atol=1e-9)
    assert torch.equal(ranks[0]["lbfgs"], ranks[1]["lbfgs"])


def test_parameters_and_buffers_agree_and_the_noise_does_not(ranks):
    assert_same(ranks[0]["whole"]["state"], ranks[1]["whole"]["state"])
    assert ranks[0]["whole"]["train"] == ranks[1]["whole"]["train"]
    assert ranks[0]["whole"]["draw"] != ranks[1]["whole"]["draw"]


def test_a_resumed_run_ends_bit_for_bit_the_same(ranks):
    for rank in ranks:
        assert rank["resumed"]["train"] == rank["whole"]["train"]
        assert_same(rank["resumed"]["state"], rank["whole"]["state"])


def test_one_process_goes_on_with_the_checkpoint_of_two(ranks, folder):
    history = parallel_run.noisy(folder / "run.pt", 3)["train"]
    assert history[:2] == ranks[0]["resumed"]["train"] and len(history) == 3


def test_a_failure_in_one_process_ends_both(ranks):
    for rank in ranks:
        assert rank["nan"] == "step 3, site None"
        assert rank["refused"] == "step 3, site bad"
        assert rank["interrupt"] == "interrupted after 3"
        assert "does not depend on unused.weight, unused.bias" in rank["gradient"]
        assert "same number of data, got [21, 20] by rank" in rank["data"]
