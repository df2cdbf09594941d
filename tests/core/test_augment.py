"""Augmentation: each operation against plain numpy, then how operations are drawn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from distilljax.core import augment as module
from distilljax.core.augment import DC, DSA, FREPO, OPERATIONS, augment, parse
from distilljax.types import InputError

BELOW_ONE = 1 - 2.0**-23  # the largest value of a float32 draw
NEUTRAL_SCALE = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)


def random_image(h=6, w=8, c=3, seed=0):
    return np.random.default_rng(seed).normal(size=(h, w, c)).astype(np.float32)


@functools.cache
def jitted(name, **settings):
    return jax.jit(lambda image, u: OPERATIONS[name](image, u, **settings))


def run(name, image, *u, **settings):
    u = np.asarray((*u, 0.0, 0.0)[:3], image.dtype)
    return np.asarray(jitted(name, **settings)(image, u))


def test_brightness_saturation_and_contrast_by_hand():
    """Pixels (1, 3) and (5, 7) of two channels."""
    image = np.array([[[1.0, 3.0], [5.0, 7.0]]], np.float32)
    # u0 = .75 adds .25; the other two factors are one.
    np.testing.assert_allclose(run("color", image, 0.75, 0.5, 0.5), image + 0.25)
    # u1 = 1/4 halves the distance from the channel means 2 and 6.
    np.testing.assert_allclose(
        run("color", image, 0.5, 0.25, 0.5), [[[1.5, 2.5], [5.5, 6.5]]]
    )
    # u2 = 0 halves the distance from the image's mean 4.
    np.testing.assert_allclose(
        run("color", image, 0.5, 0.5, 0.0), [[[2.5, 3.5], [4.5, 5.5]]]
    )
    # All three: +1/2, then grey, then half-way to the new mean 4.5.
    np.testing.assert_allclose(
        run("color", image, 1.0, 0.0, 0.0), [[[3.5, 3.5], [5.5, 5.5]]]
    )


@pytest.mark.parametrize("u", [(0.0, 0.0, 0.0), (0.1, 0.9, 0.3), (0.8, 0.2, BELOW_ONE)])
def test_color_formula(u):
    image = random_image()
    x = image.astype(np.float64) + (u[0] - 0.5)
    grey = x.sum(-1, keepdims=True) / x.shape[-1]
    x = grey + 2 * u[1] * (x - grey)
    x = x.mean() + (u[2] + 0.5) * (x - x.mean())
    np.testing.assert_allclose(run("color", image, *u), x, atol=2e-6)


def shifted(image, dy, dx):
    """out[i, j] = image[i + dy, j + dx], zero outside."""
    out = np.zeros_like(image)
    h, w, _ = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i + dy < h and 0 <= j + dx < w:
                out[i, j] = image[i + dy, j + dx]
    return out


def test_crop_takes_every_shift_up_to_four_pixels_of_32():
    image = random_image(32, 32, 1)
    middles = (np.arange(9) + 0.5) / 9
    grid = np.stack([*np.meshgrid(middles, middles, indexing="ij")], -1).reshape(-1, 2)
    out = jax.jit(jax.vmap(OPERATIONS["crop"], (None, 0)))(image, np.float32(grid))
    shifts = [(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5)]
    for (dy, dx), ours in zip(shifts, out, strict=True):
        np.testing.assert_array_equal(ours, shifted(image, dy, dx))


@pytest.mark.parametrize(("u", "shift"), [(0.0, -4), (BELOW_ONE, 4)])
def test_crop_bounds(u, shift):
    image = random_image(32, 32, 2)
    np.testing.assert_array_equal(run("crop", image, u, u), shifted(image, shift, shift))


def test_crop_bounds_follow_each_side():
    image = random_image(8, 16, 1)
    np.testing.assert_array_equal(run("crop", image, 0.0, 0.0), shifted(image, -1, -2))


@pytest.mark.parametrize(
    ("u", "rows", "columns"),
    [
        ((16.5 / 33, 20.5 / 33), (8, 24), (12, 28)),  # centres 16 and 20: all inside
        ((0.0, 0.0), (0, 8), (0, 8)),  # centre 0: half of it beyond the border
        ((BELOW_ONE, BELOW_ONE), (24, 32), (24, 32)),  # centre 32, the other extreme
        ((0.0, 31.5 / 33), (0, 8), (23, 32)),
    ],
)
def test_cutout_of_half_the_side(u, rows, columns):
    image = 1 + np.abs(random_image(32, 32, 3))
    expected = image.copy()
    expected[slice(*rows), slice(*columns)] = 0
    np.testing.assert_array_equal(run("cutout", image, *u), expected)


def test_cutout_of_an_odd_size_stays_centred():
    """Side 10: size 5, centres 0..9, two pixels on either side."""
    image = np.ones((10, 10, 1), np.float32)
    for centre in range(10):
        out = run("cutout", image, (centre + 0.5) / 10, 0.45)
        rows = np.flatnonzero(out[:, 4, 0] == 0)
        expected = [i for i in range(centre - 2, centre + 3) if 0 <= i < 10]
        np.testing.assert_array_equal(rows, expected)


def test_flip_below_a_half():
    image = random_image()
    np.testing.assert_array_equal(run("flip", image, 0.5 - 2.0**-24), image[:, ::-1])
    np.testing.assert_array_equal(run("flip", image, 0.0), image[:, ::-1])
    np.testing.assert_array_equal(run("flip", image, 0.5), image)
    np.testing.assert_array_equal(run("flip", image, 0.5 + 2.0**-23), image)


def grid_sample(image, matrix, align_corners):
    """Bilinear sampling with zeros outside, in float64, one output pixel at a time."""
    h, w, c = image.shape
    out = np.zeros((h, w, c))
    for i in range(h):
        for j in range(w):
            if align_corners:
                x, y = -1 + 2 * j / (w - 1), -1 + 2 * i / (h - 1)
            else:
                x, y = -1 + (2 * j + 1) / w, -1 + (2 * i + 1) / h
            x, y = matrix @ (x, y)
            if align_corners:
                x, y = (x + 1) / 2 * (w - 1), (y + 1) / 2 * (h - 1)
            else:
                x, y = ((x + 1) * w - 1) / 2, ((y + 1) * h - 1) / 2
            left, top = int(np.floor(x)), int(np.floor(y))
            for row, column in itertools.product((top, top + 1), (left, left + 1)):
                if 0 <= row < h and 0 <= column < w:
                    weight = (1 - abs(y - row)) * (1 - abs(x - column))
                    out[i, j] += weight * image[row, column]
    return out


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("u", [(0.0, BELOW_ONE), (0.1, 0.7), (BELOW_ONE, 0.0)])
def test_scale_and_rotate_sample_the_grid(u, align_corners):
    image = random_image(7, 12, 2)
    factors = [1 / 1.2 + value * (1.2 - 1 / 1.2) for value in u]
    expected = grid_sample(image, np.diag(factors), align_corners)
    ours = run("scale", image, *u, align_corners=align_corners)
    np.testing.assert_allclose(ours, expected, atol=2e-5)

    angle = np.deg2rad(-15 + 30 * u[0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = grid_sample(image, turn, align_corners)
    ours = run("rotate", image, *u, align_corners=align_corners)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    # The two conventions differ on images that are not square; so must we.
    other = run("rotate", image, *u, align_corners=not align_corners)
    assert np.abs(other - expected).max() > 1e-2


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_an_image_of_one_row_is_sampled_along_it(name, align_corners):
    """Its row is the centre: only places along it change."""
    row = random_image(1, 9, 1)
    factor = {"scale": 1 / 1.2, "rotate": np.cos(np.deg2rad(12))}[name]
    u = {"scale": (0.0, NEUTRAL_SCALE), "rotate": (0.9,)}[name]
    expected = np.interp(4 + factor * (np.arange(9) - 4), np.arange(9), row[0, :, 0])
    for image in (row, row.transpose(1, 0, 2)):
        found = run(name, image, *u, align_corners=align_corners)
        if name == "rotate" and not align_corners:
            assert np.isfinite(found).all()  # the ends of the row leave it
        else:
            np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)
        u = u[::-1]


@pytest.mark.parametrize("name", OPERATIONS)
def test_sides_of_one_pixel_are_finite_under_every_operation(name):
    for shape in ((1, 1), (1, 6), (6, 1)):
        for u in ((0.0, 0.0, 0.0), (0.3, 0.9, 0.6), (BELOW_ONE,) * 3):
            assert np.isfinite(run(name, random_image(*shape), *u)).all()


def test_raw_images_are_refused():
    raw = jnp.zeros((2, 8, 8, 1), jnp.uint8)
    for each in (False, True):
        with pytest.raises(InputError, match=r"^images are uint8.* transform\(images\)"):
            augment(jax.random.key(0), raw, each=each)
    np.testing.assert_array_equal(augment(jax.random.key(0), raw, strategy=""), raw)
    own = augment(jax.random.key(0), raw, strategy=lambda key, images: images + 1)
    np.testing.assert_array_equal(own, raw + 1)


def test_scale_stretches_a_ramp_about_the_centre():
    """The width's factor comes first: 1/1.2 draws columns together, all inside."""
    rows = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None, None], (9, 9, 1))
    columns = rows.transpose(1, 0, 2)
    middle = 4 + (np.arange(9) - 4) / 1.2
    out = run("scale", columns, 0.0, NEUTRAL_SCALE)
    np.testing.assert_allclose(out[3, :, 0], middle, atol=1e-5)
    out = run("scale", rows, NEUTRAL_SCALE, 0.0)
    np.testing.assert_allclose(out[:, 3, 0], middle, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_neutral_parameter_is_the_identity(align_corners):
    image = random_image(8, 8)
    settings = {"align_corners": align_corners}
    np.testing.assert_allclose(run("rotate", image, 0.5, **settings), image, atol=1e-5)
    scaled = run("scale", image, NEUTRAL_SCALE, NEUTRAL_SCALE, **settings)
    np.testing.assert_allclose(scaled, image, atol=1e-5)


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -15), (BELOW_ONE, 15)])
def test_rotation_reaches_15_degrees(u, degrees):
    """A ramp along the rows, read off around the centre."""
    ramp = np.arange(11, dtype=np.float32)
    image = np.broadcast_to(ramp[None, :, None], (11, 11, 1))
    out = run("rotate", image, u)[..., 0]
    angle = np.deg2rad(degrees)
    np.testing.assert_allclose(out[5, 6] - out[5, 5], np.cos(angle), atol=1e-4)
    np.testing.assert_allclose(out[6, 5] - out[5, 5], -np.sin(angle), atol=1e-4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_derivatives_are_those_of_an_affine_map(name, float64):
    """J e_i = op(e_i) - op(0) without error, forwards and backwards; jvp near it."""
    shape = (4, 6, 2)
    size = int(np.prod(shape))
    eps = 1e-5

    def operation(flat, u):
        return OPERATIONS[name](flat.reshape(shape), u).reshape(-1)

    @jax.jit
    def everything(u, x, tangent, cotangent):
        points = jnp.stack([x + eps * tangent, x - eps * tangent, 0 * x])
        points = jnp.concatenate([points, jnp.eye(size)])
        _, pushed = jax.jvp(lambda x: operation(x, u), (x,), (tangent,))
        _, pull = jax.vjp(lambda x: operation(x, u), x)
        return jax.vmap(operation, (0, None))(points, u), pushed, pull(cotangent)[0]

    u = np.array([0.37, 0.81, 0.13])
    x, tangent, cotangent = np.random.default_rng(1).normal(size=(3, size))
    (ahead, behind, zero, *rows), pushed, pulled = everything(u, x, tangent, cotangent)
    columns = np.stack(rows, axis=1) - np.asarray(zero)[:, None]
    assert np.abs(columns).max() > 0.1
    np.testing.assert_allclose(pushed, columns @ tangent, atol=1e-12)
    np.testing.assert_allclose(pulled, columns.T @ cotangent, atol=1e-12)
    np.testing.assert_allclose(pushed, (ahead - behind) / (2 * eps), atol=1e-9)


def test_gradients_of_moves_are_exact_moves():
    weights = random_image(8, 8)

    def pulled(name, *u):
        u = jnp.array((*u, 0.0, 0.0)[:3])
        image = jnp.zeros_like(weights)
        gradient = jax.grad(lambda x: jnp.vdot(weights, OPERATIONS[name](x, u)))
        return jax.jit(gradient)(image)

    np.testing.assert_array_equal(pulled("crop", 0.0, 0.0), shifted(weights, 1, 1))
    np.testing.assert_array_equal(pulled("flip", 0.0), weights[:, ::-1])
    kept = weights.copy()
    kept[:2, 2:6] = 0  # rows about centre 0, columns about centre 4
    np.testing.assert_array_equal(pulled("cutout", 0.0, 4.5 / 9), kept)


@pytest.fixture(scope="module")
def drawn():
    """name -> siamese draws for three images and for the first, per-image for eight."""
    images = jnp.stack([random_image(12, 12, 2, seed) for seed in (0, 1, 1)])

    @jax.jit
    def draw(key):
        return {
            name: (
                augment(key, images, strategy=name, siamese=True),
                augment(key, images[:1], strategy=name, siamese=True),
                augment(key, images[:1].repeat(8, 0), strategy=name),
            )
            for name in OPERATIONS
        }

    return images, [draw(jax.random.key(seed)) for seed in range(6)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_siamese_is_one_draw_whatever_the_batch(name, drawn):
    images, draws = drawn
    for draw in draws:
        three, first, _ = draw[name]
        np.testing.assert_allclose(first[0], three[0], atol=1e-5)
        np.testing.assert_allclose(three[1], three[2], atol=1e-5)
    assert max(np.abs(draw[name][0] - images).max() for draw in draws) > 0.1


@pytest.mark.parametrize("name", OPERATIONS)
def test_per_image_draws_differ(name, drawn):
    rows = np.asarray(drawn[1][0][name][2]).reshape(8, -1).round(3)
    different = len(np.unique(rows, axis=0))
    assert different == 2 if name == "flip" else different >= 6


def test_draws_are_uniform_and_apart_from_the_choice(monkeypatch):
    """Each operation is replaced by one that tells its number and its parameters."""
    for number, name in enumerate(DSA.split("_")):

        def tell(image, u, align_corners=True, number=number):
            return image[:1, :1, :1] * 0 + number + 0.9 * u

        monkeypatch.setitem(module.OPERATIONS, name, tell)
    images, num = jnp.zeros((2, 2, 2, 1)), 3000
    keys = jax.random.split(jax.random.key(0), num)
    for siamese in (True, False):
        draw = functools.partial(augment, images=images, siamese=siamese)
        out = jax.jit(jax.vmap(draw))(keys)
        told = np.asarray(out).reshape(num, 2, 3)
        chosen = np.floor(told).astype(int)
        assert (chosen == chosen[:, :1, :1]).all()  # one operation for the batch
        counts = np.bincount(chosen[:, 0, 0], minlength=6)
        expected = num / 6
        assert ((counts - expected) ** 2 / expected).sum() < 20.5  # p = .001, 5 degrees
        u = (told - chosen) / 0.9
        assert (u[:, 0] == u[:, 1]).all() == siamese
        for parameter in range(3):
            for number in range(6):
                drawn = u[chosen[:, 0, 0] == number, 0, parameter]
                error = np.sqrt(1 / 12 / len(drawn))
                assert abs(drawn.mean() - 0.5) < 4.5 * error
                assert drawn.min() < 0.02
                assert drawn.max() > 0.98


def test_the_published_strategies_name_every_operation():
    assert DSA == "color_crop_cutout_flip_scale_rotate"
    assert {*parse(DSA), *parse(FREPO), *parse(DC)} == set(OPERATIONS)
    assert len(OPERATIONS) == len(parse(DSA)) + len(parse(FREPO)) + len(parse(DC)) - 1
    assert set(parse(DSA)) & set(parse(FREPO)) == {"flip"}
    assert parse("flip_rotate") == ("flip", "rotate")


def test_an_empty_strategy_leaves_the_images_alone():
    images = jnp.asarray(random_image()[None])
    assert parse("") == ()
    np.testing.assert_array_equal(augment(jax.random.key(0), images, strategy=""), images)


@pytest.mark.parametrize(
    ("strategy", "bad"),
    [("color_crup", "crup"), ("flip__rotate", ""), ("Flip", "Flip"), ("flip,crop",) * 2],
)
def test_an_unknown_operation_is_named(strategy, bad):
    for refuse in (parse, lambda s: augment(jax.random.key(0), jnp.zeros(4), strategy=s)):
        with pytest.raises(InputError) as caught:
            refuse(strategy)
        message = str(caught.value)
        assert f"no operation {bad!r}" in message
        assert repr(strategy) in message
        assert all(name in message for name in OPERATIONS)


def test_jit_and_vmap_over_keys_agree_with_a_loop():
    images = jnp.asarray(random_image(8, 8, 3)[None].repeat(3, 0))
    keys = jax.random.split(jax.random.key(1), 8)
    one = jax.jit(lambda key: augment(key, images, strategy="color_crop_flip"))
    alone = [one(key) for key in keys]
    assert one._cache_size() == 1
    together = jax.jit(jax.vmap(one))(keys)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(np.unique(np.asarray(together)[:, 0].reshape(8, -1), axis=0)) > 4


def test_the_sampling_convention_is_passed_on():
    images = jnp.asarray(random_image(8, 16)[None])

    @jax.jit
    def both():
        def turned(align_corners):
            return augment(
                jax.random.key(0), images, strategy="rotate", align_corners=align_corners
            )

        return (
            turned(True),
            turned(False),
            augment(jax.random.key(0), images, strategy="rotate"),
        )

    aligned, not_aligned, default = both()
    assert np.abs(aligned - not_aligned).max() > 1e-2
    np.testing.assert_allclose(default, aligned, atol=1e-6)


@pytest.mark.parametrize("u", [(0.0, 0.0, 0.0), (0.9, 0.2, 0.7), (0.5, BELOW_ONE, 0.1)])
def test_jitter_formula(u):
    image = random_image()
    x = image.astype(np.float64) + (u[0] - 0.5) / 2
    x = x.mean() + np.exp((u[1] - 0.5) / 2) * (x - x.mean())
    grey = x.sum(-1, keepdims=True) / x.shape[-1]
    x = grey + np.exp((u[2] - 0.5) / 2) * (x - grey)
    np.testing.assert_allclose(run("jitter", image, *u), x, atol=2e-6)


def test_a_hole_is_a_quarter_of_the_side_and_everywhere_inside():
    """12 x 8 pixels: 3 x 2 of them vanish, at any of 10 x 7 places, never fewer."""
    image = np.ones((12, 8, 1), np.float32)
    places = set()
    for y, x in itertools.product(np.linspace(0, BELOW_ONE, 40), repeat=2):
        gone = np.argwhere(run("hole", image, y, x)[..., 0] == 0)
        assert len(gone) == 6
        top = tuple(gone[0])
        assert (gone == [np.add(top, d) for d in np.ndindex(3, 2)]).all()
        places.add(top)
    assert places == set(itertools.product(range(10), range(7)))


def sampled(image, rows, columns):
    """Bilinear values at fractional positions, the border repeated; one loop."""
    h, w, _ = image.shape
    out = np.zeros((*rows.shape, image.shape[2]))
    for place in np.ndindex(*rows.shape):
        y, x = np.clip(rows[place], 0, h - 1), np.clip(columns[place], 0, w - 1)
        i, j = min(int(y), h - 2), min(int(x), w - 2)
        a, b = y - i, x - j
        out[place] = (
            (1 - a) * (1 - b) * image[i, j]
            + (1 - a) * b * image[i, j + 1]
            + a * (1 - b) * image[i + 1, j]
            + a * b * image[i + 1, j + 1]
        )
    return out


@pytest.mark.parametrize("u", [(0.0, BELOW_ONE, 0.0), (0.3, 0.6, 0.45), (0.9, 0.1, 0.99)])
def test_moves_that_repeat_the_border(u):
    image = random_image(8, 16)
    rows, columns = np.mgrid[:8, :16].astype(float)
    shift = (1 - 2 * np.array(u[:2])) / 8 * (8, 16)
    expected = sampled(image, rows + shift[0], columns + shift[1])
    np.testing.assert_allclose(run("translate", image, *u), expected, atol=1e-4)

    factor = 0.8 * (1.25 / 0.8) ** u[2]  # log-uniform between the two
    y, x = (
        ((at - middle) + (2 * part - 1) * abs(side * (factor - 1) / 2)) / factor + middle
        for at, middle, part, side in ((rows, 3.5, u[0], 8), (columns, 7.5, u[1], 16))
    )
    np.testing.assert_allclose(run("zoom", image, *u), sampled(image, y, x), atol=1e-4)

    angle = np.deg2rad((2 * u[0] - 1) * 15)
    y = 3.5 + np.cos(angle) * (rows - 3.5) + np.sin(angle) * (columns - 7.5)
    x = 7.5 + np.cos(angle) * (columns - 7.5) - np.sin(angle) * (rows - 3.5)
    np.testing.assert_allclose(run("turn", image, u[0]), sampled(image, y, x), atol=1e-4)


@pytest.mark.parametrize("u", [(0.0, BELOW_ONE), (0.3, 0.6), (BELOW_ONE, 0.0)])
def test_a_shift_of_whole_pixels_is_filled_with_channel_means(u):
    image = random_image(10, 12, 2)
    padded = np.broadcast_to(image.mean((0, 1)), (18, 20, 2)).copy()
    padded[4:14, 4:16] = image
    y, x = (int(8 * value) for value in u)
    expected = padded[y : y + 10, x : x + 12]
    np.testing.assert_allclose(run("shift", image, *u), expected, atol=1e-6)


@pytest.mark.parametrize("u", [(0.0, 0.0), (0.0, BELOW_ONE), (0.5, 0.2), (0.9, 0.97)])
def test_a_stretch_lies_centred_on_a_canvas(u):
    """The authors' steps: enlarge to the nearest pixel, lay on a canvas, cut the middle."""
    h, w = 20, 28
    image = random_image(h, w, 2)
    high, wide = (int((0.8 + 0.4 * a) * side) for a, side in zip(u, (h, w), strict=True))
    rows, columns = np.arange(high) * h // high, np.arange(wide) * w // wide
    canvas = np.zeros((max(high, wide, h, w),) * 2 + (2,))
    top, left = (len(canvas) - high) // 2, (len(canvas) - wide) // 2
    canvas[top : top + high, left : left + wide] = image[rows][:, columns]
    top, left = (len(canvas) - h) // 2, (len(canvas) - w) // 2
    expected = canvas[top : top + h, left : left + w]
    np.testing.assert_array_equal(run("stretch", image, *u), expected)


@pytest.mark.parametrize(("u", "degrees"), [(0.0, -45), (0.5, 0), (0.7, 18), (0.999, 44)])
def test_a_tilt_by_whole_degrees_is_that_of_scipy(u, degrees):
    image = random_image(14, 14, 1)
    expected = scipy.ndimage.rotate(
        image, degrees, reshape=False, order=1, cval=float(image.mean())
    )
    inside = np.hypot(*(np.mgrid[:14, :14] - 6.5)) < 6  # the border is filled differently
    ours = run("tilt", image, u)
    np.testing.assert_allclose(ours[inside], expected[inside], atol=2e-5)
    if degrees == -45:
        np.testing.assert_allclose(ours[0, 0], image.mean(), atol=1e-6)


def test_each_image_has_its_own_operation():
    """Brightness or a flip: over many images both are seen, and each image has one."""
    images = jnp.asarray(random_image(8, 8, 3)[None].repeat(40, 0))
    out = augment(jax.random.key(0), images, strategy="flip_hole", each=True)
    holes = (np.asarray(out) == 0).any((1, 2, 3))
    assert 8 < holes.sum() < 32
    moved = np.abs(np.asarray(out)[~holes] - np.asarray(images[0])).max((1, 2, 3)) > 0.1
    assert 0 < moved.sum() < len(moved)
    one = augment(jax.random.key(0), images, strategy="flip_hole")
    assert (np.asarray(one) == 0).any((1, 2, 3)).all() or not (np.asarray(one) == 0).any()
    with pytest.raises(InputError, match="each=True"):
        augment(jax.random.key(0), images, strategy="flip", each=True, siamese=True)


@pytest.mark.parametrize("name", ["turn", "tilt", "zoom", "translate"])
def test_places_are_exact_on_accelerators(name):
    """In half precision, their default for products, they are off by 0.06 pixels."""
    operation = OPERATIONS[name]
    program = str(jax.make_jaxpr(operation)(jnp.ones((8, 8, 1)), jnp.full(3, 0.3)))
    assert program.count("precision=(Precision.HIGHEST") == program.count("dot_general[")
