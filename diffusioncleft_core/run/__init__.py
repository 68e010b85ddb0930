"""The run: photographs in, LoRAs and synthetic sets out, stage by stage (`pipeline`)."""
