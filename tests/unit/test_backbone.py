"""Backbones: the graph computes the network, is cut where it is used, and repeats to the bit."""

import math
import zipfile
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from genba.core.problem import Problem
from genba.learn import backbone, backbone_lite
from genba.learn.backbone import Backbone, backbones, lite, load
from genba.learn.graph import Graph
from genba.learn.pooling import cells
from genba.learn.weights.pinned import load_weights
from genba.runs import downloads
from genba.runs.downloads import PackageFile
from genba.runs.progress import SilentProgress
from tests.unit.random_lite import NAME, random_weights

TAPS = ("4", "8", "16", "32", "head")
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def network() -> Backbone:
    return lite(NAME, random_weights(), "random")


def images(count: int, size: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    big = [np.asarray(Image.fromarray(c).resize((size, size))) for c in coarse]
    return np.stack(big)


class Plain:
    """The network as its torch code has it: one operation after the other, in float64."""

    def __init__(self) -> None:
        self.weights = {k: v.astype(np.float64) for k, v in random_weights().items()}

    def convolve(self, x: Floats, name: str, norm: str, stride: int = 1) -> Floats:
        w = self.weights[f"{name}.weight"]
        kernel, size = w.shape[2], x.shape[1]
        after = math.ceil(size / stride)
        total = max((after - 1) * stride + kernel - size, 0)
        pad = (total // 2, total - total // 2)
        x = np.pad(x, ((0, 0), pad, pad))
        view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
        view = view[:, ::stride, ::stride]
        if w.shape[1] == 1:
            made = np.einsum("chwij,cij->chw", view, w[:, 0])
        else:
            made = np.einsum("chwij,ocij->ohw", view, w, optimize=True)
        get = {p: self.weights[f"{norm}.{p}"][:, None, None] for p in ("weight", "bias")}
        mean = self.weights[f"{norm}.running_mean"][:, None, None]
        variance = self.weights[f"{norm}.running_var"][:, None, None]
        return np.asarray((made - mean) / np.sqrt(variance + 1e-3) * get["weight"] + get["bias"])

    def run(self, image: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        x = (image.astype(np.float64).transpose(2, 0, 1) - 127.0) / 128.0
        x = np.clip(self.convolve(x, "_conv_stem", "_bn0", 2), 0, 6)
        found: dict[str, Floats] = {}
        # Kernel and stride of each block as efficientnet_lite_pytorch builds lite0.
        kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
        total = 2
        for n, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            before, prefix = x, f"_blocks.{n}."
            assert self.weights[f"{prefix}_depthwise_conv.weight"].shape[2] == kernel
            if n:
                x = self.convolve(x, f"{prefix}_expand_conv", f"{prefix}_bn0")
                x = np.clip(x, 0, 6)
            x = self.convolve(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
            x = self.convolve(np.clip(x, 0, 6), f"{prefix}_project_conv", f"{prefix}_bn2")
            if stride == 1 and x.shape == before.shape:
                x = x + before
            total *= stride
            found[str(total)] = x
        x = np.clip(self.convolve(x, "_conv_head", "_bn1"), 0, 6)
        found["head"] = x.mean(axis=(1, 2))
        return found


@pytest.mark.parametrize("size", [32, 57])
def test_the_graph_computes_the_network(network: Backbone, size: int) -> None:
    image = images(1, size)
    made = network.features(image, TAPS)
    wanted = Plain().run(image[0])
    for tap in TAPS:
        assert made[tap].shape[1:] == network.shape(tap, size)
        scale = np.abs(wanted[tap]).max()
        assert scale > 0.1
        np.testing.assert_allclose(made[tap][0], wanted[tap], atol=1e-4 * scale)


@pytest.mark.parametrize("name", [NAME, "filters"])
def test_features_do_not_depend_on_batch_or_threads(network: Backbone, name: str) -> None:
    found = network if name == NAME else load(name)
    batch = images(40, 64)  # more than one slice
    whole = found.features(batch, ["8", "head"])
    for row in (0, 31, 39):
        alone = found.features(batch[row : row + 1], ["8", "head"], threads=2)
        for tap, values in alone.items():
            np.testing.assert_array_equal(values[0], whole[tap][row])
    assert found.features(batch[:0], ["head"])["head"].shape == (0, found.channels["head"])


@pytest.mark.parametrize("name", [NAME, "filters"])
def test_a_graph_is_cut_at_its_deepest_tap(network: Backbone, name: str) -> None:
    found = network if name == NAME else load(name)

    def nodes(taps: Sequence[str]) -> int:
        graph = Graph()
        named = found.graph_parts(graph, "image", size=64, taps=taps)
        assert sorted(named) == sorted(taps)
        last = {output for node in graph.nodes[-2:] for output in node.output}
        assert set(named.values()) & last or taps == ("4",)
        return len(graph.nodes)

    counts = [nodes(taps) for taps in (("4",), ("8",), ("8", "16"), ("4", "32"), ("head",))]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)


def test_a_cut_graph_leaves_the_weights_behind(network: Backbone) -> None:
    sizes = []
    for tap in ("16", "head"):
        graph = Graph()
        network.graph_parts(graph, "image", size=224, taps=[tap])
        sizes.append(sum(len(c.raw_data) for c in graph.constants))
    assert sizes[0] < 0.3 * sizes[1]


def test_no_batch_normalisation_is_left(network: Backbone) -> None:
    graph = Graph()
    network.graph_parts(graph, "image", size=224, taps=["head"])
    assert {n.op_type for n in graph.nodes} == {
        *("Transpose", "Cast", "Sub", "Mul", "Conv", "Clip", "Add", "GlobalAveragePool"),
        "Flatten",
    }


@pytest.mark.parametrize("size", [32, 33, 50, 64, 224])
def test_filters_take_every_size(size: int) -> None:
    found = load("filters")
    made = found.features(images(2, size), TAPS)
    for tap in TAPS:
        assert made[tap].shape == (2, *found.shape(tap, size))
        assert np.isfinite(made[tap]).all()


def test_filters_do_not_answer_to_a_plain_surface() -> None:
    plain = np.full((1, 64, 64, 3), 200, dtype=np.uint8)
    made = load("filters").features(plain, ["8"])["8"][0]
    maps, colour = made[:-3], made[-3:]
    assert np.abs(maps).max() < 0.02
    np.testing.assert_allclose(colour, (200 - 127) / 128, rtol=1e-5)


def test_filters_tell_directions_apart() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255  # waves along x, four pixels long
    both = np.stack([stripes, stripes.transpose(1, 0, 2)])
    along, across = load("filters").features(both, ["4"])["4"][:, :4].mean(axis=(2, 3))
    assert along.argmax() != across.argmax()
    assert along.max() > 5 * along[across.argmax()]


def test_a_network_too_small_for_its_name_is_refused() -> None:
    weights = random_weights()
    for name, why in (("_blocks.3._bn1.weight", "missing"), ("_conv_stem.weight", "missing")):
        broken = lite(NAME, {k: v for k, v in weights.items() if k != name}, "broken")
        with pytest.raises(Problem, match="G913") as caught:
            broken.features(images(1, 32), ["head"])
        assert why in caught.value.why
    broken = lite(NAME, {**weights, "_bn0.weight": np.ones(3, np.float32)}, "broken")
    with pytest.raises(Problem, match="G913"):
        broken.graph_parts(Graph(), "image", size=32, taps=["4"])


@pytest.mark.parametrize(
    ("size", "taps"), [(16, ("head",)), (4096, ("head",)), (64, ()), (64, ("64",))]
)
def test_what_a_backbone_does_not_have_is_refused(size: int, taps: tuple[str, ...]) -> None:
    with pytest.raises(Problem, match="G914"):
        load("filters").graph_parts(Graph(), "image", size=size, taps=taps)


def test_names_and_versions_are_checked() -> None:
    with pytest.raises(Problem, match="did you mean filters"):
        load("filter")
    found = load("filters", version=load("filters").version)
    assert found.name == "filters"
    with pytest.raises(Problem, match="another one"):
        load("filters", version="0" * 64)


def test_few_sessions_are_kept() -> None:
    found = load("filters")
    for size in (32, 40, 48, 56, 64, 72):
        found.features(images(1, size), ["4"])
    assert len(found._sessions) <= backbone._SESSIONS


def test_the_graph_is_valid_onnx(network: Backbone) -> None:
    for found in (network, load("filters")):
        onnx.checker.check_model(onnx.load_from_string(found._alone(64, ("8", "head"))))


SKIMAGE = PackageFile(
    requirement="scikit-image==0.26.0",
    file="scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    bytes=13_700_000,
)


@pytest.mark.network
@pytest.mark.parametrize("name", [n for n in backbones() if n in backbone_lite.VARIANTS])
def test_published_weights_know_what_they_see(name: str) -> None:
    """Classes 285 Egyptian cat and 967 espresso of ImageNet, as the torch code gives them."""
    weights = load_weights(name, SilentProgress())
    found = load(name)
    size = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}[name]
    with zipfile.ZipFile(downloads.fetch(SKIMAGE, SilentProgress())) as wheel:
        for file, wanted in (("chelsea", 285), ("coffee", 967)):
            picture = Image.open(BytesIO(wheel.read(f"skimage/data/{file}.png"))).convert("RGB")
            pixels = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
            head = found.features(pixels[None], ["head"])["head"][0]
            logits = weights["_fc.weight"] @ head + weights["_fc.bias"]
            p = np.exp(logits - logits.max())
            assert p.argmax() == wanted
            assert p.max() / p.sum() > 0.6


@pytest.mark.parametrize("size", [50, 64])
def test_taps_are_averaged_over_a_grid(network: Backbone, size: int) -> None:
    batch = images(2, size)
    for found in (network, load("filters")):
        made = found.features(batch, ["8", "8@1", "8@3", "16@2", "head"])
        assert {t: v.shape[1:] for t, v in made.items()} == {t: found.shape(t, size) for t in made}
        maps = made["8"].astype(np.float64)
        np.testing.assert_allclose(made["8@1"], maps.mean(axis=(2, 3)), atol=1e-5)
        weights = cells(maps.shape[2], 3)
        wanted = np.einsum("ih,nchw,jw->ncij", weights, maps, weights).reshape(2, -1)
        np.testing.assert_allclose(made["8@3"], wanted, atol=1e-5)


@pytest.mark.parametrize("tap", ["8@0", "8@", "8@x", "8@99", "head@2", "@2"])
def test_a_grid_that_makes_no_sense_is_refused(tap: str) -> None:
    with pytest.raises(Problem, match="G914"):
        load("filters").shape(tap, 64)
