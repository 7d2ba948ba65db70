"""ARM64 cores, emulated: a model runs there, its instructions are counted, its outputs compared."""
