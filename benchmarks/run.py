"""Run the benchmarks: `benchmarks/run.py --help`. README.md tells what is measured."""

from __future__ import annotations

from lamina_bench.main import main

if __name__ == "__main__":
    main()
