"""Configuration: from the command line to validated, frozen objects. Nothing deeper sees OmegaConf.

- `schema`: a run's settings and their limits; start reading here.
- `compose`: a command line to the configs of all its runs.
- `job`: a run that was asked for.
- `errors`: bad input as messages.
"""
