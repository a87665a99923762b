"""How a network sees a pair: images there and fields back without a shift, a swap or a wrong unit."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from neuralreg import feedforward, weights
from neuralreg.domain import appearance, domain_of, unlike
from neuralreg.feedforward import Lens, displacements, predict
from neuralreg.image import Grid, Image, centre_of_mass
from neuralreg.job import Cancelled, Monitor, RegistrationError
from neuralreg.methods import start
from neuralreg.methods.cas_dnvf import CasDNVF
from neuralreg.methods.fnoreg import FNOReg
from neuralreg.methods.voxelmorph import VoxelMorph
from neuralreg.optimise import Fit
from neuralreg.phantom import make_phantom
from neuralreg.preprocess import Pair, normalised
from neuralreg.sampling import identity, warp
from neuralreg.weights import Checkpoint, Manifest

SPACING = (1.0, 1.5, 2.0)  # x, y, z
SHAPE = (24, 30, 40)
MANIFEST = Manifest(
    "VoxelMorph", {"size": "voxelmorph-1", "half_resolution": True}, 2.5, (17, 17, 17), either_order=False
)


def bright_blob(shape=SHAPE, spacing=SPACING, centre_mm=(20.0, 22.0, 24.0), width_mm=6.0):
    points = identity(shape, torch.zeros(1)) * torch.tensor(spacing).view(1, 3, 1, 1, 1)
    offset = points - torch.tensor(centre_mm).view(1, 3, 1, 1, 1)
    return torch.exp(-offset.square().sum(1, keepdim=True) / (2 * width_mm**2))


class Mover(torch.nn.Module):
    """A "network" whose velocity is a constant in mm of the world, through whatever lens it looks."""

    def __init__(self, mm, lens_spacing, orientation):
        super().__init__()
        columns = [np.eye(3)[feedforward.WORLD[c][0]] * feedforward.WORLD[c][1] for c in orientation]
        self.voxels = torch.tensor(np.array(columns) @ np.array(mm) / lens_spacing).float()
        self.seen = None

    def forward(self, fixed, moving):
        self.seen = fixed
        return self.voxels.view(1, 3, 1, 1, 1).expand(1, 3, *((n + 1) // 2 for n in fixed.shape[2:]))


@pytest.mark.parametrize("orientation", ["LPS", "AIL", "RPI"])
def test_a_constant_velocity_keeps_its_millimetres_through_every_lens(monkeypatch, orientation):
    mm = (3.0, -2.0, 1.0)
    network = Mover(mm, 2.5, orientation)
    monkeypatch.setattr(feedforward, "network_of", lambda checkpoint: network)
    checkpoint = Checkpoint(dataclasses.replace(MANIFEST, orientation=orientation), {})
    image, shape = bright_blob(), (12, 15, 20)
    field = predict(checkpoint, image, image, SPACING, shape)
    spacing = [s * (n - 1) / (m - 1) for s, n, m in zip(SPACING, SHAPE[::-1], shape[::-1], strict=True)]
    middle = field[0, :, 5:7, 6:9, 9:11] * torch.tensor(spacing).view(3, 1, 1, 1)
    for axis in range(3):
        torch.testing.assert_close(middle[axis], torch.full_like(middle[axis], mm[axis]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("orientation", ["LPS", "AIL", "RPI"])
@pytest.mark.parametrize("method", ["VoxelMorph", "FNOReg"])
def test_a_lens_shows_the_image_where_it_is(orientation, method):
    """Oracle: the blob's centre of mass on the network's lattice, mapped back, is its centre in the working grid."""
    manifest = dataclasses.replace(MANIFEST, method=method, orientation=orientation, lattice=(33, 33, 33))
    image = bright_blob()
    lens = Lens.of(Checkpoint(manifest, {}), image, SPACING)
    seen = centre_of_mass(lens.view(image)[0, 0])
    back = lens.working_from_network @ np.append(seen, 1.0)
    np.testing.assert_allclose(back[:3], centre_of_mass(image[0, 0]), atol=0.35)
    assert abs(np.linalg.det(lens.working_from_network[:3, :3])) == pytest.approx(2.5**3 / np.prod(SPACING))
    if method == "VoxelMorph":  # all of the working grid, whatever the network was trained on
        assert all((n - 1) % 16 == 0 for n in lens.shape)
        middle = lens.working_from_network @ [*(np.array(lens.shape[::-1]) - 1) / 2, 1]
        np.testing.assert_allclose(middle[:3], (np.array(SHAPE[::-1]) - 1) / 2)


def test_a_plain_field_is_the_displacement_itself():
    field = torch.randn(1, 3, 5, 6, 7)
    there, back = displacements(field, (5, 6, 7), 7, diffeomorphic=False)
    assert back is None
    torch.testing.assert_close(there, field)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks of both kinds, with a last layer large enough to move something."""
    folder, paths = tmp_path_factory.mktemp("models"), {}
    torch.manual_seed(0)
    options = {
        "VoxelMorph": {"size": "voxelmorph-1", "half_resolution": True},
        "FNOReg": {"modes": [6, 6, 6], "width": 4, "layers": 1, "body": [8, 8, 8], "half_resolution": True},
    }
    for method, network_options in options.items():
        network = feedforward.build(method, network_options)
        last = network.field if method == "VoxelMorph" else network.project[-1]
        torch.nn.init.normal_(last.weight, 0.0, 0.05)
        paths[method] = str(folder / f"{method}.pt")
        weights.save(paths[method], network, Manifest(method, network_options, 2.0, (17, 17, 17)))
    return paths


