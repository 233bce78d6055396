# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Draws of images with cached rows, beside a pass of the whole network for every pixel.

python -m benchmarks.pixel_sampling                 # 28 x 28, one image and 16
python -m benchmarks.pixel_sampling --naive         # and check that both ways draw the same images

Where the C library gives memory back to the system after each pass, passes of many images mostly
wait for memory. With MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 in the
environment it keeps the memory, and the ratios are lower.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from .environment import machine, one_thread, versions


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """The least processor time of some rounds, after one to warm up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Run the command line."""
    one_thread()
    import torch

    from pyro_deepgen.autoregressive import GatedPixelCNN, LogisticMixtureOutput, PixelCNN, PixelRNN

    grey, colour = (1, 28, 28), (3, 28, 28)
    models: dict[str, Callable[[], Any]] = {
        "PixelCNN, 32 channels": lambda: PixelCNN(grey, num_channels=32),
        "PixelCNN, 128 channels": lambda: PixelCNN(grey, num_channels=128),
        "PixelCNN, colour, 96 channels": lambda: PixelCNN(colour, num_channels=96),
        "GatedPixelCNN, 32 channels": lambda: GatedPixelCNN(grey),
        "GatedPixelCNN, colour, mixture": lambda: GatedPixelCNN(colour, LogisticMixtureOutput(5)),
        "PixelRNN, diagonal, 16 units": lambda: PixelRNN(grey),
        "PixelRNN, row, 16 units": lambda: PixelRNN(grey, kind="row"),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--naive", action="store_true", help="run the slowest way too, once")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}; {versions()}; processor seconds\n")
    print("| model | images | a draw | D passes | ratio |\n|---|---|---|---|---|")
    for name, make in models.items():
        torch.manual_seed(0)
        model = make().eval().requires_grad_(False)
        variables = model.event_shape.numel()
        for num in args.images:
            x = model.sample((num,))
            draw = seconds(lambda model=model, num=num: model.sample((num,)), args.rounds)
            one_pass = seconds(lambda model=model, x=x: model.conditionals(x), args.rounds)
            whole = variables * one_pass
            print(f"| {name} | {num} | {draw:.2f} | {whole:.1f} | {whole / draw:.0f} |", flush=True)
            if args.naive:
                torch.manual_seed(1)
                start, quick = time.process_time(), model.sample((num,))
                torch.manual_seed(1)
                middle, slow = time.process_time(), model.naive_sample((num,))
                took = time.process_time() - middle
                same = float((quick == slow).double().mean())
                print(f"  the slowest way took {took:.1f} s, the quick one {middle - start:.2f} s;")
                print(f"  {same:.2%} of the values are the same in float32")


if __name__ == "__main__":
    main()
