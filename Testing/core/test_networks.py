"""The architectures: sizes as published, the identity at first, and what a Fourier neural operator promises."""

import math

import pytest
import torch
from neuralreg.networks import fno, unet
from neuralreg.networks.fno import FNOReg, SpectralConvolution, band_limited, from_modes, low_modes, tucker_ranks
from neuralreg.networks.unet import UNet


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("size", "encoder", "decoder", "published"),
    [
        ("voxelmorph-1", (16, 32, 32, 32), (32, 32, 32, 32, 8, 8), 259_675),
        ("voxelmorph-2", (16, 32, 32, 32), (32, 32, 32, 32, 32, 16, 16), 301_411),
        ("as TransMorph has it", (8, 32, 32, 32), (32, 32, 32, 32, 32, 8, 8), 274_387),
    ],
)
def test_unet_has_the_published_layers_and_number_of_parameters(size, encoder, decoder, published, monkeypatch):
    """Counts follow from the public lists of layers.

    Ours are those of the authors (github.com/voxelmorph/voxelmorph: vm1 and vm2 in pytorch/train.py of 2018), in the
    U-Net of their later voxelmorph/torch/networks.py, whose default is VoxelMorph-2. What TransMorph (MedIA 2022;
    IXI/Baseline_registration_methods/VoxelMorph/models.py of its authors) compares with under the name VoxelMorph-1 is
    another network, narrower at first and longer at the end.
    """
    monkeypatch.setitem(unet.SIZES, size, unet.SIZES.get(size, (encoder, decoder)))
    assert unet.SIZES[size] == (encoder, decoder)
    assert parameters(UNet(size)) == published


def test_paper_sized_fnoreg_is_hundreds_of_megabytes_and_the_compact_one_ships():
    """No count is published, the settings are (github.com/anac0der/fnoreg, deep_fourier_reg/params_3d.json): what they
    imply is one dense layer's weights, times 15 layers, times the rank."""
    settings = {"modes": (40, 48, 56), "width": 12, "projection": 24, "layers": 15, "rank": 0.42, "body": None}
    assert fno.SIZES["paper"] == settings
    with torch.device("meta"):
        paper, compact = (parameters(FNOReg(**fno.SIZES[size])) for size in ("paper", "compact"))
    assert (
        15 * 0.41 < paper / (2 * 12 * 12 * 40 * 48 * 29) < 15 * 0.43
    )  # 15 dense complex layers at rank 0.42, little else
    assert compact * 2 <= 20e6  # bytes in half precision


