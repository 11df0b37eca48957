"""What the package survives: `python -m benchmarks.reliability` writes docs/reliability.md."""
