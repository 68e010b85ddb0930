"""The run: photographs in, two LoRAs and a synthetic set out, stage by stage (`pipeline`)."""