@pytest.mark.parametrize(
    "network",
    [
        UNet("voxelmorph-1"),
        UNet("voxelmorph-2", half_resolution=True),
        UNet("voxelmorph-2", pooling=True),
        FNOReg((6, 6, 6), width=4, layers=1, body=None),
        FNOReg((6, 6, 6), width=4, layers=1, body=(8, 8, 8), half_resolution=True),
    ],
    ids=["voxelmorph-1", "half", "pooling", "fno", "fno-half"],
)
@pytest.mark.parametrize("shape", [(17, 33, 17), (18, 21, 20)])
def test_shapes_and_identity_at_initialisation(network, shape):
    fixed, moving = torch.rand(2, 1, *shape), torch.rand(2, 1, *shape)
    field = network(fixed, moving)
    expected = tuple((n + 1) // 2 for n in shape) if network.half_resolution else shape
    assert field.shape == (2, 3, *expected)
    assert field.abs().max() < 0.01  # voxels


@pytest.mark.parametrize(
    "network",
    [UNet(dimensions=2), FNOReg(**fno.SIZES["compact-2d"]), FNOReg(**(fno.SIZES["paper-2d"] | {"layers": 1}))],
)
def test_networks_work_in_two_dimensions(network):
    image = torch.rand(1, 1, 48, 64)
    assert network(image, image).shape == (1, 2, 48, 64)


def band_limited_function(shape, generator_seed=0, highest=3):
    """The same random periodic function on [0, 1)³ whatever the lattice, as (1, 2, D, H, W)."""
    generator = torch.Generator().manual_seed(generator_seed)
    axes = torch.meshgrid(*(torch.arange(n) / n for n in shape), indexing="ij")
    channels = []
    for _ in range(2):
        waves = torch.randint(-highest, highest + 1, (12, 3), generator=generator)
        phases, heights = torch.rand(12, generator=generator), torch.randn(12, generator=generator)
        terms = [
            h * torch.cos(2 * math.pi * (sum(int(k) * x for k, x in zip(wave, axes, strict=True)) + p))
            for wave, p, h in zip(waves, phases, heights, strict=True)
        ]
        channels.append(sum(terms))
    return torch.stack(channels)[None]


COARSE, FINE = (8, 10, 12), (16, 20, 24)


def test_a_spectral_convolution_is_one_operator_at_every_sampling():
    """The law of resolution invariance: sampling and convolving commute, to the digits of float32."""
    torch.manual_seed(0)
    layer = SpectralConvolution(2, (8, 8, 8), rank=0.5)
    coarse, fine = layer(band_limited_function(COARSE)), layer(band_limited_function(FINE))
    torch.testing.assert_close(fine[:, :, ::2, ::2, ::2], coarse, atol=1e-5, rtol=1e-4)
    assert coarse.abs().max() > 0.1


def test_low_modes_and_from_modes_are_inverse_and_resample_exactly():
    spectrum = low_modes(band_limited_function(COARSE), (8, 8, 8))
    torch.testing.assert_close(from_modes(spectrum, FINE), band_limited_function(FINE), atol=1e-5, rtol=1e-4)


def test_band_limited_evaluates_a_periodic_function_anywhere():
    positions = [(torch.arange(n) + 0.5) / n for n in FINE]
    there = band_limited(band_limited_function(COARSE), positions, (8, 10, 12))
    denser = band_limited_function(tuple(2 * n for n in FINE))
    torch.testing.assert_close(there, denser[:, :, 1::2, 1::2, 1::2], atol=1e-4, rtol=1e-4)


def images(shape):
    """fixed, moving (1, 1, D, H, W): one continuous pair at any sampling."""
    return (0.3 * band_limited_function(shape)).split(1, dim=1)


@pytest.mark.parametrize("body", [None, (8, 8, 8)], ids=["paper", "compact"])
@pytest.mark.parametrize("training", [True, False])
def test_fnoreg_says_the_same_in_millimetres_at_half_and_full_sampling(body, training):
    torch.manual_seed(0)
    network = FNOReg((6, 6, 6), width=8, layers=2, rank=0.5, body=body).train(training)
    torch.nn.init.normal_(network.project[-1].weight)
    half, full = (network(*images(shape)) for shape in ((20, 20, 20), (40, 40, 40)))
    difference = (full[:, :, ::2, ::2, ::2] / 2 - half).abs().max() / half.abs().max()
    assert difference < 0.02  # not zero: pointwise functions make frequencies that the coarse lattice aliases


def test_fnoreg_says_of_a_pair_in_a_batch_and_at_inference_what_it_said_of_it_alone_in_training():
    torch.manual_seed(0)
    network = FNOReg((6, 6, 6), width=8, layers=2, rank=0.5, body=(8, 8, 8))
    torch.nn.init.normal_(network.project[-1].weight)
    fixed, moving = torch.rand(2, 2, 1, 12, 12, 12) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1, 1)
    alone = network(fixed[:1], moving[:1])
    torch.testing.assert_close(network(fixed, moving)[:1], alone, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(network.eval()(fixed[:1], moving[:1]), alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["fnoreg", "fnoreg compact", "voxelmorph"])
def test_what_is_learned_at_one_sampling_holds_at_another_in_fnoreg_and_not_in_a_unet(kind):
    """Oracle: a continuous field, known at every sampling, of which training saw one."""
    torch.manual_seed(0)
    body = (8, 8, 8) if kind == "fnoreg compact" else None
    network = UNet(width=0.5) if kind == "voxelmorph" else FNOReg((6, 6, 6), 8, layers=1, rank=0.5, body=body)
    seen, finer, other = (12, 12, 12), (24, 24, 24), (18, 24, 15)

    def error(shape):
        voxels = torch.tensor(shape[::-1]).view(1, 3, 1, 1, 1) / 12
        waves = [band_limited_function(shape, seed, highest=2) for seed in (2, 3)]
        answer = voxels * torch.cat(waves, dim=1)[:, :3]
        return (network(*images(shape)) - answer).norm() / answer.norm()

    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(120):
        optimiser.zero_grad()
        error(seen).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        learned, elsewhere = error(seen), max(error(finer), error(other))
    assert learned < 0.3
    assert elsewhere > 0.8 if kind == "voxelmorph" else elsewhere < learned + 0.1


def test_spectral_layers_stay_in_float32_under_autocast():
    torch.manual_seed(0)
    network = FNOReg((6, 6, 6), width=4, layers=2, body=(8, 8, 8)).eval()
    torch.nn.init.normal_(network.project[-1].weight)
    images = torch.rand(2, 1, 1, 16, 16, 16)
    exact = network(*images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(*images)
        assert network.layers[0].spectral(torch.rand(1, 4, 8, 8, 8).bfloat16()).dtype == torch.float32
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.25 * exact.norm()  # of 8 bits, and an untrained network on noise


def test_the_field_of_fnoreg_is_not_rounded_in_mixed_precision():
    """bfloat16 knows no number between 15 and 15.0625, in periods of the highest mode: here two voxels each."""
    network = FNOReg((6, 6, 6), width=4, layers=1, body=None)
    inner, last = network.project[0], network.project[-1]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inner.weight.zero_()
        inner.bias.fill_(1.0)
        last.weight.zero_()[:, 0] = 15.03
        field = network(*torch.rand(2, 1, 1, 12, 12, 12))
    assert (field - 30.06).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(17, 17, 17), (17, 33, 33), (33, 17, 17), (9, 9, 9)])
def test_mixed_precision_gives_the_gradients_of_full_precision(shape):
    """Down to lattices of one and two voxels, where kernels for bfloat16 may leave them unset: hence the NaNs."""
    torch.manual_seed(0)
    network = UNet("voxelmorph-1", half_resolution=True, width=0.5)
    torch.nn.init.normal_(network.field.weight, 0.0, 0.1)
    images, gradients = torch.rand(2, 1, 1, *shape), {}
    for precision in (torch.float32, torch.bfloat16):
        for _ in range(3):
            full = [torch.full((n,), math.nan) for n in (1_000, 10_000, 30_000, 100_000)]
            del full
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                field = network(*images)
            field.square().sum().backward()
            gradients.setdefault(precision, []).append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    exact = gradients[torch.float32][0]
    for rough in gradients[torch.bfloat16]:
        assert (rough - exact).norm() < 0.05 * exact.norm()


def test_tucker_ranks_keep_the_share_asked_for():
    shape = (12, 12, 40, 48, 29)
    ranks = tucker_ranks(shape, 0.42)
    kept = math.prod(ranks) + sum(n * r for n, r in zip(shape, ranks, strict=True))
    assert 0.36 < kept / math.prod(shape) <= 0.421
    assert tucker_ranks(shape, 1.5) == shape
