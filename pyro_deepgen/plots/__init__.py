# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of models, data and training runs; each function returns a matplotlib figure."""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pyro_deepgen.plots draws with matplotlib: pip install pyro_deepgen[plot]"
    ) from error

from pyro_deepgen.plots.curves import Losses, history
from pyro_deepgen.plots.densities import density, density_grid
from pyro_deepgen.plots.images import (
    image_grid,
    latent_sizes,
    nearest,
    nearest_neighbors,
    reconstructions,
    sample_grid,
)
from pyro_deepgen.plots.latent import (
    latent_map,
    manifold,
    manifold_codes,
    traversal,
    traversal_codes,
)

__all__ = [
    "Losses",
    "density",
    "density_grid",
    "history",
    "image_grid",
    "latent_map",
    "latent_sizes",
    "manifold",
    "manifold_codes",
    "nearest",
    "nearest_neighbors",
    "reconstructions",
    "sample_grid",
    "traversal",
    "traversal_codes",
]
