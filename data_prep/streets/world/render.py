"""Views of a scene, and the examples of the benchmark."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from data_prep.streets.world import (
  camera_model,
  domains,
  geometry,
  grammar,
  hashing,
  shading,
  silhouettes,
  vehicles,
)
from data_prep.streets.world import materials as m
from data_prep.streets.world import scene as scene_lib

Size = tuple[int, int]
_VEHICLES = (m.CAR, m.TRUCK, m.BUS, m.TRAIN)


class View(NamedTuple):
  """One rendered view.

  Attributes:
    image: uint8 `[H, W, 3]`.
    label: uint8 `[H, W]` train ids, 255 on the ego bonnet.
    depth: float32 `[H, W]` planar metres, 0 where there is none (sky, bonnet).
    instance: uint16 `[H, W]`, 0 but for people and vehicles.
    intrinsics: float32 `[4]`: f_x, f_y, c_x, c_y in pixels.
  """

  image: np.ndarray
  label: np.ndarray
  depth: np.ndarray
  instance: np.ndarray
  intrinsics: np.ndarray


def scene_seed(family: str, split: str, index: int) -> int:
  """The seed of an example; it does not depend on the appearance."""
  return hashing.combine('streets', family, split, index)


def render_geometry(
  scene: scene_lib.Scene,
  size: Size,
  offset: tuple[float, float] = (0.0, 0.0),
) -> tuple[geometry.Buffer, geometry.Rays]:
  """Draws ground and things, nearest first, into a geometry buffer."""
  rays = geometry.make_rays(scene, size, offset)
  buffer = geometry.Buffer(size)
  geometry.draw_ground(buffer, rays, scene)
  for number, thing in enumerate(scene.things, start=1):
    instance = number * (thing.label >= m.FIRST_INSTANCE_CLASS)
    middle = thing.z + thing.length / 2
    x = rays.lateral(thing.x, middle)
    if not _in_view(rays, thing, x):
      continue
    surface = geometry.Surface(thing, instance, x)
    if thing.label in _VEHICLES:
      vehicles.draw(buffer, rays, surface)
    elif thing.length:
      _draw_block(buffer, rays, surface)
    else:
      silhouette = silhouettes.BY_LABEL[thing.label]
      geometry.draw_card(buffer, rays, surface, silhouette)
  return buffer, rays


def _in_view(rays: geometry.Rays, thing: scene_lib.Thing, x: float) -> bool:
  """Whether a thing can reach into the image."""
  near = max(thing.z - rays.z, geometry.NEAR)
  far = thing.z + thing.length - rays.z
  if far < geometry.NEAR * 2:
    return False
  x0, x1 = x - thing.width / 2, x + thing.width / 2
  margin = 2 / rays.f
  low, high = rays.a[0] - margin, rays.a[-1] + margin
  right = max(x1 / near, x1 / max(far, near))
  left = min(x0 / near, x0 / max(far, near))
  return right >= low and left <= high


def _draw_block(
  buffer: geometry.Buffer, rays: geometry.Rays, surface: geometry.Surface
) -> None:
  """Draws a building, hedge, wall or fence."""
  thing = surface.thing
  z0, z1, top = thing.z, thing.z + thing.length, thing.height
  shape = geometry.profile([(z0, 0.0), (z1, 0.0), (z1, top), (z0, top)])
  x0, x1 = surface.x - thing.width / 2, surface.x + thing.width / 2
  hits = geometry.cast(buffer, rays, x0, x1, shape)
  if hits is None:
    return
  where, z, face = hits.where, hits.z, hits.face
  if thing.label == m.VEGETATION:
    along = np.where(face == geometry.Face.SIDE, z + rays.z, hits.x + rays.x)
    level = np.full_like(along, 3.0)
    edge = hashing.value_noise(along * 0.6, level, thing.seed)
    edge += 0.4 * hashing.value_noise(along * 2.1, level, thing.seed ^ 1)
    keep = hits.y < top * (0.8 + 0.14 * edge)
    where, z, face = (where[0][keep], where[1][keep]), z[keep], face[keep]
  if len(z):
    buffer.write(where, buffer.add(surface), z, m.Part.BODY, face)


def render_view(
  scene: scene_lib.Scene,
  domain: domains.Domain,
  size: Size,
  offset: tuple[float, float] = (0.0, 0.0),
  sensor: bool = True,
) -> View:
  """Renders one view.

  Args:
    scene: from `make_scene`.
    domain: only its appearance matters.
    size: height and width in pixels.
    offset: camera motion, metres to the right and ahead.
    sensor: False leaves the camera model out (exact radiance, for tests).

  Returns:
    A `View`.
  """
  buffer, rays = render_geometry(scene, size, offset)
  label, instance = buffer.labels(), buffer.instances()
  image = shading.shade(buffer, rays, scene, domain, label)
  bonnet = _bonnet(scene, size)
  if sensor:
    steps = (round(offset[0] * 1000), round(offset[1] * 1000))
    seed = hashing.combine(scene.seed, 'sensor', *steps)
    image = camera_model.expose(image, buffer.depth, domain, seed, scene.seed)
  else:
    image = camera_model.quantise(image)
  depth = np.where(np.isfinite(buffer.depth), buffer.depth, 0)
  depth = depth.astype(np.float32)
  if bonnet is not None:
    gloss = np.linspace(52, 26, size[0], dtype=np.float32)[:, None, None]
    paint = image * np.float32(0.12) + gloss
    image = np.where(bonnet[..., None], paint.astype(np.uint8), image)
    label[bonnet], depth[bonnet], instance[bonnet] = m.IGNORE, 0, 0
  intrinsics = np.array([rays.f, rays.f, rays.cx, rays.cy], np.float32)
  return View(image, label, depth, instance, intrinsics)


def _bonnet(scene: scene_lib.Scene, size: Size) -> np.ndarray | None:
  """Mask of the ego bonnet: a shallow arc at the lower edge."""
  if not scene.bonnet:
    return None
  height, width = size
  across = (2 * np.arange(width) + 1) / width - 1
  edge = height * (1 - scene.bonnet * (1 - 0.45 * across * across))
  return np.arange(height)[:, None] + 0.5 > edge[None]


def render_example(
  domain: domains.Domain,
  split: str,
  index: int,
  size: Size,
  views: bool = False,
) -> dict[str, Any]:
  """One example of the benchmark.

  Args:
    domain: a street domain.
    split: split name; splits never share scenes.
    index: position in the split.
    size: height and width in pixels.
    views: also render the stereo twin and the two neighbouring frames.

  Returns:
    `image` uint8 `[H, W, 3]`; `label` uint8 `[H, W]`, train ids or 255;
    `depth` float32 `[H, W]`, metres, 0 where there is none; `instance` uint16
    `[H, W]`; `intrinsics` float32 `[4]`, (f_x, f_y, c_x, c_y) in pixels;
    `baseline` float32, metres. With `views`: `image_right`, `image_prev`,
    `image_next`, and `motion` float32 `[2, 3]`, the positions (x right, y
    down, z ahead, metres) of the previous and next camera in this frame.
  """
  scene = grammar.make_scene(scene_seed(domain.family, split, index), domain)
  view = render_view(scene, domain, size)
  example = {**view._asdict(), 'baseline': np.float32(scene.baseline)}
  if views:
    offsets = {
      'right': (scene.baseline, 0.0),
      'prev': (-scene.drift, -scene.step),
      'next': (scene.drift, scene.step),
    }
    for name, offset in offsets.items():
      example[f'image_{name}'] = render_view(scene, domain, size, offset).image
    motion = [(x, 0, z) for x, z in (offsets['prev'], offsets['next'])]
    example['motion'] = np.array(motion, np.float32)
  return example


def depth_to_centimetres(depth: np.ndarray) -> np.ndarray:
  """Stored form of depth: uint16 centimetres, 0 where there is none."""
  return np.floor(depth.astype(np.float64) * 100 + 0.5).astype(np.uint16)
