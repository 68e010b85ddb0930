"""The subcommands of `diffusioncleft study`, a file each."""
