"""The convolutional U-Net that T1U runs in the spectrum, here in space: a baseline."""
