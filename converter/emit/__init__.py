"""Emit: a planned model as QuantizeLinear and DequantizeLinear nodes and integer constants."""
