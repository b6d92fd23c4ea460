"""Learnable SMPLify: SMPL poses from 3-D joints in one pass of a network, from a pose that is near."""
