"""Eight CPU devices, parsed absl flags, and no warm caches between tests."""

from __future__ import annotations

import jax
from absl import flags

jax.config.update('jax_num_cpu_devices', 8)
# Grain 0.2.18 reads an absl flag in its worker pool; parsing is main's work.
flags.FLAGS.mark_as_parsed()
