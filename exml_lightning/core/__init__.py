"""The algorithm in pure PyTorch: no Lightning, no files, no command line."""
