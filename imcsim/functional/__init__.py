"""What comes out: values, with clipping ADCs."""
