"""Accelerated MRI: what RecurrentVarNet, RIM, VarNet and the diffusion models share."""
