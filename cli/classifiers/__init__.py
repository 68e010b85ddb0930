"""What stands behind `diffusioncleft downstream`."""
