"""Imperfect tiles against loops over single reads, which share no code with the engine but the drawn maps."""

from functools import cache
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.arch.load import load_chip
from imcsim.functional.execute import run
from imcsim.functional.instance import ChipInstance
from imcsim.graph import BINARY, REAL, TERNARY, Format, Graph, Op, Product, Quantize, Tensor, Threshold

from imcsim.graph import integer, signed, unsigned  # isort: skip
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum, sign_magnitude

TINY = {"n_tiles": 6, "tile.n_columns": 12, "tile.n_pcus": 4}
STUCK = {"stuck_at_zero_probability": 0.1, "stuck_at_plus_probability": 0.1, "stuck_at_minus_probability": 0.05}
DEVIATING = {"adc_offset_counts": 0.6, "adc_gain_fraction": 0.2}
RESISTIVE = {"on_off_ratio": 23.0, "programming_fraction": 0.2, "drift_exponent": 0.05, "drift_exponent_spread": 0.02,
             "elapsed_s": 50.0, "basis": "assumed", "source": "a test"}  # fmt: skip


def chip(imperfections=(), resistive=None, **tile):
    overrides = TINY | {f"tile.{name}": value for name, value in tile.items()}
    overrides |= {f"tile.imperfections.{name}": value for name, value in dict(imperfections).items()}
    return load_chip("tim-dnn", overrides | {f"tile.resistive.{name}": v for name, v in (resistive or {}).items()})


def network(fmt, product, shape):
    if fmt.kind in ("binary", "ternary"):
        binary = fmt.kind == "binary"
        step = Threshold([[0.0]] if binary else [[-0.5, 0.5]], [-1, 1] if binary else [-1, 0, 1], fmt)
    else:
        step = Quantize(fmt)
    codes = Op(name="in", input="x", output=Tensor("codes", shape, fmt), steps=(step,))
    layer = Op(name="layer", input="codes", output=Tensor("y", product.shape(shape), REAL), product=product)
    return Graph(name="net", inputs=(Tensor("x", shape, REAL),), ops=(codes, layer), outputs=("y",))


def by_reads(plan, codes, instance):
    """Read block after block, column after column; *codes* (b ch h w); return (b c h w)."""
    spec, op, layer = plan.chip.tile, plan.op_of["layer"], plan.layers[1]
    product, fmt, codec = op.product, plan.graph.tensors["codes"].format, plan.codec(op)
    planes = codec.encode(codes)
    (kernel_h, kernel_w), width = product.kernel, product.n_columns
    out_h, out_w = codes.shape[2] - kernel_h + 1, codes.shape[3] - kernel_w + 1
    n_in = codes.shape[1] // product.groups
    out = np.zeros((len(codes), width * product.groups, out_h, out_w))

    @cache
    def maps(tile):
        stuck = instance.stuck_cells(spec, tile) if any(spec.imperfections.stuck_probabilities) else None
        return stuck, instance.adcs(spec, tile), instance.devices(spec, tile) if spec.resistive else None

    for b in range(len(codes)):
        for place_ in range(out_h * out_w):
            y, x = divmod(place_, out_w)
            vector = (b % plan.n_samples) * out_h * out_w + place_
            for group in range(product.groups):
                for round_ in layer.rounds:
                    for shard in round_.shards:
                        if shard.group != group or shard.replica != vector % layer.n_replicas:
                            continue
                        stuck, (gains, offsets), devices = maps(shard.tile)
                        for column in range(shard.column_start, shard.column_stop):
                            output, j = divmod(column, product.n_planes)
                            at_column = shard.column + column - shard.column_start
                            pcu = at_column // (spec.n_columns // spec.n_pcus)
                            weights = product.weights.planes[j, group * width + output]
                            for start in range(shard.row_start, shard.row_stop, spec.rows_per_access):
                                rows = range(start, min(start + spec.rows_per_access, shard.row_stop))
                                cells, inputs = [], {i: [] for i in range(len(planes))}
                                for row in rows:
                                    at_kernel, channel = divmod(row, n_in)
                                    ky, kx = divmod(at_kernel, kernel_w)
                                    at_row = shard.block * spec.rows_per_access + row - shard.row_start
                                    weight = weights[channel, ky, kx]
                                    if stuck is not None and stuck[at_row, at_column] != 2:
                                        weight = stuck[at_row, at_column]
                                    if devices is None:
                                        cells.append((float(weight == 1), float(weight == -1)))
                                    else:
                                        off = np.float32(1 / spec.resistive.on_off_ratio)
                                        plus, minus = devices[:, at_row, at_column]
                                        cells.append((plus * (np.float32(1) if weight == 1 else off),
                                                      minus * (np.float32(1) if weight == -1 else off)))  # fmt: skip
                                    for i, plane in enumerate(planes):
                                        inputs[i].append(plane[b, group * n_in + channel, y + ky, x + kx])

                                def read(side, driven, cells=cells, pcu=pcu, gains=gains, offsets=offsets):
                                    total = np.float32(0)
                                    for cell, value in zip(cells, driven, strict=True):
                                        if value:
                                            total = np.float32(total + cell[side if value > 0 else 1 - side])
                                    value = float(gains[side, pcu]) * float(total) + float(offsets[side, pcu])
                                    return min(max(floor(value + 0.5), 0), spec.count_max)

                                for i, factor in enumerate(codec.factors):
                                    driven = np.array(inputs[i])
                                    share = (
                                        factor
                                        * np.broadcast_to(product.weights.factors.reshape(product.n_planes, -1)[j], 99)[
                                            group * width + output
                                        ]
                                    )
                                    minus_w = np.broadcast_to(product.weights.minus.reshape(-1), 99)
                                    minus_w = minus_w[group * width + output]
                                    if layer.sense == "n":
                                        got = 2 * read(0, driven) - len(rows)
                                    elif minus_w == 1 and fmt.minus == 1 and not plan.graph.is_asymmetric(op):
                                        got = read(0, driven) - read(1, driven)
                                    else:
                                        positive = np.maximum(driven, 0)
                                        got = read(0, positive) - minus_w * read(1, positive)
                                        if layer.accesses_per_pass == 2:
                                            negative = np.maximum(-driven, 0)
                                            got -= fmt.minus * (read(0, negative) - minus_w * read(1, negative))
                                    out[b, group * width + output, y, x] += share * got
    correct = codec.offset * (np.maximum(product.weights.planes, 0)
                              - product.weights.minus * np.maximum(-product.weights.planes, 0))  # fmt: skip
    factors = product.weights.factors.reshape(product.n_planes, -1, 1, 1, 1)
    return out + (correct * factors).sum(axis=(0, 2, 3, 4))[:, None, None]


