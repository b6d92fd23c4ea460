"""The factorised Fourier neural operator."""
