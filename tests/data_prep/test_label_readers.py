from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep.synthia import ids as synthia_ids
from jaxseg_da import errors

CLASSES = np.arange(23, dtype=np.uint16)[None].repeat(4, 0)
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def png(array, colour_type):
  """A PNG of u16 `[H, W]` or `[H, W, C]` from the format's own words."""
  assert array.dtype == np.uint16

  def chunk(name, body):
    check = struct.pack('>I', zlib.crc32(name + body))
    return struct.pack('>I', len(body)) + name + body + check

  height, width = array.shape[:2]
  header = struct.pack('>IIBBBBB', width, height, 16, colour_type, 0, 0, 0)
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in array)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(rows))
    + chunk(b'IEND', b'')
  )


def official(classes):
  """As in GT/LABELS: class, instance, and a channel that means nothing."""
  rng = np.random.default_rng(1)
  instances = rng.integers(300, 65536, classes.shape, np.uint16)
  noise = rng.integers(0, 65536, classes.shape, np.uint16)
  return png(np.stack([classes, instances, noise], -1), RGB)


def small(array, palette=None, kind='PNG'):
  """An 8-bit file, as Pillow writes it."""
  image = Image.fromarray(array.astype(np.uint8))
  if palette is not None:
    image.putpalette(palette)
  buffer = io.BytesIO()
  image.save(buffer, kind)
  return buffer.getvalue()


def message(data):
  with pytest.raises(errors.UserError) as error:
    synthia_ids.read(data, 'GT/LABELS/0000007.png')
  text = str(error.value)
  assert text.startswith('GT/LABELS/0000007.png')
  assert '\n' not in text
  return text


@pytest.mark.parametrize(
  'data',
  [
    official(CLASSES),
    png(CLASSES, GREY),
    small(CLASSES),
    # Colours that would be valid classes, but other ones than the indices.
    small(CLASSES, palette=[*range(22, -1, -1)] * 3),
  ],
  ids=['official', 'grey16', 'grey8', 'palette8'],
)
def test_every_id_is_read(data):
  ids = synthia_ids.read(data, 'x.png')
  assert ids.dtype == np.uint8
  np.testing.assert_array_equal(ids, CLASSES)


@pytest.mark.parametrize('value', [23, 255, 3 + 256, 7 << 8, 65535])
def test_high_byte_survives(value):
  classes = CLASSES.copy()
  classes[2, 3] = value
  expected = f'value {value} is no SYNTHIA class (0 to 22)'
  assert expected in message(official(classes))
  assert expected in message(png(classes, GREY))


def test_high_byte_is_more_than_pillow_sees():
  """The trap: Pillow makes 8 bits of the same file without a word."""
  pixels = np.asarray(Image.open(io.BytesIO(official(CLASSES))).convert('RGB'))
  assert not pixels[..., 0].any()


def test_what_pillow_makes_of_the_original_is_named():
  image = Image.open(io.BytesIO(official(CLASSES))).convert('RGB')
  buffer = io.BytesIO()
  image.save(buffer, 'PNG')
  assert 'labels look 8-bit' in message(buffer.getvalue())


@pytest.mark.parametrize('palette', [None, [*range(256)] * 3])
def test_train_ids_are_named(palette):
  classes = CLASSES % 19
  classes[0] = 255
  text = message(small(classes, palette))
  assert 'look already mapped to train ids' in text


def test_other_values_in_8_bits_are_named():
  grey = CLASSES * 5
  grey[0, 0] = 255
  assert 'value 25 is no SYNTHIA class' in message(small(grey))


@pytest.mark.parametrize(
  ('colour_type', 'channels'), [(GREY_ALPHA, 2), (RGBA, 4)]
)
def test_transparency_is_no_label(colour_type, channels):
  data = png(np.stack([CLASSES] * channels, -1), colour_type)
  assert 'expected 3 of 16 bits' in message(data)


def test_floats_are_no_label():
  buffer = io.BytesIO()
  Image.fromarray(CLASSES.astype(np.float32)).save(buffer, 'TIFF')
  assert 'expected 3 of 16 bits' in message(buffer.getvalue())


@pytest.mark.parametrize('data', [official(CLASSES), small(CLASSES, [0] * 768)])
@pytest.mark.parametrize('share', [0.0, 0.02, 0.3, 0.9])
def test_truncated_files_are_refused(data, share):
  assert 'cannot be decoded' in message(data[: int(len(data) * share)])


def test_damaged_file_is_refused(capfd):
  data = bytearray(official(CLASSES))
  data[len(data) // 2] ^= 0xFF
  assert 'cannot be decoded' in message(bytes(data))
  capfd.readouterr()  # libpng prints its own remark.
