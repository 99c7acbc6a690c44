"""Configuration: from the command line to validated, frozen objects. Nothing deeper sees OmegaConf.

- `compose`: a command line to the configs of all its runs; start reading here.
- `command`: a composed command line; `composer`: one run's overrides to its config; `trees`: configs
  as plain data; `job_folder`: Hydra's folder of each job.
- `loader`: Hydra's loader, for one command; `hydra_settings`, `targets`: checks of `hydra.*`.
- `parsing`, `overrides`: Hydra's grammar: overrides that set, sweep or search a value.
- `schema`, `model_config`, `optim_config`, `data_config`, `tracking_config`, `search_config`: the settings of
  a run and of a search, and their limits; `frozen`: their base; `launcher_config`: the launcher's settings.
- `own_network`: the user's own network, whose code runs only if it is typed.
- `plain_yaml`: YAML that is not trusted.
- `places`: where outputs and settings are.
- `identity`: the settings that identify a run.
- `run_request`: a run that was asked for.
- `errors`: bad input as messages.
"""
