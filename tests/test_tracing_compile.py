# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What is done to a graph before the compiler sees it, and how it is replayed on CUDA."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_deepgen.tracing import Graph, matmul, trace
from pyro_deepgen.tracing.matmul import choose_products
from pyro_deepgen.tracing.scalars import compute_scalars_once

onednn = torch.ops.pyro_deepgen.onednn_mm.default


def count(graph: Graph, target: object) -> int:
    return sum(node.target is target for node in graph.module.graph.nodes)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(matmul, "_onednn_is_faster", lambda: True)


PRODUCTS: dict[str, Callable[..., torch.Tensor]] = {
    "plain": lambda a, b, bias: a @ b,
    "left transposed": lambda a, b, bias: a.t().contiguous().t() @ b,
    "right transposed": lambda a, b, bias: a @ b.t().contiguous().t(),
    "with a bias": lambda a, b, bias: torch.addmm(bias, a, b),
    "layer": lambda a, b, bias: torch.nn.functional.linear(a, b.t(), bias),
}


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("name", PRODUCTS)
def test_large_products_are_given_to_onednn(name: str) -> None:
    inputs = [torch.randn(128, 200), torch.randn(200, 100), torch.randn(100)]
    inputs = [t.float() for t in inputs]
    graph = trace(lambda *given: [PRODUCTS[name](*given)], inputs)
    choose_products(graph.module)
    assert count(graph, onednn) == 1
    expected = PRODUCTS[name](*(t.double() for t in inputs))
    assert torch.allclose(graph(*inputs)[0].double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("faster")
def test_products_of_captured_tensors() -> None:
    buffer, weight = (
        torch.randn(128, 200).float(),
        torch.nn.Parameter(torch.randn(200, 100).float()),
    )
    graph = trace(lambda x: [buffer @ x, x.t() @ weight], [torch.randn(200, 100).float()])
    choose_products(graph.module)
    assert count(graph, onednn) == 2


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize(
    "rows,dtype", [(10, torch.float32), (128, torch.float64)], ids=["small", "double"]
)
def test_other_products_stay(rows: int, dtype: torch.dtype) -> None:
    inputs = [torch.randn(rows, 200, dtype=dtype), torch.randn(200, 100, dtype=dtype)]
    graph = trace(lambda a, b: [a @ b], inputs)
    choose_products(graph.module)
    assert count(graph, onednn) == 0


def test_products_stay_where_onednn_is_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_onednn_is_faster", lambda: False)
    inputs = [torch.randn(128, 200).float(), torch.randn(200, 100).float()]
    graph = trace(lambda a, b: [a @ b], inputs)
    choose_products(graph.module)
    assert count(graph, onednn) == 0


@pytest.mark.parametrize("rows,kept", [(5000, 1), (10, 0)], ids=["large", "small"])
def test_a_large_matrix_times_a_vector_stays_one_product(rows: int, kept: int) -> None:
    inputs = [torch.randn(rows, 50), torch.randn(50)]
    graph = trace(lambda a, b: [a @ b], inputs)
    choose_products(graph.module)
    assert count(graph, torch.ops.aten.mm.default) == kept
    assert torch.allclose(graph(*inputs)[0], inputs[0] @ inputs[1])


def scaled(x: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
    width = torch.exp(s)
    return [x * width + width.log1p(), width * 2]


@pytest.mark.parametrize("size,times", [(5000, 2), (10, 0)], ids=["many", "few"])
def test_scalars_that_many_elements_read_are_computed_once(size: int, times: int) -> None:
    inputs = [torch.randn(size), torch.tensor(0.3)]
    expected = scaled(*inputs)
    graph = trace(scaled, inputs)
    compute_scalars_once(graph.module)
    assert count(graph, torch.ops.aten.amax.default) == times
    for ours, theirs in zip(graph(*inputs), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_cheap_scalars_stay_in_the_loop() -> None:
    graph = trace(lambda x, s: [x * (s + 1)], [torch.randn(5000), torch.tensor(0.3)])
    compute_scalars_once(graph.module)
    assert count(graph, torch.ops.aten.amax.default) == 0


@pytest.mark.slow
def test_compiling_changes_no_value() -> None:
    scale, offset = torch.nn.Parameter(torch.tensor(0.4)), torch.zeros(100)

    def program(x: torch.Tensor, w: torch.Tensor, rate: torch.Tensor) -> list[torch.Tensor]:
        with torch.enable_grad():
            loss = ((x @ w) * torch.exp(scale)).square().mean()
        (gradient,) = torch.autograd.grad(loss, [scale])
        with torch.no_grad():
            scale.detach().sub_(rate * gradient)
            offset.add_(1)
        return [loss.detach(), gradient]

    inputs = [torch.randn(128, 200).float(), torch.randn(200, 100).float(), torch.tensor(1e-3)]
    graph = trace(program, inputs)
    graph.compile(inputs)
    assert float(scale) == pytest.approx(0.4)
    values = []
    for run in (graph.interpret, graph):
        with torch.no_grad():
            scale.fill_(0.4)
            offset.zero_()
        outputs = [t.clone() for _ in range(3) for t in run(*inputs)]
        values.append([*outputs, scale.detach().clone(), offset.clone()])
    for ours, theirs in zip(*values, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_is_replayed_on_cuda() -> None:
    device = torch.device("cuda")
    scale = torch.zeros(3, device=device)

    def program(x: torch.Tensor) -> list[torch.Tensor]:
        scale.add_(1)
        return [pyro.sample("z", dist.Normal(x, scale)), x * scale]

    x = torch.arange(3.0, device=device)
    graph = trace(program, [x])
    graph.compile([x])
    assert graph._replay is not None
    assert scale.tolist() == [0, 0, 0]  # warming up leaves no trace
    torch.manual_seed(0)
    first = [graph(x) for _ in range(3)]
    assert scale.tolist() == [3, 3, 3]
    assert [out[1].tolist() for out in first] == [[0, k, 2 * k] for k in (1.0, 2.0, 3.0)]
    assert len({float(out[0][0]) for out in first}) == 3  # fresh draws, in tensors of their own
    scale.zero_()
    torch.manual_seed(0)
    assert all(torch.equal(graph(x)[0], out[0]) for out in first)
    assert graph(x + 1)[1].tolist() == [4, 8, 12]
