"""The products on a device of torch against the compiled kernels, bit for bit; torch's own "cpu" is there always."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import inputs_of, seeds, tim_dnn_with

from imcsim import execute
from imcsim.errors import ConfigError
from imcsim.functional import device as devices
from imcsim.functional import kernels, torch_kernels
from imcsim.functional.device import COMPILED, add_pass, counting_on, fetched, keeping_sums
from imcsim.functional.execute import run
from imcsim.functional.torch_kernels import TorchKernels, whole_type
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Format,
    Graph,
    LayerAttrs,
    Op,
    Product,
    Quantize,
    Tensor,
    Threshold,
    integer,
    signed,
    unsigned,
)
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum, sign_magnitude
from imcsim.ternary.packing import pack_matrix, pack_vectors

FORMATS = [BINARY, TERNARY, Format("ternary", 2, minus=0.625), unsigned(2), unsigned(4), signed(3), integer(3)]


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return torch.device(request.param)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Misreads of every count, many of them."""
    path = tmp_path_factory.mktemp("table") / "misreads.csv"
    lines = [f"{n},{0.02 * (n > 0)},{0.03 if n % 2 else 0.01}\n" for n in range(17)]
    path.write_text("n,lower,higher\n" + "".join(lines))
    return str(path)


def ternary(rng, shape):
    return (rng.choice([-1, 1], shape) * (rng.random(shape) < rng.choice([0.5, 0.9, 1.0]))).astype(np.int8)


def network(fmt, product, shape):
    """A network whose input is codes: what comes in is what the product reads."""
    quantizer = Quantize(fmt)
    if fmt.kind in ("binary", "ternary"):
        thresholds, codes = ([0.0], [-1, 1]) if fmt.kind == "binary" else ([-0.5, 0.5], [-1, 0, 1])
        quantizer = Threshold([thresholds], codes, fmt)
    return Graph(
        name="net",
        inputs=(Tensor("x", shape, REAL),),
        ops=(
            Op(name="in", input="x", output=Tensor("codes", shape, fmt), steps=(quantizer,)),
            Op(name="layer", input="codes", output=Tensor("y", product.shape(shape), REAL), product=product),
        ),
        outputs=("y",),
    )


def weights_of(kind, shape, rng):
    if kind == "two planes":
        return sign_magnitude(3).plane_sum(rng.integers(-3, 4, shape))
    if kind == "dense":
        return PlaneSum(planes=rng.choice([-1, 1], (1, *shape)), factors=[1])
    minus = rng.uniform(0.25, 2.0, (shape[0],) + (1,) * (len(shape) - 1)) if kind == "asymmetric" else 1.0
    return PlaneSum(planes=rng.integers(-1, 2, (1, *shape)), factors=[1], minus=minus)


def everything(found):
    """All that an execution gave, bit for bit."""
    seen = {name: (o.n.tolist(), o.k.tolist(), o.n_rows) for name, o in found.occupancy.items()}
    return found.outputs.dtype, found.outputs.tobytes(), found.clipping, seen


@settings(max_examples=30)
@given(data=st.data())
def test_a_convolution_on_a_device_gives_the_same_bits_clips_misreads_and_occupancy(device, table, data):
    draw = data.draw
    rng = np.random.default_rng(draw(seeds()))
    fmt = draw(st.sampled_from(FORMATS))
    kind = draw(st.sampled_from(["ternary", "asymmetric", "two planes", "dense"]))
    groups, n_channels = draw(st.sampled_from([(1, 3), (1, 4), (1, 8), (2, 6), (3, 12)]))
    window = {
        name: (draw(st.integers(low, high)), draw(st.integers(low, high)))
        for name, low, high in (("stride", 1, 2), ("padding", 0, 2), ("dilation", 1, 2))
    }
    pad = draw(st.sampled_from([0, *range(max(-1, fmt.low), 2)]))
    shape = (groups * draw(st.integers(1, 5)), n_channels // groups, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    product = Product(kind="conv2d", weights=weights_of(kind, shape, rng), groups=groups, **window,
                      attrs=LayerAttrs(pad_value=pad))  # fmt: skip
    graph = network(fmt, product, (n_channels, draw(st.integers(5, 9)), draw(st.integers(5, 7))))
    rows = draw(st.sampled_from([1, 4, 7, 16, 32, 256]))
    changes = {
        "tile.rows_per_access": rows,
        "tile.n_rows": rows * 256,
        "tile.n_columns": 32,
        "tile.n_pcus": 1,
        "tile.count_max": draw(st.sampled_from([1, 3, 8, 16, 300])),
        "tile.serial": draw(st.sampled_from(["bit", "trit"])),
        "tile.sense": draw(st.sampled_from(["both", "n"])),
    }
    if draw(st.booleans()) and min(changes["tile.count_max"], rows) <= 16:
        changes["tile.misreads"] = table
    plan = place(graph, tim_dnn_with(changes))
    x = inputs_of(graph, draw(st.integers(0, 4)), draw(seeds()))
    here, there = (run(plan, x, rng=np.random.default_rng(5), device=where) for where in ("cpu", device))
    assert everything(there) == everything(here)


