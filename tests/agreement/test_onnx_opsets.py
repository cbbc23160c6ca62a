"""Models in the newest operator sets, which no runtime here takes yet, against ONNX's own reference evaluator.

The models are those that `test_qonnx_random` draws, with the quantizers as qonnx 1.0 computes them. From set 23 on the
operators that are taken got new types of numbers and nothing else: a model in them is the graph that it was before.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from onnx_models import QONNX
from test_qonnx_random import N_SAMPLES, is_near_a_limit, models

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")
pytest.importorskip("qonnx", reason="qonnx is not installed: nothing to compare with")

from onnx import helper, numpy_helper  # noqa: E402
from onnx.defs import get_all_schemas_with_history  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

from imcsim.functional.reference import reference  # noqa: E402
from imcsim.graph.qonnx.constants import FOLDED  # noqa: E402
from imcsim.graph.qonnx.file import OPSETS  # noqa: E402
from imcsim.graph.qonnx.operators import OPERATORS  # noqa: E402
from imcsim.workloads import load_workload  # noqa: E402

N_EXAMPLES = int(os.environ.get("IMCSIM_QONNX_EXAMPLES", "60")) // 4
NEWEST = (23, 24, 25, 26, 27)


def quantizers(domain):
    """The operators of QONNX for the reference evaluator."""
    from qonnx.custom_op.general.bipolar_quant import binary_quant
    from qonnx.custom_op.general.multithreshold import multithreshold
    from qonnx.custom_op.general.quant import quant
    from qonnx.custom_op.general.trunc import trunc_v1

    class Quant(OpRun):
        op_domain = domain

        def _run(self, x, scale, zero, bits, signed=1, narrow=1, rounding_mode="ROUND"):
            return (np.float32(quant(x, scale, zero, bits, signed, narrow, rounding_mode)),)

    class BipolarQuant(OpRun):
        op_domain = domain

        def _run(self, x, scale):
            return (np.float32(binary_quant(x, scale)),)

    class Trunc(OpRun):
        op_domain = domain

        def _run(self, x, scale, zero, in_bits, out_bits, rounding_mode="FLOOR"):
            return (np.float32(trunc_v1(x, scale, zero, in_bits, out_bits, rounding_mode)),)

    class MultiThreshold(OpRun):
        op_domain = QONNX

        def _run(self, x, limits, out_dtype=None, out_scale=1.0, out_bias=0.0, data_layout="NCHW"):
            return (np.float32(multithreshold(x, limits, out_scale, out_bias)),)

    return [Quant, BipolarQuant, Trunc, MultiThreshold]


@settings(max_examples=N_EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(drawn=models(opsets=NEWEST))
def test_a_model_in_the_newest_operators_gives_what_onnx_gives(drawn, tmp_path_factory):
    make, outputs, values, is_exact = drawn
    # the evaluator pads these otherwise than onnxruntime, which test_qonnx_random has, where a stride is not 1
    assume(not any(attribute.name == "auto_pad" for node in make.nodes for attribute in node.attribute))
    shape, *others = [array.shape[1:] for array in values.values()]
    more = [dict(zip(list(values)[1:], [(n, *dims) for dims in others], strict=True)) for n in (N_SAMPLES, 1)]
    model = make.model((N_SAMPLES, *shape), *outputs, more_inputs=more[0])
    model.opset_import.append(helper.make_opsetid(QONNX, 1))  # MultiThreshold has no older domain
    evaluator = ReferenceEvaluator(model, new_ops=quantizers(make.domain))
    context = evaluator.run(None, values, intermediate=True)
    context |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assume(is_exact or not is_near_a_limit(model, context))
    graph = load_workload(make.write(tmp_path_factory.getbasetemp(), (1, *shape), *outputs, more_inputs=more[1]))
    found = reference(graph, {each.name: values[each.name].reshape(N_SAMPLES, *each.shape) for each in graph.inputs})
    for name, array in (found if len(outputs) > 1 else {outputs[0]: found}).items():
        expected = context[name]
        tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(array.reshape(expected.shape), expected, rtol=0, atol=tolerance)


def test_the_operators_that_are_taken_have_new_types_alone_since_set_22():
    known = {("Cast", "round_mode"), ("Range", "stash_type")}  # of numbers of 8 and of 16 bits, which are not taken
    known |= {("QuantizeLinear", "precision"), ("DequantizeLinear", "output_dtype")}  # less than float32 is refused
    versions = {}
    for schema in get_all_schemas_with_history():
        if schema.domain == "" and schema.name in {*OPERATORS, *FOLDED} and schema.since_version <= OPSETS[1]:
            versions.setdefault(schema.name, []).append(schema)
    fresh = set()
    for name, schemas in versions.items():
        schemas.sort(key=lambda schema: schema.since_version)
        old = [schema for schema in schemas if schema.since_version <= NEWEST[0] - 1]
        before = old[-1] if old else schemas[0]  # RMSNormalization and Swish are younger
        for schema in schemas[schemas.index(before) :]:
            assert [(x.name, x.option) for x in schema.inputs] == [(x.name, x.option) for x in before.inputs]
            fresh |= {(name, attribute) for attribute in set(schema.attributes) ^ set(before.attributes)}
    assert {*OPERATORS, *FOLDED} == set(versions)
    assert fresh <= known