def pair():
    shape = (30, 32, 34)
    grid = Grid.from_parts(shape[::-1], spacing=(1.5, 1.5, 1.5))
    fixed, moving = (bright_blob(shape, (1.5,) * 3, (25.0, 24.0, c), 8.0)[0] for c in (22.0, 24.0))
    return Pair(Image(fixed, grid), Image(moving, grid))


@pytest.mark.parametrize("kind", [VoxelMorph, FNOReg])
def test_refining_lowers_the_loss_and_leaves_the_model_as_it_is(models, kind):
    path = models[kind.__name__]
    before = weights.load(path).manifest.sha256
    torch.manual_seed(0)
    fit = kind(model=path, refine=12)(pair(), "mse", "cpu", Monitor())
    assert isinstance(fit, Fit)
    assert fit.curve[-1][2] < fit.curve[0][2]
    assert weights.checksum(weights.load(path).state) and weights.load(path).manifest.sha256 == before
    once, twice = (kind(model=path)(pair(), "mse", "cpu", Monitor()).chain.forward for _ in range(2))
    assert torch.equal(once, twice)


@pytest.mark.parametrize("kind", [VoxelMorph, FNOReg])
def test_a_model_whose_field_is_absurd_is_refused_before_anything_is_mended(models, kind, tmp_path):
    checkpoint = weights.load(models[kind.__name__])
    network = feedforward.build(kind.__name__, checkpoint.manifest.network)
    network.load_state_dict({name: value.float() * 100 for name, value in checkpoint.state.items()})
    weights.save(tmp_path / "absurd.pt", network, checkpoint.manifest)
    with pytest.raises(RegistrationError, match="across half of the image"):
        kind(model=str(tmp_path / "absurd.pt"))(pair(), "mse", "cpu", Monitor())


@pytest.mark.parametrize("kind", [VoxelMorph, FNOReg])
def test_a_model_of_plain_displacements_registers_and_has_an_inverse(models, kind, tmp_path):
    """Its field is the displacement; as a velocity it would be another one."""
    checkpoint = weights.load(models[kind.__name__])
    plain = dataclasses.replace(checkpoint.manifest, diffeomorphic=False)
    weights.save(tmp_path / "plain.pt", feedforward.network_of(checkpoint), plain)
    paths = models[kind.__name__], str(tmp_path / "plain.pt")
    once = {"scales": (1.0,)}
    integrated, chain = (kind(model=path, **once)(pair(), "mse", "cpu", Monitor()).chain for path in paths)
    assert not torch.allclose(chain.forward, integrated.forward, atol=0.01)
    inside = (slice(None), slice(None), *[slice(4, -4)] * 3)
    there_and_back = chain.forward + warp(chain.inverse, chain.forward)
    assert there_and_back[inside].abs().max() < 0.1 < chain.forward[inside].abs().max()


