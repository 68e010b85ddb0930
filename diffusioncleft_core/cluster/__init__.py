"""Work that is a list of independent jobs, done in this process or by workers on Ray."""
