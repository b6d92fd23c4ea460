"""Human bodies: SMPL, joints, cameras, motion files, fitting and regression."""
