"""The engine: it knows a contract, and not who fills it.

`contract` is what a method is, `step` the pure training step made of it,
`train` the loop of one stage. Around them: random state, optimizers, devices,
checkpoints and metric sinks. Nothing here asks which method runs.
"""
