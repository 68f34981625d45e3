"""What a model makes of pixels: features, decisions, probabilities. Training uses it too."""
