"""RIM: recurrent inference machines."""
