"""bridgequant: float ONNX hybrid vision transformers to int8 QDQ models that run in integer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["BitWidths", "Options", "Plan", "Preprocess", "Report", "SearchParts", "Target", "__version__", "convert", "errors"]

if TYPE_CHECKING:
    from converter import errors
    from converter.calibration.preprocess import Preprocess
    from converter.methods.search_parts import SearchParts
    from converter.options import Options
    from converter.pipeline import convert
    from converter.plan.records import Plan
    from converter.quantization.bit_widths import BitWidths
    from converter.report import Report
    from converter.targets import Target


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: the command line answers ``--help`` without loading torch."""
    import importlib

    homes = {
        "BitWidths": "quantization.bit_widths",
        "Options": "options",
        "Plan": "plan.records",
        "Preprocess": "calibration.preprocess",
        "Report": "report",
        "SearchParts": "methods.search_parts",
        "Target": "targets",
        "convert": "pipeline",
        "errors": "errors",
    }
    if name not in homes:
        raise AttributeError(f"module 'converter' has no attribute '{name}'")
    module = importlib.import_module(f"converter.{homes[name]}")
    return module if name == "errors" else getattr(module, name)
