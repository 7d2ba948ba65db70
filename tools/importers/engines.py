"""How each importer opens an ONNX file and runs it.

An opener takes the path and returns a function from named inputs to outputs in the order of the graph's. Importers are imported when
they are opened, as none of them is a dependency of this project but ``onnx``. They compute on one thread where they let one choose.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["IMPORTERS", "Importer", "Run", "openvino_model", "openvino_settings"]

Run = Callable[[Mapping[str, npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]]
"""Outputs of one sample, in the order of the graph's outputs."""


@dataclass(frozen=True)
class Importer:
    """Something that reads ONNX files.

    Attributes:
        module: that must be importable.
        packages: on the package index that hold it, for the installation.
        open: makes a function that runs a file.
    """

    module: str
    packages: str
    open: Callable[[Path], Run]


def _names(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in constants], [value.name for value in graph.output]


def _onnx_reference(path: Path) -> Run:
    evaluator = import_module("onnx.reference").ReferenceEvaluator(str(path))
    return lambda feed: evaluator.run(None, dict(feed))


def openvino_settings(**settings: str) -> dict[str, str]:
    """Of a compiled model: one inference at a time on one thread, and what is given."""
    return {"INFERENCE_NUM_THREADS": "1", "PERFORMANCE_HINT": "LATENCY", **settings}


def openvino_model(path: Path, settings: Mapping[str, str]) -> Run:
    """Compile a file with OpenVINO for the processor.

    Args:
        path: .onnx, or .xml of OpenVINO's own format.
        settings: as :func:`openvino_settings` makes them.
    """
    core = import_module("openvino").Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", dict(settings))
    request, outputs = compiled.create_infer_request(), list(compiled.outputs)
    return lambda feed: [np.array(request.infer(dict(feed))[output]) for output in outputs]


def _openvino(**settings: str) -> Callable[[Path], Run]:
    return lambda path: openvino_model(path, openvino_settings(**settings))


def _opencv(path: Path) -> Run:
    net, (_, outputs) = import_module("cv2").dnn.readNetFromONNX(str(path)), _names(path)

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        for name, value in feed.items():
            net.setInput(value, name)
        return [np.array(value) for value in net.forward(outputs)]

    return run


def _mnn(path: Path) -> Run:
    tools, expr, nn = import_module("_tools"), import_module("MNN.expr"), import_module("MNN.nn")
    inputs, outputs = _names(path)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.mnn"
        tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(made), "--bizCode", "none"])
        if not made.exists():
            raise ValueError("mnnconvert writes no model")
        module = nn.load_module_from_file(str(made), inputs, outputs)

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        values = [expr.const(feed[name].ravel().tolist(), list(feed[name].shape), expr.NCHW) for name in inputs]
        return [np.array(expr.convert(value, expr.NCHW).read()) for value in module.onForward(values)]

    return run


def _iree(path: Path) -> Run:
    importer, compiler, runtime = (import_module(f"iree.{name}") for name in ("compiler.tools.import_onnx.__main__", "compiler", "runtime"))
    inputs, _ = _names(path)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "model.mlir"
        importer.main(importer.parse_arguments([str(path), "-o", str(text)]))
        binary = compiler.tools.compile_file(
            str(text), input_type="onnx", target_backends=["llvm-cpu"], extra_args=["--iree-llvmcpu-target-cpu=host"]
        )
    config = runtime.Config("local-sync")
    context = runtime.SystemContext(config=config)
    context.add_vm_module(runtime.VmModule.copy_buffer(config.vm_instance, binary))
    (module,) = (m for m in (context.modules[name] for name in context.modules.keys()) if m.name == "module")  # noqa: SIM118
    main = module[next(name for name in module.vm_module.function_names if not name.startswith("_") and "$" not in name)]

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        found = main(*(feed[name] for name in inputs))
        return [np.asarray(value) for value in (found if isinstance(found, (list, tuple)) else [found])]

    return run


def _tvm(path: Path) -> Run:
    tvm, relax, frontend = (import_module(name) for name in ("tvm", "tvm.relax", "tvm.relax.frontend.onnx"))
    inputs, _ = _names(path)
    module = frontend.from_onnx(onnx.load(path), keep_params_in_input=False)
    machine = relax.VirtualMachine(relax.build(relax.get_pipeline("zero")(module), target="llvm"), tvm.cpu())

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        found = machine["main"](*(tvm.runtime.tensor(feed[name]) for name in inputs))
        return [value.numpy() for value in (found if isinstance(found, (list, tuple)) or hasattr(found, "__len__") else [found])]

    return run


IMPORTERS: Mapping[str, Importer] = {
    "onnx.reference": Importer("onnx.reference", "onnx", _onnx_reference),
    "OpenVINO": Importer("openvino", "openvino", _openvino()),
    "OpenVINO, f32": Importer("openvino", "openvino", _openvino(INFERENCE_PRECISION_HINT="f32")),
    "OpenVINO, f32, no int8": Importer("openvino", "openvino", _openvino(INFERENCE_PRECISION_HINT="f32", LP_TRANSFORMS_MODE="NO")),
    "OpenCV": Importer("cv2", "opencv-python-headless", _opencv),
    "MNN": Importer("MNN", "MNN", _mnn),
    "IREE": Importer("iree.compiler", "iree-base-compiler iree-base-runtime", _iree),
    "TVM": Importer("tvm", "apache-tvm", _tvm),
}
"""By name."""
