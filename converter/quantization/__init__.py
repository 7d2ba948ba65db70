"""Ground: quantization parameters and integer arithmetic, in numbers."""
