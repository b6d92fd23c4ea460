"""SMPLify: a body fitted to its joints in an image or in space."""
