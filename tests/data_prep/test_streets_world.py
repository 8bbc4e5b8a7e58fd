from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import pytest

from data_prep.streets import world
from data_prep.streets.world import hashing
from data_prep.streets.world import materials as m

SIZE = (48, 96)
SIZES = [(32, 64), (33, 65), (96, 192), (128, 256)]


def _scene(name='city', index=0, split='train'):
  domain = world.domain(name)
  seed = world.scene_seed(domain.family, split, index)
  return world.make_scene(seed, domain), domain


# Hashing.


def test_mix64_matches_the_published_splitmix64_outputs():
  # The first outputs of splitmix64 for the state 1234567.
  golden = 0x9E3779B97F4A7C15
  outputs = [hashing.mix64(1234567 + k * golden) for k in (1, 2, 3)]
  assert outputs == [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
  ]


def test_random_streams_have_the_right_moments():
  r = hashing.Random(3, 'moments')
  normals = np.array([r.normal() for _ in range(4000)])
  assert abs(normals.mean()) < 0.06
  assert abs(normals.std() - 1) < 0.04
  counts = np.array([r.poisson(2.5) for _ in range(4000)])
  assert abs(counts.mean() - 2.5) < 0.1
  assert abs(counts.var() - 2.5) < 0.25
  picks = np.bincount([r.choice((1, 0, 3)) for _ in range(4000)], minlength=3)
  assert picks[1] == 0
  assert abs(picks[2] / 4000 - 0.75) < 0.03
  assert {r.sign() for _ in range(50)} == {-1, 1}
  assert {r.integer(3) for _ in range(99)} == {0, 1, 2}


def test_streams_differ_by_name_and_poisson_grows_with_the_rate():
  assert hashing.Random(1, 'a').bits() != hashing.Random(1, 'b').bits()
  assert hashing.combine(1, 2) != hashing.combine(2, 1)
  for seed in range(50):
    low, high = (hashing.Random(seed).poisson(rate) for rate in (1.0, 3.0))
    assert low <= high


def test_value_noise_meets_lattice_values_and_is_continuous():
  x = np.arange(-8, 8, dtype=np.float64)
  y = np.zeros_like(x)
  at_lattice = hashing.value_noise(x, y, 5)
  expected = hashing.lattice_uniform(x, y, 5) * 2 - 1
  np.testing.assert_allclose(at_lattice, expected, atol=1e-6)
  just_below = hashing.value_noise(x - 1e-6, y, 5)
  np.testing.assert_allclose(just_below, at_lattice, atol=1e-4)
  dense = hashing.value_noise(*np.mgrid[0:40:0.3, 0:40:0.3], 6)
  assert dense.min() >= -1
  assert dense.max() <= 1
  assert 0.3 < dense.std() < 0.6


def test_sensor_noise_is_white_with_unit_variance():
  noise = hashing.pixel_normals(64, 96, 7)
  assert abs(noise.mean()) < 0.03
  assert abs(noise.std() - 1) < 0.03
  neighbours = (noise[:, 1:] * noise[:, :-1]).mean()
  channels = (noise[..., 0] * noise[..., 1]).mean()
  assert abs(neighbours) < 0.03
  assert abs(channels) < 0.04


# Domains.


def test_mix_ends_are_the_two_domains():
  assert world.mix(world.GTA, world.CITY, 0, 0) == world.GTA
  assert world.mix(world.GTA, world.CITY, 1, 1) == world.CITY
  half = world.mix(world.GTA, world.CITY, 0.5, 0)
  assert half.rates == world.GTA.rates
  assert half.saturation == pytest.approx(
    (world.GTA.saturation + world.CITY.saturation) / 2
  )
  rendered = [
    world.render_example(domain, 'train', 0, (32, 64))
    for domain in (world.mix(world.GTA, world.CITY, 0, 0), world.GTA)
  ]
  for key, value in rendered[0].items():
    np.testing.assert_array_equal(value, rendered[1][key])


def test_every_parameter_moves_monotonically():
  def numbers(value):
    if isinstance(value, tuple):
      return [number for part in value for number in numbers(part)]
    return [value]

  def vector(share):
    domain = world.mix(world.GTA, world.CITY, share, share)
    fields = dataclasses.asdict(domain)
    fields.pop('family')
    return np.array([n for v in fields.values() for n in numbers(v)], float)

  path = np.array([vector(share) for share in (0, 0.25, 0.5, 0.75, 1)])
  steps = np.diff(path, axis=0)
  assert np.all((steps >= -1e-12).all(0) | (steps <= 1e-12).all(0))


