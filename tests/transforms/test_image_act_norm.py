# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""When and how ActNorm sets its parameters: modes, directions, saving, graphs, processes."""

import copy
import io
import pickle
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import multiprocessing
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_deepgen.distributions import FlowDistribution
from pyro_deepgen.infer import CompiledSVI
from pyro_deepgen.transforms import ActNorm, glow

pytestmark = pytest.mark.usefixtures("float64")


def images(*batch: int) -> torch.Tensor:
    scales = torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    return 2 * scales + scales * torch.randn(*batch, 3, 4, 2)


def assert_standard(points: torch.Tensor) -> None:
    channels = points.detach().reshape(-1, *points.shape[-3:]).movedim(-3, 0).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(3), atol=1e-10, rtol=0)
    torch.testing.assert_close(channels.var(1, correction=0), torch.ones(3))


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("batch", [(2,), (10,), (2, 3)], ids=str)
def test_the_first_batch_comes_out_standardised(
    way: str, batch: tuple[int, ...], device: torch.device
) -> None:
    norm, data = ActNorm((3, 4, 2)).to(device), images(*batch).to(device)
    run = getattr(norm, f"{way}_and_log_det")
    with torch.no_grad():  # as before a fit
        out, log_det = run(data)
    assert_standard(out.cpu())
    assert norm.initialized
    deviations = data.reshape(-1, 3, 8).movedim(1, 0).flatten(1).std(1, correction=0)
    torch.testing.assert_close(log_det, (-8 * deviations.log().sum()).expand(batch))
    state = copy.deepcopy(norm.state_dict())
    run(3 + images(7).to(device))  # the second batch changes nothing
    assert all(torch.equal(state[name], value) for name, value in norm.state_dict().items())
    assert torch.equal(run(data)[0], out)


def test_the_parameters_learn_from_the_first_batch_on() -> None:
    norm = ActNorm(3)
    data = torch.randn(10, 3).requires_grad_()
    out, log_det = norm.inverse_and_log_det(data)
    ((out**4).sum() + log_det.sum()).backward()
    assert data.grad is not None
    assert all(p.grad is not None and bool(p.grad.any()) for p in norm.parameters())


def test_a_channel_without_variance_is_shifted_only() -> None:
    norm, data = ActNorm(3), torch.randn(10, 3)
    data[:, 1] = 0.3
    data[:, 2] = 0.0
    out = norm.inv(data)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(out[:, 1:], torch.zeros(10, 2))
    assert norm.log_scale[1:].tolist() == [0, 0]


def test_in_evaluation_mode_it_is_the_identity_and_waits() -> None:
    norm, data = ActNorm((3, 4, 2)).eval(), images(10)
    assert torch.equal(norm.inv(data), data)
    assert not norm.initialized
    norm.train()
    assert_standard(norm.inv(data))


def test_a_single_point_passes_unchanged_and_does_not_count() -> None:
    norm = ActNorm((3, 4, 2))
    for batch in ((), (1,), (1, 1), (0,)):
        point = images(*batch)
        assert torch.equal(norm(point), point)
        assert not norm.initialized
    assert_standard(norm.inv(images(2)))


def test_the_start_is_not_repeated_after_loading_copying_or_moving() -> None:
    norm = ActNorm((3, 4, 2))
    out = norm.inv(images(10))
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    loaded = ActNorm((3, 4, 2))
    loaded.load_state_dict(torch.load(file, weights_only=True))
    others = [loaded, copy.deepcopy(norm), pickle.loads(pickle.dumps(norm)), norm.double()]
    for other in others:
        assert other.initialized
        back = other.inv(norm(out))
        torch.testing.assert_close(back, out)
    fresh = ActNorm((3, 4, 2))
    norm.load_state_dict(fresh.state_dict())  # and a state from before the start waits again
    assert not norm.initialized


def test_all_of_a_flow_start_with_one_batch() -> None:
    flow = glow((3, 4, 2), 1, 3, hidden_channels=8)
    flow.inverse_and_log_det(5 + images(20))
    norms = [module for module in flow.modules() if isinstance(module, ActNorm)]
    assert len(norms) == 3
    assert all(norm.initialized for norm in norms)


