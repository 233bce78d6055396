# Copyright Contributors to the pyro_deepgen project.
# SPDX-License-Identifier: Apache-2.0
"""Measure the cases, one after the other, and rewrite their tables.

python -m benchmarks                        # all of them, tables into benchmarks/README.md
python -m benchmarks vae-small --rounds 3   # one of them
python -m benchmarks --document ""          # only print
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .environment import machine, one_thread, versions


def main() -> None:
    """Run the command line."""
    one_thread()
    import torch

    from .cases import CASES
    from .tables import rewrite

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument(
        "--rounds", type=int, default=40, help="samples of each contestant, at most"
    )
    parser.add_argument(
        "--document", default=str(Path(__file__).with_name("README.md")), help="where tables stand"
    )
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no case {sorted(unknown)}; there are {sorted(CASES)}")
    torch.set_num_threads(1)
    for name in args.cases or CASES:
        case = CASES[name]()
        text = f"{case.report(args.rounds)}; {machine()}; {versions()}."
        print(f"\n## {case.title}\n\n{text}", flush=True)
        if args.document:
            path = Path(args.document)
            path.write_text(rewrite(path.read_text(encoding="utf8"), name, text), encoding="utf8")


if __name__ == "__main__":
    main()
