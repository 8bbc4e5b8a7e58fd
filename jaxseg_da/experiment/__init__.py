"""The run: it joins configs, methods and the engine.

`resolve` and `checks` make a config that runs, `assembly` builds its stages
from the registry of methods, `pipeline` runs them in a work directory (`run`),
with shared baselines (`cache`), evaluations (`results`) and `pictures`.
"""
