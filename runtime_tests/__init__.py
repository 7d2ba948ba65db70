"""Proof on what runs: real models through the whole conversion, in the runtime."""