@pytest.mark.parametrize("residual", ["encoded", "siren"])
def test_cas_dnvf_continues_where_the_network_stopped(models, residual):
    settings = {
        "image_factors": (2.0,),
        "velocity_factors": (3.0,),
        "iterations": (10,),
        "windows": (3,),
        "strides": (1,),
    }
    method = CasDNVF(model=models["VoxelMorph"], residual=residual, rate=0.02, **settings)
    torch.manual_seed(0)
    fit = method(pair(), "mse", "cpu", Monitor())
    alone = VoxelMorph(model=models["VoxelMorph"])(pair(), "mse", "cpu", Monitor())
    assert fit.curve[-1][2] < fit.curve[0][2]
    assert alone.chain.forward is not None and fit.chain.forward is not None
    with pytest.raises(RegistrationError, match="one entry per stage"):
        CasDNVF(iterations=(1, 2, 3))


def test_models_are_found_by_name_and_checked_for_their_method(models, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "SHIPPED", tmp_path)
    shutil.copyfile(models["FNOReg"], tmp_path / "mine.pt")
    assert start.model("mine", "FNOReg").manifest.method == "FNOReg"
    with pytest.raises(RegistrationError, match="is a model of FNOReg"):
        start.model("mine", "VoxelMorph")
    with pytest.raises(RegistrationError, match="no model at"):
        start.model("yours", "VoxelMorph")


def test_images_unlike_the_training_get_a_sentence_that_names_the_better_choice():
    usual = [appearance((0.8 + 0.02 * k) * bright_blob(), SPACING) for k in range(5)]
    manifest = dataclasses.replace(MANIFEST, domain=domain_of(usual), contrast="T1", anatomy="blobs")
    assert unlike(manifest, 0.85 * bright_blob(), SPACING, "fixed") is None
    inverted = torch.where(bright_blob() > 0.05, 1.05 - bright_blob(), 0.0)
    assert "contrast of the moving image" in unlike(manifest, inverted, SPACING, "moving")
    said = unlike(manifest, inverted, SPACING, "moving")
    assert "DNVF" in said and "anycontrast" not in said, "that one is for brains"
    brains = dataclasses.replace(manifest, anatomy="brain")
    assert "voxelmorph_anycontrast, or DNVF" in unlike(brains, inverted, SPACING, "moving")
    for which, skull in ((manifest, False), (brains, True)):
        said = unlike(which, bright_blob(), (2.0, 3.0, 4.0), "fixed")
        assert "ml of tissue" in said and ("skull" in said) is skull
    assert unlike(MANIFEST, inverted, SPACING, "moving") is None
    alike = dataclasses.replace(manifest, domain=domain_of([appearance(bright_blob(), SPACING)] * 4))
    assert unlike(alike, 0.94 * bright_blob(), SPACING, "fixed") is None
    assert unlike(alike, 1.15 * bright_blob(), SPACING, "fixed") is None
    assert "contrast" in unlike(alike, 1.25 * bright_blob(), SPACING, "fixed")
    for times, fits in ((0.65, False), (0.75, True), (1.4, True), (1.5, False)):
        stretched = (times * SPACING[0], *SPACING[1:])
        assert (unlike(alike, bright_blob(), stretched, "fixed") is None) is fits, "volume"
    tiny = appearance(bright_blob()[..., 8:16, 8:16, 8:16], SPACING)
    assert domain_of([tiny]) == {}, "a few hundred voxels are no domain"
    assert domain_of([tiny, *usual]) == domain_of(usual)
    blind = dataclasses.replace(manifest, domain=domain_of(usual, any_contrast=True))
    assert unlike(blind, inverted, SPACING, "moving") is None
    assert "ml of tissue" in unlike(blind, inverted, (2.0, 3.0, 4.0), "moving")


