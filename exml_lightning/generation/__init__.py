"""From an expert to samples: generators connected to their data, the cache, files of samples."""