def test_presets_and_names():
  assert world.PRESETS['default'] == (0.5, 0.5)
  assert world.PRESETS['easy'] == (0.35, 0.35)
  assert world.PRESETS['hard'] == (0.65, 0.65)
  assert world.PRESETS['extreme'] == (1.0, 1.0)
  assert world.PRESETS['appearance'][1] == 0
  assert world.PRESETS['content'][0] == 0
  for name in world.names():
    assert isinstance(world.domain(name), world.Domain)
  assert world.domain('city') == world.domain('city_default')
  assert world.domain('city_extreme') == world.CITY
  with pytest.raises(ValueError, match=r'unknown street domain .*city_hard'):
    world.domain('city_medium')
  with pytest.raises(ValueError, match='appearance share'):
    world.mix(world.GTA, world.CITY, 1.5, 0)


# Examples.


@pytest.mark.parametrize('size', SIZES)
def test_example_shapes_types_and_ranges(size):
  example = world.render_example(world.domain('city'), 'train', 1, size)
  height, width = size
  assert example['image'].shape == (height, width, 3)
  assert example['image'].dtype == np.uint8
  assert example['label'].shape == size
  assert example['label'].dtype == np.uint8
  assert set(np.unique(example['label'])) <= {*range(19), m.IGNORE}
  assert example['depth'].dtype == np.float32
  assert example['instance'].dtype == np.uint16
  fx, fy, cx, cy = example['intrinsics']
  assert fx == fy
  assert 0.7 * width < fx < 1.3 * width
  assert cx == width / 2 - 0.5
  assert 0.35 * height < cy < 0.5 * height
  assert 0.2 < example['baseline'] < 0.35


def test_examples_are_deterministic_and_differ_by_split_index_and_family():
  gta, city = world.domain('gta'), world.domain('city')
  first = world.render_example(gta, 'train', 4, SIZE, views=True)
  again = world.render_example(gta, 'train', 4, SIZE, views=True)
  assert first.keys() == again.keys()
  for key, value in first.items():
    np.testing.assert_array_equal(value, again[key])
  for domain, split, index in (
    (gta, 'validation', 4),
    (gta, 'train', 5),
    (city, 'train', 4),
  ):
    other = world.render_example(domain, split, index, SIZE)
    assert (other['label'] != first['label']).mean() > 0.05


def test_all_classes_occur_in_both_domains():
  for name in ('gta', 'city'):
    domain = world.domain(name)
    counts = np.zeros(256, np.int64)
    for index in range(40):
      label = world.render_example(domain, 'train', index, SIZE)['label']
      counts += np.bincount(label.ravel(), minlength=256)
    assert (counts[:19] > 0).all()
    assert counts[19:255].sum() == 0


def test_depth_of_the_ground_is_exact():
  scene, domain = _scene('gta')
  view = world.render_view(scene, domain, (96, 192))
  ground = np.isin(view.label, (m.ROAD, m.SIDEWALK, m.TERRAIN))
  v, u = np.nonzero(ground)
  f, cy = scene.focal * 192, scene.horizon * 96
  expected = scene.height / ((v - cy) / f)
  np.testing.assert_array_equal(view.depth[v, u], expected.astype(np.float32))
  assert len(v) > 3000


@pytest.mark.parametrize('index', [0, 1, 2])
def test_ground_label_is_the_class_of_the_back_projected_point(index):
  scene, domain = _scene('city', index)
  view = world.render_view(scene, domain, (96, 192), offset=(0.2, 0.7))
  ground = np.isin(view.label, (m.ROAD, m.SIDEWALK, m.TERRAIN))
  v, u = np.nonzero(ground)
  fx, _, cx, _ = view.intrinsics.astype(np.float64)
  z = view.depth[v, u].astype(np.float64)
  ahead = z + 0.7
  x = (u - cx) / fx * z + scene.lateral + 0.2 - scene.curve * ahead**2
  # float32 depth and intrinsics: leave out points on a border.
  across = np.abs(x)
  borders = [scene.road, scene.road + scene.walk]
  near = np.min([np.abs(across - border) for border in borders], axis=0) < 1e-3
  for edge in np.ravel(scene.junctions):
    near |= np.abs(ahead - edge) < 1e-3
  label = np.where(across < scene.road + scene.walk, m.SIDEWALK, m.TERRAIN)
  label[across < scene.road] = m.ROAD
  for z1, z2 in scene.junctions:
    label[(ahead >= z1) & (ahead < z2)] = m.ROAD
  assert near.mean() < 0.01
  np.testing.assert_array_equal(view.label[v, u][~near], label[~near])