def test_what_is_compared_clips_and_is_misread(device, table):
    rng = np.random.default_rng(0)
    graph = network(unsigned(2), Product(kind="linear", weights=weights_of("dense", (40, 200), rng)), (200,))
    plan = place(graph, tim_dnn_with({"tile.count_max": 3, "tile.misreads": table}))
    x = inputs_of(graph, 300)
    here, there = (run(plan, x, rng=np.random.default_rng(5), device=where) for where in (None, device))
    assert everything(there) == everything(here)
    assert there.total.n_misreads > 1000
    assert there.total.n_clipped_conversions > 1000
    assert there.occupancy["layer"].n.sum() > 0
    same = execute(plan, x, rng=np.random.default_rng(5), device=device)
    assert same.tobytes() == here.outputs.tobytes()


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 12), st.integers(0, 90), st.integers(0, 20)),
    rows_per_access=st.sampled_from([1, 4, 6, 16, 33, 200]),
    count_max=st.sampled_from([1, 2, 8, 16, 1 << 40]),
    columns_per_tile=st.sampled_from([1, 7, 256]),
    most_numbers=st.sampled_from([1000, 5000, 50_000]),
    seed=seeds(),
)
def test_parts_of_any_size_give_the_counts_of_the_kernels(
    device, shape, rows_per_access, count_max, columns_per_tile, most_numbers, seed
):
    rng = np.random.default_rng(seed)
    b, r, c = shape
    x, w = ternary(rng, (b, r)), pack_matrix(ternary(rng, (r, c)), rows_per_access)
    ours = TorchKernels(str(device), most_numbers)
    packed = pack_vectors(x, rows_per_access)
    there = ours.pack_vectors_fast(x, rows_per_access)
    assert np.array_equal(there.codes, packed.codes)
    limits = {"count_max": count_max, "columns_per_tile": columns_per_tile}
    for drive in ("signed", "positive", "negative"):
        for vectors in (there.driven(drive), packed.driven(drive))[: 2 if drive == "signed" else 1]:
            for name in ("clipped_product", "clipped_counts"):
                expected = vars(getattr(kernels, name)(packed.driven(drive), w, **limits))
                found = vars(getattr(ours, name)(vectors, w, **limits))
                assert found.keys() == expected.keys()
                for field, value in expected.items():
                    np.testing.assert_array_equal(found[field], value, err_msg=f"{name}.{field}", strict=True)
            if b:
                np.testing.assert_array_equal(
                    ours.count_histograms(vectors, w), kernels.count_histograms(packed.driven(drive), w)
                )


def test_counts_are_those_of_a_product_of_whole_numbers(device):
    """Against numpy alone: what the kernels might share with their likeness in torch cannot hide here."""
    rng = np.random.default_rng(1)
    x, w = ternary(rng, (20, 4500)), ternary(rng, (4500, 9))
    ours = TorchKernels(str(device))
    vectors, matrix = ours.pack_vectors_fast(x, 16), pack_matrix(w, 16)
    assert np.array_equal(ours.clipped_product(vectors, matrix, count_max=16).total, x @ w.astype(np.int64))
    blocks = np.pad(x, ((0, 0), (0, 12))).reshape(20, -1, 16).astype(np.int64), np.pad(w, ((0, 12), (0, 0)))
    d = np.einsum("bgr,grc->bgc", blocks[0], blocks[1].reshape(-1, 16, 9))
    a = np.einsum("bgr,grc->bgc", abs(blocks[0]), abs(blocks[1].reshape(-1, 16, 9)))
    n, k = (a + d) // 2, (a - d) // 2
    found = ours.clipped_counts(vectors, matrix, count_max=4, columns_per_tile=4)
    assert np.array_equal(found.plus, np.minimum(n, 4).sum(axis=1))
    assert np.array_equal(found.minus, np.minimum(k, 4).sum(axis=1))
    above = np.maximum(n, k) > 4
    assert found.n_clipped_conversions == above.sum() > 0
    tiles = [above[:, :, first : first + 4].any(axis=2).sum() for first in (0, 4, 8)]
    assert found.n_clipped_accesses == sum(tiles)


@pytest.mark.parametrize("bound", [2048, 2049, 1 << 24, (1 << 24) + 1])
def test_every_type_holds_the_whole_numbers_that_it_is_chosen_for(bound):
    for where in ("cpu", "cuda"):
        numbers = torch.arange(bound - 5, bound + 1)
        assert torch.equal(numbers.to(whole_type(bound, where)).long(), numbers)


