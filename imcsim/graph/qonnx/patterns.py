"""Chains of nodes that exporters write for one layer: a layer norm, a GELU, a SiLU, put back into one node.

Files of an opset below 17 (layer norm), 20 (Gelu) or 24 (Swish) have no node for them. A chain is taken where its
numbers are those of the layer and the nodes in between are read by nobody else.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import isclose, sqrt

import numpy as np

from imcsim.graph.qonnx.model import Model, Node


def recognized(model: Model) -> Model:
    """Return *model* with one node for each chain that is known; the rest stays as it is."""
    view = _View(model)
    made: dict[str, Node] = {}
    gone: set[str] = set()
    for node in model.nodes:
        for find in (_norm, _gelu, _silu):
            found = find(view, node)
            if found is not None:
                whole, between = found
                made[node.outputs[0]] = replace(whole, name=node.name, outputs=node.outputs[:1])
                gone.update(output for inner in between for output in inner.outputs)
                break
    if not made:
        return model
    nodes = [made.get(node.outputs[0], node) for node in model.nodes]
    while True:  # what nobody reads any more goes, from behind
        read = {name for node in nodes for name in node.inputs} | set(model.outputs)
        left = [node for node in nodes if not (gone.intersection(node.outputs) and not read.intersection(node.outputs))]
        if len(left) == len(nodes):
            return replace(model, nodes=tuple(nodes))
        nodes = left


Found = tuple[Node, list[Node]]
"""The one node, and those of the chain before its last."""


class _View:
    """Who makes and who reads each tensor of a model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.maker = {output: node for node in model.nodes for output in node.outputs if output}
        self.readers = Counter(name for node in model.nodes for name in node.inputs)
        self.readers.update(model.outputs)

    def made_by(self, name: str, *kinds: str) -> Node | None:
        """Return the node that makes the tensor *name*, where it is of one of the *kinds*."""
        node = self.maker.get(name)
        return node if node is not None and node.kind in kinds and node.domain in ("", "ai.onnx") else None

    def number(self, name: str) -> float | None:
        """Return the one number that the constant *name* is."""
        values = self.model.constants.get(name)
        node = self.maker.get(name)
        if values is None and node is not None and node.kind == "Constant":
            values = next((v for key, v in node.attributes.items() if key.startswith("value") and v is not None), None)
        if values is None or np.size(values) != 1 or np.asarray(values).dtype.kind not in "fiu":
            return None
        return float(np.asarray(values).reshape(-1)[0])

    def is_number(self, name: str, wanted: float) -> bool:
        """Whether *name* is the constant *wanted*, as float32 has it."""
        found = self.number(name)
        return found is not None and isclose(found, wanted, rel_tol=1e-6)

    def pairs(self, node: Node) -> Iterator[tuple[str, str]]:
        """Yield the two inputs of *node* in both orders."""
        if len(node.inputs) == 2:
            yield node.inputs[0], node.inputs[1]
            yield node.inputs[1], node.inputs[0]

    def axes(self, node: Node) -> tuple[int, ...] | None:
        """Return the axes of a ReduceMean that keeps them, which must be the last ones, counted from behind."""
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1 and node.inputs[1] in self.model.constants:
            axes = tuple(int(axis) for axis in self.model.constants[node.inputs[1]].reshape(-1))
        if axes is None and len(node.inputs) > 1 and (made := self.made_by(node.inputs[1], "Constant")) is not None:
            axes = tuple(int(axis) for axis in np.asarray(made.attributes.get("value", ())).reshape(-1))
        wanted = tuple(range(-len(axes), 0)) if axes else None
        return wanted if axes and tuple(sorted(axes)) == wanted and node.attributes.get("keepdims", 1) else None

    def only(self, node: Node, n: int = 1) -> bool:
        """Whether nobody else than *n* nodes of the chain reads what *node* makes."""
        return self.readers[node.outputs[0]] == n


