"""RecurrentVarNet: recurrent variational network in k-space."""
