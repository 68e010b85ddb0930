"""A client for a ComfyUI server, by HTTP and websocket: it imports nothing of ComfyUI's and runs anywhere."""
