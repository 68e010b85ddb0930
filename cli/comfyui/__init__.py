"""The client of a ComfyUI server: workflows run headless, once or for every row of a plan."""