def _norm(view: _View, last: Node) -> Found | None:
    """``d / sqrt(mean(d * d) + eps)``, where d is x, or x without its mean."""
    if last.kind == "Div" and len(last.inputs) == 2:
        normed, roots = last.inputs[0], [last.inputs[1]]
        between: list[Node] = []
    elif last.kind == "Mul" and len(last.inputs) == 2:
        inverse = [(x, node) for x, y in view.pairs(last) if (node := view.made_by(y, "Reciprocal", "Div")) is not None]
        if len(inverse) != 1 or not view.only(inverse[0][1]):
            return None
        normed, node = inverse[0]
        if node.kind == "Div" and not view.is_number(node.inputs[0], 1.0):
            return None
        roots, between = [node.inputs[-1]], [node]
    else:
        return None
    chain: list[Node] = [*between]
    root = view.made_by(roots[0], "Sqrt")
    added = view.made_by(root.inputs[0], "Add") if root is not None else None
    if root is None or added is None or not (view.only(root) and view.only(added)):
        return None
    found = next(((mean, eps) for mean, e in view.pairs(added) if (eps := view.number(e)) is not None), None)
    mean = view.made_by(found[0], "ReduceMean") if found is not None else None
    if found is None or mean is None or not view.only(mean):
        return None
    square = view.made_by(mean.inputs[0], "Pow", "Mul")
    if square is None or not view.only(square) or square.inputs[0] != normed:
        return None
    if not (view.is_number(square.inputs[1], 2.0) if square.kind == "Pow" else square.inputs[1] == normed):
        return None
    axes = view.axes(mean)
    if axes is None:
        return None
    chain += [root, added, mean, square]
    said = {"axis": axes[0], "epsilon": found[1]}
    centred = view.made_by(normed, "Sub")
    of = view.made_by(centred.inputs[1], "ReduceMean") if centred is not None else None
    if centred is not None and of is not None and of.inputs[0] == centred.inputs[0] and view.axes(of) == axes:
        is_whole = view.only(of) and view.only(centred, 3 if square.kind == "Mul" else 2)
        node = Node("LayerNormalization", "", "", (centred.inputs[0],), (), said)
        return (node, [*chain, centred, of]) if is_whole else None
    return Node("RMSNormalization", "", "", (normed,), (), said), chain


def _gelu(view: _View, last: Node) -> Found | None:
    """``0.5 * x * (1 + erf(x / sqrt(2)))``, multiplied in any order."""
    if last.kind != "Mul":
        return None
    factors, nodes = _factors(view, last)
    halves = [name for name in factors if view.is_number(name, 0.5)]
    sums = [node for name in factors if (node := view.made_by(name, "Add")) is not None and view.only(node)]
    if len(factors) != 3 or len(halves) != 1 or len(sums) != 1:
        return None
    (x,) = (name for name in factors if name != halves[0] and name != sums[0].outputs[0])
    raised = next((view.made_by(e, "Erf") for e, one in view.pairs(sums[0]) if view.is_number(one, 1.0)), None)
    if raised is None or not view.only(raised):
        return None
    scaled = view.made_by(raised.inputs[0], "Div", "Mul")
    if scaled is None or not view.only(scaled) or scaled.inputs[0] != x:
        return None
    if not view.is_number(scaled.inputs[1], sqrt(2) if scaled.kind == "Div" else sqrt(0.5)):
        return None
    return Node("Gelu", "", "", (x,), (), {}), [*nodes, sums[0], raised, scaled]


def _factors(view: _View, last: Node) -> tuple[list[str], list[Node]]:
    """Return what is multiplied in *last* and in a product that it alone reads, and that product."""
    for inner, other in view.pairs(last):
        node = view.made_by(inner, "Mul")
        if node is not None and view.only(node) and len(node.inputs) == 2:
            return [*node.inputs, other], [node]
    return list(last.inputs), []


def _silu(view: _View, last: Node) -> Found | None:
    """``x * sigmoid(x)``."""
    if last.kind != "Mul":
        return None
    for x, y in view.pairs(last):
        node = view.made_by(y, "Sigmoid")
        if node is not None and view.only(node) and node.inputs[0] == x:
            return Node("Swish", "", "", (x,), (), {}), [node]
    return None
