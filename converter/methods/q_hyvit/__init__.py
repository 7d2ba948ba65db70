"""Q-HyViT, part by part."""