def turned_over(image):
    """The image with its grey values in the opposite order; its histogram stays."""
    values, order = image[image > 0.05].sort()
    flipped = torch.empty_like(values).index_copy_(0, order, values.flip(0))
    return torch.zeros_like(image).masked_scatter_(image > 0.05, flipped)


def test_an_inverted_image_and_a_part_of_one_are_unlike_the_whole_ones_of_the_training():
    """Though the former has their very histogram, and the latter nearly their volume."""
    brains = [make_phantom(Grid.from_parts((34, 40, 30), spacing=(5.0,) * 3), seed=seed) for seed in range(3)]
    images, spacing = [normalised(brain.fixed).data[None] for brain in brains], (5.0,) * 3
    manifest = dataclasses.replace(MANIFEST, spacing=5.0, domain=domain_of([appearance(i, spacing) for i in images]))
    painted = dataclasses.replace(manifest, domain=domain_of([appearance(i, spacing) for i in images], True))
    for image in images:
        part = image.clone()
        part[..., :10, :] = 0
        assert unlike(manifest, image, spacing, "fixed") is None
        assert "contrast of the fixed image" in unlike(manifest, turned_over(image), spacing, "fixed")
        assert unlike(painted, turned_over(image), spacing, "fixed") is None
        for model in (manifest, painted):
            assert "ends in the middle of what it shows" in unlike(model, part, spacing, "fixed")
    old = {name: value for name, value in manifest.domain.items() if name not in ("cuts", "depths")}
    assert unlike(dataclasses.replace(manifest, domain=old), part, spacing, "fixed") is None, "it says nothing of them"


def test_an_image_sharper_than_those_of_the_training_is_not_unlike_them():
    """What averages away at the sampling of the training is no other contrast; one that stays is."""
    middle, coarse, fine = (24.0, 24.0, 24.0), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)
    blob = bright_blob((24, 24, 24), coarse, middle, 8.0)
    seen = [appearance((0.7 + 0.01 * k) * blob, coarse) for k in range(5)]
    manifest = dataclasses.replace(MANIFEST, domain=domain_of(seen), training={"spacing": 2.0})
    sharp = bright_blob((48, 48, 48), fine, middle, 8.0) * torch.tensor([0.2, 1.8]).repeat(24)
    assert unlike(manifest, 0.72 * sharp, fine, "fixed") is None
    assert "contrast" in unlike(manifest, 1.3 * sharp, fine, "fixed")
    sharper = dataclasses.replace(manifest, training={"spacing": 1.0})
    assert "contrast" in unlike(sharper, 0.72 * sharp, fine, "fixed")


def test_a_network_on_self_similarities_does_not_notice_an_inverted_contrast():
    torch.manual_seed(3)
    small = {"size": "voxelmorph-1", "half_resolution": True, "width": 0.25}
    fixed, moving = torch.rand(2, 1, 1, 17, 17, 17)
    for features, unmoved in (("mind", True), ("intensity", False)):
        network = feedforward.build("VoxelMorph", small | {"features": features}).requires_grad_(False)
        torch.nn.init.normal_(next(p for n, p in network.named_parameters() if n.endswith("field.weight")))
        same = torch.allclose(network(fixed, moving), network(fixed, 1 - 0.5 * moving), atol=1e-3)
        assert same is unmoved
    with pytest.raises(RegistrationError, match="mind"):
        feedforward.build("VoxelMorph", {"features": "minds"})


@pytest.mark.parametrize("method", ["VoxelMorph", "FNOReg"])
def test_where_a_network_is_placed_changes_nothing_that_it_says(models, method):
    checkpoint = weights.load(models[method])
    images = torch.rand(2, 1, 1, 17, 19, 21)
    usual, fast = feedforward.network_of(checkpoint), feedforward.placed(feedforward.network_of(checkpoint), "cpu")
    torch.testing.assert_close(fast(*images), usual(*images), atol=1e-5, rtol=1e-4)


def test_the_similarity_chooses_the_model():
    for method in ("VoxelMorph", "FNOReg"):
        assert start.model("auto", method, "lncc").manifest.contrast.startswith("T1")
        assert start.model("auto", method, "mse").manifest.method == method
    assert start.model("auto", "VoxelMorph", "mind").manifest.contrast.startswith("any")


