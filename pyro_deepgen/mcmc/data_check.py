# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Whether a model's data can come from the distributions that they are observed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from pyro.distributions import Delta, Unit
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.infer.inspect import TrackProvenance
from pyro.ops.provenance import get_provenance
from torch.distributions import Distribution, Independent, constraints

# Float32 compositions do not add up to 1 as exactly as the constraint of PyTorch wants it.
_SUM_ERROR = 1e-3


@contextmanager
def telling_what_is_unchecked() -> Iterator[None]:
    """Run a program without validation, where ``validate_args=False`` can be told from none.

    What is made without an opinion of its own has ``_validate_args`` ``None`` instead.
    """
    with mock.patch.object(Distribution, "_validate_args", None):
        yield


def check_data(trace: Any, run: Callable[[Any], Any]) -> None:
    """Check the data of all observed sites against the supports of their distributions.

    Data that are masked are left alone, and so are supports that depend on latent sites, and
    distributions that were made with ``validate_args=False``.

    Args:
        trace: of one run of the model, without enumeration, in ``telling_what_is_unchecked``.
        run: runs the model again under a handler, and gives the trace.

    Raises:
        ValueError: naming the first site with data outside.
    """
    for name, node in trace.nodes.items():
        if node["type"] != "sample" or not node["is_observed"]:
            continue
        fn, masks = _bare(node)
        if isinstance(fn, Delta | Unit) or fn._validate_args is False or False in map(_flag, masks):
            continue
        value = torch.as_tensor(node["value"])
        fits = _fits(node["fn"], value)
        if fits is None:
            continue
        for mask in masks:
            if isinstance(mask, torch.Tensor):
                fits = fits | ~mask
        if fits.all() or _depends(run(TrackProvenance()), name):
            continue
        rows = value.expand(*fits.shape, *value.shape[value.dim() - node["fn"].event_dim :])
        raise ValueError(
            f"the data of the site {name!r} are outside of the support of {type(fn).__name__}, "
            f"{fn.support}, in {int((~fits).sum())} of {fits.numel()} places; the first is "
            f"{rows[~fits][0].tolist()}. Check the data, mask those that are missing "
            "(poutine.mask, obs_mask), or, if they are meant so, make the distribution with "
            "validate_args=False"
        )


def _bare(node: Any) -> tuple[Any, list[Any]]:
    """The distribution of a site without what was put around it, and all masks."""
    fn, masks = node["fn"], [node["mask"]]
    while isinstance(fn, MaskedDistribution | Independent | ExpandedDistribution):
        masks.append(getattr(fn, "_mask", None))
        fn = fn.base_dist
    return fn, masks


def _flag(mask: Any) -> bool | None:
    return mask if isinstance(mask, bool) else None


def _fits(fn: Any, value: torch.Tensor) -> torch.Tensor | None:
    try:
        support = fn.support
    except NotImplementedError:
        return None
    inner = support
    while isinstance(inner, constraints.independent):
        inner = inner.base_constraint
    if constraints.is_dependent(inner):
        return None
    if isinstance(inner, type(constraints.simplex)):
        fits = (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < _SUM_ERROR)
        return fits.flatten(fits.dim() - fn.event_dim + 1).all(-1) if fn.event_dim > 1 else fits
    exact = (type(constraints.one_hot), constraints.multinomial)
    if inner.event_dim and not isinstance(inner, exact):
        return None  # of matrices, which are symmetric and so on but for rounding
    checked: torch.Tensor = support.check(value)
    return checked


def _depends(trace: Any, name: str) -> bool:
    """Whether the support of a site depends on a latent one."""
    node = trace.nodes[name]
    support = node["fn"].support
    found: set[str] = set()
    while support is not None:
        for bound in vars(support).values():
            found |= get_provenance(bound)
        support = vars(support).get("base_constraint")
    return any(not trace.nodes[site]["is_observed"] for site in found)
