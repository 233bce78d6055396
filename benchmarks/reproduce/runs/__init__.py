# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What the scripts of published results share: arguments, training that resumes, and pages."""
