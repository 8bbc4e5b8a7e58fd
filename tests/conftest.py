"""Eight CPU devices, quick compilation, parsed absl flags."""

from __future__ import annotations

import jax
from absl import flags

jax.config.update('jax_num_cpu_devices', 8)
# Compiling takes longer than running here: LLVM's expensive passes are off.
jax.config.update('jax_disable_most_optimizations', True)
# Grain 0.2.18 reads an absl flag in its worker pool; parsing is main's work.
flags.FLAGS.mark_as_parsed()
