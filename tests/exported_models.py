"""A model of `imcsim.graph.exported` as an ONNX file, so that onnxruntime says what its nodes mean."""

import numpy as np

TYPES = {"float32": 1, "int64": 7, "bool": 9}


def as_onnx(model, input_types=()):
    """The ONNX model of the nodes and constants of *model*."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node(node.kind, node.inputs, node.outputs, node.name, domain=node.domain, **node.attributes)
        for node in model.nodes
    ]
    constants = [numpy_helper.from_array(np.array(array), name) for name, array in model.constants.items()]
    types = [*input_types, *["float32"] * len(model.inputs)]
    inputs = [
        helper.make_tensor_value_info(each.name, TYPES[kind], each.shape)
        for each, kind in zip(model.inputs, types, strict=False)
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in model.outputs]
    graph = helper.make_graph(nodes, "exported", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)], ir_version=10)


def run_onnx(model, arrays):
    """What onnxruntime makes of *arrays*, unoptimized; what it lacks is left to the reference of ONNX."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    file = as_onnx(model, [str(array.dtype) for array in arrays])
    given = {each.name: array for each, array in zip(model.inputs, arrays, strict=True)}
    try:
        session = onnxruntime.InferenceSession(file.SerializeToString(), options, ["CPUExecutionProvider"])
    except (onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented, RuntimeError):
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(file).run(None, given)
    return session.run(None, given)
