"""Run the drivers beside each other: `benchmarks/drivers.py --help`. docs/drivers.md shows what came out once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))  # how a pool in a file is made

from lamina_bench.comparing import main  # found there

if __name__ == "__main__":
    main()
