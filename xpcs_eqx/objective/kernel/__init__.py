"""The kernel of a fit: tiles of pairs, features of the model by frame, equations of a tile."""
