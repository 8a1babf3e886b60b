"""Every trial again and again, with new seeds and in every world, until the time is up: `python -m tests.chaos.long`.

The first failure ends it; its seed is shown, and repeats it with `SPILE_SEED`. The model's runs are longer as well.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TEST_S_MAX = 3_600


def main() -> int:
    """Run rounds of the suite until there is no time left or one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.long", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for how long; a round is not broken off")
    parser.add_argument("--runs", type=int, default=20, help="of the model in a round, in each world")
    parser.add_argument("--steps", type=int, default=40, help="of each of these runs, at most")
    parser.add_argument("-k", dest="chosen", default="", help="which tests, as pytest takes it")
    asked = parser.parse_args()
    end = time.monotonic() + asked.minutes * 60
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        seed = random.SystemRandom().getrandbits(32)
        print(f"round {rounds}, SPILE_SEED={seed}", flush=True)
        environment = os.environ | {
            "SPILE_CHAOS": "long",
            "SPILE_SEED": str(seed),
            "SPILE_RUNS": str(asked.runs),
            "SPILE_STEPS": str(asked.steps),
        }
        chosen = ["-k", asked.chosen] if asked.chosen else []
        command = [sys.executable, "-m", "pytest", "-x", "-q", f"--timeout={TEST_S_MAX}", *chosen, str(HERE)]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
