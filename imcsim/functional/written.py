"""Products of two activations as tiles compute them: for each sample and head the codes of one are the weights."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imcsim.functional.axes import channels_first, channels_last
from imcsim.functional.products import Multiplied, pack_weights, product_of
from imcsim.functional.reading import Reader
from imcsim.functional.statistics import Clipping, Occupancy
from imcsim.graph import Op, Product
from imcsim.mapping.plan import LayerPlan, Plan
from imcsim.mapping.written import codec_of_written

Array = np.ndarray


def written_product_of(
    plan: Plan, op: Op, layer: LayerPlan, codes: Array, other: Array, tiles: Reader, *, looks: bool
) -> Multiplied:
    """Return the sums (b ... c) of *codes* by the *other* tensor's, head by head; channels last."""
    step, product = op.written, op.product
    assert step is not None
    assert product is not None
    x, y = channels_first(codes), channels_first(other)
    if not step.is_transposed:
        y = y.swapaxes(-1, -2)
    y = np.broadcast_to(y, (*x.shape[:-2], *y.shape[-2:]))  # b ... n d
    shape = (len(x), product.groups)
    heads = x.reshape(*shape, *x.shape[-2:]), y.reshape(*shape, *y.shape[-2:])
    codec = codec_of_written(plan.graph.tensors[step.other].format)
    out = np.zeros((*shape, x.shape[-2], step.n_columns))
    clips, occupancy = Clipping(), list[Occupancy]()
    for b, g in np.ndindex(shape):
        held = Product(kind="linear", weights=codec.plane_sum(heads[1][b, g]))
        part = replace(op, product=held)
        done = product_of(
            plan, part, held, layer, heads[0][b, g], pack_weights(part, layer, plan.chip), tiles, looks=looks
        )
        out[b, g] = done.sums
        clips += done.clipping
        occupancy += [done.occupancy] if done.occupancy is not None else []
    sums = channels_last(out.reshape(*x.shape[:-1], step.n_columns))
    return Multiplied(sums, clips, _together(occupancy))


def _together(seen: Sequence[Occupancy]) -> Occupancy | None:
    total = None
    for occupancy in seen:
        total = occupancy if total is None else total + occupancy
    return total