@settings(deadline=None, max_examples=25)
@given(
    fmt=st.sampled_from([TERNARY, BINARY, Format("ternary", 2, minus=0.625), unsigned(2), signed(3), integer(2)]),
    minus=st.sampled_from([1.0, 0.75]),
    n_planes=st.sampled_from([1, 1, 2]),
    serial=st.sampled_from(["bit", "trit"]),
    groups=st.sampled_from([1, 2]),
    rows_per_access=st.sampled_from([4, 6, 16, 24]),
    count_max=st.integers(1, 9),
    sense=st.sampled_from(["both", "n"]),
    imperfections=st.sampled_from([STUCK, DEVIATING, STUCK | DEVIATING]),
    resistive=st.sampled_from([None, RESISTIVE]),
    style=st.sampled_from(["spatial", "temporal"]),
    n_samples=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_an_imperfect_tile_is_what_its_reads_say(
    fmt, minus, n_planes, serial, groups, rows_per_access, count_max, sense, imperfections, resistive, style, n_samples,
    seed,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    shape = (4, 8 // groups, 2, 1)
    if n_planes == 2:
        weights = sign_magnitude(3).plane_sum(rng.integers(-3, 4, shape))
    else:
        codes = rng.choice([-1, 1], shape) if fmt == BINARY else rng.integers(-1, 2, shape)
        weights = PlaneSum(planes=codes[None], factors=[1], minus=minus)
    graph = network(fmt, Product(kind="conv2d", weights=weights, groups=groups), (8, 2, 2))
    tile = {"rows_per_access": rows_per_access, "n_rows": 2 * rows_per_access, "count_max": count_max}
    built = chip(imperfections, resistive, sense=sense, serial=serial, **tile)
    plan = place(graph, built, n_samples=n_samples, style=style)
    x = rng.choice([-1, 1], (3, 8, 2, 2)) if fmt == BINARY else rng.integers(fmt.low, fmt.high + 1, (3, 8, 2, 2))
    instance = ChipInstance(seed)
    expected = by_reads(plan, x, instance)
    assert run(plan, x * fmt.scale, instance=instance).outputs == pytest.approx(expected, abs=1e-9)
