"""Train the suites named on the command line, or all of them: ``python train.py digits moons``."""

import argparse
import time

import torch
from suites import SUITES
from training import trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"any of {', '.join(SUITES)}")
    parser.add_argument("--first", type=int, help="only so many configurations of each suite")
    torch.set_num_threads(1)
    arguments = parser.parse_args()
    for name in arguments.suites or SUITES:
        suite = SUITES[name]
        start = time.process_time()
        for index, configuration in enumerate(suite.configurations()[: arguments.first]):
            trained(suite, index, configuration)
        print(f"{name}: {time.process_time() - start:.0f} s of CPU time", flush=True)


if __name__ == "__main__":
    main()
