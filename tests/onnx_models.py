"""Small ONNX files for tests: nodes put one behind the other, constants as initializers, a model of what is there."""

import numpy as np

QONNX = "qonnx.custom_op.general"


class Maker:
    """Puts nodes into a file; every method gives the name of what its node makes."""

    def __init__(self, opset=13, domain=QONNX, lists_initializers=False):
        self.opset, self.domain, self.lists_initializers = opset, domain, lists_initializers
        self.nodes, self.initializers, self.n_trunc_inputs = [], [], 0

    def constant(self, values, dtype=np.float32):
        """An initializer."""
        from onnx import numpy_helper

        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, kind, inputs, domain="", n_outputs=1, **attributes):
        """A node of *kind*, named after what it is and where it stands."""
        from onnx import helper

        name = f"{kind.lower()}{len(self.nodes)}"
        outputs = [name] + [f"{name}.{i}" for i in range(1, n_outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, domain=domain, **attributes))
        return name

    def quant(self, x, scale=1.0, zero=0.0, bits=4.0, *, signed=1, narrow=0, rounding="ROUND"):
        """A Quant."""
        parameters = [self.constant(values) for values in (scale, zero, bits)]
        return self.node(
            "Quant", [x, *parameters], self.domain, signed=signed, narrow=narrow, rounding_mode=rounding
        )  # fmt: skip

    def bipolar(self, x, scale=1.0):
        """A BipolarQuant."""
        return self.node("BipolarQuant", [x, self.constant(scale)], self.domain)

    def model(self, shape, *outputs, symbolic_batch=False, more_inputs=None, **options):
        """The model from an input ``x`` of *shape*, with the batch, to *outputs*; *more_inputs*: shapes by name."""
        from onnx import TensorProto, helper

        shapes = {"x": ["n" if symbolic_batch else shape[0], *shape[1:]], **(more_inputs or {})}
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()]
        if self.lists_initializers:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.initializers]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs]
        graph = helper.make_graph(self.nodes, "drawn", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(self.domain, 1)]
        return helper.make_model(graph, **({"opset_imports": opsets, "ir_version": 8} | options))

    def write(self, folder, shape, *outputs, **options):
        """The file of that model."""
        path = folder / "model.onnx"
        path.write_bytes(self.model(shape, *outputs, **options).SerializeToString())
        return path
