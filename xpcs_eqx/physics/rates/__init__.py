"""Rates J(t) and γ̇(t) as functions of time, with their integrals."""