def test_half_precision_is_exact_where_a_gpu_would_use_it(monkeypatch):
    """A GPU counts in float16; processors can too, so that its sums are tried where there is none."""
    monkeypatch.setattr(torch_kernels, "whole_type", lambda bound, _: whole_type(bound, "cuda"))
    ones = np.ones((1, 2100), np.int8)
    for rows_per_access, count_max in ((16, 16), (16, 5), (2048, 2000), (2100, 2099)):
        ours, matrix = TorchKernels("cpu"), pack_matrix(ones.T, rows_per_access)
        found = ours.clipped_counts(ours.pack_vectors_fast(ones, rows_per_access), matrix, count_max=count_max)
        assert (
            found.plus.tolist()
            == kernels.clipped_counts(pack_vectors(ones, rows_per_access), matrix, count_max=count_max).plus.tolist()
        )
        assert not found.minus.any()


@pytest.mark.parametrize(("factor", "bound"), [(128, 1 << 20), (1 << 30, 1 << 40)])
def test_passes_add_up_to_the_same_numbers_and_type_on_a_device(device, factor, bound):
    part = np.arange(-6, 6, dtype=np.int32).reshape(3, 4)
    there = [torch.from_numpy(part).to(device)]
    here, totals = add_pass([], [part], factor, bound), add_pass([], there, factor, bound)
    here, totals = add_pass(here, [part], 3, bound), fetched(add_pass(totals, there, 3, bound))
    np.testing.assert_array_equal(totals[0], here[0], strict=True)
    assert here[0].tolist() == ((factor + 3) * part.astype(np.int64)).tolist()


def test_the_number_of_threads_of_torch_changes_no_bit():
    rng = np.random.default_rng(2)
    x, w = ternary(rng, (50, 100)), pack_matrix(ternary(rng, (100, 60)), 16)
    results, before = set(), torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            ours = TorchKernels("cpu")
            results.add(ours.clipped_product(ours.pack_vectors_fast(x, 16), w, count_max=3).total.tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(results) == 1


def test_weights_stay_on_a_device_as_long_as_they_are_held_here():
    ours, matrix = TorchKernels("cpu"), pack_matrix(np.ones((8, 2), np.int8), 4)
    for _ in range(2):
        ours.clipped_counts(pack_vectors(np.ones((1, 8)), 4), matrix, count_max=2)
    assert len(ours._weights) == 1
    del matrix
    assert not ours._weights


# --- Choosing a device ----------------------------------------------------------------------------------------------


def test_without_a_device_the_compiled_kernels_count():
    assert counting_on(None) is counting_on("cpu") is COMPILED is keeping_sums(COMPILED)
    assert counting_on(torch.device("cpu")) is not COMPILED


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda0", "cpu:0", ""])
def test_another_device_is_refused(name):
    with pytest.raises(ConfigError, match=f"^device: must be cpu, cuda, cuda:NUMBER or auto, got '{name}'$"):
        counting_on(name)


@pytest.mark.parametrize(("gpus", "name", "seen"), [(0, "cuda", "none"), (0, "cuda:1", "none"),
                                                    (2, "cuda:2", "cuda:0, cuda:1")])  # fmt: skip
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, gpus, name, seen):
    monkeypatch.setattr(torch_kernels, "n_gpus", lambda: gpus)
    with pytest.raises(ConfigError, match=f"^device: {name} needs a GPU that torch sees, got {seen}; leave it out$"):
        counting_on(name)


def test_auto_takes_a_gpu_only_where_one_is_and_works(monkeypatch):
    monkeypatch.setattr(torch_kernels, "n_gpus", lambda: 0)
    assert counting_on("auto") is COMPILED
    monkeypatch.setattr(torch_kernels, "n_gpus", lambda: 1)
    working = TorchKernels("cpu")
    monkeypatch.setattr(devices, "_tried", lambda name: (working, ""))
    assert counting_on("auto") is working
    monkeypatch.setattr(devices, "_tried", lambda name: (working, "no kernel image"))
    assert counting_on("auto") is COMPILED
    with pytest.raises(
        ConfigError, match=r"^device: cuda must give the bits of the compiled kernels, got no kernel image"
    ):
        counting_on("cuda")


@pytest.mark.parametrize("name", ["pack_patches", "clipped_product", "clipped_counts", "count_histograms"])
def test_a_device_that_gives_other_bits_is_found_out(monkeypatch, name):
    right = getattr(TorchKernels, name)

    def wrong(self, x, *args, **options):
        found = right(self, x, *args, **options)
        numbers = {"pack_patches": lambda: found.codes, "clipped_product": lambda: found.total,
                   "clipped_counts": lambda: found.minus, "count_histograms": lambda: found}[name]()  # fmt: skip
        numbers[-1, -1] += 1
        return found

    assert devices._difference_from_kernels(TorchKernels("cpu")) == ""
    monkeypatch.setattr(TorchKernels, name, wrong)
    assert devices._difference_from_kernels(TorchKernels("cpu")) == f"others from {name}"


def test_a_device_that_fails_is_found_out(monkeypatch):
    def fail(self, *args, **options):
        raise RuntimeError("no kernel image is available\nfor this GPU")

    monkeypatch.setattr(TorchKernels, "pack_patches", fail)
    assert devices._tried.__wrapped__("cpu")[1] == "no kernel image is available"
