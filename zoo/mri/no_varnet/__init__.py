"""NO-VarNet: an unrolled network of neural operators for any undersampling pattern."""
