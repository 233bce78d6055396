# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The log-density of a trace whose enumerated sites are summed out."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Categorical
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine.messenger import Messenger

from . import log_einsum

MASKED = "_unobserved"


class _Ring(LogRing):
    """Pyro's ring of logarithms over an einsum that many chains can run at once."""

    _backend = log_einsum.__name__


class Enumerate(Messenger):
    """Lets ``poutine.enum`` around it enumerate some sites, whatever their own annotations say.

    Args:
        values: of each of these sites the possible values ``(K, *event_shape)``.
    """

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_sample(self, msg: Any) -> None:
        values = self._values.get(msg["name"])
        if values is None:
            return
        msg["infer"] = {**msg["infer"], "enumerate": "parallel", "expand": False}
        msg["infer"]["num_samples"] = None
        if type(msg["fn"]) is Categorical:
            return  # knows its own best
        # Some distributions look at their parameters to list their values, which no graph can.
        ones = [1] * len(msg["fn"].batch_shape)
        shaped = values.reshape(len(values), *ones, *values.shape[1:])
        msg["fn"] = copy.copy(msg["fn"])
        msg["fn"].enumerate_support = lambda expand=True: shaped


def log_density(trace: Any) -> torch.Tensor:
    r"""The log-density of all sites of a trace of one chain.

    .. math:: \log \sum_z p(x, z)

    over the values ``z`` of the sites that were enumerated in parallel, by elimination of one
    variable after the other within the plates (Obermeyer et al.).

    Args:
        trace: of a model, without the sites of plates; it is changed.

    Returns:
        A scalar.

    Raises:
        ValueError: for a site whose log-density has a dimension that is no plate.

    References:
        Tensor Variable Elimination for Plated Factor Graphs, Fritz Obermeyer, Eli Bingham, Martin
        Jankowiak, Justin Chiu, Neeraj Pradhan, Alexander Rush, Noah Goodman (2019),
        arXiv:1902.03210.
    """
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample"}
    for name in sites:
        # Of a site that is observed in part, the other part is drawn from the prior. It is drawn
        # for all places, and where there is an observation its density must not be left out: there
        # it would be flat, and chains would drift without end.
        if name.endswith(MASKED) and name.removesuffix(MASKED) + "_observed" in sites:
            sites[name]["mask"] = None
    if all(site["infer"].get("_enumerate_dim") is None for site in sites.values()):
        return torch.as_tensor(trace.log_prob_sum())
    trace.compute_log_prob()
    trace.pack_tensors()
    factors: OrderedDict[frozenset[str], list[torch.Tensor]] = OrderedDict()
    for site in sites.values():
        plates = frozenset(
            trace.plate_to_symbol[frame.name]
            for frame in site["cond_indep_stack"]
            if frame.vectorized
        )
        factors.setdefault(plates, []).append(site["packed"]["log_prob"])
    enumerated = set(trace.symbol_to_dim) - set(trace.plate_to_symbol.values())
    ring: Any = _Ring  # untyped in Pyro
    result: torch.Tensor = contract_to_tensor(factors, enumerated, ring=ring())
    return result
