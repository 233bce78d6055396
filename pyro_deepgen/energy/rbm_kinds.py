# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Restricted Boltzmann machines by the names of their units."""

from __future__ import annotations

from typing import Any

from .rbm import RBM
from .rectified_units import RectifiedUnits
from .units import GaussianUnits, SoftmaxUnits


def gaussian_rbm(
    num_visible: int, num_hidden: int, *, learn_variance: bool = True, **options: Any
) -> RBM:
    r"""Make an RBM of Gaussian visible and binary hidden units.

    .. math:: E(v, h) = \sum_i \frac{v_i^2}{2 \sigma_i^2} - \sum_i \frac{v_i b_i}{\sigma_i^2}
        - \sum_j c_j h_j - \sum_{ij} \frac{v_i}{\sigma_i^2} W_{ij} h_j

    which differs by a constant from the energy with :math:`(v_i - b_i)^2`.

    Args:
        num_visible: number of visible units.
        num_hidden: number of hidden units.
        learn_variance: whether the variances are learned; else they are 1.
        options: further arguments of :class:`RBM`.

    References:
        Improved learning of Gaussian-Bernoulli restricted Boltzmann machines, KyungHyun Cho,
        Alexander Ilin and Tapani Raiko, 2011.

    Example:
        >>> import torch
        >>> rbm = gaussian_rbm(2, 3, weight_scale=1.0)
        >>> h = torch.tensor([1.0, 0.0, 1.0])
        >>> torch.equal(rbm.visible.mean(rbm.visible_field(h)), rbm.weight @ h + rbm.visible_bias)
        True
    """
    return RBM(GaussianUnits(num_visible, learn_variance), num_hidden, **options)


def multinomial_rbm(num_groups: int, num_classes: int, num_hidden: int, **options: Any) -> RBM:
    """Make an RBM whose visible units are groups of which one unit each is on.

    Args:
        num_groups: number of groups, such as films that are rated.
        num_classes: units in a group, such as the possible ratings.
        num_hidden: number of hidden units.
        options: further arguments of :class:`RBM`.

    References:
        Restricted Boltzmann Machines for Collaborative Filtering, Ruslan Salakhutdinov, Andriy
        Mnih and Geoffrey Hinton, 2007.

    Example:
        >>> rbm = multinomial_rbm(4, 5, 3)
        >>> rbm.sample((2,)).reshape(2, 4, 5).sum(-1).unique().tolist()
        [1.0]
    """
    return RBM(SoftmaxUnits(num_groups, num_classes), num_hidden, **options)


def rectified_rbm(
    num_visible: int,
    num_hidden: int,
    *,
    gaussian: bool = False,
    num_copies: int = 20,
    **options: Any,
) -> RBM:
    """Make an RBM whose hidden units are noisy rectified linear ones.

    Args:
        num_visible: number of visible units.
        num_hidden: number of hidden units.
        gaussian: whether visible units are Gaussian, of learned variances, and not binary.
        num_copies: the largest value of a hidden unit.
        options: further arguments of :class:`RBM`.

    References:
        Rectified Linear Units Improve Restricted Boltzmann Machines, Vinod Nair and Geoffrey
        Hinton, 2010.

    Example:
        >>> import torch
        >>> rbm = rectified_rbm(3, 2)
        >>> v, h = rbm.sample_joint((5,))
        >>> bool((h >= 0).all()), torch.equal(h, h.round())
        (True, True)
    """
    visible = GaussianUnits(num_visible) if gaussian else num_visible
    return RBM(visible, RectifiedUnits(num_hidden, num_copies), **options)