def test_sky_has_no_depth_and_everything_else_has():
  example = world.render_example(world.domain('gta'), 'train', 2, SIZE)
  sky = example['label'] == m.SKY
  assert sky.any()
  np.testing.assert_array_equal(example['depth'] == 0, sky)
  assert example['depth'].max() < 200


def test_instances_have_one_class_and_only_things_have_them():
  seen = 0
  for index in range(6):
    example = world.render_example(world.domain('city'), 'train', index, SIZE)
    label, instance = example['label'], example['instance']
    things = (label >= m.PERSON) & (label != m.IGNORE)
    np.testing.assert_array_equal(instance > 0, things)
    for number in np.unique(instance[instance > 0]):
      assert len(np.unique(label[instance == number])) == 1
      seen += 1
  assert seen > 20


def test_rider_sits_on_a_two_wheeler():
  for index in range(30):
    scene, _ = _scene('city', index)
    for rider in (t for t in scene.things if t.label == m.RIDER):
      below = [
        t
        for t in scene.things
        if t.label in (m.BICYCLE, m.MOTORCYCLE)
        and t.x == rider.x
        and abs(t.z - rider.z) < 0.1
      ]
      assert len(below) == 1


def test_vehicles_do_not_overlap():
  for index in range(10):
    scene, _ = _scene('city_extreme', index)
    cars = [t for t in scene.things if t.label in (m.CAR, m.BUS, m.TRUCK)]
    for i, a in enumerate(cars):
      for b in cars[i + 1 :]:
        apart = abs(a.x - b.x) >= (a.width + b.width) / 2
        apart |= a.z + a.length <= b.z or b.z + b.length <= a.z
        assert apart


# Domain axes and views.


def test_another_appearance_of_a_scene_has_the_same_labels():
  scene, domain = _scene('gta', 3)
  one = world.render_view(scene, domain, SIZE)
  two = world.render_view(scene, world.CITY, SIZE)
  for key in ('label', 'depth', 'instance', 'intrinsics'):
    np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
  difference = np.abs(one.image.astype(int) - two.image)
  assert difference.mean() > 15


def test_the_scene_does_not_depend_on_the_appearance():
  seed = world.scene_seed('city', 'train', 0)
  scenes = [
    world.make_scene(seed, world.mix(world.GTA, world.CITY, share, 0.5))
    for share in (0.1, 0.9)
  ]
  assert scenes[0] == scenes[1]


def test_bonnet_is_content():
  shares = []
  for content in (0.0, 0.5, 1.0):
    domain = world.mix(world.GTA, world.CITY, 0.5, content)
    example = world.render_example(domain, 'train', 0, (96, 192))
    bonnet = example['label'] == m.IGNORE
    shares.append(bonnet.mean())
    assert not bonnet[:80].any()
    assert (example['depth'][bonnet] == 0).all()
    assert (example['instance'][bonnet] == 0).all()
  assert shares[0] == 0
  assert 0.005 < shares[1] < shares[2] < 0.08


def _warp_right(right, depth, intrinsics, baseline):
  """Samples the right image at the left pixels, and where that is valid."""
  height, width = depth.shape
  u, v = np.meshgrid(np.arange(width), np.arange(height))
  target = u - intrinsics[0] * baseline / np.maximum(depth, 0.5)
  low = np.clip(np.floor(target).astype(int), 0, width - 2)
  part = np.clip(target - low, 0, 1)[..., None]
  image = (1 - part) * right.image[v, low] + part * right.image[v, low + 1]
  seen = [
    np.abs(right.depth[v, low + k] - depth) < 0.03 * depth for k in (0, 1)
  ]
  return image, seen[0] & seen[1] & (depth > 0) & (target >= 0)


