"""Diagnosis: where in a network the error of quantization arises, tensor by tensor, and what could be done about it."""