@pytest.mark.parametrize("similarity", ["auto", "nmi", "lncc"])
def test_every_model_that_a_run_may_need_is_checked_before_it(similarity, monkeypatch):
    """With "auto", the images decide later which of two it is."""
    looked_at, load = set(), start.load
    monkeypatch.setattr(start, "load", lambda path: looked_at.add(path.stem) or load(path))
    VoxelMorph().check_model(similarity)
    expected = {"nmi": {"voxelmorph_anycontrast"}, "lncc": {"voxelmorph_t1"}}
    assert looked_at == expected.get(similarity, set.union(*expected.values()))


def test_a_network_at_work_can_be_cancelled():
    """Its layers take seconds on a processor: it is asked before each of them."""
    torch.manual_seed(0)
    checkpoint = Checkpoint(MANIFEST, feedforward.build(MANIFEST.method, MANIFEST.network).state_dict())
    image, calls = bright_blob(), []
    predict(checkpoint, image, image, SPACING, (12, 15, 20), lambda: calls.append(1))
    assert len(calls) > 10

    def impatient():
        calls.append(1)
        if len(calls) == 5:
            raise Cancelled

    calls.clear()
    with pytest.raises(Cancelled):
        predict(checkpoint, image, image, SPACING, (12, 15, 20), impatient)
    assert len(calls) == 5


@pytest.mark.parametrize("name", ["voxelmorph_t1", "fnoreg_t1", "voxelmorph_anycontrast"])
def test_half_precision_moves_a_point_by_next_to_nothing(monkeypatch, name):
    (path,) = (path for path in start.known_models() if path.stem == name)
    checkpoint = weights.load(path)
    pair = [bright_blob((60, 70, 64), (2.5, 2.5, 2.5), (80.0 + shift, 85.0, 75.0), 30.0) for shift in (0.0, 6.0)]
    whole = predict(checkpoint, *pair, (2.5, 2.5, 2.5), (60, 70, 64))
    monkeypatch.setattr(feedforward, "_halves", lambda device: True)
    half = predict(checkpoint, *pair, (2.5, 2.5, 2.5), (60, 70, 64))
    assert half.dtype == torch.float32
    moved_mm = 2.5 * (half - whole).norm(dim=1)  # on blobs, which move the networks most: in brains below 0.1
    assert 0 < float(moved_mm.mean()) < 0.05 and float(moved_mm.max()) < 0.5


def test_what_does_not_fit_into_half_precision_is_computed_in_whole(monkeypatch):
    class Loud(torch.nn.Module):
        """A network whose inner numbers are beyond what float16 holds."""

        def __init__(self):
            super().__init__()
            self.up, self.down = (torch.nn.Conv3d(n, m, 1, bias=False) for n, m in ((2, 4), (4, 3)))
            torch.nn.init.constant_(self.up.weight, 1e5)
            torch.nn.init.constant_(self.down.weight, 1e-5)

        def forward(self, fixed, moving):
            return self.down(self.up(torch.cat((fixed, moving), dim=1)))

    monkeypatch.setattr(feedforward, "network_of", lambda checkpoint: Loud())
    whole = predict(Checkpoint(MANIFEST, {}), bright_blob(), bright_blob(), SPACING, SHAPE)
    monkeypatch.setattr(feedforward, "_halves", lambda device: True)
    half = predict(Checkpoint(MANIFEST, {}), bright_blob(), bright_blob(), SPACING, SHAPE)
    assert whole.abs().max() > 0.5 and torch.equal(half, whole)


@pytest.mark.parametrize("either_order", [True, False])
def test_whoever_exchanges_the_images_gets_the_inverse(models, either_order):
    """Of a network that was shown its pairs in either order; of another one not even nearly."""
    checkpoint = weights.load(models["VoxelMorph"])
    checkpoint = Checkpoint(dataclasses.replace(checkpoint.manifest, either_order=either_order), checkpoint.state)
    fixed, moving = bright_blob(), bright_blob(centre_mm=(22.0, 20.0, 25.0), width_mm=7.0)
    there, back = (predict(checkpoint, *images, SPACING, SHAPE) for images in ((fixed, moving), (moving, fixed)))
    assert torch.allclose(there, -back, atol=1e-5) is either_order
    assert there.abs().max() > 0.05


