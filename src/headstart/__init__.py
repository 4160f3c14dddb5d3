"""Transfer learning for 3D brain MRI: give your model a head start, and prove that it helped."""
