# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""What the reproduction of WaveNet needs beside the model: sound, a baseline, pictures."""
