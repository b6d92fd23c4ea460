"""The Fourier neural operator."""
