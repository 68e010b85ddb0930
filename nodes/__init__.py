"""ComfyUI V3 nodes: sockets and widgets turned into calls of the core."""
