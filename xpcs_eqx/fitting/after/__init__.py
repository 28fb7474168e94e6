"""What can be asked of a finished fit: profiles, bands, surfaces, diagnostics, degeneracies."""