def test_stereo_views_agree_through_the_true_depth():
  before, after = [], []
  for index in range(3):
    scene, domain = _scene('gta', index)
    baseline, size = scene.baseline, (96, 192)
    left = world.render_view(scene, domain, size, sensor=False)
    right = world.render_view(scene, domain, size, (baseline, 0), sensor=False)
    warped, both = _warp_right(right, left.depth, left.intrinsics, baseline)
    assert both.mean() > 0.5
    image = left.image.astype(float)
    before.append(np.abs(image - right.image)[both].mean())
    after.append(np.abs(image - warped)[both].mean())
  assert np.mean(before) > 3 * np.mean(after), (before, after)


def test_neighbouring_frames_agree_through_depth_and_motion():
  scene, domain = _scene('gta', 1)
  size, step = (96, 192), 1.0
  here = world.render_view(scene, domain, size, sensor=False)
  there = world.render_view(scene, domain, size, (0, step), sensor=False)
  _, _, cx, cy = here.intrinsics
  v, u = np.nonzero(here.depth > step + 1)
  z = here.depth[v, u]
  scale = z / (z - step)
  u2 = np.rint(cx + (u - cx) * scale).astype(int)
  v2 = np.rint(cy + (v - cy) * scale).astype(int)
  inside = (u2 >= 0) & (u2 < size[1]) & (v2 >= 0) & (v2 < size[0])
  v, u, v2, u2, z = (part[inside] for part in (v, u, v2, u2, z))
  same = np.abs(there.depth[v2, u2] - (z - step)) < 0.05 * z
  assert same.mean() > 0.8
  labels = here.label[v, u] == there.label[v2, u2]
  assert labels[same].mean() > 0.97
  image, moved = here.image.astype(float), there.image.astype(float)
  error = np.abs(image[v, u] - moved[v2, u2])[same].mean()
  still = np.abs(image[v, u] - moved[v, u])[same].mean()
  assert error < 0.6 * still


def test_views_are_the_views_of_the_scene():
  scene, domain = _scene('city', 6)
  example = world.render_example(domain, 'train', 6, SIZE, views=True)
  right = world.render_view(scene, domain, SIZE, (scene.baseline, 0))
  np.testing.assert_array_equal(example['image_right'], right.image)
  np.testing.assert_allclose(
    example['motion'],
    [[-scene.drift, 0, -scene.step], [scene.drift, 0, scene.step]],
    rtol=1e-6,
  )
  assert (example['image_prev'] != example['image_next']).any()


def test_stored_depth_is_in_centimetres():
  depth = np.array([0, 1.234, 171.996], np.float32)
  stored = world.depth_to_centimetres(depth)
  assert stored.dtype == np.uint16
  np.testing.assert_array_equal(stored, [0, 123, 17200])


# Golden values: the benchmark is the same everywhere and for ever.

GOLDEN = {
  ('gta', 0, (32, 64)): (
    (1208361714, 2985646332, 4232980577),
    (108.21, 111.73, 103.11),
  ),
  ('gta', 3, (96, 192)): (
    (4190002848, 4033558253, 3458203048),
    (135.18, 124.01, 120.66),
  ),
  ('city', 0, (96, 192)): (
    (3673148819, 4203040439, 1537803596),
    (90.27, 95.28, 89.61),
  ),
  ('city', 5, (33, 65)): (
    (3752820312, 2615339272, 2860973337),
    (107.09, 110.11, 105.08),
  ),
  ('city_hard', 1, (48, 96)): (
    (2518208902, 704404123, 3964586244),
    (95.96, 100.63, 93.24),
  ),
  ('city_extreme', 2, (96, 192)): (
    (2175968099, 2200807576, 1211157204),
    (91.62, 102.61, 93.11),
  ),
  ('city_extreme', 7, (256, 512)): (
    (3238732021, 2799360869, 3049540957),
    (79.2, 90.45, 81.38),
  ),
}


def _checksums(name, index, size):
  example = world.render_example(world.domain(name), 'validation', index, size)
  centimetres = world.depth_to_centimetres(example['depth'])
  arrays = (example['label'], example['instance'], centimetres)
  crc = tuple(zlib.crc32(a.astype('<u2').tobytes()) for a in arrays)
  return crc, tuple(np.round(example['image'].mean((0, 1)), 2).tolist())


@pytest.mark.parametrize(('name', 'index', 'size'), GOLDEN)
def test_golden(name, index, size):
  crc, mean = _checksums(name, index, size)
  expected_crc, expected_mean = GOLDEN[name, index, size]
  assert crc == expected_crc
  np.testing.assert_allclose(mean, expected_mean, atol=0.02)
