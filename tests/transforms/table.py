# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""The table of transforms: the rows of every family."""

from tests.transforms.row import TransformRow
from tests.transforms.rows_autoregressive import AUTOREGRESSIVE_TRANSFORMS
from tests.transforms.rows_coupling import COUPLING_TRANSFORMS
from tests.transforms.rows_elementary import ELEMENTARY_TRANSFORMS
from tests.transforms.rows_image import IMAGE_TRANSFORMS

TRANSFORMS: list[TransformRow] = [
    *ELEMENTARY_TRANSFORMS,
    *COUPLING_TRANSFORMS,
    *AUTOREGRESSIVE_TRANSFORMS,
    *IMAGE_TRANSFORMS,
]
