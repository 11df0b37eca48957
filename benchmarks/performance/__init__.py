"""How fast the package is: `python -m benchmarks.performance` writes docs/performance.md."""