@pytest.mark.parametrize("method", ["VoxelMorph", "FNOReg"])
@pytest.mark.parametrize("spacing", [1.0, 1.7, 5.0])
def test_at_another_spacing_a_network_sees_the_same_place(method, spacing):
    """VoxelMorph all of the working grid, FNOReg the field of view of its training; to within a voxel or so."""
    manifest = dataclasses.replace(MANIFEST, method=method, lattice=(33, 29, 37))
    here = Lens.of(Checkpoint(manifest, {}), bright_blob(), SPACING)
    there = Lens.of(feedforward.at_spacing(Checkpoint(manifest, {}), spacing), bright_blob(), SPACING)
    slack = (16 if method == "VoxelMorph" else 1) * max(spacing, MANIFEST.spacing)
    sides = [(np.array(lens.shape[::-1]) - 1) * s for lens, s in ((here, MANIFEST.spacing), (there, spacing))]
    assert np.abs(sides[0] - sides[1]).max() <= slack
    middles = [lens.working_from_network @ [*(np.array(lens.shape[::-1]) - 1) / 2, 1] for lens in (here, there)]
    np.testing.assert_allclose(*middles, atol=1e-9)


def test_every_pass_moves_what_is_left_at_whatever_scale(models, monkeypatch):
    """Passes of a "network" that always says 1 mm are so many millimetres in all; each sees its own lattice."""
    movers = []

    def network_of(checkpoint):
        movers.append(Mover((1.0, 0.0, 0.0), checkpoint.manifest.spacing, "LPS"))
        return movers[-1]

    plain = dataclasses.replace(weights.load(models["VoxelMorph"]).manifest, either_order=False)
    monkeypatch.setattr(feedforward, "network_of", network_of)
    monkeypatch.setattr(start, "model", lambda *names: Checkpoint(plain, {}))
    for scales, passes in (((2.0,), 1), ((2.0, 1.0), 2), ((1.0, 1.0, 0.2), 3), ((), 1)):
        movers.clear()
        chain = VoxelMorph(scales=scales)(pair(), "mse", "cpu", Monitor()).chain
        spacing = 1.5 * 33 / (chain.forward.shape[-1] - 1)
        middle = [n // 2 for n in chain.forward.shape[2:]]
        moved = chain.forward[0, :, middle[0], middle[1], middle[2]] * spacing
        torch.testing.assert_close(moved, torch.tensor([float(passes), 0, 0]), atol=0.05, rtol=0)
        expected = [max(2.0 * scale, 1.5) for scale in scales or plain.scales]
        steps = [33 * 1.5 / (m.seen.shape[-1] - 1) for m in movers]
        assert len(movers) == passes
        assert all(0.4 < step / wanted < 1.3 for step, wanted in zip(steps, expected, strict=True)), (steps, expected)


def test_a_pass_that_tangles_is_left_out_and_said(models, monkeypatch):
    class Wild(torch.nn.Module):
        """Calm at first, noise from its second pass on."""

        calls = 0

        def forward(self, fixed, moving):
            Wild.calls += 1
            random = torch.Generator().manual_seed(0)
            field = torch.randn(1, 3, *((n + 1) // 2 for n in fixed.shape[2:]), generator=random)
            return field * (0.01 if Wild.calls == 1 else 4.0)

    plain = dataclasses.replace(weights.load(models["VoxelMorph"]).manifest, either_order=False)
    monkeypatch.setattr(feedforward, "network_of", lambda checkpoint: Wild())
    monkeypatch.setattr(start, "model", lambda *names: Checkpoint(plain, {}))
    fit = VoxelMorph(scales=(1.0, 1.0, 1.0))(pair(), "mse", "cpu", Monitor())
    assert Wild.calls == 2 and fit.warnings == [start.TANGLES]
    assert 0 < float(fit.chain.forward.abs().max()) < 0.1