# ---------------------------------------------------------------- graphs


def test_a_recording_starts_it_outside_of_the_graph() -> None:
    norm, data = ActNorm((3, 4, 2)), images(10)
    graph = make_fx(lambda y: norm.inverse_and_log_det(y))(data)
    assert norm.initialized
    assert_standard(graph(data)[0])
    other = 1 + images(10)
    torch.testing.assert_close(graph(other)[0], norm.inv(other))
    assert not torch.allclose(graph(other)[0].mean((0, 2, 3)), torch.zeros(3))


def test_compiled_it_starts_by_a_break_of_the_graph_and_without_one_says_what_to_do() -> None:
    torch._dynamo.reset()
    norm, data = ActNorm((3, 4, 2)), images(10)
    compiled = torch.compile(norm.inverse_and_log_det, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_standard(compiled(data)[0])
    assert norm.initialized
    other = 1 + images(10)
    torch.testing.assert_close(compiled(other)[0], norm.inv(other))

    torch._dynamo.reset()
    fresh = ActNorm((3, 4, 2))
    whole = torch.compile(fresh.inverse_and_log_det, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="one batch in training mode before you compile"):
        whole(data)
    fresh.inverse_and_log_det(data)
    assert_standard(whole(data)[0])


def test_under_torch_func_it_asks_for_a_batch_before() -> None:
    norm, data = ActNorm((3, 4, 2)), images(10)
    for run in (torch.func.vmap(norm.inv), torch.func.jacrev(norm.inv)):
        with pytest.raises(ValueError, match="run one batch before, or call eval"):
            run(data)
    norm.inv(data)
    torch.testing.assert_close(torch.func.vmap(norm.inv)(data), norm.inv(data))


def test_compiled_inference_starts_it_and_learns() -> None:
    pyro.settings.set(module_local_params=True)
    base = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    flow = FlowDistribution(base, ActNorm(2))
    data = torch.tensor([3.0, -1.0]) + torch.tensor([0.1, 10.0]) * torch.randn(200, 2)

    def model(x: torch.Tensor) -> None:
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow, obs=x)

    def guide(x: torch.Tensor) -> None:
        pass

    svi = CompiledSVI(
        _Program(model, flow),
        _Program(guide),
        torch.optim.SGD(flow.parameters(), lr=0.0),
        pyro.infer.Trace_ELBO(),
        backend="eager",
    )
    first = float(svi.step(data))
    best = -dist.Normal(data.mean(0), data.std(0, correction=0)).log_prob(data).sum()
    assert first == pytest.approx(float(best), rel=1e-9)


class _Program(torch.nn.Module):
    """A function with the modules that it uses."""

    def __init__(self, function, *modules):  # type: ignore[no-untyped-def]
        super().__init__()
        self.function, self.used = function, torch.nn.ModuleList(modules)

    def forward(self, *args):  # type: ignore[no-untyped-def]
        return self.function(*args)


# ---------------------------------------------------------------- processes


def _worker(rank: int, folder: str, shares: list[torch.Tensor]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shares)
    )
    norm = ActNorm((3, 4, 2)).double()
    norm.inverse_and_log_det(shares[rank])
    torch.save(norm.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_start_with_the_moments_of_both_shares(tmp_path: Path) -> None:
    # Unequal shares of unlike data, one of a single point: means of means would be wrong.
    data = torch.cat([images(6), 4 + 3 * images(1)])
    shares = [data[:6], data[6:]]
    multiprocessing.spawn(_worker, (str(tmp_path), shares), nprocs=2)  # type: ignore[no-untyped-call]
    alone = ActNorm((3, 4, 2))
    alone.inverse_and_log_det(data)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt")
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value)
    wrong = torch.stack([share.mean((0, 2, 3)) for share in shares]).mean(0)
    assert not torch.allclose(wrong, alone.shift.flatten())
