"""Every method on every reference network at every width, measured on labelled images: ``python -m tools.benchmarks.compare``."""
