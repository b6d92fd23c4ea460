"""SPIN: SMPL regressed from an image, taught by fits in the training loop."""
