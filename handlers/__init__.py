"""The TorchServe adapter: bytes to pixels, the pipeline, the wire format, metrics; packed whole into every
archive."""
