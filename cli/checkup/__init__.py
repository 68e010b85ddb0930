"""What `diffusioncleft doctor` examines: machine, weights, ten training steps, a reload."""
