"""Eight CPU devices, quick and shared compilation, parsed absl flags."""

from __future__ import annotations

import gc

import jax
from absl import flags

from tests import scratch

jax.config.update('jax_num_cpu_devices', 8)
# Compiling takes longer than running here: LLVM's expensive passes are off, and
# what one test has compiled, on whatever worker, no other compiles again.
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_compilation_cache_dir', str(scratch.folder('compiled')))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
# Grain 0.2.18 reads an absl flag in its worker pool; parsing is main's work.
flags.FLAGS.mark_as_parsed()

# A session keeps millions of objects of traced programs alive: walking through
# all of them over and over would cost more than what there is to collect.
gc.set_threshold(100_000, 50, 100)
